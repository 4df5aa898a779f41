"""Messages in and out: CAP 1.2 XML and its JSON form, with one list of findings for both."""

from gateway.cap.certificate import Trust
from gateway.cap.check import Taken, check, parse, take
from gateway.cap.document import from_json, to_json
from gateway.cap.finding import FINDINGS, Finding
from gateway.cap.reader import MAX_BYTES, read
from gateway.cap.schema import AlertIn
from gateway.cap.signature import sign
from gateway.cap.writer import write

__all__ = [
    "FINDINGS", "MAX_BYTES", "AlertIn", "Finding", "Taken", "Trust", "check", "from_json", "parse", "read", "sign",
    "take", "to_json", "write",
]  # fmt: skip
