"""Reading a free area description such as 泌阳县贾楼乡、铜山乡等地.

At each character the longest name known anywhere in the city wins, and only then is it asked whether
the place is in scope: so 东和店镇 is never taken for 和店镇. A bare name (贾楼) counts only where it stands
alone between separators; a village only right after a separator or another name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.model import Target
from gateway.regions.name import Names, meet
from gateway.regions.region import TOWNSHIP, VILLAGE, Region, stem

_LONGEST = 20
_MOST = 20_000  # characters; the names of all villages of a city fit
_SEPARATOR = re.compile(r"[\s、,，;；。.:：/|()（）\[\]【】·\-—]+")
_END = re.compile(r"[\s、,，;；。.:：/|()（）等和及与]")  # what may follow a bare name
_FILLER = re.compile(
    r"河南省|以及|及其|我[省市县区乡镇]|本[市县区乡镇]|该[市县区]|境内|全境|辖区|范围内?|所有|全部|和|及|与|的|在|内"
)
_WHOLE = re.compile(r"全[县区市]")
_OPEN = re.compile(r"等|周边|附近|一带|部分|大部|邻近|相邻|…|\?")  # ? stands for 除…外
_EACH = re.compile(r"各(?:乡|镇|街道|办事处)+")
_TOWN = re.compile(r"[\u4e00-\u9fff]{2}(?:乡(?!村)|(?<!村)镇|街道|办事处)")


@dataclass(slots=True)
class _Place:
    """A township mentioned (several: ambiguous), and the villages named after it."""

    towns: list[Region]
    villages: list[Region] = field(default_factory=list)
    whole: bool = False


@dataclass(slots=True)
class Reading:
    """What a text says. `left` are the pieces that were not understood; `counties` holds cities, too."""

    counties: list[Region] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)
    loose: list[list[Region]] = field(default_factory=list)  # villages named without their township
    left: list[str] = field(default_factory=list)

    @property
    def rest(self) -> str:
        """What was not understood, in one piece."""
        return "".join(self.left)

    @property
    def open(self) -> bool:
        """Whether the text says that it names only some of the places meant (等, 周边, …), or some that are not."""
        return bool(_OPEN.search(self.rest))

    @property
    def strange(self) -> bool:
        """Whether it names a township that is not known there: misspelt, or of another county."""
        return bool(_TOWN.search(_EACH.sub("", self.rest)))

    @property
    def towns(self) -> list[Region]:
        """Townships named, each once, in the text's order."""
        return list(dict.fromkeys(town for place in self.places for town in place.towns))

    def targets(self) -> list[Target]:
        """Return the townships and villages named; ambiguous ones are uncertain."""
        found = []
        for place in self.places:
            villages = () if place.whole else tuple(sorted(one.code for one in place.villages))
            certain = len(place.towns) == 1
            found += [Target(town.code, villages if certain else (), "name", certain) for town in place.towns]
        for group in self.loose:
            found += [Target(one.parent, (one.code,), "name", len(group) == 1) for one in group]
        return found


class Reader:
    """Reads one text; `scope` are the code prefixes names belong to where the text names no county."""

    def __init__(self, names: Names, scope: tuple[str, ...]) -> None:
        self._names = names
        self._scope = scope
        self._county: tuple[str, ...] = ()
        self._place: _Place | None = None
        self._abroad = False
        self._read = Reading()

    def read(self, text: str) -> Reading:
        """Return the places named. What is excepted (除…外) is left to the rest, never to the places.

        So is what lies beyond any honest list: it ends in … there, and a person looks at it.
        """
        text = text if len(text) <= _MOST else f"{text[:_MOST]}…"
        text = "\n".join(map(_without_exceptions, text.split("\n")))
        at, strange = 0, 0  # strange: how many characters before this one were not understood
        while at < len(text):
            length = self._name(text, at, clean=not strange) or _skip(text, at)
            if whole := _WHOLE.match(text, at):
                length = whole.end() - at
                self._all_of_it()
            if length:
                at, strange = at + length, 0
                continue
            strange += 1
            self._strange(text[at], strange)
            at += 1
        return self._read

    def _strange(self, character: str, run: int) -> None:
        self._read.left.append(character)
        if self._place is not None:
            self._place.whole = True  # villages after it may have been missed
        if character in "县市" and run > 1:
            self._abroad, self._place = True, None  # 方城县: the names after it are not ours

    def _all_of_it(self) -> None:
        wanted, known = self._county or self._scope, self._read.counties
        known += [one for one in self._names.counties if one.code.startswith(wanted) and one not in known]

    def _name(self, text: str, at: int, clean: bool) -> int:
        """Take the longest name that starts here; return its length, 0 if there is none."""
        if not self._names.may_start(text, at):
            return 0
        for end in range(min(len(text), at + _LONGEST), at + 1, -1):
            alone = clean and (end == len(text) or _END.match(text, end) is not None)
            if self._take(text[at:end], clean, alone):
                return end - at
        return 0

    def _take(self, piece: str, clean: bool, alone: bool) -> bool:
        exact = self._names.exact.get(piece, [])
        counties = [one for one in exact if one.kind in ("city", "county")]
        if counties:
            self._enter(counties)
            return True
        if clean and self._village(piece, alone):
            return True
        official = [one for one in exact if one.kind == "township"]
        base = stem(piece, TOWNSHIP)
        variant = self._names.towns.get(base, []) if base else []
        towns = official or variant or (self._names.towns.get(piece, []) if alone else [])
        return bool(towns) and self._town(towns, keep=bool(official))

    def _enter(self, counties: Sequence[Region]) -> None:
        self._county = self._names.scope([one.code for one in counties])
        self._place, self._abroad = None, False
        self._read.counties += counties

    def _town(self, towns: Sequence[Region], keep: bool) -> bool:
        """Enter a township. Out of scope it is passed over, unless its official name is unmistakable (`keep`)."""
        inside = [one for one in towns if one.code.startswith(self._county or self._scope)]
        if not inside and keep and not self._county and len(towns) == 1:
            inside = list(towns)
        if self._abroad:
            return True
        self._place = _Place(inside) if inside else None
        self._read.places += [self._place] if self._place else []
        if not inside:
            self._read.left.append(towns[0].name)
        return True

    def _village(self, piece: str, alone: bool) -> bool:
        base = stem(piece, VILLAGE) or (piece if alone else None)
        exact = [one for one in self._names.exact.get(piece, []) if one.kind == "village"]
        found = exact or (self._names.villages.get(base, []) if base else [])
        if not found or self._abroad:
            return False
        if self._place is not None:
            prefixes = tuple(one.code for one in self._place.towns)
            here = [one for one in found if one.code.startswith(prefixes)]
            self._place.villages += here
            return bool(here)
        if base == piece and piece in self._names.towns:
            return False  # 杨庄 alone is the township where there is one
        here = [one for one in found if one.code.startswith(meet(self._county or self._scope, self._scope) or ("-",))]
        self._read.loose += [here] if here else []
        return bool(here)


def _without_exceptions(line: str) -> str:
    """Return a line with ? for 除…外 (also 以外, 之外); as an expression this took the square of a hostile length."""
    kept, at = list[str](), 0
    while (start := line.find("除", at)) >= 0 and (end := line.find("外", start)) >= 0:
        kept += line[at:start], "?"
        at = end + 1
    return "".join([*kept, line[at:]])


def _skip(text: str, at: int) -> int:
    match = _SEPARATOR.match(text, at) or _FILLER.match(text, at)
    return match.end() - at if match else 0
