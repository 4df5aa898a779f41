"""SMS through China Unicom's gateways: SGIP 1.2.

Sessions, bulk submits, long texts and the choice among accounts are `_carrier`'s; here is what SGIP says its own way.
There is no heartbeat: we connect to submit, and leave when idle. Reports and replies come over connections that the
gateway makes to our listener. Our sequence is a submit's id, known before any answer; a bulk has one for all.

Source: SGIP 1.2 sections 3.3, 3.4, 3.7 and chapter 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import randrange
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, model_validator

from channels import _sgip as sgip
from channels._carrier import CarrierChannel, CarrierSettings
from channels._listener import Desk, Listener, ListenerSettings
from channels._login import stamp
from channels._pdu import Pdu
from channels._sgip_code import report_meaning, result_meaning
from channels._wire import AccountSettings, Answer, Heard, Numbering, Sent, Sms, Spoken, Wire, national
from gateway.channel import Link

PARAMETER = 5
COUNTERS = 1 << 32


class SgipAccount(AccountSettings):
    """Table `[[sms_sgip.account]]`. `secret` belongs to `login_name`; `called_…`: what it says to us."""

    port: int = Field(sgip.PORT, ge=1, le=65535)
    login_name: str = Field(pattern=r"^[!-~]{1,16}$")
    area_code: str = Field(pattern=r"^[0-9]{3,4}$")
    corp_id: str = Field(pattern=r"^[0-9]{5}$")
    called_name: str = Field("", max_length=16)
    called_secret: SecretStr | None = None
    idle_s: float = Field(30.0, gt=0)


class SgipSettings(CarrierSettings):
    """Table `sms_sgip`."""

    account: tuple[SgipAccount, ...] = Field(min_length=1)
    listener: ListenerSettings

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [one.called_name or one.login_name for one in self.account]
        if len(set(names)) != len(names):
            raise ValueError("gateways call two accounts by one name: agree on another called_name for one of them")
        return self


class Sgip(Wire[sgip.Sequence]):
    """SGIP for one account."""

    codec = sgip.CODEC
    most: ClassVar[int] = sgip.MOST_NUMBERS
    on_demand: ClassVar[bool] = True
    farewell: ClassVar[Pdu] = sgip.Unbind()
    farewell_answer: ClassVar[Pdu] = sgip.UnbindResp()
    login_answer: ClassVar[type[Pdu]] = sgip.BindResp
    submit_answer: ClassVar[type[Pdu]] = sgip.SubmitResp
    requests: ClassVar[tuple[type[Pdu], ...]] = (sgip.Deliver, sgip.Report, sgip.UserRpt)
    account: SgipAccount

    def __init__(self, channel: str, account: SgipAccount) -> None:
        super().__init__(channel, account)
        self.idle_s = account.idle_s
        self._node = sgip.node_id(account.area_code, account.corp_id)

    def sequences(self, numbering: Numbering) -> Iterator[sgip.Sequence]:
        """Never the same again, in whatever process: a report names nothing else."""
        for counter in numbering.numbers(randrange(COUNTERS), COUNTERS):  # noqa: S311 - no secret
            yield sgip.Sequence(self._node, int(stamp(datetime.now(UTC))), counter)

    def login(self, at: datetime) -> Pdu:
        """Bind."""
        return sgip.Bind(sgip.SP_TO_SMG, self.account.login_name, self.secret)

    def admitted(self, request: sgip.Bind, answer: sgip.BindResp) -> Answer:
        """Judge Bind_Resp."""
        return Answer(result_meaning(answer.result), f"login_{answer.result}")

    def submit(self, sms: Sms, part: int, content: bytes) -> Pdu:
        """Submit."""
        return sgip.Submit(
            sp_number=sms.source,
            user_numbers=tuple([sgip.COUNTRY + number for number in sms.numbers]),
            corp_id=self.account.corp_id,
            service_type=self.account.service_id,
            expire_time=sms.validity,
            tp_udhi=len(sms.contents) > 1,
            message_content=content,
        )

    def answered(self, sequence: sgip.Sequence, answer: sgip.SubmitResp, numbers: Sequence[str]) -> Answer:
        """Submit_Resp."""
        sent = () if answer.result else self.foreseen(sequence, numbers)
        return Answer(result_meaning(answer.result), str(answer.result), sent)

    def foreseen(self, sequence: sgip.Sequence, numbers: Sequence[str]) -> Sequence[Sent]:
        """Our own sequence is the id."""
        return self.sent(sequence.octets.hex(), numbers)

    def hear(self, sequence: sgip.Sequence, request: sgip.Deliver | sgip.Report | sgip.UserRpt) -> Heard:
        """Deliver: a reply; Report; UserRpt, which is about the user's contract and only answered."""
        if isinstance(request, sgip.Deliver):
            spoken = Spoken(
                self.reference(sequence.octets.hex()), request.user_number, request.sp_number,
                request.message_coding, request.message_content, request.tp_udhi == 1,
            )  # fmt: skip
            return Heard(sgip.DeliverResp(), spoken=spoken)
        if isinstance(request, sgip.UserRpt):
            return Heard(sgip.UserRptResp())
        reference = self.tagged(request.submit_sequence.hex(), national(request.user_number))
        meaning = report_meaning(request.state, request.error_code)
        return Heard(sgip.ReportResp(), self.report(reference, meaning, f"{request.state}/{request.error_code}"))

    def unreadable(self, command: int) -> Pdu | None:
        """Answer a request of the wrong structure."""
        answers = {sgip.Deliver.command: sgip.DeliverResp, sgip.Report.command: sgip.ReportResp}
        return answers[command](PARAMETER) if command in answers else None


class SmsSgip(CarrierChannel):
    """China Unicom."""

    name: ClassVar[str] = "sms_sgip"
    slice: ClassVar[int] = sgip.MOST_NUMBERS
    Settings = SgipSettings
    settings: SgipSettings
    listener: Listener | None = None

    def wire(self, account: Any) -> Sgip:
        """Return SGIP for an account."""
        return Sgip(self.name, account)

    async def open(self, link: Link) -> None:
        """Begin to connect and to listen."""
        await super().open(link)
        self.listener = Listener(self.settings.listener, [self._desk(place) for place in range(len(self.accounts))])
        await self.listener.open(link, self.settings.account[0].retry_s)

    def _desk(self, place: int) -> Desk:
        settings, account = self.settings.account[place], self.accounts[place]
        secret = settings.called_secret or settings.secret
        return Desk(
            settings.called_name or settings.login_name, secret.get_secret_value(), account.wire, account.assembly
        )

    async def close(self) -> None:
        """Take leave of the carriers; stop listening last, for reports come until then."""
        await super().close()
        if self.listener is not None:
            await self.listener.close()
