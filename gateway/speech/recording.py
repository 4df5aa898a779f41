"""Recorded voices: dialect or a known speaker, by hazard, level, county and notice, before or instead of the words.

Read from `config/recordings/index.csv` at start; doctor and `mingluo speech check` measure the files. A drill never
uses one: a recording says 预警 in a voice people know, and no drill mark could stand before its first word.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import ConfigError
from gateway.model import Level, Message, Notice, Status
from gateway.speech.announcement import Recording

INDEX = "index.csv"
COLUMNS = ("hazard", "level", "county", "notice", "language", "place", "file")
SHORTEST_S, LONGEST_S = 1.0, 60.0
QUIETEST_DB, LOUDEST_DB = -30.0, -8.0  # root mean square below full scale: quieter is not heard, louder is distorted
AUDIBLE = 0.01
"""Share of full scale below which a loudspeaker in a field gives nothing."""

LevelName = Literal["", "red", "orange", "yellow", "blue", "unknown"]


class Row(BaseModel):
    """One row of the index. Empty means any; `hazard` is the start of a code, `language` that of the text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hazard: str = Field("", pattern=r"^[0-9A-Z]{0,5}$")
    level: LevelName = ""
    county: str = Field("", pattern=r"^(\d{6})?$")
    notice: Notice | Literal[""] = ""
    language: Literal["zh", "en"] = "zh"
    place: Literal["before", "instead"]
    file: str = Field(pattern=r"^[^/\\]+\.(wav|mp3|ogg|flac)$")

    def fits(self, message: Message) -> bool:
        """Whether a message may be said with this recording."""
        return (
            message.hazard.startswith(self.hazard)
            and self.level in ("", Level(message.level).name.lower())
            and message.region.startswith(self.county)
            and self.notice in ("", message.notice)
            and self.language == message.language
        )

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """What says more of a message goes first."""
        return len(self.county), len(self.hazard), len(self.level) and 1, len(self.notice) and 1


class Recordings:
    """The recordings of one installation. `digest` names index and files."""

    def __init__(self, folder: Path, rows: Sequence[Row], digests: Sequence[str]) -> None:
        found = zip(rows, digests, strict=True)
        self._rows = sorted(found, key=lambda one: one[0].rank, reverse=True)
        self._folder = folder

    @classmethod
    def load(cls, config: Path) -> Recordings:
        """Read the index in `config/recordings`; without one there are none.

        Raises:
            ConfigError: a row that is wrong, or a file that is not there.
        """
        folder = config / "recordings"
        rows = list(_rows(folder / INDEX)) if (folder / INDEX).exists() else []
        digests = []
        for line, row in enumerate(rows, 2):
            try:
                digests.append(hashlib.sha256((folder / row.file).read_bytes()).hexdigest())
            except OSError as error:
                raise ConfigError(f"recordings/{INDEX} line {line}: {row.file}: {error.strerror}") from None
        return cls(folder, rows, digests)

    def __len__(self) -> int:
        return len(self._rows)

    def choose(self, message: Message) -> Recording | None:
        """Return the recording of a real warning that says most of it; None for every drill."""
        if message.status is not Status.ACTUAL:
            return None
        for row, digest in self._rows:
            if row.fits(message):
                return Recording(str((self._folder / row.file).absolute()), digest, row.place)
        return None

    def faults(self) -> Iterator[str]:
        """Measure each file; yield what a listener would complain of. Needs the extra."""
        for name in dict.fromkeys(row.file for row, _ in self._rows):
            for fault in _measured(self._folder / name):
                yield f"recordings/{name}: {fault}"


def _rows(path: Path) -> Iterator[Row]:
    try:
        table = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        lines = list(table)
    except UnicodeDecodeError:
        raise ConfigError(f"recordings/{INDEX}: not UTF-8") from None
    if tuple(table.fieldnames or ()) != COLUMNS:
        raise ConfigError(f"recordings/{INDEX}: the columns are {','.join(COLUMNS)}")
    for line, row in enumerate(lines, 2):
        try:
            yield Row.model_validate({key: (value or "").strip() for key, value in row.items() if key})
        except ValidationError as error:
            wrong = ", ".join(str(one["loc"][0]) for one in error.errors(include_input=False))
            raise ConfigError(f"recordings/{INDEX} line {line}: wrong {wrong}; see docs/speech.md") from None


def _measured(path: Path) -> Iterator[str]:
    import numpy as np
    import soundfile

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError:
        yield "is not a sound file this machine can read; make it WAV, MP3, Ogg or FLAC"
        return
    seconds = len(samples) / rate
    if not SHORTEST_S <= seconds <= LONGEST_S:
        yield f"lasts {seconds:.1f} s; {SHORTEST_S:.0f} to {LONGEST_S:.0f} s are useful"
    if not len(samples):
        return
    heard = np.flatnonzero(np.abs(samples.mean(axis=1)) > AUDIBLE)
    level = 20 * np.log10(max(float(np.sqrt(np.mean(np.square(samples)))), 1e-6))
    if not QUIETEST_DB <= level <= LOUDEST_DB:
        yield f"is {level:.0f} dBFS loud on average; {QUIETEST_DB:.0f} to {LOUDEST_DB:.0f} are heard and not distorted"
    if len(heard) and heard[0] > rate:
        yield f"begins with {heard[0] / rate:.1f} s of silence; cut it off"


assert set(get_args(LevelName)) - {""} == {level.name.lower() for level in Level}
