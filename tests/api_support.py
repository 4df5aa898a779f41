"""A gateway without senders for the tests of the API: real policy, places, templates and store; a small made-up roster.

`Away` is a database that can be sent away, so that a 503 is answered without breaking a real one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import blank
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from manual_clock import ManualClock

from channels.noop import Noop, NoopSettings
from gateway.api import make_app
from gateway.api.shape import EXAMPLE
from gateway.broker import LocalBroker
from gateway.case import Cases
from gateway.channel import Channel, Link
from gateway.compose import GatewayComposer
from gateway.core import Core
from gateway.coverage import CoverageBook
from gateway.database import Database
from gateway.decision import Decisions
from gateway.directory.people import SqlDirectory
from gateway.directory.vault import Secret, Vault, encode_secret
from gateway.errors import StoreDown
from gateway.intake import Intake
from gateway.model import Lane, Message, Receipt, Slice, State
from gateway.national import Nationals
from gateway.obligation import Obligations
from gateway.planner import Planner
from gateway.policy import Policy
from gateway.ports import Settled
from gateway.receipts import Receipts
from gateway.regime import Regimes
from gateway.regions import Regions
from gateway.relay import Relay, queue
from gateway.render import Renderer
from gateway.settings import Settings
from gateway.signer import Keys
from gateway.store import Store
from gateway.training import Drills
from gateway.transaction import Tx

ROOT = Path(__file__).parent.parent
POLICY = Policy.load(ROOT / "config" / "policy")
REGIONS = Regions.load(ROOT / "config" / "regions")
RENDERER = Renderer(ROOT / "templates", POLICY.signatures, REGIONS.name)
T = TypeVar("T")
Client = TestClient[web.Request, web.Application]

JIALOU, TONGSHAN = "411726209", "411726204"
ISSUER, SIGNER = "demo-411726-qxj-issuer", "demo-411726-qxj-signer"
CLERK, VIEWER, ADMIN = "demo-411726-qxj-clerk", "demo-411726-qxj-viewer", "demo-4117-yjj-admin"
NEIGHBOUR, CITY, COMMAND = "demo-411728-qxj-issuer", "demo-4117-qxt-issuer", "demo-411726-fzb-issuer"
PHONES = tuple(f"+861990000{n:04d}" for n in range(1, 9))
NAMES = tuple(f"样例{n}" for n in "甲乙丙丁戊己庚辛")


class Away(Database):
    """A database; while `away`, every operation ends as if it could not be reached."""

    away = False

    async def read(self, operation: Callable[[Tx], T], patience_s: float = 10.0) -> T:
        if self.away:
            raise StoreDown("the database cannot be reached")
        return await super().read(operation, patience_s)

    async def look(self, operation: Callable[[Tx], T], patience_s: float = 10.0) -> T:
        if self.away:
            raise StoreDown("the database cannot be reached")
        return await super().look(operation, patience_s)

    async def write(
        self, operation: Callable[[Tx], T], patience_s: float | None = None, order: str = "", *, decides: bool = False
    ) -> T:
        if self.away:
            raise StoreDown("the database cannot be reached")
        return await super().write(operation, patience_s, order, decides=decides)


class Sms(Channel):
    """Stands for the SMS channel, so that previews show signed texts; nothing is ever sent here."""

    name = "sms_twilio"
    takes_replies = True

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        raise AssertionError("the API never sends")


class Desk:
    """One gateway and an HTTP client at its API. `people` are person ids in the order of `PHONES`."""

    def __init__(self, core: Core, planner: Planner, database: Away, clock: ManualClock, client: Client) -> None:
        self.core = core
        self.planner = planner
        self.database = database
        self.clock = clock
        self.client = client
        self.people = [core.vault.person_id(phone, name) for phone, name in zip(PHONES, NAMES, strict=True)]

    async def call(
        self,
        method: str,
        path: str,
        token: str = "",
        body: object = None,
        media: str = "application/json",
        **headers: str,
    ) -> tuple[aiohttp.ClientResponse, Any]:
        """Send one request; return the response and its content, as JSON where it is."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body, ensure_ascii=False).encode()
        sent = headers | ({"Authorization": f"Bearer {token}"} if token else {})
        sent |= {"Content-Type": media} if data is not None else {}
        async with self.client.request(method, path, data=data, headers=sent) as response:
            content = await response.read()
            return response, json.loads(content) if response.content_type.endswith("json") else content

    async def issue(self, token: str = ISSUER, **changes: Any) -> Any:
        """Issue the example with changes; return the answer's content."""
        response, content = await self.call("POST", "/v1/alerts", token, EXAMPLE | changes)
        assert response.status == 202, content
        return content

    async def delivered(self, alert: str) -> None:
        """Plan the rest and send it: a second later every slice of every batch is delivered."""
        while await self.planner.round():
            pass
        self.clock.advance(1)
        store = self.core.store
        for batch, _ in await store.ledger.batches(alert):
            owner = f"worker-{batch.id}"
            await store.outbox.claim(batch.id, 0, owner, 30)
            places, receipts = range(len(batch)), [Receipt(State.DELIVERED)] * len(batch)
            at = self.clock.now()
            await store.ledger.settle(Settled(batch.id, 0, 1, owner, places, receipts, batch.channel, at))

    async def held(self, **changes: Any) -> str:
        """Issue an exercise; it waits for a second person."""
        content = await self.issue(status="Exercise", **changes)
        assert content["result"] == "held"
        return str(content["id"])


async def roster(core: Core, database: Database) -> None:
    """Two officials and two residents in each of two townships' first villages."""
    at = 0
    people, places = [], []
    spots = [REGIONS.villages(township)[0].code for township in (JIALOU, TONGSHAN)]
    for index, (phone, name) in enumerate(zip(PHONES, NAMES, strict=True)):
        kind, village = ("officials", "residents")[index % 2], spots[index // 4]
        person = core.vault.person_id(phone, name)
        sealed = core.vault.seal(encode_secret(Secret(name, phone)))
        people.append(
            (person, kind, sealed, core.vault.phone_hash(phone), "zh", "411726", 0, 0, "opted_in", 0, "active", at)
        )
        places.append((village[:9], kind, village, person, "post", at, None))

    def operation(tx: Tx) -> None:
        columns = ("id", "kind", "secret", "phone_hash", "language", "county", "opted_out", "needs_helper", "basis")
        tx.copy("person", (*columns, "several", "standing", "updated_at"), people)
        tx.copy("place", ("township", "audience", "village", "person", "role", "since", "until"), places)

    await database.write(operation)


async def install(desk: Desk, *names: str, township: str = JIALOU) -> list[int]:
    """Put loudspeakers into a township's first village; return their ids."""
    village = REGIONS.villages(township)[0].code
    ids = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") for name in names]
    rows = [
        (one, name, village, village[:9], village[:6], "", "service", "loudspeaker_ws")
        for one, name in zip(ids, names, strict=True)
    ]
    columns = ("id", "name", "village", "township", "county", "key_hash", "standing", "channel")
    await desk.database.write(lambda tx: tx.copy("device", columns, rows))
    return ids


@asynccontextmanager
async def opened(
    folder: Path,
    clock: ManualClock,
    *,
    simulation: bool = True,
    policy: Policy = POLICY,
    keys: Keys | None = None,
    regions: Regions = REGIONS,
) -> AsyncIterator[Desk]:
    """Build a core over SQLite in `folder` and serve its API on loopback."""
    database = Away(blank.sqlite(folder))
    await database.open()
    core, planner = await _core(folder, clock, database, policy, regions, simulation=simulation)
    core.keys = keys or core.keys
    await roster(core, database)
    async with TestClient(TestServer(make_app(core))) as client:
        yield Desk(core, planner, database, clock, client)
    database.away = False
    await database.close()


async def _core(
    folder: Path, clock: ManualClock, database: Database, rules: Policy, regions: Regions, *, simulation: bool
) -> tuple[Core, Planner]:
    store = Store(database, clock)
    vault = Vault(b"0" * 32)
    directory = SqlDirectory(database, vault, clock)
    channels: dict[str, Channel] = {"noop": Noop(NoopSettings()), "sms_twilio": Sms(Sms.Settings())}
    broker = LocalBroker()
    await broker.open([queue(name, lane) for name in channels for lane in Lane])
    planner = Planner(
        store, directory, Relay(broker, store.outbox), {name: one.slice for name, one in channels.items()}, clock
    )

    def policy() -> Policy:
        return rules

    cases = Cases(store, regions, policy, channels, clock)
    intake = Intake(store, cases, policy, planner, clock, lambda alert, batches: None)
    decisions = Decisions(intake, cases, store, regions, policy, vault, clock)
    core = Core(
        settings=Settings(data=folder, config=ROOT / "config", templates=ROOT / "templates"),
        clock=clock,
        store=store,
        directory=directory,
        vault=vault,
        regions=regions,
        policy=rules,
        renderer=RENDERER,
        composer=GatewayComposer(store.outbox, RENDERER, policy, channels),
        coverage=CoverageBook(store, directory, regions, policy),
        receipts=Receipts(store, directory, clock),
        intake=intake,
        decisions=decisions,
        obligations=Obligations(store, policy, clock),
        regimes=Regimes(store, regions, policy, vault, clock),
        drills=Drills(store, intake, decisions, directory, regions, policy, clock),
        national=Nationals(store, policy, clock),
        broker=broker,
        channels=channels,
        links={},
        simulation=simulation,
    )
    return core, planner
