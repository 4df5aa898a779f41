"""Codes of CMPP: what a login's status, a submit's result and a report's state mean, and what the gateway does.

Read by `sms_cmpp`, and by the docs' table of error codes.

Source: CMPP 3.0 (QB-GF-028-2003) sections 8.4.1.2, 8.4.3.2 and 8.4.5.1 table 1; where said, carriers' practice.
"""

from __future__ import annotations

from channels._meaning import Blame, Decision, Meaning

_D, _B = Decision, Blame

STATUSES = {
    0: Meaning(_D.DONE, _B.ACCOUNT, "logged in", "正确"),
    1: Meaning(_D.UNUSABLE, _B.ACCOUNT, "message structure: is the version right?", "消息结构错"),
    2: Meaning(_D.UNUSABLE, _B.ACCOUNT, "source address refused: SP id or our IP address", "非法源地址"),
    3: Meaning(_D.UNUSABLE, _B.ACCOUNT, "authentication: secret or clock", "认证错"),
    4: Meaning(_D.UNUSABLE, _B.ACCOUNT, "version too high: set 2.0", "版本太高"),
}
"""Status of CONNECT_RESP, section 8.4.1.2."""

OTHER_STATUS = Meaning(
    _D.TEMPORARY, _B.CARRIER, "another error: too many connections, or the gateway's own", "其他错误"
)

RESULTS = {
    0: Meaning(_D.DONE, _B.MESSAGE, "taken", "正确"),
    1: Meaning(_D.PERMANENT, _B.MESSAGE, "message structure", "消息结构错"),
    2: Meaning(_D.UNUSABLE, _B.ACCOUNT, "command", "命令字错"),
    3: Meaning(_D.TEMPORARY, _B.CARRIER, "sequence used twice", "消息序号重复"),
    4: Meaning(_D.PERMANENT, _B.MESSAGE, "message length", "消息长度错"),
    5: Meaning(_D.UNUSABLE, _B.ACCOUNT, "fee code", "资费代码错"),
    6: Meaning(_D.PERMANENT, _B.MESSAGE, "longer than allowed", "超过最大信息长"),
    7: Meaning(_D.UNUSABLE, _B.ACCOUNT, "service code", "业务代码错"),
    8: Meaning(_D.THROTTLED, _B.ACCOUNT, "flow control", "流量控制错"),
    9: Meaning(_D.PERMANENT, _B.NUMBER, "this gateway does not serve the number", "本网关不负责服务此计费号码", True),
    10: Meaning(_D.UNUSABLE, _B.ACCOUNT, "Src_Id: our port", "Src_Id错误"),
    11: Meaning(_D.UNUSABLE, _B.ACCOUNT, "Msg_src: our SP id", "Msg_src错误"),
    12: Meaning(_D.UNUSABLE, _B.ACCOUNT, "Fee_terminal_Id: who pays", "Fee_terminal_Id错误"),
    13: Meaning(_D.PERMANENT, _B.NUMBER, "Dest_terminal_Id: one number is wrong", "Dest_terminal_Id错误", True),
}
"""Result of SUBMIT_RESP, section 8.4.3.2."""

OTHER_RESULT = Meaning(
    _D.TEMPORARY, _B.CARRIER, "the gateway maker's own code (100–199), or an unlisted one", "其他错误"
)

STATS = {
    "DELIVRD": Meaning(_D.DONE, _B.NUMBER, "delivered", "已送达"),
    "ACCEPTD": Meaning(_D.WAIT, _B.NUMBER, "an intermediate state, to be ignored", "中间状态"),
    "EXPIRED": Meaning(_D.TEMPORARY, _B.NUMBER, "not reached while it was valid", "有效期内未送达"),
    "DELETED": Meaning(_D.PERMANENT, _B.MESSAGE, "deleted on the way", "已被删除"),
    "UNDELIV": Meaning(_D.PERMANENT, _B.NUMBER, "undeliverable", "无法送达", True),
    "UNKNOWN": Meaning(_D.UNKNOWN, _B.CARRIER, "the message centre does not know", "状态未知"),
    "REJECTD": Meaning(_D.PERMANENT, _B.MESSAGE, "rejected", "被拒绝"),
    # Carriers' practice, not the specification.
    "MA:0001": Meaning(_D.PERMANENT, _B.NUMBER, "on a blacklist", "黑名单"),
    "NOSEND": Meaning(_D.UNUSABLE, _B.ACCOUNT, "signature missing or not registered", "签名未报备"),
    "00138": Meaning(_D.UNUSABLE, _B.ACCOUNT, "signature missing or not registered", "签名未报备"),
    "00140": Meaning(_D.PERMANENT, _B.MESSAGE, "the same text too soon again", "短时间内容重复"),
    "00141": Meaning(_D.PERMANENT, _B.NUMBER, "more than 4 an hour to one number", "每小时超限"),
    "00142": Meaning(_D.PERMANENT, _B.NUMBER, "more than 10 a day to one number", "每日超限"),
}
"""Stat of a report, section 8.4.5.1 table 1."""

STATIONS = {
    "M": ("message centre", "短信中心"),
    "C": ("prepaid billing", "SCP"),
    "D": ("service platform", "DSMP"),
    "S": ("service provider", "SP"),
    "I": ("next gateway", "下一级网关"),
}
"""First letter of a Stat like MB:0088: which station it speaks of."""

ANSWERS = {
    "A": (_D.UNKNOWN, _B.CARRIER, "did not answer", "未返回响应"),
    "B": (_D.PERMANENT, _B.MESSAGE, "refused it", "返回错误响应"),
    "C": (_D.UNKNOWN, _B.CARRIER, "sent no report", "未收到状态报告"),
}
"""Second letter: what that station did."""

OTHER_STAT = Meaning(_D.UNKNOWN, _B.CARRIER, "an unlisted state", "未列出的状态")


def status_meaning(status: int) -> Meaning:
    """Look up the status of a login."""
    return STATUSES.get(status, OTHER_STATUS)


def result_meaning(result: int) -> Meaning:
    """Look up the result of a submit."""
    return RESULTS.get(result, OTHER_RESULT)


def stat_meaning(stat: str) -> Meaning:
    """Look up the state of a report."""
    if meaning := STATS.get(stat.strip()):
        return meaning
    station, answer = STATIONS.get(stat[:1]), ANSWERS.get(stat[1:2])
    if station is None or answer is None or stat[2:3] != ":":
        return OTHER_STAT
    decision, blame, english, chinese = answer
    return Meaning(decision, blame, f"{station[0]} {english}", f"{station[1]}{chinese}")
