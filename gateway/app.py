"""Wiring: builds the parts of one process from its settings and roles, starts and stops them.

Roles: `api`, `planner`, `worker`, `hub`, `scheduler`;
the embedded gateway is all of them in one process with SQLite, an in-process broker and its own Valkey.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from aiohttp import web

from gateway import log, metrics
from gateway.alarm import Alarm
from gateway.api import listen, make_app, mount
from gateway.broker import LocalBroker, RabbitBroker
from gateway.case import Cases
from gateway.channel import Channel, Sockets
from gateway.compose import GatewayComposer
from gateway.core import Core
from gateway.coverage import CoverageBook
from gateway.database import Database
from gateway.decision import Decisions
from gateway.device_key import DeviceKeys, keep
from gateway.directory.people import SqlDirectory
from gateway.directory.sealing import Sealing
from gateway.directory.vault import Vault
from gateway.errors import ConfigError
from gateway.fleet import EVERY_S as FLEET_S
from gateway.fleet import Fleet
from gateway.gate import Gate
from gateway.gauge import Gauges, show_certificates, show_speakers
from gateway.hub import Hub
from gateway.installed import load_channels, roads_of
from gateway.intake import Intake
from gateway.lifecycle import Lifecycle
from gateway.link import GatewayLink, Rate
from gateway.memory import Guard
from gateway.model import Batch, Lane
from gateway.national import Nationals
from gateway.obligation import Obligations
from gateway.planner import AT_ONCE, LEFT_S, LOOK_S, Planner
from gateway.policy import Policy
from gateway.pool import ParsePool, Places
from gateway.portability import Portability
from gateway.ports import Broker, Clock, State
from gateway.receipts import Receipts
from gateway.regime import Regimes
from gateway.regions import Regions
from gateway.relay import Relay, Worker, queue
from gateway.render import Renderer
from gateway.road import with_pools
from gateway.sender import Sender
from gateway.session import NOTE_S, Sessions
from gateway.settings import Settings, on_loopback
from gateway.signer import Keys
from gateway.speech.speech import Speech
from gateway.state import FallbackState, LocalState, RedisState, Valkey
from gateway.store import Store
from gateway.store.lease import RENEW_S
from gateway.store.retention import EVERY_S as RETENTION_S
from gateway.store.retention import Retention
from gateway.store.silence import EVERY_S, Silence
from gateway.store.unheard import Unheard
from gateway.sweeper import POLL_S, Pickup, Sweeper, forever
from gateway.training import Drills

ROLES = frozenset({"api", "planner", "worker", "hub", "scheduler"})
WAKE = "alerts"
COMMANDS = "commands"
SOMETHING_GREEN = "green"
BUSY = "busy"
SAY_S = 0.1
SEAL_S = 1.0
MEMORY_S = 1.0
GAUGES_S = 2.0
CANCEL_AGAIN_S = 0.5
SELDOM = (10_000, 10, 100)
"""New objects until the youngest are looked through, and how often until the next older ones are, too."""
VILLAGES_S = 5.0
PAGES_S = 2.0
SPEAKERS_FIRST_S = 0.012
"""So long a hub has the cores for a warning's first loudspeaker; officials, who come next, hear no later by it."""
SPEAKERS_S = 30.0

_log = log.get("app")


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """Aware UTC."""
        return datetime.now(UTC)

    async def sleep(self, wait_s: float) -> None:
        """Sleep."""
        await asyncio.sleep(wait_s)


def collect_seldom() -> None:
    """Keep the collector off what stays: each look through all of it would hold the loop up.

    What stands from the start (places, templates, code) is never garbage: 0.1 s. What thousands of loudspeakers'
    connections hold lives for weeks, and is looked through a hundred times as seldom as by default: 0.3 s.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)


def bare_app() -> web.Application:
    """Return what every role without the API serves: liveness and metrics."""
    application = web.Application()

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def exposed(_: web.Request) -> web.Response:
        return web.Response(body=metrics.expose(), content_type="text/plain", charset="utf-8")

    application.router.add_get("/v1/health", health)
    application.router.add_get("/metrics", exposed)
    return application


class App:
    """One process of the gateway. `async with App(settings, roles) as app: await app.serve()`.

    `lanes`: those a worker consumes.
    """

    def __init__(
        self,
        settings: Settings,
        roles: Collection[str] = ROLES,
        clock: Clock | None = None,
        lanes: Collection[Lane] = tuple(Lane),
    ) -> None:
        self.settings = settings
        self.roles = frozenset(roles)
        self.lanes = frozenset(lanes)
        if unknown := self.roles - ROLES:
            raise ConfigError(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(sorted(ROLES))}")
        if settings.embedded and self.roles != ROLES:
            raise ConfigError("an embedded gateway is one process; separate roles need MINGLUO_AMQP_URL")
        self.clock = clock or SystemClock()
        self.port = 0
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> App:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        running = set(self._tasks)
        while running:  # `wait_for` of Python 3.11 loses a cancellation that meets its result: cancel again
            for task in running:
                task.cancel()
            running = (await asyncio.wait(running, timeout=CANCEL_AGAIN_S))[1]
        await self._stack.aclose()

    async def _open(self) -> None:
        settings = self.settings
        policy = Policy.load(settings.config / "policy")
        keys = Keys.load(settings.keys) if "api" in self.roles else Keys()
        regions = Regions.load(settings.config / "regions", settings.geometry)
        configured, rates = load_channels(settings.channels or settings.config / "channels.toml")
        database = await self._open_store(policy)
        live = await self.store.live_channels()
        allowed = {name: one for name, one in configured.items() if self._allowed(one, live)}
        self.channels = with_pools(allowed, policy.pools)
        roads = roads_of(settings.config, policy, allowed)
        vault = Vault.of(settings.secret_key.get_secret_value(), settings.data)
        directory = SqlDirectory(database, vault, self.clock)
        self.state = await self._state()
        self.broker = await self._broker()
        renderer = Renderer(settings.templates, policy.signatures, regions.name)
        composer = GatewayComposer(self.store.outbox, renderer, lambda: policy, self.channels)
        self.portability = Portability(self.store, directory, roads)
        self.relay = Relay(self.broker, self.store.outbox)
        receipts = Receipts(self.store, directory, self.clock, self.portability.reported, roads, self.relay.offer)
        self.speech = self._speech()
        links = self._links(rates, receipts, directory, composer)
        slices = {name: 0 if isinstance(one, Sockets) else one.slice for name, one in self.channels.items()}
        self.gate = Gate()
        self.planner = Planner(
            self.store, directory, self.relay, slices, self.clock, self.gate, self._on_commands, self._planned(), roads
        )
        pool = ParsePool(Places(settings.config / "regions", settings.geometry))
        self._stack.callback(pool.close)
        cases = Cases(self.store, regions, lambda: policy, self.channels, self.clock)
        intake = Intake(
            self.store, cases, lambda: policy, self.planner, self.clock, self._on_accepted, pool, self._on_green
        )
        decisions = Decisions(intake, cases, self.store, regions, lambda: policy, vault, self.clock)
        obligations = Obligations(self.store, lambda: policy, self.clock)
        regimes = Regimes(self.store, regions, lambda: policy, vault, self.clock)
        drills = Drills(self.store, intake, decisions, directory, regions, lambda: policy, self.clock)
        national = Nationals(self.store, lambda: policy, self.clock)
        coverage = CoverageBook(self.store, directory, regions, lambda: policy)
        self.hubs = {
            name: Hub(one, self.store, composer, links[name], self.clock)
            for name, one in self.channels.items()
            if isinstance(one, Sockets) and "hub" in self.roles
        }
        self.core = Core(
            settings, self.clock, self.store, directory, vault, regions, policy, renderer, composer, coverage, receipts,
            intake, decisions, obligations, regimes, drills, national, self.broker, self.channels, links,
            simulation=live.isdisjoint(self.channels),
            keys=keys,
            rates=rates,
            state=LocalState() if settings.embedded else self.state,  # one process needs nobody to count with
        )  # fmt: skip
        await self._start(composer, links)

    async def _open_store(self, policy: Policy) -> Database:
        database = Database(self.settings.database())
        self.guard = Guard(database, self.settings.data, self.clock)
        await database.open()
        self._stack.push_async_callback(database.close)
        await self.guard.keep()  # a start that fails behind this is no restore to the next one
        self.store = Store(database, self.clock)
        await self.store.keep_policy(policy.digest, policy.to_bytes())
        return database

    def _links(
        self, rates: Mapping[str, Rate], receipts: Receipts, directory: SqlDirectory, composer: GatewayComposer
    ) -> dict[str, GatewayLink]:
        """Make each channel's door to the gateway; who speaks to devices signs what it tells them."""
        speaks = "hub" in self.roles and any(isinstance(one, Sockets) for one in self.channels.values())
        alone, now = self.roles == ROLES, self.clock.now()
        device_keys = keep(self.settings.device_keys, now, alone=alone) if speaks else DeviceKeys()
        return {
            name: GatewayLink(
                name, rates, self.state, receipts, self.store.leases, self.store.numbering, directory, self._wake_hubs,
                lambda payload: device_keys.sign(payload, self.clock.now()),
                self.speech, partial(composer.message, again=False),
            )
            for name in self.channels
        }  # fmt: skip

    async def _start(self, composer: GatewayComposer, links: Mapping[str, GatewayLink]) -> None:
        """Open channels, then begin to serve and to work."""
        metrics.begin(self.channels)
        if self.settings.embedded:
            await self.store.leases.begin_alone()
            await self.store.devices.begin_alone()
        mine = {name: one for name, one in self.channels.items() if self._mine(one)}
        for name, channel in mine.items():
            await channel.open(links[name])
            self._stack.push_async_callback(channel.close)
        await self._serve_http(links)
        self._listen_to_others()
        self._run("leases", forever(self.store.leases.renew, RENEW_S, self.clock))
        self._run("memory", forever(self.guard.keep, MEMORY_S, self.clock))
        plain = {name: one for name, one in mine.items() if self._works(one)}
        if plain:
            await self._start_worker(plain, composer, links)
        if self.roles & {"api", "planner"}:
            self._run("relay", self.relay.run())
            self._run("planner", self.planner.run())
        if "planner" in self.roles:
            if self.settings.embedded:
                await self.store.outbox.forget_published()
            else:
                await self.store.outbox.forget_unconfirmed()
            sweeper = self._sweeper()
            self._run("sweeper", forever(sweeper.sweep, POLL_S, self.clock))
            sealing = Sealing(self.store.database, self.core.vault, self.gate)
            self._run("pages", forever(sealing.work, PAGES_S, self.clock))
        if "scheduler" in self.roles:
            lifecycle = Lifecycle(self.store, self.clock)
            self._run("restored", forever(self.guard.ring, MEMORY_S, self.clock))
            self._run("timers", forever(self._sweeper().timers, POLL_S, self.clock))
            waits = {name: one.report_s for name, one in self.channels.items() if one.report_s}
            silence = Silence(self.store.database, self.clock, waits)
            self._run("silence", forever(silence.work, EVERY_S, self.clock))
            devices = {name: one.report_s for name, one in self.channels.items() if isinstance(one, Sockets)}
            unheard = Unheard(self.store.database, self.clock, devices)
            self._run("unheard", forever(unheard.work, EVERY_S, self.clock))
            self._run("seal", forever(lifecycle.seal, SEAL_S, self.clock))
            owned = [name for name, one in self.channels.items() if isinstance(one, Sockets)]
            fleet = Fleet(self.store, lambda: self.core.policy, self.clock, owned)
            self._run("fleet", forever(fleet.work, FLEET_S, self.clock))
            retention = Retention(self.store.database, self.clock)
            self._run("retention", forever(retention.work, RETENTION_S, self.clock))
            gauges = self._gauges()
            self._run("speakers", forever(self._show_speakers, SPEAKERS_S, self.clock))
            self._run("gauges", forever(gauges.work, GAUGES_S, self.clock))
            self._run("villages", forever(gauges.villages, VILLAGES_S, self.clock))
        for name, hub in self.hubs.items():
            self._run(f"hub {name}", hub.run())

    async def _start_worker(
        self, plain: Mapping[str, Channel], composer: GatewayComposer, links: Mapping[str, GatewayLink]
    ) -> None:
        sender = Sender(
            plain, self.store.outbox, self.store.ledger, composer, links, self.clock, self.core.directory.retire,
            self.gate, self.portability.refused,
        )  # fmt: skip
        worker = Worker(self.broker, sender, plain)
        self._stack.push_async_callback(worker.stop)
        await worker.start(self.lanes)
        sessions = {name: one for name, one in plain.items() if one.sessions}
        if picked := tuple(plain if Lane.GREEN in self.lanes else sessions):
            pickup = Pickup(self.store.outbox, worker, picked, urgent=not self.settings.embedded)
            self._run("pickup", forever(pickup.sweep, POLL_S, self.clock))
        # Also one without sessions may know that it cannot send; what the sender then leaves must go back.
        if watched := {name: one for name, one in plain.items() if type(one).up is not Channel.up}:
            watch = Sessions(watched, worker, self.store.outbox, self.clock)
            watch.check()
            self._run("sessions", watch.run())
            self._run("note sessions", forever(watch.note, NOTE_S, self.clock))

    def _planned(self) -> Mapping[Lane, timedelta]:
        """Whoever accepts plans the green steps; a planner process all others, and green ones that were left."""
        if "planner" not in self.roles:
            return {Lane.GREEN: timedelta()}
        return AT_ONCE if "api" in self.roles else {**AT_ONCE, Lane.GREEN: LEFT_S}

    def _sweeper(self) -> Sweeper:
        plain = [name for name, one in self.channels.items() if not isinstance(one, Sockets)]
        alarm = Alarm(self.store, lambda: self.core.policy, self.clock)
        fire = {
            "held": alarm.held,
            "partner": alarm.partner,
            "expire": Lifecycle(self.store, self.clock).expire,
            "obligation": self.core.obligations.due,
            "regime": self.core.regimes.expire,
            "drill": self.core.drills.due,
            "national": self.core.national.due,
        }
        return Sweeper(self.store.outbox, self.store.timers, self.relay, plain, fire)

    def _gauges(self) -> Gauges:
        kind = "local" if self.settings.embedded else "rabbitmq"
        return Gauges(self.store, self.broker, self.core.coverage, self.clock, self._queues(), kind, self.channels)

    async def _show_speakers(self) -> None:
        places = self.core.regions.places
        villages = [code for code, one in places.items() if one.kind == "village"]
        await show_speakers(self.store, self.core.policy.speakers, villages)
        show_certificates(self.channels, self.clock.now())

    def _queues(self) -> list[str]:
        plain = [name for name, one in self.channels.items() if not isinstance(one, Sockets)]
        return [queue(name, lane) for name in plain for lane in Lane]

    def _mine(self, channel: Channel) -> bool:
        """Whether this process opens the channel: hubs hold sockets and sessions, the API takes callbacks."""
        if isinstance(channel, Sockets) or channel.sessions:
            return "hub" in self.roles
        return bool(self.roles & {"worker", "api"})

    def _works(self, channel: Channel) -> bool:
        """Whether this process consumes the channel's queues."""
        return not isinstance(channel, Sockets) and ("hub" if channel.sessions else "worker") in self.roles

    def _allowed(self, channel: Channel, live: Collection[str]) -> bool:
        """Refuse real endpoints until two people have made the channel live (rule 11)."""
        real = [host for host in channel.endpoints() if not on_loopback(host)]
        if real and channel.name not in live:
            _log.error("channel_not_live", channel=channel.name, hint="two people must run: mingluo live CHANNEL")
            return False
        return True

    async def _state(self) -> State:
        url = self.settings.redis_url.get_secret_value()
        if not url:
            url = self._stack.enter_context(Valkey()).url
        # Without Redis a process alone keeps to the whole rate, one of several to its share of it.
        alone = LocalState() if self.settings.embedded else None
        state = FallbackState(RedisState(url, self.settings.namespace), alone)
        self._stack.push_async_callback(state.close)
        return state

    async def _broker(self) -> Broker:
        url = self.settings.amqp_url.get_secret_value()
        broker: Broker = RabbitBroker(url, self.settings.namespace) if url else LocalBroker()
        await broker.open(self._queues())
        self._stack.push_async_callback(broker.close)
        return broker

    def _speech(self) -> Speech | None:
        """Return what makes sound for the devices this process holds, and for the platforms it hands recordings to."""
        mine = [one for one in self.channels.values() if self._mine(one)]
        if not any(isinstance(one, Sockets) or one.spoken for one in mine):
            return None
        speech = Speech.open(self.settings.config, self.settings.data / "speech", self._url, self._wake_hubs)
        if speech:
            self._stack.push_async_callback(speech.close)
        return speech

    def _url(self) -> str:
        """Return how devices reach this process."""
        return self.settings.public_url or f"http://{self.settings.host}:{self.port}"

    async def _serve_http(self, links: Mapping[str, GatewayLink]) -> None:
        served = {
            name: one for name, one in self.channels.items()
            if ("hub" if isinstance(one, Sockets) else "api") in self.roles
        }  # fmt: skip
        application = make_app(self.core) if "api" in self.roles else bare_app()
        for name, channel in served.items():
            mount(application, channel.routes(links[name]))
        if self.speech:
            mount(application, self.speech.routes())
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        server = await listen(runner, self.settings.host, self.settings.port)
        self._stack.callback(server.close)
        self.port = server.sockets[0].getsockname()[1]

    # --- wake-ups ---------------------------------------------------------------------------------

    def _on_green(self) -> None:
        """Let what is less urgent step aside, here and elsewhere."""
        self.gate.hold()
        if not self.settings.embedded:
            self._run("wake", self.state.wake(BUSY))

    def _on_accepted(self, alert: str, batches: Sequence[Batch]) -> None:
        """Tell this process at once, the others by a wake-up that may be lost (they poll)."""
        self._wake_hubs()
        if not self.settings.embedded:
            self._run("wake", self.state.wake(WAKE, SOMETHING_GREEN if batches else ""))
            if any(not batch.slice for batch in batches):
                asyncio.get_running_loop().call_later(SPEAKERS_FIRST_S, self._go_on, batches)
                return
        self._go_on(batches)

    def _go_on(self, batches: Sequence[Batch]) -> None:
        """Publish the opening batches, and plan what comes behind them."""
        self.relay.offer(batches)
        self.planner.wake()

    def _on_commands(self) -> None:
        """Tell the hubs that devices have something to play."""
        self._wake_hubs()
        if not self.settings.embedded:
            self._run("wake", self.state.wake(COMMANDS))

    def _wake_hubs(self) -> None:
        for hub in self.hubs.values():
            hub.wake()

    def _listen_to_others(self) -> None:
        self._run("wakes", self._listen())
        if self.settings.embedded:
            return
        if "hub" in self.roles:
            self._run("commands", self._listen_hubs())
        if self.roles & {"planner", "worker", "hub"}:
            self._run("busy", self._listen_busy())
        if self.roles & {"worker", "hub"}:
            self._run("say busy", self._say_busy())

    async def _listen(self) -> None:
        """Something was accepted: hubs play, planners plan, and what is less urgent steps aside for what is green."""
        async for what in self.state.wakes(WAKE):
            if what == SOMETHING_GREEN:
                self.gate.hold()
            self._wake_hubs()
            if "planner" in self.roles:  # whoever accepted it plans what is green, and this one what comes after
                asyncio.get_running_loop().call_later(LOOK_S if what else 0.0, self.planner.wake)

    async def _listen_hubs(self) -> None:
        async for _ in self.state.wakes(COMMANDS):
            self._wake_hubs()

    async def _listen_busy(self) -> None:
        async for _ in self.state.wakes(BUSY):
            self.gate.hold()

    async def _say_busy(self) -> None:
        """Tell the other processes, again and again, that something urgent is under way here."""
        while True:
            if self.gate.urgent():
                await self.state.wake(BUSY)
            await asyncio.sleep(SAY_S)

    # --- tasks ------------------------------------------------------------------------------------

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Own a task; one that ends by an error is said loudly."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and task.exception() is not None:
            _log.critical("part_ended", task=task.get_name(), exc_info=task.exception())

    async def serve(self) -> None:
        """Serve until cancelled."""
        await asyncio.Event().wait()
