"""Write docs/lifecycle.md from the state machine in `gateway.standing`. Run: .venv/bin/python ops/make_lifecycle.py."""

from __future__ import annotations

from pathlib import Path

from gateway.obligation import RULES
from gateway.standing import OWN, ROLES, STAGES, TRANSITIONS, WRITERS, Event, Standing

PAGE = Path(__file__).parent.parent / "docs" / "lifecycle.md"
STANDINGS = {
    Standing.DRAFT: "编辑 · being written; nobody is asked yet",
    Standing.SUPPRESSED: "归并 · says what a live alert says already; shown, and can be let go",
    Standing.PARTNER: "会签 · a joint warning waits for the other bureau, ten minutes, five for red",
    Standing.REVIEW: "审核 · waits for a reviewer",
    Standing.SIGN: "签发 · waits for a signer",
    Standing.RETURNED: "退回 · back with its writer, and why",
    Standing.REJECTED: "否决、撤回 · never sent",
    Standing.ACTIVE: "已发布 · on its way, or in force",
    Standing.STOPPED: "结束 · updated, ended, corrected, recalled or expired",
}
EVENTS = {
    Event.AMEND: "the writer stores another wording",
    Event.SUBMIT: "the writer hands it on",
    Event.RELEASE: "a near-duplicate is sent all the same",
    Event.JOIN: "the last partner agrees, or its word by telephone is written down",
    Event.ALONE: "published under the own name, the partner having been waited for",
    Event.APPROVE: "reviewed, or signed",
    Event.AUTHORISE: "authorised by telephone; countersigned later",
    Event.RETURN: "back to the writer, with a reason",
    Event.REJECT: "ended by a second person",
    Event.WITHDRAW: "taken back by the writer",
    Event.COUNTERSIGN: "the part of an active alert that waited goes out as well",
    Event.NUMBER: "the approval number (审批号) came: the area request that waited for it goes out",
    Event.RECALL: "nothing more leaves",
    Event.REPLACE: "an update, all-clear, correction or (for a drill) a real warning takes its place",
    Event.EXPIRE: "its time is over",
}
BEGINS = """\
    [*] --> active: green channel, emergency regime, a signer's correction, sealed code
    [*] --> suppressed: near-duplicate
    [*] --> partner: joint warning
    [*] --> review: normal
    [*] --> sign: normal, drill, held
    [*] --> draft: draft"""


def arrows() -> list[str]:
    """Return the arrows of the drawing: one for each pair of standings, with every event that leads along it."""
    along: dict[tuple[str, str], list[str]] = {}
    for (standing, event), to in TRANSITIONS.items():
        for target in _targets(standing) if to is None else [to]:
            along.setdefault((standing, target), []).append(event)
    return [f"    {standing} --> {target}: {', '.join(events)}" for (standing, target), events in along.items()]


def _targets(standing: Standing) -> list[Standing]:
    """Where "on to the next stage" may lead."""
    later = STAGES[STAGES.index(standing) + 1 :] if standing in STAGES else STAGES
    return [*later, Standing.ACTIVE]


def who(standing: Standing, event: Event) -> str:
    """Return who may."""
    if event in (Event.EXPIRE, Event.REPLACE):
        return "the gateway"
    if event is Event.JOIN:
        return "the partner's own people"
    if event in (Event.AMEND, Event.SUBMIT, Event.WITHDRAW):
        return "its writer"
    roles = ", ".join(sorted(ROLES.get((standing, event), WRITERS)))
    return roles if event in OWN else f"{roles}; not its writer"


def page() -> str:
    """Return the page."""
    lines = [
        "# The life of a warning",
        "",
        "Drawn from the one state machine, `gateway/standing.py`, by `ops/make_lifecycle.py`; a test keeps it so.",
        "Every decision is one transaction, stands in the audit chain, and is listed by `mingluo life ID`.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        BEGINS,
        *arrows(),
        "    rejected --> [*]",
        "    stopped --> [*]",
        "```",
        "",
        "| stands at | means |",
        "| --- | --- |",
        *(f"| {standing} | {text} |" for standing, text in STANDINGS.items()),
        "",
        "| event | means | where, and who |",
        "| --- | --- | --- |",
    ]
    for event, text in EVENTS.items():
        places: dict[str, list[str]] = {}
        for standing, found in TRANSITIONS:
            if found is event:
                places.setdefault(who(standing, event), []).append(standing)
        where = "; ".join(f"{', '.join(standings)}: {name}" for name, standings in places.items())
        lines.append(f"| {event} | {text} | {where} |")
    lines += [
        "",
        "A signer who has reviewed an alert does not sign it as well. An absent signer's deputy (`procedure.toml`) may",
        "act once the time of its approval row is over.",
        "",
        "## What the duty room owes",
        "",
        "| obligation | answered by | with |",
        "| --- | --- | --- |",
        *(
            f"| {kind} | {', '.join(sorted(rule.roles))} | {', '.join(rule.answers)}"
            f"{' and a remark' if rule.remark else ''} |"
            for kind, rule in RULES.items()
        ),
        "",
        "From its due time on an obligation rings every five minutes (deputy and incident: every minute) until it is",
        "answered: `mingluo duty`.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf8")
