"""Whether it would hold tonight: safety, rosters, loudspeakers, drills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from gateway.doctor.verdict import Facts, Severity, Verdict
from gateway.model import Condition, Group
from gateway.policy import Policy
from gateway.policy.hazard import CHINA
from gateway.regions import Regions

MANY_PERSONS = 1_000_000
SPREAD = 3  # counties named in one verdict


def safety(rules: Policy, facts: Facts) -> Iterator[Verdict]:
    """Check what must not be while real people are reached, and what stands still."""
    demo = sum(token.demo for token in rules.tables.tokens.token)
    if demo and facts.live:
        yield Verdict(
            "tokens", "error", f"{demo} demo tokens, whose texts are public, stand in tokens.toml while a channel is "
            "live", "delete every row with demo = true and restart",
        )  # fmt: skip
    elif demo:
        yield Verdict("tokens", "note", f"{demo} demo tokens open this simulation", "delete them before going live")
    if not any(token.role == "signer" for token in rules.tables.tokens.token):
        yield Verdict(
            "tokens", "error", "nobody is a signer: whatever is held would wait for ever",
            "add one: mingluo policy token --role signer --issuer ID --name NAME",
        )  # fmt: skip
    if facts.halted:
        names = ", ".join("all" if scope == "*" else scope for scope in sorted(facts.halted))
        yield Verdict("halt", "warning", f"halted: {names}; nothing leaves there", "release: mingluo halt SCOPE --off")
    if facts.restored:
        yield Verdict(
            "halt", "error", "the database was restored from a back-up, so everything is held",
            "mingluo list --standing active, recall what is over, then: mingluo halt all --off",
        )  # fmt: skip
    for name, code in sorted(facts.down.items()):
        yield Verdict(
            "channels", "error", f"{name}: the carrier serves nobody ({code or 'no code'})",
            "call the carrier; what waits for it and whom a fallback serves: mingluo stuck",
        )  # fmt: skip
    if facts.broken_audit:
        yield Verdict("audit", "error", facts.broken_audit, "keep the database as it is: it is evidence")


def rosters(facts: Facts, places: Regions) -> Iterator[Verdict]:
    """Check whom the directory knows, and which villages nobody would hear in."""
    for kind, number in facts.sizes.items():
        if number:
            yield Verdict("rosters", "ok", f"{number} {kind}")
        else:
            severity: Severity = "error" if kind == Group.OFFICIALS else "warning"
            table = "devices" if kind == Group.LOUDSPEAKERS else kind
            yield Verdict("rosters", severity, f"no {kind}", f"import them: mingluo import {table} FILE")
    villages = sum(one.kind == "village" for one in places.places.values())
    if facts.bare:
        counties = Counter(code[:6] for code in facts.bare).most_common()
        named = ", ".join(f"{places.name(code)} {number}" for code, number in counties[:SPREAD])
        more = f" and {len(counties) - SPREAD} counties more" if len(counties) > SPREAD else ""
        yield Verdict(
            "rosters", "warning", f"{len(facts.bare)} of {villages} villages have neither an official nor a "
            f"loudspeaker ({named}{more}): a warning would find nobody there",
            "complete officials.csv and devices.csv and import them again",
        )  # fmt: skip
    yield from _loudspeakers(facts)
    persons = sum(number for kind, number in facts.sizes.items() if kind != Group.LOUDSPEAKERS)
    if persons > MANY_PERSONS:
        yield Verdict(
            "personal data", "warning", f"{persons} persons: above {MANY_PERSONS} the law asks to register a person "
            "in charge of personal data", "register with the province's cyberspace administration",
        )  # fmt: skip


def _loudspeakers(facts: Facts) -> Iterator[Verdict]:
    """Say whether villages with loudspeakers would hear them."""
    if not facts.sizes.get(Group.LOUDSPEAKERS):
        return
    if facts.heard_at is None:
        yield Verdict("loudspeakers", "note", "none has ever been heard of; see that devices have their name and key")
        return
    having = sum(facts.heard.values()) - facts.heard.get(Condition.NONE, 0)
    dead = {one.value: facts.heard.get(one, 0) for one in (Condition.OFFLINE, Condition.FAULTY)}
    untested, at = facts.heard.get(Condition.UNTESTED, 0), f"{facts.heard_at.astimezone(CHINA):%Y-%m-%d %H:%M}"
    if mute := sum(dead.values()):
        named = ", ".join(f"{number} {why}" for why, number in dead.items() if number)
        yield Verdict(
            "loudspeakers", "warning", f"none works in {mute} of {having} villages that have one ({named}), as of {at}",
            "mingluo report devices names them: power, network, amplifier",
        )  # fmt: skip
    if untested:
        yield Verdict(
            "loudspeakers", "note", f"in {untested} villages nobody has heard one for too long",
            "hold a drill, or: mingluo speaker self-test --area CODE",
        )  # fmt: skip
    if not mute:
        yield Verdict("loudspeakers", "ok", f"one works in each of {having} villages that have any, as of {at}")


def drills(rules: Policy, facts: Facts, places: Regions, now: datetime) -> Iterator[Verdict]:
    """Name the counties that have held no drill for the policy's months (D19)."""
    months = rules.drill.every_months
    since = now - timedelta(days=months * 30.5)
    idle = [county for county, last in sorted(facts.drilled.items()) if months and (last is None or last < since)]
    if idle:
        named = ", ".join(places.name(county) for county in idle[:SPREAD])
        more = f" and {len(idle) - SPREAD} counties more" if len(idle) > SPREAD else ""
        yield Verdict(
            "drills", "warning", f"no drill was held for {months} months in {named}{more}",
            "plan one: mingluo drill plan AREA --at TIME",
        )  # fmt: skip
