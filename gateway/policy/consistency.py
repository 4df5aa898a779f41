"""What the policy's files say of each other: names that exist, rows that contradict, holes nobody would notice.

Called by `reading` on every policy, from files or from the store. What one row may say is checked in `table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from typing import TypeVar

from gateway.errors import ConfigError
from gateway.model import Document, Group, Level
from gateway.policy.table import BY_HAZARD, TOWNSHIP, ExpiresRow, Grant, Issuer, hazard_matches
from gateway.policy.tables import Tables

T = TypeVar("T", bound=Hashable)


def check(tables: Tables) -> Tables:
    """Return the tables once every name one file uses exists in the other.

    Raises:
        ConfigError: with one line per finding.
    """
    findings = [*_unique(tables), *_hazards_exist(tables), *_issuers_exist(tables), *_channels_exist(tables)]
    findings += _trust_is_whole(tables)
    findings += [*_levels_are_whole(tables), *_grants_are_lawful(tables), *_green_is_possible(tables)]
    findings += [*_plan_is_whole(tables), *_roads_are_apart(tables), *_registrations_are_clear(tables)]
    if findings:
        raise ConfigError("\n".join(findings))
    return tables


def _repeated(names: Iterable[T]) -> list[T]:
    return [name for name, count in Counter(names).items() if count > 1]


def _unique(tables: Tables) -> Iterator[str]:
    issuers = tables.authority.issuer
    for code in _repeated(hazard.code for hazard in tables.hazards):
        yield f"hazards.csv: {code}: listed twice; keep one row"
    for kind in _repeated(row.document for row in tables.documents):
        yield f"documents.csv: {kind}: listed twice; keep one row"
    for key in _repeated(key for issuer in issuers for key in (issuer.id, issuer.sender, issuer.national) if key):
        yield f"authority.toml: issuer: {key} is the id, sender or national code of two issuers; keep one"
    for name in _repeated(channel.name for channel in tables.plan.channel):
        yield f"plan.toml: channel: {name} is declared twice; keep one"
    for word in _repeated(f"{word} ({row.language})" for row in tables.lint.forbidden for word in row.words):
        yield f"lint.toml: forbidden: {word} stands in two places; keep one"
    if _repeated(token.sha256 for token in tables.tokens.token):
        yield "tokens.toml: token.sha256: one token stands for two persons; give each their own"


def _roads_are_apart(tables: Tables) -> Iterator[str]:
    """Refuse a road of two pools, or beside its pool: somebody would be told twice."""
    channels = tables.plan.channel
    roads = [road for channel in channels for road in channel.roads]
    for name in _repeated((*roads, *({channel.name for channel in channels} & set(roads)))):
        yield f"plan.toml: channel.roads: {name} is the road of one pool only, and no channel beside it; keep one"
    for channel in channels:
        for road in channel.roads:
            if not road.startswith(f"{channel.name}_"):
                yield f"plan.toml: channel.roads: {road}: a road of {channel.name} is named {channel.name}_…; remove it"


def _registrations_are_clear(tables: Tables) -> Iterator[str]:
    """Refuse two statuses of one signature, and one of nobody."""
    rows = tables.lint.signature
    for unit, account, port, carrier in _repeated((row.unit, row.account, row.port, row.carrier) for row in rows):
        where = f"{account} {port}".strip()
        yield f"lint.toml: signature: {unit} at {carrier} for {where} stands in two rows; keep one"
    for unit in sorted({row.unit for row in rows} - {issuer.id for issuer in tables.authority.issuer}):
        yield f"lint.toml: signature.unit: {unit} is no issuer of authority.toml; correct or remove the rows"


def _hazards_exist(tables: Tables) -> Iterator[str]:
    codes = tables.hazard_by_code
    named: list[tuple[str, str]] = [("green.toml: hazards", code) for code in tables.green.hazards]
    for issuer in tables.authority.issuer:
        named += [(f"authority.toml: issuer {issuer.id}", glob) for grant in issuer.grant for glob in grant.hazards]
    named += [("defaults.toml: confirm.hazards", glob) for row in tables.defaults.confirm for glob in row.hazards]
    named += [("procedure.toml: joint.hazards", glob) for row in tables.procedure.joint for glob in row.hazards]
    named += [("defaults.toml: levels.hazards", glob) for row in tables.defaults.levels for glob in row.hazards]
    named += [(f"levels.csv: {row.table} {row.version}", row.hazard) for row in tables.levels]
    for where, glob in named:
        if not any(hazard_matches(code, (glob,)) for code in codes):
            yield f"{where}: no hazard matches {glob}; add it to hazards.csv or correct the code"


def _issuers_exist(tables: Tables) -> Iterator[str]:
    ids = {issuer.id for issuer in tables.authority.issuer}
    for token in tables.tokens.token:
        if token.issuer not in ids:
            yield f"tokens.toml: token.issuer: {token.issuer} is not in authority.toml; correct the id"
    for name in tables.defaults.limits.issuers:
        if name not in ids:
            yield f"defaults.toml: limits.issuers: {name} is not in authority.toml; add the issuer or correct the id"
    procedure = tables.procedure
    named = [name for row in procedure.deputy for name in (row.issuer, *row.by)]
    for name in (*named, *procedure.emergency.starters):
        if name not in ids:
            yield f"procedure.toml: {name} is not in authority.toml; add the issuer or correct the id"
    bureaus = {one.bureau for one in tables.authority.issuer}
    for name in sorted({name for row in procedure.joint for name in row.bureaus} - bureaus):
        yield f"procedure.toml: joint.bureaus: no issuer of authority.toml is of bureau {name}; correct the name"
    for issuer in tables.authority.issuer:
        for prefix in issuer.ceiling:
            if not prefix.startswith(issuer.areas):
                yield (
                    f"authority.toml: issuer {issuer.id}: ceiling {prefix} lies outside its areas; "
                    "add it to areas or remove it"
                )


def _trust_is_whole(tables: Tables) -> Iterator[str]:
    ids = {issuer.id for issuer in tables.authority.issuer}
    required, pinned = {*tables.trust.required}, {pin.issuer for pin in tables.trust.pin}
    for key, names in (("required", required), ("pin.issuer", pinned)):
        for name in sorted(names - ids):
            yield f"trust.toml: {key}: {name} is not in authority.toml; correct the id"
    for name in sorted(required - pinned):
        yield f"trust.toml: required: {name} must sign, but no certificate is pinned for it; add a [[pin]] row"


def _channels_exist(tables: Tables) -> Iterator[str]:
    able = {channel.name: channel.groups for channel in tables.plan.channel}
    for row in tables.plan.row:
        for name in (*row.channels, *((row.fallback,) if row.fallback else ())):
            if name not in able:
                yield f"plan.toml: row.channels: {name} is not declared; add a [[channel]] row or correct the name"
            elif row.group not in able[name]:
                yield f"plan.toml: row.channels: {name} cannot serve {row.group}; use another channel"
    for issuer in tables.authority.issuer:
        for number, grant in enumerate(issuer.grant, 1):
            for name in grant.channels or ():
                if name not in able:
                    where = f"authority.toml: issuer {issuer.id}, grant {number}: channels"
                    yield f"{where}: {name} is not declared in plan.toml; add a [[channel]] row or correct the name"
    others = [("quiet.toml: defer.channels", name) for row in tables.quiet.defer for name in row.channels or ()]
    others += [("defaults.toml: drill.channels", name) for name in tables.defaults.drill.channels]
    for where, name in others:
        if name not in able:
            yield f"{where}: {name} is not declared in plan.toml; add a [[channel]] row or correct the name"


def _levels_are_whole(tables: Tables) -> Iterator[str]:
    """Refuse a table nobody wrote, versions that cannot be told apart, and a colour listed twice."""
    names = {row.table for row in tables.levels}
    for row in tables.defaults.levels:
        if row.table not in names:
            yield f"defaults.toml: levels.table: {row.table} is not in levels.csv; use {', '.join(sorted(names))}"
    starts = {(row.table, row.version, row.since) for row in tables.levels}
    for table, version in _repeated((table, version) for table, version, _ in starts):
        yield f"levels.csv: {table} {version}: has several days in since; a version begins on one day"
    for table, since in _repeated((table, since) for table, _, since in starts):
        yield f"levels.csv: {table}: two versions begin on {since}; correct since of one"
    for table, version, code, level in _repeated((r.table, r.version, r.hazard, r.level) for r in tables.levels):
        yield f"levels.csv: {table} {version}: {code} {level.name.lower()} is listed twice; keep one row"
    reached = {row.table for row in tables.defaults.levels}
    for code in sorted({row.hazard for row in tables.levels if row.table in reached}):
        if not any(hazard_matches(code, row.hazards) for row in tables.defaults.levels):
            yield f"defaults.toml: levels: no row says which table counts for {code}; add its hazard to one"


def _grants_are_lawful(tables: Tables) -> Iterator[str]:
    """Refuse a grant to a bureau that documents.csv or hazards.csv does not name, or wider than its issuer."""
    if missing := [kind for kind in Document if kind not in tables.document_by_kind]:
        yield f"documents.csv: {', '.join(missing)}: missing; add a row that says which bureaus may issue it"
        return
    for issuer in tables.authority.issuer:
        for number, grant in enumerate(issuer.grant, 1):
            where = f"authority.toml: issuer {issuer.id}, grant {number}"
            for prefix in grant.areas or ():
                if not prefix.startswith(issuer.areas):
                    yield f"{where}: area {prefix} lies outside the issuer's areas; add it there or remove it"
            yield from (f"{where}: {finding}" for finding in _unlawful(tables, issuer, grant))
        wide = [prefix for prefix in issuer.areas if len(prefix) < len("411726209")]
        if issuer.bureau == TOWNSHIP and wide:
            yield (
                f"authority.toml: issuer {issuer.id}: area {wide[0]} is wider than a township, which orders "
                "for its own villages only; use its 9-digit code"
            )


def _unlawful(tables: Tables, issuer: Issuer, grant: Grant) -> Iterator[str]:
    for kind in grant.documents:
        bureaus = tables.document_by_kind[kind].bureaus
        if BY_HAZARD not in bureaus:
            if issuer.bureau not in bureaus:
                who = "、".join(bureaus)
                yield f"{kind} is issued by {who} only, not by {issuer.bureau}; remove it, or correct documents.csv"
            continue
        for hazard in tables.hazards:
            if hazard_matches(hazard.code, grant.hazards) and issuer.bureau not in (*hazard.bureaus, *bureaus):
                who = "、".join(hazard.bureaus)
                yield (
                    f"{kind} of {hazard.code} {hazard.zh} is issued by {who} only, not by {issuer.bureau}; "
                    "narrow hazards, or correct hazards.csv"
                )
                break


def _green_is_possible(tables: Tables) -> Iterator[str]:
    """Refuse a pre-authorisation that opens nothing, and a green hazard that nobody may send green."""
    green, open_to = tables.green, set[str]()
    for issuer in tables.authority.issuer:
        grants = [grant for grant in issuer.grant if set(green.documents) & set(grant.documents)]
        codes = {code for code in green.hazards for grant in grants if hazard_matches(code, grant.hazards)}
        if issuer.green and not codes:
            yield (
                f"authority.toml: issuer {issuer.id}: green, but no grant covers a document and hazard of green.toml; "
                "remove green or add the grant"
            )
        open_to |= codes if issuer.green else set()
    for code in green.hazards:
        if open_to and code not in open_to:
            yield f"green.toml: hazards: {code}: no issuer with green = true may send it; remove it or add a grant"


def _plan_is_whole(tables: Tables) -> Iterator[str]:
    """Refuse holes (officials who would hear nothing) and doubles (people who would hear twice)."""
    for document in Document:
        for level in Level:
            rows = [row for row in tables.plan.row if row.covers(document, level)]
            where = f"plan.toml: row: {document} {level.name.lower()}"
            if not any(row.group is Group.OFFICIALS for row in rows):
                yield f"{where}: no row for officials; add one"
            served = [f"{row.group} by {name}" for row in rows for name in (*row.channels, row.fallback) if name]
            for double in _repeated(served):
                yield f"{where}: {double} in two rows; keep one"
    if tables.defaults.expires[-1] != ExpiresRow(hours=tables.defaults.expires[-1].hours):
        yield "defaults.toml: expires: the last row must match everything; end with a row that has hours only"
