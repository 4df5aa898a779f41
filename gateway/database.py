"""One SQL database for store and directory: SQLite in one process, or PostgreSQL for many.

Writes go through one thread with group commit: whatever waits (up to 64 operations) shares one
transaction and one fsync; while each turn of the loop brings more of them, they are gathered for up to
2 ms. Reads have a small pool of threads; in SQLite the loop itself may `look` a few
rows up, which waits for nobody. An operation is a plain function of a `Tx`. It may run twice (a failed
group is repeated one by one; a lost connection is retried), so it must be idempotent and touch nothing
but its `Tx`. What many callers ask for at once (accepts, claims, settles) is `share`d: one function works off
all such items of a group, so that the database is asked a handful of times per group and not per item.

Locks, on PostgreSQL, where several processes write: **the turn first, then rows in the order of their keys.** The turn
(one advisory lock) is what a transaction takes that decides something: it appends to the audit chain, or must not
happen beside another decision. It is taken before any row, by the whole group, for the operations of a group share its
locks. Whoever says `decides` has it from the start; where one asks for it after rows may have been locked, the group is
undone and begun anew with the turn. The one exception is an import, which would keep everybody waiting for its seconds:
it takes the turn last (`late`), and a collision with it costs a repeat.

Failures: an operation that raises fails alone. While the database is away (unreachable, failing over,
its disk full), operations wait; each fails with `StoreDown` when its own patience ends (accepting waits
briefly, settling waits for ever). Who was told "nothing was stored" can rely on it: the caller who gives
up and the writer who begins take the operation's `turn`, and only one of them gets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Generic, TypeVar, cast
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gateway import log
from gateway.errors import ConfigError, StoreDown
from gateway.transaction import TurnError, Tx

T = TypeVar("T")
Item = TypeVar("Item")

GROUP = 64  # operations that may share one transaction
GATHERING_S = 0.002  # an operation waits at most so long for others to come, and only while they do
PREPARED = 512  # statements a SQLite connection keeps compiled; one for each number of rows counts as its own
RECONNECT_S = 0.2
RUNNING_S = 10.0  # a caller whose patience ends while its operation runs waits for the outcome at most so long
CLOSING_S = 5.0  # a database that is away when the process ends gets this long to come back
BUSY_S = 1.0  # SQLite: another program holds the file
COLLISIONS = 10  # deadlocks with another process before an operation fails
NOT_STORED = "the database cannot be reached or written; nothing was stored"
IN_DOUBT = "no commit in time; it may have been stored: ask again with the same identifier"
# A connection swallowed by a fail-over must show within seconds, not after the system's two hours. The URL may differ.
CONNECTING: dict[str, str | int] = {
    "application_name": "mingluo",
    "connect_timeout": 3,
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,  # ms
}
# A plan is made once and kept, perhaps while a table is empty: it would read the whole table ever after, a storm's tens
# of thousands of batches for each claim. What has no index is read all the same, and is not worth compiling for that.
BY_INDEX = "SELECT set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)"
# Connection lost; shutting down or starting; disk, memory or connections used up; a standby. Anything else is the
# fault of the one operation and must not hold up the others.
AWAY_SQLSTATES = ("08", "57P", "53100", "53200", "53300", "25006")
AWAY_SQLITE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_READONLY")
FULL = ("53100", "SQLITE_FULL")
COLLIDED = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
CACHE_KIB = 8_192  # of SQLite's writer; a reader has a quarter. A mapped file would count once for each connection

_log = log.get("database")


class _Away(Exception):
    """The database is away; the text is a code."""


class _OneFailed(Exception):
    """One operation of a transaction failed by its own fault; `args[0]` is its error."""


def _code(error: Exception) -> str:
    return getattr(error, "sqlstate", None) or getattr(error, "sqlite_errorname", None) or type(error).__name__


def _is_away(error: Exception) -> bool:
    """Whether the database is away, rather than the operation wrong."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # no answer of the server: the connection is gone
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate.startswith(AWAY_SQLSTATES)
    return isinstance(error, sqlite3.Error) and _code(error).startswith(AWAY_SQLITE)


def _discreet(error: Exception) -> Exception:
    """Take the stored values (DETAIL, and all of class 22) out of a driver's message: whoever logs it may not."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        what = "" if error.sqlstate.startswith("22") else error.diag.message_primary or ""
        error.args = (f"{error.sqlstate} {what}".rstrip(),)
    return error


class _Operation(Generic[T]):
    """One queued write: its function, its future, and when its patience ends (monotonic seconds).

    `turn` is taken once: by the writer that begins, or by the caller that gives up. `doubtful`: a COMMIT got no answer.
    `decides`: it takes the database's turn, another one. `item` is what a shared function is to work off for this one;
    None: the function is its own.
    """

    __slots__ = ("answered", "deadline", "decides", "doubtful", "future", "item", "order", "run", "turn")

    def __init__(
        self, run: Callable[..., Any], future: asyncio.Future[T], deadline: float, order: str, item: Any = None,
        *, decides: bool = False,
    ) -> None:  # fmt: skip
        self.run = run
        self.decides = decides
        self.item = item
        self.future = future
        self.deadline = deadline
        self.order = order
        self.turn = threading.Lock()
        self.answered = False
        self.doubtful = False

    def begin(self) -> bool:
        """Whether it may run: nobody has given up on it."""
        return self.deadline > time.monotonic() and self.turn.acquire(blocking=False)

    def down(self) -> StoreDown:
        """Say what is known of an operation that is not tried again."""
        return StoreDown(IN_DOUBT if self.doubtful else NOT_STORED)


Result = tuple[_Operation[Any], Any, Exception | None]


def _run(tx: Tx, group: Sequence[_Operation[Any]]) -> list[Result]:
    """Run a group in order; items of one shared function together, where its first one stands."""
    shared: dict[Callable[..., Any], list[_Operation[Any]]] = {}
    for operation in group:
        if operation.item is not None:
            shared.setdefault(operation.run, []).append(operation)
    results: list[Result] = []
    for operation in group:
        if operation.item is None:
            results.append((operation, operation.run(tx), None))
        elif together := shared.pop(operation.run, None):
            answers = operation.run(tx, [one.item for one in together])
            results += [(one, answer, None) for one, answer in zip(together, answers, strict=True)]
    return results


class Database:
    """Connections, threads and group commit. `await open()` first, `await close()` last.

    Args:
        url: `sqlite:///path/to/file` or `postgresql://…`.
        readers: threads for reads.
    """

    def __init__(self, url: str, readers: int = 3) -> None:
        self.url = url
        self.dialect = "sqlite" if url.startswith("sqlite:") else "postgresql"
        if self.dialect == "postgresql" and not url.startswith(("postgresql://", "postgres://")):
            raise ConfigError(f"database URL must start with sqlite:/// or postgresql://, not {url.split(':', 1)[0]}:")
        self._queue: queue.SimpleQueue[_Operation[Any] | None] = queue.SimpleQueue()
        self._gathered: list[_Operation[Any]] = []  # the loop's
        self._gathered_since = 0.0  # monotonic
        self._writer = threading.Thread(target=self._write_loop, name="database-writer", daemon=True)
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._local = threading.local()
        self._connection: Any = None  # the writer's
        self._looking: Any = None  # the loop's own
        self._down = ""  # the code of the present outage
        self._down_since: float | None = None  # monotonic; the writer's
        self._closing_until = float("inf")  # monotonic
        self._lock_file: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened = False
        self.on_connect: Callable[[Tx], None] | None = None
        """The writer's first operation on every new connection; may run twice, like any other."""

    @property
    def down(self) -> str:
        """Why nothing can be written now, as the database's own code; "" while all is well."""
        return self._down

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(urlsplit(self.url).path)

    async def open(self) -> None:
        """Take the file (SQLite), bring the schema up to date, start the writer.

        Raises:
            ConfigError: another process holds the SQLite file, or it cannot be written.
            StoreDown: PostgreSQL cannot be reached.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._prepare)
        self._writer.start()
        self._opened = True

    def _prepare(self) -> None:
        if self.dialect == "sqlite":
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = self.path.with_name(self.path.name + ".lock").open("w")
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(
                    f"{self.path.name} belongs to another running process; several processes need a postgresql:// URL"
                ) from error
        from sqlalchemy.exc import OperationalError

        from gateway.migrations import upgrade

        try:
            upgrade(self.url)
        except (psycopg.OperationalError, OperationalError) as error:
            if self.dialect == "sqlite":
                what = f"{self.path.name} cannot be written ({getattr(error, 'orig', None) or error})"
                raise ConfigError(f"{what}: make room on its disk, and see that this user may write there") from None
            raise StoreDown("the database cannot be reached") from error

    async def close(self) -> None:
        """Finish what is queued, then close. What a database that stays away cannot take fails with `StoreDown`."""
        if not self._opened:
            return
        self._opened = False
        self._closing_until = time.monotonic() + CLOSING_S
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        self._readers.shutdown(wait=True)
        if self._looking is not None:
            self._looking.close()
        if self._lock_file is not None:
            self._lock_file.close()

    async def write(
        self, operation: Callable[[Tx], T], patience_s: float | None = None, order: str = "", *, decides: bool = False
    ) -> T:
        """Run an operation in the writer's next group; return after its commit.

        Args:
            operation: what to do; may run twice.
            patience_s: seconds to wait for a commit. None: for ever, and it runs even if the caller is cancelled,
                as what has happened must be kept. Infinite: for ever, but not for a cancelled caller.
            order: a group runs sorted by it ("" last), so that two processes lock the same rows in the same order.
            decides: it takes the turn; unsaid, it is found out at the cost of a beginning.

        Raises:
            StoreDown: no commit in time; the text says whether it may have been stored.
        """
        return cast(T, await self._queued(operation, None, patience_s, order, decides=decides))

    async def share(
        self,
        operation: Callable[[Tx, Sequence[Item]], Sequence[T]],
        item: Item,
        patience_s: float | None = None,
        order: str = "",
        *,
        decides: bool = False,
    ) -> T:
        """As `write`, but one call of `operation` works off all of a group's items for it, and answers each in turn.

        Raises:
            StoreDown: as `write`.
        """
        return cast(T, await self._queued(operation, item, patience_s, order, decides=decides))

    async def _queued(
        self, operation: Callable[..., Any], item: Any, patience_s: float | None, order: str, *, decides: bool = False
    ) -> Any:
        if not self._opened:
            raise StoreDown("the database is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        patience = float("inf") if patience_s is None else patience_s
        queued = _Operation(operation, future, time.monotonic() + patience, order, item, decides=decides)
        self._gather(queued)
        if patience_s is None:
            return await future
        late = None if patience == float("inf") else loop.call_later(patience, self._give_up, queued)
        try:
            return await future
        finally:  # whoever waits no longer must not be served later
            if late is not None:
                late.cancel()
            queued.deadline = 0.0
            queued.turn.acquire(blocking=False)
            future.cancel()

    @staticmethod
    def _give_up(queued: _Operation[Any]) -> None:
        """Answer a caller whose patience has ended: at once if its operation has not begun, else when it must have."""

        def tell(error: StoreDown) -> None:
            if not queued.future.done():
                queued.future.set_exception(error)

        if queued.turn.acquire(blocking=False):
            tell(queued.down())
        else:
            queued.future.get_loop().call_later(RUNNING_S, tell, StoreDown(IN_DOUBT))

    def _gather(self, queued: _Operation[Any]) -> None:
        """Hold an operation back while more of them come, so that the writer commits them together.

        While many callers are served, each turn of the loop brings some. As soon as one brings none, all go.
        """
        self._gathered.append(queued)
        if len(self._gathered) == 1:
            self._gathered_since = time.monotonic()
            asyncio.get_running_loop().call_soon(self._turned, 0)

    def _turned(self, seen: int) -> None:
        """Look, once per turn of the loop, whether more have come than were `seen` a turn ago."""
        waited_s = time.monotonic() - self._gathered_since
        if seen < len(self._gathered) < GROUP and waited_s < GATHERING_S:
            asyncio.get_running_loop().call_soon(self._turned, len(self._gathered))
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give the writer what was gathered."""
        gathered, self._gathered = self._gathered, []
        for operation in gathered:
            self._queue.put(operation)

    async def read(self, operation: Callable[[Tx], T], patience_s: float = 10.0) -> T:
        """Run a read-only operation on a reader's connection.

        Raises:
            StoreDown: no answer in time.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience_s):
                return await loop.run_in_executor(self._readers, self._read, operation)
        except TimeoutError:
            raise StoreDown("no answer in time") from None

    async def look(self, operation: Callable[[Tx], T], patience_s: float = 10.0) -> T:
        """Run a read of a few rows by key: on SQLite in the loop itself, for a thread would cost ten times the query.

        Raises:
            StoreDown: as `read`.
        """
        if self.dialect == "sqlite" and self._opened:
            with contextlib.suppress(_Away, sqlite3.Error):  # `read` finds out what it is, and has the time to
                if self._looking is None:
                    self._looking = self._connect(readonly=True, busy_s=0.0)
                return operation(Tx(self._looking, self.dialect))
        return await self.read(operation, patience_s)

    def _read(self, operation: Callable[[Tx], T]) -> T:
        for last in (False, True):
            try:
                if getattr(self._local, "connection", None) is None:
                    self._local.connection = self._connect(readonly=True)
                return operation(Tx(self._local.connection, self.dialect))
            except Exception as error:
                if not isinstance(error, _Away) and not _is_away(error):
                    raise _discreet(error) from None
                self._local.connection = None
                if last:
                    raise StoreDown("the database cannot be reached") from None
        raise AssertionError("unreachable")

    def _connect(self, *, readonly: bool, busy_s: float = BUSY_S) -> Any:
        """Connect; whatever goes wrong here is nobody's operation."""
        try:
            if self.dialect == "postgresql":
                server = psycopg.connect("", autocommit=True, **{**CONNECTING, **conninfo_to_dict(self.url)})  # type: ignore[arg-type]  # libpq's parameters, and none of psycopg's own
                server.execute(BY_INDEX)
                return server
            connection = sqlite3.connect(
                self.path, isolation_level=None, check_same_thread=False, timeout=busy_s, cached_statements=PREPARED
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KIB // 4 if readonly else CACHE_KIB}")
            if readonly:
                connection.execute("PRAGMA query_only=ON")
        except Exception as error:
            raise _Away(_code(error)) from error
        return connection

    def _begin(self) -> None:
        """Connect the writer, and let `on_connect` look before any operation does."""
        self._connection = self._connect(readonly=False)
        if self.on_connect is None:
            return
        tx = Tx(self._connection, self.dialect)
        try:
            tx.begin()
            self.on_connect(tx)
            tx.commit()
        except Exception as error:
            self._disconnect()
            if _is_away(error):
                raise _Away(_code(error)) from None
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be the connection that is broken
                connection.close()

    def _write_loop(self) -> None:
        ended = False
        while not ended:
            group, ended = self._next_group()
            group.sort(key=lambda operation: (not operation.order, operation.order))
            self._finish(group)
        self._disconnect()

    def _finish(self, group: list[_Operation[Any]]) -> None:
        """Run a group, through outages, until each operation has its answer or nobody waits for it."""
        while group := self._patient(group):
            begun: list[_Operation[Any]] = []
            try:
                if self._connection is None:
                    self._begin()
                begun = [operation for operation in group if operation.begin()]
                if begun:
                    self._commit_group(begun)
                return
            except _Away as away:
                self._note_down(str(away))
                for operation in begun:
                    if not operation.answered:
                        operation.turn.release()
            except Exception as error:  # a fault in here: these get it, and the thread lives on for the others
                _log.exception("writer_failed")
                self._disconnect()
                self._answer([(operation, None, error) for operation in group if not operation.answered])
                return
            time.sleep(RECONNECT_S)

    def _note_down(self, code: str) -> None:
        self._disconnect()
        self._down = code
        if self._down_since is None:  # once per outage
            self._down_since = time.monotonic()
            _log.error("store_down", code=code)

    def _note_up(self) -> None:
        if self._down_since is not None:
            _log.warning("store_up", down_s=round(time.monotonic() - self._down_since, 1))
            self._down, self._down_since = "", None

    def _next_group(self) -> tuple[list[_Operation[Any]], bool]:
        first = self._queue.get()
        if first is None:
            return [], True
        group = [first]
        while len(group) < GROUP:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _patient(self, group: list[_Operation[Any]]) -> list[_Operation[Any]]:
        """Return who still waits for an answer; tell those whose patience, or the process's, has ended."""
        now = time.monotonic()
        left = [operation for operation in group if not operation.answered]
        given_up = self._down_since is not None and self._closing_until <= now
        late = [operation for operation in left if given_up or operation.deadline <= now]
        self._answer([(operation, None, operation.down()) for operation in late])
        return [operation for operation in left if not operation.answered]

    def _commit_group(self, group: list[_Operation[Any]]) -> None:
        """Commit together; if that fails by one operation's fault, each by itself with its own error."""
        with contextlib.suppress(_OneFailed):
            self._answer(self._transaction(group))
            return
        for operation in group:
            self._answer([self._alone(operation)])

    def _alone(self, operation: _Operation[Any]) -> Result:
        failed: Exception = AssertionError("unreachable")
        for _ in range(COLLISIONS):
            try:
                return self._transaction([operation])[0]
            except _OneFailed as error:
                failed = error.args[0]
                if not isinstance(failed, COLLIDED):
                    break
        return operation, None, _discreet(failed)

    def _transaction(self, group: list[_Operation[Any]]) -> list[Result]:
        """Run operations in one transaction, with the turn from its beginning where one of them decides.

        Raises:
            _Away, _OneFailed: as `_try`.
        """
        try:
            return self._try(group, turn=any(operation.decides for operation in group))
        except TurnError:
            return self._try(group, turn=True)

    def _try(self, group: list[_Operation[Any]], *, turn: bool) -> list[Result]:
        """Run operations in one transaction.

        Raises:
            TurnError: one decides, and rows may have been locked before.
            _Away: the database is away; where COMMIT got no answer, the operations are marked doubtful.
            _OneFailed: anything else.
        """
        tx = Tx(self._connection, self.dialect)
        committing = False
        try:
            tx.begin()
            if turn:
                tx.take_turn()
            results = _run(tx, group)
            committing = True
            tx.commit()
        except Exception as error:
            with contextlib.suppress(Exception):  # the first error is the one to report
                tx.rollback()
            if isinstance(error, TurnError):
                raise
            if not _is_away(error):
                raise _OneFailed(error) from None
            for operation in group:
                operation.doubtful |= committing
            raise _Away(_code(error)) from None
        self._note_up()
        return results

    def _answer(self, results: list[Result]) -> None:
        if not results or self._loop is None:
            return
        for operation, _, _ in results:
            operation.answered = True

        def deliver() -> None:
            for operation, result, error in results:
                if operation.future.done():
                    continue  # its caller gave up or was cancelled
                if error is not None:
                    operation.future.set_exception(error)
                else:
                    operation.future.set_result(result)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(deliver)
