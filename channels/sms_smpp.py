"""SMS through an aggregator: SMPP 3.4.

Sessions, long texts and the choice among accounts are `_carrier`'s; here is what SMPP says its own way. One number a
submit. Message ids are text: where an aggregator answers them in one base and reports them in another, the account's
`ids` says so. A reply has no id in SMPP, so each is a new one.

Source: SMPP Protocol Specification v3.4, sections 4 and 5, appendix B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from secrets import token_hex
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from channels import _smpp as smpp
from channels._carrier import CarrierChannel, CarrierSettings
from channels._field import WireError
from channels._pdu import Pdu
from channels._smpp_code import shown, stat_meaning, status_meaning
from channels._sms_text import BINARY, UCS2
from channels._wire import COUNTRY, AccountSettings, Answer, Heard, Numbering, Sent, Sms, Spoken, Wire

STRUCTURE = 0x08  # ESME_RSYSERR
SEQUENCES = 1 << 31
LONGEST_PASSWORD = 8
BASES = {"same": (0, 0), "hex_decimal": (16, 10), "decimal_hex": (10, 16)}
DIGITS = {10: re.compile(r"[0-9]+"), 16: re.compile(r"[0-9A-Fa-f]+")}
CODINGS = {1: 0, 2: BINARY, 3: 0}  # data_coding where CMPP's Msg_Fmt, which `decoded` reads, has another meaning


class SmppAccount(AccountSettings):
    """Table `[[sms_smpp.account]]`. `src_id` is the source address, `secret` the password, `service_id` the type."""

    port: int = Field(smpp.PORT, ge=1, le=65535)
    system_id: str = Field(pattern=r"^[!-~]{1,15}$")
    system_type: str = Field("", pattern=r"^[!-~]{0,12}$")
    service_id: str = Field("", pattern=r"^[!-~]{0,5}$")
    source_ton: int = Field(0, ge=0, le=6)
    source_npi: int = Field(smpp.ISDN, ge=0, le=18)
    international: bool = True
    """Numbers leave with 86, as international ones; else as eleven digits of unknown type."""
    ids: Literal["same", "hex_decimal", "decimal_hex"] = "same"
    """Bases of a message id: in the answer to its submit, and in the text of its receipt."""
    heartbeat_s: float = Field(60.0, gt=0)

    @field_validator("secret")
    @classmethod
    def _fits(cls, secret: SecretStr) -> SecretStr:
        value = secret.get_secret_value()
        if not 1 <= len(value) <= LONGEST_PASSWORD or not (value.isascii() and value.isprintable()):
            raise ValueError(f"SMPP passwords have 1 to {LONGEST_PASSWORD} ASCII characters")
        return secret


class SmppSettings(CarrierSettings):
    """Table `sms_smpp`."""

    account: tuple[SmppAccount, ...] = Field(min_length=1)


class Smpp(Wire[int]):
    """SMPP for one account."""

    codec = smpp.CODEC
    most: ClassVar[int] = 1
    beat: ClassVar[Pdu | None] = smpp.EnquireLink()
    beat_answer: ClassVar[Pdu | None] = smpp.EnquireLinkResp()
    farewell: ClassVar[Pdu] = smpp.Unbind()
    farewell_answer: ClassVar[Pdu] = smpp.UnbindResp()
    login_answer: ClassVar[type[Pdu]] = smpp.BindTransceiverResp
    submit_answer: ClassVar[type[Pdu]] = smpp.SubmitSmResp
    requests: ClassVar[tuple[type[Pdu], ...]] = (smpp.DeliverSm,)
    account: SmppAccount

    def __init__(self, channel: str, account: SmppAccount) -> None:
        super().__init__(channel, account)
        self._answer_base, self._text_base = BASES[account.ids]
        self._type = smpp.INTERNATIONAL if account.international else 0
        self._country = COUNTRY if account.international else ""

    def sequences(self, numbering: Numbering) -> Iterator[int]:
        """Count from 1; only within the connection."""
        return Numbering(0, 1).numbers(1, SEQUENCES)

    def login(self, at: datetime) -> Pdu:
        """bind_transceiver."""
        return smpp.BindTransceiver(
            system_id=self.account.system_id, password=self.secret, system_type=self.account.system_type
        )

    def admitted(self, request: smpp.BindTransceiver, answer: smpp.BindTransceiverResp) -> Answer:
        """Judge bind_transceiver_resp."""
        return Answer(status_meaning(answer.command_status), f"login_{shown(answer.command_status)}")

    def submit(self, sms: Sms, part: int, content: bytes) -> Pdu:
        """submit_sm."""
        return smpp.SubmitSm(
            service_type=self.account.service_id,
            source_addr_ton=self.account.source_ton,
            source_addr_npi=self.account.source_npi,
            source_addr=sms.source,
            dest_addr_ton=self._type,
            dest_addr_npi=smpp.ISDN,
            destination_addr=self._country + sms.numbers[0],
            esm_class=smpp.UDHI if len(sms.contents) > 1 else 0,
            validity_period=sms.validity,
            registered_delivery=1,
            data_coding=UCS2,
            short_message=content,
        )

    def answered(self, sequence: int, answer: smpp.SubmitSmResp, numbers: Sequence[str]) -> Answer:
        """submit_sm_resp, or generic_nack."""
        status = answer.command_status
        if status or isinstance(answer, smpp.GenericNack):
            return Answer(status_meaning(status or STRUCTURE), shown(status))
        message = _canonical(answer.message_id, self._answer_base)
        return Answer(status_meaning(0), shown(0), [Sent(self.reference(message) if message else "")])

    def hear(self, sequence: int, request: smpp.DeliverSm) -> Heard:
        """deliver_sm: a receipt or a reply."""
        if not smpp.is_receipt(request):
            headed = smpp.long_reply(request)
            coding = CODINGS.get(request.data_coding, request.data_coding)
            spoken = Spoken(
                self.reference(f"mo-{token_hex(8)}"), request.source_addr, request.destination_addr,
                coding, smpp.content(request) if headed is None else headed, headed is not None,
            )  # fmt: skip
            return Heard(smpp.DeliverSmResp(), spoken=spoken)
        if request.esm_class & smpp.TYPE == smpp.INTERMEDIATE:
            return Heard(smpp.DeliverSmResp())
        try:
            told = smpp.read_receipt(request)
        except WireError:
            return Heard(smpp.DeliverSmResp(STRUCTURE))
        base = self._answer_base if told.literal else self._text_base
        code = f"{told.stat}/{told.err}" if told.err else told.stat
        reference = self.reference(_canonical(told.message_id, base))
        return Heard(smpp.DeliverSmResp(), self.report(reference, stat_meaning(told.stat), code, told.done[:10]))

    def unreadable(self, command: int) -> Pdu | None:
        """Answer a deliver_sm of the wrong structure."""
        return smpp.DeliverSmResp(STRUCTURE) if command == smpp.DeliverSm.command else None


def _canonical(message_id: str, base: int) -> str:
    """Return an id as the ledger has it: a number in decimal where the base is known, else as it is."""
    if base and DIGITS[base].fullmatch(message_id):
        return str(int(message_id, base))
    return message_id if message_id.isascii() and message_id.isprintable() else message_id.encode("latin-1").hex()


class SmsSmpp(CarrierChannel):
    """An aggregator."""

    name: ClassVar[str] = "sms_smpp"
    slice: ClassVar[int] = 100
    Settings = SmppSettings
    settings: SmppSettings

    def wire(self, account: Any) -> Smpp:
        """Return SMPP for an account."""
        return Smpp(self.name, account)
