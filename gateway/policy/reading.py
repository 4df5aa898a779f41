"""Read the policy's files, check them as a whole, and write them as canonical bytes.

Called by `Policy.load`, `to_bytes` and `from_bytes`. Every refusal names the file, the key and the fix; all
findings of one kind are reported together, so that an operator mends a file in one go.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from gateway.errors import ConfigError
from gateway.policy.consistency import check
from gateway.policy.procedure import ProcedureFile
from gateway.policy.table import (
    AuthorityFile,
    DefaultsFile,
    DocumentRow,
    GreenFile,
    Hazard,
    LevelRow,
    PlanFile,
    QuietFile,
    Table,
    TokensFile,
)
from gateway.policy.tables import Tables
from gateway.policy.trust import TrustFile
from gateway.policy.wording import LintFile

T = TypeVar("T", bound=Table)

ROWS: dict[str, type[Table]] = {"hazards.csv": Hazard, "levels.csv": LevelRow, "documents.csv": DocumentRow}
FILES: dict[str, type[Table]] = {
    "authority.toml": AuthorityFile,
    "tokens.toml": TokensFile,
    "green.toml": GreenFile,
    "plan.toml": PlanFile,
    "quiet.toml": QuietFile,
    "defaults.toml": DefaultsFile,
    "procedure.toml": ProcedureFile,
    "trust.toml": TrustFile,
    "lint.toml": LintFile,
}


def read(folder: Path) -> Tables:
    """Read and check every file of the folder.

    Raises:
        ConfigError: a file is missing, unknown or wrong, or files contradict each other.
    """
    _check_names(folder)
    parsed: dict[str, Any] = {name.removesuffix(".csv"): _read_csv(folder / name, ROWS[name]) for name in ROWS}
    for name, model in FILES.items():
        parsed[name.removesuffix(".toml")] = _validate(name, model, _read_toml(folder / name))
    # Through the canonical form, so that what runs is what is stored.
    return parse(canonical(check(Tables(**parsed))))


def canonical(tables: Tables) -> bytes:
    """Return the content as bytes that do not depend on the order of files, keys, CSV rows or issuers."""
    content = tables.model_dump(mode="json", by_alias=True)
    content["hazards"].sort(key=lambda row: row["code"])
    content["levels"].sort(key=lambda row: (row["table"], row["since"], row["hazard"], row["level"]))
    content["documents"].sort(key=lambda row: row["document"])
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


def _check_names(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{folder.name}: no such folder; point the policy folder at config/policy")
    expected = {*ROWS, *FILES}
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


def _read_csv(path: Path, model: type[T]) -> tuple[T, ...]:
    """Read rows under the model's own columns; lines that begin with # are comments."""
    try:
        lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
        kept = [(number, line) for number, line in lines if line.strip() and not line.startswith("#")]
        reader = csv.DictReader((line for _, line in kept), strict=True)
        _check_columns(f"{path.name}:{kept[0][0]}" if kept else path.name, list(reader.fieldnames or ()), model)
        rows = [(f"{path.name}:{kept[reader.line_num - 1][0]}", row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name}: cannot be read ({type(error).__name__}); save it as UTF-8 CSV") from None
    if not rows:
        raise ConfigError(f"{path.name}: no rows; copy the file from the sample policy")
    for where, row in rows:
        if None in row or None in row.values():
            raise ConfigError(
                f"{where}: expected {len(model.model_fields)} cells; add the empty ones, quote cells that hold commas"
            )
    return tuple(_validate(where, model, row) for where, row in rows)


def _check_columns(where: str, columns: list[str], model: type[Table]) -> None:
    known = list(model.model_fields)
    for column in columns:
        if columns.count(column) > 1:
            raise ConfigError(f"{where}: column {column} is there twice; remove one")
        if column not in known:
            near = get_close_matches(column, known, 1)
            fix = f"rename it to {near[0]}" if near else f"remove it, or use one of {', '.join(known)}"
            raise ConfigError(f"{where}: {column}: unknown column; {fix}")
    if missing := [column for column in known if column not in columns]:
        raise ConfigError(f"{where}: missing column {', '.join(missing)}; add it to the first line")


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
