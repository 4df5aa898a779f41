"""Sealed pages: a thousand residents of a township as one row and one decryption instead of a thousand.

Its officials have a page, too. Read by `people`; made ahead by planners (`sealing`), and by whoever plans, when a
township's residents are wanted from the first one on and no pages are there. They are a cache and nothing else: every
page counts only together with the version of its township's roster that was read in the same snapshot as the people in
it, and triggers raise the version with every change of somebody's place or particulars and delete the pages (migration
0026). So neither a page made from what was read before a change nor one that is written after it can bring an old
address back, or anybody who opted out.

All pages of a township's residents or officials are written together. They are not written while an import, an
erasure or another maker holds the roster: an erasure must find every page that has the address, and two makers' pages
must not mix.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from gateway.directory.vault import Vault, decode_secret
from gateway.transaction import Row, Tx

ONE_AT_A_TIME = 7_310_061  # key of PostgreSQL's lock of the roster: imports, erasures, writers of pages
SIZE = 1000  # people of a page
END = "~"  # behind every village: how far the last page reaches
VERSION = (
    "(SELECT CAST(COALESCE(SUM(changes), 0) AS BIGINT) FROM roster_change"
    " WHERE township = {township} AND audience = :audience)"
)
OF_ONE = VERSION.format(township=":township")
COLUMNS = ("township", "audience", "village", "person", "version", "body")


class Folk(msgspec.Struct, array_like=True):
    """People in (village, person id) order, as columns; `opted_out` and `several` are positions, in order.

    `carriers` is what is known of the carriers of a few: (position, `gateway.carrier.Known.text`), in order.
    """

    runs: list[tuple[str, int]]
    persons: list[int]
    addresses: list[str]
    opted_out: list[int]
    several: list[int]
    carriers: list[tuple[int, str]] = []  # pages sealed by earlier versions have none

    @property
    def villages(self) -> list[str]:
        """The village of each."""
        return [village for code, number in self.runs for village in repeat(code, number)]


class Made(NamedTuple):
    """All pages of a township's roster by the (village, person) they reach to, and the version they were read at."""

    township: str
    audience: str
    version: int
    pages: dict[tuple[str, int], Folk]


class Taken:
    """People taken from pages, as columns. `several`, `carriers`: by position.

    `behind`: (village, person) of the last looked at. `ended`: nobody of the township comes behind them.
    """

    def __init__(self, behind: tuple[str, int]) -> None:
        self.villages: list[str] = []
        self.persons: list[int] = []
        self.addresses: list[str] = []
        self.several: list[int] = []
        self.carriers: dict[int, str] = {}
        self.behind = behind
        self.ended = False

    def add(self, folk: Folk, room: int, *, anyone: bool) -> bool:
        """Take up to `room` people behind `behind`; tell whether the page is used up."""
        villages, size = folk.villages, len(folk.persons)
        start = bisect_right(range(size), self.behind, key=lambda at: (villages[at], folk.persons[at]))
        kept: Sequence[int] = range(start, size)
        if folk.opted_out and not anyone:
            left_out = frozenset(folk.opted_out)
            kept = [at for at in kept if at not in left_out]
        end = size if len(kept) <= room else kept[room]
        if folk.several or folk.carriers:
            several, carriers, begun = frozenset(folk.several), dict(folk.carriers), len(self.persons)
            self.several += [begun + new for new, at in enumerate(kept[:room]) if at in several]
            self.carriers |= {begun + new: carriers[at] for new, at in enumerate(kept[:room]) if at in carriers}
        if isinstance(kept, range):
            self.villages += villages[start:end]
            self.persons += folk.persons[start:end]
            self.addresses += folk.addresses[start:end]
        else:
            self.villages += [villages[at] for at in kept[:room]]
            self.persons += [folk.persons[at] for at in kept[:room]]
            self.addresses += [folk.addresses[at] for at in kept[:room]]
        if end > start:
            self.behind = (villages[end - 1], folk.persons[end - 1])
        return end == size

    def rows(self) -> Iterator[Row]:
        """The same as rows (village, person, address, several, carrier)."""
        several = frozenset(self.several)
        for at, row in enumerate(zip(self.villages, self.persons, self.addresses, strict=True)):
            yield (*row, int(at in several), self.carriers.get(at, ""))


_folk = msgspec.msgpack.Decoder(Folk).decode
_encode = msgspec.msgpack.Encoder().encode


def take(
    tx: Tx, vault: Vault, township: str, audience: str, behind: tuple[str, int], limit: int, *, anyone: bool
) -> Taken | None:
    """Take up to `limit` people behind (village, person) from the pages; None where there are none that count.

    `anyone`: those too who opted out.
    """
    taken = Taken(behind)
    while len(taken.persons) < limit and not taken.ended:
        rows = tx.all(
            f"SELECT village, body FROM sealed_page WHERE township = :township AND audience = :audience"
            f" AND version = {OF_ONE} AND (village, person) > (:village, :person) ORDER BY village, person"
            " LIMIT :number",
            township=township,
            audience=audience,
            village=taken.behind[0],
            person=taken.behind[1],
            number=-(-(limit - len(taken.persons)) // SIZE),
        )
        if not rows:
            return taken if taken.behind != behind else None
        _open(vault, rows, taken, limit, anyone=anyone)
    return taken


def fetch(tx: Tx, townships: Sequence[str], audience: str) -> dict[str, list[Row]]:
    """Fetch the pages that count of several townships in one question, unopened: (village, body) by township.

    A township where nobody ever was is left out; one without pages that count has none.
    """
    rows = tx.all(
        "SELECT k.township, s.village, s.body FROM (SELECT township, CAST(SUM(changes) AS BIGINT) AS version"
        " FROM roster_change WHERE township IN :*townships AND audience = :audience GROUP BY township) AS k"
        " LEFT JOIN sealed_page s ON s.township = k.township AND s.audience = :audience AND s.version = k.version"
        " ORDER BY k.township, s.village, s.person",
        townships=townships,
        audience=audience,
    )
    return {
        township: [page[1:] for page in pages if page[2] is not None]
        for township, pages in groupby(rows, itemgetter(0))
    }


def take_fetched(vault: Vault, rows: Sequence[Row], behind: tuple[str, int], limit: int) -> Taken:
    """As `take`, from pages that were fetched."""
    taken = Taken(behind)
    _open(vault, rows, taken, limit, anyone=True)
    return taken


def take_made(made: Made, limit: int, *, anyone: bool) -> Taken:
    """As `take`, the first ones of pages that were just made."""
    taken = Taken(("", 0))
    _add(((village, folk) for (village, _), folk in made.pages.items()), taken, limit, anyone=anyone)
    return taken


def _open(vault: Vault, rows: Iterable[Row], taken: Taken, limit: int, *, anyone: bool) -> None:
    _add(((village, _folk(vault.open(body))) for village, body in rows), taken, limit, anyone=anyone)


def _add(pages: Iterable[tuple[str, Folk]], taken: Taken, limit: int, *, anyone: bool) -> None:
    """Take from pages in order until there are `limit`."""
    for village, folk in pages:
        used_up = taken.add(folk, limit - len(taken.persons), anyone=anyone)
        taken.ended = used_up and village == END
        if not used_up or len(taken.persons) == limit:
            break


def make(tx: Tx, vault: Vault, township: str, audience: str) -> Made | None:
    """Make the pages of a township's roster from its people, read in one snapshot with the version.

    None where nobody is, and where a place has no person: the version would not tell when the person comes.
    """
    rows = tx.all(
        f"SELECT p.village, p.person, r.secret, r.opted_out, r.several, r.carrier, {OF_ONE} FROM place p"
        " LEFT JOIN person r ON r.id = p.person WHERE p.township = :township AND p.audience = :audience"
        " AND p.until IS NULL AND (r.id IS NULL OR r.standing = 'active') ORDER BY p.village, p.person",
        township=township,
        audience=audience,
    )
    if not rows or any(row[2] is None for row in rows):
        return None
    people = [next(same) for _, same in groupby(rows, itemgetter(0, 1))]  # two roles in one village are one person
    parts = [people[start : start + SIZE] for start in range(0, len(people), SIZE)]
    ends = [*((part[-1][0], part[-1][1]) for part in parts[:-1]), (END, 0)]
    pages = {end: _of(vault, part) for end, part in zip(ends, parts, strict=True)}
    return Made(township, audience, int(rows[0][6]), pages)


def _of(vault: Vault, rows: Sequence[Row]) -> Folk:
    villages, persons, sealed, opted_out, several, carriers, _ = zip(*rows, strict=True)
    return Folk(
        [(village, len(list(run))) for village, run in groupby(villages)],
        list(persons),
        [decode_secret(plain).address for plain in vault.open_all(sealed)],
        [at for at, flag in enumerate(opted_out) if flag],
        [at for at, flag in enumerate(several) if flag],
        [(at, known) for at, known in enumerate(carriers) if known],
    )


def seal(vault: Vault, made: Made) -> list[Row]:
    """Return the rows of `sealed_page`."""
    return [
        (made.township, made.audience, *end, made.version, vault.seal(_encode(folk)))
        for end, folk in made.pages.items()
    ]


def write(tx: Tx, rows: Sequence[Row]) -> bool:
    """Write all pages of a township's roster; False if it is being changed, or was since they were read."""
    values: dict[str, Any] = dict(zip(("township", "audience"), rows[0], strict=False))
    if tx.postgresql and tx.all("SELECT pg_try_advisory_xact_lock(:one)", one=ONE_AT_A_TIME) != [(True,)]:
        return False
    if tx.all(f"SELECT {OF_ONE}", **values) != [(rows[0][COLUMNS.index("version")],)]:
        return False
    tx.run("DELETE FROM sealed_page WHERE township = :township AND audience = :audience", **values)
    tx.copy("sealed_page", COLUMNS, rows)
    if tx.postgresql:  # rows of transactions that have ended become one; the sum stays
        tx.run(
            "WITH ended AS (DELETE FROM roster_change WHERE township = :township AND audience = :audience AND xid <> 0"
            " RETURNING changes) INSERT INTO roster_change SELECT :township, :audience, 0, SUM(changes) FROM ended"
            " HAVING COUNT(*) > 0 ON CONFLICT (township, audience, xid)"
            " DO UPDATE SET changes = roster_change.changes + excluded.changes",
            **values,
        )
    return True


def forget(tx: Tx, townships: Sequence[str]) -> None:
    """Delete the pages of these townships, whoever else is about to."""
    tx.run("DELETE FROM sealed_page WHERE township IN :*townships", townships=townships)
