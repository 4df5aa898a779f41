"""Loudspeakers the bureau owns, whatever carries their frames (docs/device-protocol.md).

A transport derives its channel from `Loudspeakers` and its way of writing to one device from `Connection`; it calls
`join` when a device has come, `hear` with each frame, `leave` when it has gone. The hub asks `held` and calls
`command` and `order` with desired state; a device that has said hello wakes the hub, so what is live and unfinished
reaches it after every reconnect, and nothing older does. It does not wait until its presence is durable: that decides
nothing that is sent.

Ordering: frames to one device leave in the order of `command`; its receipts are committed in the order they came.
Moment of ack: a receipt is acknowledged to the device only after `link.commit` returned; what waits meanwhile shares
the next commit. On failure: no commit, no ack, and the device sends the receipt again. A device that does not read
is cut, never waited for. Losing this process loses no command and no receipt: devices keep theirs until acknowledged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, NamedTuple

from pydantic import Field

from channels._loudspeaker_command import Span, head, order_frame, order_of, payload_of, span_of, time_of
from channels._loudspeaker_commanded import ANY, Commanded
from channels._loudspeaker_commit import Commits, Waiting
from channels._loudspeaker_connection import BAD_FRAMES, GOING_AWAY, OTHER_PROTOCOL, REPLACED, Connection
from channels._loudspeaker_frame import (
    PROTOCOL,
    Alarm,
    Condition,
    Frame,
    Hello,
    Told,
    events_of,
    parse,
    sounded_at,
    state_of,
)
from channels._loudspeaker_hurry import Hurry
from gateway.channel import Event, Link, Play, Sockets
from gateway.channel import Settings as ChannelSettings
from gateway.errors import ChannelError, Temporary
from gateway.model import DeviceEvent, Group, Message, Order, OrderReceipt, Receipt, Slice, State

BAD_FRAMES_ALLOWED = 2
TURN_S = 0.2  # of CPU time commands are written in a row, enough for a city; then everything else has a turn
SUBMITTED = Receipt(State.SUBMITTED)
GATHER_S = 0.05  # devices that come within it wake the hub once
AUDIO_WAIT_S = 10.0  # so long a device that cannot speak waits for its audio: a county's texts are made in about five
ASKED = 4096


class LoudspeakerSettings(ChannelSettings):
    """What the tables of all loudspeaker channels hold. `repeat`: how often a text is spoken in a row."""

    repeat: int = Field(3, ge=1, le=10)


class _Head(NamedTuple):
    """What all devices of one batch and text share. Nothing to write: it has expired, or its audio is being made."""

    start: bytes = b""
    span: Span = ANY
    waits: bool = False


_Key = tuple[int, str, bool, bool, str, bool]


class Loudspeakers(Sockets):
    """Hold the connections of loudspeakers; write commands and orders, commit what the devices report."""

    slice: ClassVar[int] = 200
    groups: ClassVar[frozenset[Group]] = frozenset({Group.LOUDSPEAKERS})
    answer_s: ClassVar[float] = 2.0
    text_limit: ClassVar[int] = 1000
    supersedes: ClassVar[bool] = True
    Settings: ClassVar[type[ChannelSettings]] = LoudspeakerSettings
    settings: LoudspeakerSettings

    def __init__(self, settings: LoudspeakerSettings) -> None:
        super().__init__(settings)
        self._connections: dict[int, Connection] = {}
        self._ready: dict[int, Connection] = {}
        self._commanded = Commanded()
        self._asked: dict[tuple[str, str], float] = {}  # audio, and since when
        self._came: set[int] = set()  # ready, and the hub has not asked since
        self._waking: asyncio.Task[None] | None = None
        self._hurry = Hurry()
        self._commits = Commits(self._hurry)
        self._empty = asyncio.Event()
        self._empty.set()

    def held(self) -> Collection[int]:
        """Ids of the devices that have said hello here: a live view."""
        return self._ready.keys()

    def arrived(self) -> Collection[int]:
        """Ids of the devices that have said hello since this was last asked."""
        came, self._came = self._came, set()
        return came

    async def close(self) -> None:
        """Part from all devices, then finish the commit under way."""
        connections = list(self._connections.values())
        for connection in connections:
            await connection.part(GOING_AWAY)
        await self._empty.wait()
        if self._waking is not None:
            self._waking.cancel()
        await self._commits.finish()

    # -- to the devices ----------------------------------------------------------------------------------------------

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Write one slice; where texts differ, each device gets its own."""
        plays = [
            Play(slice_.batch, position, device, _own(message, index))
            for index, (position, device) in enumerate(zip(slice_.positions, slice_.persons, strict=True))
        ]
        return await self.command(plays, link)

    async def command(self, plays: Sequence[Play], link: Link) -> list[Receipt]:
        """Write commands in a plain loop; what devices share is serialised and signed once."""
        heads: dict[_Key, _Head] = {}
        receipts: list[Receipt] = []
        now, began = asyncio.get_running_loop().time(), time.thread_time()
        self._commanded.forget(now)
        with self.hurry():
            for play in plays:
                receipts.append(await self._answered(play, heads, now, link))
                if len(receipts) % self.slice == 0 and time.thread_time() - began > TURN_S:
                    await asyncio.sleep(0)
                    began = time.thread_time()
        return receipts

    def hurry(self) -> AbstractContextManager[None]:
        """Commit no receipt and let nobody in meanwhile: database and loop work for the warning alone."""
        return self._hurry.entered()

    async def _answered(self, play: Play, heads: dict[_Key, _Head], now: float, link: Link) -> Receipt:
        try:
            return await self._write(play, heads, now, link)
        except ChannelError as error:
            return Receipt(State.FAILED, error.code, error=error)
        except Exception as error:  # a bug for one device must not silence the others
            return Receipt(State.FAILED, type(error).__name__, error=error)

    async def order(self, orders: Sequence[Order], link: Link) -> list[Receipt]:
        """Write orders, each signed for its one device."""
        receipts: list[Receipt] = []
        now = asyncio.get_running_loop().time()
        for order in orders:
            try:
                connection = self._held(order.device)
                signed = link.sign(order_of(order, connection.name, datetime.now(UTC), connection.nonce))
                self._commanded.add_order(order, now)
                await connection.write(order_frame(signed))
                receipts.append(SUBMITTED)
            except ChannelError as error:
                receipts.append(Receipt(State.FAILED, error.code, error=error))
        return receipts

    def _held(self, device: int) -> Connection:
        connection = self._ready.get(device)
        if connection is None:
            raise Temporary("offline")
        return connection

    async def _write(self, play: Play, heads: dict[_Key, _Head], now: float, link: Link) -> Receipt:
        connection = self._held(play.device)
        message = play.message
        text = message.text if message.texts is None else _text(play, message.texts)
        # The plays keep their messages alive: ids are distinct.
        key = (id(message), play.batch, play.stop, play.hush, text, connection.needs_audio)
        if (shared := heads.get(key)) is None:
            shared = heads[key] = self._head(play, text, now, link, audio=connection.needs_audio)
        if shared.waits:
            raise Temporary("audio_is_made")
        if not shared.start:
            return Receipt(State.EXPIRED, "expired")
        self._commanded.add(play, now, shared.span)
        await connection.write(b"%b%d}" % (shared.start, play.position))
        return SUBMITTED

    def _head(self, play: Play, text: str, now: float, link: Link, *, audio: bool) -> _Head:
        """Return what all devices with this text share; nothing for a play that has expired (rule 4)."""
        at, repeat = datetime.now(UTC), self.settings.repeat
        if play.stop or play.hush:
            return _Head(head(link.sign(payload_of(play, "", None, at, repeat)), play.batch))
        if play.message.expires <= at:
            return _Head()
        sound = link.audio(play.message, text) if audio else None
        if audio and sound is None and self._waits(play.message.alert, text, now):
            return _Head(waits=True)
        if sound is not None:
            repeat = 1  # the file holds the whole announcement, its text said twice
        return _Head(
            head(link.sign(payload_of(play, text, sound, at, repeat)), play.batch), span_of(text, sound, repeat)
        )

    def _waits(self, alert: str, text: str, now: float) -> bool:
        """Whether the audio of a text may still come in time."""
        if len(self._asked) > ASKED:
            self._asked.clear()
        return now - self._asked.setdefault((alert, text), now) < AUDIO_WAIT_S

    # -- from the devices --------------------------------------------------------------------------------------------

    async def join(self, connection: Connection, link: Link) -> None:
        """Take a device's connection; an older one of the same device has to go."""
        old, self._connections[connection.device] = self._connections.get(connection.device), connection
        self._empty.clear()
        if old is not None:
            self._ready.pop(connection.device, None)
            self._commits.note(link, Waiting([_event(connection, "replaced")]))
            await old.part(REPLACED)

    async def displace(self, devices: Collection[int], link: Link) -> None:
        """Part from devices that have come to another process since; one that has come here again meanwhile stays."""
        for device in devices:
            connection = self._connections.get(device)
            if connection is not None and connection.noted:
                self._ready.pop(device, None)
                self._commits.note(link, Waiting([_event(connection, "replaced")]))
                await connection.part(REPLACED)

    def leave(self, connection: Connection, link: Link) -> None:
        """Forget a connection that has ended."""
        connection.gone = True
        if self._connections.get(connection.device) is connection:
            del self._connections[connection.device]
            if not self._connections:
                self._empty.set()
            self._ready.pop(connection.device, None)
            if connection.greeted:
                self.tell_offline(connection, link)

    def tell_offline(self, connection: Connection, link: Link) -> None:
        """Let the next commit tell that a device has gone."""
        self._commits.note(link, Waiting([_event(connection, "offline")]))

    async def hear(self, connection: Connection, frame: bytes, link: Link) -> bool:
        """Act on one frame; False where the transport has to cut the device, for the reason in `connection.code`."""
        try:
            await self._take(connection, parse(frame), link)
        except ValueError as error:
            connection.bad += 1
            await connection.answer("error", code=str(error))
            if connection.bad > BAD_FRAMES_ALLOWED:
                connection.code = BAD_FRAMES
        return connection.code not in (BAD_FRAMES, OTHER_PROTOCOL)

    async def _take(self, connection: Connection, told: Frame, link: Link) -> None:
        """Act on one parsed frame.

        Raises:
            ValueError: "hello_first".
        """
        if isinstance(told, Hello):
            await self._greet(connection, told, link)
        elif not connection.greeted:
            raise ValueError("hello_first")
        elif isinstance(told, Condition):
            self._report(connection, told, link)
        elif isinstance(told, Alarm):
            event = _event(connection, "alarm", told.alarm)
            events: list[Event] = [replace(event, at=sounded_at(told, connection.clock_skew_s, event.at))]
            await self._commits.keep(connection, Waiting(events, connection, {"alarm": told.alarm}), link)
        else:
            await self._told(connection, told, link)

    async def _greet(self, connection: Connection, hello: Hello, link: Link) -> None:
        if hello.protocol != PROTOCOL:
            connection.code = OTHER_PROTOCOL
            await connection.answer("error", code="unsupported_protocol", protocol=PROTOCOL)
        elif not connection.greeted:
            connection.greeted = True
            connection.firmware, connection.nonce = hello.firmware, hello.nonce
            connection.needs_audio = hello.audio and not hello.speech
            self._commits.note(link, Waiting([_event(connection, "online", hello.firmware)], connection))
            if self._connections.get(connection.device) is connection:  # a newer one may have come
                self._hold(connection, link)
            if hello.nonce:
                await _tell_time(connection, link)

    def _hold(self, connection: Connection, link: Link) -> None:
        """Let the hub know that a device is ready, with those that come at the same time."""
        self._ready[connection.device] = connection
        self._came.add(connection.device)
        if self._waking is None:
            self._waking = asyncio.create_task(self._wake_soon(link))

    async def _wake_soon(self, link: Link) -> None:
        await asyncio.sleep(GATHER_S)
        self._waking = None  # who comes from here on wakes it again
        await link.wake()

    def _report(self, connection: Connection, told: Condition, link: Link) -> None:
        """Pass on a device's state: of those that come before the next commit, the last."""
        event = _event(connection, "state")
        state = state_of(told, connection.firmware, event.at)
        connection.clock_skew_s = state.clock_skew_s or 0.0
        events: list[Event] = [replace(event, state=state)]
        if connection.report is not None:
            connection.report[:] = events
            return
        connection.report = events
        self._commits.note(link, Waiting(events, connection))

    async def _told(self, connection: Connection, told: Told, link: Link) -> None:
        """Pass on a receipt, if it is this device's to give; what changes nothing is acknowledged at once."""
        name: dict[str, object] = {"batch": told.batch, "position": told.position}
        if told.order:
            name = {"order": told.order}
        command = self._commanded.find(told, connection.device, asyncio.get_running_loop().time())
        if command is None:
            await connection.answer("error", code="not_commanded", **name)
        elif command.known(told):
            await connection.answer("ack", **name, state=told.state)
        else:
            events = _order_events(told, connection) if told.order else events_of(
                told, connection.device, self.name, plausible=command.plausible(told)
            )  # fmt: skip
            ack = {**name, "state": told.state}
            await self._commits.keep(connection, Waiting(events, connection, ack, command), link)


async def _tell_time(connection: Connection, link: Link) -> None:
    """Tell a device the time: what it has heard already may go on in rounds only once it knows."""
    signed = link.sign(time_of(connection.name, connection.nonce, datetime.now(UTC)))
    with suppress(Temporary):  # gone already
        await connection.write(order_frame(signed))


def _event(connection: Connection, kind: str, code: str = "") -> DeviceEvent:
    return DeviceEvent(connection.device, kind, datetime.now(UTC), code)


def _order_events(told: Told, connection: Connection) -> list[Event]:
    done = told.state == "done"
    return [OrderReceipt(told.order, connection.device, done, datetime.now(UTC), told.code)]


def _text(play: Play, texts: Sequence[str]) -> str:
    """Return the device's own text: the texts stand for the whole batch, or for this device alone."""
    return texts[0] if len(texts) == 1 else texts[play.position]


def _own(message: Message, index: int) -> Message:
    return message if message.texts is None else replace(message, text=message.text_at(index), texts=None)
