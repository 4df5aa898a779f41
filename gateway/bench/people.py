"""Invented people written straight into an embedded database: an import of this size is another bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.bench.measure import COUNTY
from gateway.database import Database, Tx
from gateway.directory.people import Secret, encode_secret
from gateway.directory.vault import Vault
from gateway.model import Group
from gateway.regions import Regions
from gateway.settings import data_folder

PERSON = (
    "id", "kind", "secret", "phone_hash", "language", "county", "opted_out", "needs_helper", "basis", "several",
    "standing", "updated_at",
)  # fmt: skip
PLACE = ("township", "audience", "village", "person", "role", "since", "until")
ROLES = {Group.RESIDENTS: ("resident", ""), Group.OFFICIALS: ("official", "village_head")}
"""What a person is, and what for, by the group it belongs to."""


async def write_people(data: Path, number: int, group: Group = Group.RESIDENTS, county: str = COUNTY) -> None:
    """Add `number` residents or officials of one county, spread evenly, to the database in `data`; it may be new."""
    regions = Regions.load(data_folder("config") / "regions")
    villages = [village.code for town in regions.children(county) for village in regions.villages(town.code)]
    database = Database(f"sqlite:///{(data / 'mingluo.db').absolute()}")
    await database.open()
    try:
        vault, (kind, role) = Vault.of("", data), ROLES[group]

        def people(ids: range) -> Iterator[tuple[object, ...]]:
            for person in ids:
                address = f"+86100{person:08d}"
                secret = vault.seal(encode_secret(Secret(f"居民{person}", address)))
                hashed = vault.phone_hash(address)
                yield person, kind, secret, hashed, "zh", county, 0, 0, "opted_in", 0, "active", 0

        def places(ids: range) -> Iterator[tuple[object, ...]]:
            for at, person in enumerate(ids):
                village = villages[at * len(villages) // number]
                yield village[:9], group.value, village, person, role, 0, None

        def write(tx: Tx) -> None:
            (last,) = tx.all("SELECT COALESCE(MAX(id), 0) FROM person")[0]
            ids = range(last + 1, last + 1 + number)
            tx.copy("person", PERSON, people(ids))
            tx.copy("place", PLACE, places(ids))

        await database.write(write)
    finally:
        await database.close()
