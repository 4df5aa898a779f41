"""One transaction: how the store speaks SQL, the same words to SQLite and to PostgreSQL.

SQL takes `:name` parameters; `IN :*name` takes a sequence. On PostgreSQL a transaction is a pipeline: a statement is
sent at once, and waited for where its answer is looked at, so that questions asked one behind the other are one wait.
Who commits, on which thread and when, is `gateway.database`'s.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain
from typing import Any, cast

Row = tuple[Any, ...]

FEW = 64  # statements whose answers may wait for the next one that is looked at
TOGETHER = 64  # rows of one INSERT on SQLite: half the time of one each, more of them gain nothing
PARAMETER = re.compile(r"(?<![:\w]):(\*?)([a-z_]+)")
LOCKS_NOTHING = re.compile(r"\s*SELECT\b(?!.*\bFOR (UPDATE|SHARE)\b)", re.DOTALL)
LISTED = re.compile(r"(NOT )?IN :\*([a-z_]+)")
TURN = 4_117_001  # key of the advisory lock
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: dict[tuple[str, str], list[int]] = {}


def micros(moment: datetime) -> int:
    """Microseconds since the epoch: how the database stores times."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(value: int) -> datetime:
    """Return the aware UTC time of a stored value."""
    return EPOCH + timedelta(microseconds=value)


@lru_cache(maxsize=1024)
def _for_psycopg(sql: str) -> str:
    return PARAMETER.sub(r"%(\2)s", sql.replace("%", "%%"))


@lru_cache(maxsize=1024)
def _may_lock(sql: str) -> bool:
    return not LOCKS_NOTHING.match(sql)


class TurnError(Exception):
    """An operation asks for the turn after rows may have been locked: its transaction begins anew with the turn."""


class Tx:
    """One transaction. What fails among the statements sent raises with the next answer, at the latest the commit's."""

    def __init__(self, connection: Any, dialect: str) -> None:
        self._connection = connection
        self._pipeline: Any = None
        self._sent = contextlib.ExitStack()
        self.dialect = dialect
        self.known: dict[str, Any] = {}
        """What an operation has found out for those behind it in the same transaction."""
        self._in_turn = False
        self._locks = False  # whether it may have locked rows

    @property
    def postgresql(self) -> bool:
        """Whether the database is PostgreSQL."""
        return self.dialect == "postgresql"

    def begin(self) -> None:
        """Begin; a reader's has no beginning."""
        if self.postgresql:
            self._pipeline = self._sent.enter_context(self._connection.pipeline())
        self._connection.execute("BEGIN" if self.postgresql else "BEGIN IMMEDIATE")

    def take_turn(self, *, late: bool = False) -> None:
        """Wait until no other process decides anything, up to this one's commit: for what rows cannot keep apart.

        Raises:
            TurnError: rows may be locked already, and it is not `late`; the writer begins anew.
        """
        if not self.postgresql or self._in_turn:
            return
        if self._locks and not late:
            raise TurnError
        self._execute(f"SELECT pg_advisory_xact_lock({TURN})", {})
        self._in_turn = True

    def commit(self) -> None:
        """Commit, or raise what went wrong with anything that was sent."""
        self._connection.execute("COMMIT")
        self._settle()

    def rollback(self) -> None:
        """Undo everything."""
        with contextlib.suppress(Exception):  # what went wrong is known already
            self._settle()
        self._connection.execute("ROLLBACK")

    def _settle(self) -> None:
        """End the pipeline: wait for all that was sent."""
        self._pipeline = None
        self._sent.close()

    def _execute(self, sql: str, values: dict[str, Any]) -> Any:
        if ":*" in sql:
            sql, values = _arrays(sql, values) if self.postgresql else _expand(sql, values)
        if self.dialect == "sqlite":
            return self._connection.execute(sql, values)
        self._locks = self._locks or _may_lock(sql)
        return self._connection.execute(_for_psycopg(sql), values, binary=True)  # text would write bytes as hex

    def run(self, sql: str, **values: Any) -> int:
        """Execute; return the number of rows changed."""
        cursor = self._execute(sql, values)
        if self._pipeline is not None:
            self._pipeline.sync()
        return int(cursor.rowcount)

    def send(self, sql: str, **values: Any) -> None:
        """Execute; nobody waits for the answer."""
        self._execute(sql, values)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let a reader `ask` several questions within, whose answers are there behind it: one wait for all."""
        if not self.postgresql or self._pipeline is not None:
            yield
            return
        with self._connection.pipeline() as self._pipeline:
            yield
        self._pipeline = None

    @contextlib.contextmanager
    def whole_tables(self) -> Iterator[None]:
        """Let an operation ask within for most of a table, which an index would only lead through in a worse order."""
        if not self.postgresql:
            yield
            return
        self.send("SELECT set_config('enable_seqscan', 'on', true)")
        yield
        self.send("SELECT set_config('enable_seqscan', 'off', true)")

    def ask(self, sql: str, **values: Any) -> Callable[[], list[Row]]:
        """Execute; return what waits for all rows: asked one behind the other, many questions are one wait."""
        cursor = self._execute(sql, values)
        if self._pipeline is not None:
            return lambda: cast(list[Row], cursor.fetchall())
        rows = cast(list[Row], cursor.fetchall())  # as they stand now
        return lambda: rows

    def all(self, sql: str, **values: Any) -> list[Row]:
        """Execute; return all rows."""
        return self.ask(sql, **values)()

    def one(self, sql: str, **values: Any) -> Row | None:
        """Execute; return the first row or None."""
        rows = self.all(sql, **values)
        return rows[0] if rows else None

    def many(self, sql: str, rows: Sequence[dict[str, Any]]) -> None:
        """Execute once per row; nobody waits for the answers."""
        if len(rows) <= FEW:
            for row in rows:
                self.send(sql, **row)
        elif self.dialect == "sqlite":
            self._connection.executemany(sql, rows)
        else:
            self._locks = True
            with self._connection.cursor() as cursor:
                cursor.executemany(_for_psycopg(sql), rows)

    def counts(self, sql: str, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Execute once per row, on PostgreSQL without waiting in between; return the number of rows each changed."""
        cursors = [self._execute(sql, row) for row in rows]
        if self._pipeline is not None:
            self._pipeline.sync()
        return [int(cursor.rowcount) for cursor in cursors]

    def copy(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Bulk insert of rows known to be new: COPY on PostgreSQL, a prepared insert on SQLite."""
        names = ", ".join(columns)
        if self.dialect == "sqlite":
            marks = ", ".join("?" * len(columns))
            self._connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
            return
        self._settle()  # a pipeline takes no COPY
        kinds = _kinds(self._connection, table, names)
        sql = f"COPY {table} ({names}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(sql) as copy:
            copy.set_types(kinds)
            for row in rows:
                copy.write_row(row)

    def insert(self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert a page of rows known to be new; nobody waits. `types` are the columns with PostgreSQL's types."""
        if rows:
            self._insert(table, types, rows, "")

    def upsert(
        self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]], conflict: str, returning: str = ""
    ) -> list[Row]:
        """Bulk insert of rows that may be there; `conflict` says what then, as behind ON CONFLICT.

        One statement on PostgreSQL, few on SQLite. `types` are the columns with PostgreSQL's types. Where
        `conflict` updates, no two of the rows may have one key. With `returning`, these columns of what was written,
        in any order.
        """
        if not returning:
            if rows:
                self._insert(table, types, rows, f" ON CONFLICT {conflict}")
            return []
        return self.ask_upsert(table, types, rows, conflict, returning)()

    def ask_upsert(
        self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]], conflict: str, returning: str
    ) -> Callable[[], list[Row]]:
        """Bulk insert as `upsert`; return what waits for the rows that it gives back."""
        if not rows:
            return list
        answers = self._insert(table, types, rows, f" ON CONFLICT {conflict} RETURNING {returning}")
        if self._pipeline is not None:
            return lambda: [row for one in answers for row in one.fetchall()]
        written = [row for one in answers for row in one.fetchall()]
        return lambda: written

    def _insert(self, table: str, types: Mapping[str, str], rows: Sequence[Sequence[Any]], tail: str) -> list[Any]:
        """Write rows in few statements; return their cursors. On PostgreSQL one for all, their columns as arrays."""
        into = f"INTO {table} ({', '.join(types)})"
        if self.dialect == "sqlite":
            # What fails ends the transaction anyway, so no statement with a trigger need keep what would undo it.
            into = f"INSERT {into}" if tail else f"INSERT OR FAIL {into}"
            marks = f"({', '.join('?' * len(types))})"
            parts = [rows[start : start + TOGETHER] for start in range(0, len(rows), TOGETHER)]
            return [
                self._connection.execute(
                    f"{into} VALUES {', '.join([marks] * len(part))}{tail}", tuple(chain.from_iterable(part))
                )
                for part in parts
            ]
        # Bytes as they are: in an array's literal they would be twice as many, of hexadecimal digits.
        arrays = ", ".join(f"%{'b' if kind == 'bytea' else 's'}::{kind}[]" for kind in types.values())
        columns = zip(types.values(), zip(*rows, strict=True), strict=True)
        values = [_array(kind, column) for kind, column in columns]
        return [self._connection.execute(f"INSERT {into} SELECT * FROM unnest({arrays}){tail}", values, binary=True)]


def _array(kind: str, values: Sequence[Any]) -> Any:
    """Write a column as an array's literal: the driver would look at each value, and take ten times as long."""
    if kind not in ("text", "bigint") or None in values:
        return list(values)
    if kind == "bigint":
        return "{" + ",".join(map(str, values)) + "}"
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        joined = '","'.join(value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return '{"' + joined + '"}'


def _arrays(sql: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Turn each `IN :*name` into one array, so that the statement is the same for any number of members."""
    sql, names = _with_arrays(sql)
    return sql, values | {name: list(values[name]) for name in names}


@lru_cache(maxsize=1024)
def _with_arrays(sql: str) -> tuple[str, frozenset[str]]:
    names = frozenset(match[2] for match in LISTED.finditer(sql))
    return LISTED.sub(lambda match: f"{'<> ALL' if match[1] else '= ANY'} (:{match[2]})", sql), names


def _kinds(connection: Any, table: str, names: str) -> list[int]:
    """Return the types of a table's columns, which a binary COPY must name; asked once, only migrations change them."""
    if (kinds := _KINDS.get((table, names))) is None:
        described = connection.execute(f"SELECT {names} FROM {table} LIMIT 0").description
        kinds = _KINDS[table, names] = [column.type_code for column in described]
    return kinds


def _expand(sql: str, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Turn each `:*name` into a list of single parameters; an empty sequence matches nothing."""
    single = dict(values)

    def list_of(match: re.Match[str]) -> str:
        if not match[1]:
            return match[0]
        members = list(single.pop(match[2]))
        letters = [f"{match[2]}_{_letters(index)}" for index in range(len(members))]
        single.update(zip(letters, members, strict=True))
        return "(" + ", ".join(f":{name}" for name in letters) + ")"

    return PARAMETER.sub(list_of, sql), single


@lru_cache(maxsize=4096)
def _letters(index: int) -> str:
    text = ""
    while True:
        index, digit = divmod(index, 26)
        text = chr(97 + digit) + text
        if not index:
            return text
