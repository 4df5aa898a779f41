"""`mingluo doctor`: gathers what `gateway.doctor` judges, and prints a line per verdict.

Looks only: it migrates nothing, declares nothing, makes no file, sends nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import typer

from gateway.cli.frame import NO, AsJson, load_channels, load_settings, print_json
from gateway.cli.installation import Now
from gateway.cli.login import logins

if TYPE_CHECKING:
    from gateway.channel import Channel
    from gateway.database import Database
    from gateway.doctor import Facts, Verdict
    from gateway.link import Rate
    from gateway.model import Condition
    from gateway.policy import Policy
    from gateway.regions import Regions
    from gateway.settings import Settings
    from gateway.store import Store

ANSWER_S = 5.0
COLOURS = {"ok": "green", "note": "blue", "warning": "yellow", "error": "red"}
MIGRATE = "run: mingluo migrate"


def doctor(json: AsJson = False) -> None:
    """Prove each configured part of this installation and say what to do about what is wrong.

    Looks only, changes nothing. Ends with 1 if there is an error. With --json a list of check, severity, text, fix.

    Example: mingluo doctor
    """
    verdicts = list(examine(load_settings()))
    if json:
        print_json([verdict._asdict() for verdict in verdicts])
    else:
        for verdict in verdicts:
            _print(verdict)
    errors = sum(verdict.severity == "error" for verdict in verdicts)
    if not json:
        warnings = sum(verdict.severity == "warning" for verdict in verdicts)
        typer.echo(f"\nerrors: {errors}, warnings: {warnings}")
    if errors:
        raise typer.Exit(NO)


def _print(verdict: Verdict) -> None:
    head = typer.style(f"{verdict.severity:<7}", fg=COLOURS[verdict.severity])
    fix = f" — {verdict.fix}" if verdict.fix else ""
    typer.echo(f"{head} {verdict.check}: {verdict.text}{fix}")


def examine(settings: Settings) -> Iterator[Verdict]:
    """Yield every verdict; a part that cannot be examined says so and the others go on."""
    from gateway import doctor as judge
    from gateway.channel import Sockets
    from gateway.doctor import Verdict
    from gateway.errors import ConfigError
    from gateway.installed import channel_classes, roads_of
    from gateway.policy import Policy
    from gateway.regions import Regions

    yield from judge.settings(settings)
    places = rules = None
    try:
        places = Regions.load(settings.config / "regions", settings.geometry)
        yield from judge.regions(places, "config/regions")
    except (ConfigError, OSError) as error:
        yield Verdict("regions", "error", _said(error), "mend the tables under config/regions")
    installed: Collection[str] | None = None
    enabled: Mapping[str, Channel] = {}
    rates: Mapping[str, Rate] = {}
    try:
        installed = channel_classes()
    except ConfigError as error:
        yield Verdict("channels", "error", str(error), "mend the file, or take it out of channels/")
    try:
        rules = Policy.load(settings.config / "policy")
    except ConfigError as error:
        yield from (Verdict("policy", "error", line, "then: mingluo policy check") for line in str(error).splitlines())
    try:
        enabled, rates = load_channels(settings) if installed is not None else ({}, {})
    except (ConfigError, OSError) as error:
        yield Verdict("channels", "error", _said(error), "mend channels.toml")
    facts, found = asyncio.run(_database(settings, places, rules))
    yield from found
    if rules and places and installed is not None:
        yield from judge.policy(rules, places, installed)
    if rules and installed is not None:
        yield from judge.channels(rules, installed, enabled, facts)
        yield from judge.reserves(enabled, rates)
        yield from judge.channel_certificates(enabled, Now().now())
        try:
            roads_of(settings.config, rules, enabled)
        except ConfigError as error:
            yield Verdict("channels", "error", str(error), "until then the gateway does not start")
    yield from _certificates(settings, rules)
    if rules:
        yield from judge.safety(rules, facts or judge.Facts({}))
    if rules and places:
        yield from _templates(settings, rules, enabled, places)
        yield from judge.drills(rules, facts or judge.Facts({}), places, Now().now())
    if facts and places:
        yield from judge.rosters(facts, places)
    if any(isinstance(channel, Sockets) for channel in enabled.values()):
        yield from _loudspeakers(settings, places)
    yield from asyncio.run(_servers(settings, enabled))
    yield from asyncio.run(logins(enabled, facts))


def _said(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{os.path.basename(error.filename or '')}: {error.strerror}"
    return str(error)


def _certificates(settings: Settings, rules: Policy | None) -> Iterator[Verdict]:
    from gateway import doctor as judge
    from gateway.errors import ConfigError
    from gateway.policy.trust import TrustFile
    from gateway.signer import Keys

    try:
        keys = Keys.load(settings.keys)
        yield from judge.certificates(rules.tables.trust if rules else TrustFile(), keys, Now().now())
    except (ConfigError, OSError) as error:
        yield judge.Verdict("keys", "error", _said(error), "mend the folder keys under MINGLUO_DATA")


def _loudspeakers(settings: Settings, places: Regions | None) -> Iterator[Verdict]:
    """Check what loudspeakers obey, and what they would sound like."""
    from gateway import doctor as judge
    from gateway.device_key import DeviceKeys
    from gateway.errors import ConfigError
    from gateway.speech.check import check

    try:
        yield from judge.device_keys(DeviceKeys.load(settings.device_keys), Now().now(), alone=settings.embedded)
    except (ConfigError, OSError) as error:
        yield judge.Verdict("device_keys", "error", _said(error), "mend the folder keys/device under MINGLUO_DATA")
    if places:
        yield from (
            judge.Verdict("speech", *one) for one in asyncio.run(check(settings.config, places.places.values()))
        )


def _templates(settings: Settings, rules: Policy, enabled: Mapping[str, Channel], places: Regions) -> Iterator[Verdict]:
    from gateway import doctor as judge
    from gateway.errors import ConfigError
    from gateway.render import Renderer
    from gateway.render.library import Library

    try:
        renderer = Renderer(settings.templates, rules.signatures, places.name)
        choose = Library(settings.templates).choose
        yield from judge.templates(renderer, choose, rules, enabled, places)
    except (ConfigError, OSError) as error:
        yield judge.Verdict("templates", "error", _said(error), "mend the template under templates/")


# --- database -------------------------------------------------------------------------------------


async def _database(
    settings: Settings, places: Regions | None, rules: Policy | None
) -> tuple[Facts | None, list[Verdict]]:
    """Look into the database: only where it is there, has this version's schema, and nobody else owns it."""
    from gateway.database import Database
    from gateway.doctor import Verdict, nothing
    from gateway.errors import ConfigError, StoreDown

    try:
        database = Database(settings.database())
    except ConfigError:
        return None, []  # the settings' verdict has said so
    if database.dialect == "sqlite" and not database.path.exists():
        text = f"no database in {settings.data}: nothing was ever imported or issued here"
        return nothing(), [Verdict("database", "warning", text, "mingluo serve or mingluo import makes it")]
    try:
        stands, wanted = await asyncio.wait_for(asyncio.to_thread(revisions, database.url), ANSWER_S)
        if stands != wanted:
            text = f"the schema is {stands or 'missing'}, this version needs {wanted}"
            return None, [Verdict("database", "error", text, MIGRATE)]
        await database.open()
    except ConfigError:
        text = "the database belongs to the running gateway; rosters, live channels and halts were not looked at"
        return None, [Verdict("database", "note", text, "ask it: GET /v1/health; or stop it and run this again")]
    except (StoreDown, TimeoutError, OSError):
        return None, [Verdict("database", "error", "does not answer", "check MINGLUO_DATABASE_URL, and that it runs")]
    except Exception as error:
        if type(error).__module__ != "sqlalchemy.exc":
            raise
        text = f"cannot be read ({type(error).__name__})"
        return None, [Verdict("database", "error", text, "check MINGLUO_DATABASE_URL, and that it runs")]
    try:
        facts = await _facts(database, places, rules)
    finally:
        await database.close()
    return facts, [Verdict("database", "ok", f"{database.dialect}, schema {stands}")]


def revisions(url: str) -> tuple[str | None, str | None]:
    """Return the revision of the schema that stands, and the one this version needs. Changes nothing."""
    from pathlib import Path

    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from gateway import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    address = url.replace("postgres://", "postgresql://", 1).replace("postgresql://", "postgresql+psycopg://", 1)
    engine = create_engine(address, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            stands = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return stands, ScriptDirectory.from_config(config).get_current_head()


async def _facts(database: Database, places: Regions | None, rules: Policy | None) -> Facts:
    from gateway.directory.people import SqlDirectory
    from gateway.directory.vault import Vault
    from gateway.doctor import Facts
    from gateway.memory import restored
    from gateway.store import Store

    store = Store(database, Now())
    # Only counts are asked for, so no key is needed to open anything.
    directory = SqlDirectory(database, Vault(bytes(32)), Now())
    villages = [code for code, one in places.places.items() if one.kind == "village"] if places else []
    reached = {*await directory.responsible(villages), *await directory.devices(villages)}
    records, wrong = await store.audit.verify()
    return Facts(
        await directory.sizes(),
        sorted(set(villages) - reached),
        await store.live_channels(),
        await store.outbox.halts(),
        f"the audit chain is broken after record {records}: {wrong}" if wrong else "",
        await database.look(restored) is not None,
        {one.channel: one.code for one in await store.outbox.outages()},
        await directory.devices_by_channel(),
        frozenset(account.partition("/")[0] for account in await store.leases.accounts()),
        *await _heard(database, villages, rules),
        await _drilled(store, {village[:6] for village in reached}),
    )


async def _heard(
    database: Database, villages: Collection[str], rules: Policy | None
) -> tuple[dict[Condition, int], datetime | None]:
    """Count villages by their best loudspeaker, as of the last word of any: the gateway may have been off since."""
    from collections import Counter

    from gateway.policy.table import SpeakerRules
    from gateway.store.device import SqlDevices

    at = await SqlDevices(database, Now()).heard_at()
    if at is None:
        return {}, None
    found = await SqlDevices(database, Now()).villages(villages, rules.speakers if rules else SpeakerRules(), at)
    return dict(Counter(found.values())), at


async def _drilled(store: Store, counties: Collection[str]) -> dict[str, datetime | None]:
    """Return when each county has held its last drill, if ever within three years."""
    held = await store.drills.held_since(Now().now() - timedelta(days=3 * 366))
    return {county: max((one.starts_at for one in held if one.within((county,))), default=None) for county in counties}


# --- servers --------------------------------------------------------------------------------------


async def _servers(settings: Settings, enabled: Mapping[str, Channel]) -> list[Verdict]:
    """Ask Redis and RabbitMQ, where they are configured."""
    from gateway.channel import Sockets

    found = []
    if url := settings.redis_url.get_secret_value():
        found.append(await _redis(url))
    if url := settings.amqp_url.get_secret_value():
        plain = [name for name, channel in enabled.items() if not isinstance(channel, Sockets)]
        found.append(await _rabbitmq(url, settings.namespace, plain))
    return found


async def _redis(url: str) -> Verdict:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from gateway.doctor import Verdict

    fix = "check MINGLUO_REDIS_URL, and that it runs; until then each process limits its rates alone"
    try:
        async with asyncio.timeout(ANSWER_S), Redis.from_url(url) as client:
            await client.ping()
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        return Verdict("redis", "error", f"does not answer ({type(error).__name__})", fix)
    return Verdict("redis", "ok", "answers")


async def _rabbitmq(url: str, prefix: str, channels: list[str]) -> Verdict:
    import aio_pika
    from aio_pika.exceptions import AMQPError

    from gateway.broker.topology import Topology
    from gateway.doctor import Verdict
    from gateway.model import Lane
    from gateway.relay import queue

    topology = Topology(prefix)
    names = [queue(name, lane) for name in channels for lane in Lane]
    try:
        async with asyncio.timeout(ANSWER_S), await aio_pika.connect(url) as connection:
            missing = [name for name in [*names, "dead"] if await topology.depth(connection, name) is None]
    except (AMQPError, OSError, TimeoutError, ValueError) as error:
        fix = "check MINGLUO_AMQP_URL, and that it runs; until then work goes on from the store"
        return Verdict("rabbitmq", "error", f"does not answer ({type(error).__name__})", fix)
    if missing:
        text = f"{len(missing)} of {len(names) + 1} queues do not stand yet: {', '.join(missing[:3])}"
        return Verdict("rabbitmq", "warning", text, "any process of the gateway declares them when it starts")
    return Verdict("rabbitmq", "ok", f"{len(names) + 1} queues stand")


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Processes")(doctor)
