"""The texts of a plan as they leave, and what lint finds in them. Rendered by the composer of the real run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Literal, NamedTuple

from gateway.compose import SIGNED
from gateway.core import Core
from gateway.errors import ConfigError
from gateway.model import Alert, Document, Level, Notice, Plan, Step, Target
from gateway.planner import cut
from gateway.ports import Page
from gateway.preview.conflict import LOOKED_AT, overlap
from gateway.preview.shape import Finding, Words
from gateway.render import segment_count, utf16_units
from gateway.standing import Standing
from gateway.telling import voices

SHOWN = frozenset({"error", "warning"})


def texts(core: Core, alert: Alert, plan: Plan, previous: Alert | None) -> list[Words]:
    """Render one text per channel, group, notice and language, named and not named, by each info that differs."""
    return [
        _words(core, alert, plan, previous, step, example)
        for step in _telling(plan.steps)
        for example in _examples(core, alert, plan, step)
    ]


async def texts_of(core: Core, alert: Alert, plan: Plan) -> list[Words]:
    """Return the texts of a stored alert."""
    return texts(core, alert, plan, await before(core, alert))


async def text_findings(core: Core, alert: Alert, plan: Plan) -> list[Finding]:
    """Return what an issuer should know of the texts of an accepted alert: one per channel, group, notice and info.

    Cheap: the same renderings are the first the senders need, and they are kept.
    """
    previous = await before(core, alert)
    rendered = []
    for step in _telling(plan.steps):
        examples = {one.info: one for one in reversed(_examples(core, alert, plan, step))}
        rendered += [_words(core, alert, plan, previous, step, one) for one in examples.values()]
    return [*gathered(rendered), *unregistered(core, alert, plan), *await same_text(core, alert, plan, rendered)]


def unregistered(core: Core, alert: Alert, plan: Plan) -> list[Finding]:
    """Say which carriers would refuse the issuer's signature on a road of the plan (D11)."""
    issuer = core.policy.issuer(alert.sender)
    pools = dict.fromkeys(step.audience.channel for step in plan.steps if step.audience.channel in core.policy.pools)
    roads = [road for pool in pools for road in core.policy.roads(pool) if road in core.channels]
    found = []
    for road in roads if issuer else ():
        lacks = core.policy.tables.lint.unregistered(issuer.id if issuer else "", road, core.channels[road].carriers)
        if lacks:
            stands = ", ".join(f"{carrier} ({status})" for carrier, status in lacks.items())
            text = f"{road}: the signature is not registered at {stands}: these texts are refused; see lint.toml"
            found.append(Finding(code="signature_unregistered", severity=_grave(alert), message=text))
    return found


async def same_text(core: Core, alert: Alert, plan: Plan, rendered: Sequence[Words]) -> list[Finding]:
    """Say so where the same people had the very same SMS a short while ago: carriers take the second for spam."""
    mine = {(one.channel, one.text) for one in rendered if one.text and one.channel.startswith(SIGNED)}
    since = core.clock.now() - timedelta(minutes=core.policy.tables.lint.same_text_min)
    rows = await core.store.outbox.in_force(core.clock.now(), LOOKED_AT) if mine else []
    for row in rows:
        recent = row.alert.id != alert.id and row.standing == Standing.ACTIVE and row.accepted_at > since
        if not recent or not overlap((*plan.targets, *plan.leaving), (*row.plan.targets, *row.plan.leaving)):
            continue
        theirs = {(one.channel, one.text) for one in await texts_of(core, row.alert, row.plan)}
        if both := sorted({channel for channel, _ in mine & theirs}):
            minutes = max(1, round((core.clock.now() - row.accepted_at).total_seconds() / 60))
            text = (
                f"{', '.join(both)}: {row.alert.id} told the same people the very same {minutes} minutes ago, and "
                "carriers block the second: say what is new"
            )
            return [Finding(code="same_text", severity=_grave(alert), message=text)]
    return []


def _grave(alert: Alert) -> Literal["error", "warning"]:
    """Nobody should stop to mend a red warning or an evacuation instruction."""
    return "warning" if _urgent(alert) else "error"


def _urgent(alert: Alert) -> bool:
    return alert.level is Level.RED or alert.document is Document.EVACUATION


def gathered(rendered: Sequence[Words]) -> list[Finding]:
    """Merge the findings of several texts: each once, with the texts it stands in. What only informs is left out."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for words in rendered:
        for one in words.findings:
            if one.severity in SHOWN:
                names = where.setdefault((one.code, one.severity, one.message), [])
                names += [name] if (name := f"{words.channel} to {words.group}") not in names else []
    return [
        Finding(code=code, severity=severity, message=f"{', '.join(names)}: {message}")
        for (code, severity, message), names in where.items()
    ]


async def before(core: Core, alert: Alert) -> Alert | None:
    """The newest version this one names, live or not: a mistake that was stopped is still corrected by name."""
    rows = [row for one in alert.references for row in await core.store.outbox.find(one.sender, one.identifier)]
    newest = max(rows, key=lambda row: row.accepted_at, default=None)
    return newest.alert if newest else None


def _telling(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield one step per channel, group, notice and language: further ones say the same."""
    seen = set()
    for step in steps:
        key = (step.audience.channel, step.audience.group, step.notice, step.audience.language)
        if key not in seen:
            seen.add(key)
            yield step


class _Example(NamedTuple):
    """A place whose text stands for all like it. `info` counts from 1; 0: the language has but one thing to say."""

    target: Target
    village: str = ""
    info: int = 0


def _examples(core: Core, alert: Alert, plan: Plan, step: Step) -> list[_Example]:
    """Return the first place that is named in its text, and the first that is not, by each info that differs."""
    found: dict[tuple[bool, int], _Example] = {}
    language = core.renderer.language(step.audience.channel, step.audience.language)
    for target in step.audience.targets:
        villages: Sequence[str] = ("",)
        if any(one.villages for part in plan.parts for one in part if one.township == target.township):
            villages = target.villages or [one.code for one in core.regions.villages(target.township)] or ("",)
        for village in villages:
            # Who left the area is told by none of them; see `GatewayComposer.rendered`.
            parts = () if step.notice is Notice.PARTIAL_ALL_CLEAR else plan.parts
            told = voices(alert, parts, language, (village or target.township,))
            info = told[0][0] + 1 if told else 0
            found.setdefault((not target.certain, info), _Example(target, village, info))
    return [found[key] for key in sorted(found)]


def _words(core: Core, alert: Alert, plan: Plan, previous: Alert | None, step: Step, example: _Example) -> Words:
    # Nobody stands in this batch: it is rendered and never sent.
    target = example.target
    batch = cut(alert.id, step, 0, Page(target.township, (0,), ("",), (example.village,)), 0)
    title = text = ""
    shortened: tuple[str, ...] = ()
    try:
        said = core.composer.rendered(alert, plan, previous, batch, (), home=example.village, again=False)
        title, text, shortened = said.title, said.text, said.cut
        lint = core.renderer.check(alert, said, previous, core.policy.tables.lint, urgent=_urgent(alert))
        findings = list(map(Finding.on_text, lint))
    except ConfigError as error:
        findings = [_unrenderable(core, alert, batch.channel, error)]
    return Words(
        channel=batch.channel,
        group=batch.group,
        notice=batch.notice,
        language=batch.language,
        township=target.township,
        village=example.village,
        info=example.info,
        title=title,
        text=text,
        units=utf16_units(text),
        segments=segment_count(text),
        cut=list(shortened),
        findings=findings,
    )


def _unrenderable(core: Core, alert: Alert, channel: str, error: ConfigError) -> Finding:
    if channel.startswith(SIGNED) and alert.sender not in core.policy.signatures:
        text = "no signature is registered for the issuer: none of these leaves; write it into authority.toml"
        return Finding(code="signature_unregistered", severity="error", message=text)
    return Finding(code="unrenderable", severity="error", message=f"none of these leaves: {error}")
