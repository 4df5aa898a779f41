"""What is known of a person's carrier: from the roster and from carriers, kept with the person and with nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import blank
import pytest
from manual_clock import ManualClock
from test_store import NOW, alert, batch_of, draft_of
from town import FLOWER, FLOWER_1, FLOWER_2, Town, audience, phone, table, town, whole

from gateway.directory.importer import How
from gateway.directory.right import Rights
from gateway.directory.table import Roster
from gateway.model import Group, Report, State
from gateway.portability import Portability
from gateway.receipts import Receipts
from gateway.road import Roads
from gateway.store import Store

RESIDENTS = ("name", "phone", "village", "basis", "carrier")
OFFICIALS = ("name", "phone", "village", "role", "carrier")


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        yield one


async def listed(here: Town, *rows: tuple[str, ...], kind: Roster = Roster.RESIDENTS) -> None:
    """Import a list that names carriers."""
    header = RESIDENTS if kind is Roster.RESIDENTS else OFFICIALS
    found = await here.importer.read(table(kind, *rows, header=header), kind, How())
    assert found.errors == ()


async def known(here: Town, *people: int) -> dict[int, str]:
    """Person → what pages of residents and of officials say of the carrier, which is what is kept."""
    found: dict[int, str] = {}
    for group in (Group.RESIDENTS, Group.OFFICIALS):
        for page in await here.directory.pages(audience(group), None, 1000):
            found |= {page.persons[at]: text for at, text in page.carriers.items()}
    kept = await here.directory.carriers(people)
    assert {one: text for one, text in found.items() if one in people} == kept
    return kept


async def test_the_roster_may_name_a_carrier_and_a_later_one_another(here: Town) -> None:
    """A village clerk knows who has changed the carrier; a list without the column takes nothing back."""
    zhao, sun, wang = here.person("赵丽", 1), here.person("孙军", 2), here.person("王芳", 3)
    await listed(
        here, ("赵丽", phone(1), FLOWER_1, "opted_in", "联通"), ("孙军", phone(2), FLOWER_1, "opted_in", ""),
    )  # fmt: skip
    await listed(here, ("王芳", phone(3), FLOWER_1, "防汛责任人", "telecom"), kind=Roster.OFFICIALS)
    assert await known(here, zhao, sun, wang) == {zhao: "unicom", wang: "telecom"}
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1))
    assert await known(here, zhao) == {zhao: "unicom"}
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", "中国电信"))
    assert await known(here, zhao) == {zhao: "telecom"}
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", ""))
    assert await known(here, zhao) == {}


async def test_of_several_rows_of_a_person_the_one_that_names_a_carrier_counts(here: Town) -> None:
    """Whoever answers for two villages stands in the list twice."""
    await listed(
        here,
        ("王芳", phone(3), FLOWER_1, "防汛责任人", "telecom"), ("王芳", phone(3), FLOWER_2, "防汛责任人", ""),
        kind=Roster.OFFICIALS,
    )  # fmt: skip
    assert await known(here, here.person("王芳", 3)) == {here.person("王芳", 3): "telecom"}


async def test_a_wrong_carrier_is_an_error_of_its_row(here: Town) -> None:
    """A mistyped one would send every text of a person to the wrong network."""
    row = ("赵丽", phone(1), FLOWER_1, "opted_in", "铁通")
    found = await here.importer.read(table(Roster.RESIDENTS, row, header=RESIDENTS), Roster.RESIDENTS, How())
    assert [(one.column, one.message) for one in found.errors] == [
        ("carrier", "must be one of: mobile 移动, unicom 联通, telecom 电信, broadcast 广电")
    ]


async def test_carriers_that_refused_are_kept_until_the_roster_names_another(here: Town) -> None:
    """What was learned in one night saves the next warning a minute; who lists the person anew knows better."""
    zhao = here.person("赵丽", 1)
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", "unicom"))
    assert len(await here.directory.pages(audience(Group.RESIDENTS), None, 1000)) > 0  # sealed by now
    await here.directory.refused([zhao, zhao], {"unicom"})
    await here.directory.refused([zhao, here.person("niemand", 9)], {"mobile"})
    assert await known(here, zhao) == {zhao: "unicom:unicom,mobile"}
    await here.directory.refused([zhao], {"unicom"})
    assert await known(here, zhao) == {zhao: "unicom:mobile,unicom"}
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", "unicom"))
    assert await known(here, zhao) == {zhao: "unicom:mobile,unicom"}
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", "telecom"))
    assert await known(here, zhao) == {zhao: "telecom"}


async def test_nothing_of_a_carrier_is_left_of_an_erased_person(here: Town) -> None:
    """It is as personal as the number, and a report that comes late must not bring it back."""
    zhao = here.person("赵丽", 1)
    await listed(here, ("赵丽", phone(1), FLOWER_1, "opted_in", "unicom"))
    await here.directory.refused([zhao], {"mobile"})
    await Rights(here.database, here.vault, ManualClock()).erase(phone(1), "", "clerk")
    await here.directory.refused([zhao], {"telecom"})
    assert await here.directory.carriers([zhao]) == {}


async def test_a_report_teaches_the_carrier_of_the_person_it_is_of(here: Town) -> None:
    """The report names a place in a batch; the channel it left by tells which carrier has refused."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1))
    people = tuple(sorted((here.person("赵丽", 1), here.person("孙军", 2))))
    clock = ManualClock()
    store = Store(here.database, clock)
    batch = replace(batch_of(alert(), size=2, channel="sms_cmpp"), persons=people)
    await store.outbox.accept(draft_of(alert(), batch))
    roads = Roads({"sms": ("sms_cmpp", "sms_http")}, {"sms_cmpp": {"mobile"}, "sms_http": ()})
    portability = Portability(store, here.directory, roads)
    receipts = Receipts(store, here.directory, clock, portability.reported)
    said = Report("sms_cmpp", "", State.FAILED, NOW, "elsewhere", batch.id, 1, elsewhere=True)
    await receipts.commit("sms_cmpp", [replace(said, position=0, elsewhere=False), said, said])
    assert await here.directory.carriers(people) == {people[1]: ":mobile"}
    await portability.reported([("gone.1.0", 0)])
    await portability.refused("sms_http", people)  # of a road for any number nothing is learned
    assert await here.directory.carriers(people) == {people[1]: ":mobile"}
    page = await here.directory.page(audience(Group.RESIDENTS, *whole(FLOWER)), None, 10)
    assert page.carriers == {page.persons.index(people[1]): ":mobile"}
