"""The texts of a plan as they leave, and what lint finds in them. Rendered by the composer of the real run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.compose import SIGNED
from gateway.core import Core
from gateway.errors import ConfigError
from gateway.model import Alert, Document, Level, Plan, Step, Target
from gateway.planner import cut
from gateway.ports import Page
from gateway.preview.shape import Finding, Words
from gateway.render import segment_count, utf16_units

SHOWN = frozenset({"error", "warning"})


def texts(core: Core, alert: Alert, plan: Plan, previous: Alert | None) -> list[Words]:
    """Render one text per channel, group, notice and language, named and not named."""
    return [
        _words(core, alert, plan, previous, step, target) for step in _telling(plan.steps) for target in _examples(step)
    ]


async def texts_of(core: Core, alert: Alert, plan: Plan) -> list[Words]:
    """Return the texts of a stored alert."""
    return texts(core, alert, plan, await before(core, alert))


async def text_findings(core: Core, alert: Alert, plan: Plan) -> list[Finding]:
    """Return what an issuer should know of the texts of an accepted alert: one text per channel, group and notice.

    Cheap: the same renderings are the first the senders need, and they are kept.
    """
    previous = await before(core, alert)
    rendered = [_words(core, alert, plan, previous, step, _examples(step)[0]) for step in _telling(plan.steps)]
    return gathered(rendered)


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


def _examples(step: Step) -> list[Target]:
    """Return the first target that is named in its text, and the first that is not."""
    examples = {target.certain: target for target in reversed(step.audience.targets)}
    return [target for _, target in sorted(examples.items(), reverse=True)]


def _words(core: Core, alert: Alert, plan: Plan, previous: Alert | None, step: Step, target: Target) -> Words:
    # Nobody stands in this batch: it is rendered and never sent.
    batch = cut(alert.id, step, 0, Page(target.township, (0,), ("",), ("",)), 0)
    title = text = ""
    shortened: tuple[str, ...] = ()
    try:
        said = core.composer.rendered(alert, plan, previous, batch, (), again=False)
        title, text, shortened = said.title, said.text, said.cut
        urgent = alert.level is Level.RED or alert.document is Document.EVACUATION
        lint = core.renderer.check(alert, said, previous, core.policy.tables.lint, urgent=urgent)
        findings = list(map(Finding.on_text, lint))
    except ConfigError as error:
        findings = [_unrenderable(core, alert, batch.channel, error)]
    return Words(
        channel=batch.channel,
        group=batch.group,
        notice=batch.notice,
        language=batch.language,
        township=target.township,
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
