"""Codes of SMGP: what a response's status and a report's state and error mean, and what the gateway does.

Read by `sms_smgp`, and by the docs' table of error codes.

Source: SMGP 3.0.3 section 6.2.
"""

from __future__ import annotations

from channels._meaning import Blame, Decision, Meaning

_D, _B = Decision, Blame

RESULTS = {
    0: Meaning(_D.DONE, _B.MESSAGE, "taken, logged in", "成功"),
    1: Meaning(_D.THROTTLED, _B.CARRIER, "system busy", "系统忙"),
    2: Meaning(_D.TEMPORARY, _B.ACCOUNT, "too many connections", "超过最大连接数"),
    10: Meaning(_D.PERMANENT, _B.MESSAGE, "message structure", "消息结构错"),
    11: Meaning(_D.UNUSABLE, _B.ACCOUNT, "command", "命令字错"),
    12: Meaning(_D.TEMPORARY, _B.CARRIER, "sequence used twice", "序列号重复"),
    20: Meaning(_D.UNUSABLE, _B.ACCOUNT, "our IP address is not registered", "IP地址错"),
    21: Meaning(_D.UNUSABLE, _B.ACCOUNT, "authentication: client id, secret or clock", "认证错"),
    22: Meaning(_D.UNUSABLE, _B.ACCOUNT, "version too high", "版本太高"),
    30: Meaning(_D.UNUSABLE, _B.ACCOUNT, "MsgType", "非法消息类型"),
    31: Meaning(_D.UNUSABLE, _B.ACCOUNT, "priority", "非法优先级"),
    32: Meaning(_D.UNUSABLE, _B.ACCOUNT, "fee type", "非法资费类型"),
    33: Meaning(_D.UNUSABLE, _B.ACCOUNT, "fee code", "非法资费代码"),
    34: Meaning(_D.PERMANENT, _B.MESSAGE, "message format", "非法短消息格式"),
    35: Meaning(_D.PERMANENT, _B.MESSAGE, "time format", "非法时间格式"),
    36: Meaning(_D.PERMANENT, _B.MESSAGE, "message length", "非法短消息长度"),
    37: Meaning(_D.PERMANENT, _B.MESSAGE, "no longer valid", "有效期已过"),
    39: Meaning(_D.PERMANENT, _B.NUMBER, "wrong route", "路由错误", True),
    43: Meaning(_D.UNUSABLE, _B.ACCOUNT, "service code", "非法服务代码"),
    46: Meaning(_D.UNUSABLE, _B.ACCOUNT, "source number: our port", "非法发送用户号码"),
    47: Meaning(_D.PERMANENT, _B.NUMBER, "destination number", "非法接收用户号码", True),
    48: Meaning(_D.UNUSABLE, _B.ACCOUNT, "charge number", "非法计费用户号码"),
    49: Meaning(_D.UNUSABLE, _B.ACCOUNT, "SP code", "非法SP服务代码"),
    56: Meaning(_D.PERMANENT, _B.NUMBER, "routing", "路由错误", True),
    57: Meaning(_D.PERMANENT, _B.NUMBER, "routing", "路由错误", True),
    58: Meaning(_D.PERMANENT, _B.NUMBER, "routing", "路由错误", True),
}
"""Status of responses, section 6.2."""

OTHER_RESULT = Meaning(_D.TEMPORARY, _B.CARRIER, "an unlisted code", "未列出的错误")

ERRORS = {
    "000": Meaning(_D.DONE, _B.NUMBER, "delivered", "成功"),
    "001": Meaning(_D.TEMPORARY, _B.NUMBER, "user out of reach: off, or no coverage", "用户不能通信"),
    "002": Meaning(_D.TEMPORARY, _B.NUMBER, "user busy", "用户忙"),
    "003": Meaning(_D.PERMANENT, _B.NUMBER, "no such part", "终端无此部件号"),
    "004": Meaning(_D.PERMANENT, _B.NUMBER, "illegal user", "非法用户", True),
    "005": Meaning(_D.PERMANENT, _B.NUMBER, "on a blacklist", "用户在黑名单内"),
    "006": Meaning(_D.TEMPORARY, _B.CARRIER, "system error", "系统错误"),
    "007": Meaning(_D.TEMPORARY, _B.NUMBER, "handset memory full", "用户内存满"),
    "008": Meaning(_D.PERMANENT, _B.NUMBER, "no terminal for messages", "非信息终端"),
    "009": Meaning(_D.PERMANENT, _B.MESSAGE, "data error", "数据错误"),
    "010": Meaning(_D.TEMPORARY, _B.CARRIER, "data lost", "数据丢失"),
    "999": Meaning(_D.UNKNOWN, _B.CARRIER, "unknown error", "未知错误"),
}
"""Field err of reports."""

STATS = {
    "DELIVRD": Meaning(_D.DONE, _B.NUMBER, "delivered", "已送达"),
    "ENROUTE": Meaning(_D.WAIT, _B.NUMBER, "on its way", "正在发送"),
    "ACCEPTD": Meaning(_D.WAIT, _B.NUMBER, "an intermediate state", "中间状态"),
    "EXPIRED": Meaning(_D.TEMPORARY, _B.NUMBER, "not reached while it was valid", "有效期内未送达"),
    "DELETED": Meaning(_D.PERMANENT, _B.MESSAGE, "deleted on the way", "已被删除"),
    "UNDELIV": Meaning(_D.PERMANENT, _B.NUMBER, "undeliverable", "无法送达", True),
    "UNKNOWN": Meaning(_D.UNKNOWN, _B.CARRIER, "the message centre does not know", "状态未知"),
    "REJECTD": Meaning(_D.PERMANENT, _B.MESSAGE, "rejected", "被拒绝"),
}
"""Field stat of reports."""

OTHER_STAT = Meaning(_D.UNKNOWN, _B.CARRIER, "an unlisted state", "未列出的状态")


def result_meaning(status: int) -> Meaning:
    """Look up the status of a response."""
    return RESULTS.get(status, OTHER_RESULT)


def report_meaning(stat: str, err: str) -> Meaning:
    """Look up what a report says: the state decides whether it failed, the error why."""
    meaning = STATS.get(stat, OTHER_STAT)
    if meaning.decision in (Decision.DONE, Decision.WAIT) or err == "000":
        return meaning
    return ERRORS.get(err, meaning)
