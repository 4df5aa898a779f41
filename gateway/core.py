"""The parts of a running gateway that its surfaces (API, command line, demo) talk to. Built by `app`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.channel import Channel, Link
from gateway.compose import GatewayComposer
from gateway.coverage import CoverageBook
from gateway.decision import Decisions
from gateway.directory.people import SqlDirectory
from gateway.directory.vault import Vault
from gateway.intake import Intake
from gateway.link import Rate
from gateway.national import Nationals
from gateway.obligation import Obligations
from gateway.policy import Policy
from gateway.ports import Broker, Clock, State
from gateway.receipts import Receipts
from gateway.regime import Regimes
from gateway.regions import Regions
from gateway.render import Renderer
from gateway.settings import Settings
from gateway.signer import Keys
from gateway.state import LocalState
from gateway.store import Store
from gateway.training import Drills


@dataclass(slots=True)
class Core:
    """Everything a surface may use; nothing here starts or stops anything."""

    settings: Settings
    clock: Clock
    store: Store
    directory: SqlDirectory
    vault: Vault
    regions: Regions
    policy: Policy
    renderer: Renderer
    composer: GatewayComposer
    coverage: CoverageBook
    receipts: Receipts
    intake: Intake
    decisions: Decisions
    obligations: Obligations
    regimes: Regimes
    drills: Drills
    national: Nationals
    broker: Broker
    channels: Mapping[str, Channel]
    links: Mapping[str, Link]
    simulation: bool
    """No channel is live: demo tokens count, and only loopback endpoints are talked to."""
    keys: Keys = field(default_factory=Keys)
    """What signs the messages we publish."""
    rates: Mapping[str, Rate] = field(default_factory=dict)
    """What the accounts allow; one that is not here is not limited."""
    state: State = field(default_factory=LocalState)
    """Counts requests; a process alone counts for itself."""
