"""Would every village's name be heard, and does the voice speak? Asked by doctor and `mingluo speech check`.

Reads and measures; the one announcement it makes is thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from gateway.errors import ConfigError
from gateway.regions import Region
from gateway.speech.pool import INSTALL, Pool, SpeechFailed, missing
from gateway.speech.pronunciation import FILE, Pronunciation, readings
from gateway.speech.recording import Recordings
from gateway.speech.speech import SpeechSettings

SAMPLE = "演练。泌阳县。"
SHOWN = 5


class Finding(NamedTuple):
    """What was found, and what to do about it."""

    severity: Literal["ok", "note", "warning", "error"]
    text: str
    fix: str = ""


async def check(config: Path, places: Iterable[Region]) -> list[Finding]:
    """Look at the speech of a configuration folder, for the places it has to name."""
    if lacking := missing():
        text = (
            f"not installed ({', '.join(lacking)}): texts still go out, but loudspeakers that cannot speak stay silent"
        )
        return [Finding("warning", text, INSTALL)]
    try:
        settings = SpeechSettings.load(config)
        table, recordings = Pronunciation.load(config), Recordings.load(config)
    except ConfigError as error:
        return [Finding("error", f"{error}; until then there is no sound", "mend the line; then: mingluo speech check")]
    found = [*_readings(table, places)]
    found += [Finding("warning", fault, "record or convert it again") for fault in recordings.faults()]
    found.append(await _voice(config, settings, len(table.words), len(recordings)))
    return found


def _readings(table: Pronunciation, places: Iterable[Region]) -> Iterator[Finding]:
    named = list(places)
    fix = f"add rows to config/{FILE}: word,pinyin,note"
    if silent := sorted({one.spoken for one in named if table.silent(one.spoken)}):
        yield Finding("error", f"{len(silent)} places have a Hanzi nobody would hear: {_few(silent)}", fix)
    if loose := sorted(one.name for one in named if one.kind != "village" and one.name not in table.words):
        text = f"{len(loose)} counties and townships are read by the general dictionary: {_few(loose)}"
        yield Finding("warning", text, f"ask there how they are called, and {fix}")
    if odd := [word for word, said in table.words.items() if any(map(_odd, word, said))]:
        yield Finding("warning", f"readings no dictionary has: {_few(odd)}", "look for a typing error")


def _odd(one: str, syllable: str) -> bool:
    return syllable not in readings(one)


def _few(words: list[str]) -> str:
    return "、".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")


async def _voice(config: Path, settings: SpeechSettings, words: int, recordings: int) -> Finding:
    pool = Pool(config, workers=1)
    try:
        duration_s = await pool.make(settings.order(SAMPLE, "zh", "drill"))
    except SpeechFailed as error:
        return Finding("error", f"the voice does not speak ({error.code})", f"install it again: {INSTALL}")
    finally:
        await pool.close()
    text = f"speaks ({duration_s:.1f} s of sample); {words} words with fixed readings, {recordings} recordings"
    return Finding("ok", text)
