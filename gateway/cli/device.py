"""`mingluo device`: a loudspeaker on a small Linux box, and its buttons."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.frame import print_json, tell

if TYPE_CHECKING:
    from gateway.device.program import Program

State = Annotated[
    Path, typer.Option("--state", metavar="FOLDER", envvar="MINGLUO_DEVICE_STATE", help="The folder it runs with.")
]
STATE = Path("/var/lib/mingluo-device")


class Microphone(StrEnum):
    """Whether somebody speaks."""

    ON = "on"
    OFF = "off"


def run(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings in TOML; flags stand above it.")] = None,
    name: Annotated[str | None, typer.Option(help="The device's name at the gateway.")] = None,
    village: Annotated[str | None, typer.Option(metavar="CODE", help="Its village, 12 digits.")] = None,
    url: Annotated[str | None, typer.Option(help="The gateway, for example wss://warn.example.org.")] = None,
    pin: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="A key of the gateway, ed25519:…; may be repeated.")
    ] = None,
    pins_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same from a file, also PEM or JWK.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The device's key; else MINGLUO_DEVICE_KEY.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Authority of the gateway's certificate.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", envvar="MINGLUO_DEVICE_STATE", help=f"What it remembers; default {STATE}."),
    ] = None,
    play_with: Annotated[
        str | None, typer.Option(metavar="CMD", help="Plays {file}; default: ffplay, mpv, sox or aplay.")
    ] = None,
    speak_with: Annotated[
        str | None, typer.Option(metavar="CMD", help="Reads a text from its input and writes {file} as WAV.")
    ] = None,
    volume_with: Annotated[str | None, typer.Option(metavar="CMD", help="Sets {volume}, 0 to 100.")] = None,
    clock_with: Annotated[
        str | None, typer.Option(metavar="CMD", help="Sets the clock to {seconds} since 1970.")
    ] = None,
    sound_to: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep there what would sound, in place of sound.")
    ] = None,
    allow_plain: Annotated[
        bool | None, typer.Option("--allow-plain", help="Let the key cross the network unencrypted.")
    ] = None,
) -> None:
    """Be a loudspeaker: connect, verify, play, remember, report. SIGTERM ends it, SIGUSR1 is the alarm button.

    Example: mingluo device run --config /etc/mingluo/device.toml

    Example: mingluo device run --name lb-1 --village 411726001001 --url wss://warn.example.org
    --pins-file gateway.pin --key-file device.key --speak-with "espeak-ng -v cmn-latn-pinyin --stdin -w {file}"
    """
    from gateway import log
    from gateway.device.program import Program
    from gateway.device.settings import load

    given: dict[str, Any] = {
        "name": name, "village": village, "url": url, "pins": pin, "pins_file": pins_file, "key_file": key_file,
        "ca_file": ca_file, "state": state, "play_with": play_with, "speak_with": speak_with,
        "volume_with": volume_with, "clock_with": clock_with, "sound_to": sound_to, "allow_plain": allow_plain,
    }  # fmt: skip
    settings = load(config, given)
    log.configure(pretty=sys.stderr.isatty())
    parts = settings.parts()
    try:
        with suppress(asyncio.CancelledError):
            asyncio.run(_work(Program(parts), settings.state))
    finally:
        parts.disk.close()


async def _work(program: Program, folder: Path) -> None:
    from gateway.device.control import listening

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    loop.add_signal_handler(signal.SIGUSR1, lambda: program.alarm(str(uuid.uuid4())))

    def press(word: str) -> dict[str, Any]:
        match word:
            case "alarm":
                program.alarm(alarm := str(uuid.uuid4()))
                return {"alarm": alarm}
            case "microphone on" | "microphone off":
                program.speak(word.endswith("on"))
        return program.status()

    async with listening(folder, press):
        await program.run()


def alarm(state: State = STATE) -> None:
    """Report that the village has sounded its own alarm; the county is told once the line is there.

    Example: mingluo device alarm
    """
    from gateway.device.control import press

    tell(f"reported as {press(state, 'alarm')['alarm']}")


def microphone(
    speaks: Annotated[Microphone, typer.Argument(help="on: somebody speaks.")], state: State = STATE
) -> None:
    """Give way to the village's microphone, or go on.

    Example: mingluo device microphone on
    """
    from gateway.device.control import press

    press(state, f"microphone {speaks.value}")


def status(state: State = STATE) -> None:
    """Show how the running device is, as JSON.

    Example: mingluo device status
    """
    from gateway.device.control import press

    print_json(press(state, "status"))


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="A loudspeaker on a small Linux box (docs/device.md).", no_args_is_help=True)
    for command in (run, alarm, microphone, status):
        group.command()(command)
    app.add_typer(group, name="device", rich_help_panel="Without a gateway")
