"""Carry out the desired state of devices: one hub per process that holds device connections.

A plan step has written `play` rows; a stop has turned them into `stop`, a confirmation those that repeat into `hush`.
The hub reads what is live and unfinished: when woken, whenever a device becomes ready, and every 250 ms in any case. A
play is taken in the store before its first byte (so a recall either settles it or stops it, and never misses it). What
was written to a device on its present connection is not written again; a new connection starts afresh, and the device
recognises a version it has played. Where a play supersedes the version that ends with it, the device is told both in
one frame. A hub's death loses no command: the rows stand until the device's report or the alert's end.

What a round costs does not grow with the fleet: it asks which batches are open, not for the commands in them. A batch
is worked off for all devices held when it is new and again after `RESEND_S`, in between for those that have come. Which
commands are still to be played, the store says when they are taken: one batch at first, whose devices sound at once,
then all others together, for a transaction between them would wait behind the receipts of the first.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from gateway import log, metrics
from gateway.channel import Link, Play, Sockets
from gateway.errors import ChannelError, StoreDown
from gateway.model import Batch, Message, Receipt, Report, State
from gateway.order import LOOK_S, Orders
from gateway.ports import Clock
from gateway.sender import Composer
from gateway.store import Store
from gateway.store.command import HUSH, STOP, Open, Wanted

POLL_S = 0.25
RESEND_S = 60.0  # a command a device neither reported on nor refused is written again
NOTED = 32  # commands of one connection, which may last for years; beyond them the old ones are forgotten
KEEP = 4096  # batches; beyond them those without an open command are forgotten
TAKEN_TOGETHER = 10_000  # commands taken in one transaction and written in a row, but for the first batch
COMPOSE_AGAIN_S = 5.0  # a batch that could not be composed is tried again

_log = log.get("hub")


class _Written(NamedTuple):
    """A command as written on a device's present connection."""

    batch: str
    want: str


_NOTHING: Mapping[_Written, float] = MappingProxyType({})


class _Part(NamedTuple):
    """What is to be played of one batch."""

    batch: Batch
    positions: list[int]


class Hub:
    """Plays to the devices one channel holds in this process."""

    def __init__(self, channel: Sockets, store: Store, composer: Composer, link: Link, clock: Clock) -> None:
        self._channel = channel
        self._store = store
        self._composer = composer
        self._link = link
        self._clock = clock
        self._woken = asyncio.Event()
        self._written: dict[int, dict[_Written, float]] = {}  # of each device, on its present connection
        self._new: set[int] = set()  # devices that have come, or some command could not be written to
        self._done: dict[str, float] = {}  # batches that were worked off for all devices held, and when
        self._batches: dict[str, Batch] = {}
        self._messages: dict[str, Message] = {}
        self._broken: dict[str, float] = {}  # batches that could not be composed, and when
        self._since = clock.now()
        self._orders = Orders(channel, store, link, clock)
        self._timed: set[str] = set()
        self._strangers = 0

    def wake(self) -> None:
        """Look for commands now."""
        self._woken.set()

    async def run(self) -> None:
        """Work for ever; no warning waits for a look at orders."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._command())
            both.create_task(self._order())

    async def _command(self) -> None:
        while True:
            self._woken.clear()
            try:
                with _uncollected():
                    await self.round()
            except StoreDown:
                _log.warning("store_down")
            except Exception:
                _log.exception("hub_round_failed")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _order(self) -> None:
        """Part from those who are another process's now, and carry out orders."""
        while True:
            try:
                if taken := await self._store.devices.taken():
                    await self._channel.displace(taken, self._link)
                await self._orders.round()
            except StoreDown:
                _log.warning("store_down")
            except Exception:
                _log.exception("orders_failed")
            await asyncio.sleep(LOOK_S)

    async def round(self) -> int:
        """Write what is wanted and not yet written; return the number of commands written."""
        held = self._channel.held()
        self._measure(len(held))
        self._meet()
        if not held:
            return 0
        found = await self._store.commands.open(self._batches.keys())
        self._remember(found)
        new, self._new = {device for device in self._new if device in held}, set()
        leaves = any(name not in self._done for name in found.plays)
        try:
            with self._channel.hurry() if leaves else nullcontext():
                return await self._carry_out(found, held, new)
        except BaseException:
            self._new |= new
            raise

    def _meet(self) -> None:
        """Begin afresh with those who have come: whatever was written on an older connection is written anew."""
        for device in self._channel.arrived():
            self._written[device] = {}
            self._orders.forget(device)
            self._new.add(device)

    def _measure(self, held: int) -> None:
        name = self._channel.name
        metrics.devices_online.labels(name).set(held)
        metrics.sessions_up.labels(name).set(int(self._channel.up()))
        if strangers := self._channel.strangers - self._strangers:
            metrics.device_strangers.labels(name).inc(strangers)
            self._strangers += strangers

    def _remember(self, found: Open) -> None:
        self._batches |= found.batches
        self._composer.know(found.alerts)
        if len(self._batches) > KEEP:
            still = {*found.plays, *(item.batch for item in found.ends)}
            self._batches = {name: batch for name, batch in self._batches.items() if name in still}
            self._messages = {name: message for name, message in self._messages.items() if name in still}
        # What is open no longer, for it was halted perhaps, is worked off as a whole when it is open again.
        self._done = {name: self._done[name] for name in found.plays if name in self._done}

    async def _carry_out(self, found: Open, held: Collection[int], new: Set[int]) -> int:
        """Write plays, then stops and hushes; a stop that a play has made needless is not written beside it."""
        now = self._clock.now().timestamp()
        self._broken = {name: at for name, at in self._broken.items() if now - at < COMPOSE_AGAIN_S}
        count, replaced, first = 0, set[tuple[int, str]](), dict[str, datetime]()
        for parts in _groups(self._parts(found.plays, held, new, now)):
            taken = await self._take(parts, now)
            written = await self._write([play for _, plays in taken for play in plays], now)
            self._done |= {part.batch.id: now for part, _ in taken}
            count += sum(len(plays) for _, plays in taken)
            if self._channel.supersedes:
                replaced |= {(play.device, old) for play in written for old in play.message.supersedes}
            for play in written:
                first.setdefault(play.message.alert, self._clock.now())
        count += await self._end(found.ends, held, replaced, now)
        await self._time(first)
        return count

    def _parts(self, plays: Sequence[str], held: Collection[int], new: Set[int], now: float) -> Iterator[_Part]:
        """Yield what is to be played: each batch to all once, and again later; in between to those that have come."""
        for name in plays:
            whole = now - self._done.get(name, 0.0) >= RESEND_S
            devices, key = held if whole else new, _Written(name, "play")
            if name in self._broken or name not in self._batches or not devices:
                continue
            batch = self._batches[name]
            positions = [
                position
                for position, device in enumerate(batch.persons)
                if device in devices and self._is_due(device, key, now)
            ]
            if positions or whole:
                yield _Part(batch, positions)

    def _is_due(self, device: int, key: _Written, now: float) -> bool:
        return now - self._written.get(device, _NOTHING).get(key, 0.0) >= RESEND_S

    async def _take(self, parts: Sequence[_Part], now: float) -> list[tuple[_Part, list[Play]]]:
        """Compose, then take in the store; one that cannot be composed silences no other."""
        messages = {part.batch.id: await self._message(part.batch, now) for part in parts}
        composed = [part for part in parts if messages[part.batch.id] is not None]
        wanted = {part.batch.id: part.positions for part in composed if part.positions}
        taken = await self._store.commands.take(wanted) if wanted else {}
        return [
            (part, [
                Play(part.batch.id, position, part.batch.persons[position], message)
                for position in taken.get(part.batch.id, ())
            ])
            for part in composed
            if (message := messages[part.batch.id]) is not None
        ]  # fmt: skip

    async def _end(
        self, ends: Sequence[Wanted], held: Collection[int], replaced: Set[tuple[int, str]], now: float
    ) -> int:
        """Write stops and hushes."""
        plays = []
        for item in ends:
            key = _Written(item.batch, item.want)
            if item.device not in held or not self._is_due(item.device, key, now):
                continue
            if item.want == STOP and (item.device, item.alert) in replaced:
                # The device's receipts settle it; one that says nothing of it is told to stop after all.
                self._mark(item.device, key, now)
            elif (batch := self._batches.get(item.batch)) and (message := await self._message(batch, now)):
                stop = item.want == STOP
                plays.append(Play(item.batch, item.position, item.device, message, stop=stop, hush=not stop))
        await self._write(plays, now)
        return len(plays)

    async def _write(self, plays: Sequence[Play], now: float) -> list[Play]:
        """Write commands; return the plays that went out."""
        if not plays:
            return []
        receipts = await self._channel.command(plays, self._link)
        _log_bugs(self._channel.name, receipts)
        played, reports, at = [], [], self._clock.now()
        for play, receipt in zip(plays, receipts, strict=True):
            want = STOP if play.stop else HUSH if play.hush else "play"
            if receipt.error is not None:
                # It is offline or stuck, and its next connection brings the command up again; or it waits for audio.
                self._new.add(play.device)
                continue
            self._mark(play.device, _Written(play.batch, want), now)
            if want != "play":
                continue
            if receipt.state is State.SUBMITTED:  # as it stands since it was taken
                played.append(play)
            else:
                reports.append(
                    Report(self._channel.name, "", receipt.state, at, receipt.code, play.batch, play.position)
                )
        if reports:
            await self._store.ledger.commit(reports)
        metrics.deliveries.labels(self._channel.name, State.SUBMITTED.name.lower()).inc(len(played))
        return played

    def _mark(self, device: int, key: _Written, now: float) -> None:
        """Note what was written; what is due again anyway is forgotten."""
        noted = self._written.setdefault(device, {})
        if len(noted) >= NOTED:
            self._written[device] = noted = {one: at for one, at in noted.items() if now - at < RESEND_S}
        noted[key] = now

    async def _time(self, first: Mapping[str, datetime]) -> None:
        """Observe how long each alert took to its first devices here; green only, elsewhere a person stands between.

        Alerts accepted before this hub started are not its first writes but a later connection's.
        """
        for alert, at in first.items():
            if alert in self._timed:
                continue
            if len(self._timed) > 4096:
                self._timed.clear()
            self._timed.add(alert)
            row = await self._store.outbox.alert(alert)
            if row is not None and row.plan.route == "green" and row.accepted_at >= self._since:
                took_s = (at - row.accepted_at).total_seconds()
                metrics.first_socket_seconds.observe(took_s)
                _log.info("first_write", alert=alert, took_ms=round(took_s * 1000, 2))

    async def _message(self, batch: Batch, now: float) -> Message | None:
        """Compose a batch once; None if that fails, which is tried again later."""
        if batch.id in self._broken:
            return None
        if batch.id not in self._messages:
            try:
                self._messages[batch.id] = await self._composer.message(batch, range(len(batch)), again=False)
            except StoreDown:
                raise
            except Exception:
                self._broken[batch.id] = now
                _log.exception("cannot_compose", batch=batch.id)
                metrics.alarms.labels("cannot_compose").inc()
                return None
        return self._messages[batch.id]


def _groups(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Gather what is taken in one transaction: one batch at first, then all others."""
    group: list[_Part] = []
    size, enough = 0, 0
    for part in parts:
        group.append(part)
        size += len(part.positions)
        if size > enough:
            yield group
            group, size, enough = [], 0, TAKEN_TOGETHER
    if group:
        yield group


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put the collector off: looking through what 6,000 connections hold would keep the last village waiting."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _log_bugs(channel: str, receipts: Sequence[Receipt]) -> None:
    """Log what nobody foresaw, once per kind; the words stay unsaid, for they may quote a text (rule 9)."""
    errors = (receipt.error for receipt in receipts)
    for kind in {type(error).__name__ for error in errors if error is not None and not isinstance(error, ChannelError)}:
        _log.error("bug_in_channel", channel=channel, type=kind)
        metrics.alarms.labels("bug").inc()
