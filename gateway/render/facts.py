"""What a template may say: the facts of one alert for one audience, cleaned, in one language.

Called by the renderer. Issuers write descriptions as prose; here the period and the list of places are
found in them, so that each township hears its own name first and a text can be shortened without losing
one of the compulsory parts. What is not understood is passed on as it is, never re-worded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from gateway.model import Alert, Document, Group, Info, Kind, Level, Notice
from gateway.render.text import bare, clean, shorter, without_contacts

CHINA = timezone(timedelta(hours=8))

_CJK = re.compile(r"[\u3400-\u9fff\U00020000-\U0003ffff]")
_LEDE = re.compile(r"^[^：:，。；]{0,60}(?:发布|变更|升级|降级|解除)[^：:，。；]{0,40}[：:]")
_COUNT = r"[\d一二三四五六七八九十两半]+(?:[-~～—－至到][\d一二三四五六七八九十两]+)?"
_PERIOD = re.compile(rf"(?:预计)?(?:未来|今后){_COUNT}个?(?:小时|分钟|天|日)(?:之内|以内|内|里)?+(?!的)[，,]?")
_PERIOD_EN = re.compile(r"(?:within|in|over) the (?:next|coming) [\w -]{1,24}?(?:hours?|days?|minutes?)", re.IGNORECASE)
_DIRECT = re.compile(
    r"^(?:累计|最大|局地|小时|过程)?(?:雨量|降雨|降水|降雪|积雪|风力|阵风|气温|水位|能见度|将|有|仍|可能|已)"
)
_COUNTY = re.compile(r"^[^县市区乡镇]{1,6}[县市区](?=.{2})")
_TOWNSHIP = re.compile(r"^.{1,6}?(?:乡|镇|街道)(?=.)")
_APART = re.compile(r"^(?:请|全|各|所有|凡|本|我|你|贵|为|因|由|受|据|根据|按照|接|现|目前|自)")
_HAZARD = re.compile(
    r"[蓝黄橙红]色(?:预警)?(?:信号)?$|预警(?:信号)?$"
    r"|(?:[Ⅰ-ⅣIV一二三四1-4]{1,3}级)?应急响应(?:[Ⅰ-ⅣIV一二三四1-4]{1,3}级)?$|转移指令$|返回通知$"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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


@dataclass(frozen=True, slots=True)
class Wording:
    """The parts of a text that may be shortened, and the names of those that were."""

    polite: bool
    area: str
    measures: str
    trend: str
    cut: tuple[str, ...] = ()

    def less(self, what: str, **parts: Any) -> Wording:
        """The same with `parts` shortened."""
        return replace(self, cut=tuple(dict.fromkeys((*self.cut, what))), **parts)


@dataclass(frozen=True, slots=True)
class Facts:
    """Names for the templates. `fixed` is never shortened; `full` is, in the order rule 7 allows.

    `area` is the list of the audience's places, `area_short` its first place and the number of all.
    """

    fixed: dict[str, object]
    full: Wording
    area: str
    area_short: str

    def names(self, wording: Wording) -> dict[str, object]:
        """All names a template sees."""
        parts = {"area": wording.area, "measures": wording.measures, "trend": wording.trend, "polite": wording.polite}
        return self.fixed | parts

    def shorter(self) -> list[Wording]:
        """List ever shorter wordings: without politeness, others, measures detail, trend, the place list, measures."""
        wordings = [now := self.full.less("politeness", polite=False)]
        if self.area != now.area:
            wordings.append(now := now.less("others", area=self.area))
        wordings += (now := now.less("measures", measures=head) for head in shorter(now.measures) if head)
        now = wordings[-1]
        if now.trend:
            wordings += (now := now.less("trend", trend=head) for head in shorter(now.trend))
            now = wordings[-1]
        if len(self.area_short) < len(now.area):  # "官乡、李乡" is shorter than "官乡等2个乡镇"
            wordings.append(now := now.less("places", area=self.area_short))
        if now.measures:
            wordings.append(now.less("measures", measures=""))
        return wordings

    def refills(self, wording: Wording) -> Iterator[Wording]:
        """Yield `wording` with fuller measures, fullest first."""
        rest = tuple(part for part in wording.cut if part != "measures")
        yield replace(wording, measures=self.full.measures, cut=rest)
        yield from (replace(wording, measures=head) for head in shorter(self.full.measures) if head)


def gather(alert: Alert, previous: Alert | None, want: Want, words: Mapping[str, str], issuer: str) -> Facts:
    """Collect the facts.

    Args:
        alert: This version.
        previous: The version it updates, ends or corrects.
        want: The audience and notice.
        words: Small words of the language: `list_join`, `others`, `unsure`, and the `advice` for this audience.
        issuer: Name to use where the alert names no sender.
    """
    info = alert.info(want.language)
    told = _read(alert, info, want)
    was = previous or alert
    fixed: dict[str, object] = {
        "document": alert.document.value,
        "notice": want.notice.value,
        "group": want.group.value,
        "channel": want.channel,
        "actual": alert.actual,
        "confirm": want.confirm and want.group is Group.OFFICIALS,
        "issuer": _issuers(alert, info, previous, want.language, words, issuer),
        "time": local_time(alert.sent, want.language),
        "hazard": hazard(alert, want.language, words),
        "level": int(alert.level),
        "was": {
            "hazard": hazard(was, want.language, words),
            "level": int(was.level),
            "time": local_time(_mistaken(alert, previous), want.language),
        },
        "change": _change(alert, previous),
        "certain": bool(want.places),
        "joined": told.joined,
        "period": told.period,
        "inner": told.inner,
        "order": told.order,
        "order_joined": told.order_joined,
        "until": "" if told.period else _until(alert, info, want.language),
        "remaining": words["list_join"].join(want.remaining),
        "own": want.places[0] if want.places else "",
        "short": _short(info, want),
    }
    full, short = _area(want, words)
    others = words["others"].format(n=len(want.places) + want.others, unit=_unit(want)) if want.others else ""
    listed = full if len(full) <= max(12, want.limit // 3) else short
    tail = others if want.places and listed == full else ""
    wording = Wording(True, listed + tail, told.measures or words["advice"], told.trend, told.cut)
    return Facts(fixed, wording, listed, short)


def hazard(alert: Alert, language: str, words: Mapping[str, str]) -> str:
    """Name the hazard without its colour: the alert's own name in Chinese, the issuer's or a known one in English."""
    if language == "zh":
        name = clean(alert.event)
        return _HAZARD.sub("", _HAZARD.sub("", name)) or name
    info = alert.info(language)
    named = clean(info.event) if info else ""
    if named and not _CJK.search(named):
        return named
    return words.get(f"hazard:{alert.event_code}", "") or named or clean(alert.event)


def local_time(moment: datetime, language: str) -> str:
    """Write a moment in China's time: 20日14时30分, or "14:30 on 20 Jul"."""
    local = moment.astimezone(CHINA)
    if language == "zh":
        return f"{local.day}日{local.hour}时" + (f"{local.minute}分" if local.minute else "")
    return f"{local:%H:%M} on {local.day} {_MONTHS[local.month - 1]}"


class _Told(NamedTuple):
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


def _read(alert: Alert, info: Info | None, want: Want) -> _Told:
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
        return _Told("", _period_en(trend), trend, False, measures, order, False, cut)
    names = _names(alert, want)
    order, order_joined = _own_first(order, want.places, names)
    period, trend, inner = _split_period(_LEDE.sub("", trend))
    trend, joined = _own_first(trend, want.places, names)
    if want.places:
        joined = joined or bool(_DIRECT.search(trend))
        order_joined = order_joined or bool(order and not _APART.search(order))
    return _Told(period, inner, trend, joined, measures, order, order_joined, cut)


def _field(info: Info | None, name: str, language: str) -> str:
    """One field, cleaned, without its closing punctuation; "" where an English reader would get Chinese prose."""
    text = bare(clean(getattr(info, name))) if info else ""
    return "" if language != "zh" and _CJK.search(text) else text


def _issuers(
    alert: Alert, info: Info | None, previous: Alert | None, language: str, words: Mapping[str, str], issuer: str
) -> str:
    """Name who issues it; a joint warning names its partners behind the lead unit, each once."""
    lead = clean(info.sender_name if info else None) or _sender_of(previous, language) or issuer
    named = [partner.zh if language == "zh" else partner.en for partner in alert.partners]
    return words["list_join"].join([lead, *(name for name in named if name not in lead)])


def _sender_of(previous: Alert | None, language: str) -> str:
    info = previous.info(language) if previous else None
    return clean(info.sender_name) if info else ""


def _mistaken(alert: Alert, previous: Alert | None) -> datetime:
    """When the version in question was issued; a correction names the time of the mistake."""
    if previous:
        return previous.sent
    return alert.references[0].sent if alert.kind is Kind.CORRECTION and alert.references else alert.sent


def _short(info: Info | None, want: Want) -> str:
    """The issuer's own short text. It speaks of the area of its version, so places that leave it get ours."""
    if info is None or want.notice is Notice.PARTIAL_ALL_CLEAR:
        return ""
    text = clean(info.parameter("short_text"))
    return "" if want.language != "zh" and _CJK.search(text) else text


def _change(alert: Alert, previous: Alert | None) -> str:
    if previous is None or Level.UNKNOWN in (alert.level, previous.level):
        return ""
    if clean(alert.event) != clean(previous.event):
        return "other"
    return "same" if alert.level == previous.level else "up" if alert.level > previous.level else "down"


def _until(alert: Alert, info: Info | None, language: str) -> str:
    expires = (info.expires if info else None) or alert.expires
    return local_time(expires, language) if expires else ""


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
    known |= {_COUNTY.sub("", name) for name in known}
    known |= {found[0] for name in known if (found := _TOWNSHIP.match(name))}
    return tuple(sorted(known, key=len, reverse=True))


def names_of(alert: Alert, want: Want) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the issuer may call the audience's own places (with and without the county), and their counties."""
    described = [clean(area.description) for area in alert.areas]
    counties = [found.group() for name in (*want.places, *described) if (found := _COUNTY.match(name))]
    names = (*want.places, *(_COUNTY.sub("", name) for name in want.places))
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(counties))


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
    name, place = _COUNTY.sub("", name), _COUNTY.sub("", place)
    return place == name or (place.startswith(name) and name[-1] in "乡镇道")


def _area(want: Want, words: Mapping[str, str]) -> tuple[str, str]:
    """The places of the audience in full, and its first place with the number of all."""
    if not want.places:
        return words["unsure"], words["unsure"]
    full = words["list_join"].join(want.places)
    count = len(want.places) + want.others
    if len(want.places) == 1:
        return full, full
    return full, want.places[0] + words["others"].format(n=count, unit=_unit(want))


def _unit(want: Want) -> str:
    """等3个乡镇, or 等3处 when villages are among the places."""
    if want.language != "zh":
        return "places"
    return "个乡镇" if all(re.search(r"[乡镇场区]$|街道$|办事处$", place) for place in want.places) else "处"
