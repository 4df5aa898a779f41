"""What a machine remembers of the database, so that one restored from a back-up is noticed (rule 11).

A restored database has forgotten what was sent since, and would send it again. So the writer asks, on every new
connection before anything else, and every second: is this the database we knew? Not, if

- the audit chain no longer holds the record that a file beside the gateway remembers as its head (`older`);
- it is another PostgreSQL, or another table in it, than the row `installation` says (`moved`: pg_restore);
- PostgreSQL's timeline is another and no memory says that nothing is missing (`timeline`: point-in-time recovery; a
  fail-over that lost nothing goes on);
- SQLite: the memory is gone (`forgotten`), or is itself a copy (`copied`): it remembers which file it is.

Then everything is halted in that same transaction, the chain says why, and the scheduler rings every minute until a
person releases it. What each process noticed of a history that was given up counts once: a memory older than the last
restore proves nothing. A whole disk set back by a snapshot is not noticed: docs/operating.md has the halt for it.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import secrets
import struct
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import orjson

from gateway import log, metrics
from gateway.database import Database
from gateway.model import Record
from gateway.ports import Clock
from gateway.store import audit
from gateway.store.audit import Checkpoint
from gateway.store.change import note
from gateway.transaction import Tx, micros, moment

ACTOR = "installation"
RING = timedelta(minutes=1)
PATIENCE_S = 5.0
ROOM = 256  # bytes, one sector: a power cut leaves the old line or the new one
AT_FDCWD, STATX_BTIME = -100, 0x800
FIELDS = (("I", 0), ("q", 80), ("I", 88))  # of struct statx: stx_mask, and seconds and nanoseconds of stx_btime

_log = log.get("memory")


class Mark(NamedTuple):
    """The head of the chain as remembered, when, and whether the file that says so is a copy."""

    head: Checkpoint
    at: datetime
    copied: bool


class Memory:
    """One file per database in a folder. Written in place, so that it stays the same file for life."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def recall(self, database: str) -> Mark | None:
        """Return what was kept of a database; None if nothing was, or nothing that can be read."""
        path = self._path(database)
        try:
            found = orjson.loads(path.read_bytes())
            head = Checkpoint(int(found["seq"]), str(found["hash"]))
            return Mark(head, moment(int(found["at"])), found["file"] != _file(path))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            _log.error("memory_unreadable")
            return None

    def keep(self, database: str, head: Checkpoint, at: datetime) -> None:
        """Write what is to be remembered of a database.

        Raises:
            OSError: it cannot be written.
        """
        path = self._path(database)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            found = {"seq": head.seq, "hash": head.hash, "at": micros(at), "file": _file(path)}
            os.pwrite(file, orjson.dumps(found).ljust(ROOM), 0)
            os.fsync(file)
        finally:
            os.close(file)

    def _path(self, database: str) -> Path:
        return self._folder / f"memory-{database}"


def _file(path: Path) -> str:
    """Which file this is: inode and moment of birth (0 where the file system knows none). A copy has others.

    **Source:** statx(2); Python's `os` shows no birth on Linux. An inode alone is given again at once.
    """
    found, libc = ctypes.create_string_buffer(256), ctypes.CDLL(None)
    born = 0
    if libc.statx(AT_FDCWD, os.fsencode(path), 0, STATX_BTIME, found) == 0:
        mask, seconds, nanoseconds = (struct.unpack_from(form, found, at)[0] for form, at in FIELDS)
        born = seconds * 10**9 + nanoseconds if mask & STATX_BTIME else 0
    return f"{path.stat().st_ino}/{born}"


class Guard:
    """Looks at each new connection, and keeps the memory fresh."""

    def __init__(self, database: Database, folder: Path, clock: Clock) -> None:
        self._database = database
        self._memory = Memory(folder)
        self._clock = clock
        self._began = clock.now()
        self._known = False  # this process has found all well once: its own memory is the file's
        self._kept: Checkpoint | None = None
        self._rung: datetime | None = None
        database.on_connect = self.look

    def look(self, tx: Tx) -> None:
        """Halt everything if this is not the database we knew. Runs in the writer, before any other operation."""
        identity = _identity(tx)
        row = tx.one("SELECT id, identity, restored_at FROM installation")
        if row is None:
            sql = "INSERT INTO installation (one, id, identity, restored_at) VALUES (1, :id, :identity, 0)"
            tx.run(f"{sql} ON CONFLICT DO NOTHING", id=secrets.token_hex(8), identity=identity)
            self._known = True
            return
        mark = self._memory.recall(row[0])
        if row[1] == identity and not self._why(tx, identity, mark, *row[1:]):
            self._known = True
            return
        tx.take_turn()  # of several processes one notices, and the others find it noticed
        known, restored_at = tx.all("SELECT identity, restored_at FROM installation")[0]
        why, now = self._why(tx, identity, mark, known, restored_at), self._clock.now()
        if known == identity and not why:
            return
        restored_at = micros(now) if why else restored_at
        tx.run("UPDATE installation SET identity = :id, restored_at = :at", id=identity, at=restored_at)
        if why:
            sql = "INSERT INTO halt (scope, at, actor) VALUES ('*', :at, :actor)"
            tx.run(f"{sql} ON CONFLICT (scope) DO UPDATE SET actor = excluded.actor", at=restored_at, actor=ACTOR)
            note(tx, "halt", "", "*")
        audit.append(tx, [Record(now, ACTOR, "restored" if why else "failed_over", "*", why or "timeline")])
        self._kept = None

    def _why(self, tx: Tx, identity: str, mark: Mark | None, known: str, restored_at: int) -> str:
        """Say in one word why this is not the database we knew; "" if it is."""
        if known.rpartition("/")[0] != identity.rpartition("/")[0]:
            return "moved"
        counts = mark is not None and micros(mark.at) > restored_at
        if mark is not None and counts and not _holds(tx, mark.head):
            return "older"
        if known != identity and not counts:
            return "timeline"
        if tx.postgresql or self._known or restored_at >= micros(self._began):
            return ""
        if mark is None:
            return "forgotten" if tx.one("SELECT 1 FROM alert LIMIT 1") else ""
        return "copied" if mark.copied and counts else ""

    async def keep(self) -> None:
        """Look again, for tables can be exchanged under a connection; then remember where the chain stands.

        Both in the writer: a reader that came to a restored database first would make us remember that one.

        Raises:
            StoreDown: the database is away.
        """

        def operation(tx: Tx) -> tuple[str, Checkpoint]:
            self.look(tx)
            return tx.all("SELECT id FROM installation")[0][0], audit.head(tx)

        now = self._clock.now()
        database, head = await self._database.write(operation, PATIENCE_S)
        if head == self._kept:
            return
        self._kept = head
        try:
            await asyncio.to_thread(self._memory.keep, database, head, now)
        except OSError as error:  # sending goes on; a restore might not be noticed
            _log.error("memory_not_kept", code=error.errno)

    async def ring(self) -> None:
        """Say every minute that everything waits since a restore, until a person has released it."""
        now = self._clock.now()
        held = await self._database.look(restored)
        if held is None or (self._rung is not None and now - self._rung < RING):
            return
        self._rung = now
        metrics.alarms.labels("restored").inc()
        _log.critical("database_restored", since=held.isoformat(), release="mingluo halt all --off")


def restored(tx: Tx) -> datetime | None:
    """Since when everything is halted because the database was restored; None: it is not."""
    row = tx.one("SELECT at FROM halt WHERE scope = '*' AND actor = :actor", actor=ACTOR)
    return moment(row[0]) if row else None


def _identity(tx: Tx) -> str:
    """Which database this is: system, table, timeline. A restored one differs; SQLite's file says nothing of itself."""
    if not tx.postgresql:
        return ""
    row = tx.one(
        "SELECT s.system_identifier, 'audit_head'::regclass::oid, c.timeline_id"
        " FROM pg_control_system() s, pg_control_checkpoint() c"
    )
    return "/".join(map(str, row or ()))


def _holds(tx: Tx, head: Checkpoint) -> bool:
    """Whether the chain still has this record."""
    if head.seq == 0:
        return True
    row = tx.one("SELECT hash FROM audit WHERE seq = :seq", seq=head.seq)
    return row is not None and row[0] == head.hash
