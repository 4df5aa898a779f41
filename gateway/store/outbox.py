"""Alerts, plans, batches, claims and stops.

The store is the only arbiter among broker redelivery, double publish, sweeper and direct pick-up: no
slice is sent without a claim, and a claim is one transaction. No claim means never started. A claim
whose lease lapsed means "submitted or not?": the next claimant is told which are doubtful. A stop locks the
alert's row against running claims, so every claim is either before it (and its recipients get the
correction) or fails.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from types import MappingProxyType

from gateway.database import Database
from gateway.model import Alert, Batch, Claim, Decision, Lane, Record
from gateway.ports import Accepted, AlertRow, Clock, Draft, Outage, Ready, StepWork
from gateway.standing import LIVE, WAITING
from gateway.store import acceptance, audit
from gateway.store.around import SUCCESSORS, Around, alert_rows, around
from gateway.store.change import note
from gateway.store.claim import Wanted, claim_all, defer
from gateway.store.codec import LANE_RANK, LANES
from gateway.store.desired import hush_confirmed
from gateway.store.meeting import RealWarningError
from gateway.store.outage import give_up, note_outage, note_sessions, outages
from gateway.store.rows import add_batches, stop_alert
from gateway.transaction import Row, Tx, micros, moment

HELD = "held"
URGENT = LANE_RANK[Lane.URGENT]  # as text in a statement, so that the index of this lane alone is found
DUE = (
    "FROM batch b JOIN outbox o ON o.batch = b.id WHERE b.unfinished > 0"
    " AND b.channel IN :*channels AND b.not_before <= :now AND b.published_at <= :published AND NOT EXISTS"
    " (SELECT 1 FROM claim c WHERE c.batch = b.id AND c.done = 0 AND c.lease_until > :now)"
)
# Hops from one alert to the next in the index `batch_line`, whose order it asks for: a hundred thousand may wait there.
_FIRST = f"SELECT b.alert FROM batch b WHERE b.unfinished > 0 AND b.lane = {URGENT}"
_HOP = "ORDER BY b.alert, b.not_before LIMIT 1"
URGENT_ALERTS = f"""
WITH RECURSIVE waiting (alert) AS (
  SELECT ({_FIRST} {_HOP})
  UNION ALL
  SELECT ({_FIRST} AND b.alert > waiting.alert {_HOP}) FROM waiting WHERE waiting.alert IS NOT NULL)
SELECT alert FROM waiting WHERE alert IS NOT NULL"""
ACCEPT_PATIENCE_S = 2.0  # accepting answers 503 rather than wait longer for a database that is away


def _sequences(tx: Tx, alert: str, steps: Collection[int], lock: str = "") -> dict[int, int]:
    sql = f"SELECT number, sequence FROM step WHERE alert = :alert AND number IN :*steps ORDER BY number{lock}"
    return dict(tx.all(sql, alert=alert, steps=steps))


class SqlOutbox:
    """The `Outbox` facet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # --- alerts and plans -------------------------------------------------------------------------

    async def accept(self, draft: Draft) -> Accepted:
        """Store alert, plan, records, stops and first batches in one transaction; only then may the caller say 202."""
        try:
            return await self._database.share(acceptance.accept, draft, ACCEPT_PATIENCE_S, decides=True)
        except acceptance.OvertakenError:
            return Accepted("overtaken", draft.alert.id)
        except RealWarningError:
            return Accepted("real_warning", draft.alert.id)
        except acceptance.SealError:
            return Accepted("sealed", draft.alert.id)

    async def move(self, was: AlertRow, draft: Draft) -> Accepted:
        """Move a stored alert on, as `accept` stores a new one; an active one gets its plan's further steps."""
        try:
            return await self._database.write(
                lambda tx: acceptance.move(tx, was, draft), ACCEPT_PATIENCE_S, decides=True
            )
        except acceptance.OvertakenError:
            return Accepted("overtaken", draft.alert.id)
        except RealWarningError:
            return Accepted("real_warning", draft.alert.id)

    async def decisions(self, alert: str) -> list[Decision]:
        """What happened to an alert so far, oldest first."""
        rows = await self._database.look(
            lambda tx: tx.all(
                "SELECT standing, event, actor, at, reason FROM decision WHERE alert = :alert ORDER BY number",
                alert=alert,
            )
        )
        return [Decision(standing, event, actor, moment(at), reason) for standing, event, actor, at, reason in rows]

    async def alert(self, alert: str) -> AlertRow | None:
        """One alert."""
        rows = await self._database.look(lambda tx: alert_rows(tx, "WHERE id = :alert", alert=alert))
        return rows[0] if rows else None

    async def alerts(self, after: str = "", limit: int = 50, standing: str = "") -> list[AlertRow]:
        """Alerts, newest first; `after` is the last one's id of the page before. "held" asks for all that wait."""
        standings = sorted(WAITING) if standing == HELD else [standing]
        where = ["1 = 1"]
        if after:
            where.append("(accepted_at, id) < (SELECT accepted_at, id FROM alert WHERE id = :after)")
        if standing:
            where.append("standing IN :*standings")
        tail = f"WHERE {' AND '.join(where)} ORDER BY accepted_at DESC, id DESC LIMIT :limit"
        return await self._rows(tail, after=after, limit=limit, standings=standings)

    async def in_force(self, now: datetime, limit: int) -> list[AlertRow]:
        """Alerts that are active or wait for a person and have not expired, newest first."""
        where = "WHERE standing IN :*live AND expires > :now ORDER BY accepted_at DESC, id DESC LIMIT :limit"
        return await self._rows(where, live=sorted(LIVE), now=micros(now), limit=limit)

    async def find(self, sender: str, identifier: str) -> list[AlertRow]:
        """Versions with this sender and identifier, oldest first."""
        return await self._rows(
            "WHERE sender = :sender AND identifier = :identifier ORDER BY sent", sender=sender, identifier=identifier
        )

    async def known(self, sender: str, identifier: str, digest: str) -> str:
        """Id of the alert that stands under this sender and identifier with this very content, or ""."""
        row = await self._database.read(
            lambda tx: tx.one(
                "SELECT id FROM alert WHERE sender = :sender AND identifier = :identifier AND content_digest = :digest",
                sender=sender,
                identifier=identifier,
                digest=digest,
            )
        )
        return str(row[0]) if row else ""

    async def successors(self, sender: str, identifier: str) -> list[AlertRow]:
        """Alerts that refer to this one, whatever became of them, newest first."""
        return await self._rows(SUCCESSORS, sender=sender, identifier=identifier)

    async def around(self, alert: Alert, likeness: str, now: datetime, alike_within: timedelta) -> Around:
        """What bears on a message that has just come in."""
        since, hour_ago = now - alike_within, now - timedelta(hours=1)
        return await self._database.look(
            lambda tx: around(tx, alert, likeness, now, since, hour_ago), ACCEPT_PATIENCE_S
        )

    async def _rows(self, tail: str, **values: object) -> list[AlertRow]:
        return await self._database.read(lambda tx: alert_rows(tx, tail, **values))

    async def work(self, limit: int, skip: int = 0, lanes: Collection[Lane] = LANES) -> list[StepWork]:
        """Steps of active plans that are due and not exhausted, most urgent lane first."""
        now = micros(self._clock.now())
        rows = await self._database.look(
            lambda tx: tx.all(
                "SELECT s.alert, s.number, s.township, s.village, s.person, s.sequence, s.lane FROM step s"
                " JOIN alert a ON a.id = s.alert WHERE s.finished = 0 AND s.start <= :now AND a.standing = 'active'"
                " AND s.lane IN :*lanes ORDER BY s.lane, s.start, s.sequence, s.number LIMIT :limit OFFSET :skip",
                now=now,
                lanes=[LANE_RANK[lane] for lane in lanes],
                limit=limit,
                skip=skip,
            )
        )
        return [StepWork(r[0], r[1], (r[2], r[3], r[4]) if r[2] else None, r[5], LANES[r[6]]) for r in rows]

    async def sequences(self, alert: str, steps: Collection[int]) -> dict[int, int]:
        """Batches that stand in each of some steps."""
        return await self._database.look(lambda tx: _sequences(tx, alert, steps))

    async def add_page(
        self,
        work: StepWork,
        batches: Sequence[Batch],
        after: tuple[str, str, int] | None,
        beside: Mapping[int, int] = MappingProxyType({}),
    ) -> bool:
        """Write a page's batches and the cursor in one transaction; `after` None: the step is exhausted.

        `beside`: other steps whose batches decided whom the page serves, as `sequences` told before they were looked
        at. False if another planner wrote this page, or more stands beside it by now.
        """
        now = self._clock.now()
        repeats = any(batch.every_s for batch in batches)  # they are held against confirmations

        def operation(tx: Tx) -> bool:
            if beside:  # both steps are locked, so that of two that look at each other's batches one sees the other's
                lock = " FOR UPDATE" if tx.postgresql else ""
                standing = _sequences(tx, work.alert, [*beside, work.step], lock)
                if any(standing.get(step) != sequence for step, sequence in beside.items()):
                    return False
            township, village, person = after or ("", "", 0)
            moved = tx.run(
                "UPDATE step SET finished = :finished, sequence = sequence + :added,"
                " township = :township, village = :village, person = :person"
                " WHERE alert = :alert AND number = :number AND sequence = :sequence AND finished = 0"
                " AND township = :old_township AND village = :old_village AND person = :old_person",
                finished=int(after is None),
                added=len(batches),
                township=township,
                village=village,
                person=person,
                alert=work.alert,
                number=work.step,
                sequence=work.sequence,
                **dict(zip(("old_township", "old_village", "old_person"), work.after or ("", "", 0), strict=True)),
            )
            if moved:
                add_batches(tx, batches, now)
                if repeats:
                    hush_confirmed(tx, work.alert)
                if after is None:
                    note(tx, "planned", work.alert, str(work.step))
            return bool(moved)

        return await self._database.write(operation, decides=repeats)

    # --- batches ----------------------------------------------------------------------------------

    async def ready(
        self, lanes: Collection[Lane], channels: Collection[str], unpublished_for_s: float, limit: int
    ) -> list[Ready]:
        """Unfinished batches that are due, not under a live lease, and not published for that long."""
        return await self._ready(lanes, channels, DUE, unpublished_for_s, limit)

    async def unconfirmed(
        self, lanes: Collection[Lane], channels: Collection[str], for_s: float, limit: int
    ) -> list[Ready]:
        """Those that have been due for that long, and the broker has not confirmed them: it is down or cut off."""
        unconfirmed = f"{DUE} AND b.not_before <= :published AND b.published_at IN (0, b.created_at)"
        return await self._ready(lanes, channels, unconfirmed, for_s, limit)

    async def _ready(
        self, lanes: Collection[Lane], channels: Collection[str], due: str, unpublished_for_s: float, limit: int
    ) -> list[Ready]:
        sql = (
            f"SELECT o.body, b.id, b.channel, b.lane {due} AND b.lane IN :*lanes"
            " ORDER BY b.lane, b.not_before, b.id LIMIT :limit"
        )
        ranks, values = [LANE_RANK[lane] for lane in lanes], self._due(channels, unpublished_for_s)
        found = await self._database.read(lambda tx: tx.all(sql, lanes=ranks, limit=limit, **values))
        return [Ready(bytes(body), batch, channel, LANES[lane]) for body, batch, channel, lane in found]

    async def in_line(self, channels: Collection[str], unpublished_for_s: float, each: int) -> list[Ready]:
        """Of what is `ready` and urgent the first `each` of every alert, one of each in turn; none of one alone."""
        sql = (
            f"SELECT o.body, b.id, b.channel {DUE} AND b.lane = {URGENT} AND b.alert = :alert"
            " ORDER BY b.not_before, b.id LIMIT :each"
        )
        values = self._due(channels, unpublished_for_s)

        def operation(tx: Tx) -> list[list[Row]]:
            alerts = tx.all(URGENT_ALERTS)
            return [tx.all(sql, alert=alert, each=each, **values) for (alert,) in alerts] if len(alerts) > 1 else []

        lines = [line for line in await self._database.read(operation) if line]
        turns = [row for turn in zip_longest(*lines) for row in turn if row is not None] if len(lines) > 1 else []
        return [Ready(bytes(body), batch, channel, Lane.URGENT) for body, batch, channel in turns]

    def _due(self, channels: Collection[str], unpublished_for_s: float) -> dict[str, object]:
        """Return the values of `DUE`."""
        now = self._clock.now()
        return {
            "channels": sorted(channels),
            "now": micros(now),
            "published": micros(now - timedelta(seconds=unpublished_for_s)),
        }

    async def unfinished(self, batches: Sequence[str]) -> frozenset[str]:
        """Return those of these batches that are not settled."""
        rows = await self._database.read(
            lambda tx: tx.all("SELECT id FROM batch WHERE id IN :*batches AND unfinished > 0", batches=batches)
        )
        return frozenset(batch for (batch,) in rows)

    async def published(self, batches: Sequence[str]) -> None:
        """Note the publish confirm, but not where a claim has meanwhile put the batch off: that is offered anew."""
        now = micros(self._clock.now())
        await self._database.write(
            lambda tx: tx.run(
                # What is settled already needs no note, and each note writes a row of all its states anew.
                "UPDATE batch SET published_at = :now WHERE id IN :*batches AND not_before <= :now AND unfinished > 0",
                now=now,
                batches=batches,
            )
        )

    async def forget_published(self) -> None:
        """After a start with an empty in-process broker: everything unfinished counts as not published."""
        await self._database.write(lambda tx: tx.run("UPDATE batch SET published_at = 0 WHERE unfinished > 0"))

    async def forget_unconfirmed(self) -> None:
        """After a start beside a broker of its own: what the one before wrote but never saw confirmed is due now."""
        await self._database.write(
            lambda tx: tx.run("UPDATE batch SET published_at = 0 WHERE unfinished > 0 AND published_at = created_at")
        )

    async def claim(self, batch: str, slice_: int, owner: str, lease_s: float) -> Claim:
        """Claim one slice before its first byte. The store is the only arbiter. `owner` is new for every call.

        Waits for ever for a database that is away, and is then judged by the time it is by then.
        """
        # Nobody sends for a cancelled caller: the slice must not be locked for it.
        wanted = Wanted(batch, slice_, owner, lease_s)
        return await self._database.share(self._claim, wanted, float("inf"), order=batch)

    def _claim(self, tx: Tx, wanted: Sequence[Wanted]) -> list[Claim]:
        return claim_all(tx, wanted, self._clock.now())

    async def defer(self, batch: str, until: datetime) -> bool:
        """Put a batch off unclaimed until `until`. False where its alert or its time has ended: a claim settles it."""
        now = self._clock.now()
        return await self._database.write(lambda tx: defer(tx, batch, now, until))

    async def ages(self) -> dict[int, tuple[int, datetime | None]]:
        """Per lane rank: unfinished batches, and since when the oldest has been due."""
        rows = await self._database.read(
            lambda tx: tx.all("SELECT lane, COUNT(*), MIN(not_before) FROM batch WHERE unfinished > 0 GROUP BY lane")
        )
        return {lane: (int(number), moment(oldest) if oldest else None) for lane, number, oldest in rows}

    async def note_outage(self, channel: str, outage: Outage | None) -> None:
        """Let every process know that a channel's carrier is down, or that it is up again."""
        await self._database.write(lambda tx: note_outage(tx, channel, outage))

    async def note_sessions(self, up: Collection[str], down: Mapping[str, datetime]) -> None:
        """Let every process know which channels have a session here; what has none anywhere is an outage."""
        now = self._clock.now()
        await self._database.write(lambda tx: note_sessions(tx, up, down, now), 5.0)

    async def outages(self) -> list[Outage]:
        """Carriers that are down now."""
        return await self._database.look(lambda tx: outages(tx, self._clock.now()))

    async def planned(self, alert: str, step: int) -> bool:
        """Whether a step's audience is frozen to its end."""
        sql = "SELECT 1 FROM step WHERE alert = :alert AND number = :step AND finished = 0"
        return not await self._database.look(lambda tx: tx.one(sql, alert=alert, step=step))

    async def give_up(self, alert: str, step: int) -> int:
        """End some of what a step has left for a carrier that is down, so that its fallback serves it; 0: nothing."""
        return await self._database.write(lambda tx: give_up(tx, alert, step, self._clock.now()))

    # --- stops ------------------------------------------------------------------------------------

    async def stop(self, alert: str, reason: str, record: Record, why: str = "") -> bool:
        """Make every later claim of the alert fail, stop its plan and its commands; `why` stands in its life."""

        def operation(tx: Tx) -> bool:
            stopped = stop_alert(tx, alert, reason, record.at, record.action, record.actor, why)
            if stopped:
                audit.append(tx, [record])
            return stopped

        return await self._database.write(operation, decides=True)

    async def halt(self, scope: str, on: bool, record: Record) -> None:
        """Stop or release all claims of a county code, a channel, or everything ("*")."""

        def operation(tx: Tx) -> None:
            tx.run("DELETE FROM halt WHERE scope = :scope", scope=scope)
            if on:
                tx.run(
                    "INSERT INTO halt (scope, at, actor) VALUES (:scope, :at, :actor)",
                    scope=scope,
                    at=micros(record.at),
                    actor=record.actor,
                )
            audit.append(tx, [record])
            note(tx, "halt", "", scope)

        await self._database.write(operation, decides=True)

    async def halts(self) -> list[str]:
        """Scopes halted now."""
        rows = await self._database.look(lambda tx: tx.all("SELECT scope FROM halt ORDER BY scope"))
        return [row[0] for row in rows]
