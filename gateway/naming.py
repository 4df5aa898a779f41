"""Name each village of a status once: in the first list it is in, with marks for the others. Pure.

Called by the printed page and by the command line, each with words of its own. Whoever telephones down the lists
calls nobody twice, and those whom no loudspeaker reaches first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

LISTS = ("gaps", "wanting", "deputised", "away", "mute_planned")
"""Fields of a status, each a list of villages; one is named in the first it is in."""
MARKS = ("mute", "mute_planned", "deputised", "away")
"""Those that are marks, too."""
_SAID = {"mute_planned": "mute", "away": "deputised"}  # a mark that another one says already

Named = tuple[str, list[tuple[str, list[str]]]]
"""A list, and its villages by code with their marks."""


def once(lists: Mapping[str, Sequence[str]]) -> Iterator[Named]:
    """Yield each list that names somebody, given the codes of all of them; the mute come first in it."""
    within = {name: frozenset(lists.get(name) or ()) for name in (*LISTS, *MARKS)}
    named: set[str] = set()
    for name in LISTS:
        own = [code for code in lists.get(name) or () if code not in named]
        named.update(own)
        if own:
            own.sort(key=lambda code: code not in within["mute"])
            yield name, [(code, _marks(code, name, within)) for code in own]


def _marks(code: str, name: str, within: Mapping[str, frozenset[str]]) -> list[str]:
    on = [mark for mark in MARKS if code in within[mark]]
    return [mark for mark in on if mark != name and _SAID.get(mark) not in on]
