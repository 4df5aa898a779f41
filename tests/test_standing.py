"""The state machine of a warning: every state × every event, and who may."""

from __future__ import annotations

import runpy
from itertools import product
from pathlib import Path

import pytest

from gateway.errors import Refused
from gateway.standing import (
    LIVE,
    OPEN,
    OWN,
    ROLES,
    STAGES,
    TRANSITIONS,
    WAITING,
    WRITERS,
    Event,
    Hand,
    Standing,
    check_hand,
    first,
    step,
)

ON = "on"
# Written down by hand from the duty rules, not from the table under test. "": refused.
EXPECTED: dict[Standing, dict[Event, str]] = {
    Standing.DRAFT: {
        Event.AMEND: "draft", Event.SUBMIT: ON, Event.WITHDRAW: "rejected", Event.RECALL: "stopped",
        Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.SUPPRESSED: {
        Event.RELEASE: ON, Event.RETURN: "returned", Event.REJECT: "rejected", Event.WITHDRAW: "rejected",
        Event.RECALL: "stopped", Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.PARTNER: {
        Event.JOIN: ON, Event.ALONE: ON, Event.RETURN: "returned", Event.REJECT: "rejected",
        Event.WITHDRAW: "rejected", Event.RECALL: "stopped", Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.REVIEW: {
        Event.APPROVE: ON, Event.AUTHORISE: "active", Event.RETURN: "returned", Event.REJECT: "rejected",
        Event.WITHDRAW: "rejected", Event.RECALL: "stopped", Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.SIGN: {
        Event.APPROVE: ON, Event.AUTHORISE: "active", Event.RETURN: "returned", Event.REJECT: "rejected",
        Event.WITHDRAW: "rejected", Event.RECALL: "stopped", Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.RETURNED: {
        Event.AMEND: "draft", Event.WITHDRAW: "rejected", Event.RECALL: "stopped", Event.REPLACE: "stopped",
        Event.EXPIRE: "stopped",
    },
    Standing.ACTIVE: {
        Event.COUNTERSIGN: "active", Event.AUTHORISE: "active", Event.NUMBER: "active", Event.RECALL: "stopped",
        Event.REPLACE: "stopped", Event.EXPIRE: "stopped",
    },
    Standing.REJECTED: {},
    Standing.STOPPED: {},
}  # fmt: skip
ALL = tuple(product(Standing, Event))


@pytest.mark.parametrize(("standing", "event"), ALL)
def test_every_event_at_every_standing_leads_where_the_rules_say(standing: Standing, event: Event) -> None:
    """An alert that slips through an unforeseen door is the alert nobody signed."""
    expected = EXPECTED[standing].get(event, "")
    if not expected:
        with pytest.raises(Refused) as refused:
            step(standing, event, STAGES)
        assert (refused.value.status, refused.value.code) == (409, "not_possible")
        return
    needs = STAGES[STAGES.index(standing) :] if standing in STAGES else STAGES
    to, left = step(standing, event, needs)
    if expected == ON:
        assert left == tuple(stage for stage in needs if stage is not standing)
        assert to is (left[0] if left else Standing.ACTIVE)
    else:
        assert to.value == expected


def test_what_is_over_stays_over() -> None:
    """No event brings a rejected or stopped warning back to anybody's phone."""
    assert not [pair for pair in TRANSITIONS if pair[0] in (Standing.REJECTED, Standing.STOPPED)]
    assert {to for (at, _), to in TRANSITIONS.items() if at is Standing.ACTIVE} == {Standing.ACTIVE, Standing.STOPPED}


def test_nothing_becomes_active_but_by_its_last_stage_or_a_telephone() -> None:
    """Every way out is a person's decision, or the route that needs none."""
    direct = {event for (at, event), to in TRANSITIONS.items() if to is Standing.ACTIVE and at is not Standing.ACTIVE}
    onward = {event for (_, event), to in TRANSITIONS.items() if to is None}
    assert direct == {Event.AUTHORISE}
    assert onward == {Event.SUBMIT, Event.RELEASE, Event.JOIN, Event.ALONE, Event.APPROVE}


@pytest.mark.parametrize("needs", [(), (Standing.SIGN,), (Standing.SIGN, Standing.REVIEW), STAGES[::-1]])
def test_an_alert_begins_at_the_first_stage_it_needs(needs: tuple[Standing, ...]) -> None:
    """The order is the procedure's, however the route lists it."""
    standing, ordered = first(needs)
    assert set(ordered) == set(needs)
    assert list(ordered) == [stage for stage in STAGES if stage in needs]
    assert standing is (ordered[0] if ordered else Standing.ACTIVE)


def test_the_whole_way_passes_each_stage_once_in_order() -> None:
    """Suppressed, partner, review, sign, out."""
    standing, left = first(STAGES)
    passed = []
    for event in (Event.RELEASE, Event.JOIN, Event.APPROVE, Event.APPROVE):
        passed.append(standing)
        standing, left = step(standing, event, left)
    assert (passed, standing, left) == (list(STAGES), Standing.ACTIVE, ())


def test_standings_fall_into_kinds_without_overlap() -> None:
    """Whoever asks for what is open, waiting or live gets every standing it means."""
    assert set(STAGES) == WAITING
    assert OPEN | {Standing.ACTIVE, Standing.REJECTED, Standing.STOPPED} == set(Standing)
    assert {Standing.ACTIVE} == LIVE - OPEN


@pytest.mark.parametrize("event", sorted(set(Event) - OWN - {Event.JOIN, Event.REPLACE, Event.EXPIRE}))
def test_nobody_decides_on_their_own(event: Event) -> None:
    """The second pair of eyes is the whole point of a second person."""
    hand = Hand("411726-qxj/甲", "signer", entitled=True)
    with pytest.raises(Refused) as refused:
        check_hand(Standing.SIGN, event, hand, "411726-qxj/甲", ())
    assert refused.value.code == "own_alert"


@pytest.mark.parametrize(("standing", "event"), sorted(TRANSITIONS))
@pytest.mark.parametrize("role", ["issuer", "reviewer", "signer", "clerk", "viewer", "admin"])
def test_only_the_roles_of_the_table_may(standing: Standing, event: Event, role: str) -> None:
    """Administrators and viewers never decide on a warning; a clerk only writes a telephone call down."""
    allowed = ROLES.get((standing, event), WRITERS)
    assert allowed <= WRITERS | ({"clerk"} if event is Event.AUTHORISE else set())
    hand = Hand("411726-qxj/乙", role, entitled=True)
    if role in allowed:
        check_hand(standing, event, hand, "411726-qxj/甲", ())
    else:
        with pytest.raises(Refused, match="takes one of"):
            check_hand(standing, event, hand, "411726-qxj/甲", ())


def test_who_has_reviewed_does_not_sign_as_well() -> None:
    """Review and sign are two persons beside the writer."""
    hand = Hand("411726-qxj/乙", "signer", entitled=True)
    with pytest.raises(Refused) as refused:
        check_hand(Standing.SIGN, Event.APPROVE, hand, "411726-qxj/甲", {"411726-qxj/乙"})
    assert refused.value.code == "own_review"


def test_another_bodys_signer_may_not() -> None:
    """A county signs its own."""
    hand = Hand("411728-qxj/丙", "signer", entitled=False)
    with pytest.raises(Refused) as refused:
        check_hand(Standing.SIGN, Event.APPROVE, hand, "411726-qxj/甲", ())
    assert refused.value.code == "not_entitled"


def test_the_drawing_in_the_docs_is_the_table() -> None:
    """A drawing that has drifted misleads whoever trusts it at night."""
    root = Path(__file__).parent.parent
    script = runpy.run_path(str(root / "ops" / "make_lifecycle.py"))
    assert (root / "docs" / "lifecycle.md").read_text(encoding="utf8") == script["page"]()
    assert set(script["STANDINGS"]) == set(Standing)
    assert set(script["EVENTS"]) == set(Event)
