"""What a simulated carrier is told to be like: its accounts, its limits, and what goes wrong.

A `Scenario` may be replaced while the carrier runs. Shares are 0 to 1; those of numbers fall on the same numbers
in every run, those of submits come from the seeded generator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal
from zlib import crc32

import msgspec

from gateway.errors import ConfigError

Fault = Literal["throttle", "unanswered", "drop", "cut", "garbage", "huge", "logout"]
"""What may befall a submit: answered with flow control and not taken; or taken, and then never answered; the
connection reset without an answer; reset in the middle of the answer; answered with noise; with a length of 4 GB;
answered, and the client logged out."""


class Account(msgspec.Struct, frozen=True):
    """An account (SP) the carrier knows."""

    name: str
    secret: str
    connections: int = 4
    """Most connections at a time."""
    source: str = ""
    """What the sender's number must begin with; "" takes any."""
    listener: str = ""
    """SGIP: host:port where the SP listens for reports and replies."""


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits, timing and faults. The defaults are a carrier on a good day, with the specifications' timers."""

    # Logging in
    login: int = 0
    """Refuse every login with this status."""
    silent: bool = False
    """Read, and answer nothing at all, not even a login or a heartbeat."""

    # Submits
    window: int = 16
    """Unanswered submits per connection before flow control; 0 lifts it."""
    rate: float = 0.0
    """Messages (numbers times parts) per second and connection before flow control; 0 lifts it."""
    answer_after_s: float = 0.0
    answer_spread_s: float = 0.0
    """Up to this much later, at random: answers change their order."""
    result: int = 0
    """Refuse every submit with this code."""
    bad: frozenset[str] = frozenset()
    """Numbers that make the carrier refuse the whole submit they stand in."""
    faults: dict[Fault, float] = {}

    # Delivery reports
    reports: Literal["before", "after", "never"] = "after"
    """Before or after the answer to the submit."""
    report_after_s: float = 0.0
    report_window: int = 16
    """Unacknowledged reports and replies per connection; 0 lifts it."""
    report_to: Literal["same", "any", "other", "next"] = "any"
    """Connection of the account: the submit's own, any, any but its own, or one that logs in later."""
    shuffled: bool = False
    """Reports change their order."""
    duplicated: float = 0.0
    """Share of numbers whose reports come twice."""
    lost: float = 0.0
    """Share of numbers whose reports never come."""
    late: float = 0.0
    """Share of numbers whose reports come `late_s` later."""
    late_s: float = 1.0
    accepted: bool = False
    """Send an intermediate report (ACCEPTD) first."""
    last_part: Literal["", "late", "lost", "failed"] = ""
    """What befalls the report of a long message's last part."""
    failing: float = 0.0
    """Share of numbers that cannot be reached."""
    failing_stat: str = ""
    """Their status (CMPP, SMGP, SMPP: stat or stat/err; SGIP: error code); "" takes the protocol's usual one."""
    stats: dict[str, str] = {}
    """Status by number."""
    bulk_ids: Literal["", "counted", "one"] = ""
    """Ids of a bulk's reports: the answered one + n, or the answered one for all; "" as the protocol says."""

    # Replies (MO)
    answering: float = 0.0
    """Share of numbers whose owners reply to what they were sent."""
    answer_text: str = "1"
    answering_after_s: float = 0.0

    # Timers
    heartbeat_s: float = 180.0
    """Silence after which the carrier asks whether the client is there; 0 never."""
    patience_s: float = 60.0
    """Wait for an answer or a login, before asking again; three tries, then the connection is closed."""
    idle_s: float = 60.0
    """SGIP: silence after which a connection is closed."""
    linger_s: float = 0.5
    """SGIP: silence after which the carrier takes leave of the SP's listener; also its wait between two calls."""


def revise(scenario: Scenario, changes: Mapping[str, object]) -> Scenario:
    """Return the scenario with some settings replaced; numbers may be given as text.

    Raises:
        ConfigError: no such setting, or not such a value.
    """
    # asdict keeps nested values as they are, and convert then checks the whole as if it came from a file.
    try:
        return msgspec.convert({**msgspec.structs.asdict(scenario), **changes}, Scenario, strict=False)
    except msgspec.ValidationError as error:
        names = ", ".join(Scenario.__struct_fields__)
        raise ConfigError(f"scenario: {error}; the settings are {names}") from error


def settings(texts: Iterable[str]) -> dict[str, Any]:
    """Read `name=value`; a value in brackets or braces is JSON.

    Raises:
        ConfigError: no name, or broken JSON.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"scenario: {text!r} is no setting; write name=value")
        try:
            found[name.strip()] = msgspec.json.decode(value) if value[:1] in ("[", "{") else value
        except msgspec.DecodeError as error:
            raise ConfigError(f"scenario: the value of {name.strip()} is not JSON: {error}") from error
    return found


def falls_in(share: float, question: str, number: str) -> bool:
    """Tell whether this number belongs to the share, the same in every run; cheap enough for 60,000 a second."""
    return share > 0 and crc32(number.encode(), crc32(question.encode())) < share * 2**32
