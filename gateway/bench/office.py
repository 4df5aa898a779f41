"""The installation that `gateway.bench.intake` measures: fifty issuers, people, and a real `mingluo serve`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

from gateway.bench.measure import COUNTY, configuration, environment
from gateway.bench.people import write_people
from gateway.demo.stage import Servers, Stage
from gateway.model import Group
from gateway.settings import data_folder

ISSUERS = tuple((f"bench-{number:02d}@mingluo.example", f"bench-token-{number:02d}") for number in range(50))
"""CAP sender and token of each."""
OFFICIALS, RESIDENTS = 800, 2_000  # of `COUNTY`, where the alerts go
CROWD_COUNTY = "411728"  # where the recalled one goes
CHANNELS = "[noop]\n"
PATIENCE_S = 120.0
POLL_S = 0.01

ISSUER_ROW = """
[[issuer]]
id = "{name}"
sender = "{sender}"
name = "泌阳县气象局"
name_en = "Biyang Meteorological Bureau"
signature = "泌阳县气象局"
bureau = "气象"
areas = ["411726"]
green = true
[[issuer.grant]]
documents = ["warning"]
hazards = ["11B*"]
highest = "red"
"""
ACCOUNT_ROW = """
[[token]]
sha256 = "{digest}"
issuer = "{name}"
name = "{name}"
role = "issuer"
demo = true
"""
_OPEN = (
    "SELECT (SELECT COUNT(*) FROM batch WHERE unfinished > 0) + (SELECT COUNT(*) FROM step s JOIN alert a"
    " ON a.id = s.alert WHERE s.finished = 0 AND a.standing = 'active')"
)


@dataclass(frozen=True)
class Office:
    """A running gateway: where it listens, its process, its database."""

    port: int
    pid: int
    database: Path

    def ask(self, sql: str, *values: object) -> tuple[int | None, ...]:
        """Return the first row of a query, read beside the gateway."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            row: tuple[int | None, ...] = connection.execute(sql, values).fetchone()
        return row

    async def settled(self) -> None:
        """Wait until everything that was accepted is planned and delivered."""
        await self.until(lambda: self.ask(_OPEN) == (0,))

    async def until(self, there: Callable[[], bool]) -> None:
        """Look again and again.

        Raises:
            RuntimeError: it took too long.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not there():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not get there in {PATIENCE_S:.0f} s")
            await asyncio.sleep(POLL_S)


async def furnish(folder: Path, crowd: int) -> None:
    """Write configuration and database of an installation, once for all rounds."""
    policy = configuration(folder) / "policy"
    names = [
        (sender.partition("@")[0], sender, hashlib.sha256(token.encode()).hexdigest()) for sender, token in ISSUERS
    ]
    with (policy / "authority.toml").open("a", encoding="utf8") as file:
        file.writelines(ISSUER_ROW.format(name=name, sender=sender) for name, sender, _ in names)
    with (policy / "tokens.toml").open("a", encoding="utf8") as file:
        file.writelines(ACCOUNT_ROW.format(name=name, digest=digest) for name, _, digest in names)
    await write_people(folder / "data", OFFICIALS, Group.OFFICIALS, COUNTY)
    await write_people(folder / "data", RESIDENTS, Group.RESIDENTS, COUNTY)
    await write_people(folder / "data", crowd, Group.RESIDENTS, CROWD_COUNTY)


@asynccontextmanager
async def opened(furnished: Path, folder: Path) -> AsyncIterator[Office]:
    """Run a gateway in `folder` on a copy of what was furnished: every round begins with an empty ledger."""
    shutil.copytree(furnished / "data", folder / "data")
    (folder / "channels.toml").write_text(CHANNELS, encoding="utf8")
    stage = Stage(folder, Servers(), secret_key="")
    geometry = [str(path) for path in sorted((data_folder("config") / "regions").glob("*.geojson"))]
    own = {
        "MINGLUO_CONFIG": str(furnished / "config"),
        "MINGLUO_GEOMETRY": json.dumps(geometry),
        "MINGLUO_LOG_LEVEL": "warning",
        "MINGLUO_WRITES_PER_MINUTE": "1000000",  # the limit is asked all the same
    }
    try:
        stage.start("serve", ["-m", "gateway.cli", "serve"], environment() | stage.environment("serve") | own)
        await stage.answering()
        yield Office(stage.api_port, stage.processes["serve"].pid, folder / "data" / "mingluo.db")
    finally:
        stage.stop()
