"""Which road serves whom: every person of a page by exactly one, or visibly by none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.carrier import CARRIERS, Carriers, Known
from gateway.channel import Channel, ChannelSettings, Link
from gateway.model import Batch, Group, Lane, Level, Message, Notice, Receipt, Slice, State, Status
from gateway.ports import Page
from gateway.road import NO_ROAD, Roads, known_of, only, page_of, pool_of, served_by, with_pools

TABLE = {"139": "mobile", "130": "unicom", "133": "telecom", "1349": "telecom", "134": "mobile", "192": "broadcast"}
SERVES = {
    "sms_cmpp": frozenset({"mobile"}),
    "sms_sgip": frozenset({"unicom"}),
    "sms_smgp": frozenset({"telecom"}),
    "sms_http": frozenset[str](),
}
ORDER = ("sms_cmpp", "sms_sgip", "sms_smgp", "sms_smpp", "sms_http")
MOBILE, UNICOM, TELECOM = "+8613900000001", "+8613000000001", "+8613300000001"
BROADCAST, UNKNOWN, ABROAD = "+8619200000001", "+8610000000001", "+8525551234"


def roads_of(*names: str, order: tuple[str, ...] = ORDER, serves: Mapping[str, frozenset[str]] = SERVES) -> Roads:
    return Roads({"sms": order}, {name: serves[name] for name in names or SERVES}, Carriers(TABLE))


SPEAKERS = Roads(
    {"loudspeaker": ("loudspeaker_ebd", "loudspeaker_mqtt", "loudspeaker_ws")},
    {"loudspeaker_ebd": {"loudspeaker_ebd"}, "loudspeaker_ws": {"loudspeaker_ws"}},
)
THREE = roads_of("sms_cmpp", "sms_sgip", "sms_smgp")


@pytest.mark.parametrize(
    ("address", "road", "without_http"),
    [
        (MOBILE, "sms_cmpp", "sms_cmpp"), (UNICOM, "sms_sgip", "sms_sgip"), (TELECOM, "sms_smgp", "sms_smgp"),
        ("+8613490000001", "sms_smgp", "sms_smgp"), (BROADCAST, "sms_cmpp", "sms_cmpp"),
        (UNKNOWN, "sms_http", "sms_cmpp"), (ABROAD, "sms_http", ""),
    ],
)  # fmt: skip
def test_a_number_goes_by_its_carriers_road(address: str, road: str, without_http: str) -> None:
    """Each carrier delivers its own numbers; a prefix nobody knows is tried rather than left out."""
    assert roads_of().road("sms", address) == road
    assert THREE.road("sms", address) == without_http


def test_the_pools_order_decides_among_those_that_serve_a_number() -> None:
    """An installation that trusts its cloud provider more than its own line says so in one place."""
    assert roads_of(order=("sms_http", *ORDER[:4])).road("sms", MOBILE) == "sms_http"
    assert roads_of("sms_sgip", "sms_http").road("sms", MOBILE) == "sms_http"
    assert roads_of("sms_sgip").road("sms", MOBILE) == ""


def test_a_road_of_its_own_takes_the_broadcasters_numbers_from_their_host() -> None:
    """192 rides with China Mobile only where nobody serves it."""
    serves = {**SERVES, "sms_smpp": frozenset({"broadcast"})}
    assert roads_of("sms_cmpp", "sms_smpp", serves=serves).road("sms", BROADCAST) == "sms_smpp"


def test_what_the_roster_says_counts_more_than_the_prefix() -> None:
    """Numbers have moved between carriers since 2019."""
    assert THREE.road("sms", MOBILE, "telecom") == "sms_smgp"
    assert THREE.road("sms", MOBILE, "broadcast") == "sms_cmpp"


def test_each_carrier_is_tried_once_and_then_the_one_that_refused_longest_ago() -> None:
    """A villager whose number was carried over is found; what was learned may be out of date later."""
    assert THREE.road("sms", MOBILE, ":mobile") == "sms_sgip"
    assert THREE.road("sms", MOBILE, ":mobile,unicom") == "sms_smgp"
    assert THREE.road("sms", MOBILE, ":mobile,unicom,telecom") == "sms_cmpp"
    assert THREE.road("sms", MOBILE, ":unicom,telecom,mobile") == "sms_sgip"
    assert THREE.road("sms", MOBILE, "telecom:telecom") == "sms_cmpp"


def test_roads_and_carriers_that_are_out_of_the_question_are_passed_over() -> None:
    """A stand-in never goes where the person has been."""
    spent = {"mobile", "unicom", "telecom"}
    shut = {"sms_cmpp", "sms_sgip", "sms_smgp"}
    assert roads_of().road("sms", MOBILE, ":mobile,unicom,telecom", shut, spent) == "sms_http"
    assert THREE.road("sms", MOBILE, ":mobile,unicom,telecom", shut, spent) == ""
    assert THREE.road("sms", MOBILE, ":mobile", {"sms_cmpp"}, {"mobile"}) == "sms_sgip"
    assert roads_of().road("sms", MOBILE, "", {"sms_cmpp"}) == "sms_http"
    assert roads_of().spare("sms", {"sms_cmpp"})
    assert not THREE.spare("sms", {"sms_cmpp"})


def test_a_plain_channel_serves_its_pages_itself() -> None:
    """Plans without pools stay what they were."""
    page = Page("411726204", (1,), (MOBILE,), ("411726204201",), {}, ("411726204", "411726204201", 1))
    assert list(THREE.parts("noop", [page])) == [("noop", page)]
    assert THREE.same("noop", "noop")
    assert not THREE.same("noop", "sms_cmpp")
    assert THREE.same("sms", "sms_cmpp")
    assert THREE.same("sms", "sms")


_numbers = st.one_of(
    st.from_regex(r"\+861[0-9]{10}", fullmatch=True), st.from_regex(r"\+852[0-9]{8}", fullmatch=True), st.just("")
)
_known = st.builds(
    lambda own, refused: Known(own, tuple(refused)).text,
    st.sampled_from(["", *CARRIERS]),
    st.lists(st.sampled_from(CARRIERS), unique=True),
)
_tables = st.dictionaries(st.from_regex(r"1[0-9]{2,6}", fullmatch=True), st.sampled_from(CARRIERS), max_size=20)
_serves = st.dictionaries(st.sampled_from(ORDER), st.frozensets(st.sampled_from(CARRIERS)))


@given(
    _tables, _serves, st.permutations(ORDER), st.lists(st.tuples(_numbers, _known, st.booleans()), max_size=40)
)  # fmt: skip
def test_everybody_of_a_page_is_in_exactly_one_part_or_visibly_without_a_road(
    table: dict[str, str], serves: dict[str, frozenset[str]], order: list[str], people: list[tuple[str, str, bool]]
) -> None:
    """Whatever the table and whatever is known: nobody is told twice, and nobody is dropped in silence."""
    roads = Roads({"sms": order}, serves, Carriers(table))
    persons = tuple(range(len(people)))
    page = Page(
        "411726204", persons, tuple(number for number, _, _ in people), ("411726204201",) * len(people),
        {at: ("a", "b") for at, (_, _, several) in enumerate(people) if several}, None,
        {at: known for at, (_, known, _) in enumerate(people) if known},
    )  # fmt: skip
    parts = list(roads.parts("sms", [page]))
    assert Counter(one for part in parts for one in part.page.persons) == Counter(persons)
    assert len({part.channel for part in parts}) == len(parts)
    for channel, part in parts:
        assert list(part.persons) == sorted(part.persons)
        assert channel == "sms" or channel in serves
        for position, person in enumerate(part.persons):
            number, known, several = people[person]
            assert part.addresses[position] == number
            assert part.places.get(position) == (("a", "b") if several else None)
            assert part.carriers.get(position, "") == known
            assert (roads.road("sms", number, known) or "sms") == channel
            if channel == "sms":
                assert all(serves.values()), "a road for any number was left out"
                own = {Known.read(known).own or Carriers(table).of(number)} if number.startswith("+86") else set()
                assert not own & set().union(*serves.values()), "a road of the number's carrier was left out"


async def test_the_pool_itself_sends_nothing_and_says_so() -> None:
    """Whom no road serves is skipped with a code of its own, so that a fallback and a person see it."""

    class Road(Channel):
        async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
            raise AssertionError

    road = Road(ChannelSettings())
    road.takes_replies = True
    found = with_pools({"sms_cmpp": road, "noop": road}, {"sms": ORDER, "call": ("call_one",)})
    assert set(found) == {"sms_cmpp", "noop", "sms"}
    pool = found["sms"]
    assert (pool.name, pool.text_limit, pool.takes_replies) == ("sms", road.text_limit, True)
    assert pool_of("other", [road]).name == "other"
    slice_ = Slice("b", 0, 1, range(2), (1, 2), ("", ""))
    message = Message("a", Notice.ISSUE, Status.ACTUAL, Level.RED, Lane.GREEN, "zh", "t", "x", None)  # type: ignore[arg-type]  # never looked at
    assert await pool.send(slice_, message, None) == [Receipt(State.SKIPPED, NO_ROAD)] * 2  # type: ignore[arg-type]  # never asked


def test_pages_of_frozen_batches_leave_out_whom_nobody_may_address() -> None:
    """An erased person has no address left in any batch."""
    batch = Batch(
        "a.1.0", "a", 1, "sms_cmpp", Lane.GREEN, Group.OFFICIALS, Notice.ISSUE, "zh", "411726204", None,  # type: ignore[arg-type]  # never looked at
        (1, 2, 3), (MOBILE, "", UNICOM), (("411726204201", 2), ("411726204202", 1)), {2: ("a", "b")}, 50,
    )  # fmt: skip
    page = page_of(batch)
    assert (page.persons, page.villages) == ((1, 3), ("411726204201", "411726204202"))
    assert page.places == {1: ("a", "b")}
    assert only(known_of(page, {3: ":unicom"}), {3}).carriers == {0: ":unicom"}


def test_a_loudspeaker_goes_by_the_road_it_names_and_by_no_other() -> None:
    """Played by the platform and by the bureau at once, a village would hear two voices and understand neither."""
    channels = ("loudspeaker_ws", "loudspeaker_ebd", "loudspeaker_mqtt", "loudspeaker_ws")
    page = Page(
        "411726001", (1, 2, 3, 4), ("lb-1", "411726001201", "lb-3", "lb-4"), ("411726001201",) * 4,
        carriers=dict(enumerate(channels)),
    )  # fmt: skip
    cut = {part.channel: part.page.addresses for part in SPEAKERS.parts("loudspeaker", [page])}
    assert cut == {
        "loudspeaker_ebd": ("411726001201",),
        "loudspeaker_ws": ("lb-1", "lb-4"),
        "loudspeaker": ("lb-3",),  # its road is off: it is seen, not commanded by another
    }
    assert not SPEAKERS.spare("loudspeaker", {"loudspeaker_ebd"})
    assert SPEAKERS.road("loudspeaker", "lb-1") == ""


def test_only_a_road_of_loudspeakers_is_asked_for_by_name() -> None:
    """A number abroad goes by a road for any number, whatever carrier a list names for it."""
    assert roads_of().road("sms", ABROAD, "mobile") == "sms_http"
    assert served_by(Horn(ChannelSettings())) == {"horn"}
    assert served_by(pool_of("sms", [Horn(ChannelSettings())])) == frozenset()


class Horn(Channel):
    """A channel of loudspeakers."""

    name = "horn"
    groups = frozenset({Group.LOUDSPEAKERS})

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        return []
