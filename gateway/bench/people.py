"""Invented residents written straight into an empty embedded database: an import of this size is another bench."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gateway.bench.measure import COUNTY
from gateway.database import Database, Tx
from gateway.directory.people import Secret, encode_secret
from gateway.directory.vault import Vault
from gateway.regions import Regions
from gateway.settings import data_folder

PERSON = (
    "id", "kind", "secret", "phone_hash", "language", "county", "opted_out", "needs_helper", "basis", "several",
    "standing", "updated_at",
)  # fmt: skip
PLACE = ("township", "audience", "village", "person", "role", "since", "until")


async def write_residents(data: Path, number: int) -> None:
    """Fill `data` with the database of a new installation and `number` residents of one county, spread evenly."""
    regions = Regions.load(data_folder("config") / "regions")
    villages = [village.code for town in regions.children(COUNTY) for village in regions.villages(town.code)]
    database = Database(f"sqlite:///{(data / 'mingluo.db').absolute()}")
    await database.open()
    try:
        vault = Vault.of("", data)

        def people() -> Iterator[tuple[object, ...]]:
            for person in range(1, number + 1):
                address = f"+86100{person:08d}"
                secret = vault.seal(encode_secret(Secret(f"居民{person}", address)))
                hashed = vault.phone_hash(address)
                yield person, "resident", secret, hashed, "zh", COUNTY, 0, 0, "opted_in", 0, "active", 0

        def places() -> Iterator[tuple[object, ...]]:
            for person in range(1, number + 1):
                village = villages[(person - 1) * len(villages) // number]
                yield village[:9], "residents", village, person, "", 0, None

        def write(tx: Tx) -> None:
            tx.copy("person", PERSON, people())
            tx.copy("place", PLACE, places())

        await database.write(write)
    finally:
        await database.close()
