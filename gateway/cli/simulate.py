"""`mingluo simulate`: the counterparts of an installation, so that it can be proven without one real message."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.client import DEFAULT_URL
from gateway.cli.frame import load_settings, tell

SENDER = "+15005550006"
"""The number a sample configuration sends from."""

LogFile = Annotated[Path, typer.Option("--log", metavar="FILE", help="What really arrived, one JSON line each.")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="TCP port on this machine; 0 takes a free one.")]
Seed = Annotated[int, typer.Option(help="Faults repeat themselves with the same seed.")]


def _share(help_: str) -> Any:
    """Return an option that is a share, 0 to 1."""
    return typer.Option(metavar="SHARE", min=0.0, max=1.0, help=help_)


Throttled = Annotated[float, _share("Requests refused as too many.")]
Broken = Annotated[float, _share("Requests answered 500.")]
Dropped = Annotated[float, _share("Requests that are taken, and the line is cut before the answer.")]


def _until_told(start: Callable[[], Awaitable[object]], stop: Callable[[], Awaitable[object]]) -> None:
    """Run a counterpart until SIGTERM or Ctrl-C."""

    async def work() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        try:
            await start()
            await ended.wait()
        finally:
            await stop()

    asyncio.run(work())


def sms(
    port: Port = 8091,
    log: LogFile = Path("sms.jsonl"),
    replies_to: Annotated[str, typer.Option(metavar="URL", help="The gateway's webhook for answers.")] = "",
    answering: Annotated[float, _share("Numbers that answer 1.")] = 0.0,
    unreachable: Annotated[float, _share("Numbers that are off, or out of reach.")] = 0.0,
    throttled: Throttled = 0.0,
    broken: Broken = 0.0,
    dropped: Dropped = 0.0,
    latency: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds before each answer.")] = 0.0,
    seed: Seed = 0,
) -> None:
    """Run an SMS carrier that speaks Twilio's API; shares of faults are 0 to 1. Ctrl-C ends it.

    What it prints is the table [sms_twilio] of channels.toml; restart the gateway with it.

    Example: mingluo simulate sms --port 8091 --unreachable 0.05 --dropped 0.01
    """
    from gateway.simulate.log import Log
    from gateway.simulate.sms import SmsFaults, SmsReplies, SmsSimulator

    faults = SmsFaults(unreachable, throttled, broken, dropped, latency)
    server = SmsSimulator(Log(log), faults=faults, replies=SmsReplies(answering, url=replies_to), seed=seed)

    async def start() -> None:
        address = await server.start(port)
        account = server.account
        typer.echo(f'base_url = "{address}"\naccount_sid = "{account.sid}"\nauth_token = "{account.token}"')
        typer.echo(f'sender = "{SENDER}"\npublic_url = "{os.environ.get("MINGLUO_URL") or DEFAULT_URL}"')
        tell(f"SMS carrier on {address}; messages in {log}")

    _until_told(start, server.stop)


def _at_lines(obey: Callable[[str], None]) -> None:
    """Hand over each line of standard input as it comes, from a thread: a pipe, a terminal or a file will do."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        # Not sys.stdin: its lock, held in a read that never ends, would make the interpreter's exit fail.
        rest = b""
        with suppress(OSError, RuntimeError):  # no standard input; the loop has ended
            while chunk := os.read(0, 65_536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    loop.call_soon_threadsafe(obey, line.decode(errors="replace").strip())

    threading.Thread(target=read, daemon=True).start()


def _obey_aloud(obey: Callable[[str], None], line: str) -> None:
    from gateway.errors import ConfigError

    try:
        obey(line)
    except ConfigError as error:
        tell(str(error))


def carrier(
    protocol: Annotated[str, typer.Option(help="cmpp20, cmpp30, sgip, smgp or smpp.")],
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="The protocol's own unless given.")] = None,
    log: LogFile = Path("carrier.jsonl"),
    account: Annotated[
        list[str] | None, typer.Option(metavar="NAME:SECRET", help="An account; may be repeated.")
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="Most connections of an account.")] = 4,
    source: Annotated[str, typer.Option(metavar="NUMBER", help="What a sender's number begins with.")] = "",
    listener: Annotated[str, typer.Option(metavar="HOST:PORT", help="SGIP: where the gateway listens.")] = "",
    rate: Annotated[float, typer.Option(min=0.0, help="Messages a second and connection; 0 lifts it.")] = 0.0,
    window: Annotated[int, typer.Option(min=0, help="Unanswered submits of a connection; 0 lifts it.")] = 16,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SHARE", help="What befalls submits; may be repeated.")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the scenario.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Run the gateway of a carrier, or an SMPP aggregator. Ctrl-C ends it; docs/carrier-simulator.md has the settings.

    Lines on standard input: reply NUMBER TEXT · set NAME=VALUE · logout · cut.

    Example: mingluo simulate carrier --protocol cmpp30 --rate 300 --fault cut=0.01 --set late=0.1
    """
    from gateway.errors import ConfigError
    from gateway.simulate.carrier import PORTS, PROTOCOLS, Account, Carrier, Scenario, obey, revise, settings
    from gateway.simulate.log import Log

    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol {protocol}: must be one of {', '.join(PROTOCOLS)}")
    if listener and not listener.rpartition(":")[2].isdecimal():
        raise ConfigError(f"--listener {listener}: must be HOST:PORT")
    limits = {"rate": rate, "window": window, "faults": settings(fault or [])}
    scenario = revise(Scenario(), {**limits, **settings(setting or [])})
    pairs = [each.partition(":")[::2] for each in account or ["901234:simulated"]]
    accounts = [Account(name, secret, connections, source, listener) for name, secret in pairs]
    server = Carrier(PROTOCOLS[protocol], Log(log), accounts, scenario, seed)

    async def start() -> None:
        listening = await server.start(PORTS[protocol] if port is None else port)
        names = ", ".join(server.lines)
        typer.echo(f"127.0.0.1:{listening}")
        tell(f"{protocol} carrier on 127.0.0.1:{listening} for {names}; messages in {log}")
        _at_lines(lambda line: _obey_aloud(partial(obey, server), line))

    _until_told(start, server.stop)


def sms_http(
    port: Port = 8093,
    log: LogFile = Path("sms-http.jsonl"),
    callback: Annotated[str, typer.Option(metavar="URL", help="Where reports and replies go; none: polled.")] = "",
    signature: Annotated[list[str] | None, typer.Option(help="A registered 【signature】; may be repeated.")] = None,
    answering: Annotated[float, _share("Numbers that answer 1.")] = 0.0,
    failing: Annotated[float, _share("Numbers that are reported as not delivered.")] = 0.0,
    lost: Annotated[float, _share("Numbers that are never reported on.")] = 0.0,
    throttled: Throttled = 0.0,
    broken: Broken = 0.0,
    dropped: Dropped = 0.0,
    seed: Seed = 0,
) -> None:
    """Run an SMS provider with a JSON API; shares are 0 to 1. Ctrl-C ends it.

    Example: mingluo simulate sms-http --failing 0.05 --signature 【泌阳县气象局】
    """
    from gateway.simulate.log import Log
    from gateway.simulate.sms_http import HttpProvider, HttpScenario

    server = HttpProvider(Log(log), seed=seed)
    server.scenario = HttpScenario(
        signatures=frozenset(signature or ()), callback_url=callback, answering=answering, failing=failing,
        lost=lost, throttled=throttled, broken=broken, dropped=dropped,
    )  # fmt: skip

    async def start() -> None:
        address = await server.start(port)
        typer.echo(f'base_url = "{address}"\ntoken = "{server.token}"')
        tell(f"SMS provider on {address}; messages in {log}")

    _until_told(start, server.stop)


def sms_area(
    port: Port = 8094,
    log: LogFile = Path("sms-area.jsonl"),
    within: Annotated[str, typer.Option(metavar="CODE", help="Area codes it serves begin with this.")] = "4117",
    approval: Annotated[list[str] | None, typer.Option(help="An approval number it knows; may be repeated.")] = None,
    rate: Annotated[float, typer.Option(min=0.0, help="Phones a second.")] = 5_000.0,
) -> None:
    """Run a carrier's platform for area messages: jobs by place, progress as counts, stop. Ctrl-C ends it.

    Example: mingluo simulate sms-area --approval 2026-0720-01
    """
    from gateway.simulate.log import Log
    from gateway.simulate.sms_area import AreaPlatform, AreaScenario

    server = AreaPlatform(Log(log))
    server.scenario = AreaScenario(within=within, approvals=frozenset(approval or ()), rate=rate)

    async def start() -> None:
        address = await server.start(port)
        typer.echo(f'base_url = "{address}"\ntoken = "{server.token}"')
        tell(f"area platform on {address}; jobs in {log}")

    _until_told(start, server.stop)


def ebd(
    port: Port = 8095,
    log: LogFile = Path("ebd.jsonl"),
    push_to: Annotated[
        str, typer.Option("--push", metavar="URL", help="Where its broadcast log goes; none: asked.")
    ] = "",
    within: Annotated[str, typer.Option(metavar="CODE", help="Area codes it serves begin with this.")] = "4117",
    play_s: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds one announcement sounds.")] = 5.0,
    coverage: Annotated[float, _share("Terminals of each village that sound.")] = 1.0,
    dead: Annotated[list[str] | None, typer.Option(help="A village without a working terminal; repeated.")] = None,
    rejects: Annotated[str, typer.Option(metavar="CODE", help="ResultCode of every broadcast: 2 to 5.")] = "",
    failing: Annotated[bool, typer.Option("--failing", help="Broadcasts are taken, and fail.")] = False,
    silent: Annotated[bool, typer.Option("--silent", help="Take packages and never answer.")] = False,
    unsigned: Annotated[bool, typer.Option("--unsigned", help="Answer without a signature.")] = False,
    forged: Annotated[bool, typer.Option("--forged", help="Sign answers with another key.")] = False,
    repeats: Annotated[bool, typer.Option("--repeats", help="Play a repeated package again.")] = False,
    latency: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds before each answer.")] = 0.0,
) -> None:
    """Run a county's emergency-broadcast platform; the log says what each village heard. Ctrl-C ends it.

    What it prints is the table [loudspeaker_ebd] of channels.toml; restart the gateway with it.

    Example: mingluo simulate ebd --coverage 0.4 --dead 411726204201
    """
    from gateway.simulate.ebd import EbdPlatform, EbdScenario
    from gateway.simulate.log import Log

    scenario = EbdScenario(
        within=within, play_s=play_s, coverage=coverage, dead=frozenset(dead or ()), failing=failing,
        rejects=rejects, silent=silent, slow_s=latency, unsigned=unsigned, forged=forged, repeats=repeats,
    )  # fmt: skip
    server = EbdPlatform(Log(log), scenario, push_to)

    async def start() -> None:
        address = await server.start(port)
        typer.echo(server.settings())
        tell(f"emergency-broadcast platform on {address}; what villages hear is in {log}")

    _until_told(start, server.stop)


def push(
    port: Port = 8092,
    log: LogFile = Path("push.jsonl"),
    subscriptions: Annotated[int, typer.Option(min=0, help="Browsers that have subscribed.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them as a table for: mingluo import subscribers.")
    ] = None,
    area: Annotated[
        str, typer.Option(metavar="CODE", help="County, township or village they subscribe to.")
    ] = "411726",
    gone: Annotated[float, _share("Subscriptions that have ended: 410 from then on.")] = 0.0,
    throttled: Throttled = 0.0,
    broken: Broken = 0.0,
    dropped: Dropped = 0.0,
    seed: Seed = 0,
) -> None:
    """Run a push service with browsers behind it; shares of faults are 0 to 1. Ctrl-C ends it.

    Example: mingluo simulate push --subscriptions 200 --out subscribers.csv
    """
    from gateway.simulate.log import Log
    from gateway.simulate.push import PushFaults, PushSimulator

    server = PushSimulator(Log(log), PushFaults(gone, throttled, broken, dropped), seed=seed)

    async def start() -> None:
        address = await server.start(port)
        rows = [(server.subscribe(), area) for _ in range(subscriptions)]
        if out is None:
            for subscription, _ in rows:
                typer.echo(subscription)
        else:
            with out.open("w", encoding="utf-8-sig", newline="") as file:
                csv.writer(file).writerows([("subscription", "area"), *rows])
        tell(f"push service on {address}; messages in {log}")

    _until_told(start, server.stop)


def speakers(
    devices: Annotated[Path, typer.Argument(metavar="FILE", help="devices.csv with name and key of each.")],
    url: Annotated[
        str, typer.Option("--url", envvar="MINGLUO_URL", help="The gateway, a hub, or mqtt://BROKER.")
    ] = DEFAULT_URL,
    log: LogFile = Path("speakers.jsonl"),
    offline: Annotated[float, _share("Loudspeakers that never connect.")] = 0.0,
    failing: Annotated[float, _share("Loudspeakers with a broken amplifier, which say so.")] = 0.0,
    silent: Annotated[float, _share("Loudspeakers that say received, and never play.")] = 0.0,
    play_s: Annotated[float, typer.Option(metavar="S", min=0.0, help="Seconds one announcement sounds.")] = 5.0,
    pin: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Public key they obey: ed25519:…; default: those under MINGLUO_DATA."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many of the table; default: all.")] = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME=SHARE", help="Another fault; may be repeated (docs/device.md).")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Run loudspeakers that connect to a gateway and play; shares of faults are 0 to 1. Ctrl-C ends it.

    Lines on standard input: alarm NAME · speak NAME · quiet NAME.

    Example: mingluo simulate speakers roster/devices.csv --count 6000 --offline 0.02 --fault replayed=0.01
    """
    from gateway.device_key import DeviceKeys
    from gateway.errors import ConfigError
    from gateway.simulate.character import shares
    from gateway.simulate.log import Log
    from gateway.simulate.speaker import Device, Fleet, Options

    with devices.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))[:count]
    if not rows or not {"name", "key"} <= rows[0].keys():
        raise ConfigError(f"{devices}: no devices with columns name and key; mingluo sample-roster writes such a table")
    if count is not None and len(rows) < count:
        raise ConfigError(f"{devices}: has {len(rows)} devices; lower --count, or make a larger roster")
    pins = pin or DeviceKeys.load(load_settings().device_keys).pins
    if not pins:
        raise ConfigError("the loudspeakers have no key to pin: start the gateway once, or add --pin ed25519:…")
    faults = {"offline": offline, "failing": failing, "silent": silent} | shares(fault or [])
    found = [Device(row["name"], row["key"], row.get("village") or "") for row in rows]
    fleet = Fleet(url, found, Log(log), Options(play_s=play_s, seed=seed, **faults), pins)

    async def start() -> None:
        await fleet.open()
        tell(f"{len(rows)} loudspeakers turn to {url}; what they play is in {log}")
        _at_lines(lambda line: _obey_aloud(fleet.press, line))

    _until_told(start, fleet.close)


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Run counterparts: SMS carriers, a push service, loudspeakers, their platform.", no_args_is_help=True
    )
    for command in (sms, sms_http, sms_area, carrier, push, speakers, ebd):
        group.command()(command)
    app.add_typer(group, name="simulate", rich_help_panel="Without a gateway")
