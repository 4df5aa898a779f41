"""How Hanzi are read: pinyin with tone numbers, places and words of `config/pronunciation.csv` first.

Called in the worker, by `mingluo speech` and by doctor. A wrong reading of a place name warns another village, so all
townships and counties stand in the table, read by hand; an operator adds rows. Everything else is read by pypinyin.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from gateway.errors import ConfigError

FILE = "pronunciation.csv"
PAUSES = "，。、；！？"
_SYLLABLE = re.compile(r"[a-z]{1,6}[1-5]")
_HAN = re.compile(r"[㐀-鿿豈-﫿\U00020000-\U0003ffff]+")
_PARTS = re.compile(rf"{_HAN.pattern}|[A-Za-z]|[{PAUSES}]")
_LETTERS = {
    "a": "ei1", "b": "bi4", "c": "xi1", "d": "di4", "e": "yi4", "f": "ai2 fu5", "g": "ji4", "h": "ai2 chi5", "i": "ai4",
    "j": "zhei4", "k": "kei4", "l": "ai2 lou5", "m": "ai2 mu5", "n": "en1", "o": "ou1", "p": "pi1", "q": "kou4",
    "r": "a4", "s": "ai2 si5", "t": "ti4", "u": "you1", "v": "wei1", "w": "da2 bu5 liu5", "x": "ai2 ke5 si5",
    "y": "wai4", "z": "zei4",
}  # fmt: skip

_COUNTED = frozenset(
    "百千万亿个次些定切旦直律般起样片层户家带侧条段旁边处"
)  # after them 一 is a number, or part of a word
_ORDINAL = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "百", "千", "万", "第", "初")


class Pronunciation:
    """Words with a fixed reading, and what is left to pypinyin. `digest` names the content of the table."""

    def __init__(self, words: Mapping[str, tuple[str, ...]], digest: str = "") -> None:
        self.words = dict(words)
        self.digest = digest
        self._longest = max(map(len, words), default=0)

    @classmethod
    def load(cls, config: Path) -> Pronunciation:
        """Read the table in the folder `config`; without one, no word is fixed.

        Raises:
            ConfigError: a row that cannot be a reading of its word; the message names file and line.
        """
        path = config / FILE
        if not path.exists():
            return cls({})
        content = path.read_bytes()
        try:
            rows = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
            words = dict(_row(row, line) for line, row in enumerate(rows, 2))
        except UnicodeDecodeError:
            raise ConfigError(f"{FILE}: not UTF-8") from None
        return cls(words, hashlib.sha256(content).hexdigest())

    def read(self, text: str) -> list[str]:
        """Return syllables ("bi4", ü as v, neutral tone 5) and pauses, in order.

        The text is one for reading aloud (`gateway.render.speech`). What has no reading is left out: see `silent`.
        """
        return [token for part in _PARTS.findall(text) for token in self._part(part)]

    def silent(self, text: str) -> str:
        """Return the Hanzi of a text that would not be heard, for no table knows them."""
        return "".join(one for run in _HAN.findall(text) for one in run if not self._part(one))

    def _part(self, part: str) -> list[str]:
        if part in PAUSES:
            return [part]
        if part.isascii():
            return _LETTERS[part.lower()].split()
        return _flowing(part, [said for piece in self._pieces(part) for said in self.words.get(piece) or _read(piece)])

    def _pieces(self, run: str) -> Iterator[str]:
        """Cut a run of Hanzi into fixed words, leftmost and longest first, and what stands between them."""
        start = at = 0
        while at < len(run):
            length = next((n for n in range(self._longest, 0, -1) if run[at : at + n] in self.words), 0)
            if length:
                if start < at:
                    yield run[start:at]
                yield run[at : at + length]
                start = at = at + length
            else:
                at += 1
        if start < at:
            yield run[start:]


def readings(one: str) -> frozenset[str]:
    """Return every reading of one Hanzi that pypinyin knows."""
    from pypinyin import Style, pinyin

    found = pinyin(one, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True, errors="ignore")
    return frozenset(syllable for options in found for syllable in options)


def _flowing(run: str, said: list[str]) -> list[str]:
    """Give 不 and 一 the tone they have before others; the voice itself changes third tones only."""
    if len(said) != len(run):
        return said  # a Hanzi without a reading: nobody knows which syllable is whose
    for at, (one, after) in enumerate(pairwise(run)):
        falling = said[at + 1].endswith("4")
        if one == "不" and falling:
            said[at] = "bu2"
        elif one == "一" and after in _COUNTED and run[at - 1 : at] not in _ORDINAL:
            said[at] = "yi2" if falling else "yi4"
    return said


def _read(piece: str) -> list[str]:
    from pypinyin import Style, lazy_pinyin

    found = lazy_pinyin(piece, style=Style.TONE3, neutral_tone_with_five=True, errors="ignore")
    return [syllable for syllable in found if _SYLLABLE.fullmatch(syllable)]


def _row(row: Mapping[str, str | None], line: int) -> tuple[str, tuple[str, ...]]:
    word = (row.get("word") or "").strip()
    syllables = tuple((row.get("pinyin") or "").lower().replace("ü", "v").split())
    if not _HAN.fullmatch(word):
        raise ConfigError(f"{FILE} line {line}: the word must be Hanzi only; columns are word,pinyin,note")
    wrong = [one for one in syllables if not _SYLLABLE.fullmatch(one)]
    if wrong or len(syllables) != len(word):
        raise ConfigError(f"{FILE} line {line}: write one syllable with its tone 1 to 5 for each Hanzi, as bi4 yang2")
    return word, syllables
