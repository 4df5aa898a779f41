"""Codes of SGIP: what a response's result and a report's state and error mean, and what the gateway does.

Read by `sms_sgip`, and by the docs' table of error codes.

Source: SGIP 1.2 chapter 4, the table of error codes and the message Report.
"""

from __future__ import annotations

from channels._meaning import Blame, Decision, Meaning

_D, _B = Decision, Blame

RESULTS = {
    0: Meaning(_D.DONE, _B.MESSAGE, "taken, delivered", "无错误"),
    1: Meaning(_D.UNUSABLE, _B.ACCOUNT, "login refused: name, password or our IP address", "非法登录"),
    2: Meaning(_D.TEMPORARY, _B.ACCOUNT, "logged in twice on one connection", "重复登录"),
    3: Meaning(_D.TEMPORARY, _B.ACCOUNT, "too many connections", "连接过多"),
    4: Meaning(_D.UNUSABLE, _B.ACCOUNT, "login type", "登录类型错"),
    5: Meaning(_D.PERMANENT, _B.MESSAGE, "a parameter's format", "参数格式错"),
    6: Meaning(_D.PERMANENT, _B.NUMBER, "illegal number: without 86, or not served here", "非法手机号码", True),
    7: Meaning(_D.PERMANENT, _B.MESSAGE, "message id", "消息ID错"),
    8: Meaning(_D.PERMANENT, _B.MESSAGE, "message length", "信息长度错"),
    9: Meaning(_D.TEMPORARY, _B.CARRIER, "sequence illegal or used twice", "非法序列号"),
    10: Meaning(_D.UNUSABLE, _B.ACCOUNT, "an operation we may not do", "非法操作GNS"),
    11: Meaning(_D.THROTTLED, _B.CARRIER, "node busy", "节点忙"),
    21: Meaning(_D.TEMPORARY, _B.CARRIER, "destination unreachable", "目的地址不可达"),
    22: Meaning(_D.PERMANENT, _B.NUMBER, "wrong route", "路由错", True),
    23: Meaning(_D.PERMANENT, _B.NUMBER, "no route", "路由不存在", True),
    24: Meaning(_D.UNUSABLE, _B.ACCOUNT, "charge number", "计费号码无效"),
    25: Meaning(_D.TEMPORARY, _B.NUMBER, "user out of reach: off, or no coverage", "用户不能通信"),
    26: Meaning(_D.TEMPORARY, _B.NUMBER, "handset memory full", "手机内存不足"),
    27: Meaning(_D.PERMANENT, _B.NUMBER, "handset knows no SMS", "手机不支持短消息"),
    28: Meaning(_D.TEMPORARY, _B.NUMBER, "handset failed to receive", "手机接收短消息出现错误"),
    29: Meaning(_D.PERMANENT, _B.NUMBER, "unknown user", "不知道的用户", True),
    30: Meaning(_D.PERMANENT, _B.NUMBER, "not provided for", "不提供此功能"),
    31: Meaning(_D.PERMANENT, _B.NUMBER, "illegal device", "非法设备"),
    32: Meaning(_D.TEMPORARY, _B.CARRIER, "system failure", "系统失败"),
    33: Meaning(_D.THROTTLED, _B.CARRIER, "message centre's queue full", "短信中心队列满"),
}
"""Result of responses (0–20) and ErrorCode of reports (21–33)."""

OTHER_RESULT = Meaning(_D.TEMPORARY, _B.CARRIER, "an unlisted code", "未列出的错误")
WAITING = Meaning(_D.WAIT, _B.NUMBER, "waiting to be sent", "等待发送")
OTHER_STATE = Meaning(_D.UNKNOWN, _B.CARRIER, "an unlisted state", "未列出的状态")
FAILED = 2


def result_meaning(result: int) -> Meaning:
    """Look up the result of a response."""
    return RESULTS.get(result, OTHER_RESULT)


def report_meaning(state: int, error_code: int) -> Meaning:
    """Look up what a report says: 0 delivered, 1 waiting, 2 failed with an error code (which may be 0)."""
    if state == FAILED:
        return RESULTS.get(error_code, OTHER_RESULT) if error_code else OTHER_RESULT
    return {0: RESULTS[0], 1: WAITING}.get(state, OTHER_STATE)
