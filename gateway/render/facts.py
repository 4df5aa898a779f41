"""What a template may say: the facts of one alert for one audience, cleaned, in one language.

Called by the renderer. Issuers write descriptions as prose; `prose` finds the period and the list of places in them,
so that each township hears its own name first and a text can be shortened without losing one of the compulsory parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from gateway.mark import marked, unmarked
from gateway.model import Alert, Group, Info, Kind, Level, Notice
from gateway.render.prose import CJK, COUNTY, Voice, Want, read, read_all
from gateway.render.text import clean, shorter
from gateway.telling import SHORT_TEXT

CHINA = timezone(timedelta(hours=8))

_HAZARD = re.compile(
    r"[蓝黄橙红]色(?:预警)?(?:信号)?$|预警(?:信号)?$"
    r"|(?:[Ⅰ-ⅣIV一二三四1-4]{1,3}级)?应急响应(?:[Ⅰ-ⅣIV一二三四1-4]{1,3}级)?$|转移指令$|返回通知$"
)
NAMED = 3
"""Places named one by one in front of what is said of them."""
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
    voices = _voices(alert, want, words)
    info = voices[0].info if voices else alert.info(want.language)
    told = read_all(alert, voices, want, words["advice"]) if len(voices) > 1 else read(alert, info, want)
    was = previous or alert
    fixed: dict[str, object] = {
        "document": alert.document.value,
        "notice": want.notice.value,
        "group": want.group.value,
        "channel": want.channel,
        "actual": alert.actual,
        "announces": alert.announces,
        "held": _held(alert, info, want.language),
        "confirm": want.confirm and want.group is Group.OFFICIALS,
        "issuer": _issuers(alert, info, previous, want.language, words, issuer),
        "time": local_time(alert.sent, want.language),
        "hazard": hazard(alert, info, want.language, words),
        "level": int(alert.level),
        "was": {
            "hazard": hazard(was, was.info(want.language) if previous else info, want.language, words),
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
        "until": "" if told.period else _until(alert, info, voices, want.language, words),
        "remaining": words["list_join"].join(want.remaining),
        "own": want.places[0] if want.places else "",
        "short": _short(alert, info, want) if len(voices) < 2 else "",
    }
    full, short = _area(want, words)
    others = words["others"].format(n=len(want.places) + want.others, unit=_unit(want, want.places))
    listed = full if len(full) <= max(12, want.limit // 3) else short
    tail = others if want.others and want.places and listed == full else ""
    wording = Wording(True, listed + tail, told.measures or words["advice"], told.trend, told.cut)
    return Facts(fixed, wording, listed, short)


def hazard(alert: Alert, info: Info | None, language: str, words: Mapping[str, str]) -> str:
    """Name the hazard without its colour: the alert's own name in Chinese, the issuer's or a known one in English."""
    known = words.get(f"hazard:{alert.event_code}", "")
    if language == "zh":
        name = _own(alert, alert.event)
        return _HAZARD.sub("", _HAZARD.sub("", name)) or name or known or words["unnamed"]
    named = _own(alert, info.event) if info else ""
    if named and not CJK.search(named):
        return named
    return known or named or _own(alert, alert.event) or words["unnamed"]


def _own(alert: Alert, text: str | None) -> str:
    """Return the issuer's words, cleaned; those of a real warning never begin as a drill's do (rule 3)."""
    return unmarked(clean(text)) if alert.actual else clean(text)


def local_time(moment: datetime, language: str) -> str:
    """Write a moment in China's time: 20日14时30分, or "14:30 on 20 Jul"."""
    local = moment.astimezone(CHINA)
    if language == "zh":
        return f"{local.day}日{local.hour}时" + (f"{local.minute}分" if local.minute else "")
    return f"{local:%H:%M} on {local.day} {_MONTHS[local.month - 1]}"


def _held(alert: Alert, info: Info | None, language: str) -> str:
    """Say from when until when an announced drill is held."""
    if not (alert.announces and info and info.onset and alert.expires):
        return ""
    return (
        f"{local_time(info.onset, language)}{'至' if language == 'zh' else ' to '}{local_time(alert.expires, language)}"
    )


def _issuers(
    alert: Alert, info: Info | None, previous: Alert | None, language: str, words: Mapping[str, str], issuer: str
) -> str:
    """Name who issues it; a joint warning names its partners behind the lead unit, each once."""
    lead = _own(alert, info.sender_name if info else None) or _sender_of(previous, language) or issuer
    named = [partner.zh if language == "zh" else partner.en for partner in alert.partners]
    return words["list_join"].join([lead, *(name for name in named if name not in lead)])


def _sender_of(previous: Alert | None, language: str) -> str:
    info = previous.info(language) if previous else None
    return _own(previous, info.sender_name) if previous and info else ""


def _mistaken(alert: Alert, previous: Alert | None) -> datetime:
    """When the version in question was issued; a correction names the time of the mistake."""
    if previous:
        return previous.sent
    return alert.references[0].sent if alert.kind is Kind.CORRECTION and alert.references else alert.sent


def _short(alert: Alert, info: Info | None, want: Want) -> str:
    """The issuer's own short text. It speaks of the area of its version, so places that leave it get ours.

    So does a real warning whose own text begins as a drill's: it would be taken for one, behind its signature, too.
    """
    if info is None or want.notice is Notice.PARTIAL_ALL_CLEAR:
        return ""
    text = clean(info.parameter(SHORT_TEXT))
    if alert.actual and marked(text):
        return ""
    return "" if want.language != "zh" and CJK.search(text) else text


def _change(alert: Alert, previous: Alert | None) -> str:
    if previous is None or Level.UNKNOWN in (alert.level, previous.level):
        return ""
    if clean(alert.event) != clean(previous.event):
        return "other"
    return "same" if alert.level == previous.level else "up" if alert.level > previous.level else "down"


def _until(alert: Alert, info: Info | None, voices: Sequence[Voice], language: str, words: Mapping[str, str]) -> str:
    """Say when it ends; where it ends at several times, each with its places."""
    ends = [one.info.expires or alert.expires for one in voices]
    if len(set(ends)) > 1:
        times = zip(voices, ends, strict=True)
        gap = "" if language == "zh" else " "
        return words["list_join"].join(f"{one.label}{gap}{local_time(end, language)}" for one, end in times if end)
    expires = (info.expires if info else None) or alert.expires
    return local_time(expires, language) if expires else ""


def _voices(alert: Alert, want: Want, words: Mapping[str, str]) -> list[Voice]:
    """Return the infos that speak to this recipient; none where the language has but one thing to say."""
    found = []
    for number, places in want.told:
        label = words["list_join"].join(places)
        if len(places) > NAMED:
            label = places[0] + words["others"].format(n=len(places), unit=_unit(want, places))
        found.append(Voice(alert.infos[number], places, label))
    return found


def names_of(alert: Alert, want: Want) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what the issuer may call the audience's own places (with and without the county), and their counties."""
    described = [clean(area.description) for area in alert.areas]
    counties = [found.group() for name in (*want.places, *described) if (found := COUNTY.match(name))]
    names = (*want.places, *(COUNTY.sub("", name) for name in want.places))
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(counties))


def _area(want: Want, words: Mapping[str, str]) -> tuple[str, str]:
    """The places of the audience in full, and its first place with the number of all."""
    if not want.places:
        return words["unsure"], words["unsure"]
    full = words["list_join"].join(want.places)
    count = len(want.places) + want.others
    if len(want.places) == 1:
        return full, full
    return full, want.places[0] + words["others"].format(n=count, unit=_unit(want, want.places))


def _unit(want: Want, places: Sequence[str]) -> str:
    """等3个乡镇, or 等3处 when villages are among the places."""
    if want.language != "zh":
        return "places"
    return "个乡镇" if all(re.search(r"[乡镇场区]$|街道$|办事处$", place) for place in places) else "处"
