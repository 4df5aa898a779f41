"""From the outbox to the broker, and from the broker to the sender.

`offer` takes freshly committed batches from memory; the sweeper offers what was left over. Green has
publishers of its own and waits at most 250 ms for a confirm; when the broker does not confirm, the batch
simply stays in the outbox, where the workers pick green and urgent work up directly and the sweeper offers the
rest again. Publishers take one message of each alert in turn: the few of a small alert do not wait for the many
of a large one. A message holds one batch; a green one as many small ones as wait and fit, such as the officials of each
township: the broker syncs each message that comes alone, and what comes together is claimed and settled together. It is
acked after its batches are settled (see `sender`); one that cannot be read, or whose work fails in an unforeseen way,
is dead-lettered: the outbox still has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NamedTuple

from gateway import log, metrics
from gateway.channel import Channel
from gateway.errors import BrokerDown, StoreDown
from gateway.model import Batch, Lane
from gateway.ports import Broker, Message, Outbox
from gateway.rotation import Rotation
from gateway.sender import Sender, Stopping
from gateway.store.codec import pack, pack_message, unpack_batch, unpack_message

GREEN_TIMEOUT_S = 0.24  # with the loop's own time a quarter of a second
TIMEOUT_S = 5.0
PUBLISHERS = {Lane.GREEN: 4, Lane.URGENT: 8, Lane.BULK: 8, Lane.SERVICE: 2}
MESSAGE = 32 * 1024  # bytes of a message of several batches: a full one has about as many
MOST = 16  # batches of a message; the others are for other workers
ROOM = 64  # batches of one alert waiting in a lane for a publisher before the planner turns to another one
LANE_ROOM = 4 * ROOM  # of all alerts in a lane
REFILL = ROOM // 2  # so few of one alert waiting again: the planner goes on
PREFETCH = {Lane.GREEN: 4, Lane.URGENT: 2, Lane.BULK: 1, Lane.SERVICE: 1}  # times the channel's concurrency
FLUSH_S = 0.2  # most batches are settled by then, and need no note that they were published

_log = log.get("relay")


def queue(channel: str, lane: Lane) -> str:
    """Name of the queue of a channel and lane."""
    return f"{channel}.{lane.value}"


class Offer(NamedTuple):
    """A packed batch that waits for a publisher."""

    batch: str
    queue: str
    body: bytes

    @property
    def alert(self) -> str:
        """Whose batch it is."""
        return self.batch.partition(".")[0]


class Relay:
    """Publishes offered batches with confirms. `run` keeps its publishers alive."""

    def __init__(self, broker: Broker, outbox: Outbox) -> None:
        self._broker = broker
        self._outbox = outbox
        self._waiting: dict[Lane, Rotation[Offer]] = {lane: Rotation() for lane in Lane}
        self._offered: set[str] = set()
        self._work = {lane: asyncio.Event() for lane in Lane}
        self._confirmed: list[str] = []
        self._on_room: Callable[[], None] | None = None

    def when_room(self, call: Callable[[], None]) -> None:
        """Call back whenever there is room again for an alert that may have had none."""
        self._on_room = call

    def offer(self, batches: Iterable[Batch]) -> None:
        """Queue batches for publishing; returns at once. Desired-state batches are the hubs' business."""
        for batch in batches:
            if batch.slice:
                self.offer_packed(batch.channel, batch.lane, batch.id, pack(batch))

    def offer_packed(self, channel: str, lane: Lane, batch: str, body: bytes) -> None:
        """Queue one packed batch, unless it already waits here."""
        if batch in self._offered:
            return
        self._offered.add(batch)
        offer = Offer(batch, queue(channel, lane), body)
        self._waiting[lane].add(offer.alert, offer)
        self._work[lane].set()

    def has_room(self, lane: Lane, alert: str) -> bool:
        """Whether the lane's publishers keep up with this alert; if not, the planner turns to another one."""
        waiting = self._waiting[lane]
        return waiting.of(alert) < ROOM and len(waiting) < LANE_ROOM

    async def run(self) -> None:
        """Publish for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._flush())
            for lane, number in PUBLISHERS.items():
                for _ in range(number):
                    group.create_task(self._publisher(lane))

    async def _publisher(self, lane: Lane) -> None:
        waiting, timeout_s = self._waiting[lane], GREEN_TIMEOUT_S if lane is Lane.GREEN else TIMEOUT_S
        patient = lane not in (Lane.GREEN, Lane.URGENT)  # those the workers pick from the store meanwhile
        while True:
            while not waiting:
                self._work[lane].clear()
                await self._work[lane].wait()
            offers = self._taken(waiting, MOST if lane is Lane.GREEN else 1)
            batches = [offer.batch for offer in offers]
            body = pack_message([offer.body for offer in offers])
            try:
                await self._broker.publish(offers[0].queue, body, timeout_s, patient=patient)
            except BrokerDown:
                metrics.publishes.labels(lane.value, "unconfirmed").inc()
            else:
                metrics.publishes.labels(lane.value, "confirmed").inc()
                self._confirmed += batches
            finally:
                self._offered.difference_update(batches)

    def _taken(self, waiting: Rotation[Offer], most: int) -> list[Offer]:
        """Take the next message's batches: all of one alert and queue."""
        everything, offers = len(waiting), [waiting.take()]
        alert, size = offers[0].alert, len(offers[0].body)
        while len(offers) < most and (more := waiting.next_of(alert)) and more.queue == offers[0].queue:
            size += len(more.body)
            if size > MESSAGE:
                break
            offers.append(waiting.take_of(alert))
        left = waiting.of(alert)
        if self._on_room is not None and (
            left <= REFILL < left + len(offers) or len(waiting) < LANE_ROOM <= everything
        ):
            self._on_room()
        return offers

    async def _flush(self) -> None:
        """Note confirms in the store, many at a time."""
        while True:
            await asyncio.sleep(FLUSH_S)
            if self._confirmed:
                confirmed, self._confirmed = self._confirmed, []
                try:
                    await self._outbox.published(confirmed)
                except StoreDown:  # the sweeper will offer them again; claims make that harmless
                    _log.warning("store_down")


class Worker:
    """Consumes the queues of its channels and gives each batch to the sender."""

    def __init__(self, broker: Broker, sender: Sender, channels: Mapping[str, Channel]) -> None:
        self._broker = broker
        self._sender = sender
        self._channels = channels
        self._tasks: set[asyncio.Task[None]] = set()
        self._now: dict[str, asyncio.Event] = {}
        self._picked: set[str] = set()
        self._paused: set[str] = set()
        self._left: set[str] = set()  # channels of which messages were left unacked
        self._taken: set[str] = set()  # batches of messages that are not over yet
        # What is picked up does not wait for what the broker gave: it is for those who waited too long there.
        self._given, self._direct_ones = self._slots(), self._slots()

    def _slots(self) -> dict[tuple[str, Lane], asyncio.Semaphore]:
        """As many batches side by side as the channel is given messages of a lane."""
        return {
            (name, lane): asyncio.Semaphore(one.concurrency * PREFETCH[lane])
            for name, one in self._channels.items()
            for lane in Lane
        }

    async def start(self, lanes: Collection[Lane] = tuple(Lane)) -> None:
        """Begin to consume, green first; all lanes of a channel whose connections only this process may have."""
        for lane in Lane:
            for name, channel in self._channels.items():
                if lane in lanes or channel.sessions:
                    await self._broker.consume(queue(name, lane), channel.concurrency * PREFETCH[lane], self._take)

    def able(self) -> list[str]:
        """Channels that this process can send on now."""
        return [name for name, channel in self._channels.items() if channel.up()]

    def check(self) -> None:
        """Leave the work of a channel that is not up to others, and take it again once it is.

        What was taken and not begun goes back to the broker with the rest.
        """
        for name, channel in self._channels.items():
            up, paused = channel.up(), name in self._paused
            if not paused and (not up or name in self._left):
                self._paused.add(name)
                self._left.discard(name)
                for lane in Lane:
                    self._broker.pause(queue(name, lane))
            elif paused and up:
                self._paused.discard(name)
                for lane in Lane:
                    self._broker.resume(queue(name, lane))

    def _take(self, message: Message) -> None:
        """Start a task we own: the broker's client may cancel its own callbacks when a connection drops."""
        self._keep(asyncio.create_task(self._work(message)))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, message: Message) -> None:
        try:
            batches = unpack_message(message.body)
        except ValueError:
            _log.error("unreadable_message")
            await message.reject()
            return
        if any(batch.channel not in self._channels for batch in batches):
            await message.reject()
            return
        if message.redelivered and len(batches) > 1:  # what is settled must not be paced once more for a refused claim
            batches = await self._sender.unfinished(batches)
        self._taken.update(batch.id for batch in batches)
        try:
            ends = await asyncio.gather(*map(self._in_turn, batches), return_exceptions=True)
        finally:
            self._taken.difference_update(batch.id for batch in batches)
        failed = [(batch, end) for batch, end in zip(batches, ends, strict=True) if end is not None]
        left = {batch.channel for batch, end in failed if isinstance(end, Stopping)}
        for batch, end in failed:
            if not isinstance(end, Stopping):
                _log.error("batch_failed", batch=batch.id, exc_info=end)
                metrics.alarms.labels("batch_failed").inc()
        if left:
            self._left |= left
            return  # unacked: the broker gives it to another worker, or to this one later, or to its successor
        await (message.reject() if failed else message.ack())

    def direct(self, body: bytes) -> None:
        """Work off a batch picked straight from the store, unless it is under way here.

        As many side by side as the broker would have given us of the channel's lane; the others wait their turn.
        """
        batch = unpack_batch(body)
        if not any(batch.id in here for here in (self._now, self._picked, self._taken)):
            self._picked.add(batch.id)
            self._keep(asyncio.create_task(self._direct(batch)))

    async def _direct(self, batch: Batch) -> None:
        try:
            async with self._direct_ones[batch.channel, batch.lane]:
                await self._once(batch)
        except Stopping:
            return
        except Exception:
            _log.exception("batch_failed", batch=batch.id)
            metrics.alarms.labels("batch_failed").inc()
        finally:
            self._picked.discard(batch.id)

    async def _in_turn(self, batch: Batch) -> None:
        async with self._given[batch.channel, batch.lane]:
            await self._once(batch)

    async def _once(self, batch: Batch) -> None:
        """Send, unless this process is already at it: then the other task settles it."""
        while (under_way := self._now.get(batch.id)) is not None:
            await under_way.wait()
        self._now[batch.id] = asyncio.Event()
        try:
            await self._sender.send(batch)
        finally:
            self._now.pop(batch.id).set()

    async def stop(self) -> None:
        """Let the slices under way settle; claim no more."""
        self._sender.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
