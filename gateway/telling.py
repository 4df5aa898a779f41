"""Which info of an alert speaks to whom: CAP allows several of one language, each for areas of its own. Pure.

Called by `case` when an alert is planned and by `compose` for every text. A place hears the info whose areas hold it;
where several do, the one that holds it for certain, then the first. Whoever answers for places of several infos
hears what each says of its own.

**Source:** CAP 1.2 §3.2.2 (several infos), §3.2.4 (areas); DESIGN rules 4, 6 and 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from gateway.model import Alert, Info, Target
from gateway.regions.target import merge

Parts = tuple[tuple[Target, ...], ...]
Voices = tuple[tuple[int, tuple[str, ...]], ...]
"""(number of an info, codes of the places it speaks of), in the order of the infos."""

TOWNSHIP = len("411726209")
SHORT_TEXT = "short_text"
"""The parameter with an issuer's own short text, relayed unaltered (D26)."""


def words_of(info: Info) -> tuple[object, ...]:
    """Return what people hear of an info."""
    told = (info.event, info.sender_name, info.headline, info.description, info.instruction)
    return (*told, info.expires, info.parameter(SHORT_TEXT))


def primary(language: str) -> str:
    """Return the language without its country: zh-CN → zh."""
    return language.lower().partition("-")[0]


def tellings(alert: Alert, language: str) -> tuple[int, ...]:
    """Return the numbers of the infos in a language, or else in the first one's; of several that say the same, one."""
    for wanted in (language, primary(alert.infos[0].language) if alert.infos else ""):
        first: dict[tuple[object, ...], int] = {}
        for number, info in enumerate(alert.infos):
            if primary(info.language) == wanted:
                first.setdefault(words_of(info), number)
        if first:
            return tuple(first.values())
    return ()


def divided(alert: Alert, parts: Parts) -> Parts:
    """Return the part of each info, those that say the same joined into the first of them; () if nothing differs."""
    first: dict[tuple[object, ...], int] = {}
    joined: list[list[Target]] = [[] for _ in parts]
    for number, (info, part) in enumerate(zip(alert.infos, parts, strict=False)):
        joined[first.setdefault((primary(info.language), *words_of(info)), number)] += part
    several = len(first) > len({language for language, *_ in first})
    return tuple(map(merge, joined)) if several else ()


def lapses(alert: Alert, parts: Parts, language: str) -> tuple[tuple[str, datetime], ...]:
    """Return when the last words in a language end for each township, where that is before the alert does (rule 4).

    Where no info of the language holds a place, it is another's words that end there; see `voices`.
    """
    own = tellings(alert, language)
    others = [number for number in range(len(parts)) if number not in own]
    ends = _ends(alert, parts, others) | _ends(alert, parts, own)
    return tuple((one, end) for one, end in sorted(ends.items()) if alert.expires is None or end < alert.expires)


def _ends(alert: Alert, parts: Parts, numbers: Sequence[int]) -> dict[str, datetime]:
    ends: dict[str, datetime] = {}
    for number in numbers:
        if end := alert.infos[number].expires or alert.expires:
            for target in parts[number]:
                ends[target.township] = max(end, ends.get(target.township, end))
    return ends


def voices(alert: Alert, parts: Parts, language: str, places: Sequence[str]) -> Voices:
    """Return who speaks to a recipient at `places` (codes of townships or villages).

    What no info of the language holds is told by one of another language, of which the templates take what needs no
    words; what none holds at all (a neighbouring township, an area that was left), by the first.
    """
    own = tellings(alert, language)
    if not parts or not own:
        return ()
    if len(own) == 1 and not parts[own[0]]:
        return ((own[0], tuple(places)),)  # its areas are written in words nobody here knows: it is a translation
    found: dict[int, list[str]] = {}
    for place in places:
        of_place = (
            list(_of_place(parts, own, place))
            or list(_of_place(parts, range(len(parts)), place))
            or [(own[0], (place,))]
        )
        for number, named in of_place:
            found.setdefault(number, []).extend(named)
    return tuple((number, tuple(dict.fromkeys(found[number]))) for number in sorted(found))


def _of_place(parts: Parts, numbers: Sequence[int], place: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield who speaks of a place: one for a village; of a township each, with the villages nobody before it has."""
    township, told = place[:TOWNSHIP], set[str]()
    holding = [(target, number) for number in numbers for target in parts[number] if target.township == township]
    for target, number in sorted(holding, key=lambda one: not one[0].certain):
        if place != township:
            if not target.villages or place in target.villages:
                yield number, (place,)
                return
        elif villages := tuple(one for one in target.villages or (township,) if one not in told):
            told.update(villages)
            yield number, villages
            if not target.villages:
                return
