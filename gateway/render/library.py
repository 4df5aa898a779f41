"""The templates and tables of one folder, read once, so that `digest` names exactly what is rendered.

Called by the renderer. Which file serves which channel is told in `templates/README.md`.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import ConfigError

LANGUAGES = ("zh", "en")
SPEECH = ".speech.txt"
ADVICE_LEVELS = ("red", "orange", "yellow", "blue", "*")
ADVICE_GROUPS = ("officials", "residents")

# Control characters, which cleaning takes out of every value: alert text can neither end a title nor break a line.
_TITLE_ENDS, _LINE_BREAK = "\x1f", "\x1e"


class Advice(NamedTuple):
    """What to do, and the row that says so: its code prefix ("*" for every hazard) and level."""

    hazard: str
    level: str
    text: str


class Library:
    """Compiled templates, advice and hazard names.

    Raises:
        ConfigError: a file cannot be read as what it should be; the message names file and line.
    """

    def __init__(self, folder: Path) -> None:
        sources = _read(folder)
        self.digest = _digest(sources)
        self._templates = _compile({name: text for name, text in sources.items() if name.endswith(".txt")})
        self._advice = {
            key: advice for language in LANGUAGES for key, advice in _read_advice(sources, language).items()
        }
        self._hazards = {
            (language, row["hazard"]): row["name"]
            for language in LANGUAGES
            for row in _table(sources, f"{language}/hazards.csv", ("hazard", "name"))
        }
        self._chosen: dict[tuple[str, str], tuple[str, str]] = {}

    def choose(self, channel: str, language: str) -> tuple[str, str]:
        """Return (language, template): own language first, then Chinese; the channel, its families, the default."""
        if (channel, language) not in self._chosen:
            stems = [channel]
            while "_" in stems[-1]:
                stems.append(stems[-1].rpartition("_")[0])
            languages = [lang for lang in dict.fromkeys((language, "zh")) if lang in LANGUAGES]
            tries = [(lang, stem) for lang in languages for stem in stems]
            tries += [(lang, "default") for lang in languages]
            names = [(lang, f"{lang}/{stem}{end}") for lang, stem in tries for end in (SPEECH, ".txt")]
            found = next((pair for pair in names if pair[1] in self._templates), None)
            if found is None:
                raise ConfigError(f"templates: none for channel {channel!r}; add templates/zh/{channel}.txt")
            self._chosen[channel, language] = found
        return self._chosen[channel, language]

    def run(self, name: str, names: Mapping[str, object]) -> tuple[str | None, str]:
        """Run a template: (title or None, text). Line ends in templates mean nothing.

        Raises:
            ConfigError: the template is missing or uses a name it is not given.
        """
        try:
            text = self._templates[name].render(names, title_ends=_TITLE_ENDS, line_break=_LINE_BREAK)
        except KeyError as error:
            raise ConfigError(f"templates/{name} is missing") from error
        except jinja2.TemplateError as error:
            raise ConfigError(f"templates/{name}: {error}") from error
        glue = "" if name.startswith("zh/") else " "
        title, ends, body = text.rpartition(_TITLE_ENDS)
        return (_one_line(title, glue) if ends else None), _one_line(body, glue)

    def advice(self, language: str, code: str, level: str, group: str) -> Advice:
        """Find what to do: the longest code prefix wins, then the exact level; no text if the table has nothing."""
        for length in range(len(code), -1, -1):
            for wanted in (level, "*"):
                if advice := self._advice.get((language, code[:length] or "*", wanted, group)):
                    return advice
        return Advice("", "", "")

    def advised(self, language: str) -> set[str]:
        """Return the code prefixes that have advice of their own."""
        return {prefix for own, prefix, _, _ in self._advice if own == language and prefix != "*"}

    def named(self, language: str) -> set[str]:
        """Return the code prefixes that have a name."""
        return {prefix for own, prefix in self._hazards if own == language}

    def hazard(self, language: str, code: str) -> str:
        """Name of a hazard by its longest known code prefix, or ""."""
        known = (self._hazards.get((language, code[:length])) for length in range(len(code), 0, -1))
        return next(filter(None, known), "")


def _one_line(text: str, glue: str) -> str:
    lines = glue.join(filter(None, (line.strip(" \t\r") for line in text.split("\n"))))
    return lines.replace(_LINE_BREAK, "\n").strip()


def _read(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".csv") and path.is_file())
    if not paths:
        raise ConfigError(f"templates: nothing in {folder.name}/; expected zh/*.txt")
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8-sig") for path in paths}


def _digest(sources: Mapping[str, str]) -> str:
    """SHA-256 hex over names and contents, in name order."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        content = sources[name].encode()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _compile(sources: Mapping[str, str]) -> dict[str, jinja2.Template]:
    # Texts are not HTML: escaping would put "&lt;" into an SMS. The sandbox keeps templates to their words.
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.DictLoader(sources),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    try:
        return {name: environment.get_template(name) for name in sources}
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"templates/{error.name}, line {error.lineno}: {error.message}") from error


def _read_advice(sources: Mapping[str, str], language: str) -> dict[tuple[str, str, str, str], Advice]:
    """Read advice by language, code prefix, level and group; a misspelt level or group would never be found."""
    name, found = f"{language}/advice.csv", dict[tuple[str, str, str, str], Advice]()
    for row in _table(sources, name, ("hazard", "level", "group", "text")):
        hazard, level, group, text = row.values()
        said = f"templates/{name}: {hazard},{level},{group}"
        if level not in ADVICE_LEVELS or group not in ADVICE_GROUPS:
            raise ConfigError(f"{said}: use {', '.join(ADVICE_LEVELS)} and {' or '.join(ADVICE_GROUPS)}")
        if (language, hazard, level, group) in found:
            raise ConfigError(f"{said}: listed twice; keep one row")
        found[language, hazard, level, group] = Advice(hazard, level, text)
    return found


def _table(sources: Mapping[str, str], name: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if name not in sources:
        return []
    reader = csv.DictReader(line for line in sources[name].splitlines() if not line.startswith("#"))
    if tuple(reader.fieldnames or ()) != columns:
        raise ConfigError(f"templates/{name}: the first line must be {','.join(columns)}")
    rows = list(reader)
    for row in rows:
        if None in row or not all(row.values()):
            raise ConfigError(f"templates/{name}: a row is incomplete or too long: {row.get(columns[0])}")
    return rows
