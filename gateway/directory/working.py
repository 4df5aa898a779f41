"""What an import changes, inside one transaction: people with their places, and devices.

Called by the importer. Each function is an operation of the database: it reads what stands, compares, and writes
only what differs, so it may run twice. Nobody is deleted: a place that ended keeps its dates, and whoever has no
place left is `left` until a later table lists them again. Opting out is a person's own doing and no table undoes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.database import Row, Tx
from gateway.directory.people import RANK, Secret
from gateway.directory.row import DeviceRow, PersonRow, Place
from gateway.directory.vault import Vault
from gateway.model import Group

ADDED, UPDATED, UNCHANGED = "added", "updated", "unchanged"
PAGE = 1_000
Key = tuple[int, str, str, str, str]
"""Primary key of a place: person, audience, township, village, role."""


class _Person(NamedTuple):
    """The columns of a person that tables decide."""

    kind: str
    secret: bytes
    phone_hash: bytes
    language: str
    county: str
    needs_helper: int
    basis: str
    several: int
    standing: str


PERSON = _Person._fields
_UPDATE = f"UPDATE person SET {', '.join(f'{name} = :{name}' for name in PERSON)}, updated_at = :at WHERE id = :id"
_WHERE = (
    " WHERE person = :person AND audience = :audience AND township = :township AND village = :village AND role = :role"
)
_secret = msgspec.msgpack.Decoder(Secret).decode


class People:
    """A working copy of some people and all their places; `save` writes what changed."""

    def __init__(self, tx: Tx, vault: Vault, ids: Sequence[int]) -> None:
        self._tx = tx
        self._vault = vault
        self._people: dict[int, _Person] = {}
        self._places: dict[int, dict[tuple[str, str, str, str], bool]] = {one: {} for one in ids}
        for one, *columns in tx.all(f"SELECT id, {', '.join(PERSON)} FROM person WHERE id IN :*ids", ids=ids):
            columns[1:3] = bytes(columns[1]), bytes(columns[2])
            self._people[one] = _Person(*columns)
        self._known = dict(self._people)
        for person, *key, ended in tx.all(
            "SELECT person, audience, township, village, role, until FROM place WHERE person IN :*ids", ids=ids
        ):
            self._places[person][key[0], key[1], key[2], key[3]] = ended is None
        self._stood = {one: dict(places) for one, places in self._places.items()}

    def add(self, row: PersonRow, group: Group) -> str:
        """Take in one row; return what it was: added, updated or unchanged."""
        person = self._people.get(row.id)
        if person is None:
            person = self._people[row.id] = _Person(
                group.value,
                row.sealed,
                row.address_hash,
                row.language,
                row.county,
                row.needs_helper,
                row.basis,
                0,
                "active",
            )
        elif group is Group.SUBSCRIBERS and person.standing == "gone":
            return UNCHANGED  # the push service said so, and a subscription never comes back
        renewed = self._people[row.id] = self._renew(person, row, group)
        results = {self._stand(row.id, group, place) for place in row.places}
        if ADDED in results:
            return ADDED
        return UPDATED if renewed != person or UPDATED in results else UNCHANGED

    def _renew(self, person: _Person, row: PersonRow, group: Group) -> _Person:
        """Return the person with what a table of this group decides."""
        if person.standing != "active":
            person = person._replace(standing="active")
        if group is Group.RESIDENTS and (person.needs_helper, person.basis) != (row.needs_helper, row.basis):
            return person._replace(needs_helper=row.needs_helper, basis=row.basis)
        if group is Group.SUBSCRIBERS:
            person = person._replace(language=row.language)
            if _secret(self._vault.open(person.secret)) != Secret(row.name, row.address):
                return person._replace(secret=row.sealed, phone_hash=row.address_hash)
        return person

    def _stand(self, one: int, group: Group, place: Place) -> str:
        """Let a person stand at a place; another rank of the same duty there ends."""
        places = self._places[one]
        key = (group.value, place.township, place.village, place.role)
        if places.get(key):
            return UNCHANGED
        other = [old for old, stands in places.items() if stands and old[:3] == key[:3] and _duty(old[3]) == place.duty]
        for old in other:
            places[old] = False
        places[key] = True
        return UPDATED if other else ADDED

    def end(self, key: Key) -> None:
        """Let a place end."""
        self._places[key[0]][key[1:]] = False

    def stands(self, one: int, group: Group) -> bool:
        """Tell whether a person still has a place in this group."""
        return any(stands and key[0] == group.value for key, stands in self._places[one].items())

    def save(self, at: int) -> None:
        """Write every difference; `at` in microseconds."""
        new: list[Row] = []
        changed: list[dict[str, Any]] = []
        for one, person in self._people.items():
            person = self._settled(one, person)
            if one not in self._known:
                new.append((one, *person, 0, at))
            elif person != self._known[one]:
                changed.append(person._asdict() | {"id": one, "at": at})
        self._tx.copy("person", ["id", *PERSON, "opted_out", "updated_at"], sorted(new))
        self._tx.many(_UPDATE, changed)
        self._save_places(at)

    def _settled(self, one: int, person: _Person) -> _Person:
        """Return the person with what its places say of it."""
        standing = [key for key, stands in self._places[one].items() if stands]
        if not standing:
            return person._replace(several=0, standing="left" if person.standing == "active" else person.standing)
        kind = min((key[0] for key in standing), key=RANK.__getitem__)
        counties = {key[1][:6] for key in standing}
        county = person.county if person.county in counties else min(counties)
        if (int(len(standing) > 1), kind, county) == (person.several, person.kind, person.county):
            return person
        return person._replace(several=int(len(standing) > 1), kind=kind, county=county)

    def _save_places(self, at: int) -> None:
        new: list[Row] = []
        begun: list[dict[str, Any]] = []
        ended: list[dict[str, Any]] = []
        for one, places in self._places.items():
            stood = self._stood[one]
            for key, stands in places.items():
                if key not in stood:
                    if stands:
                        new.append((key[1], key[0], key[2], one, key[3], at))
                elif stands != stood[key]:
                    names = ("audience", "township", "village", "role")
                    (begun if stands else ended).append(dict(zip(names, key, strict=True)) | {"person": one, "at": at})
        self._tx.copy("place", ["township", "audience", "village", "person", "role", "since"], sorted(new))
        self._tx.many("UPDATE place SET since = :at, until = NULL" + _WHERE, begun)
        self._tx.many("UPDATE place SET until = :at" + _WHERE, ended)


def _duty(role: str) -> str:
    return role.split(":", 1)[0]


def write_people(tx: Tx, vault: Vault, group: Group, rows: Sequence[PersonRow], at: int) -> Counter[str]:
    """Bring rows in; return how many were added, updated, unchanged."""
    people = People(tx, vault, sorted({row.id for row in rows}))
    outcome = Counter(people.add(row, group) for row in rows)
    people.save(at)
    return outcome


def retire_people(
    tx: Tx, vault: Vault, group: Group, after: Row, listed: Callable[[Key], bool], at: int
) -> tuple[Row | None, int, int]:
    """End the places of one page of a county that no table lists.

    `after` is (county, township, village, person, role); returns where to go on, people retired, places ended.
    """
    county, township, village, person, role = after
    rows = tx.all(
        "SELECT township, village, person, role FROM place WHERE township >= :county AND township < :beyond"
        " AND audience = :audience AND until IS NULL"
        " AND (township, village, person, role) > (:township, :village, :person, :role)"
        " ORDER BY township, village, person, role LIMIT :limit",
        county=county,
        beyond=county + ":",  # the character behind 9
        audience=group.value,
        township=township,
        village=village,
        person=person,
        role=role,
        limit=PAGE,
    )
    keys: list[Key] = [(row[2], group.value, row[0], row[1], row[3]) for row in rows]
    unlisted = [key for key in keys if not listed(key)]
    people = People(tx, vault, sorted({key[0] for key in unlisted}))
    for key in unlisted:
        people.end(key)
    retired = sum(not people.stands(one, group) for one in {key[0] for key in unlisted})
    people.save(at)
    return ((county, *rows[-1]) if rows else None), retired, len(unlisted)


def write_devices(tx: Tx, rows: Sequence[DeviceRow]) -> Counter[str]:
    """Bring rows in, found by name; return how many were added, updated, unchanged."""
    found = {
        name: (village, key_hash, standing)
        for name, village, key_hash, standing in tx.all(
            "SELECT name, village, key_hash, standing FROM device WHERE name IN :*names",
            names=sorted({row.name for row in rows}),
        )
    }
    stood = dict(found)
    outcome: Counter[str] = Counter()
    last = {}
    for row in rows:
        state = (row.village, row.key_hash, "service")
        outcome[UNCHANGED if found.get(row.name) == state else UPDATED if row.name in found else ADDED] += 1
        found[row.name] = state
        last[row.name] = row
    changed = [row for row in last.values() if stood.get(row.name) != found[row.name]]
    tx.copy(
        "device",
        ["id", "name", "village", "township", "county", "key_hash", "standing", "online"],
        [
            (row.id, row.name, row.village, row.village[:9], row.village[:6], row.key_hash, "service", 0)
            for row in changed
            if row.name not in stood
        ],
    )
    tx.many(
        "UPDATE device SET village = :village, township = :township, county = :county, key_hash = :key_hash,"
        " standing = 'service' WHERE name = :name",
        [
            {
                "name": row.name,
                "village": row.village,
                "township": row.village[:9],
                "county": row.village[:6],
                "key_hash": row.key_hash,
            }
            for row in changed
            if row.name in stood
        ],
    )
    return outcome


def retire_devices(tx: Tx, county: str, listed: Callable[[int], bool]) -> int:
    """Take the devices of a county that no table lists out of service; return how many."""
    rows = tx.all("SELECT id FROM device WHERE county = :county AND standing = 'service'", county=county)
    unlisted = [one for (one,) in rows if not listed(one)]
    tx.many("UPDATE device SET standing = 'retired', online = 0 WHERE id = :id", [{"id": one} for one in unlisted])
    return len(unlisted)
