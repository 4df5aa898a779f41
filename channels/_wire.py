"""The seam between sessions and protocols: what a session asks of a protocol, and what the two hand each other.

The protocols' channels (`sms_cmpp` and its neighbours) each write one `Wire`; `_conversation`, `_session`, `_account`
and `_carrier` know no protocol.

References: submit and report build the same string, in whatever process: `<account>/<message id>`, and where one id
stands for several numbers `<account>/<message id>#<tag>`. A tag is a keyed digest: no reference holds a number. What
one submit's numbers have in common stands before the `#`, so that the ledger keeps one row for all of them.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from channels._login import minute
from channels._meaning import Blame, Decision, Meaning
from channels._pdu import Codec, Pdu
from gateway.model import MEMBER, Lane, Report, State

S = TypeVar("S")

COUNTRY = "86"
MOBILE = re.compile(r"1[0-9]{10}")
DOUBT = Meaning(Decision.UNKNOWN, Blame.CARRIER, "it may have been sent", "可能已发送")
MINUTE = timedelta(minutes=1)
LONGEST_PORT = 20
LATEST = timedelta(hours=72)  # no report is older; a clock that says so is wrong

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_STATES = {
    Decision.DONE: State.DELIVERED,
    Decision.UNKNOWN: State.UNKNOWN,
    Decision.TEMPORARY: State.FAILED,
    Decision.THROTTLED: State.FAILED,
    Decision.PERMANENT: State.FAILED,
    Decision.UNUSABLE: State.FAILED,
}
"""What a report's meaning is in the ledger; an intermediate state is nothing yet."""


def national(number: str) -> str:
    """Return a mainland mobile number without its country, whatever a roster or carrier writes before it.

    Another country's keeps its sign: +1 and ten digits would be a stranger's number here.
    """
    if number.startswith("+") and not number[1:].removeprefix("00").startswith(COUNTRY):
        return number
    bare = number.lstrip("+").removeprefix("0086")
    return bare[2:] if len(bare) == 13 and bare.startswith(COUNTRY) else bare


class AccountSettings(BaseModel):
    """Table `[[sms_….account]]`: what the protocols have in common. The specifications' timers are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    secret: SecretStr
    src_id: str = Field(pattern=r"^[0-9]{1,20}$")
    """Our port."""
    extension: int = Field(0, ge=0, le=6)
    """Digits behind it that name the alert, so that a reply does; 0: the contract allows none."""
    service_id: str = Field("", max_length=10)
    connections: int = Field(1, ge=1, le=32)
    """As many as the contract allows, over all processes together."""
    window: int = Field(16, ge=1, le=10_000)
    """Unanswered submits per connection."""
    weight: float = Field(1.0, gt=0, le=1000)
    bulk: bool = True
    """Several numbers in one submit where the text is the same."""
    connect_s: float = Field(5.0, gt=0, le=20)
    answer_s: float = Field(20.0, gt=0, le=20)
    """Wait for an answer; the protocols' own T of 60 s would hold a warning up."""
    heartbeat_s: float = Field(180.0, gt=0)
    retry_s: float = Field(1.0, gt=0)
    """First wait before a connection is made again; it doubles up to a minute."""

    @model_validator(mode="after")
    def _port_fits(self) -> Self:
        if len(self.src_id) + self.extension > LONGEST_PORT:
            raise ValueError(
                f"src_id and extension have more than {LONGEST_PORT} digits together; ask for a shorter port"
            )
        return self


class Numbering(NamedTuple):
    """Which of an account's connections this is: what one counts, no other ever counts, in whatever process."""

    slot: int
    connections: int

    def numbers(self, start: int, limit: int) -> Iterator[int]:
        """Yield numbers below `limit` for ever, from about `start`, that no other slot yields."""
        steps = max(1, (limit - self.slot + self.connections - 1) // self.connections)
        for step in itertools.count(start // self.connections):
            yield self.slot + step % steps * self.connections


class Sent(NamedTuple):
    """Neighbouring numbers of one submit whose reports come under one reference; "" alone: it names its one number."""

    reference: str
    members: tuple[str, ...] = ("",)


class Answer(NamedTuple):
    """What became of one part of an SMS: under which references its numbers' reports come, or why there are none."""

    meaning: Meaning
    code: str = ""
    sent: Sequence[Sent] = ()

    @property
    def references(self) -> list[str]:
        """The references in full, parallel to the numbers."""
        return [
            f"{one.reference}{MEMBER}{name}" if name else one.reference for one in self.sent for name in one.members
        ]


class Sheet(Protocol):
    """Who waits for an SMS; see `_carrier`."""

    def settled(self, sms: Sms) -> None:
        """Take an SMS whose parts all have an answer."""

    def late(self, sms: Sms, part: int, answer: Answer) -> list[Report]:
        """Return the facts of an answer that came when nobody waited for it any more."""


@dataclass(slots=True, eq=False)
class Sms:
    """One text to the numbers of one submit: one PDU per part, all over one connection.

    `source` is our port with the alert's extension, `indices` are the numbers' places in the slice; `until`, by the
    loop's clock, is when it must have left.
    """

    sheet: Sheet
    text: str
    contents: list[bytes]
    numbers: tuple[str, ...]
    indices: Sequence[int]
    lane: Lane
    source: str
    validity: str
    until: float
    answers: list[Answer | None] = field(init=False)
    written: list[bool] = field(init=False)
    unanswered: int = field(init=False)

    def __post_init__(self) -> None:
        self.unanswered = len(self.contents)
        self.answers = [None] * self.unanswered
        self.written = [False] * self.unanswered

    @property
    def over(self) -> bool:
        """Whether every part has its answer."""
        return not self.unanswered

    def answer(self, part: int, answer: Answer) -> None:
        """Note one part's answer; a second one changes nothing."""
        if self.answers[part] is None:
            self.answers[part] = answer
            self.unanswered -= 1
            if not self.unanswered:
                self.sheet.settled(self)

    def withdraw(self, answer: Answer) -> None:
        """Give the parts that have not left this answer."""
        for part, written in enumerate(self.written):
            if not written:
                self.answer(part, answer)


class Spoken(NamedTuple):
    """A message a person sent, or one part of it (`headed`: it begins with a user data header)."""

    reference: str
    number: str
    dialled: str
    msg_fmt: int
    octets: bytes
    headed: bool


class Heard(NamedTuple):
    """What a carrier's request says, and the answer that acknowledges it. A report may say nothing yet."""

    answer: Pdu
    report: Report | None = None
    spoken: Spoken | None = None


class Wire(ABC, Generic[S]):
    """One protocol for one account. PDUs with fields of no interest are class facts."""

    channel: str
    codec: Codec[S]
    most: ClassVar[int]
    """Numbers in one submit."""
    on_demand: ClassVar[bool] = False
    """Connect to submit and leave when idle; there is no heartbeat."""
    idle_s: float = 30.0
    """When to leave, where `on_demand`: before the carrier does, after 60 s."""
    beat: ClassVar[Pdu | None] = None
    beat_answer: ClassVar[Pdu | None] = None
    farewell: ClassVar[Pdu]
    farewell_answer: ClassVar[Pdu]
    login_answer: ClassVar[type[Pdu]]
    submit_answer: ClassVar[type[Pdu]]
    requests: ClassVar[tuple[type[Pdu], ...]]
    """What `hear` reads."""

    def __init__(self, channel: str, account: AccountSettings) -> None:
        self.channel = channel
        self.account = account
        self.secret = account.secret.get_secret_value()
        self._digest = blake2b(digest_size=8, key=self.secret.encode()[:64])

    @abstractmethod
    def sequences(self, numbering: Numbering) -> Iterator[S]:
        """Yield the sequences of one connection's requests."""

    @abstractmethod
    def login(self, at: datetime) -> Pdu:
        """Return the request that logs in."""

    @abstractmethod
    def admitted(self, request: Any, answer: Any) -> Answer:
        """Judge the answer to a login."""

    @abstractmethod
    def submit(self, sms: Sms, part: int, content: bytes) -> Pdu:
        """Return the request for one part, from 0, of an SMS; `content` has its header."""

    @abstractmethod
    def answered(self, sequence: S, answer: Any, numbers: Sequence[str]) -> Answer:
        """Read the answer to a submit."""

    def foreseen(self, sequence: S, numbers: Sequence[str]) -> Sequence[Sent]:
        """Return the references of a submit without its answer, where we make the id."""
        return ()

    @abstractmethod
    def hear(self, sequence: S, request: Any) -> Heard:
        """Read a report or reply."""

    @abstractmethod
    def unreadable(self, command: int) -> Pdu | None:
        """Return the answer to a request whose body is not what its command says, if it wants one."""

    def reference(self, message: str) -> str:
        """Return the reference of an id that stands for one number."""
        return f"{self.account.name}/{message}"

    def tagged(self, message: str, number: str) -> str:
        """Return the reference of one number of an id that stands for several."""
        return f"{self.account.name}/{message}{MEMBER}{self._tags([number])[0]}"

    def sent(self, message: str, numbers: Sequence[str]) -> list[Sent]:
        """Return the references of an id that stands for several numbers."""
        return [Sent(self.reference(message), self._tags(numbers))]

    def _tags(self, numbers: Sequence[str]) -> tuple[str, ...]:
        digests = []
        for number in numbers:
            digest = self._digest.copy()
            digest.update(number.encode("latin-1", "replace"))
            digests.append(b2a_base64(digest.digest(), newline=False))
        *tags, _ = b"".join(digests).translate(_URL_SAFE).decode().split("=")  # eight octets end in one "="
        return tuple(tags)

    def report(self, reference: str, meaning: Meaning, code: str, done: str = "") -> Report | None:
        """Return the event for a report; None for an intermediate state."""
        state = _STATES.get(meaning.decision)
        if state is None:
            return None
        return Report(self.channel, reference, state, _moment(done), _plain(code), elsewhere=meaning.elsewhere)


# A million reports have a handful of codes and minutes.
_minute = lru_cache(maxsize=1024)(minute)


@lru_cache(maxsize=1024)
def _plain(code: str) -> str:
    """Return a carrier's code without whatever else a gateway may put there."""
    return "".join(letter for letter in code if letter.isascii() and (letter.isalnum() or letter in ":/-"))


def _moment(done: str) -> datetime:
    """Return when it happened: the end of the carrier's minute, but now if that has not ended, or cannot be."""
    now = datetime.now(UTC)
    told = _minute(done)
    if told is None:
        return now
    ended = told.astimezone(UTC) + MINUTE
    return ended if now - LATEST < ended < now else now
