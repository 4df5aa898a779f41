"""Read the policy's files, check them as a whole, and write them as canonical bytes.

Called by `Policy.load`, `to_bytes` and `from_bytes`. Every refusal names the file, the key and the fix; all
findings of one kind are reported together, so that an operator mends a file in one go.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gateway.errors import ConfigError
from gateway.model import Document, Group, Level
from gateway.policy.procedure import ProcedureFile
from gateway.policy.table import (
    AuthorityFile,
    DefaultsFile,
    ExpiresRow,
    GreenFile,
    Hazard,
    PlanFile,
    QuietFile,
    Table,
    TokensFile,
    hazard_matches,
)
from gateway.policy.tables import Tables
from gateway.policy.trust import TrustFile

T = TypeVar("T", bound=Table)

HAZARDS = "hazards.csv"
FILES: dict[str, type[Table]] = {
    "authority.toml": AuthorityFile,
    "tokens.toml": TokensFile,
    "green.toml": GreenFile,
    "plan.toml": PlanFile,
    "quiet.toml": QuietFile,
    "defaults.toml": DefaultsFile,
    "procedure.toml": ProcedureFile,
    "trust.toml": TrustFile,
}


def read(folder: Path) -> Tables:
    """Read and check every file of the folder.

    Raises:
        ConfigError: a file is missing, unknown or wrong, or files contradict each other.
    """
    _check_names(folder)
    parsed: dict[str, Any] = {"hazards": _read_hazards(folder / HAZARDS)}
    for name, model in FILES.items():
        parsed[name.removesuffix(".toml")] = _validate(name, model, _read_toml(folder / name))
    # Through the canonical form, so that what runs is what is stored.
    return parse(canonical(check(Tables(**parsed))))


def canonical(tables: Tables) -> bytes:
    """Return the content as bytes that do not depend on the order of files, keys, hazards or issuers."""
    content = tables.model_dump(mode="json", by_alias=True)
    content["hazards"].sort(key=lambda row: row["code"])
    content["authority"]["issuer"].sort(key=lambda row: row["id"])
    content["tokens"]["token"].sort(key=lambda row: row["sha256"])
    content["trust"]["required"].sort()
    content["trust"]["pin"].sort(key=lambda row: (row["issuer"], row["pem"], row["subject"]))
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def parse(body: bytes) -> Tables:
    """Read what `canonical` wrote.

    Raises:
        ConfigError: not a stored policy, or one this version no longer understands.
    """
    try:
        return check(Tables.model_validate_json(body))
    except ValidationError as error:
        raise ConfigError("\n".join(_findings("stored policy", Tables, error))) from None


def check(tables: Tables) -> Tables:
    """Return the tables once every name one file uses exists in the other.

    Raises:
        ConfigError: with one line per finding.
    """
    findings = [
        *_unique(tables),
        *_hazards_exist(tables),
        *_issuers_exist(tables),
        *_trust_is_whole(tables),
        *_channels_exist(tables),
    ]
    findings += _plan_is_whole(tables)
    if findings:
        raise ConfigError("\n".join(findings))
    return tables


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder.name}: no such folder; point the policy folder at config/policy")
    expected = {HAZARDS, *FILES}
    present = {path.name for path in folder.iterdir() if path.suffix in {".toml", ".csv"}}
    findings = [f"{name}: file is missing; copy it from the sample policy" for name in sorted(expected - present)]
    fix = f"rename it to one of {', '.join(sorted(expected))}, or remove it"
    findings += [f"{name}: unknown file; {fix}" for name in sorted(present - expected)]
    if findings:
        raise ConfigError("\n".join(findings))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8; save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not valid TOML: {error}; mend that line") from None


def _read_hazards(path: Path) -> tuple[Hazard, ...]:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name}: cannot be read ({type(error).__name__}); save it as UTF-8 CSV") from None
    hazards = []
    for number, row in enumerate(rows, start=2):
        if None in row:
            raise ConfigError(f"{path.name}:{number}: more cells than columns; quote cells that hold commas")
        hazards.append(_validate(f"{path.name}:{number}", Hazard, row))
    if not hazards:
        raise ConfigError(f"{path.name}: no hazards; copy the file from the sample policy")
    return tuple(hazards)


def _validate(name: str, model: type[T], content: dict[str, Any]) -> T:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(_findings(name, model, error))) from None


def _findings(name: str, model: type[BaseModel], error: ValidationError) -> Iterator[str]:
    """Yield "file: key: what is wrong; fix". Values are left out: a token's digest is nobody's business."""
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        if item["type"] == "extra_forbidden":
            known = _keys(model, item["loc"][:-1])
            near = get_close_matches(str(item["loc"][-1]), known, 1)
            fix = f"rename it to {near[0]}" if near else f"remove it, or use one of {', '.join(known)}"
            yield f"{name}: {key}: unknown key; {fix}"
        elif item["type"] == "missing":
            yield f"{name}: {key}: missing; add the key"
        else:
            # Our own checks name their fix; pydantic's only say what is wrong.
            fix = "" if item["type"] == "value_error" else "; correct the value"
            yield f"{name}: {key or 'the file'}: {item['msg'].removeprefix('Value error, ')}{fix}"


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys known at a location, by walking the annotations down to the model that holds it."""
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        inner = _inner(field.annotation) if field else None
        if inner is None:
            return []
        model = inner
    return [field.alias or name for name, field in model.model_fields.items()]


def _inner(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _inner(part))), None)


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _unique(tables: Tables) -> Iterator[str]:
    issuers = tables.authority.issuer
    for code in _repeated(hazard.code for hazard in tables.hazards):
        yield f"{HAZARDS}: {code}: listed twice; keep one row"
    for key in _repeated(key for issuer in issuers for key in (issuer.id, issuer.sender)):
        yield f"authority.toml: issuer: {key} is the id or sender of two issuers; keep one"
    for name in _repeated(channel.name for channel in tables.plan.channel):
        yield f"plan.toml: channel: {name} is declared twice; keep one"
    if _repeated(token.sha256 for token in tables.tokens.token):
        yield "tokens.toml: token.sha256: one token stands for two persons; give each their own"


def _hazards_exist(tables: Tables) -> Iterator[str]:
    codes = tables.hazard_by_code
    named: list[tuple[str, str]] = [("green.toml: hazards", code) for code in tables.green.hazards]
    for issuer in tables.authority.issuer:
        named += [(f"authority.toml: issuer {issuer.id}", glob) for grant in issuer.grant for glob in grant.hazards]
    named += [("defaults.toml: confirm.hazards", glob) for row in tables.defaults.confirm for glob in row.hazards]
    for where, glob in named:
        if not any(hazard_matches(code, (glob,)) for code in codes):
            yield f"{where}: no hazard matches {glob}; add it to {HAZARDS} or correct the code"


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
    others = [("quiet.toml: defer.channels", name) for row in tables.quiet.defer for name in row.channels or ()]
    others += [("defaults.toml: drill.channels", name) for name in tables.defaults.drill.channels]
    for where, name in others:
        if name not in able:
            yield f"{where}: {name} is not declared in plan.toml; add a [[channel]] row or correct the name"


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
