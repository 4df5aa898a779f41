"""A county's roster as CSV with a BOM, page by page, so that it can be read, mended and imported again as it is.

Called by the command line, which writes the audit record. Codes end in a tab: spreadsheets then keep the twelve digits
as text instead of rounding them. What a spreadsheet would run as a formula gets an apostrophe before it; the import
takes both off again.
**Source:** OWASP, CSV Injection.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TextIO

from gateway.carrier import Known
from gateway.database import Database
from gateway.directory.row import BASES, NETWORKS, ROLES
from gateway.directory.table import COLUMNS, Roster
from gateway.directory.vault import Vault, decode_secret
from gateway.transaction import Row, Tx

BOM = "\ufeff"
PAGE = 5_000
FORMULA = ("=", "+", "-", "@", "'", "\t", "\r")
EXPORTED = {
    Roster.OFFICIALS: ("name", "phone", "township", "village", "role", "rank", "deputy", "carrier"),
    Roster.RESIDENTS: ("name", "phone", "village", "basis", "needs_helper", "carrier"),
    Roster.SUBSCRIBERS: ("name", "subscription", "area", "language"),
    Roster.DEVICES: ("name", "village", "key_hash", "channel"),
}
_Place = tuple[str, str, int, str]


def neutral(cell: str) -> str:
    """Return a cell no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


async def export(database: Database, vault: Vault, kind: Roster, county: str, out: TextIO) -> int:
    """Write everybody of a kind who has a place below a code; return the number of rows.

    Raises:
        ConfigError: the rows were sealed with another secret.
    """
    out.write(BOM)
    writer = csv.writer(out)
    names = EXPORTED[kind]
    writer.writerow(COLUMNS[kind][name][0] for name in names)
    number = 0
    after: _Place | None = ("", "", 0, "")
    while after is not None:
        rows, after = await database.read(partial(_page, kind=kind, county=county, after=after), 60.0)
        writer.writerows([neutral(cell) for cell in row] for row in _cells(kind, vault, rows))
        number += len(rows)
    return number


def _page(tx: Tx, *, kind: Roster, county: str, after: _Place) -> tuple[list[Row], _Place | None]:
    columns = (
        "village, village, id, '', name, key_hash, channel FROM device WHERE standing = 'service'"
        if kind is Roster.DEVICES
        else "p.township, p.village, p.person, p.role, r.secret, r.basis, r.needs_helper, r.language, r.carrier,"
        " (SELECT d.secret FROM person d WHERE d.phone_hash = r.deputy AND d.standing = 'active' ORDER BY d.id LIMIT 1)"
        " FROM place p"
        " JOIN person r ON r.id = p.person WHERE p.audience = :audience AND p.until IS NULL AND r.standing = 'active'"
    )
    key = "(village, village, id, '')" if kind is Roster.DEVICES else "(p.township, p.village, p.person, p.role)"
    place = "village" if kind is Roster.DEVICES else "p.township"
    township, village, one, role = after
    rows = tx.all(
        f"SELECT {columns} AND {place} >= :county AND {place} < :beyond AND {key} > (:township, :village, :one, :role)"
        f" ORDER BY 1, 2, 3, 4 LIMIT :limit",
        audience=kind.value, county=county, beyond=county + ":", township=township, village=village, one=one,
        role=role, limit=PAGE,
    )  # fmt: skip
    return rows, rows[-1][:4] if len(rows) == PAGE else None


def _cells(kind: Roster, vault: Vault, rows: Iterable[Row]) -> Iterator[tuple[str, ...]]:
    if kind is Roster.DEVICES:
        for _, village, _, _, name, key_hash, channel in rows:
            yield name, code(village), key_hash, channel
        return
    found = list(rows)
    secrets = vault.open_all([row[4] for row in found])
    for row, sealed in zip(found, secrets, strict=True):
        township, village, _, role, _, basis, helper, language, known, deputy = row
        secret = decode_secret(sealed)
        if kind is Roster.OFFICIALS:
            duty, _, rank = role.partition(":")
            place = code(township), code(village)
            stands_in = phone(decode_secret(vault.open(deputy)).address) if deputy else ""
            yield secret.name, phone(secret.address), *place, ROLES[duty][0], rank or "1", stands_in, _network(known)
        elif kind is Roster.RESIDENTS:
            yield (
                secret.name,
                phone(secret.address),
                code(village),
                BASES[basis][0],
                "是" if helper else "否",
                _network(known),
            )
        else:
            yield secret.name, secret.address, code(village or township), language


def _network(known: str) -> str:
    """Return the carrier the list named, as offices write it."""
    own = Known.read(known).own
    return NETWORKS[own][0] if own else ""


def phone(address: str) -> str:
    """Return a number as offices write it."""
    return address.removeprefix("+86") if len(address) == len("+8613900000000") else address


def code(text: str) -> str:
    """Return a code that stays text in a spreadsheet."""
    return f"{text}\t" if text else ""
