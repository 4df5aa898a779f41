"""One installation: its audit chain, halting it, and making channels live. Directly, or through its API.

The embedded database belongs to the running gateway; a cluster's PostgreSQL may be opened beside it.
"""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.cli.client import Gateway, Token, Url
from gateway.cli.frame import AsJson, load_settings, owned_elsewhere, print_json, print_table, refuse, tell, wrong_use

if TYPE_CHECKING:
    from gateway.database import Database
    from gateway.directory.vault import Vault
    from gateway.regions import Regions
    from gateway.settings import Settings
    from gateway.store import Store
    from gateway.store.audit import Checkpoint

KEY_FILE = "secret.key"  # where an embedded gateway keeps its own
T = TypeVar("T")
EVERYTHING = "*"
COUNTY = 6  # digits
LONGEST_CELL = 120
ASK = "ask it with --url and --token (MINGLUO_TOKEN), or stop it first"

Person = Annotated[str, typer.Option(metavar="NAME", help="Who does it; stands in the audit chain.")]


class Now:
    """The wall clock, for what a command writes."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


def vault_of(settings: Settings) -> Vault:
    """Return the vault of an installation.

    Raises:
        ConfigError: one made on the spot would seal people for nobody.
    """
    from gateway.directory.vault import Vault
    from gateway.errors import ConfigError

    key = settings.secret_key.get_secret_value()
    if not key and not settings.database().startswith("sqlite") and not (settings.data / KEY_FILE).exists():
        raise ConfigError("set MINGLUO_SECRET_KEY to the key the gateway of this PostgreSQL database uses")
    return Vault.of(key, settings.data)


def with_store(settings: Settings, advice: str, work: Callable[[Store, Database], Awaitable[T]]) -> T:
    """Open the database, do something, close it. `advice` is said where a running gateway holds the file.

    Raises:
        ConfigError: the file belongs to a running gateway.
        StoreDown: PostgreSQL cannot be reached.
    """
    from gateway.database import Database
    from gateway.store import Store

    async def run() -> T:
        database = Database(settings.database())
        await database.open()
        try:
            return await work(Store(database, Now()), database)
        finally:
            await database.close()

    with owned_elsewhere(advice):
        return asyncio.run(run())


# --- audit ----------------------------------------------------------------------------------------


def verify(
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `mingluo audit checkpoint` said once: it must still hold.")
    ] = None,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """Walk the hash chain of decisions from its first record. Ends with 1 if it is broken.

    Without --url and --token the database is opened itself.

    Example: mingluo audit verify --checkpoint 2026-07-20.json
    """
    known = _checkpoint(checkpoint) if checkpoint else None
    if url or token:
        query = {"seq": str(known.seq), "hash": known.hash} if known else {}
        answer = Gateway(url, token).get("/v1/audit/verify", **query) or {}
        number, wrong = answer.get("records", 0), str(answer.get("wrong", ""))
    else:
        number, wrong = with_store(load_settings(), ASK, lambda store, _: store.audit.verify(known))
    if json:
        print_json({"whole": not wrong, "records": number, "wrong": wrong})
    elif not wrong:
        typer.echo(f"the audit chain is whole: {number} records")
    if wrong:
        refuse(f"the audit chain is broken after record {number}: {wrong}; keep the database as it is, it is evidence")


def _checkpoint(file: Path) -> Checkpoint:
    """Read a checkpoint; anything else is no evidence."""
    from gateway.store.audit import Checkpoint

    try:
        found = loads(file.read_bytes())
        return Checkpoint(int(found["seq"]), str(found["hash"]))
    except (ValueError, TypeError, KeyError):
        wrong_use(f"{file}: not a checkpoint; mingluo audit checkpoint > {file} writes one")


def checkpoint(url: Url = "", token: Token = "") -> None:
    """Say where the chain of decisions stands, as JSON: sequence and hash of its last record.

    Keep it where nobody who administers the database can change it: it proves later that nothing was rewritten or
    cut off. Without --url and --token the database is opened itself.

    Example: mingluo audit checkpoint > 2026-07-20.json
    """
    if url or token:
        answer = Gateway(url, token).get("/v1/audit/checkpoint") or {}
        found = {name: answer.get(name) for name in ("seq", "hash")}
    else:
        found = with_store(load_settings(), ASK, lambda store, _: store.audit.checkpoint())._asdict()
    print_json(found)


def show(
    after: Annotated[int, typer.Option(min=0, metavar="N", help="Begin behind this record.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 100,
    url: Url = "",
    token: Token = "",
    json: AsJson = False,
) -> None:
    """List decisions: who did what, when, to what. With --json one line per record.

    Without --url and --token the database is opened itself.

    Example: mingluo audit list --after 200 --limit 50
    """
    if url or token:
        page = Gateway(url, token).get("/v1/audit", after=str(after), limit=str(limit)) or {}
        records = page.get("records", [])
    else:
        found = with_store(load_settings(), ASK, lambda store, _: store.audit.records(after, limit))
        records = [{"seq": seq, **asdict(one), "at": one.at.isoformat(), "hash": digest} for seq, one, digest in found]
    if json:
        for record in records:
            print_json(record)
        return
    columns = ("seq", "at", "actor", "action", "subject", "detail")
    print_table(columns, [[str(record[name])[:LONGEST_CELL] for name in columns] for record in records])


# --- halt -----------------------------------------------------------------------------------------


def halt(
    scope: Annotated[str, typer.Argument(metavar="SCOPE", help="all, a county's 6-digit code, or a channel's name.")],
    off: Annotated[bool, typer.Option("--off", help="Release it: what waits goes on.")] = False,
    person: Person = "",
    url: Url = "",
    token: Token = "",
) -> None:
    """Stop everything that has not left yet, in one county, on one channel or everywhere, until --off.

    With --url or --token (or MINGLUO_URL, MINGLUO_TOKEN) the running gateway does it; otherwise the database is
    opened itself.

    Example: mingluo halt 411726
    """
    wanted = EVERYTHING if scope in ("all", EVERYTHING) else scope
    if url or token:
        answer = Gateway(url, token).post("/v1/halt", {"scope": wanted, "on": not off}) or {}
        halted = list(answer.get("halted") or ())
    else:
        halted = _halt(wanted, f"console/{person or getpass.getuser()}", load_settings(), on=not off)
    typer.echo(f"{'released' if off else 'halted'}: {_named(wanted)}")
    if not off:
        tell(f"Nothing more leaves there until: mingluo halt {scope} --off")
    elif halted:
        tell(f"Still halted: {', '.join(map(_named, halted))}")


def _halt(scope: str, actor: str, settings: Settings, *, on: bool) -> list[str]:
    """Halt or release in the database itself; return what is halted now."""
    from gateway.model import Record

    scopes = _known_scopes(scope, settings)

    async def work(store: Store, _: Database) -> list[str]:
        for one in scopes:
            await store.outbox.halt(one, on, Record(datetime.now(UTC), actor, "halt" if on else "release", one))
        return await store.outbox.halts()

    return with_store(settings, "ask it with --url and --token (MINGLUO_TOKEN), it halts at once", work)


def _named(scope: str) -> str:
    return "all" if scope == EVERYTHING else scope


def _known_scopes(scope: str, settings: Settings) -> tuple[str, ...]:
    """Return the scopes to halt: a pool with all its roads. Refuse what would halt nothing, as a mistyped county."""
    from gateway.installed import channel_classes
    from gateway.policy import Policy
    from gateway.regions import Regions

    channels = sorted(channel_classes())
    if scope == EVERYTHING or scope in channels:
        return (scope,)
    if not scope.isdigit() and (roads := Policy.load(settings.config / "policy").pools.get(scope)):
        return (scope, *roads)
    if len(scope) != COUNTY or not _is_county(Regions.load(settings.config / "regions"), scope):
        wrong_use(f"{scope}: neither all, nor a county's 6-digit code, nor a channel ({', '.join(channels)})")
    return (scope,)


def _is_county(regions: Regions, code: str) -> bool:
    region = regions.get(code)
    return region is not None and region.kind == "county"


# --- live -----------------------------------------------------------------------------------------


def live(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Name of the channel.")],
    person: Person,
    off: Annotated[bool, typer.Option("--off", help="Back to simulation, at once and by one person.")] = False,
) -> None:
    """Let a channel talk to real endpoints. Two different persons have to say so; one is enough for --off.

    Takes effect when the gateway starts the next time.

    Example: mingluo live sms_twilio --person 张三, then mingluo live sms_twilio --person 李四
    """
    from gateway.installed import channel_classes

    known = sorted(channel_classes())
    if channel not in known:
        wrong_use(f"{channel}: no such channel; there are {', '.join(known)}")
    name = " ".join(person.split())
    if not name:
        wrong_use("--person: name the person; the audit chain keeps it")
    advice = "stop it first; a channel becomes live only when the gateway starts anyway"
    result = with_store(load_settings(), advice, lambda store, _: store.switch_live(channel, name, live=not off))
    match result:
        case "same_person":
            refuse(f"{channel}: {name} has asked already; another person must run: mingluo live {channel} --person …")
        case "requested":
            typer.echo(f"{channel}: requested by {name}; a second person must run: mingluo live {channel} --person …")
        case "live":
            typer.echo(f"{channel}: live from the next start of the gateway; real people will be reached")
        case _:
            typer.echo(
                f"{channel}: simulation from the next start of the gateway; to stop it now: mingluo halt {channel}"
            )


def add(app: typer.Typer) -> None:
    """Add the commands."""
    panel = "This installation"
    group = typer.Typer(help="The hash chain of decisions.", no_args_is_help=True)
    group.command("verify")(verify)
    group.command("checkpoint")(checkpoint)
    group.command("list")(show)
    app.add_typer(group, name="audit", rich_help_panel=panel)
    for command in (halt, live):
        app.command(rich_help_panel=panel)(command)
