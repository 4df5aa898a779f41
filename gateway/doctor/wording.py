"""Every text the plan can ask for, rendered and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta

from gateway.channel import Channel
from gateway.doctor.verdict import Verdict
from gateway.errors import ConfigError
from gateway.model import Alert, Document, Group, Info, Kind, Level, Notice, Status
from gateway.policy import Policy
from gateway.regions import Regions
from gateway.render import Renderer

SIGNED = "sms"  # channels of this family carry the registered signature
SEGMENT = 70  # UTF-16 units of one SMS
ENDINGS = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR})


def templates(
    renderer: Renderer, choose: Callable[[str, str], tuple[str, str]], rules: Policy, enabled: Mapping[str, Channel],
    places: Regions,
) -> Iterator[Verdict]:  # fmt: skip
    """Render every text the plan can ask for, with the longest signature and the longest name of a township.

    `choose` names the template of a channel and language, as `(language, file)`.
    """
    wrong, doubtful, long = Counter[str](), Counter[str](), Counter[str]()
    number = 0
    for name in sorted(enabled):
        if choose(name, "zh")[1].startswith("zh/default."):
            yield Verdict(
                "templates", "warning", f"{name} has no template of its own and uses the default",
                f"add templates/zh/{name}.txt and have the issuing bureau approve it",
            )  # fmt: skip
    for channel, group, language, notice, alert, before in _texts(rules, enabled):
        number += 1
        limit = enabled[channel].text_limit
        place = max((one.code for one in places.under("")), key=lambda code: len(places.name(code)), default="")
        try:
            said = renderer.text(
                alert, notice=notice, channel=channel, group=group, language=language, places=(place,) if place else (),
                limit=SEGMENT if channel.startswith(SIGNED) else limit, signed=channel.startswith(SIGNED),
                previous=before, confirm=group is Group.OFFICIALS and enabled[channel].takes_replies,
            )  # fmt: skip
        except ConfigError as error:
            wrong[str(error)] += 1
            continue
        if len(said.text.encode("utf-16-le")) // 2 > limit:
            wrong[f"{channel}: {alert.document} {notice} {group} is longer than the channel takes ({limit})"] += 1
        elif channel.startswith(SIGNED) and said.segments > 1:
            long[channel] += 1
        for finding in renderer.check(alert, said, before, rules.tables.lint):
            found = {"error": wrong, "warning": doubtful}.get(finding.severity)
            if found is not None:
                found[f"{channel}: {alert.document} {notice} {group}: {finding.detail}"] += 1
    yield from _judged(wrong, doubtful, long)
    if not wrong:
        yield Verdict("templates", "ok", f"{number} texts rendered, digest {renderer.digest[:12]}")


def _judged(wrong: Counter[str], doubtful: Counter[str], long: Counter[str]) -> Iterator[Verdict]:
    for text, times in wrong.items():
        yield Verdict("templates", "error", f"{text} ({times} times)", "mend the template under templates/")
    for text, times in doubtful.items():
        yield Verdict("templates", "warning", f"{text} ({times} times)", "look at the template under templates/")
    for channel, times in long.items():
        yield Verdict("templates", "note", f"{channel}: {times} of the sample texts take more than one SMS segment")


def _texts(rules: Policy, enabled: Collection[str]) -> Iterator[tuple[str, Group, str, Notice, Alert, Alert | None]]:
    """Yield (channel, group, language, notice, alert, alert before) for whatever the plan can ask for."""
    signer = max(rules.issuers, key=lambda issuer: len(issuer.signature))
    for row in rules.tables.plan.row:
        asked = (name for name in (*row.channels, row.fallback) if name)
        names = [road for name in asked for road in rules.roads(name) if road in enabled]
        for name in dict.fromkeys(names):
            for language in row.languages:
                for document in row.documents:
                    for level in row.levels:
                        for notice in Notice:
                            alert, before = _sample(signer.sender, document, level, notice)
                            yield name, row.group, language, notice, alert, before


def _sample(sender: str, document: Document, level: Level, notice: Notice) -> tuple[Alert, Alert | None]:
    """Return a message of this kind, and the one it follows."""
    kinds = {Notice.ISSUE: Kind.ALERT, Notice.CORRECTION: Kind.CORRECTION, Notice.ALL_CLEAR: Kind.CANCEL}
    kind = kinds.get(notice, Kind.UPDATE)
    at = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)
    trend = "预计未来3小时，部分乡镇雨量将超过100毫米，山洪和地质灾害风险很高。"
    told = (
        Info("暴雨", "zh-CN", description=trend, instruction="立即转移危险区群众，远离河道和低洼处。"),
        Info("rainstorm", "en", description="More than 100 mm of rain", instruction="Move out of danger zones at once"),
    )
    bare = (Info("暴雨", "zh-CN"),)

    def version(of: Kind, when: datetime, infos: tuple[Info, ...]) -> Alert:
        return Alert(
            sender, f"doctor-{of}", when, Status.ACTUAL, of, document, "11B03", "暴雨", level,
            infos=infos, effective=when, expires=when + timedelta(hours=6),
        )  # fmt: skip

    if kind is Kind.ALERT:
        return version(kind, at, told), None
    ends = notice in ENDINGS or kind is Kind.CORRECTION
    return version(kind, at + timedelta(hours=1), bare if ends else told), version(Kind.ALERT, at, told)
