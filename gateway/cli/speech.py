"""`mingluo speech`: hear what a text becomes, and check that every name is said and the voice speaks."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.frame import NO, AsJson, load_settings, print_json, refuse, tell, wrong_use


class Chime(StrEnum):
    """Levels that have a chime of their own."""

    RED = "red"
    ORANGE = "orange"
    YELLOW = "yellow"
    BLUE = "blue"


class Language(StrEnum):
    """Languages there is a voice for."""

    ZH = "zh"
    EN = "en"


def say(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="As a warning says it; numbers and units are written out.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the sound goes: a name ending in .mp3 or .wav.")],
    level: Annotated[Chime, typer.Option(help="Which chime goes before it.")] = Chime.YELLOW,
    drill: Annotated[bool, typer.Option("--drill", help="As a drill: its own chime, 演练 first.")] = False,
    language: Annotated[Language, typer.Option(help="Which voice.")] = Language.ZH,
) -> None:
    """Make the announcement a loudspeaker would fetch; say how it is read and how long it lasts.

    Example: mingluo speech say 泌阳县贾楼乡暴雨红色预警 --level red --out red.mp3
    """
    from gateway.speech.announcement import TYPES, words_of
    from gateway.speech.pool import INSTALL, Pool, SpeechFailed, missing
    from gateway.speech.pronunciation import Pronunciation
    from gateway.speech.speech import SpeechSettings

    form = out.suffix.removeprefix(".")
    if form not in TYPES:
        wrong_use(f"--out: the name must end in {' or '.join(f'.{one}' for one in TYPES)}")
    if missing():
        refuse(f"speech is not installed: {INSTALL}")
    config = load_settings().config
    words = words_of(text, language, drill=drill)
    order = SpeechSettings.load(config).order(words, language, "drill" if drill else level, form=form)
    tell(" ".join(Pronunciation.load(config).read(words)) if language is Language.ZH else words)

    async def made() -> float:
        pool = Pool(config, workers=1)
        try:
            return await pool.make(order, out.absolute())
        finally:
            await pool.close()

    try:
        duration_s = asyncio.run(made())
    except SpeechFailed as error:
        refuse(f"it could not be spoken ({error.code}); run: mingluo speech check")
    tell(f"{out}: {duration_s:.1f} s")


def check(json: AsJson = False) -> None:
    """Check readings of all places, recordings and the voice. Ends with 1 if there is an error.

    Example: mingluo speech check
    """
    from gateway.regions import Regions
    from gateway.speech.check import check as look

    settings = load_settings()
    places = Regions.load(settings.config / "regions").places.values()
    findings = asyncio.run(look(settings.config, places))
    if json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.severity:<7} {finding.text}" + (f" — {finding.fix}" if finding.fix else ""))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(NO)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Speech: hear a text, check readings, recordings and the voice.")
    group.command("say")(say)
    group.command("check")(check)
    app.add_typer(group, name="speech")
