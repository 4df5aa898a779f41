"""`mingluo policy explain`: which way a message would leave and why, and who may send and approve it."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.cap import Geometry, load_regions, read_alert
from gateway.cli.frame import NO, AsJson, print_json, print_table, tell, wrong_use
from gateway.cli.lookup import At, Folder, choice, find_issuer, load_policy, moment

if TYPE_CHECKING:
    from gateway.model import Alert, Target
    from gateway.policy import Explanation, Issuer, Policy
    from gateway.regions import Regions


def explain(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="CAP 1.2 XML, its JSON form, or the national dialect.")
    ] = None,
    issuer: Annotated[str | None, typer.Option(metavar="ID", help="Id or CAP sender; default: the message's.")] = None,
    document: Annotated[
        str | None, typer.Option(help="Without a file: warning, evacuation, … (documents.csv).")
    ] = None,
    hazard: Annotated[str | None, typer.Option(metavar="CODE", help="Without a file: code of hazards.csv.")] = None,
    level: Annotated[str | None, typer.Option(help="Without a file: blue, yellow, orange or red.")] = None,
    area: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Without a file: county, township or village; repeat it.")
    ] = None,
    kind: Annotated[str, typer.Option(help="Without a file: Alert, Update, Cancel or Correction.")] = "Alert",
    response: Annotated[list[str] | None, typer.Option(help="Without a file: CAP responseType.")] = None,
    drill: Annotated[bool, typer.Option("--drill", help="Without a file: an exercise.")] = False,
    at: At = None,
    folder: Folder = None,
    geometry: Geometry = None,
    json: AsJson = False,
) -> None:
    """Say which way a message would leave and why, by which rows, and who may send and approve it.

    With a file, or with --document, --hazard, --level and --area; then without --issuer it only says who may send
    it. Knows the policy only: an update is judged without the versions before it, so it is never green here, and
    channels count as switched on. Ends with 1 if the message would be refused, or nobody may send it.

    Example: mingluo policy explain warning.xml

    Example: mingluo policy explain --issuer 411726-qxj --hazard 11B03 --level red --area 411726209
    """
    from gateway.policy import explain as explained
    from gateway.render import clean

    policy, regions, now = load_policy(folder), load_regions(geometry), moment(at)
    body = find_issuer(policy, issuer) if issuer else None
    if file:
        if document or hazard or level or area or response or drill:
            wrong_use("with a file, leave out --document, --hazard, --level, --area, --response and --drill")
        alert = read_alert(file)
        body = body or find_issuer(policy, alert.sender)
        resolution = regions.resolve(alert.areas, body.areas)
        targets, cut = policy.border(body, resolution.targets)
        doubts = [f"unresolved: {clean(name)}" for name in resolution.unresolved]
        doubts += [f"cut at the border: {regions.path_name(target.township)}" for target in cut]
    else:
        alert = _imagined(policy, body, now, document or "warning", hazard, level or "unknown", kind, response, drill)
        targets, doubts = _targets(regions, area), []
    if body is None:
        _who(policy, alert, targets, now, json)
        return
    told = explained(policy, alert, body, targets, now)
    if json:
        print_json({"allowed": told.allowed, "doubts": doubts, **_plain(asdict(told))})
    else:
        _show(policy, told, alert, body, regions, targets, doubts)
    if not told.allowed:
        raise typer.Exit(NO)


def _imagined(
    policy: Policy, issuer: Issuer | None, now: datetime, document: str, hazard: str | None, level: str, kind: str,
    response: list[str] | None, drill: bool,
) -> Alert:  # fmt: skip
    """Return the alert that the options describe."""
    from gateway.model import Alert, Document, Info, Kind, Level, Status

    if hazard is None:
        wrong_use("name a FILE, or --hazard with --level and --area; mingluo policy hazards lists the codes")
    code = hazard.upper()
    known = policy.hazard(code)
    event = known.zh if known else ""
    infos = (Info(event, "zh-CN", response_types=tuple(word.capitalize() for word in response or ())),)
    return Alert(
        issuer.sender if issuer else "", "explain", now, Status.EXERCISE if drill else Status.ACTUAL,
        choice("--kind", kind, Kind), choice("--document", document, Document), code, event,
        choice("--level", level, {one.name.lower(): one for one in Level}), infos,
    )  # fmt: skip


def _targets(regions: Regions, areas: list[str] | None) -> tuple[Target, ...]:
    """Return the townships the codes mean; a village narrows its township."""
    from gateway.model import Target

    if not areas:
        wrong_use("--area: name a county, township or village by its code; it may be repeated")
    found = []
    for area in areas:
        place = regions.get(area)
        if place and place.kind == "village":
            found.append(Target(place.parent, (place.code,)))
        elif townships := regions.under(area):
            found += [Target(one.code) for one in townships]
        else:
            wrong_use(f"--area: {regions.unknown([area])}")
    return regions.difference((), found)


def _who(policy: Policy, alert: Alert, targets: tuple[Target, ...], now: datetime, json: bool) -> None:
    """Say who may send it."""
    senders = policy.senders(alert, targets, now)
    if json:
        rows = [{"issuer": one.id, "name": one.name, "rows": found.rows} for one, found in senders]
        print_json({"senders": rows})
    else:
        print_table(("may send it", "id", "by"), ((one.name, one.id, "; ".join(found.rows)) for one, found in senders))
    if not senders:
        if not json:
            tell(
                "nobody may send it: no grant of authority.toml covers document, hazard, level, area and hour together"
            )
        raise typer.Exit(NO)


def _show(
    policy: Policy, told: Explanation, alert: Alert, issuer: Issuer, regions: Regions, targets: tuple[Target, ...],
    doubts: list[str],
) -> None:  # fmt: skip
    from gateway.render import clean

    known = policy.hazard(alert.event_code)
    places = "、".join(regions.path_name(target.township) for target in targets[:3])
    places += f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    name = policy.tables.document_by_kind[alert.document]
    what = f"{name.zh} ({name.en}), {alert.event_code} {known.zh if known else clean(alert.event)}"
    typer.echo(f"{issuer.name} ({issuer.id}): {what}, {alert.level.name.lower()}; {places or 'no place'}")
    typer.echo("\n".join([*told.verdict(), *doubts]))
    rows = ((leg.group, leg.channel, leg.lane, leg.when(), leg.row) for leg in told.legs)
    print_table(("to", "by", "lane", "start", "row"), rows)
    typer.echo("\n".join(told.rest()))


def _plain(value: Any) -> Any:
    """Return the data with times as ISO 8601."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value
