"""One example per request and answer, as they stand in /openapi.json. Tests hold each against its model.

They tell one story: the red rainstorm warning of `shape.EXAMPLE`, its drill, and the gaps it leaves.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gateway import cap
from gateway.api import drill, national, person, reply, right, shape
from gateway.api import duty_shape as duty
from gateway.api import speaker_shape as speaker
from gateway.api.problem import TYPES, Problem
from gateway.drill_report import DrillReport
from gateway.preview import Preview
from gateway.report import Status

ALERT = "e3aa37a3bddc701c194a"
REPLY = "0b9d4e6f21c87a5530fd"
PERSON = "3621676876413551375"
GREEN = "green: 泌阳县气象局 is pre-authorised and 11B03 is on the list"
AT = "2026-07-20T06:00:00Z"
EXPIRES = "2026-07-20T09:00:00Z"
DIGEST = "a5da32a51b06d31331261afbeb540d034f216fa8a18393a6c80565f2b317ea90"
HASH = "e7286f999c24be478aec4120e2e8933154feed9fa747f43f38b8242b626b5115"
LINKS = shape.links_of(ALERT)
DRILL = "5c1f0e7ab2d94c3388e1"
_DRILL = {
    "id": DRILL, "series": DRILL, "kind": "broadcast", "stage": "approved", "reason": "", "issuer": "411726-qxj",
    "areas": ["411726209"], "groups": ["loudspeakers", "officials"], "starts_at": "2026-07-25T02:00:00Z",
    "ends_at": "2026-07-25T02:30:00Z", "notice_at": "2026-07-24T02:00:00Z", "document": "warning", "hazard": "11B03",
    "event": "暴雨", "level": "red", "notice": "听到大喇叭请勿惊慌。", "rule": "", "planner": "411726-qxj/泌阳预报员",
    "approver": "411726-qxj/泌阳带班领导", "announcement": "", "alert": "",
}  # fmt: skip
_DRILLED = {
    "code": "411726209201", "name": "泌阳县贾楼乡贾楼村", "commanded": 2, "received": 2, "played": 2, "plausible": 1,
    "failed": 1, "codes": {"implausible": 1}, "silent": 0, "officials": 3, "answered": 2, "first_answer_s": 41.0,
    "last_answer_s": 187.0,
}  # fmt: skip

NUMBER = "41172641600000_20260720135800"
_LISTED: dict[str, Any] = {
    "number": "41172641600000_20260720120000", "sender": "41172641600000",
    "title": "泌阳县气象局发布大风蓝色预警[IV级/一般]", "sent": "2026-07-20T12:00:00+08:00",
}  # fmt: skip
_LINE: dict[str, Any] = {
    "id": ALERT, "sender": "411726-qxj@mingluo.example", "identifier": "41172641600000_20260720135800",
    "sent": "2026-07-20T05:58:00Z", "status": "Actual", "scope": "Public", "kind": "Alert", "document": "warning",
    "event": "暴雨", "level": "red", "expires": EXPIRES, "standing": "active", "reason": "",
    "by": "411726-qxj/泌阳预报员", "accepted_at": AT, "links": LINKS, "national_number": NUMBER,
}  # fmt: skip
_COUNT: dict[str, Any] = {
    "step": 1, "township": "411726204", "group": "officials", "channel": "sms_twilio", "language": "zh",
    "notice": "issue", "recipients": 2, "fallback": False,
}  # fmt: skip
_WORDS: dict[str, Any] = {
    "channel": "sms_twilio", "group": "officials", "notice": "issue", "language": "zh", "township": "411726204",
    "village": "", "info": 0, "title": "暴雨红色预警", "units": 65, "segments": 1, "cut": [], "findings": [],
    "text": "【泌阳县气象局】泌阳县气象局20日13时58分发布暴雨红色预警：未来3小时铜山乡雨量将超过100毫米。"
    "立即转移危险区群众。到岗回1",
}  # fmt: skip
_TARGET: dict[str, Any] = {
    "township": {"code": "411726204", "name": "泌阳县铜山乡"}, "villages": [], "how": "code", "certain": True,
    "coarse": False,
}  # fmt: skip
_TIMING: dict[str, Any] = {
    "channel": "sms_twilio", "group": "officials", "batches": 2, "unfinished": 0, "first_submitted_at": AT,
    "first_submitted_s": 0.2, "last_settled_at": "2026-07-20T06:00:01Z", "last_settled_s": 1.0,
}  # fmt: skip
_GAP: dict[str, Any] = {"code": "411726204201", "name": "泌阳县铜山乡彭庄村", "state": "gap", "loudspeaker": "offline"}
_PLACE: dict[str, Any] = {"code": "411726204201", "name": "泌阳县铜山乡彭庄村"}
_SPEAKER: dict[str, Any] = {
    "name": "dl-411726204201-1", "village": _PLACE, "condition": "working", "online": True, "seen_at": AT,
    "since": "2026-07-19T22:10:00Z", "firmware": "2.1.0", "volume": 70, "power": "mains", "battery": 100,
    "clock_skew_s": 0.4, "faults": [], "told_at": AT, "drilled_at": "2026-06-01T02:00:12Z",
    "tested_at": "2026-07-15T02:00:02Z", "played_at": "2026-06-01T02:00:12Z",
}  # fmt: skip
_MUTE: dict[str, Any] = {
    "village": _PLACE, "condition": "offline", "speakers": 2, "seen_at": "2026-07-18T11:02:00Z", "faults": [],
}  # fmt: skip
_CALL: dict[str, Any] = {
    "name": "王某", "post": "带班领导", "number": "0396-0000000", "at": "2026-07-20T14:05:00+08:00", "witness": "李某",
}  # fmt: skip
_OWED: dict[str, Any] = {
    "alert": ALERT, "event": "暴雨", "level": "red", "kind": "review",
    "due": "2026-07-20T06:30:00Z", "opened_at": AT, "overdue": False,
    "answers": ["endorsed", "objected"], "answered_at": None, "by": "", "answer": "", "remark": "",
}  # fmt: skip
_REGIME: dict[str, Any] = {
    "id": "5b1f0c2ad47e93c8a6d0", "area": "411726", "issuer": "411726-fzb", "by": "411726-fzb/泌阳签发人",
    "reason": "特大暴雨", "started_at": AT, "until": "2026-07-20T12:00:00Z", "renewed": 0, "ended_at": None,
}  # fmt: skip

EXAMPLES: dict[type[BaseModel], Any] = {
    # --- asked
    cap.AlertIn: shape.EXAMPLE,
    shape.ReasonIn: {"reason": "区域有误"},
    shape.NoteIn: {"note": "雨已停"},
    shape.ConfirmationIn: {"person": PERSON, "how": "phone", "note": "已到岗"},
    shape.HaltIn: {"scope": "411726", "on": True},
    # --- answered
    shape.Accepted: {
        "id": ALERT, "result": "accepted", "route": "green", "reasons": [GREEN], "held": [], "warnings": [],
        "halts": [], "links": LINKS, "standing": "active", "needs": [],
    },
    Preview: {
        "alert": ALERT, "at": AT, "event": "暴雨", "level": "red", "document": "warning", "status": "Actual",
        "kind": "Alert", "issuer": "泌阳县气象局", "expires": EXPIRES, "route": "green", "reasons": [GREEN], "held": [],
        "would_be_held": False, "standing": "active", "needs": [], "deciders": [], "alarms": [], "warnings": [],
        "halts": [], "conflicts": [], "targets": [_TARGET], "leaving": [], "beyond_border": [],
        "townships": [{
            "township": {"code": "411726204", "name": "泌阳县铜山乡"}, "officials": 2, "loudspeakers": 0,
            "residents": 2, "subscribers": 0, "opted_out": 0, "no_channel": 0, "villages": 18,
        }],
        "gaps": [{
            "village": {"code": "411726204200", "name": "泌阳县铜山乡大路庄村"}, "official": True, "loudspeaker": False,
            "condition": "none",
        }],
        "counts": [_COUNT],
        "steps": [{
            "step": 1, "group": "officials", "channel": "sms_twilio", "language": "zh", "notice": "issue",
            "lane": "green", "start": AT, "deadline": EXPIRES, "fallback_of": None, "recipients": 4, "per_s": 50.0,
            "first": AT, "last": AT, "too_late": 0,
        }],
        "times": [{"group": "officials", "notice": "issue", "recipients": 4, "first": AT, "last": AT}],
        "texts": [_WORDS], "deferrals": [], "dropped": [],
    },
    shape.Texts: {"texts": [_WORDS], "findings": []},
    shape.AlertsPage: {"alerts": [_LINE], "next": f"1784527200000000.{ALERT}", "halts": []},
    shape.AlertOut: _LINE | {
        "route": "green", "reasons": [GREEN], "held": [], "needs": [], "policy_digest": DIGEST,
        "townships": ["411726204", "411726209"], "alert": shape.EXAMPLE,
    },
    shape.Standing: {"id": ALERT, "standing": "rejected", "reason": "区域有误"},
    Status: {
        "alert": ALERT, "event": "暴雨", "level": "red", "kind": "Alert", "status": "Actual",
        "scope": "Public", "standing": "active", "reason": "", "route": "green", "held": [], "halts": [],
        "national_number": NUMBER, "accepted_at": AT, "expires": EXPIRES, "timings": [_TIMING],
        "counts": [{"channel": "sms_twilio", "group": "officials", "state": "delivered", "recipients": 4}],
        "villages": {"confirmed": 29, "played": 1, "sms_only": 0, "silent": 0, "gap": 1},
        "confirmation_wanted": True, "gaps": [_GAP], "wanting": [_GAP],
        "away": [_GAP], "deputised": [_GAP], "mute": [_GAP], "mute_planned": [_GAP],
        "later": [{"group": "loudspeakers", "channel": "loudspeaker", "notice": "all_clear", "at": EXPIRES}],
    },
    shape.DeliveriesPage: {
        "deliveries": [{
            "batch": f"{ALERT}.1.0", "position": 0, "recipient": PERSON, "township": "411726204",
            "village": "411726204200", "channel": "sms_twilio", "group": "officials", "state": "delivered",
        }],
        "next": f"{ALERT}.1.0",
    },
    shape.Confirmations: {
        "confirmations": [{"person": PERSON, "villages": ["411726204200"], "how": "phone: 已到岗", "at": AT}]
    },
    shape.Confirmed: {"result": "confirmed"},
    shape.StuckOut: {
        "waiting": [{
            "alert": ALERT, "channel": "sms_twilio", "lane": "urgent", "county": "411726", "reason": "channel_down",
            "batches": 3, "since": AT, "until": AT,
        }],
    },
    shape.Halts: {"halted": ["411726"]},
    shape.AuditPage: {
        "records": [{
            "seq": 1, "at": AT, "actor": "411726-qxj/泌阳预报员", "action": "accept", "subject": ALERT,
            "detail": "policy a5da32a51b06; green", "hash": HASH,
        }],
        "next": 1,
    },
    shape.AuditVerdict: {"whole": False, "records": 2, "wrong": "record 3 is missing"},
    shape.CheckpointOut: {"seq": 1, "hash": HASH},
    shape.Health: {
        "status": "ok", "simulation": True, "policy": DIGEST[:12],
        "parts": [{"name": "store", "ready": True, "detail": "sqlite"}],
    },
    # --- decisions and the duty room
    duty.TelephoneIn: _CALL,
    duty.JoinIn: {"partner": "411726-slj", "call": _CALL},
    duty.ApprovalIn: {"number": "豫应急〔2026〕15号"},
    duty.ConsultationIn: {
        "at": "2026-07-20T13:40:00+08:00", "participants": ["气象台值班员", "水利局值班员"], "conclusion": "联合发布",
    },
    right.OptOutIn: {"phone": "10012345678", "on": True},
    right.OptOutOut: {"people": [3621676876413551375], "officials": []},
    right.EraseIn: {"phone": "10012345678", "name": ""},
    right.EraseOut: {"person": 3621676876413551375, "batches": 2},
    duty.AnswerIn: {"answer": "endorsed", "remark": ""},
    duty.EmergencyIn: {"area": "411726", "reason": "特大暴雨"},
    duty.RenewIn: {"call": _CALL},
    duty.SealIn: {"issuer": "411726-qxj", "label": "一号信封"},
    duty.Decisions: {
        "decisions": [{"standing": "sign", "event": "approve", "by": "411726-qxj/泌阳签发人", "at": AT, "reason": ""}]
    },
    duty.Noted: {"kind": "consultation", "at": AT},
    duty.Minutes: {
        "minutes": [{"kind": "consultation", "by": "411726-qxj/泌阳预报员", "at": AT,
                     "content": {"at": AT, "participants": ["气象台值班员"], "conclusion": "联合发布"}}]
    },
    duty.Obligations: {"obligations": [_OWED]},
    duty.ObligationOut: _OWED,
    reply.RepliesOut: {
        "replies": [{
            "id": REPLY, "at": AT, "channel": "sms_twilio", "meaning": "heard", "why": "shared_phone",
            "number": "100****0001", "text": "1", "people": [PERSON, "77120931"], "places": [_PLACE],
        }],
    },
    reply.SettleIn: {"meaning": "heard", "people": [PERSON]},
    reply.Settled: {"id": REPLY, "meaning": "heard"},
    reply.IncidentsOut: {
        "incidents": [{
            "id": REPLY, "at": AT, "channel": "sms_twilio", "number": "100****0001", "text": "3 桥头塌方",
            "people": [PERSON], "places": [_PLACE], "alerts": [ALERT], "drill": False,
            "answers": ["issue", "village_alarm", "refer", "unfounded"], "decided_at": None, "by": "", "decision": "",
            "reason": "",
        }],
    },
    drill.DrillIn: {
        "kind": "broadcast", "areas": ["411726209"], "starts_at": "2026-07-25T10:00:00+08:00", "lasts_min": 30,
        "notice": "听到大喇叭请勿惊慌。",
    },
    drill.DrillOut: _DRILL,
    drill.DrillsOut: {"drills": [_DRILL]},
    DrillReport: {
        "drill": DRILL, "kind": "broadcast", "stage": "over", "reason": "", "starts_at": "2026-07-25T02:00:00Z",
        "ended_at": "2026-07-25T02:30:00Z", "planner": "411726-qxj/泌阳预报员", "approver": "411726-qxj/泌阳带班领导",
        "announcement": REPLY, "alert": ALERT, "total": _DRILLED | {"code": "", "name": "合计"},
        "townships": [_DRILLED | {"code": "411726209", "name": "泌阳县贾楼乡"}], "villages": [_DRILLED],
    },
    duty.RegimesOut: {"regimes": [_REGIME]},
    duty.RegimeOut: _REGIME,
    duty.Seals: {
        "codes": [{"issuer": "411726-qxj", "label": "一号信封", "made_at": AT, "used_at": None, "alert": ""}]
    },
    duty.SealOut: {"code": "ABCD-EFGH-JKLM-NPQR-STUV-WXYZ-2345", "issuer": "411726-qxj", "label": "一号信封"},
    person.HistoryIn: {"phone": "199 0000 0001", "limit": 200},
    person.Histories: {
        "people": [{
            "person": PERSON, "told": [{
                "alert": ALERT, "event": "暴雨", "level": "red", "kind": "Alert", "status": "Actual",
                "sent": "2026-07-20T05:58:00Z", "channel": "sms_twilio", "group": "officials", "notice": "issue",
                "step": 1, "township": "411726204", "village": "411726204201", "state": "delivered",
                "code": "delivered", "at": "2026-07-20T06:00:02Z", "frozen_at": AT, "receipts": [
                    {"state": "submitted", "code": "queued", "at": "2026-07-20T06:00:01Z", "attempt": 1},
                    {"state": "delivered", "code": "delivered", "at": "2026-07-20T06:00:02Z", "attempt": 1},
                ],
            }],
            "confirmations": [{
                "alert": ALERT, "villages": ["411726204201"], "how": "reply:sms_twilio", "at": "2026-07-20T06:01:00Z",
            }],
            "replies": [{"channel": "sms_twilio", "outcome": "confirmed:1", "at": "2026-07-20T06:01:00Z"}],
            "earlier": None,
        }],
    },
    national.NumberIn: {"number": NUMBER},
    national.ListingIn: {"day": "2026-07-20", "alerts": [_LISTED]},
    national.NumberOut: {"id": ALERT, "national_number": NUMBER, "result": "matched"},
    national.Translated: {
        "message": "<?xml version='1.0' encoding='UTF-8'?>\n<alert>…</alert>",
        "losses": [{"element": "info[1]/contact", "message": "has no place in the dialect"}],
    },
    national.ReconciledOut: {
        "day": "2026-07-20", "both": 1, "only_there": [_LISTED], "only_here": [],
        "matched": [{"id": ALERT, "national_number": NUMBER, "sender": "411726-qxj@mingluo.example",
                     "identifier": "41172641600000_20260720135800", "title": "泌阳县气象台发布暴雨红色预警",
                     "sent": "2026-07-20T05:58:00Z"}],
    },
    speaker.SpeakersPage: {"speakers": [_SPEAKER], "next": "411726204201/dl-411726204201-1"},
    speaker.MuteOut: {
        "at": AT, "offline_min": 15, "untested_days": 90, "speakers": 5812,
        "villages": {"none": 3, "offline": 12, "faulty": 1, "untested": 40, "working": 2850},
        "townships": [{"township": {"code": "411726204", "name": "泌阳县铜山乡"},
                       "villages": {"none": 0, "offline": 1, "faulty": 0, "untested": 2, "working": 15}}],
        "mute": [_MUTE], "untested": [_MUTE | {"condition": "untested"}],
    },
    speaker.OrdersOut: {
        "orders": [{
            "id": "7d1f0c2ad47e93c8a6d0.0", "speaker": "dl-411726204201-1", "village": _PLACE, "kind": "self_test",
            "values": {"audible": False}, "by": "411726-qxj/泌阳值班员", "at": AT, "expires": "2026-07-21T06:00:00Z",
            "state": "done", "code": "", "settled_at": "2026-07-20T06:00:04Z",
        }],
    },
    speaker.VolumeIn: {
        "area": "411726204", "volume": 70, "night": {"from": "22:00", "until": "06:00", "volume": 40},
        "floor": {"red": 90},
    },
    speaker.SelfTestIn: {"speakers": ["dl-411726204201-1"], "audible": False},
    speaker.ConfigIn: {"speakers": ["dl-411726204201-1"], "values": {"led": False}},
    speaker.ClockIn: {"speakers": ["dl-411726204201-1"]},
    speaker.OrderedOut: {
        "id": "7d1f0c2ad47e93c8a6d0", "kind": "self_test", "speakers": 1, "expires": "2026-07-21T06:00:00Z",
    },
    speaker.VillageAlarmsOut: {
        "alarms": [{
            "id": "2c9d4e6f21c87a5530fd", "at": AT, "speaker": "dl-411726204201-1",
            "village": _PLACE, "answers": ["issue", "refer", "noted", "unfounded"], "decided_at": None, "by": "",
            "decision": "", "reason": "",
        }],
    },
    Problem: {
        "type": f"{TYPES}outside_authority", "title": "Forbidden", "status": 403,
        "detail": "area: 411728 lies outside the areas of 411726-qxj (authority.toml, issuer 411726-qxj, areas)",
        "errors": [{"code": "area", "message": "area: 411728 lies outside the areas of 411726-qxj"}],
    },
}  # fmt: skip
