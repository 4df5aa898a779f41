"""What an emergency-broadcast platform tells, as events of the gateway. Used by `loudspeaker_ebd`.

Only what it says of a village's own area counts; villages it names that are on other roads are not its to speak of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from channels._ebd_broadcast import Broadcast, judged, named, percent, share_of
from channels._ebd_form import (
    OTHER,
    Body,
    BrdLog,
    BrdState,
    Check,
    Coverage,
    EbdError,
    LoggedMessage,
    LogItem,
    StateResponse,
    TerminalStates,
)
from channels._ebd_meaning import CODES
from gateway.channel import Device, Event, Link
from gateway.model import DeviceEvent, Report

WORKING = frozenset({"1", "4", "5"})  # states of a terminal
"""1 正常, 4 故障恢复, 5 播发中."""


@dataclass(frozen=True, slots=True)
class Told:
    """Reads it for a channel; `least` is the share of a village's terminals that makes it played."""

    channel: str
    least: float

    def news(
        self,
        broadcast: Broadcast,
        state: BrdState,
        coverage: Sequence[Coverage],
        villages: Mapping[int, str],
        at: datetime,
        batch: str = "",
    ) -> list[Event]:
        """Return what a state says of these villages, by position; without a batch they are told by their references.

        With it they count even where the answer that would have brought the references was lost.
        """
        events: list[Event] = []
        for position, village in villages.items():
            share = share_of(coverage, village)
            found = judged(state, share, self.least, heard=broadcast.heard, any_=bool(coverage))
            if found is not None and batch:
                events.append(Report(self.channel, "", found[0], at, found[1], batch, position))
            elif found is not None:
                events.append(Report(self.channel, broadcast.reference(village), found[0], at, found[1]))
        return events

    async def faults(self, told: StateResponse, villages: Iterable[str], at: datetime, link: Link) -> list[Event]:
        """Return a fault for each village whose terminals did not sound: a late failure outranks no delivery."""
        events: list[Event] = []
        for village in villages:
            share = share_of(told.coverage, village)
            code = CODES[told.brd_state_code]
            if told.brd_state_code == "3":
                enough = share is not None and share >= self.least
                code = "" if enough or not told.coverage else "not_covered" if share is None else percent(share)
            if code and code != CODES["5"] and (device := await self._ours(village, link)):
                events.append(DeviceEvent(device.id, "fault", at, code))
        return events

    async def pushed(self, body: Body, link: Link) -> list[Event]:
        """Return what a package says that came by itself.

        Raises:
            EbdError: nothing here takes such a package.
        """
        if isinstance(body, StateResponse):  # it does not say of what kind it was: the next look does
            told = LoggedMessage(body.ebm.ebm_id)
            return self._logged([LogItem(told, body.brd_state_code, coverage=body.coverage)])
        if isinstance(body, BrdLog):
            return self._logged(body.ebm_brd_item)
        if isinstance(body, TerminalStates):
            return await self.presence(body, link)
        if isinstance(body, Check):
            return []
        raise EbdError(OTHER, "type")

    async def presence(self, told: TerminalStates, link: Link) -> list[Event]:
        """Return which villages have a working terminal, of those told of."""
        now = datetime.now(UTC)
        villages: dict[str, bool] = {}
        for one in told.ebrdt:
            villages[one.area] = villages.get(one.area, False) or one.state_code in WORKING
        events: list[Event] = []
        for village, works in villages.items():
            if device := await self._ours(village, link):
                events.append(DeviceEvent(device.id, "online" if works else "offline", now))
        return events

    def _logged(self, items: Iterable[LogItem]) -> list[Event]:
        """Return what a log says of the villages it names; of the others the next look at the broadcast tells."""
        now = datetime.now(UTC)
        events: list[Event] = []
        for item in items:
            kind = item.ebm.msg_basic_info.msg_type if item.ebm.msg_basic_info else ""
            broadcast = Broadcast(item.ebm.ebm_id, kind, "", "", ())
            villages = dict(enumerate(named(item.coverage)))
            events += self.news(broadcast, item.brd_state_code, item.coverage, villages, now)
        return events

    async def _ours(self, village: str, link: Link) -> Device | None:
        """Return the row of a village, if it is on this road."""
        device = await link.device(village)
        return device if device is not None and device.channel == self.channel else None
