"""The compulsory parts of a text: who warns, when, of what, in which colour, where, until when, and what to do.

Called by the renderer for lint. A part is what the facts of the alert say it is, in the words the text would have it
in; only where a text is the issuer's own (a `short_text`, relayed unaltered, D26) may a pattern stand in, because
there the words are not ours.

**Source:** 国办发〔2011〕33号 and DB45/T 2427-2021 for the parts; in SMS the colour is the level, so one of the two
is enough.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from gateway.model import Alert, Document, Level, Notice
from gateway.render.facts import CHINA, Facts, names_of
from gateway.render.prose import Want
from gateway.render.text import shorter

NEWS = frozenset({Notice.ISSUE, Notice.UPDATE, Notice.DOWNGRADE})
ORDERS = frozenset({Document.EVACUATION, Document.RETURN})
GRADED = frozenset({Document.WARNING, Document.JOINT_RISK, Document.NOWCAST, Document.RESPONSE})

_COLOURS = {"zh": ("", "蓝色", "黄色", "橙色", "红色"), "en": ("", "blue", "yellow", "orange", "red")}
_RANKS = {"zh": ("", "Ⅳ级", "Ⅲ级", "Ⅱ级", "Ⅰ级"), "en": ("", "level IV", "level III", "level II", "level I")}
_RANKS_OWN = ("", "四级", "三级", "二级", "一级")
_KINDS = {
    "zh": {Document.EVACUATION: ("转移",), Document.RETURN: ("返回",), Document.RESPONSE: ("应急响应",)},
    "en": {
        Document.EVACUATION: ("evacuation",), Document.RETURN: ("return",), Document.RESPONSE: ("emergency response",)
    },
}  # fmt: skip
_OVER = ("解除", "终止", "取消", "结束")
_ENDED = ("ended", "withdrawn", "all-clear")
_MARKS: dict[str, dict[Notice, tuple[str, ...]]] = {
    "zh": {
        Notice.ALL_CLEAR: _OVER, Notice.PARTIAL_ALL_CLEAR: ("不再", *_OVER), Notice.CORRECTION: ("更正",)
    },
    "en": {
        Notice.ALL_CLEAR: _ENDED, Notice.PARTIAL_ALL_CLEAR: ("no longer", *_ENDED), Notice.CORRECTION: ("correction",)
    },
}  # fmt: skip

# What an issuer's own words may say a part in.
_OWN_AREA = r"[全我本][县市区乡镇村]"
_OFFICE = "气象|水利|水文|自然|应急|防汛|防指|抗旱|人民|政府|委"
_N = r"[\d一二三四五六七八九十两半]"
_OWN_PERIOD = (
    rf"(?:未来|今后|预计).{{0,8}}?(?:小时|分钟|天|日)|{_N}个?(?:小时|分钟|天)"
    rf"|有效|截至|[至到]{_N}+[日时]|{_N}[日时分]前"
)
_OWN_MEASURES = r"转移|撤离|远离|避[险让雨风雷]|躲避|注意|防范|做好|切勿|不要|禁止|停止|加固|巡查|值守|到岗|请"


class Part(NamedTuple):
    """A compulsory part and how it may be said.

    Any of `said` will do; with none, the message does not say it. `like` is a pattern that will also do.
    `ahead` names what it must stand in front of: an end is read as an end only if it comes first.
    """

    name: str
    said: tuple[str, ...]
    like: str = ""
    ahead: tuple[str, ...] = ()

    def found(self, text: str) -> bool:
        """Whether a text, squeezed, holds it."""
        places = [at for one in self.said if one and (at := text.find(squeezed(one))) >= 0]
        if not places:
            return bool(self.like and re.search(self.like, text))
        limits = [at for one in self.ahead if (at := text.find(squeezed(one))) >= 0]
        return not limits or min(places) < min(limits)


def squeezed(text: str) -> str:
    """Return only letters, digits and Hanzi, in one form: punctuation and width make no difference."""
    return "".join(char for char in unicodedata.normalize("NFKC", text).casefold() if char.isalnum())


def compulsory(alert: Alert, want: Want, facts: Facts, issuer: str, say: Callable[[str], str] = str) -> list[Part]:
    """Return the parts this text must hold.

    Args:
        alert: The version told of.
        want: The audience and notice.
        facts: What the text was made of.
        issuer: The issuer's registered name; in its own short text that in front is enough.
        say: How the channel's words differ from the written ones (numerals read aloud).
    """
    parts = list(_parts(alert, want, facts, issuer))
    return [
        part._replace(said=tuple(map(say, filter(None, part.said))), ahead=tuple(map(say, part.ahead)))
        for part in parts
    ]


def _parts(alert: Alert, want: Want, facts: Facts, issuer: str) -> Iterator[Part]:
    fixed, own = facts.fixed, bool(facts.fixed["short"])
    if alert.announces:  # it names no hazard and asks for nothing
        yield Part("issuer", (str(fixed["issuer"]), issuer))
        yield from [_area(alert, want, facts, own=own)] if want.places else []
        return
    past = fixed["was"]
    assert isinstance(past, dict)
    was: Mapping[str, object] = fixed if want.notice in NEWS else past
    kind = _KINDS[want.language].get(alert.document, (str(was["hazard"]),))
    yield Part("issuer", (str(fixed["issuer"]), issuer) if own else (str(fixed["issuer"]),))
    mistaken = want.notice is Notice.CORRECTION and alert.actual and not own
    time = str(was["time"] if mistaken else fixed["time"])
    yield Part("time", (time, *_clock(alert.sent)) if own else (time,))
    if marks := _MARKS[want.language].get(want.notice):
        # An English sentence ends with what became of it.
        yield Part("mark", marks, ahead=kind if want.language == "zh" else ())
    yield Part("type", kind)
    if alert.document in GRADED and (level := Level(int(str(was["level"])))):
        yield Part("grade", _grades(alert.document, level, want.language, own=own))
    if want.places:
        yield _area(alert, want, facts, own=own)
    if want.notice in NEWS and alert.actual:
        yield from _told(alert, want, facts, own=own)


def _told(alert: Alert, want: Want, facts: Facts, *, own: bool) -> Iterator[Part]:
    """What a warning tells beyond its name: how long, and what to do."""
    fixed = facts.fixed
    if alert.document in ORDERS:
        yield Part("order", (str(fixed["order"]),), _OWN_MEASURES if own else "")
        return
    yield Part("period", (str(fixed["period"]), str(fixed["inner"]), str(fixed["until"])), _OWN_PERIOD if own else "")
    if alert.document is not Document.SERVICE and want.notice is not Notice.DOWNGRADE:
        whole = facts.full.measures
        yield Part("measures", (whole, *shorter(whole)), _OWN_MEASURES if own else "")


def _area(alert: Alert, want: Want, facts: Facts, *, own: bool) -> Part:
    if not own:
        return Part("area", (facts.area, facts.area_short))
    names, counties = names_of(alert, want)
    # 泌阳县 is an area, 泌阳县气象局 is none.
    like = "|".join([_OWN_AREA, *(rf"{re.escape(squeezed(county))}(?!{_OFFICE})" for county in counties)])
    return Part("area", names, like)


def _grades(document: Document, level: Level, language: str, *, own: bool) -> tuple[str, ...]:
    colour, rank = _COLOURS[language][level], _RANKS[language][level]
    said = (rank,) if document is Document.RESPONSE else (colour,)
    return (*said, rank, _RANKS_OWN[level]) if own else said


def _clock(moment: datetime) -> tuple[str, ...]:
    """Other ways of writing the time of issue; squeezed, 14:30 and 14时30分 differ."""
    local = moment.astimezone(CHINA)
    whole = (f"{local.hour}时",) if not local.minute else ()
    return (*whole, f"{local.hour}时{local.minute:02}分", f"{local.hour}时{local.minute}分", f"{local:%H:%M}")
