"""What is said of a message that was taken in: what became of it, and what keeps it from people."""

from __future__ import annotations

import asyncio

from gateway import log
from gateway.api.endpoint import Answer, Call
from gateway.api.shape import Accepted
from gateway.errors import StoreDown
from gateway.intake import Outcome
from gateway.preview import Finding, concerning, halts, reach, text_findings
from gateway.standing import Standing

LEAVES_S = 0.03  # what was accepted is on its way before anything is looked at, which keeps the loop for milliseconds

_log = log.get("api")


async def taken(call: Call, outcome: Outcome) -> Answer:
    """Answer a submission: 202, or 200 for what was known."""
    return 200 if outcome.result == "duplicate" else 202, await told(call, outcome)


async def told(call: Call, outcome: Outcome) -> Accepted:
    """Say what became of a message, and what keeps it from people. It is stored: no fault here may deny that.

    Texts are looked at once they leave, when they are rendered anyway; of what waits, whoever decides sees them.
    """
    core = call.core
    if outcome.result != "duplicate" and outcome.standing == Standing.ACTIVE:
        await asyncio.sleep(LEAVES_S)
    try:
        alert, plan = outcome.stored or (None, None)
        if alert is None or plan is None:
            row = await core.store.outbox.alert(outcome.alert)
            if row is None:
                return Accepted.of(outcome, (), ())
            alert, plan = row.alert, row.plan
        further = list[Finding]()
        if outcome.result != "duplicate":
            further = await reach(core, alert, plan)
            further += await text_findings(core, alert, plan) if outcome.standing == Standing.ACTIVE else []
        stopped = concerning(core.policy, plan, outcome.halts) if outcome.stored else await halts(core, plan)
        return Accepted.of(outcome, stopped, further)
    except StoreDown:
        text = "the database stopped answering, so halts, reach and texts were not looked at: see its status"
    except Exception:  # whatever is wrong with looking, the alert is on its way
        _log.exception("not_looked", alert=outcome.alert)
        text = "halts, reach and texts could not be looked at, and the log says why: see its status"
    return Accepted.of(outcome, (), [Finding(code="not_looked", severity="warning", message=text)])
