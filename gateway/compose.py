"""From a frozen batch to what its recipients are told: alert, places and policy into one `Message`.

Called by `sender` and `hub` after the claim. Alerts are read from the store once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from gateway.channel import Channel
from gateway.model import Alert, Batch, Group, Message, Notice, Plan, Target
from gateway.policy import Policy
from gateway.ports import AlertRow, Outbox
from gateway.render import Rendered, Renderer
from gateway.sender import repeats

KEEP = 256
SIGNED = "sms"  # channels of this family carry the registered signature
ONE_SEGMENT = 70  # UTF-16 units; what may not be cut takes further segments


class GatewayComposer:
    """Composes messages; holds the alerts it was asked about last."""

    def __init__(
        self, outbox: Outbox, renderer: Renderer, policy: Callable[[], Policy], channels: Mapping[str, Channel]
    ) -> None:
        self._outbox = outbox
        self._renderer = renderer
        self._policy = policy
        self._channels = channels
        self._rows: dict[str, AlertRow] = {}
        self._previous: dict[str, Alert | None] = {}

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        """Render the message for these positions; people with several places get texts that name them all."""
        row = await self._row(batch.alert)
        previous = await self._before(row)
        text, title = self.words(row.alert, row.plan, previous, batch, (), again=again)
        several = {position for position in positions if position in batch.places} if batch.places else set()
        texts = None
        if several:
            texts = [
                self.words(row.alert, row.plan, previous, batch, batch.places[position], again=again)[0]
                if position in several
                else text
                for position in positions
            ]
        return Message(
            batch.alert, batch.notice, row.alert.status, row.alert.level, batch.lane, batch.language, title, text,
            batch.deadline, texts, again,
        )  # fmt: skip

    def words(
        self, alert: Alert, plan: Plan, previous: Alert | None, batch: Batch, places: Sequence[str], *, again: bool
    ) -> tuple[str, str]:
        """Return (text, title) for recipients of a batch at `places` (codes; empty: the batch's township)."""
        rendered = self.rendered(alert, plan, previous, batch, places, again=again)
        return rendered.text, rendered.title

    def rendered(
        self, alert: Alert, plan: Plan, previous: Alert | None, batch: Batch, places: Sequence[str], *, again: bool
    ) -> Rendered:
        """Render for recipients of a batch at `places`; see `words`."""
        leaving = batch.notice is Notice.PARTIAL_ALL_CLEAR
        targets = plan.leaving if leaving else plan.targets
        named = tuple(places) or places_of(targets, batch.township)
        townships = {target.township for target in targets}
        channel = self._channels.get(batch.channel)
        limit = ONE_SEGMENT if batch.channel.startswith(SIGNED) else channel.text_limit if channel else 1000
        return self._renderer.text(
            alert,
            notice=batch.notice,
            channel=batch.channel,
            group=batch.group,
            language=batch.language,
            places=named,
            others=max(0, len(townships - {place[:9] for place in named})),
            limit=limit,
            signed=batch.channel.startswith(SIGNED),
            again=again,
            previous=previous,
            remaining=tuple(dict.fromkeys(t.township for t in plan.targets))[:3] if leaving else (),
            confirm=batch.group is Group.OFFICIALS
            and channel is not None
            and channel.takes_replies
            and self._policy().needs_confirmation(alert),
        )

    async def repeatable(self, batch: Batch) -> bool:
        """Whether doubtful recipients are sent once more: red and evacuation only (rule 2)."""
        alert = (await self._row(batch.alert)).alert
        return repeats(alert.document, alert.level)

    async def _row(self, alert: str) -> AlertRow:
        row = self._rows.get(alert)
        if row is None:
            row = await self._outbox.alert(alert)
            if row is None:
                raise LookupError(f"no alert {alert}")
            if len(self._rows) >= KEEP:
                self._rows.clear()
                self._previous.clear()
            self._rows[alert] = row
        return row

    async def _before(self, row: AlertRow) -> Alert | None:
        """The version this one updates, ends or corrects."""
        alert = row.alert
        if alert.id not in self._previous:
            found: list[AlertRow] = []
            for reference in alert.references:
                found += await self._outbox.find(reference.sender, reference.identifier)
            last = max(found, key=lambda one: one.accepted_at, default=None)
            self._previous[alert.id] = last.alert if last else None
        return self._previous[alert.id]


def places_of(targets: Sequence[Target], township: str) -> tuple[str, ...]:
    """Codes a township's own recipients are named: none where it is uncertain (D26), its villages where narrowed."""
    own = [target for target in targets if target.township == township]
    if not own or not all(target.certain for target in own):
        return ()
    villages = tuple(village for target in own for village in target.villages)
    return villages if 0 < len(villages) <= 3 else (township,)
