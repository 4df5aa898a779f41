"""`mingluo cap`: check, resolve, translate, write, sign, verify and make up messages, without a gateway."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.frame import (
    CANNOT,
    NO,
    AsJson,
    complain,
    load_settings,
    print_json,
    print_table,
    refuse,
    tell,
    wrong_use,
)
from gateway.cli.lookup import COLOURS, choice, find_hazard, load_policy

if TYPE_CHECKING:
    from gateway.cap import Finding, Trust
    from gateway.model import Alert, Resolution
    from gateway.regions import Regions

SAMPLE_COUNTY = "411726"
SAMPLE_TOWNSHIPS = ("411726204", "411726209")
SAMPLE_HAZARD = "11B03"
ENTRY = ("code", "element", "line", "message")

FORMS = "CAP 1.2 XML, its JSON form, or the national dialect."

Message = Annotated[Path, typer.Argument(metavar="FILE", help=FORMS)]
Geometry = Annotated[
    list[Path] | None, typer.Option(help="GeoJSON with township polygons; may be repeated. Default MINGLUO_GEOMETRY.")
]


class Form(StrEnum):
    """How a message is written."""

    NATIONAL = "national"
    CAP = "cap"
    JSON = "json"


def read_alert(path: Path) -> Alert:
    """Read a message; see `read_with_findings`."""
    return read_with_findings(path)[0]


def read_with_findings(path: Path) -> tuple[Alert, list[Finding]]:
    """Read a message and its warnings; says every error and ends with 1 where it has any.

    Raises:
        OSError: the file cannot be read.
        typer.Exit: the message is invalid.
    """
    from gateway import cap

    with path.open("rb") as file:
        alert, findings = cap.parse(file.read(cap.MAX_BYTES + 1))
    if alert is None:
        errors = [finding for finding in findings if finding.severity == "error"]
        places = [f"{e.element or 'message'}{f' (line {e.line})' if e.line else ''}" for e in errors]
        lines = [f"  {place}: {e.code}: {e.message}" for place, e in zip(places, errors, strict=True)]
        refuse("\n".join([f"{path}: not a valid message; mend what is named below", *lines]))
    return alert, findings


def load_regions(geometry: list[Path] | None) -> Regions:
    """Read the places, and shapes from `geometry` or the settings' own files."""
    from gateway.regions import Regions

    settings = load_settings(geometry=tuple(geometry) if geometry else None)
    return Regions.load(settings.config / "regions", settings.geometry)


def check(files: Annotated[list[Path], typer.Argument(metavar="FILE…", help=FORMS)]) -> None:
    """Check messages: one JSON line per file with file, valid and errors (code, element, line, message).

    Ends with 1 if any message is invalid, with 2 if a file cannot be read.

    Example: mingluo cap check tests/data/cap/*.xml
    """
    from gateway.cap import check as examine

    invalid = unreadable = False
    for path in files:
        try:
            result = examine(path)
        except OSError as error:
            complain(f"{path}: {error.strerror}; name a file that can be read")
            unreadable = True
            continue
        errors = [{name: entry[name] for name in ENTRY} for entry in result["errors"]]
        print_json({"file": result["file"], "valid": result["valid"], "errors": errors})
        invalid |= not result["valid"]
    if unreadable or invalid:
        raise typer.Exit(CANNOT if unreadable else NO)


def resolve(
    file: Message,
    within: Annotated[str, typer.Option(metavar="PREFIX", help="Code prefix of the issuer's area.")] = "4117",
    geometry: Geometry = None,
    json: AsJson = False,
) -> None:
    """Show the townships a message's areas mean, and how each was matched.

    Matched by: code, polygon, circle, name, county, touching (a polygon's edge only) or no_geometry (nobody has
    drawn the township). Ends with 1 if an area, or all of it, resolves to nothing.

    Example: mingluo cap resolve warning.xml --within 411726
    """
    alert, regions = read_alert(file), load_regions(geometry)
    if not regions.under(within):
        from gateway.errors import ConfigError
        from gateway.regions import LISTED

        raise ConfigError(f"--within {within}: no place has a code that begins so; {LISTED}")
    resolution = regions.resolve(alert.areas, [within])
    if json:
        targets = [{**asdict(target), "name": regions.path_name(target.township)} for target in resolution.targets]
        print_json({"file": str(file), "targets": targets, "unresolved": resolution.unresolved})
    else:
        _show(resolution, regions)
    if resolution.unresolved or not resolution.targets:
        raise typer.Exit(NO)


def _show(resolution: Resolution, regions: Regions) -> None:
    rows = []
    for target in resolution.targets:
        villages = "、".join(map(regions.name, target.villages)) or f"all {len(regions.villages(target.township))}"
        doubt = "coarse" if target.coarse else "" if target.certain else "uncertain"
        rows.append((target.township, regions.path_name(target.township), villages, target.how, doubt))
    print_table(("township", "name", "villages", "matched by", ""), rows)
    for name in resolution.unresolved:
        complain(f"unresolved: {name}; name its townships by code or by full name")
    if not resolution.targets:
        complain("no township is meant; add a geocode, a polygon or township names")


def write(file: Message) -> None:
    """Write a message as CAP 1.2 XML to standard output.

    Example: mingluo cap write warning.json > warning.xml
    """
    from gateway import cap

    typer.echo(cap.write(read_alert(file)))


def sign(file: Message) -> None:
    """Write a message as this installation would publish it, signed by its present key, to standard output.

    Example: mingluo cap sign warning.json > warning.xml
    """
    import asyncio

    from gateway.signer import Keys

    alert, keys, now = read_alert(file), Keys.load(load_settings().keys), datetime.now(UTC)
    if keys.active(now) is None:
        wrong_use("there is no key to sign with; make one: mingluo keys new NAME --subject …")
    typer.echo(asyncio.run(keys.publish(alert, now)))


def verify(
    file: Message,
    issuer: Annotated[
        str, typer.Option(metavar="ID", help="Id or CAP sender of the issuer; default: the message's own sender.")
    ] = "",
    cert: Annotated[
        list[Path] | None,
        typer.Option(metavar="PEM", help="Trust this certificate, not the policy's; may be repeated."),
    ] = None,
    at: Annotated[
        datetime | None, typer.Option(help="As if it were then (UTC); default: now.", formats=["%Y-%m-%dT%H:%M"])
    ] = None,
    json: AsJson = False,
) -> None:
    """Verify a message's signature as the API does, against the certificates pinned in trust.toml.

    Ends with 1 if it is unsigned or does not convince.

    Example: mingluo cap verify warning.xml --issuer 411726-qxj
    """
    from gateway import cap

    with file.open("rb") as opened:
        data = opened.read(cap.MAX_BYTES + 1)
    trust = _trust_in(cert) if cert else _trust(data, issuer)
    taken = cap.take(data, replace(trust, required=True), at.replace(tzinfo=UTC) if at else datetime.now(UTC))
    errors = [finding for finding in taken.findings if finding.severity == "error"]
    if json:
        told = [{"code": each.code, "message": each.message} for each in errors]
        print_json({"file": str(file), "valid": not errors, "signer": taken.signer, "errors": told})
    if errors and errors[0].code == "signature_missing" and not (cert or trust.required):
        refuse(f"{file}: signature_missing: it is unsigned; the gateway takes it all the same from {trust.sender}")
    if errors:
        refuse("\n".join(f"{file}: {each.code}: {each.message}" for each in errors))
    if not json:
        typer.echo(f"{file}: signed for {trust.sender} with the certificate {taken.signer}")


def _trust(data: bytes, issuer: str) -> Trust:
    """Return what the policy trusts for an issuer, or for the message's own sender."""
    from gateway import cap
    from gateway.policy import Policy

    policy = Policy.load(load_settings().config / "policy")
    alert = None if issuer else cap.parse(data)[0]
    body = policy.issuer(issuer or (alert.sender if alert else ""))
    if body is None:
        wrong_use(f"--issuer: name one of {', '.join(one.id for one in policy.issuers)}")
    return policy.trust(body)


def _trust_in(files: list[Path]) -> Trust:
    from gateway.cap import Trust
    from gateway.cap.certificate import from_pem, to_der

    try:
        pinned = [to_der(from_pem(path.read_text("utf-8", "replace"))) for path in files]
    except ValueError as error:
        wrong_use(f"--cert: {error}")
    return Trust("--cert", frozenset(pinned))


def pin(
    file: Annotated[Path, typer.Argument(metavar="PEM", help="The certificate, as the issuer gave it.")],
    issuer: Annotated[str, typer.Option(metavar="ID", help="Id of the issuer whose messages it signs.")],
    subject: Annotated[
        str, typer.Option(metavar="NAME", help="For an authority: the common name by which it vouches for the issuer.")
    ] = "",
) -> None:
    """Print a certificate's row for trust.toml; the fingerprint to compare by phone goes to standard error.

    Example: mingluo cap pin bureau.pem --issuer 411726-qxj >> config/policy/trust.toml
    """
    import json as form

    from pydantic import ValidationError

    from gateway.cap.certificate import common_name, fingerprint, from_pem, to_der
    from gateway.policy import Policy
    from gateway.policy.trust import Pin

    body = Policy.load(load_settings().config / "policy").issuer(issuer)
    if body is None:
        wrong_use(f"--issuer {issuer}: no such issuer in authority.toml")
    try:
        row = Pin(issuer=body.id, pem=file.read_text("utf-8", "replace"), subject=subject)
    except ValidationError as error:
        wrong_use(f"{file}: {error.errors()[0]['msg'].removeprefix('Value error, ')}")
    found = from_pem(row.pem)
    tell(f"{common_name(found) or 'no common name'}, valid until {found.not_valid_after_utc.isoformat()}")
    tell(f"Compare the fingerprint with {body.name} by phone before you pin it: {fingerprint(to_der(found))}")
    lines = ["[[pin]]", f'issuer = "{row.issuer}"']
    lines += [f"subject = {form.dumps(subject, ensure_ascii=False)}"] if subject else []
    typer.echo("\n".join([*lines, f'pem = """\n{row.pem}"""']))


def convert(file: Message, to: Annotated[Form, typer.Option(help="The form to write.")]) -> None:
    """Translate a message to standard output; what could not be carried is named on standard error.

    The national dialect (国突) is known from public examples only: interoperability unverified. Ends with 1 where a
    message has no form in it (it is not public, no warning, or without event code).

    Example: mingluo cap convert alert.xml --to national > 国突.xml
    """
    from gateway import cap

    alert, findings = read_with_findings(file)
    losses = [(found.element, found.message) for found in findings if found.code == "not_carried"]
    if to is Form.NATIONAL:
        try:
            written, further = cap.write_national(alert)
        except cap.Unwritable as error:
            refuse(f"{file}: cannot be written in the national dialect\n{error}")
        losses += further
    else:
        written = cap.write(alert) if to is Form.CAP else cap.to_json(alert)
    typer.echo(written)
    for element, message in losses:
        complain(f"not carried as it is: {element}: {message}")


def sample(
    township: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Township of 泌阳县; may be repeated. Default: two of them."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0.1, max=24, help="How long it holds.")] = 3.0,
    drill: Annotated[bool, typer.Option("--drill", help="Status Exercise instead of Actual.")] = False,
    hazard: Annotated[str, typer.Option(metavar="CODE", help="Code or name: 11B06, 大风.")] = SAMPLE_HAZARD,
    level: Annotated[str, typer.Option(help="blue, yellow, orange or red.")] = "red",
    document: Annotated[str, typer.Option(help="warning, joint_risk, response, evacuation …")] = "warning",
) -> None:
    """Write a warning of 泌阳县气象局, sent now, as CAP 1.2 XML: to try a simulation with.

    Default: a red rainstorm, which the green channel sends at once.

    Example: mingluo cap sample --hazard 11B06 --level blue > gale.xml
    """
    import json as form
    from datetime import timedelta, timezone

    from gateway import cap
    from gateway.model import Document, Level
    from gateway.regions import LISTED

    regions = load_regions(None)
    known = {one.code: one.name for one in regions.under(SAMPLE_COUNTY)}
    codes = township or list(SAMPLE_TOWNSHIPS)
    if wrong := [code for code in codes if code not in known]:
        wrong_use(f"--township {', '.join(wrong)}: not a township of {regions.name(SAMPLE_COUNTY)}; {LISTED}")
    named = "、".join(known[code] for code in codes)
    found = find_hazard(load_policy(None), hazard, "--hazard ")
    colour = choice("--level", level, {one.name.lower(): one for one in Level if one is not Level.UNKNOWN})
    now = datetime.now(timezone(timedelta(hours=8))).replace(microsecond=0)
    message = {
        "sender": "411726-qxj@mingluo.example", "identifier": f"41172641600000_{now:%Y%m%d%H%M%S}",
        "sent": now.isoformat(), "expires": (now + timedelta(hours=hours)).isoformat(),
        "status": "Exercise" if drill else "Actual", "kind": "Alert",
        "document": choice("--document", document, Document),
        "event_code": found.code, "event": found.zh, "level": colour.name.lower(),
        "headline": f"泌阳县气象台发布{found.zh}{COLOURS[colour.name.lower()]}色预警",
        "description": f"预计未来{hours:g}小时，{named}将出现{found.zh}。",
        "areas": [{"description": f"泌阳县{named}", "geocodes": {"township": codes}}],
    }  # fmt: skip
    if (found.code, colour) == (SAMPLE_HAZARD, Level.RED):
        message["description"] = f"预计未来3小时，{named}雨量将超过100毫米，山洪和地质灾害风险很高。"
        message["instruction"] = "立即转移危险区群众，远离河道和低洼处。"
    alert, findings = cap.parse(form.dumps(message).encode())
    if alert is None:
        refuse("\n".join(f"{one.code}: {one.message}" for one in findings if one.severity == "error"))
    typer.echo(cap.write(alert))


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="Check, resolve, translate, write, sign and verify messages, without a gateway.", no_args_is_help=True
    )
    for command in (check, resolve, write, convert, sign, verify, pin, sample):
        group.command()(command)
    app.add_typer(group, name="cap", rich_help_panel="Without a gateway")
