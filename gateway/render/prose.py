"""The issuer's prose, read: where it says how long, and of whom, so that each place hears its own name first.

Called by `facts`. What is not understood is passed on as it is, never re-worded. Where several infos speak to one
recipient, each is read for its own places, and what they say is put behind these places' names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.model import Alert, Document, Group, Info, Notice
from gateway.render.text import bare, clean, without_contacts

CJK = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_LEDE = re.compile(r"^[^：:，。；]{0,60}(?:发布|变更|升级|降级|解除)[^：:，。；]{0,40}[：:]")
_COUNT = r"[\d一二三四五六七八九十两半]+(?:[-~～—－至到][\d一二三四五六七八九十两]+)?"
_PERIOD = re.compile(rf"(?:预计)?(?:未来|今后){_COUNT}个?(?:小时|分钟|天|日)(?:之内|以内|内|里)?+(?!的)[，,]?")
_PERIOD_EN = re.compile(r"(?:within|in|over) the (?:next|coming) [\w -]{1,24}?(?:hours?|days?|minutes?)", re.IGNORECASE)
_DIRECT = re.compile(
    r"^(?:累计|最大|局地|小时|过程)?(?:雨量|降雨|降水|降雪|积雪|风力|阵风|气温|水位|能见度|将|有|仍|可能|已)"
)
COUNTY = re.compile(r"^[^县市区乡镇]{1,6}[县市区](?=.{2})")
_TOWNSHIP = re.compile(r"^.{1,6}?(?:乡|镇|街道)(?=.)")
_APART = re.compile(r"^(?:请|全|各|所有|凡|本|我|你|贵|为|因|由|受|据|根据|按照|接|现|目前|自)")


@dataclass(frozen=True, slots=True)
class Want:
    """What one rendering was asked for; names as in `Renderer.text`."""

    notice: Notice
    channel: str
    group: Group
    language: str
    places: tuple[str, ...]
    others: int
    limit: int
    signed: bool
    again: bool = False
    remaining: tuple[str, ...] = ()
    confirm: bool = False
    told: tuple[tuple[int, tuple[str, ...]], ...] = ()


class Told(NamedTuple):
    """The issuer's prose, read.

    `inner` is a period that stays inside the trend. `joined`: the audience's place may stand
    right before the trend; `order_joined`: before the order.
    """

    period: str
    inner: str
    trend: str
    joined: bool
    measures: str
    order: str
    order_joined: bool
    cut: tuple[str, ...]


def read(alert: Alert, info: Info | None, want: Want) -> Told:
    """Read description and instruction; in an order (evacuation, return) the instruction is the order itself."""
    fields = {name: _field(info, name, want.language) for name in ("description", "instruction", "headline")}
    cut: tuple[str, ...] = ()
    if want.signed or want.channel.startswith("sms"):
        allowed = {name: bare(without_contacts(text)) for name, text in fields.items()}
        fields, cut = allowed, ("contacts",) if allowed != fields else ()
    trend, measures, order = fields["description"], fields["instruction"], ""
    if alert.document is Document.SERVICE:
        trend = trend or fields["headline"]
    if alert.document in (Document.EVACUATION, Document.RETURN):
        order, trend, measures = (measures, trend, "") if measures else (trend, "", "")
    if want.language != "zh":
        return Told("", _period_en(trend), trend, False, measures, order, False, cut)
    names = _names(alert, want)
    order, order_joined = _own_first(order, want.places, names)
    period, trend, inner = _split_period(_LEDE.sub("", trend))
    trend, joined = _own_first(trend, want.places, names)
    if want.places:
        joined = joined or bool(_DIRECT.search(trend))
        order_joined = order_joined or bool(order and not _APART.search(order))
    return Told(period, inner, trend, joined, measures, order, order_joined, cut)


class Voice(NamedTuple):
    """An info that speaks to a recipient: of which places, and how these are called together."""

    info: Info
    places: tuple[str, ...]
    label: str


def read_all(alert: Alert, voices: Sequence[Voice], want: Want, advice: str) -> Told:
    """Read what several infos say to one recipient; `advice` stands in for measures that one of them lacks."""
    told = [read(alert, one.info, replace(want, places=one.places)) for one in voices]
    labels = [one.label for one in voices]
    period = told[0].period if len({one.period for one in told}) == 1 else ""
    trends = [one.trend if period else one.period + one.trend for one in told]
    spans = [one.inner or ("" if period else one.period) for one in told]
    measures = [one.measures or advice for one in told] if any(one.measures for one in told) else []
    return Told(
        period,
        spans[-1] if all(spans) else "",
        each(labels, trends, want.language),
        False,
        each(labels, measures, want.language),
        each(labels, [one.order for one in told], want.language),
        False,
        tuple(dict.fromkeys(name for one in told for name in one.cut)),
    )


def each(labels: Sequence[str], texts: Sequence[str], language: str) -> str:
    """Put texts behind the places they speak of; one text for all needs no label."""
    if len(set(texts)) < 2:
        return next(iter(texts), "")
    colon, stop = ("：", "；") if language == "zh" else (": ", "; ")
    return stop.join(f"{label}{colon}{text}" for label, text in zip(labels, texts, strict=False) if text)


def _field(info: Info | None, name: str, language: str) -> str:
    """One field, cleaned, without its closing punctuation; "" where an English reader would get Chinese prose."""
    text = bare(clean(getattr(info, name))) if info else ""
    return "" if language != "zh" and CJK.search(text) else text


def _split_period(text: str) -> tuple[str, str, str]:
    """Take the period off the front: (period, rest, "").

    Where it stands inside the prose it may belong to one clause only, so it stays there: ("", text, period).
    """
    found = _PERIOD.search(text)
    if not found:
        return "", text, ""
    period = bare(found.group()).removeprefix("预计")
    return (period, bare(text[found.end() :]), "") if found.start() == 0 else ("", text, period)


def _period_en(text: str) -> str:
    found = _PERIOD_EN.search(text)
    return found.group() if found else ""


def _names(alert: Alert, want: Want) -> tuple[str, ...]:
    """Place names the issuer or the audience may use, with and without the county, longest first."""
    described = (bare(part) for area in alert.areas for part in re.split(r"[、，,；;\s]", clean(area.description)))
    known = {name for name in (*want.places, *described) if name}
    known |= {COUNTY.sub("", name) for name in known}
    known |= {found[0] for name in known if (found := _TOWNSHIP.match(name))}
    return tuple(sorted(known, key=len, reverse=True))


def _own_first(text: str, places: Sequence[str], names: Sequence[str]) -> tuple[str, bool]:
    """Take a leading list of places off the issuer's prose, if it names the audience's own place.

    Returns the rest and whether the own place may be put in front of it. A list without the own place stays:
    what was said of another township must not be told of this one.
    """
    rest, listed = text, list[str]()
    while name := next((name for name in names if rest.startswith(name)), ""):
        listed.append(name)
        rest = rest[len(name) :]
        separator = re.match(r"[、，,和及与]", rest)
        if not separator or not any(rest[1:].startswith(name) for name in names):
            break
        rest = rest[1:]
    if not listed or not places or not all(any(_same(name, place) for name in listed) for place in places):
        return text, False
    rest = re.sub(r"^等(?:\d+|[一二三四五六七八九十]+)?个?(?:地区|地|乡镇|乡|镇|处|村)?", "", rest)
    return (bare(rest), True) if bare(rest) else (text, False)


def _same(name: str, place: str) -> bool:
    """Whether the issuer's `name` covers `place`: itself, or its township; the county in front is no difference."""
    name, place = COUNTY.sub("", name), COUNTY.sub("", place)
    return place == name or (place.startswith(name) and name[-1] in "乡镇道")
