"""Messages in and out: CAP 1.2 XML, the national dialect and the JSON form, with one list of findings for all."""

from gateway.cap.certificate import Trust
from gateway.cap.check import Taken, check, parse, take
from gateway.cap.document import from_json, to_json
from gateway.cap.finding import FINDINGS, Finding
from gateway.cap.form import NAME_CHARS
from gateway.cap.national_form import Number
from gateway.cap.national_meaning import Loss, Unwritable
from gateway.cap.national_reader import is_national, read_national
from gateway.cap.national_writer import write_national
from gateway.cap.reader import MAX_BYTES, read
from gateway.cap.schema import AlertIn
from gateway.cap.signature import sign
from gateway.cap.writer import write

__all__ = [
    "FINDINGS", "MAX_BYTES", "NAME_CHARS", "AlertIn", "Finding", "Loss", "Number", "Taken", "Trust", "Unwritable",
    "check", "from_json", "is_national", "parse", "read", "read_national", "sign", "take", "to_json", "write",
    "write_national",
]  # fmt: skip
