"""The three carriers' gateways and an SMPP aggregator, each written from its specification's tables.

They share no code with the channels: what both sides of a protocol misread alike would never be noticed.
"""

from gateway.simulate.carrier.cmpp import Cmpp20, Cmpp30
from gateway.simulate.carrier.command import obey
from gateway.simulate.carrier.reading import parts, texts
from gateway.simulate.carrier.scenario import Account, Scenario, revise, settings
from gateway.simulate.carrier.server import Carrier
from gateway.simulate.carrier.session import Session
from gateway.simulate.carrier.sgip import Sgip
from gateway.simulate.carrier.smgp import Smgp
from gateway.simulate.carrier.smpp import Smpp

PROTOCOLS: dict[str, type[Session]] = {"cmpp20": Cmpp20, "cmpp30": Cmpp30, "sgip": Sgip, "smgp": Smgp, "smpp": Smpp}
PORTS = {"cmpp20": 7890, "cmpp30": 7890, "sgip": 8801, "smgp": 8890, "smpp": 2775}

__all__ = ["PORTS", "PROTOCOLS", "Account", "Carrier", "Scenario", "obey", "parts", "revise", "settings", "texts"]
