"""Messages of the demonstration: the three versions of its warning, or a CAP file; and its `channels.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway import cap
from gateway.errors import Refused
from gateway.model import Alert, Area, Code, Document, Info, Kind, Level, Reference, Status

SENDER = "411726-qxj@mingluo.example"
WORDS = {
    Kind.ALERT: "未来3小时将有100毫米以上强降雨",
    Kind.UPDATE: "强降雨带南移，未来3小时仍有100毫米以上强降雨",
    Kind.CANCEL: "强降雨已经结束",
}


def warning(kind: Kind, sent: datetime, towns: Sequence[str], previous: Alert | None = None) -> Alert:
    """Return one version of tonight's warning. Each bears a minute of its own, by which its texts are told apart."""
    area = Area("泌阳县部分乡镇", geocodes=tuple(Code("township", town) for town in towns))
    info = Info(
        "暴雨", language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed",
        event_codes=(Code("GB/T 35561", "11B03"),), description=WORDS[kind], areas=(area,),
        expires=sent + timedelta(hours=3),
    )  # fmt: skip
    references = (Reference(previous.sender, previous.identifier, previous.sent),) if previous else ()
    return Alert(
        SENDER, f"41172641600000_{sent:%Y%m%d%H%M%S}_{kind.value}", sent, Status.ACTUAL, kind, Document.WARNING,
        "11B03", "暴雨", Level.RED, infos=(info,), references=references,
    )  # fmt: skip


def given(file: Path) -> Alert:
    """Read the CAP file somebody wants to see issued.

    Raises:
        OSError: it cannot be read.
        Refused: 400 with the findings, 422 if it is over; before anything is started for it.
    """
    with file.open("rb") as stream:
        alert, findings = cap.parse(stream.read(cap.MAX_BYTES + 1))
    if alert is None:
        wrong = [one for one in findings if one.severity == "error"]
        first = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        said = f"{first.element or 'message'}: {first.code}: {first.message}{more}"
        raise Refused(400, "malformed", f"{file.name} is no valid message: {said}")
    ends = [moment for moment in (alert.expires, *(info.expires for info in alert.infos)) if moment is not None]
    if ends and max(ends) <= datetime.now(UTC):
        raise Refused(422, "expired", f"{file.name} expired at {max(ends).isoformat()}; give it a later <expires>")
    return alert


def channels(sms_url: str, api_url: str, vapid: str) -> str:
    """Return `channels.toml` for the counterparts."""
    return f"""
[sms_twilio]
account_sid = "AC{"0" * 32}"
auth_token = "simulated-token"
sender = "+8610000000000"
public_url = "{api_url}"
base_url = "{sms_url}"
takes_replies = true
pool = 50

[web_push]
vapid_private_key = "{vapid}"
vapid_subject = "mailto:duty@mingluo.example"
services = ["127.0.0.1"]
allow_private = true

[loudspeaker_ws]
repeat = 1
"""
