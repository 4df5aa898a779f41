"""SMS through China Telecom's gateways: SMGP 3.0.3.

Sessions, bulk submits, long texts and the choice among accounts are `_carrier`'s; here is what SMGP says its own way.
A bulk submit has one MsgID: its reports are told apart by number.

Source: SMGP 3.0.3 sections 5.2 and 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar

from pydantic import Field

from channels import _smgp as smgp
from channels._carrier import CarrierChannel, CarrierSettings
from channels._field import WireError
from channels._meaning import Blame, Decision, Meaning
from channels._pdu import Pdu
from channels._smgp_code import report_meaning, result_meaning
from channels._wire import AccountSettings, Answer, Heard, Numbering, Sms, Spoken, Wire, national

STRUCTURE = 10
SEQUENCES = 1 << 32
NOT_GENUINE = Meaning(Decision.UNUSABLE, Blame.ACCOUNT, "the gateway does not know our secret", "网关认证失败")


class SmgpAccount(AccountSettings):
    """Table `[[sms_smgp.account]]`."""

    port: int = Field(smgp.PORT, ge=1, le=65535)
    client_id: str = Field(pattern=r"^[!-~]{1,8}$")
    check_answer: bool = True
    """The gateway must prove at login that it knows the secret, too."""


class SmgpSettings(CarrierSettings):
    """Table `sms_smgp`."""

    account: tuple[SmgpAccount, ...] = Field(min_length=1)


class Smgp(Wire[int]):
    """SMGP for one account."""

    codec = smgp.CODEC
    most: ClassVar[int] = smgp.MOST_NUMBERS
    beat: ClassVar[Pdu | None] = smgp.ActiveTest()
    beat_answer: ClassVar[Pdu | None] = smgp.ActiveTestResp()
    farewell: ClassVar[Pdu] = smgp.Exit()
    farewell_answer: ClassVar[Pdu] = smgp.ExitResp()
    login_answer: ClassVar[type[Pdu]] = smgp.LoginResp
    submit_answer: ClassVar[type[Pdu]] = smgp.SubmitResp
    requests: ClassVar[tuple[type[Pdu], ...]] = (smgp.Deliver,)
    account: SmgpAccount

    def sequences(self, numbering: Numbering) -> Iterator[int]:
        """Count from 1; only within the connection."""
        return Numbering(0, 1).numbers(1, SEQUENCES)

    def login(self, at: datetime) -> Pdu:
        """Login."""
        return smgp.login(self.account.client_id, self.secret, at)

    def admitted(self, request: smgp.Login, answer: smgp.LoginResp) -> Answer:
        """Judge Login_Resp."""
        if answer.status == 0 and self.account.check_answer and not smgp.genuine(answer, request, self.secret):
            return Answer(NOT_GENUINE, "not_genuine")
        return Answer(result_meaning(answer.status), f"login_{answer.status}")

    def submit(self, sms: Sms, part: int, content: bytes) -> Pdu:
        """Submit."""
        total = len(sms.contents)
        return smgp.Submit(
            service_id=self.account.service_id,
            valid_time=sms.validity,
            src_term_id=sms.source,
            dest_term_ids=sms.numbers,
            msg_content=content,
            parameters=smgp.long_text(total, part + 1) if total > 1 else (),
        )

    def answered(self, sequence: int, answer: smgp.SubmitResp, numbers: Sequence[str]) -> Answer:
        """Submit_Resp."""
        code = str(answer.status)
        if answer.status:
            return Answer(result_meaning(answer.status), code)
        return Answer(result_meaning(0), code, self.sent(smgp.reference(answer.msg_id), numbers))

    def hear(self, sequence: int, request: smgp.Deliver) -> Heard:
        """Deliver: a report or a reply."""
        if not request.is_report:
            spoken = Spoken(
                self.reference(smgp.reference(request.msg_id)), request.src_term_id, request.dest_term_id,
                request.msg_format, request.msg_content, smgp.has_header(request),
            )  # fmt: skip
            return Heard(smgp.DeliverResp(request.msg_id), spoken=spoken)
        try:
            told = smgp.read_report(request.msg_content)
        except WireError:
            return Heard(smgp.DeliverResp(request.msg_id, STRUCTURE))
        reference = self.tagged(smgp.reference(told.msg_id), national(request.src_term_id))
        code = f"{told.stat}/{told.err}"
        report = self.report(reference, report_meaning(told.stat, told.err), code, told.done_date)
        return Heard(smgp.DeliverResp(request.msg_id), report)

    def unreadable(self, command: int) -> Pdu | None:
        """Answer a Deliver of the wrong structure."""
        return smgp.DeliverResp(bytes(10), STRUCTURE) if command == smgp.Deliver.command else None


class SmsSmgp(CarrierChannel):
    """China Telecom."""

    name: ClassVar[str] = "sms_smgp"
    slice: ClassVar[int] = smgp.MOST_NUMBERS
    Settings = SmgpSettings
    settings: SmgpSettings

    def wire(self, account: Any) -> Smgp:
        """Return SMGP for an account."""
        return Smgp(self.name, account)
