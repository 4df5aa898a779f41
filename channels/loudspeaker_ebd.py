"""Villages served by the county's emergency-broadcast platform (应急广播平台): one broadcast for those of a slice.

The platform is told an area, and never a loudspeaker; it plays by its own means and tells how far it has come. So:

- A village is a device row whose name is its code of 12 digits. A slice with one text becomes one EBM with their codes.
- A broadcast is written down before it is asked for, under a number it keeps: asked once more, by whatever process and
  after whatever crash, it is the same package to the platform, which plays it once.
- What is taken goes on by itself. Each process takes its share of the broadcasts that are due, asks how they are, and
  cancels at the platform what must run no longer: its alert was updated, cancelled or recalled, has expired, or was
  halted by a person.
- What the policy repeats is asked for again when it is due, as a broadcast of its own, in the villages where nobody has
  confirmed: the protocol has no field for it. Each round is noted in the store before it is asked for.
- Only what the platform says of a village's own area counts. *Played* needs the share of its terminals in
  `played_share`; below it the village stays a gap, and its loudspeaker has a fault.
- Nothing is believed that is not signed by a pinned certificate of the platform: no answer, no state, no log.

Only an Actual alert is a real broadcast; see `_ebd_meaning`. Interoperability is unverified: docs/ebd.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import ClassVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import Field

from channels._ebd import Ebd
from channels._ebd_broadcast import Broadcast
from channels._ebd_form import (
    TAKEN,
    BasicInfo,
    Content,
    DataRequest,
    EbdError,
    Ebm,
    Period,
    RelatedMessage,
    Result,
    StateRequest,
    StateResponse,
    TerminalStates,
    auxiliary,
    moment,
)
from channels._ebd_meaning import CANCEL, ENDS, SEVERITY, Drill, msg_type
from channels._ebd_peer import Peer, PeerSettings
from channels._ebd_told import Told
from channels._follower import end, follow
from gateway.channel import Channel, Event, Lease, Link, Route
from gateway.errors import Ambiguous, ChannelError, MingluoError, Permanent, Temporary
from gateway.model import Group, Job, JobState, Message, Progress, Receipt, Report, Slice, State

LARGEST_RECORDING = 3 << 20  # bytes; above nine minutes the platform speaks the text itself
LATE = timedelta(seconds=30)  # after being asked; then no package can be on its way to the platform any more
AT_ONCE = 4  # requests about broadcasts
LEASE_S = 5.0
UNKNOWN = "ebd_5"  # how a platform refuses what it has never taken
BETWEEN = frozenset({JobState.DONE, JobState.STOPPED})
"""States of a broadcast that is still looked after: it waits for its next round, and nothing sounds."""
NO_EVENT = "00000"  # EventType of what has no code of its own


class EbdSettings(PeerSettings):
    """Table `loudspeaker_ebd`; what is not here is in `PeerSettings`.

    `drill`: how far an exercise goes (3 platform, 4 front end, 5 it sounds); `played_share`: of a village's terminals,
    as in the policy; `recordings`: a broadcast brings its sound with it; `sound_s`: the longest a broadcast goes on;
    `terminals_s`: between two requests for the states of all terminals, 0 for none.
    """

    sender_name: str = Field(min_length=1, max_length=60)
    drill: Drill = "3"
    played_share: float = Field(0.5, gt=0, le=1)
    recordings: bool = False
    sound_s: float = Field(300.0, ge=30, le=86_400)
    poll_s: float = Field(5.0, ge=1, le=300)
    heartbeat_s: float = Field(60.0, ge=1, le=3600)
    terminals_s: float = Field(600.0, ge=0, le=86_400)


class LoudspeakerEbd(Channel):
    """Ask the platform to broadcast, follow the broadcasts, cancel them."""

    name: ClassVar[str] = "loudspeaker_ebd"
    slice: ClassVar[int] = 100
    concurrency: ClassVar[int] = 4
    groups: ClassVar[frozenset[Group]] = frozenset({Group.LOUDSPEAKERS})
    text_limit: ClassVar[int] = 1000
    report_s: ClassVar[float] = 3600.0
    idempotent: ClassVar[bool] = True
    Settings = EbdSettings
    settings: EbdSettings

    def __init__(self, settings: EbdSettings) -> None:
        super().__init__(settings)
        self._peer = Peer(settings)
        self._told = Told(self.name, settings.played_share)
        self.spoken = settings.recordings
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, link: Link) -> None:
        """Begin to look after the broadcasts of this channel, those of another process, too."""
        self._peer.open()
        self._tasks = [
            asyncio.create_task(
                follow(link, self.settings.poll_s, self._attend_to, AT_ONCE), name=f"{self.name} follower"
            ),
            asyncio.create_task(self._attend(link), name=f"{self.name} heartbeat"),
        ]

    async def close(self) -> None:
        """Leave the broadcasts to whoever looks next."""
        await end(self._tasks)
        self._tasks = []
        await self._peer.close()

    def up(self) -> bool:
        """Whether somebody looks after what is asked here."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def endpoints(self) -> Collection[str]:
        """Return the platform's host."""
        return (urlsplit(self.settings.url).hostname or "",)

    def certificates(self) -> Mapping[str, datetime]:
        """Return until when the platform is believed, and until when it believes us, as far as that is known."""
        own = {"own": self.settings.until} if self.settings.until is not None else {}
        return {"platform": max(one.until for one in self.settings.trusted), **own}

    def routes(self, link: Link) -> Sequence[Route]:
        """Return the route the platform sends its packages to."""

        async def take(request: web.Request) -> web.StreamResponse:
            return await self._pushed(request, link)

        return (Route("POST", f"/v1/callbacks/{self.name}", take),)

    # --- broadcasts -----------------------------------------------------------------------------------

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Ask for a broadcast to the villages of a slice; one for each text."""
        msg_type(message.status, self.settings.drill)
        receipts = [Receipt(State.FAILED, "area", error=Permanent("area"))] * len(slice_)
        texts: dict[str, list[int]] = {}
        for index, place in enumerate(slice_.addresses):
            if re.fullmatch(r"[0-9]{12}", place):
                texts.setdefault(message.text_at(index), []).append(index)
        for text, indices in texts.items():
            if datetime.now(UTC) >= message.expires:
                made = [Receipt(State.EXPIRED)] * len(indices)
            else:
                made = await self._broadcast(slice_, indices, replace(message, text=text, texts=None), link)
            for index, receipt in zip(indices, made, strict=True):
                receipts[index] = receipt
        return receipts

    async def _broadcast(self, slice_: Slice, indices: Sequence[int], message: Message, link: Link) -> list[Receipt]:
        """Ask for one broadcast; a repeat of it has the same numbers, so the platform knows it again."""
        key = f"{slice_.batch}-{slice_.number}-{sha256(message.text.encode()).hexdigest()[:8]}"
        try:
            broadcast = await self._numbered(slice_, indices, message, key, link)
            progress = Progress(slice_.batch, broadcast.text, JobState.ASKED, datetime.now(UTC), job=broadcast.ebm)
            places = [slice_.addresses[index] for index in indices]
            package = await self._package(link, broadcast, places, message, key)
            await link.commit([progress])
        except EbdError as error:
            return [Receipt(State.FAILED, error.why, error=Temporary(error.why))] * len(indices)
        except MingluoError:  # without the note nobody could cancel it
            return [Receipt(State.FAILED, "store_down", error=Temporary("store_down"))] * len(indices)
        refused: ChannelError | None = None
        try:
            await self._peer.ask(package)
        except Ambiguous as error:  # the same package again finds out, and is played once
            refused = Temporary(error.code)
        except ChannelError as error:
            refused = error
        if refused is None or isinstance(refused, Permanent):
            with contextlib.suppress(MingluoError):  # the next look tells it, too
                state = JobState.RUNNING if refused is None else JobState.REFUSED
                await link.commit([replace(progress, state=state, last=refused is not None)])
        if refused is not None:
            return [Receipt(State.FAILED, refused.code, error=refused)] * len(indices)
        return [Receipt(State.SUBMITTED, "taken", broadcast.reference(place)) for place in places]

    async def _numbered(
        self, slice_: Slice, indices: Sequence[int], message: Message, key: str, link: Link
    ) -> Broadcast:
        event = message.hazard if re.fullmatch(r"[0-9A-Za-z]{5}", message.hazard) else NO_EVENT
        ebm = await self._peer.broadcast_id(link, key)
        kind = msg_type(message.status, self.settings.drill)
        positions = tuple([slice_.positions[index] for index in indices])
        return Broadcast(ebm, kind, event, SEVERITY[message.level], positions)

    async def _package(
        self, link: Link, broadcast: Broadcast, places: Sequence[str], message: Message, key: str
    ) -> Ebd:  # fmt: skip
        """Return a broadcast as a package, with its recording where speech has made one."""
        recording = await link.recording(message, message.text) if self.spoken else None
        if recording is not None and len(recording) > LARGEST_RECORDING:
            recording = None
        now = datetime.now(UTC)
        end = min(message.expires, now + timedelta(seconds=self.settings.sound_s))
        info, name = self._info(broadcast, now, end, broadcast.kind), f"{broadcast.ebm}.mp3"
        files = [] if recording is None else [await asyncio.to_thread(auxiliary, name, recording)]
        areas = ",".join(places)
        content = Content("zho", message.title or message.text[:40], message.text, areas, auxiliary=tuple(files))
        ebm = Ebm("1.0", broadcast.ebm, info, msg_content=content)
        return await self._peer.package(link, ebm, key, recording=None if recording is None else (name, recording))

    def _info(self, broadcast: Broadcast, start: datetime, end: datetime, kind: str) -> BasicInfo:
        return BasicInfo(
            kind,  # type: ignore[arg-type]  # of `msg_type`, or CANCEL
            self.settings.sender_name, self.settings.ebrid, moment(start), broadcast.event,
            broadcast.severity,  # type: ignore[arg-type]  # of `SEVERITY`
            moment(start), moment(end),
        )  # fmt: skip

    # --- what was taken -------------------------------------------------------------------------------

    async def _attend_to(self, job: Job, link: Link) -> None:
        with contextlib.suppress(EbdError):  # it comes up again
            await (self._cancel if job.over else self._look)(job, link)

    async def _look(self, job: Job, link: Link) -> None:
        broadcast, state = Broadcast.read(job.progress.source), job.progress.state
        if broadcast.round and state is JobState.ASKED:  # noted, and perhaps not asked for
            await self._say(job, broadcast, link)
            return
        due = self._due(job, broadcast)
        if state not in BETWEEN:
            try:
                await self._learn_state(job, broadcast, link)
            except ChannelError:
                if not due:
                    raise
        elif job.rounds is not None and job.rounds.wanted.isdisjoint(broadcast.positions):
            await link.commit([replace(job.progress, at=datetime.now(UTC), last=True)])  # everybody has confirmed
        if due:
            await self._again(job, broadcast, link)

    async def _learn_state(self, job: Job, broadcast: Broadcast, link: Link) -> None:
        request = StateRequest(RelatedMessage(broadcast.ebm))
        told = await self._peer.ask(await self._peer.package(link, request))
        if not isinstance(told, StateResponse) or told.ebm.ebm_id != broadcast.ebm:
            return  # it will tell in a package of its own
        now = datetime.now(UTC)
        villages = _villages(job, broadcast)
        events = self._told.news(broadcast, told.brd_state_code, told.coverage, villages, now, job.progress.batch)
        end = ENDS.get(told.brd_state_code)
        if end is not None and broadcast.heard:
            events += await self._told.faults(told, villages.values(), now, link)
        goes_on = end is JobState.DONE and job.rounds is not None
        last = end is not None and not goes_on
        events.append(replace(job.progress, state=end or JobState.RUNNING, at=now, last=last))
        await link.commit(events)

    def _due(self, job: Job, broadcast: Broadcast) -> bool:
        """Whether the next round begins: as often as the policy says, and never while this one may still sound."""
        if job.rounds is None or job.progress.state is JobState.ASKED:  # the sender is still at it
            return False
        if job.rounds.wanted.isdisjoint(broadcast.positions):
            return False
        wait_s = max(job.rounds.batch.every_s, self.settings.sound_s)
        return datetime.now(UTC) >= job.rounds.asked_at + timedelta(seconds=wait_s)

    async def _again(self, job: Job, broadcast: Broadcast, link: Link) -> None:
        """Begin the next round, for the villages that have not confirmed."""
        wanted = job.rounds.wanted if job.rounds is not None else frozenset()
        positions = tuple([at for at in _villages(job, broadcast) if at in wanted])
        if not positions:
            return
        ebm = await self._peer.again_id(link, broadcast.ebm)
        following = broadcast._replace(ebm=ebm, positions=positions, round=broadcast.round + 1)
        if await link.again(job, following.text, positions):
            known = replace(job.progress, source=following.text, state=JobState.ASKED, job="", last=False)
            await self._say(job._replace(progress=known), following, link)

    async def _say(self, job: Job, broadcast: Broadcast, link: Link) -> None:
        """Ask for a round that was noted; asked for once more, it is the same package."""
        villages, batch = _villages(job, broadcast), job.rounds.batch if job.rounds is not None else None
        if batch is None or not villages:
            return
        said = await link.message(batch, tuple(villages))
        message = replace(said, text=said.text_at(0), texts=None)  # they share it
        progress = replace(job.progress, job=broadcast.ebm, state=JobState.RUNNING)
        events: list[Event] = []
        try:
            key = f"{broadcast.ebm}-round"
            await self._peer.ask(await self._package(link, broadcast, tuple(villages.values()), message, key))
        except Permanent:
            progress = replace(progress, state=JobState.REFUSED, last=True)
        else:
            events += [
                Report(self.name, broadcast.reference(village), State.SUBMITTED, datetime.now(UTC), "taken",
                       progress.batch, at)
                for at, village in villages.items()
            ]  # fmt: skip
        await link.commit([*events, replace(progress, at=datetime.now(UTC))])

    async def _cancel(self, job: Job, link: Link) -> None:
        """Cancel a broadcast; whatever it has been, it is over once the platform has taken that.

        Each try is a package of its own: one that came before its broadcast must not answer for those behind it.
        Between two rounds nothing sounds; one that only a halt ends goes on once that is lifted.
        """
        broadcast, now = Broadcast.read(job.progress.source), datetime.now(UTC)
        halted = job.rounds is not None and job.rounds.halted
        if job.progress.state in BETWEEN:
            if not halted:
                await link.commit([replace(job.progress, at=now, last=True)])
            return
        related = RelatedMessage(broadcast.ebm)
        body = Ebm("1.0", broadcast.ebm, self._info(broadcast, now, now, CANCEL), related)
        state = JobState.STOPPED
        try:
            await self._peer.ask(await self._peer.package(link, body))
        except ChannelError as error:
            asked = job.progress.state is JobState.ASKED and now - job.since >= LATE
            if not asked or error.code != UNKNOWN:
                raise
            state = JobState.LOST  # it was never taken, and the platform knows of none
        events = self._told.news(broadcast, "5", (), _villages(job, broadcast), now, job.progress.batch)
        again = halted and state is JobState.STOPPED
        await link.commit([*events, replace(job.progress, state=state, at=now, last=not again)])

    # --- what the platform sends ----------------------------------------------------------------------

    async def _pushed(self, request: web.Request, link: Link) -> web.Response:
        """Take a package; it is answered as taken only once what it says is durable."""
        result: Result = TAKEN
        related = ""
        try:
            told = await self._peer.take(request)
            related = told.id
            if events := await self._told.pushed(told.body, link):
                await link.commit(events)
        except EbdError as error:
            result, related = error.result, related or error.id
        except MingluoError:
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None
        try:
            return await self._peer.answer(link, result, related)
        except (EbdError, MingluoError):
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"}) from None

    # --- heartbeat and terminals ----------------------------------------------------------------------

    async def _attend(self, link: Link) -> None:
        """Send heartbeats, and ask how the terminals are; one of all processes does."""
        while True:
            lease = None
            with contextlib.suppress(MingluoError):
                lease = await link.lease("heartbeat", 1)
            if lease is None:
                await asyncio.sleep(LEASE_S)
                continue
            try:
                await self._beat(lease, link)
            finally:
                await lease.release()

    async def _beat(self, lease: Lease, link: Link) -> None:
        loop = asyncio.get_running_loop()
        asked = loop.time()
        while not lease.lost.is_set():
            with contextlib.suppress(ChannelError):  # the next one tells it, too
                await self._peer.ask(self._peer.heartbeat())
            if self.settings.terminals_s and loop.time() >= asked:
                asked = loop.time() + self.settings.terminals_s
                with contextlib.suppress(EbdError, MingluoError):
                    await self._ask_terminals(link)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.settings.heartbeat_s):
                    await lease.lost.wait()

    async def _ask_terminals(self, link: Link) -> None:
        now = datetime.now(UTC)
        day = moment(now - timedelta(days=1))
        request = DataRequest("EBRDTState", Period(day, moment(now), "Full"))
        told = await self._peer.ask(await self._peer.package(link, request))
        if isinstance(told, TerminalStates):
            await link.commit(await self._told.presence(told, link))


def _villages(job: Job, broadcast: Broadcast) -> dict[int, str]:
    """Return the villages of a broadcast by position, without those that were erased."""
    return {at: job.places[at] for at in broadcast.positions if at < len(job.places) and job.places[at]}
