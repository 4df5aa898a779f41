"""What an import changes, inside one transaction: people with their places, and devices.

Called by the importer, with people in the order of their ids. Each function reads what stands, compares, and writes
only what differs, so it may run twice. Nobody is deleted: a place that ended keeps its dates, and whoever has no
place left is `left` until a later table lists them again. Opting out and erasure are a person's own doing and no
table undoes them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from gateway.carrier import Known
from gateway.directory.newcomer import Newcomers
from gateway.directory.people import RANK
from gateway.directory.row import CHANNEL, DeviceRow, PersonRow
from gateway.directory.vault import Secret, Vault, decode_secret
from gateway.model import Group
from gateway.transaction import Row, Tx

ADDED, CHANGED, MOVED, UNCHANGED, ERASED = "added", "changed", "moved", "unchanged", "erased"
ACTIVE, IN_SERVICE = "active", "service"
PAGE = 5_000
FAR_MORE = 4  # times as many rows as stand, so that to make an index anew costs less than it saves
RESIDENTS, SUBSCRIBERS = Group.RESIDENTS.value, Group.SUBSCRIBERS.value
Where = tuple[str, str, str, str]
"""A place of a person: audience, township, village, role."""
Key = tuple[int, str, str, str, str]
"""Primary key of a place: person, audience, township, village, role."""


class Scope(NamedTuple):
    """What a full list speaks for: places below these codes. Whoever it does not name has left there."""

    codes: tuple[str, ...]

    def holds(self, township: str) -> bool:
        """Tell whether the list speaks for a township."""
        return township.startswith(self.codes)


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
    carrier: str
    deputy: bytes | None


PERSON = _Person._fields
_NUMBERS = ("id", "needs_helper", "several", "opted_out", "updated_at")
_BYTES = ("secret", "phone_hash", "deputy")
_PERSON_TYPES = {
    name: "bigint" if name in _NUMBERS else "bytea" if name in _BYTES else "text"
    for name in ("id", *PERSON, "opted_out", "updated_at")
}
_PLACE_TYPES = {
    "township": "text", "audience": "text", "village": "text", "person": "bigint", "role": "text", "since": "bigint",
}  # fmt: skip
# What others write meanwhile, and a list does not decide, stays: a subscription that is gone, a carrier just learned.
_SHARED = ("standing", "carrier")
_SETS = [f"{name} = CASE WHEN {name} = :{name}_was THEN :{name} ELSE {name} END" for name in _SHARED]
_SETS += [f"{name} = :{name}" for name in PERSON if name not in _SHARED]
_UPDATE = f"UPDATE person SET {', '.join(_SETS)}, updated_at = :at WHERE id = :id"
_WHERE = (
    " WHERE person = :person AND audience = :audience AND township = :township AND village = :village AND role = :role"
)


def _ask_by_id(tx: Tx, sql: str, ids: Sequence[int]) -> Callable[[], list[Row]]:
    """Ask for many ids as one parameter: a thousand named ones take SQLite longer to parse than to answer."""
    if tx.postgresql:
        return tx.ask(f"{sql} = ANY(:ids)", ids=list(ids))
    return tx.ask(f"{sql} IN (SELECT value FROM json_each(:ids))", ids=json.dumps(list(ids)))


class Asked(NamedTuple):
    """What waits for the rows of some people, and for those of all their places."""

    people: Callable[[], list[Row]]
    places: Callable[[], list[Row]]


def ask_people(tx: Tx, ids: Sequence[int]) -> Asked:
    """Ask for people; PostgreSQL answers while others are worked on."""
    people = _ask_by_id(tx, f"SELECT id, {', '.join(PERSON)} FROM person WHERE id", ids)
    known = ids if tx.postgresql else [row[0] for row in people()]
    sql = "SELECT person, audience, township, village, role, until FROM place WHERE person"
    return Asked(people, _ask_by_id(tx, sql, known))


class People:
    """A working copy of some people and all their places; `save` writes what changed."""

    def __init__(
        self, tx: Tx, vault: Vault, group: Group, asked: Asked, quiet: Collection[bytes] = frozenset()
    ) -> None:
        self._tx = tx
        self._vault = vault
        self._group = group.value
        self._quiet = quiet
        self._people: dict[int, _Person] = {row[0]: _Person._make(row[1:]) for row in asked.people()}
        self._known = dict(self._people)
        self._places: defaultdict[int, dict[Where, bool]] = defaultdict(dict)
        for person, audience, township, village, role, ended in asked.places():
            self._places[person][audience, township, village, role] = ended is None
        self._was: dict[tuple[int, Where], bool | None] = {}  # places that changed: whether they stood; None: new ones
        self._touched: set[int] = set()

    def take(self, rows: Sequence[PersonRow], scope: Scope | None) -> str:
        """Take in all rows of one person; return what the person was: added, changed, moved, unchanged or erased.

        Args:
            rows: of one person.
            scope: given, the rows are all of the person's places there, and others end.
        """
        row = rows[-1]
        if len(rows) > 1:  # of several rows one that names the carrier counts, and one that names the deputy
            row = replace(
                row,
                carrier=next((one.carrier for one in reversed(rows) if one.carrier), row.carrier),
                deputy=next((one.deputy for one in reversed(rows) if one.deputy), row.deputy),
            )
        person = self._people.get(row.id)
        if person is None:
            self._people[row.id] = _Person(
                self._group, row.sealed, row.address_hash, row.language, row.county, row.needs_helper, row.basis, 0,
                ACTIVE, row.carrier or "", row.deputy or None,
            )  # fmt: skip
            self._stand(row.id, rows)
            return ADDED
        if person.standing == ERASED:
            return ERASED
        if self._group == SUBSCRIBERS and person.standing == "gone":
            return UNCHANGED  # the push service said so, and a subscription never comes back
        renewed = self._people[row.id] = self._renew(person, row)
        self._stand(row.id, rows)
        if scope is not None:
            self._leave_out(row.id, scope, rows)
        if row.id not in self._touched and renewed is person:
            return UNCHANGED
        self._touched.add(row.id)
        before, after = self._standing(row.id, before=True), self._standing(row.id)
        if not before:
            return ADDED
        return CHANGED if {key[:2] for key in before} == {key[:2] for key in after} else MOVED

    def _standing(self, one: int, *, before: bool = False) -> set[tuple[str, str, str]]:
        """(township, village, role) of the places a person has in the group, or had when it was looked up."""
        places = self._places[one].items()
        found = {key: self._was.get((one, key), stands) if before else stands for key, stands in places}
        return {key[1:] for key, stands in found.items() if stands and key[0] == self._group}

    def _leave_out(self, one: int, scope: Scope, rows: Sequence[PersonRow]) -> None:
        """End the places in the scope that the table did not list."""
        places = self._places[one]
        if len(places) == 1:
            return  # the one it stands at now
        listed = {(place.township, place.village, place.role) for row in rows for place in row.places}
        for key, stands in places.items():
            if stands and key[0] == self._group and key[1:] not in listed and scope.holds(key[1]):
                self._set(one, key, stands=False)

    def _set(self, one: int, key: Where, *, stands: bool) -> None:
        places = self._places[one]
        self._was.setdefault((one, key), places.get(key))
        places[key] = stands
        self._touched.add(one)

    def _renew(self, person: _Person, row: PersonRow) -> _Person:
        """Return the person with what a table of this group decides; the very same where nothing differs."""
        if person.standing != ACTIVE:
            person = person._replace(standing=ACTIVE)
        if row.carrier is not None and Known.read(person.carrier).own != row.carrier:
            # Who has changed the list knows better than what carriers said before.
            person = person._replace(carrier=row.carrier)
        if row.deputy is not None and (person.deputy or b"") != row.deputy:
            person = person._replace(deputy=row.deputy or None)
        if not person.secret:  # erased once, and let in again
            person = person._replace(secret=row.sealed, phone_hash=row.address_hash, basis=row.basis)
        if self._group == RESIDENTS and (person.needs_helper, person.basis) != (row.needs_helper, row.basis):
            return person._replace(needs_helper=row.needs_helper, basis=row.basis)
        if self._group == SUBSCRIBERS:
            if person.language != row.language:
                person = person._replace(language=row.language)
            if self._secret(person.secret) != self._secret(row.sealed):
                return person._replace(secret=row.sealed, phone_hash=row.address_hash)
        return person

    def _secret(self, sealed: bytes) -> Secret:
        return decode_secret(self._vault.open(sealed))

    def _stand(self, one: int, rows: Sequence[PersonRow]) -> None:
        """Let a person stand where the rows say; another rank of the same duty there ends."""
        places = self._places[one]
        for row in rows:
            for place in row.places:
                key = (self._group, place.township, place.village, place.role)
                if places.get(key):
                    continue
                for old in [old for old, stands in places.items() if stands and old[:3] == key[:3]]:
                    if _duty(old[3]) == place.duty:
                        self._set(one, old, stands=False)
                self._set(one, key, stands=True)

    def end(self, key: Key) -> None:
        """Let a place end."""
        self._set(key[0], key[1:], stands=False)

    def left(self, one: int) -> bool:
        """Tell whether a person who was in the group has no place left there; a subscription may be gone long since."""
        stands = any(stands and key[0] == self._group for key, stands in self._places[one].items())
        return not stands and self._people[one].standing == ACTIVE

    def several(self) -> set[int]:
        """People with several places or roles; asked after `save`."""
        return {one for one, person in self._people.items() if person.several}

    def save(self, at: int, newcomers: Newcomers) -> None:
        """Write every difference but new places, which are noted; `at` in microseconds."""
        new: list[Row] = []
        changed: list[dict[str, Any]] = []
        for one in self._touched:
            person = self._people[one] = self._settled(one, self._people[one])
            if one not in self._known:
                quiet = self._group == RESIDENTS and person.phone_hash in self._quiet
                new.append((one, *person, int(quiet), at))
            elif person != (known := self._known[one]):
                was = {f"{name}_was": getattr(known, name) for name in _SHARED}
                changed.append(person._asdict() | was | {"id": one, "at": at})
        self._tx.insert("person", _PERSON_TYPES, sorted(new))
        self._tx.many(_UPDATE, changed)
        self._save_places(at, newcomers)

    def _settled(self, one: int, person: _Person) -> _Person:
        """Return the person with what its places say of it."""
        places = self._places[one]
        if len(places) == 1 and one not in self._known:  # most people
            return person
        standing = [key for key, stands in places.items() if stands]
        if not standing:
            return person._replace(several=0, standing="left" if person.standing == ACTIVE else person.standing)
        kind = min((key[0] for key in standing), key=RANK.__getitem__)
        counties = {key[1][:6] for key in standing}
        county = person.county if person.county in counties else min(counties)
        if (int(len(standing) > 1), kind, county) == (person.several, person.kind, person.county):
            return person
        return person._replace(several=int(len(standing) > 1), kind=kind, county=county)

    def _save_places(self, at: int, newcomers: Newcomers) -> None:
        begun: list[dict[str, Any]] = []
        ended: list[dict[str, Any]] = []
        for (one, key), stood in self._was.items():
            stands = self._places[one][key]
            if stood is None:
                if stands:
                    newcomers.note(key[1], key[0], key[2], key[3], one)
            elif stands != stood:
                names = ("audience", "township", "village", "role")
                (begun if stands else ended).append(dict(zip(names, key, strict=True)) | {"person": one, "at": at})
        self._tx.many("UPDATE place SET since = :at, until = NULL" + _WHERE, begun)
        self._tx.many("UPDATE place SET until = :at" + _WHERE, ended)


def _duty(role: str) -> str:
    return role.split(":", 1)[0]


def quiet_numbers(tx: Tx) -> frozenset[bytes]:
    """Return the hashes of numbers that opted out: it is the telephone's wish, however a list writes its owner."""
    with tx.whole_tables():
        rows = tx.all("SELECT DISTINCT phone_hash FROM person WHERE opted_out = 1")
    return frozenset(bytes(known) for (known,) in rows)


def index_aside(tx: Tx, name: str, table: str, coming: int) -> str:
    """Drop one of SQLite's indexes before far more rows come than stand; return what makes it again, or "".

    Rows that come in another order than the index's would each touch a page of its own, and no cache holds those of a
    million. On PostgreSQL it would lock warnings out.
    """
    if tx.postgresql:
        return ""
    found = tx.one(
        f"SELECT sql FROM sqlite_master WHERE name = :name AND :coming > :times * (SELECT COUNT(*) FROM {table})",
        name=name,
        coming=coming,
        times=FAR_MORE,
    )
    if found is None:
        return ""
    tx.run(f"DROP INDEX {name}")
    return str(found[0])


class Written(NamedTuple):
    """What became of some people: how many were added, changed …; who has several places, and who was erased."""

    outcome: Counter[str]
    several: set[int]
    erased: set[int]


def write_people(
    tx: Tx,
    vault: Vault,
    group: Group,
    listed: Sequence[Sequence[PersonRow]],
    asked: Asked,
    scope: Scope | None,
    quiet: Collection[bytes],
    at: int,
    newcomers: Newcomers,
) -> Written:
    """Bring people in, each with all its rows; `asked` are they, `quiet` the hashed numbers that opted out.

    Their new places are only noted: `write_places` brings these in, once, behind all people.
    """
    people = People(tx, vault, group, asked, quiet)
    outcome: Counter[str] = Counter()
    erased: set[int] = set()
    for rows in listed:
        what = people.take(rows, scope)
        outcome[what] += 1
        if what == ERASED:
            erased.add(rows[0].id)
    people.save(at, newcomers)
    return Written(outcome, people.several(), erased)


def write_places(tx: Tx, newcomers: Newcomers, at: int) -> None:
    """Bring the new places in."""
    of_people = index_aside(tx, "place_person", "place", len(newcomers))
    for rows in newcomers.rows(at):
        tx.insert("place", _PLACE_TYPES, rows)
    if of_people:
        tx.run(of_people)


def people_below(tx: Tx, group: Group, code: str) -> int:
    """Return how many people stand in a group below a code."""
    row = tx.one(
        "SELECT COUNT(DISTINCT p.person) FROM place p JOIN person r ON r.id = p.person WHERE p.township >= :code"
        " AND p.township < :beyond AND p.audience = :audience AND p.until IS NULL AND r.standing = 'active'",
        code=code,
        beyond=code + ":",  # the character behind 9
        audience=group.value,
    )
    return int(row[0]) if row else 0


def devices_below(tx: Tx, code: str) -> int:
    """Return how many devices are in service below a code."""
    row = tx.one(
        "SELECT COUNT(*) FROM device WHERE township >= :code AND township < :beyond AND standing = 'service'",
        code=code,
        beyond=code + ":",
    )
    return int(row[0]) if row else 0


def retire_people(
    tx: Tx, vault: Vault, group: Group, after: Row, listed: Callable[[Sequence[int]], Sequence[bool]], at: int
) -> tuple[Row | None, int]:
    """End the places of one page below a code whose people no table lists.

    `after` is (code, township, village, person, role), `listed` tells who is listed. Returns where to go on, and how
    many people left the group.
    """
    code, township, village, person, role = after
    rows = tx.all(
        "SELECT township, village, person, role FROM place WHERE township < :beyond AND audience = :audience"
        " AND (township, audience, village, person, role) > (:township, :audience, :village, :person, :role)"
        " AND until IS NULL ORDER BY township, audience, village, person, role LIMIT :limit",
        beyond=code + ":",
        audience=group.value,
        township=township,
        village=village,
        person=person,
        role=role,
        limit=PAGE,
    )
    keys: list[Key] = [(row[2], group.value, row[0], row[1], row[3]) for row in rows]
    unlisted = [key for key, known in zip(keys, listed([key[0] for key in keys]), strict=True) if not known]
    if unlisted:
        people = People(tx, vault, group, ask_people(tx, sorted({key[0] for key in unlisted})))
        for key in unlisted:
            people.end(key)
        left = sum(people.left(one) for one in {key[0] for key in unlisted})
        people.save(at, Newcomers())  # who only leaves stands nowhere new
    return ((code, *rows[-1]) if rows else None), left if unlisted else 0


def write_devices(tx: Tx, rows: Sequence[DeviceRow]) -> Counter[str]:
    """Bring devices in, each by its last row; return how many were added, changed, moved, unchanged."""
    found = {
        one: (village, key_hash, channel, standing)
        for one, village, key_hash, channel, standing in tx.all(
            "SELECT id, village, key_hash, channel, standing FROM device WHERE id IN :*ids",
            ids=[row.id for row in rows],
        )
    }
    outcome: Counter[str] = Counter()
    new: list[Row] = []
    changed: list[dict[str, Any]] = []
    for row in rows:
        village, key_hash, channel, standing = found.get(row.id, ("", "", CHANNEL, ""))
        values = {"id": row.id, "village": row.village, "township": row.village[:9], "county": row.village[:6],
                  "key_hash": row.key_hash, "channel": row.channel or channel}  # fmt: skip
        same = (key_hash, channel) == (row.key_hash, values["channel"])
        if not standing:
            new.append((*values.values(), row.name, IN_SERVICE))
        elif not same or (village, standing) != (row.village, IN_SERVICE):
            changed.append(values)
        outcome[_became(row, village, standing, same=same)] += 1
    columns = ["id", "village", "township", "county", "key_hash", "channel", "name", "standing"]
    tx.copy("device", columns, new)
    tx.many(
        "UPDATE device SET village = :village, township = :township, county = :county, key_hash = :key_hash,"
        " channel = :channel, standing = 'service' WHERE id = :id",
        changed,
    )
    return outcome


def _became(row: DeviceRow, village: str, standing: str, *, same: bool) -> str:
    if standing != IN_SERVICE:
        return ADDED
    if village != row.village:
        return MOVED
    return UNCHANGED if same else CHANGED


def retire_devices(tx: Tx, code: str, listed: Callable[[Sequence[int]], Sequence[bool]]) -> int:
    """Take the devices below a code that no table lists out of service; return how many."""
    rows = tx.all(
        "SELECT id FROM device WHERE township >= :code AND township < :beyond AND standing = 'service'",
        code=code,
        beyond=code + ":",
    )
    ids = [one for (one,) in rows]
    unlisted = [one for one, known in zip(ids, listed(ids), strict=True) if not known]
    tx.many("UPDATE device SET standing = 'retired' WHERE id = :id", [{"id": one} for one in unlisted])
    return len(unlisted)
