"""What people may ask of the office that holds their number: to opt out, to opt in again, to be erased.

Called by the API and the command line. Opting out covers service messages, blue and yellow; orange, red and
evacuation rest on the emergency basis and officials on their duty (D24), so it never counts for either. Erasure
leaves the opaque id where it stands in ledger and audit, and nothing by which anybody could say whose it was (D23);
a table that still lists the person does not bring them back.
Every decision is one operation with its audit record, which names ids, never a number.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from gateway.database import Database
from gateway.directory.sealed import ONE_AT_A_TIME, forget
from gateway.directory.vault import Vault
from gateway.errors import Refused
from gateway.model import Record
from gateway.ports import Clock
from gateway.store import audit
from gateway.store.erasure import SendingError, erase_frozen, forget_replies
from gateway.transaction import Tx, micros

LOOK_S = 1.0
LOOKS = 30  # no slice is being sent for longer
NOBODY = -1
PLANNED_S = 5.0  # a page read before the erasure is written by then: `planner.FRESH` and the time that takes


class Answered(NamedTuple):
    """Whom an opt-out concerns: the ids it counts for, and those of officials, who cannot opt out."""

    people: tuple[int, ...]
    officials: tuple[int, ...] = ()


class Erased(NamedTuple):
    """What was erased: the id that stays, and how many frozen batches held an address."""

    person: int
    batches: int


class Rights:
    """Answers what people ask for. `actor` is who writes it down."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock

    async def opt_out(self, address: str, actor: str, *, on: bool = True, within: tuple[str, ...] = ("",)) -> Answered:
        """Let everybody with this number opt out (or in again), but officials; repeating it changes nothing.

        `within` are the places the caller answers for, as prefixes of codes.

        Raises:
            Refused: nobody there has this number, or only officials have it.
        """
        now = self._clock.now()
        known = self._vault.phone_hash(address)

        def operation(tx: Tx) -> Answered:
            found = _at_number(tx, known, within)
            officials = tuple(one for one, official in found if official)
            people = tuple(one for one, official in found if not official)
            for one in people:
                if tx.run(
                    "UPDATE person SET opted_out = :on, updated_at = :at WHERE id = :id AND opted_out <> :on",
                    on=int(on),
                    at=micros(now),
                    id=one,
                ):
                    audit.append(tx, [Record(now, actor, "opt_out" if on else "opt_in", f"person:{one}")])
            return Answered(people, officials)

        answered = await self._database.write(operation, 10.0)
        if not answered.people:
            if answered.officials:
                raise Refused(409, "official", "officials cannot opt out: end their duty in the list of officials")
            raise _unknown()
        return answered

    async def erase(self, address: str, name: str, actor: str, *, within: tuple[str, ...] = ("",)) -> Erased:
        """Erase the one person with this number, or of several the one with this name.

        Takes some seconds while an alert is being planned or sent: what was read before is looked at again. Where that
        was cut short, number and name find whoever is erased already, and it is looked at once more.

        Raises:
            Refused: nobody has the number, or several have and no name tells which; the person is an official.
        """
        known, named = self._vault.phone_hash(address), self._vault.person_id(address, name) if name else NOBODY
        found = await self._database.read(lambda tx: _at_number(tx, known, within, named))
        wanted = [one for one in found if not name or one[0] == named]
        if not wanted:
            raise _unknown()
        if len(wanted) > 1:
            raise Refused(409, "shared_number", f"{len(wanted)} people have this number; say the name as well")
        person, official = wanted[0]
        if official:
            raise Refused(409, "official", "an official's duty comes first: take them off the list of officials")
        batches = await self._erased(person, actor)
        if await self._database.read(lambda tx: tx.one("SELECT 1 FROM step WHERE finished = 0 LIMIT 1")):
            await self._clock.sleep(PLANNED_S)
            batches += await self._erased(person, actor)
        return Erased(person, batches)

    async def _erased(self, person: int, actor: str) -> int:
        for look in range(LOOKS):
            now = self._clock.now()
            try:
                record = Record(now, actor, "erase", f"person:{person}")
                return await self._database.write(partial(_erase, person=person, record=record), 30.0)
            except SendingError:
                if look == LOOKS - 1:
                    break
                await self._clock.sleep(LOOK_S)
        raise Refused(503, "being_sent", "a message to this person is being sent; ask again in a minute, with the name")

    async def readmit(self, address: str, name: str, actor: str) -> int:
        """Let tables list an erased person again; return the id.

        Raises:
            Refused: nobody with this number and name was erased.
        """
        now, person = self._clock.now(), self._vault.person_id(address, name)

        def operation(tx: Tx) -> bool:
            gone = tx.run("UPDATE person SET standing = 'left' WHERE id = :id AND standing = 'erased'", id=person)
            if gone:
                audit.append(tx, [Record(now, actor, "readmit", f"person:{person}")])
            return bool(gone)

        if not await self._database.write(operation, 10.0):
            raise _unknown()
        return person


def _unknown() -> Refused:
    return Refused(404, "unknown_number", "nobody with this number (and name) is registered in your area")


def _at_number(tx: Tx, phone_hash: bytes, within: tuple[str, ...], erased: int = NOBODY) -> list[tuple[int, bool]]:
    """(id, whether an official) of everybody with a number who has a place below one of these codes.

    Whoever has left every list belongs to where they were: name and number are still held. `erased` is found by id.
    """
    rows = tx.all(
        "SELECT r.id, p.township, p.audience, p.until IS NULL FROM person r JOIN place p ON p.person = r.id"
        " WHERE (r.phone_hash = :hash AND r.standing <> 'erased') OR r.id = :erased ORDER BY r.id",
        hash=phone_hash,
        erased=erased,
    )
    listed = {one for one, _, _, stands in rows if stands}
    mine = {one for one, township, _, stands in rows if township.startswith(within) and (stands or one not in listed)}
    officials = {one for one, _, audience, stands in rows if stands and audience == "officials"}
    return [(one, one in officials) for one in sorted(mine)]


def _erase(tx: Tx, *, person: int, record: Record) -> int:
    """Erase a person; return how many frozen batches held an address. A second time it finds what came since."""
    at = micros(record.at)
    if tx.postgresql:
        # An import would write back what it read before, and pages might be sealed with the address.
        tx.one("SELECT pg_advisory_xact_lock(:one)", one=ONE_AT_A_TIME)
    else:
        tx.run("PRAGMA secure_delete = ON")  # what is freed is overwritten
    row = tx.one("SELECT phone_hash, standing FROM person WHERE id = :id", id=person)
    if row is None:
        return 0
    # A deputy's message stands under a place of whom it stood in for.
    places = tx.all(
        "SELECT township, village FROM place WHERE person = :id"
        " UNION SELECT township, village FROM away WHERE deputy = :id",
        id=person,
    )
    batches = erase_frozen(tx, person, [(township, village) for township, village in places], at)
    forget(tx, sorted({township for township, _ in places}))
    if row[1] != "erased":
        tx.run(
            "UPDATE person SET secret = :nothing, phone_hash = :nothing, needs_helper = 0, basis = '', several = 0,"
            " carrier = '', deputy = NULL, standing = 'erased', updated_at = :at WHERE id = :id",
            nothing=b"",
            at=at,
            id=person,
        )
        tx.run("UPDATE place SET until = :at WHERE person = :id AND until IS NULL", at=at, id=person)
        if tx.one("SELECT 1 FROM person WHERE phone_hash = :hash", hash=bytes(row[0])) is None:
            forget_replies(tx, bytes(row[0]))
            tx.run("UPDATE person SET deputy = NULL, updated_at = :at WHERE deputy = :hash", at=at, hash=bytes(row[0]))
        audit.append(tx, [record])
    return batches
