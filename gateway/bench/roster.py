"""How fast a roster comes in: CSV in UTF-8 and GBK, .xlsx, .xls, and the same list again. Rows, seconds, memory.

Called by `mingluo bench import`. Each import is a process of its own, from opening the file to the commit, so its
peak memory is all there is; making the database and starting Python are not counted, as a list is brought in once.
PostgreSQL is measured on the server MINGLUO_DATABASE_URL names, in a database of its own that is dropped again.
"""

from __future__ import annotations

import asyncio
import csv
import itertools
import os
import resource
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg.sql import SQL, Identifier

from gateway.bench.measure import Spread, SystemClock, answer
from gateway.bench.workbook import XLS_ROWS, write_xls, write_xlsx
from gateway.database import Database
from gateway.directory.importer import How, Importer
from gateway.directory.roster import write_sample
from gateway.directory.table import Roster
from gateway.directory.vault import Vault
from gateway.regions import Regions
from gateway.settings import data_folder

SEED = 7
MIB = 1 << 10  # of the kilobytes the kernel counts in
Cells = Sequence[str]


class Brought(msgspec.Struct, frozen=True):
    """One import over the rounds; `peak_rss_mib` is the highest, `cpu_s` what it takes where it is alone."""

    rows: int
    seconds: Spread
    cpu_s: Spread
    rows_s: Spread
    peak_rss_mib: float


class Import(msgspec.Struct, frozen=True):
    """The figures of a run; `again` is the same list once more, as the full one."""

    rows: int
    rounds: int
    utf_8: Brought
    gbk: Brought
    xlsx: Brought
    xls: Brought
    again: Brought
    postgresql: Brought | None = None
    postgresql_again: Brought | None = None
    bench: str = "import"


class _Once(msgspec.Struct):
    """What a child measured."""

    rows: int
    seconds: float
    cpu_s: float
    peak_rss_mib: float


async def roster(rows: int, rounds: int) -> Import:
    """Import a list of so many residents in every form, into SQLite and, where there is one, PostgreSQL."""
    with tempfile.TemporaryDirectory(prefix="mingluo-bench-") as name:
        folder = Path(name)
        files = await asyncio.to_thread(_files, folder, rows)
        found: dict[str, list[_Once]] = {}
        for _ in range(rounds):
            for form, path in files.items():
                found.setdefault(form, []).append(await _fresh(folder, path))
                if form == "utf_8":
                    found.setdefault("again", []).append(await _once(path, _sqlite(folder)))
            if server := os.environ.get("MINGLUO_DATABASE_URL", ""):
                async with _database(server, folder) as address:
                    found.setdefault("postgresql", []).append(await _once(files["utf_8"], address))
                    found.setdefault("postgresql_again", []).append(await _once(files["utf_8"], address))
        one = {form: _brought(once) for form, once in found.items()}
        lists = one["utf_8"], one["gbk"], one["xlsx"], one["xls"], one["again"]
        return Import(rows, rounds, *lists, one.get("postgresql"), one.get("postgresql_again"))


def _brought(once: Sequence[_Once]) -> Brought:
    return Brought(
        once[0].rows,
        Spread.of(one.seconds for one in once),
        Spread.of(one.cpu_s for one in once),
        Spread.of(one.rows / one.seconds for one in once),
        max(one.peak_rss_mib for one in once),
    )


# --- the lists ------------------------------------------------------------------------------------


def _files(folder: Path, rows: int) -> dict[str, Path]:
    sample = write_sample(folder / "sample", Regions.load(data_folder("config") / "regions"), rows, SEED)
    gbk, xlsx, xls = folder / "gbk.csv", folder / "list.xlsx", folder / "list.xls"
    with gbk.open("w", encoding="gbk", newline="") as file:
        csv.writer(file).writerows(_rows(sample.residents))
    write_xlsx(xlsx, _rows(sample.residents))
    write_xls(xls, [itertools.islice(_rows(sample.residents), XLS_ROWS)])
    return {"utf_8": sample.residents, "gbk": gbk, "xlsx": xlsx, "xls": xls}


def _rows(path: Path) -> Iterator[Cells]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.reader(file)


# --- the databases --------------------------------------------------------------------------------


def _sqlite(folder: Path) -> Path:
    """Return the file that holds the address: an argument would show a server's password to everybody."""
    (folder / "sqlite.url").write_text(f"sqlite:///{folder / 'data' / 'mingluo.db'}", "utf8")
    return folder / "sqlite.url"


async def _fresh(folder: Path, path: Path) -> _Once:
    shutil.rmtree(folder / "data", ignore_errors=True)
    (folder / "data").mkdir()
    return await _once(path, _sqlite(folder))


@asynccontextmanager
async def _database(server: str, folder: Path) -> AsyncIterator[Path]:
    name = f"mingluo_bench_{secrets.token_hex(4)}"
    address = folder / "postgresql.url"
    address.touch(0o600)
    address.write_text(urlsplit(server)._replace(path=f"/{name}").geturl(), "utf8")

    def run(statement: LiteralString) -> None:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(SQL(statement).format(Identifier(name)))

    await asyncio.to_thread(run, "CREATE DATABASE {}")
    try:
        yield address
    finally:
        await asyncio.to_thread(run, "DROP DATABASE {} WITH (FORCE)")


async def _once(path: Path, address: Path) -> _Once:
    said = await answer("gateway.bench.roster", str(path), str(address))
    return msgspec.json.decode(said, type=_Once)


# --- the child ------------------------------------------------------------------------------------


async def _bring(path: Path, address: str) -> _Once:
    regions = Regions.load(data_folder("config") / "regions")
    database = Database(address)
    await database.open()
    try:
        importer = Importer(database, Vault(bytes(32)), regions, SystemClock())
        with path.open("rb") as file:
            begun, spent = time.perf_counter(), _cpu_s()
            done = await importer.read(file, Roster.RESIDENTS, How(replace=True))
            seconds, cpu_s = time.perf_counter() - begun, _cpu_s() - spent
    finally:
        await database.close()
    if done.failed:
        raise RuntimeError(f"{done.failed} rows were refused: {done.errors[:3]}")
    return _Once(done.rows, seconds, cpu_s, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB)


def _cpu_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    once = asyncio.run(_bring(Path(sys.argv[1]), Path(sys.argv[2]).read_text("utf8")))
    sys.stdout.write(msgspec.json.encode(once).decode() + "\n")
