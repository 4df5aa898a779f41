"""Invented people written straight into a database: an import of this size is another bench.

Their ids are made as an import makes them, so that they lie as scattered as in a real installation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from gateway.bench.measure import COUNTY
from gateway.database import Database
from gateway.directory.vault import Secret, Vault, encode_secret
from gateway.model import Group
from gateway.regions import Regions
from gateway.settings import data_folder
from gateway.transaction import Tx

PERSON = (
    "id", "kind", "secret", "phone_hash", "language", "county", "opted_out", "needs_helper", "basis", "several",
    "standing", "updated_at",
)  # fmt: skip
PLACE = ("township", "audience", "village", "person", "role", "since", "until")
ROLES = {Group.RESIDENTS: ("resident", ""), Group.OFFICIALS: ("official", "village_head")}
"""What a person is, and what for, by the group it belongs to."""


async def write_people(data: Path, number: int, group: Group = Group.RESIDENTS, county: str = COUNTY) -> None:
    """Add people, spread evenly over one county, to the embedded database in `data`; it may be new."""
    regions = Regions.load(data_folder("config") / "regions")
    townships = [town.code for town in regions.children(county)]
    database = Database(f"sqlite:///{(data / 'mingluo.db').absolute()}")
    await database.open()
    try:
        await add_people(database, Vault.of("", data), number, group, townships)
    finally:
        await database.close()


async def add_people(database: Database, vault: Vault, number: int, group: Group, townships: Sequence[str]) -> None:
    """Add `number` residents or officials, spread evenly over the villages of some townships of one county."""
    regions = Regions.load(data_folder("config") / "regions")
    villages = [village.code for code in townships for village in regions.villages(code)]
    county, (kind, role) = townships[0][:6], ROLES[group]

    def people(numbers: range) -> Iterator[tuple[int, tuple[object, ...]]]:
        for one in numbers:
            name, address = f"居民{one}", f"+86100{one:08d}"
            person = vault.person_id(address, name)
            sealed = vault.seal(encode_secret(Secret(name, address)))
            hashed = vault.phone_hash(address)
            yield person, (person, kind, sealed, hashed, "zh", county, 0, 0, "opted_in", 0, "active", 0)

    def write(tx: Tx) -> None:
        (before,) = tx.all("SELECT COUNT(*) FROM person")[0]
        ids: list[int] = []

        def rows() -> Iterator[tuple[object, ...]]:
            for person, row in people(range(before, before + number)):
                ids.append(person)
                yield row

        tx.copy("person", PERSON, rows())
        places = ((villages[at * len(villages) // number], person) for at, person in enumerate(ids))
        tx.copy("place", PLACE, ((village[:9], group.value, village, one, role, 0, None) for village, one in places))

    await database.write(write)
