"""`mingluo keys`: the keys that sign what this installation publishes, and what its loudspeakers are told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from gateway.cli.frame import AsJson, load_settings, print_json, print_table, tell, wrong_use

Name = Annotated[str, typer.Argument(metavar="NAME", help="Small letters, digits and hyphens; for example 2027.")]
Begins = Annotated[
    datetime | None,
    typer.Option("--from", help="When it takes over (UTC); default: now.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"]),
]
YEARS = 2


def new(
    name: Name,
    subject: Annotated[str, typer.Option(metavar="NAME", help="Who publishes: the certificate's common name.")],
    begins: Begins = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How long its certificate holds.")] = 365 * YEARS,
) -> None:
    """Make a key (P-256) and print its certificate, for receivers to pin.

    It takes over at its time from the one before; give receivers the certificate earlier. Takes effect when the
    gateway starts the next time. In a cluster copy the folder keys to every api process.

    Example: mingluo keys new 2027 --subject 驻马店市预警发布中心 --from 2027-01-10
    """
    from gateway.cap.certificate import fingerprint, to_der, to_pem
    from gateway.signer import create

    if not subject.strip() or not subject.isprintable():
        wrong_use("--subject: write the publishing body's name in printable characters")
    starts = begins.replace(tzinfo=UTC) if begins else datetime.now(UTC).replace(microsecond=0)
    folder = load_settings().keys
    certificate = create(folder, name, subject.strip(), starts, days).certificates[0]
    tell(f"{folder / name}.key signs from {starts.isoformat()}, once the gateway has been restarted.")
    tell(f"Read its fingerprint to receivers by phone: {fingerprint(to_der(certificate))}\n")
    typer.echo(to_pem(certificate), nl=False)


def list_(json: AsJson = False) -> None:
    """List the keys: name, certificate's fingerprint and dates, and which one signs now.

    Example: mingluo keys list
    """
    from gateway.cap.certificate import fingerprint, to_der
    from gateway.errors import Refused
    from gateway.signer import Keys, read

    folder, now = load_settings().keys, datetime.now(UTC)
    try:
        active = Keys.load(folder).active(now)
    except Refused:
        active = None
    rows = []
    for entry in read(folder):
        own = entry.certificates[0]
        standing = "retired" if entry.key is None else "expired" if own.not_valid_after_utc < now else "waits"
        if active and entry.key and active.chain[0] == to_der(own):
            standing = "signs"
        dates = (own.not_valid_before_utc.isoformat(), own.not_valid_after_utc.isoformat())
        rows.append((entry.name, standing, *dates, fingerprint(to_der(own))))
    columns = ("name", "standing", "begins", "ends", "fingerprint")
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table(columns, rows)


def retire(name: Name) -> None:
    """Delete a key for good; its certificate stays published. Takes effect when the gateway starts the next time.

    Example: mingluo keys retire 2025
    """
    from gateway.signer import retire as delete

    delete(load_settings().keys, name)
    typer.echo(f"{name}: retired; what it signed is still verified with its certificate")


def device(
    new: Annotated[bool, typer.Option("--new", help="Make the next key.")] = False,
    begins: Begins = None,
    json: AsJson = False,
) -> None:
    """Show the public keys that loudspeakers pin, the youngest first, and make the next.

    Devices check with them what they are told to play, and keep up to two: pin the next one everywhere before it
    begins, and remove the file of the one before afterwards. A new key takes effect when the gateway starts the next
    time. In a cluster copy the folder keys to every hub process.

    Example: mingluo keys device --new --from 2027-01-10
    """
    from gateway.device_key import FIX, DeviceKeys, create

    folder, now = load_settings().device_keys, datetime.now(UTC)
    if begins is not None and not new:
        wrong_use("--from says when a new key begins; add --new")
    if new:
        made = create(folder, begins.replace(tzinfo=UTC) if begins else now)
        tell(
            f"{folder} has a new key, which signs from {made.begins.isoformat()}, once the gateway has been restarted."
        )
    keys = DeviceKeys.load(folder).keys
    if not keys:
        tell(f"There is no key yet; an embedded gateway makes one when it starts, a cluster waits for you: {FIX}")
    if json:
        print_json([{"begins": one.begins.isoformat(), "pin": one.pin, "jwk": one.jwk} for one in keys])
    else:
        print_table(("begins", "pin", "thumbprint"), [(one.begins.isoformat(), one.pin, one.id) for one in keys])


def add(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        help="The keys that sign what this installation publishes and what loudspeakers are told.", no_args_is_help=True
    )
    group.command("new")(new)
    group.command("list")(list_)
    group.command("retire")(retire)
    group.command("device")(device)
    app.add_typer(group, name="keys", rich_help_panel="This installation")
