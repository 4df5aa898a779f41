"""Where an alert stands, and what may happen to it there: the one state machine of the gateway. Pure.

Asked by `intake` and `decision` before anything is stored; the store changes a row only from the standing and
revision it was asked about, so of two decisions at once one stands. `docs/lifecycle.md` is drawn from this table.

A normal alert passes the stages its route asks for, in the order of `STAGES`, and is ACTIVE when none is left. One
that needs no stage (green channel, emergency regime, a signer's correction) is ACTIVE at once. Nobody acts on their
own alert, and the one who reviewed it does not sign it as well.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gateway.errors import Refused
from gateway.model import Decision


class Standing(StrEnum):
    """Where one version of a warning stands."""

    DRAFT = "draft"  # 编辑: being written; nobody is asked yet
    SUPPRESSED = "suppressed"  # 归并: says what a live alert says already (D4); shown, and can be let go
    PARTNER = "partner"  # 会签: a joint warning waits for the other bureau (D9)
    REVIEW = "review"  # 审核
    SIGN = "sign"  # 签发
    RETURNED = "returned"  # 退回: back with its writer, and why
    REJECTED = "rejected"  # 否决 or 撤回: never sent
    ACTIVE = "active"  # 已发布
    STOPPED = "stopped"  # updated, ended, corrected, recalled or expired


REAL = "real_warning"
"""Why a drill ended that a real warning stopped (D19)."""


class Event(StrEnum):
    """What may happen to it."""

    AMEND = "amend"  # the writer stores another wording
    SUBMIT = "submit"  # the writer hands it on
    RELEASE = "release"  # a suppressed one is sent all the same
    JOIN = "join"  # the last partner agrees
    ALONE = "alone"  # the waiting limit is over: published under the own name
    APPROVE = "approve"  # reviewed, or signed
    AUTHORISE = "authorise"  # by telephone, written down by the duty officer (D3)
    RETURN = "return"  # back to the writer, with a reason
    REJECT = "reject"  # by a second person
    WITHDRAW = "withdraw"  # by the writer
    COUNTERSIGN = "countersign"  # the part of an active alert that still waits
    NUMBER = "area_approval"  # the area request of an active alert gets the approval number (审批号) it waits for
    RECALL = "recall"  # nothing more leaves
    REPLACE = "replace"  # an update, all-clear or correction took its place
    EXPIRE = "expire"  # its time is over


STAGES = (Standing.SUPPRESSED, Standing.PARTNER, Standing.REVIEW, Standing.SIGN)
"""Stages on the way out, in this order; a route asks for some of them."""

WAITING = frozenset(STAGES)
OPEN = WAITING | {Standing.DRAFT, Standing.RETURNED}
"""Not sent and not over."""

RINGS = WAITING | {Standing.RETURNED}
"""Where an Actual alert rings until somebody has done something (D2). A draft was handed to nobody yet."""

LIVE = WAITING | {Standing.ACTIVE}
"""What a later message can end."""

_S, _E = Standing, Event
_ON = None
"""On to the next stage the route asks for; ACTIVE when none is left."""

_UNSENT: dict[Event, Standing | None] = {
    _E.WITHDRAW: _S.REJECTED, _E.EXPIRE: _S.STOPPED, _E.RECALL: _S.STOPPED, _E.REPLACE: _S.STOPPED,
}  # fmt: skip
_DECIDED: dict[Event, Standing | None] = _UNSENT | {_E.RETURN: _S.RETURNED, _E.REJECT: _S.REJECTED}
_TABLE: dict[Standing, dict[Event, Standing | None]] = {
    _S.DRAFT: _UNSENT | {_E.AMEND: _S.DRAFT, _E.SUBMIT: _ON},
    _S.RETURNED: _UNSENT | {_E.AMEND: _S.DRAFT},
    _S.SUPPRESSED: _DECIDED | {_E.RELEASE: _ON},
    _S.PARTNER: _DECIDED | {_E.JOIN: _ON, _E.ALONE: _ON},
    _S.REVIEW: _DECIDED | {_E.APPROVE: _ON, _E.AUTHORISE: _S.ACTIVE},
    _S.SIGN: _DECIDED | {_E.APPROVE: _ON, _E.AUTHORISE: _S.ACTIVE},
    _S.ACTIVE: {
        _E.COUNTERSIGN: _S.ACTIVE, _E.AUTHORISE: _S.ACTIVE, _E.NUMBER: _S.ACTIVE,
        _E.RECALL: _S.STOPPED, _E.REPLACE: _S.STOPPED, _E.EXPIRE: _S.STOPPED,
    },
    _S.REJECTED: {},
    _S.STOPPED: {},
}  # fmt: skip
TRANSITIONS: Mapping[tuple[Standing, Event], Standing | None] = {
    (standing, event): to for standing, events in _TABLE.items() for event, to in events.items()
}
"""(standing, event) → where it leads; None: on to the next stage. What is not here is refused."""

ROLES: Mapping[tuple[Standing, Event], frozenset[str]] = {
    (_S.SUPPRESSED, _E.RELEASE): frozenset({"issuer", "reviewer", "signer"}),
    (_S.PARTNER, _E.ALONE): frozenset({"signer"}),
    (_S.REVIEW, _E.APPROVE): frozenset({"reviewer", "signer"}),
    (_S.SIGN, _E.APPROVE): frozenset({"signer"}),
    (_S.ACTIVE, _E.COUNTERSIGN): frozenset({"signer"}),
    (_S.ACTIVE, _E.NUMBER): frozenset({"signer"}),
} | {
    (stage, event): frozenset({"reviewer", "signer"}) for stage in STAGES for event in (_E.RETURN, _E.REJECT)
} | {
    (stage, _E.AUTHORISE): frozenset({"issuer", "reviewer", "signer", "clerk"})
    for stage in (_S.REVIEW, _S.SIGN, _S.ACTIVE)
}  # fmt: skip
"""Who may, where it is not every writer of the issuing body."""

OWN = frozenset({
    Event.AMEND, Event.SUBMIT, Event.WITHDRAW, Event.RELEASE, Event.AUTHORISE, Event.NUMBER, Event.RECALL,
})  # fmt: skip
"""What the writer may do with an alert of their own: a call (D3) and an approval number stand for somebody else."""

_OURS = frozenset({Event.REPLACE, Event.EXPIRE})  # the gateway does these, nobody asks for them

DEPUTISED = frozenset({Event.APPROVE, Event.COUNTERSIGN, Event.ALONE, Event.RETURN, Event.REJECT})
"""What the deputy of an absent signer does in its place. Drafts and recalls stay with the issuing body."""

WRITERS = frozenset({"issuer", "reviewer", "signer"})
_ANSWERS = {
    Standing.RETURNED: "it is back with its writer; amend it, then submit it, or withdraw it",
    Standing.ACTIVE: "it has been issued; update, cancel, correct or recall it",
    Standing.STOPPED: "it is over; issue a new one",
    Standing.REJECTED: "it was rejected or withdrawn; issue a new one",
}


@dataclass(frozen=True, slots=True)
class Hand:
    """A person at work on an alert: who (issuer/name), in which role, for which body."""

    actor: str
    role: str
    entitled: bool
    """Whether they act for the issuing body, or stand in for it (an absent signer's deputy)."""


def step(standing: Standing, event: Event, needs: Sequence[Standing]) -> tuple[Standing, tuple[Standing, ...]]:
    """Return where an event leads, and the stages still needed there (the present one first).

    Raises:
        Refused: 409, the event is not possible here.
    """
    if (standing, event) not in TRANSITIONS:
        raise Refused(409, "not_possible", f"{event} is not possible: {_answer(standing)}")
    to = TRANSITIONS[standing, event]
    if to is Standing.ACTIVE:
        return to, ()
    if to is not None:
        return to, tuple(needs)
    left = tuple(stage for stage in needs if stage is not standing)
    return (left[0] if left else Standing.ACTIVE), left


def first(needs: Sequence[Standing]) -> tuple[Standing, tuple[Standing, ...]]:
    """Return where a new alert begins that needs these stages, and the stages in their order."""
    ordered = tuple(stage for stage in STAGES if stage in needs)
    return (ordered[0] if ordered else Standing.ACTIVE), ordered


def this_round(life: Sequence[Decision]) -> Sequence[Decision]:
    """Return what was decided on the present wording: since it was last handed on."""
    handed = (at for at in range(len(life) - 1, -1, -1) if life[at].event in (Event.SUBMIT, Event.RELEASE))
    return life[next(handed, 0) :]


def since(standing: str, life: Sequence[Decision], accepted_at: datetime) -> datetime:
    """Return since when it has stood there: a decision that moved nothing on restarts no clock."""
    return next((one.at for one in reversed(life) if one.standing != standing), accepted_at)


def check_hand(standing: Standing, event: Event, hand: Hand, writer: str, before: Collection[str]) -> None:
    """Refuse a person who may not do this. `before` are those who have approved this wording at an earlier stage.

    Raises:
        Refused: 403.
    """
    if hand.actor == writer and event not in OWN:
        raise Refused(403, "own_alert", "nobody approves their own alert; ask a second person")
    roles = ROLES.get((standing, event), WRITERS)
    if hand.role not in roles:
        allowed = ", ".join(sorted(roles))
        raise Refused(
            403, "not_entitled", f"{event} at {standing} takes one of: {allowed}; this token is of role {hand.role}"
        )
    if not hand.entitled:
        raise Refused(403, "not_entitled", "only the issuing body's own people may decide on it, or its deputy in time")
    if hand.actor in before and event is Event.APPROVE:
        raise Refused(403, "own_review", "who has reviewed it does not sign it as well; ask another signer")


def _answer(standing: Standing) -> str:
    possible = ", ".join(event for at, event in TRANSITIONS if at is standing and event not in _OURS)
    return _ANSWERS.get(standing) or f"it stands at {standing}; possible there: {possible}"
