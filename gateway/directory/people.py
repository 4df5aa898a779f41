"""The `Directory` over SQL: pages of audiences, responsibilities, numbers, devices.

A page lies within one township. A person with several places or roles (flagged `several` at import)
appears once per plan: under the first of its targeted places, as an official if it is one anywhere in the
area (rule 6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.carrier import Known
from gateway.channel import Device
from gateway.database import Database
from gateway.directory import place, sealed
from gateway.directory.lookup import Lookup
from gateway.directory.right import Rights
from gateway.directory.vault import Vault, decode_secret
from gateway.model import ROSTERS, Audience, Group, Target
from gateway.ports import Clock, Deputy, Page
from gateway.transaction import Row, Tx, micros

Cursor = tuple[str, str, int]
ORDER = (Group.OFFICIALS.value, Group.RESIDENTS.value, Group.SUBSCRIBERS.value)
RANK = {group: rank for rank, group in enumerate(ORDER)}
AT_ONCE = 64  # townships whose officials are asked for in one question
EVERYONE = 1 << 40
ASKED = 10_000  # ids in one query; databases bound the number of parameters
PERSON = itemgetter(1)
FEW = 8  # townships that are looked through for anybody without leaving the loop
PRESENT = timedelta(seconds=5)
REMEMBERED = 1024
PROBE = 8  # rows at once, where one who counts is enough


class Counted(NamedTuple):
    """Rows (village, id, sealed or name, several, carrier), and the codes of all places of those at some positions."""

    rows: Sequence[Row]
    places: dict[int, tuple[str, ...]]


class SqlDirectory:
    """People, subscribers and loudspeakers."""

    def __init__(self, database: Database, vault: Vault, clock: Clock) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock
        self._lookup = Lookup(database)
        self._somebody: dict[tuple[object, ...], datetime] = {}  # where somebody was found, and when

    async def page(self, audience: Audience, after: Cursor | None, limit: int) -> Page:
        """Return the next page; see `gateway.ports.Directory`."""
        if audience.group is Group.AREA:
            return next(place.pages(audience, after), Page(""))
        return await self._database.read(lambda tx: self._page(tx, audience, after, limit), 30.0)

    async def pages(self, audience: Audience, after: Cursor | None, limit: int) -> list[Page]:
        """Return the next pages in one visit to the database; see `gateway.ports.Directory`."""
        if audience.group is Group.AREA:
            return [*place.pages(audience, after), Page("")]
        pages, made = await self._database.read(lambda tx: self._pages(tx, audience, after, limit), 30.0)
        await asyncio.gather(*(self._database.write(partial(sealed.write, rows=rows), 30.0) for rows in made))
        return pages

    def _pages(
        self, tx: Tx, audience: Audience, after: Cursor | None, limit: int
    ) -> tuple[list[Page], list[list[Row]]]:
        """Return the pages, and the rows of those that were sealed on the way, by township."""
        found, number, made = list[Page](), 0, list[list[Row]]()
        for page in self._found(tx, audience, after, limit, made):
            found.append(page)
            number += len(page.persons)
            if number >= limit:
                return found, made
        return [*found, Page("")], made

    def _page(self, tx: Tx, audience: Audience, after: Cursor | None, limit: int) -> Page:
        return next(self._found(tx, audience, after, limit, None), Page(""))

    def _found(
        self, tx: Tx, audience: Audience, after: Cursor | None, limit: int, made: list[list[Row]] | None
    ) -> Iterator[Page]:
        """Pages with somebody in them; those sealed on the way go to `made`, if it is given."""
        begun = _begun(audience.targets, after)
        whole = not any(target.villages for target, _ in begun)
        if whole and audience.group is Group.LOUDSPEAKERS:
            for run in _speakers(tx, audience, after or ("", "", 0), limit):
                yield self._columns(audience, *run)
            return
        if whole and audience.group is Group.OFFICIALS:
            yield from self._officials(tx, audience, begun, limit)
            return
        for target, behind in begun:
            sealed_ = audience.group is Group.RESIDENTS and not target.villages
            while sealed_ and (taken := self._taken(tx, audience, behind, limit, made)):
                behind = (target.township, *taken.behind)
                if page := _of_taken(tx, audience, behind, taken):
                    yield page
                if taken.ended:
                    break
            else:  # no pages, or no longer
                for run in _runs_of(tx, audience, target, behind, limit):
                    yield self._columns(audience, *run)

    def _officials(
        self, tx: Tx, audience: Audience, begun: Sequence[tuple[Target, Cursor]], limit: int
    ) -> Iterator[Page]:
        """Officials of whole townships, asked for together: a question for each would keep the last one waiting."""
        for start in range(0, len(begun), AT_ONCE):
            part = begun[start : start + AT_ONCE]
            fetched = sealed.fetch(tx, [target.township for target, _ in part], audience.group.value)
            for target, behind in part:
                rows = fetched.get(target.township)
                ended = rows is None  # nobody ever was there
                while rows and not ended:
                    taken = sealed.take_fetched(self._vault, rows, behind[1:], limit)
                    if taken.behind == behind[1:] and not taken.ended:
                        break
                    behind, ended = (target.township, *taken.behind), taken.ended
                    if page := _of_taken(tx, audience, behind, taken):
                        yield page
                if not ended:  # no pages yet
                    for run in _runs_of(tx, audience, target, behind, limit):
                        yield self._columns(audience, *run)

    def _taken(
        self, tx: Tx, audience: Audience, behind: Cursor, limit: int, made: list[list[Row]] | None
    ) -> sealed.Taken | None:
        """Return those next behind a cursor in its township from sealed pages, if there are any or may be made."""
        township, place, group = behind[0], behind[1:], audience.group.value
        taken = sealed.take(tx, self._vault, township, group, place, limit, anyone=audience.opted_out)
        if taken is None and made is not None and place == ("", 0):
            pages = sealed.make(tx, self._vault, township, group)
            if pages is not None:
                made.append(sealed.seal(self._vault, pages))
                return sealed.take_made(pages, limit, anyone=audience.opted_out)
        return taken

    def _columns(self, audience: Audience, township: str, counted: Counted, behind: Cursor) -> Page:
        villages, persons, addresses, _, carriers = zip(*counted.rows, strict=True)
        if audience.group is not Group.LOUDSPEAKERS:
            addresses = tuple([decode_secret(plain).address for plain in self._vault.open_all(addresses)])
        return Page(township, persons, addresses, villages, counted.places, behind, _known(carriers))

    async def count(self, audience: Audience) -> dict[str, int]:
        """Return recipients per township, counted as `page` would give them."""
        if audience.group is Group.AREA:
            return place.count(audience)
        return await self._database.read(lambda tx: self._count(tx, audience), 30.0)

    async def anybody(self, audience: Audience) -> bool:
        """Whether `page` would give somebody; looks no further than to the first.

        Where somebody was found it is not asked again for some seconds: every acceptance asks.
        """
        if audience.group is Group.AREA:
            return bool(audience.targets)
        if not audience.before:  # else who is there may be told by an earlier step
            since = self._clock.now() - PRESENT
            if any(self._somebody.get(_whole(audience, one), since) > since for one in audience.targets):
                return True
        few = len(audience.targets) <= FEW and not audience.before
        ask = self._database.look if few else self._database.read
        here = await ask(lambda tx: _anybody(tx, audience), 30.0)
        if here is not None and not audience.before:
            if len(self._somebody) >= REMEMBERED:
                self._somebody.clear()
            self._somebody[_whole(audience, here)] = self._clock.now()
        return here is not None

    def _count(self, tx: Tx, audience: Audience) -> dict[str, int]:
        totals: dict[str, int] = {}
        for target in merged(audience.targets):
            rows = _rows(tx, audience, target, (target.township, "", 0), EVERYONE, light=True)
            totals[target.township] = len(_counted(tx, audience, target.township, rows).rows)
        return totals

    async def opted_out(self, targets: Collection[Target]) -> dict[str, int]:
        """Residents per township who opted out of what does not rest on the emergency basis."""
        return await self._database.read(
            lambda tx: {one.township: _opted_out(tx, one) for one in merged(targets)}, 30.0
        )

    async def responsible(self, villages: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Officials answerable for each village."""
        return await self._by_village(
            "SELECT DISTINCT p.village, p.person FROM place p JOIN person r ON r.id = p.person"
            " WHERE p.audience = 'officials' AND p.township IN :*townships AND p.village <> ''"
            " AND p.until IS NULL AND r.standing = 'active' ORDER BY p.village, p.person",
            villages,
        )

    async def devices(self, villages: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Loudspeakers in service per village."""
        return await self._by_village(
            "SELECT village, id FROM device WHERE township IN :*townships AND standing = 'service'"
            " ORDER BY village, id",
            villages,
        )

    async def _by_village(self, sql: str, villages: Collection[str]) -> dict[str, tuple[int, ...]]:
        """Return the second column of rows by the first; gathered in the reader's thread, for it may be a city."""
        wanted = frozenset(villages)
        townships = sorted({village[:9] for village in wanted})
        return await self._database.read(
            lambda tx: _grouped(row for row in tx.all(sql, townships=townships) if row[0] in wanted)
        )

    async def devices_by_channel(self) -> dict[str, int]:
        """Loudspeakers in service by the channel that commands them."""
        rows = await self._database.read(
            lambda tx: tx.all("SELECT channel, COUNT(*) FROM device WHERE standing = 'service' GROUP BY channel")
        )
        return {channel: int(number) for channel, number in rows}

    async def people_at(self, address: str) -> tuple[int, ...]:
        """Persons with this phone number (two persons may share one)."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT id FROM person WHERE phone_hash = :hash AND standing = 'active' ORDER BY id",
                hash=self._vault.phone_hash(address),
            )
        )
        return tuple(row[0] for row in rows)

    def phone_hash(self, address: str) -> bytes:
        """Keyed hash of a phone number."""
        return self._vault.phone_hash(address)

    def seal(self, plain: bytes) -> bytes:
        """Encrypt what names somebody; see `Vault.seal`."""
        return self._vault.seal(plain)

    async def opt_out(self, address: str, actor: str) -> int:
        """Opt everybody with this number out, but officials; return how many. See `Rights.opt_out`."""
        return len((await Rights(self._database, self._vault, self._clock).opt_out(address, actor)).people)

    async def places_of(self, person: int) -> list[tuple[str, str]]:
        """(township, village) of an official's places; village "" for a township post."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT DISTINCT township, village FROM place WHERE person = :person AND audience = 'officials'"
                " AND until IS NULL ORDER BY township, village",
                person=person,
            )
        )
        return [(township, village) for township, village in rows]

    async def deputy_of(self, person: int) -> Deputy | None:
        """The one official at the number the roster names for whoever stands in for this one; None if there is none."""

        def operation(tx: Tx) -> list[Row]:
            return tx.all(
                "SELECT d.id, d.secret, d.carrier FROM person r JOIN person d ON d.phone_hash = r.deputy"
                " WHERE r.id = :person AND d.id <> r.id AND d.standing = 'active' AND EXISTS (SELECT 1 FROM place p"
                " WHERE p.person = d.id AND p.audience = 'officials' AND p.until IS NULL)",
                person=person,
            )

        found = await self._database.read(operation)
        if len(found) != 1:  # of two at one number nobody knows who would answer
            return None
        ((one, sealed_, carrier),) = found
        return Deputy(one, decode_secret(self._vault.open(sealed_)).address, carrier)

    async def ever_at(self, address: str) -> tuple[int, ...]:
        """Persons known by this phone number, those too who have left."""
        rows = await self._database.read(
            lambda tx: tx.all(
                "SELECT id FROM person WHERE phone_hash = :hash ORDER BY id", hash=self._vault.phone_hash(address)
            )
        )
        return tuple(row[0] for row in rows)

    async def ever_of(self, person: int) -> tuple[list[tuple[str, str]], bytes]:
        """(township, village) of every place a person has, had or was told for, and the hash of its number, or b""."""

        def operation(tx: Tx) -> tuple[list[tuple[str, str]], bytes]:
            places = tx.all(
                "SELECT township, village FROM place WHERE person = :person UNION SELECT township, village FROM away"
                " WHERE deputy = :person ORDER BY township, village",
                person=person,
            )
            row = tx.one("SELECT phone_hash FROM person WHERE id = :person", person=person)
            return [(township, village) for township, village in places], bytes(row[0]) if row else b""

        return await self._database.read(operation)

    async def device(self, name: str) -> Device | None:
        """A loudspeaker by the name it connects with; None if unknown or retired."""
        return await self._lookup.find(name)

    async def retire(self, people: Sequence[int]) -> None:
        """Take people (subscriptions that are gone) out of every later audience."""
        await self._database.write(
            lambda tx: tx.run("UPDATE person SET standing = 'gone' WHERE id IN :*people", people=people)
        )

    async def present(self, audience: Audience, people: Sequence[int]) -> frozenset[int]:
        """Return those of the people (or devices) whom the audience would tell now; of places none, see `planner`."""
        if audience.group is Group.AREA:
            return frozenset()
        villages = {target.township: frozenset(target.villages) for target in merged(audience.targets)}
        if audience.group is Group.LOUDSPEAKERS:
            sql = "SELECT id, township, village FROM device WHERE id IN :*people AND standing = 'service'"
        else:
            sql = (
                "SELECT r.id, p.township, p.village FROM person r JOIN place p ON p.person = r.id"
                " WHERE r.id IN :*people AND r.standing = 'active' AND p.until IS NULL"
            )
        rows = await self._database.read(lambda tx: tx.all(sql, people=people))
        return frozenset(one for one, township, village in rows if _reaches(villages, township, village))

    async def carriers(self, people: Sequence[int]) -> dict[int, str]:
        """What is known of the carriers of those of these people of whom anything is."""
        return await self._database.read(lambda tx: _carriers(tx, people))

    async def refused(self, people: Sequence[int], carriers: Collection[str]) -> None:
        """Note that these carriers said of these people's numbers that they are another one's."""
        wanted = sorted(set(people))

        def operation(tx: Tx) -> None:
            known = _carriers(tx, wanted)
            rows = []
            for one in wanted:
                before = Known.read(known.get(one, ""))
                if (after := before.refuse(carriers)) != before:
                    rows.append({"id": one, "carrier": after.text, "at": micros(self._clock.now())})
            tx.many(
                "UPDATE person SET carrier = :carrier, updated_at = :at WHERE id = :id AND standing <> 'erased'", rows
            )

        if wanted and carriers:
            await self._database.write(operation)

    async def sizes(self) -> dict[str, int]:
        """Rows per kind: officials, residents, subscribers, loudspeakers."""
        people = await self._database.read(
            lambda tx: tx.all("SELECT kind, COUNT(*) FROM person WHERE standing = 'active' GROUP BY kind")
        )
        device = await self._database.read(lambda tx: tx.one("SELECT COUNT(*) FROM device WHERE standing = 'service'"))
        sizes = dict.fromkeys((group.value for group in ROSTERS), 0)
        sizes |= {str(kind): int(number) for kind, number in people}
        return sizes | {"loudspeakers": int(device[0]) if device else 0}


def _whole(audience: Audience, target: Target) -> tuple[object, ...]:
    """Name those of an audience who are in one township, or in some of its villages."""
    return target.township, target.villages, audience.group, audience.language, audience.opted_out


def _anybody(tx: Tx, audience: Audience) -> Target | None:
    """Return the first place with somebody in it: most often it is the first one."""
    for target, behind in _begun(audience.targets, None):
        if any(True for _ in _runs_of(tx, audience, target, behind, PROBE, light=True)):
            return target
    return None


def _begun(targets: Iterable[Target], after: Cursor | None) -> list[tuple[Target, Cursor]]:
    """Targets that are not behind us, in order, each with the cursor to start behind."""
    start = after or ("", "", 0)
    return [
        (target, start if target.township == start[0] else (target.township, "", 0))
        for target in merged(targets)
        if target.township >= start[0]
    ]


def _runs_of(
    tx: Tx, audience: Audience, target: Target, behind: Cursor, limit: int, *, light: bool = False
) -> Iterator[tuple[str, Counted, Cursor]]:
    """Those of one township who count behind a cursor, at most `limit` rows at a time: (township, rows, cursor)."""
    while rows := _rows(tx, audience, target, behind, limit, light=light):
        behind = (target.township, rows[-1][0], rows[-1][1])
        if (counted := _counted(tx, audience, target.township, rows)).rows:
            yield target.township, counted, behind


def _of_taken(tx: Tx, audience: Audience, behind: Cursor, taken: sealed.Taken) -> Page | None:
    """Return those of a township's sealed pages who count; None if nobody does."""
    villages, persons, addresses = tuple(taken.villages), tuple(taken.persons), tuple(taken.addresses)
    places: Mapping[int, tuple[str, ...]] = {}
    known: Mapping[int, str] = taken.carriers
    if persons and (taken.several or audience.before):
        counted = _counted(tx, audience, behind[0], list(taken.rows()))
        villages, persons, addresses, _, carriers = zip(*counted.rows, strict=True) if counted.rows else ((),) * 5
        places, known = counted.places, _known(carriers)
    return Page(behind[0], persons, addresses, villages, places, behind, known) if persons else None


def _known(carriers: Sequence[str]) -> dict[int, str]:
    """Return what is known of the carriers of a few, by position."""
    return {at: known for at, known in enumerate(carriers) if known} if any(carriers) else {}


def _speakers(tx: Tx, audience: Audience, behind: Cursor, limit: int) -> Iterator[tuple[str, Counted, Cursor]]:
    """As `_runs_of`, loudspeakers of whole townships at once: a question for each would keep the last one waiting."""
    while True:
        rows = tx.all(
            "SELECT village, id, name, 0, channel, township FROM device WHERE township IN :*townships"
            " AND standing = 'service' AND (township, village, id) > (:township, :village, :id)"
            " ORDER BY township, village, id LIMIT :limit",
            townships=[target.township for target in merged(audience.targets)],
            limit=limit,
            **dict(zip(("township", "village", "id"), behind, strict=True)),
        )
        for township, run in groupby(rows, itemgetter(5)):
            own = [row[:5] for row in run]
            behind = (township, own[-1][0], own[-1][1])
            if (counted := _counted(tx, audience, township, own)).rows:
                yield township, counted, behind
        if len(rows) < limit:
            return


def _rows(tx: Tx, audience: Audience, target: Target, behind: Cursor, limit: int, *, light: bool = False) -> list[Row]:
    """(village, id, sealed or name, several, carrier or channel) of one township, in order, behind a cursor."""
    values: dict[str, Any] = {"township": target.township, "village": behind[1], "person": behind[2], "limit": limit}
    if audience.group is Group.LOUDSPEAKERS:
        narrowed = " AND village IN :*villages" if target.villages else ""
        return tx.all(
            f"SELECT village, id, name, 0, channel FROM device WHERE township = :township"
            f" AND standing = 'service' AND (village, id) > (:village, :person){narrowed}"
            " ORDER BY village, id LIMIT :limit",
            villages=target.villages,
            **values,
        )
    # A post at the township, or a subscription to all of it, is told whichever of its villages is meant.
    narrowed = " AND (p.village = '' OR p.village IN :*villages)" if target.villages else ""
    rows = tx.all(
        f"SELECT p.village, p.person, {'NULL' if light else 'r.secret'}, r.several, r.carrier FROM place p"
        " JOIN person r ON r.id = p.person WHERE p.township = :township AND p.audience = :audience"
        f" AND p.until IS NULL AND (p.village, p.person) > (:village, :person){narrowed}"
        " AND r.standing = 'active' AND (:anyone = 1 OR r.opted_out = 0)"
        " AND (:language = '' OR r.language = :language) ORDER BY p.village, p.person LIMIT :limit",
        villages=target.villages,
        audience=audience.group.value,
        anyone=int(audience.opted_out or audience.group is not Group.RESIDENTS),
        language=audience.language if audience.group is Group.SUBSCRIBERS else "",
        **values,
    )
    return _distinct(rows)


def _distinct(rows: list[Row]) -> list[Row]:
    """Two roles in one village are two rows; the page goes on behind the person, so they never meet again."""
    if len(set(map(PERSON, rows))) == len(rows):
        return rows
    return [rows[0], *(b for a, b in pairwise(rows) if a[:2] != b[:2])]


def _carriers(tx: Tx, people: Sequence[int]) -> dict[int, str]:
    found: dict[int, str] = {}
    for start in range(0, len(people), ASKED):
        found |= dict(
            tx.all(
                "SELECT id, carrier FROM person WHERE id IN :*people AND carrier <> ''",
                people=people[start : start + ASKED],
            )
        )
    return found


def _opted_out(tx: Tx, target: Target) -> int:
    narrowed = " AND (p.village = '' OR p.village IN :*villages)" if target.villages else ""
    row = tx.one(
        "SELECT COUNT(DISTINCT p.person) FROM place p JOIN person r ON r.id = p.person"
        f" WHERE p.township = :township AND p.audience = 'residents' AND p.until IS NULL{narrowed}"
        " AND r.standing = 'active' AND r.opted_out = 1",
        township=target.township,
        villages=target.villages,
    )
    return int(row[0]) if row else 0


def _places(tx: Tx, people: Sequence[int]) -> dict[int, list[Row]]:
    """(audience, township, village) of every place of these people."""
    found: dict[int, list[Row]] = {}
    for start in range(0, len(people), ASKED):
        for person, audience, township, village in tx.all(
            "SELECT DISTINCT person, audience, township, village FROM place WHERE until IS NULL AND person IN :*people"
            " ORDER BY township, village",
            people=people[start : start + ASKED],
        ):
            found.setdefault(person, []).append((audience, township, village))
    return found


def merged(targets: Iterable[Target]) -> list[Target]:
    """Return one target per township, in order; villages are united, none means all of them."""
    found: dict[str, Target] = {}
    for target in targets:
        other = found.get(target.township, target)
        whole = not target.villages or not other.villages
        villages = () if whole else tuple(sorted({*target.villages, *other.villages}))
        found[target.township] = replace(target, villages=villages)
    return [found[township] for township in sorted(found)]


def _reaches(villages: Mapping[str, Collection[str]], township: str, village: str) -> bool:
    """Tell whether targets (township → villages, none: all) reach a place; village "" is the township's own post."""
    wanted = villages.get(township)
    return wanted is not None and (not wanted or not village or village in wanted)


def _counted(tx: Tx, audience: Audience, township: str, rows: Sequence[Row]) -> Counted:
    """Return the rows that count here and now, with the codes of all targeted places where there are several."""
    before = {target.township: frozenset(target.villages) for target in merged(audience.before)}
    places = _places(tx, [row[1] for row in rows if row[3]])
    if township not in before and not places:  # the ordinary page: everybody lives in one place
        return Counted(rows, {})
    targets = {target.township: frozenset(target.villages) for target in merged(audience.targets)}
    group = audience.group.value
    told_before = (group, ORDER[0])
    counted: list[Row] = []
    codes: dict[int, tuple[str, ...]] = {}
    for row in rows:
        village, person, _, several, _ = row
        if not several:
            if not _reaches(before, township, village):
                counted.append(row)
            continue
        everywhere = places.get(person, [])
        if any(where[0] in told_before and _reaches(before, *where[1:]) for where in everywhere):
            continue
        here = _targeted(everywhere, targets)
        if here is not None and here[0] == (group, township, village):
            if len(here[1]) > 1:
                codes[len(counted)] = here[1]
            counted.append(row)
    return Counted(counted, codes)


def _targeted(
    places: Iterable[Row], villages: Mapping[str, Collection[str]]
) -> tuple[tuple[str, str, str], tuple[str, ...]] | None:
    """Where a person counts, as (audience, township, village), and the codes of its targeted places; None if none."""
    hit = sorted(
        (RANK[one], township, village) for one, township, village in places if _reaches(villages, township, village)
    )
    if not hit:
        return None
    rank, first, village = hit[0]
    codes = tuple(dict.fromkeys(code or township for _, township, code in hit))
    return (ORDER[rank], first, village), codes


def _grouped(pairs: Iterable[Row]) -> dict[str, tuple[int, ...]]:
    groups: dict[str, list[int]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return {key: tuple(values) for key, values in groups.items()}
