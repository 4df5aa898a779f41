"""From a frozen batch to what its recipients are told: alert, places and policy into one `Message`.

Called by `sender` and `hub` after the claim. Alerts are read from the store once per process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from gateway import log, metrics
from gateway.channel import Channel
from gateway.model import Alert, Batch, Group, Message, Notice, Plan, Target
from gateway.policy import Policy
from gateway.ports import AlertRow, Outbox
from gateway.render import Rendered, Renderer
from gateway.sender import repeats
from gateway.telling import Voices, voices

KEEP = 256
SIGNED = "sms"  # channels of this family carry the registered signature
ONE_SEGMENT = 70  # UTF-16 units; what may not be cut takes further segments
TWO_SEGMENTS = 134  # for the few to whom several infos speak

_log = log.get("compose")


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
        self._unsigned: dict[tuple[str, str], None] = {}  # alerts and roads of which it was said

    async def message(self, batch: Batch, positions: Sequence[int], *, again: bool) -> Message:
        """Render the message for these positions: one text, or one each where their places or villages hear others."""
        row = await self._row(batch)
        previous = await self._before(row)
        homes = self._homes(row, batch)
        first = homes[positions[0]] if homes else ""
        text, title = self.words(row.alert, row.plan, previous, batch, (), home=first, again=again)
        texts = None
        if homes or (batch.places and not batch.places.keys().isdisjoint(positions)):
            wanted = [(batch.places.get(one, ()), homes[one] if homes else "") for one in positions]
            said = {
                (places, home): self.words(row.alert, row.plan, previous, batch, places, home=home, again=again)[0]
                for places, home in dict.fromkeys(wanted)
            }
            texts = [said[one] for one in wanted]
        approval = row.alert.approval or (previous.approval if previous else "")
        return Message(
            batch.alert, batch.notice, row.alert.status, row.alert.level, batch.lane, batch.language, title, text,
            batch.deadline, texts, again, approval, batch.township, row.plan.supersedes, batch.every_s,
            document=row.alert.document, hazard=row.alert.event_code, accounts=self._accounts(row.alert, batch.channel),
        )  # fmt: skip

    def _accounts(self, alert: Alert, road: str) -> Sequence[tuple[str, str]]:
        """Return the accounts of a road that know the issuer's signature; say loudly at which carrier it is unknown."""
        policy = self._policy()
        issuer = policy.issuer(alert.sender)
        if issuer is None or not any(road in roads for roads in policy.pools.values()):
            return ()
        lint, channel = policy.tables.lint, self._channels.get(road)
        lacks = lint.unregistered(issuer.id, road, channel.carriers if channel else ())
        if lacks and (alert.id, road) not in self._unsigned:
            self._unsigned[alert.id, road] = None
            while len(self._unsigned) > KEEP:
                del self._unsigned[next(iter(self._unsigned))]
            _log.error("signature_unregistered", alert=alert.id, unit=issuer.id, channel=road, carriers=lacks)
            metrics.alarms.labels("signature_unregistered").inc()
        return lint.accounts(issuer.id, road)

    def _homes(self, row: AlertRow, batch: Batch) -> Sequence[str]:
        """Return the village each recipient's words are chosen by, where infos share the township; else nothing."""
        if batch.group is Group.AREA:
            return ()  # one request has one text
        sharing = sum(any(target.township == batch.township for target in part) for part in row.plan.parts)
        return [village or batch.township for village in batch.village_of()] if sharing > 1 else ()

    def words(
        self,
        alert: Alert,
        plan: Plan,
        previous: Alert | None,
        batch: Batch,
        places: Sequence[str],
        *,
        home: str = "",
        again: bool,
    ) -> tuple[str, str]:
        """Return (text, title) for recipients of a batch at `places` (codes of those who have several).

        `home`: the one place whose words they hear; empty: the batch's township.
        """
        rendered = self.rendered(alert, plan, previous, batch, places, home=home, again=again)
        return rendered.text, rendered.title

    def rendered(
        self,
        alert: Alert,
        plan: Plan,
        previous: Alert | None,
        batch: Batch,
        places: Sequence[str],
        *,
        home: str = "",
        again: bool,
    ) -> Rendered:
        """Render for recipients of a batch at `places`; see `words`."""
        leaving = batch.notice is Notice.PARTIAL_ALL_CLEAR
        targets: Sequence[Target] = plan.leaving if leaving else plan.targets
        told: Voices = ()
        if plan.parts and not leaving:
            language = self._renderer.language(batch.channel, batch.language)
            told = voices(alert, plan.parts, language, places or (home or batch.township,))
            if len(told) == 1:
                targets = spoken_of(plan.parts[told[0][0]], targets, batch.township)
        named = tuple(places) or places_of(targets, batch.township)
        townships = {target.township for target in targets}
        channel = self._channels.get(batch.channel)
        limit = channel.text_limit if channel else 1000
        if batch.channel.startswith(SIGNED):
            limit = ONE_SEGMENT if len(told) < 2 else TWO_SEGMENTS
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
            told=told,
        )

    async def repeatable(self, batch: Batch) -> bool:
        """Whether doubtful recipients are sent once more: red and evacuation only (rule 2)."""
        alert = (await self._row(batch)).alert
        return repeats(alert.document, alert.level)

    async def _row(self, batch: Batch) -> AlertRow:
        """Return the batch's alert; one whose plan has grown since (countersigned, numbered) is read again."""
        alert = batch.alert
        row = self._rows.get(alert)
        if row is None or batch.step > len(row.plan.steps):
            row = await self._outbox.alert(alert)
            if row is None:
                raise LookupError(f"no alert {alert}")
            self.know([row])
        return row

    def know(self, rows: Iterable[AlertRow]) -> None:
        """Take alerts as they have just been read."""
        for row in rows:
            if len(self._rows) >= KEEP:
                self._rows.clear()
                self._previous.clear()
            self._rows[row.alert.id] = row

    async def _before(self, row: AlertRow) -> Alert | None:
        """The version this one updates, ends or corrects."""
        alert = row.alert
        if alert.id not in self._previous:
            found: list[AlertRow] = []
            for reference in alert.references:
                found += await self._outbox.find(reference.sender, reference.identifier)
            found = [one for one in found if one.alert.status is alert.status]  # a drill and the real thing never meet
            last = max(found, key=lambda one: one.accepted_at, default=None)
            self._previous[alert.id] = last.alert if last else None
        return self._previous[alert.id]


def spoken_of(part: Sequence[Target], targets: Sequence[Target], township: str) -> Sequence[Target]:
    """Return the targets an info speaks of: what it says holds for no others, however many are warned with them."""
    meant = {target.township for target in targets}
    own = [target for target in part if target.township in meant]
    return own if any(target.township == township for target in own) else targets


def places_of(targets: Sequence[Target], township: str) -> tuple[str, ...]:
    """Codes a township's own recipients are named: none where it is uncertain (D26), its villages where narrowed."""
    own = [target for target in targets if target.township == township]
    if not own or not all(target.certain for target in own):
        return ()
    villages = tuple(village for target in own for village in target.villages)
    return villages if 0 < len(villages) <= 3 else (township,)
