"""The policy in force: who may issue what, which way it leaves, through which channels, and when.

Loaded once and frozen; every question afterwards is pure. Intake asks `principal`, `issuer`, `border`, `authority`
and `route`; routing asks for plan rows and deferrals; confirm asks for the ladder. A policy is stored by its
digest, and every alert names the digest it was accepted under. Principals are asked of the policy in force only:
a stored one may still know a revoked token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import NamedTuple, Self

from gateway.cap import Trust
from gateway.errors import ConfigError
from gateway.model import Alert, Document, Group, Kind, Level, Notice, Status, Target
from gateway.policy import authority, hazard, reading, route
from gateway.policy.authority import Authority
from gateway.policy.hazard import CHINA
from gateway.policy.procedure import ProcedureFile
from gateway.policy.route import Route, Succession
from gateway.policy.table import Drill, Hazard, Issuer, PlanRow, Role, SpeakerRules, area_covers
from gateway.policy.tables import Tables


class Principal(NamedTuple):
    """A person behind a token. `issuer` is an issuer id; `demo` tokens open nothing outside simulation."""

    name: str
    role: Role
    issuer: str
    demo: bool = False


@dataclass(frozen=True)
class Policy:
    """All tables, and the questions asked of them."""

    tables: Tables

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and check every file of the folder as a whole.

        Raises:
            ConfigError: naming file, key and fix, one line per finding.
        """
        return cls(reading.read(folder))

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Read what `to_bytes` wrote.

        Raises:
            ConfigError: not a stored policy.
        """
        return cls(reading.parse(body))

    def to_bytes(self) -> bytes:
        """Return the canonical content, as it is stored under its digest."""
        return reading.canonical(self.tables)

    @cached_property
    def digest(self) -> str:
        """SHA-256 hex over the canonical content."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @cached_property
    def pools(self) -> dict[str, tuple[str, ...]]:
        """Channels of the plan that stand for several: their roads, in order of preference."""
        return {channel.name: channel.roads for channel in self.tables.plan.channel if channel.roads}

    def roads(self, channel: str) -> tuple[str, ...]:
        """Return the channels a name of the plan stands for: a pool's roads, or the channel itself."""
        return self.pools.get(channel, (channel,))

    def check_channels(self, existing: Collection[str]) -> None:
        """Refuse a plan that names a channel this installation does not have; roads of a pool may be missing.

        Raises:
            ConfigError: naming the channels.
        """
        missing = sorted({one.name for one in self.tables.plan.channel if not one.roads} - set(existing))
        if missing:
            raise ConfigError(f"plan.toml: channel: no such channel: {', '.join(missing)}; correct or remove the rows")

    def principal(self, token: str, *, simulation: bool = False) -> Principal | None:
        """Return the person behind a token. Demo tokens count in simulation only.

        It is looked up by its digest, so the answer's delay tells nothing of any token.
        """
        # A header may carry bytes that are no text; they are simply nobody's token.
        row = self.tables.token_by_digest.get(hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest())
        if row is None or (row.demo and not simulation):
            return None
        return Principal(row.name, row.role, row.issuer, row.demo)

    def person(self, actor: str, role: str) -> Principal | None:
        """Return who stands in the audit chain as "issuer/name", if they still hold a token of this role."""
        for row in self.tables.token_by_digest.values():
            if (f"{row.issuer}/{row.name}", row.role) == (actor, role):
                return Principal(row.name, row.role, row.issuer, row.demo)
        return None

    def issuer(self, name: str) -> Issuer | None:
        """Return an issuer by id or CAP sender."""
        return self.tables.issuer_by_name.get(name)

    def adopt(self, alert: Alert) -> Alert:
        """Return the alert with its senders by CAP name where it names them by their codes on the national platform.

        So one body is one sender, whichever dialect it speaks: versions find each other, and nobody is told twice.
        """

        def name(sender: str) -> str:
            body = self.issuer(sender)
            return body.sender if body and sender == body.national else sender

        references = tuple(one._replace(sender=name(one.sender)) for one in alert.references)
        sender = name(alert.sender)
        known = (sender, references) == (alert.sender, alert.references)
        return alert if known else replace(alert, sender=sender, references=references)

    @property
    def issuers(self) -> tuple[Issuer, ...]:
        """All issuers."""
        return self.tables.authority.issuer

    def trust(self, issuer: Issuer) -> Trust:
        """Return whose signatures count for an issuer."""
        return self.tables.trust_by_issuer[issuer.id]

    @property
    def signatures(self) -> dict[str, str]:
        """Registered signatures by issuer id and CAP sender: a message may name its sender by either."""
        return {name: issuer.signature for name, issuer in self.tables.issuer_by_name.items() if issuer.signature}

    def hazard(self, code: str) -> Hazard | None:
        """Return a hazard by its GB/T 35561 code."""
        return self.tables.hazard_by_code.get(code)

    def colours(self, code: str, issuer: Issuer, at: datetime) -> dict[Level, str] | None:
        """Return the colours that exist for a hazard where the issuer is, with their criteria; None: any."""
        return hazard.colours(self.tables, code, issuer.areas, at)

    def colour_exists(self, code: str, level: Level, issuer: Issuer, at: datetime) -> bool:
        """Whether the hazard knows this colour there and then; False for an unknown hazard."""
        known = self.hazard(code) is not None
        return known and not hazard.colour_finding(self.tables, code, level, issuer.areas, at)

    def border(self, issuer: Issuer, targets: Sequence[Target]) -> tuple[tuple[Target, ...], tuple[Target, ...]]:
        """Split targets into (kept, cut): uncertain ones beyond the issuer's border are cut (D26).

        A township only touched by a polygon is not claimed by the issuer, so cutting it is no refusal. Certain
        ones stay, and `authority` refuses them.
        """
        within = [target.certain or area_covers(issuer.areas, target) for target in targets]
        beyond = [not inside for inside in within]
        return tuple(compress(targets, within)), tuple(compress(targets, beyond))

    def authority(self, issuer: Issuer, alert: Alert, targets: Sequence[Target], now: datetime) -> Authority:
        """Judge whether the issuer may send this now: why not, naming the missing row, or through which channels."""
        return authority.judge(self.tables, issuer, alert, targets, now)

    def over_limit(self, issuer: Issuer, issued_last_hour: int) -> str:
        """Return the alarm's text when one more alert exceeds the issuer's hourly limit, else ""."""
        limits = self.tables.defaults.limits
        limit = limits.issuers.get(issuer.id, limits.alerts_per_hour)
        if issued_last_hour < limit:
            return ""
        return f"limit: {issuer.id} has issued {issued_last_hour} alerts within the hour, {limit} are usual"

    def route(
        self,
        alert: Alert,
        issuer: Issuer,
        targets: Sequence[Target],
        now: datetime,
        succession: Succession | None = None,
        issued_last_hour: int = 0,
        *,
        emergency: bool = False,
        signer: bool = False,
    ) -> Route:
        """Decide the way of an alert whose authority was found good.

        An update needs its `succession`; without one it cannot be shown to raise or extend anything, so it is
        never green. `emergency`: the regime is in force over its whole area (D8). `signer`: a signer hands it in (D7).
        """
        over_limit = self.over_limit(issuer, issued_last_hour)
        return route.decide(
            self.tables, alert, issuer, targets, now, succession, over_limit, emergency=emergency, signer=signer
        )

    def expires(self, alert: Alert) -> datetime:
        """Return the alert's own expiry, else the default for its kind, document and level."""
        if alert.expires is not None:
            return alert.expires
        row = next(row for row in self.tables.defaults.expires if row.covers(alert))
        return max(alert.sent, alert.effective or alert.sent) + timedelta(hours=row.hours)

    def deferral(
        self, document: Document, level: Level, group: Group, channel: str, notice: Notice, at: datetime
    ) -> datetime | None:
        """Return when a message of the quiet hours goes out instead, or None: it goes at once."""
        quiet, local = self.tables.quiet, at.astimezone(CHINA)
        if not quiet.quiet(local.time()) or quiet.row(document, level, group, channel, notice) is None:
            return None
        day = local.date() + timedelta(days=local.time() >= quiet.start)
        return datetime.combine(day, quiet.resume, CHINA).astimezone(at.tzinfo)

    def confirm_within_min(self, alert: Alert) -> int | None:
        """Return minutes per rung of the call-and-confirm ladder, or None: nobody is called.

        An end of a warning calls nobody; an exercise calls as the real thing would.
        """
        if alert.kind in (Kind.CANCEL, Kind.CORRECTION) or alert.status not in (Status.ACTUAL, Status.EXERCISE):
            return None
        found = self.tables.defaults.ladder(alert)
        return self.tables.defaults.confirm[found].within_min if found is not None else None

    def needs_confirmation(self, alert: Alert) -> bool:
        """Whether a person answerable for each village must confirm this alert (叫应)."""
        return self.confirm_within_min(alert) is not None

    def repeat_every_s(self, alert: Alert) -> int:
        """Return after how many seconds loudspeakers say it again until somebody has confirmed; 0: never.

        Only the real thing: a drill that goes on all morning is the next one nobody listens to.
        """
        if not alert.actual or alert.kind in (Kind.CANCEL, Kind.CORRECTION):
            return 0
        return next((row.every_s for row in self.tables.defaults.repeat if row.covers(alert)), 0)

    @property
    def procedure(self) -> ProcedureFile:
        """Stages, deputies, joint warnings, the emergency regime, and the duty room's clocks."""
        return self.tables.procedure

    def partners(self, alert: Alert, issuer: Issuer) -> tuple[Issuer, ...]:
        """Return the bodies a joint risk warning waits for."""
        return self.procedure.partners(alert, issuer, self.issuers)

    @property
    def review_within_min(self) -> int:
        """Minutes until a green alert must have been reviewed."""
        return self.tables.green.review_within_min

    @property
    def played_share(self) -> float:
        """Share of a village's loudspeakers that makes it played."""
        return self.tables.defaults.played_share

    @property
    def coarse_sends(self) -> bool:
        """Whether residents of a county-only match hear at once, too."""
        return self.tables.defaults.coarse_area == "send"

    def drill_hours(self, alert: Alert, now: datetime) -> str:
        """Return why no exercise is held at this hour, or ""."""
        return route.drill_hours(self.tables, alert, now)

    @property
    def drill(self) -> Drill:
        """The audience of everything that is not Actual."""
        return self.tables.defaults.drill

    @property
    def speakers(self) -> SpeakerRules:
        """When a loudspeaker counts as dead, and how loud it plays."""
        return self.tables.defaults.speakers

    def plan_rows(self, document: Document, level: Level, group: Group) -> tuple[PlanRow, ...]:
        """Return the plan's rows for a group, in order."""
        return self.tables.plan_rows(document, level, group)

    def senders(self, alert: Alert, targets: Sequence[Target], now: datetime) -> list[tuple[Issuer, Authority]]:
        """Return every issuer that may send such an alert there and then, with the grants that let it."""
        return authority.entitled(self.tables, alert, targets, now)
