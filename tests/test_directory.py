"""The contract of the directory, held by SQLite and by PostgreSQL.

Whoever is missing from a page is not warned; whoever is in two is rung twice in a night when lines are short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import blank
import pytest
from hypothesis import given
from hypothesis import strategies as st
from town import (
    ABROAD,
    FLOWER,
    FLOWER_1,
    FLOWER_2,
    OLD,
    OLD_1,
    SECRET,
    WATER,
    WATER_1,
    WATER_2,
    Town,
    audience,
    phone,
    places,
    subscription,
    town,
    whole,
)

from gateway.directory.people import SqlDirectory, merged
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault, normal_phone
from gateway.errors import ConfigError
from gateway.model import Group, Recipient, Target
from gateway.ports import Page
from gateway.transaction import Tx

COUNTY = (FLOWER, WATER, OLD)


@pytest.fixture(params=["sqlite", "postgresql"])
async def here(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    url = blank.sqlite(tmp_path) if request.param == "sqlite" else request.getfixturevalue("database_url")
    async with town(url) as one:
        yield one


async def sampled(here: Town, folder: Path) -> None:
    """Fill the directory with a synthetic roster of three townships."""
    sample = write_sample(
        folder,
        places(),
        400,
        7,
        3,
        townships=COUNTY,
        subscribers=20,
        push_endpoint=lambda at: f"https://p.example/{at}",
    )
    for roster in Roster:
        with (folder / f"{roster}.csv").open("rb") as file:
            assert (await here.importer.read(file, roster)).errors == ()
    assert sample.subscribers is not None


@pytest.mark.parametrize("group", list(Group))
async def test_the_cursor_goes_on_without_gaps_or_repeats_whatever_the_limit(
    here: Town, tmp_path: Path, group: Group
) -> None:
    """The planner freezes audiences page by page and may restart anywhere: the pages are always the same people."""
    await sampled(here, tmp_path / "roster")
    expected = await here.all(audience(group), 10_000)
    keys = [(township, one.village, one.person) for township, one in expected]
    assert len(keys) > (2 if group is Group.AREA else 9)  # of places there are three
    assert keys == sorted(set(keys))
    assert len({one.person for _, one in expected}) == len(expected)
    assert all(one.village.startswith(township) or not one.village for township, one in expected)
    for limit in (1, 2, 3, 7, 50):
        assert await here.all(audience(group), limit) == expected


@pytest.mark.parametrize("group", list(Group))
@pytest.mark.parametrize("limit", [1, 7, 10_000])
async def test_several_pages_at_once_hold_the_same_people_in_the_same_order(
    here: Town, tmp_path: Path, group: Group, limit: int
) -> None:
    """All officials of a county are asked for at once: none may be told twice or left out for it."""
    await sampled(here, tmp_path / "roster")
    for asked in (audience(group), audience(group, Target(WATER, (WATER_2,)), Target(OLD))):
        found: list[Page] = []
        while not found or found[-1].after is not None:
            more = await here.directory.pages(asked, found[-1].after if found else None, limit)
            assert all(len(page.persons) <= limit for page in more)
            found += more
        people = [(page.township, one) for page in found for one in page.recipients]
        assert people == await here.all(asked, 10_000)


@pytest.mark.parametrize("group", list(Group))
async def test_the_count_is_what_the_pages_give(here: Town, tmp_path: Path, group: Group) -> None:
    """The preview says how many will be warned; it must not promise anybody else."""
    await sampled(here, tmp_path / "roster")
    narrowed = Target(WATER, (WATER_2,))
    for asked in (audience(group), audience(group, narrowed, Target(OLD)), audience(group, before=(narrowed,))):
        found = await here.all(asked, 20)
        counted = await here.directory.count(asked)
        assert list(counted) == [target.township for target in asked.targets]
        assert counted == {one: sum(township == one for township, _ in found) for one in counted}
        assert await here.directory.anybody(asked) is bool(found)


async def test_a_person_with_several_places_appears_once_under_the_first_and_is_told_all(here: Town) -> None:
    """Rule 6, D15: one message to a person names all their villages that are meant, and only those."""
    await here.officials(
        ("王强", phone(1), OLD_1, "monitor"),
        ("王强", phone(1), WATER_2, "grid_worker"),
        ("王强", phone(1), WATER_2, "flood_warden"),
        ("王强", phone(1), FLOWER_1, "monitor"),
        ("李敏", phone(2), WATER_2, "village_head"),
    )
    wang, li = here.person("王强", 1), here.person("李敏", 2)
    found = await here.all(audience(Group.OFFICIALS), 1)
    assert found == [
        (FLOWER, Recipient(wang, "+86" + phone(1), FLOWER_1, (FLOWER_1, WATER_2, OLD_1))),
        (WATER, Recipient(li, "+86" + phone(2), WATER_2)),
    ]
    # Where only part of it is meant, the first of those places counts, and no other is named.
    part = await here.all(audience(Group.OFFICIALS, *whole(WATER, OLD)))
    assert [(township, one.places) for township, one in part if one.person == wang] == [(WATER, (WATER_2, OLD_1))]
    alone = await here.all(audience(Group.OFFICIALS, *whole(OLD)))
    assert [one.places for _, one in alone] == [()]


async def test_nobody_is_a_resident_where_an_official(here: Town) -> None:
    """Rule 6: the official's text wins, in whichever targeted township the post is; elsewhere it is a neighbour."""
    await here.officials(("王强", phone(1), OLD_1, "monitor"))
    await here.residents(("王强", phone(1), FLOWER_1), ("李敏", phone(2), FLOWER_1))
    found = await here.all(audience(Group.RESIDENTS))
    assert [one.person for _, one in found] == [here.person("李敏", 2)]
    officials = await here.all(audience(Group.OFFICIALS))
    assert [(township, one.places) for township, one in officials] == [(OLD, (OLD_1, FLOWER_1))]
    without_post = await here.all(audience(Group.RESIDENTS, *whole(FLOWER)))
    assert {one.person for _, one in without_post} == {here.person("王强", 1), here.person("李敏", 2)}


async def test_narrowed_villages_reach_these_villages_and_the_posts_of_their_township(here: Town) -> None:
    """A township's duty post answers for each of its villages, so it hears of any; the next village does not."""
    await here.officials(
        ("值班", phone(1), WATER, "township_duty"),
        ("李敏", phone(2), WATER_1, "village_head"),
        ("王强", phone(3), WATER_2, "village_head"),
        ("外乡", phone(4), ABROAD, "township_duty"),
    )
    await here.residents(("赵丽", phone(5), WATER_1), ("孙军", phone(6), WATER_2))
    meant = Target(WATER, (WATER_2,))
    assert [one.village for _, one in await here.all(audience(Group.OFFICIALS, meant))] == ["", WATER_2]
    assert [one.village for _, one in await here.all(audience(Group.RESIDENTS, meant))] == [WATER_2]
    assert [one.village for _, one in await here.all(audience(Group.OFFICIALS, Target(WATER)))] == [
        "",
        WATER_1,
        WATER_2,
    ]


async def test_no_township_is_lost_when_targets_come_unsorted_or_in_pieces(here: Town) -> None:
    """Targets of two areas may name one township twice, and in any order; a skipped township is a silent one."""
    await here.residents(("赵丽", phone(1), WATER_1), ("孙军", phone(2), WATER_2), ("周勇", phone(3), FLOWER_1))
    pieces = (Target(WATER, (WATER_2,)), Target(FLOWER), Target(WATER, (WATER_1,)))
    found = await here.all(audience(Group.RESIDENTS, *pieces), 1)
    assert [one.village for _, one in found] == [FLOWER_1, WATER_1, WATER_2]
    assert await here.directory.count(audience(Group.RESIDENTS, *pieces)) == {FLOWER: 1, WATER: 2}


async def test_whoever_an_earlier_step_serves_is_left_out(here: Town) -> None:
    """Where an update splits a plan into steps, a person with places in two of them still gets one message."""
    await here.officials(
        ("王强", phone(1), FLOWER_1, "monitor"),
        ("王强", phone(1), WATER_1, "monitor"),
        ("李敏", phone(2), WATER_1, "village_head"),
        ("吴刚", phone(4), OLD_1, "monitor"),
        ("值班", phone(6), WATER, "township_duty"),
    )
    await here.residents(
        ("赵丽", phone(3), FLOWER_2),
        ("赵丽", phone(3), WATER_2),
        ("吴刚", phone(4), WATER_2),
        ("孙军", phone(5), WATER_2),
    )
    rest = whole(WATER)
    officials = await here.all(audience(Group.OFFICIALS, *rest, before=whole(FLOWER)))
    assert {one.person for _, one in officials} == {here.person("李敏", 2), here.person("值班", 6)}
    residents = await here.all(audience(Group.RESIDENTS, *rest, before=whole(FLOWER, OLD)))
    assert {one.person for _, one in residents} == {here.person("孙军", 5)}
    counted = await here.directory.count(audience(Group.RESIDENTS, *rest, before=whole(FLOWER, OLD)))
    assert counted == {WATER: 1}
    assert await here.directory.anybody(audience(Group.RESIDENTS, *rest, before=whole(FLOWER, OLD)))
    assert not await here.directory.anybody(audience(Group.RESIDENTS, *whole(FLOWER), before=whole(FLOWER, OLD)))
    # A township's post belongs to the first step that means any of its villages.
    second = audience(Group.OFFICIALS, Target(WATER, (WATER_1,)), before=(Target(WATER, (WATER_2,)),))
    assert {one.person for _, one in await here.all(second)} == {here.person("王强", 1), here.person("李敏", 2)}


async def test_whoever_opted_out_hears_only_what_rests_on_the_emergency_basis(here: Town) -> None:
    """D24: opting out covers blue and yellow; red reaches everybody, and officials cannot opt out."""
    await here.residents(("赵丽", phone(1), FLOWER_1), ("孙军", phone(2), FLOWER_1))
    await here.officials(("李敏", phone(3), FLOWER_1, "village_head"))

    def opt_out(tx: Tx) -> None:
        people = [here.person("赵丽", 1), here.person("李敏", 3)]
        tx.run("UPDATE person SET opted_out = 1 WHERE id IN :*people", people=people)

    await here.database.write(opt_out)
    yellow = audience(Group.RESIDENTS)
    assert [one.person for _, one in await here.all(yellow)] == [here.person("孙军", 2)]
    assert await here.directory.count(yellow) == {FLOWER: 1, WATER: 0, OLD: 0}
    assert len(await here.all(replace(yellow, opted_out=True))) == 2
    assert await here.directory.opted_out(whole(FLOWER, WATER)) == {FLOWER: 1, WATER: 0}
    assert await here.directory.opted_out([Target(FLOWER, (FLOWER_2,))]) == {FLOWER: 0}
    assert len(await here.all(audience(Group.OFFICIALS))) == 1


async def test_subscribers_hear_their_language_wherever_their_area_is_touched(here: Town) -> None:
    """A subscription to a township or county is for every village in it, and one browser gets one notification."""
    await here.bring(
        Roster.SUBSCRIBERS,
        (subscription(1), WATER_2, "zh"),
        (subscription(2), WATER, "zh"),
        (subscription(3), "411726", "zh"),
        (subscription(4), WATER, "en"),
        (subscription(5), ABROAD, "zh"),
    )
    assert len(await here.all(audience(Group.SUBSCRIBERS), 1)) == 3
    assert [one.village for _, one in await here.all(audience(Group.SUBSCRIBERS, language="en"))] == [""]
    narrow = await here.all(audience(Group.SUBSCRIBERS, Target(WATER, (WATER_1,))))
    assert sorted(one.address.count("push.example.org") for _, one in narrow) == [1, 1]
    assert await here.directory.count(audience(Group.SUBSCRIBERS)) == {FLOWER: 1, WATER: 2, OLD: 0}


async def test_only_devices_in_service_are_played_or_let_in(here: Town) -> None:
    """A loudspeaker that was taken down must neither count as a way to reach a village nor be able to log in."""
    await here.bring(
        Roster.DEVICES, ("lb-1", FLOWER_1, "k" * 16), ("lb-2", FLOWER_1, "l" * 16), ("lb-3", WATER_1, "m" * 16)
    )
    await here.bring(Roster.DEVICES, ("lb-1", FLOWER_1, "k" * 16), ("lb-3", WATER_1, "m" * 16), replace=True)
    assert [one.address for _, one in await here.all(audience(Group.LOUDSPEAKERS))] == ["lb-1", "lb-3"]
    assert await here.directory.device("lb-2") is None
    one = await here.directory.device("lb-1")
    assert one is not None
    assert one.village == FLOWER_1
    assert await here.directory.devices([FLOWER_1, FLOWER_2]) == {FLOWER_1: (one.id,)}
    narrowed = audience(Group.LOUDSPEAKERS, Target(FLOWER, (FLOWER_2,)))
    assert await here.all(narrowed) == []


async def test_a_person_is_found_by_any_writing_of_the_number(here: Town) -> None:
    """A reply comes with whatever form the carrier uses; unmatched, a village stays unconfirmed."""
    await here.officials(("王强", phone(1), FLOWER_1, "monitor"))
    for written in (
        "10000000001",
        "+8610000000001",
        "86 100 0000 0001",
        "0086-100-0000-0001",
        "１００００００００01",
        "'10000000001",
        "\u202d10000000001\u202c",
    ):
        assert await here.directory.people_at(written) == (here.person("王强", 1),)
        assert here.directory.phone_hash(written) == here.directory.phone_hash(phone(1))


def test_a_number_and_a_person_keep_their_hash_and_id() -> None:
    """Another way of computing them would leave every roster in use with numbers nobody is found by."""
    vault = Vault(SECRET)
    assert vault.phone_hash(phone(1)).hex() == "0dbd554a50629a26196500245db63b94"
    assert vault.person_id(phone(1), "王强") == 3368213491218675073


async def test_two_persons_sharing_a_number_are_two_confirmations(here: Town) -> None:
    """D15: one answer from a shared telephone must not stand for the other person unasked."""
    await here.officials(("王强", phone(1), FLOWER_1, "monitor"), ("李敏", phone(1), FLOWER_1, "village_head"))
    both = tuple(sorted((here.person("王强", 1), here.person("李敏", 1))))
    assert await here.directory.people_at(phone(1)) == both
    assert await here.directory.responsible([FLOWER_1, FLOWER_2]) == {FLOWER_1: both}
    assert len(await here.all(audience(Group.OFFICIALS))) == 2


async def test_responsible_are_the_village_s_own_officials(here: Town) -> None:
    """A village counts as confirmed only by a person answerable for it, not by the township's clerk."""
    await here.officials(("值班", phone(1), WATER, "township_duty"), ("李敏", phone(2), WATER_1, "village_head"))
    assert await here.directory.responsible([WATER_1, WATER_2]) == {WATER_1: (here.person("李敏", 2),)}
    assert await here.directory.places_of(here.person("值班", 1)) == [(WATER, "")]


async def test_whoever_is_retired_is_in_no_later_audience(here: Town) -> None:
    """A subscription the push service has dropped would fail at every alert."""
    await here.bring(Roster.SUBSCRIBERS, (subscription(1), WATER, "zh"), (subscription(2), WATER, "zh"))
    gone, stays = [one.person for _, one in await here.all(audience(Group.SUBSCRIBERS))]
    await here.directory.retire([gone])
    assert [one.person for _, one in await here.all(audience(Group.SUBSCRIBERS))] == [stays]
    assert await here.directory.count(audience(Group.SUBSCRIBERS)) == {FLOWER: 0, WATER: 1, OLD: 0}
    assert (await here.directory.sizes())["subscribers"] == 1
    # The same table again does not bring it back.
    again = await here.bring(Roster.SUBSCRIBERS, (subscription(1), WATER, "zh"))
    assert (again.unchanged, len(await here.all(audience(Group.SUBSCRIBERS)))) == (1, 1)


async def test_an_empty_audience_is_exhausted_at_once(here: Town) -> None:
    """An area without people must end its step, not hang it."""
    assert await here.all(audience(Group.RESIDENTS)) == []
    page = await here.directory.page(replace(audience(Group.RESIDENTS), targets=()), None, 10)
    assert (page.persons, page.after) == ((), None)


async def test_another_secret_opens_nothing_and_says_which_setting_is_wrong(here: Town) -> None:
    """After a restore with the wrong key nobody may be silently skipped."""
    await here.officials(("王强", phone(1), FLOWER_1, "monitor"))
    other = SqlDirectory(here.database, Vault(b"x" * 32), here.directory._clock)
    with pytest.raises(ConfigError, match="MINGLUO_SECRET_KEY"):
        await other.page(audience(Group.OFFICIALS), None, 10)
    assert await other.people_at(phone(1)) == ()


def stored_in(folder: Path) -> bytes:
    """All bytes of all files."""
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_no_name_number_or_key_stands_in_clear_in_the_file(tmp_path: Path) -> None:
    """T28: a stolen disk or back-up of the database names nobody."""
    async with town(blank.sqlite(tmp_path)) as here:
        await here.officials(("王小强壮", phone(12345678), FLOWER_1, "monitor"))
        await here.residents(("Marianne Li", phone(87654321), WATER_1))
        await here.bring(Roster.SUBSCRIBERS, (subscription(424242), WATER, "zh"))
        await here.bring(Roster.DEVICES, ("lb-1", FLOWER_1, "a-key-of-the-village"))
        assert len(await here.all(audience(Group.OFFICIALS))) == 1
    stored = stored_in(tmp_path)
    assert b"lb-1" in stored
    for clear in ("王小强壮", "小强", "Marianne", "12345678", "87654321", "424242", "push.example", "a-key-of-the"):
        assert clear.encode() not in stored


def test_an_id_cannot_be_computed_without_the_secret() -> None:
    """Ids stand in ledger and audit: nobody may try out names or numbers against them."""
    one, other = Vault(b"a" * 32), Vault(b"b" * 32)
    assert one.person_id(phone(1), "王强") == Vault(b"a" * 32).person_id("+86" + phone(1), "王强")
    assert one.person_id(phone(1), "王强") != other.person_id(phone(1), "王强")
    assert 0 <= one.person_id(phone(1), "王强") < 2**62


@pytest.mark.parametrize("text", ["not base64!", "c2hvcnQ=", "密钥"])
def test_a_secret_that_is_none_is_named_as_a_setting(tmp_path: Path, text: str) -> None:
    """A typing error in the key stops the start with the setting's name, not with a traceback."""
    with pytest.raises(ConfigError, match="MINGLUO_SECRET_KEY"):
        Vault.of(text, tmp_path)


def test_the_secret_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    """Two starts of one installation must open each other's rows."""
    sealed = Vault.of("", tmp_path / "data").seal(b"x")
    assert Vault.of("", tmp_path / "data").open(sealed) == b"x"
    assert (tmp_path / "data" / "secret.key").stat().st_mode & 0o777 == 0o600


@given(st.text(max_size=30))
def test_a_number_is_normal_or_refused_without_being_quoted(text: str) -> None:
    """Whatever stands in a cell, either it is a dialable form or the error holds none of it."""
    problem = ""
    try:
        normal = normal_phone(text)
    except ValueError as error:
        problem = str(error)
    else:
        assert normal[1:].isascii()
        assert normal[1:].isdigit()
        assert normal_phone(normal) == normal
    assert len(text.strip()) < 4 or text.strip() not in problem


@pytest.mark.parametrize("text", ["1.39E+10", "1.0e10", "0396-7922222", "1380000000", "١٣٨٠٠٠٠٠٠٠٠", "", "1" * 12])
def test_a_number_that_lost_digits_or_cannot_ring_is_refused(text: str) -> None:
    """T10, D27: nothing is guessed; a wrong number is a warning to a stranger."""
    with pytest.raises(ValueError, match="number"):
        normal_phone(text)


@given(st.lists(st.tuples(st.sampled_from(COUNTY), st.sets(st.sampled_from("123")))))
def test_merged_targets_hold_each_township_once_and_lose_no_village(pieces: list[tuple[str, set[str]]]) -> None:
    """However areas overlap, each place that was named is still reached."""
    found = merged([Target(township, tuple(sorted(villages))) for township, villages in pieces])
    assert [one.township for one in found] == sorted({township for township, _ in pieces})
    for one in found:
        parts = [villages for township, villages in pieces if township == one.township]
        expected = set() if not all(parts) else set().union(*parts)
        assert set(one.villages) == expected
