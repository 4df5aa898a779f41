"""One warning's way through a whole embedded gateway in this process: only the carrier and the devices are simulated.

Where nothing outside looks at a clock, time is moved by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from manual_clock import ManualClock
from town import FLOWER, FLOWER_1, FLOWER_2, OLD, OLD_1, WATER, WATER_1, Cells, phone, table

from gateway import cap, metrics
from gateway.app import App
from gateway.device_key import DeviceKeys
from gateway.directory.importer import Importer
from gateway.directory.table import Roster
from gateway.errors import BrokerDown
from gateway.intake import Outcome
from gateway.model import Alert, Area, Code, Document, Info, Kind, Lane, Level, Record, Reference, Reply, Status
from gateway.policy import Principal
from gateway.ports import Broker, Clock, Message
from gateway.settings import Settings
from gateway.simulate.log import Log, read
from gateway.simulate.sms import SmsFaults, SmsSimulator
from gateway.simulate.speaker import Fleet, Options

PATIENCE_S = 20.0
OFFICIALS: tuple[Cells, ...] = (
    ("甲", phone(1), FLOWER_1, "village_head", "1"),
    ("乙", phone(2), WATER_1, "village_head", "1"),
    ("丙", phone(3), OLD_1, "village_head", "1"),
)
RESIDENTS: tuple[Cells, ...] = (
    ("子", phone(11), FLOWER_1, "opted_in"),
    ("丑", phone(12), FLOWER_2, "opted_in"),
    ("寅", phone(13), WATER_1, "opted_in"),
    ("卯", phone(14), OLD_1, "opted_in"),
)
DEVICES: tuple[Cells, ...] = (("lb-1", FLOWER_1, "1" * 32), ("lb-2", FLOWER_2, "2" * 32))
MANY: tuple[Cells, ...] = tuple((f"住户{n}", phone(1000 + n), FLOWER_1, "opted_in") for n in range(3000))


class Deaf:
    """A broker that takes nothing: every publish goes unconfirmed."""

    async def open(self, queues: Collection[str]) -> None:
        """Nothing is declared."""

    async def publish(self, queue: str, body: bytes, timeout_s: float = 5.0, *, patient: bool = True) -> None:
        """Never confirm."""
        raise BrokerDown("no confirm")

    async def consume(self, queue: str, prefetch: int, take: Callable[[Message], None]) -> None:
        """Deliver nothing."""

    def pause(self, queue: str) -> None:
        """Nothing is consumed."""

    def resume(self, queue: str) -> None:
        """Nothing is consumed."""

    async def depths(self) -> dict[str, int]:
        """Know nothing."""
        return {}

    async def close(self) -> None:
        """Nothing to end."""


class DeafApp(App):
    """A gateway whose broker is gone."""

    async def _broker(self) -> Broker:
        return Deaf()


class Desk:
    """A running gateway and those who issue through it."""

    def __init__(self, app: App, log: Path) -> None:
        self.app = app
        self.core = app.core
        self.clock = app.clock
        self.log = log
        self._number = 0

    def who(self, role: str, body: str = "411726-qxj") -> Principal:
        """A person of an issuing body."""
        found = self.core.policy.principal(f"demo-{body}-{role}", simulation=True)
        assert found is not None
        return found

    def alert(self, towns: Sequence[str], kind: Kind = Kind.ALERT, *after: Alert) -> Alert:
        """A rainstorm warning for these townships that follows others."""
        self._number += 1
        now = self.clock.now()
        area = Area("部分乡镇", geocodes=tuple(Code("township", town) for town in towns))
        info = Info(
            "暴雨", language="zh-CN", urgency="Immediate", severity="Extreme", certainty="Observed",
            event_codes=(Code("GB/T 35561", "11B03"),), areas=(area,), expires=now + timedelta(hours=3),
            description=f"第{chr(96 + self._number)}号",  # words of its own, so that none is a repetition
        )  # fmt: skip
        references = tuple(Reference(one.sender, one.identifier, one.sent) for one in after)
        return Alert(
            "411726-qxj@mingluo.example", f"test-{self._number}", now.replace(microsecond=0), Status.ACTUAL, kind,
            Document.WARNING, "11B03", "暴雨", Level.RED, infos=(info,), references=references,
        )  # fmt: skip

    async def issue(self, alert: Alert) -> Outcome:
        """Submit it as the bureau's forecaster."""
        return await self.core.intake.submit(cap.write(alert), self.who("issuer"))

    async def settled(self, alert: str, recipients: int) -> dict[tuple[str, str], int]:
        """Wait until as many recipients have an outcome; return them by (group, state)."""
        found: dict[tuple[str, str], int] = {}

        async def done() -> bool:
            counts = await self.core.store.ledger.counts(alert)
            found.clear()
            for (_, group, state), number in counts.items():
                found[group, state] = found.get((group, state), 0) + number
            waiting = sum(number for (_, state), number in found.items() if state in ("queued", "submitted"))
            return not waiting and sum(found.values()) == recipients

        await until(done)
        return found

    def told(self, alert: str) -> list[int]:
        """Persons noop was given for an alert, in order."""
        lines = self.log.read_bytes().splitlines() if self.log.exists() else []
        entries = [orjson.loads(line) for line in lines]
        return [person for entry in entries if entry["alert"] == alert for person in entry["persons"]]

    def people(self, *rows: Cells) -> set[int]:
        """Ids of persons of the roster."""
        return {self.core.vault.person_id(row[1], row[0]) for row in rows}

    async def notices(self, alert: str) -> set[tuple[str, str, str]]:
        """(township, group, notice) of an alert's batches."""
        batches = await self.core.store.ledger.batches(alert)
        return {(batch.township, batch.group.value, batch.notice.value) for batch, _ in batches}

    async def standing(self, alert: str) -> tuple[str, str]:
        """An alert's standing and why."""
        row = await self.core.store.outbox.alert(alert)
        assert row is not None
        return row.standing, row.reason

    async def reply(self, number: str, text: str, reference: str) -> str:
        """Let a text come in; return what became of it."""
        reply = Reply("sms_twilio", "sms_twilio", reference, number, text, self.clock.now())
        await self.core.receipts.commit("sms_twilio", [reply])
        row = await self.core.store.database.read(
            lambda tx: tx.one("SELECT outcome FROM reply WHERE reference = :reference", reference=reference)
        )
        assert row is not None
        return str(row[0])


async def until(ready: Callable[[], Any]) -> None:
    """Let the gateway work until `ready` (plain or asynchronous) says so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = ready()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)


async def ticking(clock: ManualClock, ready: Callable[[], Any], step_s: float = 0.25) -> float:
    """Move time on, step by step, until `ready`; return the seconds by the clock."""
    started = clock.now()

    async def once() -> bool:
        found = ready()
        if await found if asyncio.iscoroutine(found) else found:
            return True
        clock.advance(step_s)
        await asyncio.sleep(0.05)  # the database's threads have no other clock than the wall's
        return False

    await until(once)
    return (clock.now() - started).total_seconds()


def alarms(kind: str) -> float:
    """Alarms raised so far."""
    return metrics.REGISTRY.get_sample_value("mingluo_alarms_total", {"kind": kind}) or 0.0


@asynccontextmanager
async def desk(
    folder: Path,
    clock: Clock | None = None,
    *,
    channels: str = "",
    officials: Sequence[Cells] = OFFICIALS,
    residents: Sequence[Cells] = RESIDENTS,
    build: type[App] = App,
) -> AsyncIterator[Desk]:
    """Run an embedded gateway with a small roster; `channels` is added to a `channels.toml` with noop."""
    log = folder / "noop.log"
    config = folder / "channels.toml"
    config.write_text(channels or f'[noop]\nlog = "{log}"\n', encoding="utf8")
    async with build(Settings(data=folder, channels=config, port=0), clock=clock) as app:
        importer = Importer(app.core.store.database, app.core.vault, app.core.regions, app.clock)
        rosters = ((Roster.OFFICIALS, officials), (Roster.RESIDENTS, residents), (Roster.DEVICES, DEVICES))
        for roster, rows in rosters:
            assert (await importer.read(table(roster, *rows), roster)).failed == 0
        yield Desk(app, log)


# --- the way out --------------------------------------------------------------------------------------------------


async def test_a_red_warning_goes_green_and_reaches_everyone_once(tmp_path: Path) -> None:
    """Nobody has to be asked, and every official, resident and loudspeaker of the area hears of it, nobody else."""
    noop = f'[noop]\nlog = "{tmp_path / "noop.log"}"\n[loudspeaker_ws]\nrepeat = 1\n'
    async with desk(tmp_path, channels=noop) as one:
        fleet = Fleet(
            f"http://127.0.0.1:{one.app.port}", [(row[0], row[2]) for row in DEVICES],
            Log(tmp_path / "speakers.log"), Options(play_s=0.1, backoff_max_s=1),
            DeviceKeys.load(one.app.settings.device_keys).pins,
        )  # fmt: skip
        async with fleet:
            outcome = await one.issue(one.alert([FLOWER, WATER]))
            assert (outcome.result, outcome.route) == ("accepted", "green")
            await until(lambda: len(read(tmp_path / "speakers.log", "end")) == 2)
            await one.settled(outcome.alert, 7)
            await until(lambda: _is(one, outcome.alert, ("loudspeakers", "played"), 2))
        found = await one.settled(outcome.alert, 7)
        assert found == {("officials", "delivered"): 2, ("residents", "delivered"): 3, ("loudspeakers", "played"): 2}
        assert sorted(one.told(outcome.alert)) == sorted(one.people(*OFFICIALS[:2], *RESIDENTS[:3]))
        assert sorted(entry["device"] for entry in read(tmp_path / "speakers.log", "sound")) == ["lb-1", "lb-2"]


async def test_an_exercise_waits_for_a_second_person_and_begins_with_the_drill_mark(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A drill taken for a warning empties a village for nothing: agreed on by two, marked first, never to residents."""
    async with desk(tmp_path, clock) as one:
        outcome = await one.issue(replace(one.alert([FLOWER]), status=Status.EXERCISE))
        assert outcome.result == "held"
        assert await one.core.store.ledger.batches(outcome.alert) == []
        await one.core.decisions.approve(outcome.alert, one.who("signer"))
        assert await one.settled(outcome.alert, 1) == {("officials", "delivered"): 1}
        assert set(one.told(outcome.alert)) == one.people(OFFICIALS[0])
        for batch, _ in await one.core.store.ledger.batches(outcome.alert):
            message = await one.core.composer.message(batch, range(len(batch)), again=False)
            assert message.text.startswith("演练：")


async def test_a_recall_between_slices_ends_what_has_not_left(tmp_path: Path) -> None:
    """A mistaken warning is called back: whoever has not been told is not told any more, and is on record as such."""
    carrier = SmsSimulator(Log(tmp_path / "sms.log"), faults=SmsFaults(latency_s=0.1))
    base_url = await carrier.start()
    sms = (
        f'[sms_twilio]\naccount_sid = "{carrier.account.sid}"\nauth_token = "{carrier.account.token}"\n'
        f'sender = "+8610000000000"\npublic_url = "http://127.0.0.1"\nbase_url = "{base_url}"\n'
    )
    async with desk(tmp_path, channels=sms, officials=(), residents=MANY[:1000]) as one:
        outcome = await one.issue(one.alert([FLOWER]))
        await until(lambda: carrier.received > 0)
        assert await one.core.decisions.recall(outcome.alert, one.who("issuer"), "mistaken")
        then = carrier.received
        found = await _ended(one, outcome.alert, 1000)
        sent = sum(number for (_, state), number in found.items() if state != "superseded")
        assert found["residents", "superseded"] > 0
        assert sent == carrier.received <= then + 50  # the slice under way
    await carrier.stop()


async def _ended(one: Desk, alert: str, recipients: int) -> dict[tuple[str, str], int]:
    """Wait until nothing of an alert is queued; return its recipients by (group, state)."""
    found: dict[tuple[str, str], int] = {}

    async def done() -> bool:
        counts = await one.core.store.ledger.counts(alert)
        found.clear()
        found.update({(group, state): number for (_, group, state), number in counts.items()})
        return not any(state == "queued" for _, state in found) and sum(found.values()) == recipients

    await until(done)
    return found


# --- what follows a warning -----------------------------------------------------------------------------------------


async def test_an_update_warns_who_enters_and_clears_who_leaves(tmp_path: Path, clock: ManualClock) -> None:
    """The rain moves on: each township is told what holds for it now, and the old version ends."""
    async with desk(tmp_path, clock) as one:
        first = one.alert([FLOWER, WATER])
        issued = await one.issue(first)
        await one.settled(issued.alert, 5)
        update = await one.issue(one.alert([WATER, OLD], Kind.UPDATE, first))
        assert update.result == "held"  # a reduction needs a second person
        assert await one.standing(issued.alert) == ("active", "")
        await one.core.decisions.approve(update.alert, one.who("signer"))
        await one.settled(update.alert, 7)
        assert await one.notices(update.alert) == {
            (town, group, notice)
            for town, notice in ((FLOWER, "partial_all_clear"), (WATER, "update"), (OLD, "issue"))
            for group in ("officials", "residents")
        }
        assert await one.standing(issued.alert) == ("stopped", "superseded")


async def test_a_cancel_ends_the_warning_and_tells_everyone_who_was_warned(tmp_path: Path, clock: ManualClock) -> None:
    """Whoever left home because of us hears from us that it is over."""
    async with desk(tmp_path, clock) as one:
        issued = await one.issue(one.alert([FLOWER, WATER]))
        await one.settled(issued.alert, 5)
        cancel = await one.core.decisions.cancel(issued.alert, one.who("issuer"), "")
        await one.core.decisions.approve(cancel.alert, one.who("signer"))
        await one.settled(cancel.alert, 5)
        assert sorted(one.told(cancel.alert)) == sorted(one.told(issued.alert))
        assert {notice for _, _, notice in await one.notices(cancel.alert)} == {"all_clear"}
        assert await one.standing(issued.alert) == ("stopped", "cancelled")


async def test_what_has_not_left_by_its_expiry_never_leaves(tmp_path: Path, clock: ManualClock) -> None:
    """Yesterday's flood must not empty a village this morning."""
    slow = f'[noop]\nlog = "{tmp_path / "noop.log"}"\n[rates]\nnoop = {{ per_s = 0.01, burst = 1000 }}\n'
    async with desk(tmp_path, clock, channels=slow, officials=(), residents=MANY) as one:
        issued = await one.issue(one.alert([FLOWER]))
        await until(lambda: len(one.told(issued.alert)) == 1000)

        async def frozen() -> bool:
            return sum((await one.core.store.ledger.counts(issued.alert)).values()) == len(MANY)

        await until(frozen)
        clock.advance(3 * 3600)

        async def expired() -> bool:
            return await one.standing(issued.alert) == ("stopped", "expired")

        await ticking(clock, expired)
        await ticking(clock, lambda: _none_queued(one, issued.alert), step_s=1.0)
        assert await one.settled(issued.alert, 3000) == {
            ("residents", "delivered"): 1000,
            ("residents", "expired"): 2000,
        }
        assert len(one.told(issued.alert)) == 1000


async def _is(one: Desk, alert: str, key: tuple[str, str], number: int) -> bool:
    counts = await one.core.store.ledger.counts(alert)
    return sum(found for (_, group, state), found in counts.items() if (group, state) == key) == number


async def _none_queued(one: Desk, alert: str) -> bool:
    return not any(state == "queued" for _, _, state in await one.core.store.ledger.counts(alert))


async def test_halt_keeps_everything_in_and_release_lets_it_out(tmp_path: Path, clock: ManualClock) -> None:
    """The emergency stop of a county holds back what is accepted meanwhile, and loses nothing of it."""
    async with desk(tmp_path, clock) as one:
        await one.core.store.outbox.halt("411726", True, Record(clock.now(), "test", "halt", "411726"))
        issued = await one.issue(one.alert([FLOWER]))
        clock.advance(5)
        await asyncio.sleep(0.2)  # long enough for what would go out to go out
        assert one.told(issued.alert) == []
        await one.core.store.outbox.halt("411726", False, Record(clock.now(), "test", "release", "411726"))
        # The claim that met the halt looks again after 2 s, although its publish confirm was noted after it.
        assert await ticking(clock, lambda: len(one.told(issued.alert)) == 3) <= 10
        assert await one.settled(issued.alert, 3) == {("officials", "delivered"): 1, ("residents", "delivered"): 2}


# --- what must not be silent ----------------------------------------------------------------------------------------


async def test_a_held_alert_rings_at_once_and_every_minute_until_somebody_decides(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A warning that waits in silence warns nobody: the duty room hears of it at once, its leader after 3 minutes."""
    async with desk(tmp_path, clock) as one:
        before, leader = alarms("held"), alarms("held_leader")
        unknown = one.alert([FLOWER])  # never issued here: a person must say what this one ends
        outcome = await one.issue(one.alert([FLOWER], Kind.CANCEL, unknown))
        assert outcome.result == "held"
        assert await ticking(clock, lambda: alarms("held") == before + 1) <= 1.0
        assert 58 <= await ticking(clock, lambda: alarms("held") == before + 2, step_s=1.0) <= 62
        assert 58 <= await ticking(clock, lambda: alarms("held") == before + 3, step_s=1.0) <= 62
        await ticking(clock, lambda: alarms("held_leader") == leader + 1, step_s=1.0)
        await one.core.decisions.reject(outcome.alert, one.who("signer"), "no such warning")
        clock.advance(120)
        await asyncio.sleep(0.2)
        assert alarms("held_leader") == leader + 1


async def test_without_a_broker_green_goes_out_from_the_store_within_seconds(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A dead queue must not keep the village head asleep: officials' texts are picked up straight from the store."""
    async with desk(tmp_path, clock, build=DeafApp) as one:
        issued = await one.issue(one.alert([FLOWER, WATER]))
        officials = one.people(*OFFICIALS[:2])
        assert await ticking(clock, lambda: set(one.told(issued.alert)) == officials) <= 1.5


async def test_what_a_dead_planner_never_saw_confirmed_is_due_at_its_successors_start(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Residents under a red warning do not wait half a minute because the process that told the broker died."""
    async with desk(tmp_path, clock, officials=(), build=DeafApp) as one:
        issued, outbox = await one.issue(one.alert([FLOWER])), one.core.store.outbox
        await until(lambda: one.core.store.ledger.batches(issued.alert))
        assert await outbox.ready([Lane.URGENT], ["noop"], 30.0, 10) == []
        await outbox.forget_unconfirmed()
        due = await outbox.ready([Lane.URGENT], ["noop"], 30.0, 10)
        assert [found.batch.split(".")[0] for found in due] == [issued.alert]
        clock.advance(1)
        await outbox.published([found.batch for found in due])
        await outbox.forget_unconfirmed()  # a confirmed one is the broker's business
        assert await outbox.ready([Lane.URGENT], ["noop"], 30.0, 10) == []


async def test_a_claim_answered_twice_never_makes_a_third_send(tmp_path: Path, clock: ManualClock) -> None:
    """A connection that dies as it commits has its claim run again: who may have been told twice stays out of it."""
    async with desk(tmp_path, clock, officials=(), build=DeafApp) as one:
        issued, outbox = await one.issue(one.alert([FLOWER])), one.core.store.outbox
        await until(lambda: one.core.store.ledger.batches(issued.alert))
        [(batch, _)] = await one.core.store.ledger.batches(issued.alert)
        for owner in ("first", "second"):  # both die
            await outbox.claim(batch.id, 0, owner, 20.0)
            clock.advance(21)
        claims = [await outbox.claim(batch.id, 0, "third", 20.0) for _ in range(2)]
        assert [(claim.pending, claim.doubtful, claim.lost) for claim in claims] == [((), (), (0, 1))] * 2


# --- what comes back ------------------------------------------------------------------------------------------------


async def test_a_reply_from_a_shared_telephone_confirms_nothing_and_is_kept_for_a_person(
    tmp_path: Path, clock: ManualClock
) -> None:
    """Two officials, one telephone: which of them has heard is for a clerk to find out, not for us to guess."""
    shared = (OFFICIALS[0], ("丁", phone(1), FLOWER_2, "village_head", "1"))
    async with desk(tmp_path, clock, officials=shared) as one:
        issued = await one.issue(one.alert([FLOWER]))
        await one.settled(issued.alert, 4)
        assert await one.reply(phone(1), "1", "r1") == "shared_phone"
        assert await one.core.store.ledger.confirmations(issued.alert) == []


async def test_a_reply_confirms_the_alerts_its_sender_was_sent_and_no_others(
    tmp_path: Path, clock: ManualClock
) -> None:
    """An answer stands for what its sender was told and for his villages, else a silent village looks reached."""
    async with desk(tmp_path, clock) as one:
        his = [await one.issue(one.alert([FLOWER])), await one.issue(one.alert([FLOWER, WATER]))]
        other = await one.issue(one.alert([WATER]))
        for outcome, recipients in zip((*his, other), (3, 5, 2), strict=True):
            await one.settled(outcome.alert, recipients)
        assert await one.reply(phone(1), "1", "r1") == "confirmed:2"
        person = one.core.vault.person_id(phone(1), "甲")
        for outcome in his:
            found = await one.core.store.ledger.confirmations(outcome.alert)
            assert [(who, villages) for who, villages, _, _ in found] == [(person, (FLOWER_1,))]
        assert await one.core.store.ledger.confirmations(other.alert) == []
        assert await one.reply(phone(1), "哪里?", "r2") == "for_a_person"
        assert await one.reply(phone(99), "1", "r3") == "unknown_number"
