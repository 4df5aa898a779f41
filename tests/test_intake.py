"""What follows what: a drill and the real thing, stale and new, one end and a second one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from api_support import CITY, ISSUER, JIALOU, REGIONS, ROOT, SIGNER, Desk, opened
from manual_clock import ManualClock

from gateway import cap
from gateway.api.shape import EXAMPLE
from gateway.bench.warning import polygon_gale
from gateway.cap import Trust
from gateway.errors import Refused
from gateway.model import Alert, Group, Lane, Resolution
from gateway.policy import Policy
from gateway.pool import ParsePool, Places
from gateway.ports import Accepted, Draft
from gateway.regions import Regions

PLACES, INSIDE = Places(ROOT / "config" / "regions"), ("411726",)
HEAT: dict[str, Any] = {"event_code": "11B09", "event": "高温", "level": "orange"}  # not on the green list


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


def message(desk: Desk, identifier: str, **changes: Any) -> bytes:
    """A warning of 贾楼乡 with an identifier of its own, a second later than the one before."""
    desk.clock.advance(1)
    body = EXAMPLE | {
        "identifier": identifier,
        "sent": desk.clock.now().replace(microsecond=0).isoformat(),
        "areas": [{"description": "泌阳县贾楼乡", "geocodes": {"township": [JIALOU]}}],
    }
    body.pop("expires", None)
    return json.dumps(body | changes, ensure_ascii=False).encode()


def reference(data: bytes) -> dict[str, str]:
    """The reference to a message."""
    body = json.loads(data)
    return {key: body[key] for key in ("sender", "identifier", "sent")}


async def submit(desk: Desk, data: bytes) -> str:
    principal = desk.core.policy.principal(ISSUER, simulation=True)
    assert principal is not None
    return (await desk.core.intake.submit(data, principal)).alert


async def approve(desk: Desk, alert: str) -> str:
    principal = desk.core.policy.principal(SIGNER, simulation=True)
    assert principal is not None
    return (await desk.core.decisions.approve(alert, principal)).result


async def standing(desk: Desk, alert: str) -> tuple[str, str]:
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    return row.standing, row.reason


class Noted:
    """Places that note in which threads areas are resolved."""

    def __init__(self) -> None:
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(REGIONS, name)

    def resolve_alert(self, alert: Alert, within: Sequence[str]) -> Resolution:
        self.threads.append(threading.get_ident())
        return REGIONS.resolve_alert(alert, within)


async def test_a_long_list_of_names_is_read_beside_the_loop(desk: Desk) -> None:
    """Half a second of one county's names must not stand before another county's red one, draft or not."""
    noted, principal = Noted(), desk.core.policy.principal(ISSUER, simulation=True)
    assert principal is not None
    desk.core.intake.cases._regions = cast(Regions, noted)
    await submit(desk, message(desk, "short", areas=[{"description": "贾楼乡"}]))
    long = message(desk, "long", areas=[{"description": "驻马店泌阳县" * 1000}])
    draft = (await desk.core.intake.submit(long, principal, draft=True)).alert
    await desk.core.decisions.submit(draft, principal)
    loop = threading.get_ident()
    assert [one == loop for one in noted.threads] == [True, False, False]


async def test_a_drill_never_ends_a_real_warning_nor_the_reverse(desk: Desk) -> None:
    """An exercise's all-clear must not silence the night's red one."""
    real = message(desk, "real")
    alert = await submit(desk, real)
    with pytest.raises(Refused) as refused:
        await submit(desk, message(desk, "d", status="Exercise", kind="Cancel", references=[reference(real)]))
    assert (refused.value.status, refused.value.code) == (422, "status_differs")
    assert await standing(desk, alert) == ("active", "")


async def groups(desk: Desk, alert: str) -> set[Group]:
    """Whom the plan of an alert reaches."""
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    return {step.audience.group for step in row.plan.steps}


async def test_what_is_restricted_reaches_officials_only(desk: Desk) -> None:
    """A notice to those at their posts, shouted over the village, starts a flight; and it hides no public warning."""
    restricted = {"scope": "Restricted", "restriction": "责任人"}
    alert = await submit(desk, message(desk, "restricted", **restricted))
    assert await groups(desk, alert) == {Group.OFFICIALS}
    row = await desk.core.store.outbox.alert(alert)
    assert row is not None
    assert "scope: Restricted, so only officials hear it" in row.plan.reasons
    public = await submit(desk, message(desk, "public"))
    assert await standing(desk, public) == ("active", "")
    assert Group.RESIDENTS in await groups(desk, public)


async def test_bulk_work_steps_aside_before_what_is_green_is_written(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A red warning's commit does not queue behind those of a million blue messages; one that waits stops nobody."""
    done: list[str] = []
    intake, outbox = desk.core.intake, desk.core.store.outbox
    accept = outbox.accept

    async def accepted(draft: Draft) -> Accepted:
        done.append("written")
        return await accept(draft)

    monkeypatch.setattr(outbox, "accept", accepted)
    monkeypatch.setattr(intake, "_on_green", lambda: done.append("aside"))
    alert = await submit(desk, message(desk, "sudden"))
    row = await outbox.alert(alert)
    assert row is not None
    assert Lane.GREEN in {step.lane for step in row.plan.steps}
    assert done == ["aside", "written"]
    await submit(desk, message(desk, "held", **HEAT))
    assert done == ["aside", "written", "written"]


async def test_who_heard_a_warning_hears_its_end(desk: Desk) -> None:
    """A restricted all-clear of a public warning would leave the village in its shelter."""
    real = message(desk, "real")
    alert = await submit(desk, real)
    restricted = {"scope": "Restricted", "restriction": "责任人", "references": [reference(real)]}
    for kind in ("Update", "Cancel", "Correction"):
        with pytest.raises(Refused) as refused:
            await submit(desk, message(desk, kind, kind=kind, **restricted))
        assert (refused.value.status, refused.value.code) == (422, "scope_differs")
    assert await standing(desk, alert) == ("active", "")


async def test_what_is_for_named_addresses_goes_to_nobody_else(desk: Desk) -> None:
    """The roster is not who the writer named."""
    with pytest.raises(Refused) as refused:
        await submit(desk, message(desk, "private", scope="Private", addresses=["duty@mingluo.example"]))
    assert (refused.value.status, refused.value.code) == (422, "not_public")


async def test_an_alert_that_something_later_refers_to_comes_too_late(desk: Desk) -> None:
    """An update that overtook its alert on the line stays the last word."""
    first = message(desk, "first")
    update = await submit(desk, message(desk, "second", kind="Update", references=[reference(first)]))
    assert await approve(desk, update) == "accepted"
    with pytest.raises(Refused) as refused:
        await submit(desk, first)
    assert (refused.value.status, refused.value.code) == (409, "overtaken")


async def test_the_same_alert_again_stays_a_duplicate_after_its_update(desk: Desk) -> None:
    """A repeated delivery of the feed is no error."""
    first = message(desk, "first")
    alert = await submit(desk, first)
    end = await submit(desk, message(desk, "second", kind="Cancel", references=[reference(first)]))
    await approve(desk, end)
    assert await submit(desk, first) == alert


async def test_another_bodys_message_that_mentions_it_takes_no_warnings_place(desk: Desk) -> None:
    """Identifiers can be guessed: whoever names the next one must not keep it from going out."""
    first = message(desk, "first")
    areas = [{"description": "驿城区", "geocodes": {"township": ["411702001"]}}]
    city = {"sender": "4117-qxt@mingluo.example", "areas": areas}
    mention = message(desk, "mention", references=[reference(first)], **city)
    principal = desk.core.policy.principal(CITY, simulation=True)
    assert principal is not None
    await desk.core.intake.submit(mention, principal)
    assert await standing(desk, await submit(desk, first)) == ("active", "")


async def test_a_draft_that_was_overtaken_is_not_handed_on(desk: Desk) -> None:
    """An update of it has gone out meanwhile: the older text stays in the drawer."""
    first = message(desk, "first", **HEAT)
    principal = desk.core.policy.principal(ISSUER, simulation=True)
    assert principal is not None
    draft = await desk.core.intake.submit(first, principal, draft=True)
    update = await submit(desk, message(desk, "second", kind="Update", references=[reference(first)], **HEAT))
    await approve(desk, update)
    with pytest.raises(Refused) as refused:
        await desk.core.decisions.submit(draft.alert, principal)
    assert refused.value.code == "overtaken"


@pytest.mark.parametrize("kind", ["Cancel", "Update"])
async def test_what_was_sent_again_after_it_took_effect_is_a_duplicate(desk: Desk, kind: str) -> None:
    """The answer was lost and the feed asks once more: it hears what became of it, not that it is wrong."""
    first = message(desk, "first")
    await submit(desk, first)
    second = message(desk, "second", kind=kind, references=[reference(first)])
    alert = await submit(desk, second)
    if kind == "Cancel":
        await approve(desk, alert)
    await submit(desk, message(desk, "third", kind="Update", references=[reference(first)], level="red"))
    desk.clock.advance(7 * 3600)
    assert await submit(desk, second) == alert


async def test_an_all_clear_that_also_names_what_was_never_sent_ends_the_rest(desk: Desk) -> None:
    """A warning in force must get its all-clear, whatever else the message names."""
    first, held = message(desk, "first"), message(desk, "held", **HEAT)
    alert, waiting = await submit(desk, first), await submit(desk, held)
    end = message(desk, "end", kind="Cancel", references=[reference(first), reference(held)])
    assert await approve(desk, await submit(desk, end)) == "accepted"
    assert [await standing(desk, one) for one in (alert, waiting)] == [("stopped", "cancelled")] * 2


async def test_of_two_ends_at_once_one_stands(desk: Desk) -> None:
    """Two officers decide in the same second: there is one successor, and the other is told."""
    first = message(desk, "first")
    await submit(desk, first)
    held = [
        await submit(desk, message(desk, name, kind=kind, references=[reference(first)]))
        for name, kind in (("all-clear", "Cancel"), ("update", "Cancel"))
    ]
    results = await asyncio.gather(*(approve(desk, alert) for alert in held), return_exceptions=True)
    assert sorted([(await standing(desk, alert))[0] for alert in held]) == ["active", "sign"]
    assert sum(result == "accepted" for result in results) == 1
    assert sum(isinstance(result, Refused) for result in results) == 1


async def test_a_second_correction_tells_nobody_twice(desk: Desk) -> None:
    """A nervous second press must not text a county again."""
    alert = await submit(desk, message(desk, "first"))
    principal = desk.core.policy.principal(SIGNER, simulation=True)
    assert principal is not None
    await desk.core.decisions.cancel(alert, principal, "误发", correction=True)
    desk.clock.advance(5)
    with pytest.raises(Refused, match="already"):
        await desk.core.decisions.cancel(alert, principal, "误发", correction=True)


async def test_a_recalled_warning_can_still_be_corrected(desk: Desk) -> None:
    """Whoever heard it before the recall must hear that it was wrong."""
    alert = await submit(desk, message(desk, "first"))
    principal = desk.core.policy.principal(SIGNER, simulation=True)
    assert principal is not None
    await desk.core.decisions.recall(alert, principal, "误发")
    outcome = await desk.core.decisions.cancel(alert, principal, "误发", correction=True)
    row = await desk.core.store.outbox.alert(outcome.alert)
    assert outcome.result == "accepted"
    assert row is not None
    assert [target.township for target in row.plan.targets] == [JIALOU]


async def test_what_was_never_sent_is_rejected_not_ended(desk: Desk) -> None:
    """Nobody gets the all-clear of a warning nobody got."""
    held = message(desk, "first", **HEAT)
    await submit(desk, held)
    with pytest.raises(Refused, match="reject it"):
        await submit(desk, message(desk, "end", kind="Cancel", references=[reference(held)]))


async def test_a_held_first_issue_that_refers_to_another_can_be_approved(desk: Desk) -> None:
    """Some feeds let an alert refer to an earlier one; a second person must still be able to release it."""
    earlier = message(desk, "earlier")
    await submit(desk, earlier)
    held = await submit(desk, message(desk, "later", **HEAT, references=[reference(earlier)]))
    assert await approve(desk, held) == "accepted"


async def test_the_audit_chain_keeps_codes_and_no_words_of_the_issuer(desk: Desk) -> None:
    """A name in an area description could never be erased from the chain."""
    areas = [{"description": "王小明家附近的无名地"}]
    await submit(desk, message(desk, "first", areas=areas))
    chain = await desk.core.store.audit.records()
    assert any("unresolved" in record.detail for _, record, _ in chain)
    assert not any("王小明" in record.detail for _, record, _ in chain)


async def test_the_parser_of_large_messages_comes_back_after_its_death(clock: ManualClock) -> None:
    """A hostile message may cost its own parse, never the next one's."""
    pool = ParsePool(PLACES)
    data = (Path(__file__).parent / "data" / "cap" / "red_rainstorm.xml").read_bytes()
    assert (await pool.read(data, Trust("x"), clock.now(), INSIDE))[0].alert is not None
    assert pool._executor is not None
    for process in pool._executor._processes.values():
        os.kill(process.pid or 0, signal.SIGKILL)
    assert (await pool.read(data, Trust("x"), clock.now(), INSIDE))[0].alert is not None
    pool.close()


async def test_a_large_message_comes_back_from_the_parser_as_it_is_read_here(clock: ManualClock) -> None:
    """Packed on the way, it must lose nothing: not a point, not a digit of its time, not its id."""
    data = cap.write(polygon_gale("bypq@mingluo.example", "41172641600000_20260720143000", ["411726204"]))
    pool = ParsePool(PLACES)
    try:
        there, resolution = await pool.read(data, Trust("x"), clock.now(), INSIDE)
    finally:
        pool.close()
    here = cap.take(data, Trust("x"), clock.now())
    assert here.alert is not None
    assert there.alert is not None
    assert there == here
    assert resolution == REGIONS.resolve(here.alert.areas, INSIDE)
    assert there.alert.id == here.alert.id


# --- what a grant leaves out -------------------------------------------------------------------------


def narrowed(folder: Path, key: str) -> Policy:
    """The sample policy with one more key in the first grant of the county's weather bureau."""
    copy = shutil.copytree(ROOT / "config" / "policy", folder / "policy")
    path = copy / "authority.toml"
    above, below = path.read_text("utf-8").split('id = "411726-qxj"')
    path.write_text(
        above + 'id = "411726-qxj"' + below.replace('highest = "red"', f'highest = "red"\n{key}', 1), "utf-8"
    )
    return Policy.load(copy)


async def test_a_channel_the_grant_leaves_out_is_not_planned_and_the_reasons_say_so(
    tmp_path: Path, clock: ManualClock
) -> None:
    """A bureau without the right to SMS still warns by what it has, and the officer sees why phones stay silent."""
    async with opened(tmp_path, clock, policy=narrowed(tmp_path, 'channels = ["noop"]')) as desk:
        row = await desk.core.store.outbox.alert(await submit(desk, message(desk, "first")))
        assert row is not None
        assert {step.audience.channel for step in row.plan.steps} == {"noop"}
        told = "channel: sms_twilio is left out, for authority.toml, issuer 411726-qxj, grant 1 does not list it"
        assert any(reason.startswith(told) for reason in row.plan.reasons)
        held = await submit(desk, message(desk, "second", **HEAT))
        assert await approve(desk, held) == "accepted"
        row = await desk.core.store.outbox.alert(held)
        assert row is not None
        assert {step.audience.channel for step in row.plan.steps} == {"noop"}


async def test_outside_the_hours_of_the_grant_nothing_is_accepted_or_approved(
    tmp_path: Path, clock: ManualClock
) -> None:
    """What was entitled by day and waited for a person does not slip out at night."""
    china = clock.now().astimezone(timezone(timedelta(hours=8)))
    from_, until = (f"{(china + timedelta(hours=hours)):%H:00}" for hours in (-1, 2))
    policy = narrowed(tmp_path, f'hours = {{ from = "{from_}", until = "{until}" }}')
    async with opened(tmp_path, clock, policy=policy) as desk:
        held = await submit(desk, message(desk, "drill", **HEAT))
        clock.advance(3 * 3600)
        for attempt in (approve(desk, held), submit(desk, message(desk, "late"))):
            with pytest.raises(Refused) as refused:
                await attempt
            assert (refused.value.status, refused.value.code) == (403, "outside_authority")
            assert refused.value.detail.startswith("hours: 泌阳县气象局 (411726-qxj) may issue warning from")
            assert "authority.toml, issuer 411726-qxj, grant 1" in refused.value.detail
