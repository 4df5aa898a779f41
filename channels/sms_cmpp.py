"""SMS through China Mobile's gateways: CMPP 3.0 and 2.0.

Sessions, bulk submits, long texts and the choice among accounts are `_carrier`'s; here is what CMPP says its own way.
A bulk submit's numbers have the ids Msg_Id, Msg_Id + 1, … (`bulk_ids = "counted"`); gateways that repeat one id in
all reports are told by number as well (`"one"`).

Source: CMPP 3.0 (QB-GF-028-2003) sections 8.3 and 8.4, annex 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import Field

from channels import _cmpp as cmpp
from channels._carrier import CarrierChannel, CarrierSettings
from channels._cmpp_code import result_meaning, stat_meaning, status_meaning
from channels._field import WireError
from channels._meaning import Blame, Decision, Meaning
from channels._pdu import Pdu
from channels._wire import AccountSettings, Answer, Heard, Numbering, Sent, Sms, Spoken, Wire, national
from gateway.model import MEMBER

STRUCTURE = 1
SEQUENCES = 1 << 32
OCTET = 1 << 8
OCTETS = tuple(f"{value:02x}" for value in range(OCTET))
VERSIONS = {"2.0": cmpp.V2, "3.0": cmpp.V3}
NOT_GENUINE = Meaning(Decision.UNUSABLE, Blame.ACCOUNT, "the gateway does not know our secret", "网关认证失败")


class CmppAccount(AccountSettings):
    """Table `[[sms_cmpp.account]]`. `source_addr` is our SP id."""

    port: int = Field(cmpp.PORT, ge=1, le=65535)
    source_addr: str = Field(pattern=r"^[!-~]{1,6}$")
    version: Literal["2.0", "3.0"] = "3.0"
    bulk_ids: Literal["counted", "one"] = "counted"
    check_answer: bool = True
    """The gateway must prove at login that it knows the secret, too."""


class CmppSettings(CarrierSettings):
    """Table `sms_cmpp`."""

    account: tuple[CmppAccount, ...] = Field(min_length=1)


class Cmpp(Wire[int]):
    """CMPP for one account."""

    most: ClassVar[int] = cmpp.MOST_NUMBERS
    beat: ClassVar[Pdu | None] = cmpp.ActiveTest()
    beat_answer: ClassVar[Pdu | None] = cmpp.ActiveTestResp()
    farewell: ClassVar[Pdu] = cmpp.Terminate()
    farewell_answer: ClassVar[Pdu] = cmpp.TerminateResp()
    login_answer: ClassVar[type[Pdu]] = cmpp.ConnectResp
    submit_answer: ClassVar[type[Pdu]] = cmpp.SubmitResp
    requests: ClassVar[tuple[type[Pdu], ...]] = (cmpp.Deliver,)
    account: CmppAccount

    def __init__(self, channel: str, account: CmppAccount) -> None:
        super().__init__(channel, account)
        self._version = VERSIONS[account.version]
        self.codec = cmpp.CODECS[self._version]

    def sequences(self, numbering: Numbering) -> Iterator[int]:
        """Count from 1; only within the connection."""
        return Numbering(0, 1).numbers(1, SEQUENCES)

    def login(self, at: datetime) -> Pdu:
        """CMPP_CONNECT."""
        return cmpp.connect(self.account.source_addr, self.secret, at, self._version)

    def admitted(self, request: cmpp.Connect, answer: cmpp.ConnectResp) -> Answer:
        """Judge CMPP_CONNECT_RESP."""
        if answer.status == 0 and self.account.check_answer and not cmpp.genuine(answer, request, self.secret):
            return Answer(NOT_GENUINE, "not_genuine")
        return Answer(status_meaning(answer.status), f"login_{answer.status}")

    def submit(self, sms: Sms, part: int, content: bytes) -> Pdu:
        """CMPP_SUBMIT."""
        total = len(sms.contents)
        return cmpp.Submit(
            pk_total=total,
            pk_number=part + 1,
            service_id=self.account.service_id,
            tp_udhi=total > 1,
            msg_src=self.account.source_addr,
            valid_time=sms.validity,
            src_id=sms.source,
            dest_terminal_ids=sms.numbers,
            msg_content=content,
        )

    def answered(self, sequence: int, answer: cmpp.SubmitResp, numbers: Sequence[str]) -> Answer:
        """CMPP_SUBMIT_RESP."""
        code = str(answer.result)
        if answer.result:
            return Answer(result_meaning(answer.result), code)
        first = answer.msg_id
        one = self.account.bulk_ids == "one"
        sent = self.sent(f"{first:016x}", numbers) if one else self._counted(first, len(numbers))
        return Answer(result_meaning(0), code, sent)

    def _counted(self, first: int, number: int) -> list[Sent]:
        """Return the references of ids that follow each other: a row for all that differ in the last octet alone."""
        octet = first & OCTET - 1
        until = min(number, OCTET - octet)
        sent = [Sent(self.reference(f"{first >> 8:014x}"), OCTETS[octet : octet + until])]
        if until < number:
            following = cmpp.nth(first, until)
            sent.append(Sent(self.reference(f"{following >> 8:014x}"), OCTETS[: number - until]))
        return sent

    def hear(self, sequence: int, request: cmpp.Deliver) -> Heard:
        """CMPP_DELIVER: a report or a reply."""
        if not request.registered_delivery:
            spoken = Spoken(
                f"{self.account.name}/{request.msg_id:016x}", request.src_terminal_id, request.dest_id,
                request.msg_fmt, request.msg_content, request.tp_udhi == 1,
            )  # fmt: skip
            return Heard(cmpp.DeliverResp(request.msg_id), spoken=spoken)
        try:
            told = cmpp.read_report(request.msg_content)
        except WireError:
            return Heard(cmpp.DeliverResp(request.msg_id, STRUCTURE))
        message = f"{told.msg_id:016x}"
        if self.account.bulk_ids == "one":
            reference = self.tagged(message, national(told.dest_terminal_id))
        else:
            reference = f"{self.reference(message[:-2])}{MEMBER}{message[-2:]}"
        report = self.report(reference, stat_meaning(told.stat), told.stat.strip(), told.done_time)
        return Heard(cmpp.DeliverResp(request.msg_id), report)

    def unreadable(self, command: int) -> Pdu | None:
        """Answer a CMPP_DELIVER of the wrong structure."""
        return cmpp.DeliverResp(0, STRUCTURE) if command == cmpp.Deliver.command else None


class SmsCmpp(CarrierChannel):
    """China Mobile."""

    name: ClassVar[str] = "sms_cmpp"
    slice: ClassVar[int] = cmpp.MOST_NUMBERS
    Settings = CmppSettings
    settings: CmppSettings

    def wire(self, account: Any) -> Cmpp:
        """Return CMPP for an account."""
        return Cmpp(self.name, account)
