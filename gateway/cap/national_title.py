"""The title of a national message: `<unit>发布<event><colour>预警[III级/较重]`, the only place that names the event.

Whoever reads or writes the dialect asks here whether the title agrees with kind and level. It is never the other way
round: a title that disagrees is named, and neither side is taken for the truth.

**Source:** titles of live feeds, and the rule in the platform's interface description (see `national_table`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from gateway.cap.finding import Severity
from gateway.model import Kind, Level

LONGEST = 200
"""Characters of a title that are looked at; what is longer is no title."""
END = "解除"
CHANGES = ("继续发布", "升级发布", "降级发布", "变更发布", "更新发布", "变更", "更新", "继续")
_VERB = re.compile("|".join((*CHANGES, END, "发布(?!中心)")))  # 预警信息发布中心 issues, too
_COLOUR = re.compile("([红橙黄蓝])色")
_COLOURS = {"红": Level.RED, "橙": Level.ORANGE, "黄": Level.YELLOW, "蓝": Level.BLUE}
_BRACKET = re.compile(r"[\[［【（(]([^\]］】）)]{1,20})[\]］】）)]")
_ROMAN = re.compile("(Ⅰ|Ⅱ|Ⅲ|Ⅳ|IV|I{1,3})级?")
_ROMANS = {
    "Ⅰ": Level.RED, "Ⅱ": Level.ORANGE, "Ⅲ": Level.YELLOW, "Ⅳ": Level.BLUE,
    "I": Level.RED, "II": Level.ORANGE, "III": Level.YELLOW, "IV": Level.BLUE,
}  # fmt: skip
_WORDS = {
    "特别重大": Level.RED, "特别严重": Level.RED, "重大": Level.ORANGE, "严重": Level.ORANGE, "较大": Level.YELLOW,
    "较重": Level.YELLOW, "一般": Level.BLUE,
}  # fmt: skip
_GRADES = {Level.RED: "I级/特别严重", Level.ORANGE: "II级/严重", Level.YELLOW: "III级/较重", Level.BLUE: "IV级/一般"}
_HUES = {level: f"{hue}色" for hue, level in _COLOURS.items()}


class Title(NamedTuple):
    """What a title says. `event` is "" where it could not be read; levels are named by colour, and by grade."""

    verb: str
    event: str
    colours: frozenset[Level] = frozenset()
    grades: frozenset[Level] = frozenset()


def read_title(text: str) -> Title:
    """Return what the title says; nothing where it is not one."""
    verb = _VERB.search(text) if len(text) <= LONGEST else None
    if verb is None:
        return Title("", "")
    rest = text[verb.end() :]
    grades = _BRACKET.findall(rest)
    plain = _BRACKET.sub(lambda match: "" if _grade(match[1]) else match[0], rest)
    event = plain.partition("预警")[0] if "预警" in plain else ""
    event = event.partition("信号")[0]
    colour = _COLOUR.search(event)
    return Title(
        verb[0],
        (event[: colour.start()] if colour else event).strip(),
        frozenset(_COLOURS[hue] for hue in _COLOUR.findall(plain)),
        frozenset().union(*map(_grade, grades)),
    )


def _grade(text: str) -> set[Level]:
    """Return the levels that the text of a bracket names: III级/较重."""
    roman = _ROMAN.match(text.strip())
    word = next((level for word, level in _WORDS.items() if word in text), None)
    found = {_ROMANS[roman[1]]} if roman else set()
    return found | ({word} if word is not None and (roman or "级" in text or text.strip() in _WORDS) else set())


def write_title(unit: str, kind: Kind | str, event: str, level: Level) -> str:
    """Return the title in the platform's form: 发布 for a first issue and for an update, 解除 for the end."""
    verb = END if kind == Kind.CANCEL else "发布"
    grade = f"[{_GRADES[level]}]" if level else ""
    return f"{unit}{verb}{event}{_HUES.get(level, '')}预警{grade}"


def disagreements(title: Title, kind: Kind | str, level: Level) -> Iterator[tuple[str, str, Severity]]:
    """Yield (code, message, severity) for each way in which the title contradicts its message."""
    if title.verb and (title.verb == END) is not (kind == Kind.CANCEL):
        message = f"the title says {title.verb}, msgType {kind}; make them agree"
        yield "title_disagrees", message, "error"
    elif title.verb in CHANGES and kind == Kind.ALERT:
        message = f"the title says {title.verb}, msgType Alert; if it changes an earlier message, send it as Update"
        yield "odd_title", message, "warning"
    # A title may name the level before, too: 由黄色升级为橙色.
    for said in (title.colours, title.grades):
        if said and level not in said:
            names = ", ".join(sorted(found.name.lower() for found in said))
            yield "level_disagrees", f"the title says {names}, the severity {level.name}; make them agree", "error"
