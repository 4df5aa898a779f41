"""Codes of SMPP: what a response's status and a receipt's state mean, and what the gateway does.

Read by `sms_smpp`, and by the docs' table of error codes. An aggregator looks for the number's network itself, so no
code sends a number elsewhere.

Source: SMPP Protocol Specification v3.4, section 5.1.3 (command_status) and appendix B (states of a receipt).
"""

from __future__ import annotations

from channels._cmpp_code import stat_meaning as carrier_meaning
from channels._meaning import Blame, Decision, Meaning

_D, _B = Decision, Blame

STATUSES = {
    0x00: Meaning(_D.DONE, _B.MESSAGE, "taken, bound", "成功"),
    0x01: Meaning(_D.PERMANENT, _B.MESSAGE, "message length", "消息长度错"),
    0x02: Meaning(_D.PERMANENT, _B.MESSAGE, "command length", "命令长度错"),
    0x03: Meaning(_D.UNUSABLE, _B.ACCOUNT, "command unknown: does the account allow it?", "命令字错"),
    0x04: Meaning(_D.TEMPORARY, _B.ACCOUNT, "not bound for this command", "绑定状态错"),
    0x05: Meaning(_D.TEMPORARY, _B.ACCOUNT, "already bound: too many connections", "重复绑定"),
    0x06: Meaning(_D.UNUSABLE, _B.ACCOUNT, "priority", "非法优先级"),
    0x07: Meaning(_D.UNUSABLE, _B.ACCOUNT, "registered_delivery", "非法状态报告标志"),
    0x08: Meaning(_D.TEMPORARY, _B.CARRIER, "system error", "系统错误"),
    0x0A: Meaning(_D.UNUSABLE, _B.ACCOUNT, "source address: our number", "非法源地址"),
    0x0B: Meaning(_D.PERMANENT, _B.NUMBER, "destination address", "非法目的地址"),
    0x0C: Meaning(_D.PERMANENT, _B.MESSAGE, "message id", "消息ID错"),
    0x0D: Meaning(_D.TEMPORARY, _B.ACCOUNT, "bind failed", "绑定失败"),
    0x0E: Meaning(_D.UNUSABLE, _B.ACCOUNT, "password", "密码错"),
    0x0F: Meaning(_D.UNUSABLE, _B.ACCOUNT, "system_id", "系统标识错"),
    0x14: Meaning(_D.THROTTLED, _B.CARRIER, "message queue full", "消息队列满"),
    0x15: Meaning(_D.UNUSABLE, _B.ACCOUNT, "service_type", "非法业务类型"),
    0x43: Meaning(_D.PERMANENT, _B.MESSAGE, "esm_class", "非法esm_class"),
    0x45: Meaning(_D.TEMPORARY, _B.CARRIER, "submit failed, without a reason", "提交失败"),
    0x48: Meaning(_D.UNUSABLE, _B.ACCOUNT, "type of the source address (source_ton)", "源地址TON错"),
    0x49: Meaning(_D.UNUSABLE, _B.ACCOUNT, "numbering plan of the source address (source_npi)", "源地址NPI错"),
    0x50: Meaning(_D.UNUSABLE, _B.ACCOUNT, "type of the destination address (dest_ton)", "目的地址TON错"),
    0x51: Meaning(_D.UNUSABLE, _B.ACCOUNT, "numbering plan of the destination address (dest_npi)", "目的地址NPI错"),
    0x53: Meaning(_D.UNUSABLE, _B.ACCOUNT, "system_type", "非法系统类型"),
    0x58: Meaning(_D.THROTTLED, _B.ACCOUNT, "throttled", "流量控制"),
    0x61: Meaning(_D.PERMANENT, _B.MESSAGE, "scheduled delivery time", "非法定时时间"),
    0x62: Meaning(_D.PERMANENT, _B.MESSAGE, "validity period", "非法有效期"),
    0x64: Meaning(_D.TEMPORARY, _B.CARRIER, "temporary error", "临时错误"),
    0x65: Meaning(_D.PERMANENT, _B.CARRIER, "permanent error", "永久错误"),
    0x66: Meaning(_D.PERMANENT, _B.MESSAGE, "rejected", "被拒绝"),
    0xC3: Meaning(_D.PERMANENT, _B.MESSAGE, "an optional parameter is missing", "缺少可选参数"),
    0xFE: Meaning(_D.TEMPORARY, _B.CARRIER, "delivery failed", "下发失败"),
    0xFF: Meaning(_D.TEMPORARY, _B.CARRIER, "unknown error", "未知错误"),
}
"""command_status of responses, section 5.1.3."""

OTHER_STATUS = Meaning(
    _D.TEMPORARY, _B.CARRIER, "the aggregator's own code (0x400–0x4FF), or an unlisted one", "其他错误"
)

STATS = {
    "DELIVRD": Meaning(_D.DONE, _B.NUMBER, "delivered", "已送达"),
    "ENROUTE": Meaning(_D.WAIT, _B.NUMBER, "on its way", "正在发送"),
    "ACCEPTD": Meaning(_D.WAIT, _B.NUMBER, "an intermediate state", "中间状态"),
    "EXPIRED": Meaning(_D.TEMPORARY, _B.NUMBER, "not reached while it was valid", "有效期内未送达"),
    "DELETED": Meaning(_D.PERMANENT, _B.MESSAGE, "deleted on the way", "已被删除"),
    "UNDELIV": Meaning(_D.PERMANENT, _B.NUMBER, "undeliverable", "无法送达"),
    "UNKNOWN": Meaning(_D.UNKNOWN, _B.CARRIER, "the message centre does not know", "状态未知"),
    "REJECTD": Meaning(_D.PERMANENT, _B.MESSAGE, "rejected", "被拒绝"),
}
"""stat of receipts, appendix B, and message_state."""


def shown(status: int) -> str:
    """Return a status as the specification writes it."""
    return f"{status:#04x}"


def status_meaning(status: int) -> Meaning:
    """Look up the status of a response."""
    return STATUSES.get(status, OTHER_STATUS)


def stat_meaning(stat: str) -> Meaning:
    """Look up the state of a receipt; aggregators hand the carriers' own on."""
    return STATS.get(stat) or carrier_meaning(stat)._replace(elsewhere=False)
