"""Carry out the desired state of devices: one hub per process that holds device connections.

A plan step has written `play` rows; a stop has turned them into `stop`, a confirmation those that repeat into `hush`.
The hub reads what is live and unfinished for the devices this process holds: when woken, whenever a device becomes
ready, and every 250 ms in any case. A play is taken in the store before its first byte (so a recall either settles
it or stops it, and never misses it). What was written to a device on its present connection is not written again; a
new connection starts afresh, and the device recognises a version it has played. Where a play supersedes the version
that ends with it, the device is told both in one frame. A hub's death loses no command: the rows stand until the
device's report or the alert's end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from gateway import log, metrics
from gateway.channel import Link, Play, Sockets
from gateway.errors import ChannelError, StoreDown
from gateway.model import Batch, DeviceEvent, Message, Receipt, Report, State
from gateway.order import Orders
from gateway.ports import Clock
from gateway.sender import Composer
from gateway.store import Store
from gateway.store.command import Wanted

POLL_S = 0.25
RESEND_S = 60.0  # a command a device neither reported on nor refused is written again
KEEP = 4096  # batches; beyond them those without an open command are forgotten
COMPOSE_AGAIN_S = 5.0  # a batch that could not be composed is tried again

_log = log.get("hub")


class _Written(NamedTuple):
    """A command as written on a device's present connection."""

    batch: str
    stop: bool
    hush: bool


class Hub:
    """Plays to the devices one channel holds in this process."""

    def __init__(self, channel: Sockets, store: Store, composer: Composer, link: Link, clock: Clock) -> None:
        self._channel = channel
        self._store = store
        self._composer = composer
        self._link = link
        self._clock = clock
        self._woken = asyncio.Event()
        self._written: defaultdict[int, dict[_Written, float]] = defaultdict(dict)
        self._batches: dict[str, Batch] = {}
        self._messages: dict[tuple[str, bool], Message] = {}
        self._broken: dict[tuple[str, bool], float] = {}  # batches that could not be composed, and when
        self._since = clock.now()
        self._orders = Orders(channel, store, link, clock)
        self._timed: set[str] = set()

    def wake(self) -> None:
        """Look for commands now."""
        self._woken.set()

    def on_device(self, event: DeviceEvent) -> None:
        """Forget what was written on a connection that ended."""
        self._written.pop(event.device, None)
        self._orders.forget(event.device)

    async def run(self) -> None:
        """Work for ever."""
        while True:
            self._woken.clear()
            try:
                await self.round()
                await self._orders.round()
            except StoreDown:
                _log.warning("store_down")
            except Exception:
                _log.exception("hub_round_failed")
            try:
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def round(self) -> int:
        """Write what is wanted and not yet written; return the number of commands written."""
        held = self._channel.held()
        metrics.devices_online.labels(self._channel.name).set(len(held))
        if not held:
            return 0
        now = self._clock.now().timestamp()
        found = await self._store.commands.wanted(held, self._batches.keys())
        self._batches |= found.batches
        if len(self._batches) > KEEP:
            still = {item.batch for item in found.items}
            self._batches = {name: batch for name, batch in self._batches.items() if name in still}
            self._messages = {key: message for key, message in self._messages.items() if key[0] in still}
        due = [
            item
            for item in found.items
            if now - self._written[item.device].get(_Written(item.batch, item.stop, item.hush), 0.0) >= RESEND_S
        ]
        messages = await self._compose(due, now)
        due = [item for item in due if (item.batch, item.stop) in messages]
        return await self._carry_out(due, messages, now)

    async def _carry_out(self, due: Sequence[Wanted], messages: Mapping[tuple[str, bool], Message], now: float) -> int:
        """Take plays and write everything; a stop that a play makes needless is not written beside it."""
        plays = [item for item in due if not item.stop and not item.hush]
        taken = await self._store.commands.take(plays) if plays else frozenset()
        replaced = self._replaced(taken, messages)
        ready, needless = [], []
        for item in due:
            if item.stop and (item.device, item.alert) in replaced:
                needless.append(item)
            elif item.stop or item.hush or item in taken:
                ready.append(item)
        written = await self._write(ready, messages, now) if ready else set()
        late = []
        for item in needless:
            if (item.device, replaced[item.device, item.alert]) in written:
                # The device's receipts settle it; one that says nothing of it is told to stop after all.
                self._written[item.device][_Written(item.batch, item.stop, item.hush)] = now
            else:
                late.append(item)
        if late:
            await self._write(late, messages, now)
        return len(ready) + len(late)

    def _replaced(
        self, taken: Collection[Wanted], messages: Mapping[tuple[str, bool], Message]
    ) -> dict[tuple[int, str], str]:
        """Return what plays end in their devices by themselves: (device, version) → the version that begins."""
        if not self._channel.supersedes:
            return {}
        return {(item.device, old): item.alert for item in taken for old in messages[item.batch, item.stop].supersedes}

    async def _compose(self, items: Sequence[Wanted], now: float) -> dict[tuple[str, bool], Message]:
        """Compose each batch once; one that cannot be composed silences no other."""
        messages = {}
        self._broken = {key: at for key, at in self._broken.items() if now - at < COMPOSE_AGAIN_S}
        for item in items:
            key = (item.batch, item.stop)
            if key in messages or key in self._broken:
                continue
            try:
                messages[key] = await self._message(item)
            except StoreDown:
                raise
            except Exception:
                self._broken[key] = now
                _log.exception("cannot_compose", batch=item.batch)
                metrics.alarms.labels("cannot_compose").inc()
        return messages

    async def _write(
        self, items: Sequence[Wanted], messages: Mapping[tuple[str, bool], Message], now: float
    ) -> set[tuple[int, str]]:
        """Write commands; return the plays that were written: (device, version)."""
        plays = [
            Play(one.batch, one.position, one.device, messages[one.batch, one.stop], one.stop, one.hush)
            for one in items
        ]
        receipts = await self._channel.command(plays, self._link)
        reports = []
        played: set[tuple[int, str]] = set()
        at = self._clock.now()
        _log_bugs(self._channel.name, receipts)
        for play, receipt in zip(plays, receipts, strict=True):
            if receipt.error is not None:
                continue  # it is offline or stuck: its next connection brings the command up again
            self._written[play.device][_Written(play.batch, play.stop, play.hush)] = now
            if not play.stop and not play.hush:
                if receipt.state is State.SUBMITTED:
                    played.add((play.device, play.message.alert))
                reports.append(
                    Report(self._channel.name, "", receipt.state, at, receipt.code, play.batch, play.position)
                )
        if reports:
            await self._store.ledger.commit(reports)
            metrics.deliveries.labels(self._channel.name, State.SUBMITTED.name.lower()).inc(len(reports))
            await self._time({alert for _, alert in played} - self._timed, at)
        return played

    async def _time(self, alerts: set[str], at: datetime) -> None:
        """Observe how long each alert took to its first device here; green only, elsewhere a person stands between.

        Alerts accepted before this hub started are not its first writes but a later connection's.
        """
        for alert in alerts:
            if len(self._timed) > 4096:
                self._timed.clear()
            self._timed.add(alert)
            row = await self._store.outbox.alert(alert)
            if row is not None and row.plan.route == "green" and row.accepted_at >= self._since:
                took_s = (at - row.accepted_at).total_seconds()
                metrics.first_socket_seconds.observe(took_s)
                _log.info("first_write", alert=alert, took_ms=round(took_s * 1000, 2))

    async def _message(self, item: Wanted) -> Message:
        key = (item.batch, item.stop)
        if key not in self._messages:
            batch = self._batches.get(item.batch)
            if batch is None:
                raise LookupError(f"no batch {item.batch}")
            self._messages[key] = await self._composer.message(batch, range(len(batch)), again=False)
        return self._messages[key]


def _log_bugs(channel: str, receipts: Sequence[Receipt]) -> None:
    """Log what nobody foresaw, once per kind; the words stay unsaid, for they may quote a text (rule 9)."""
    errors = (receipt.error for receipt in receipts)
    for kind in {type(error).__name__ for error in errors if error is not None and not isinstance(error, ChannelError)}:
        _log.error("bug_in_channel", channel=channel, type=kind)
        metrics.alarms.labels("bug").inc()
