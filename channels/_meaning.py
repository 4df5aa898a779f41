"""What a carrier's code means and what the gateway does about it: the shape of the tables.

The tables are `_cmpp_code`, `_sgip_code`, `_smgp_code` and `_smpp_code`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Decision(StrEnum):
    """What the gateway does."""

    DONE = "done"
    WAIT = "wait"  # an intermediate state: nothing yet
    TEMPORARY = "temporary"  # later, or by another account, a bounded number of times
    THROTTLED = "throttled"  # slower; does not count as an attempt
    PERMANENT = "permanent"  # not this way: the next channel
    UNUSABLE = "unusable"  # no account for now: a person is paged
    UNKNOWN = "unknown"  # may have been delivered: never blindly again


class Blame(StrEnum):
    """What a refusal is about: a bulk submit is split only where one number may have spoilt it for the others."""

    NUMBER = "number"
    MESSAGE = "message"
    ACCOUNT = "account"
    CARRIER = "carrier"


class Meaning(NamedTuple):
    """One row. `elsewhere`: the number may be another carrier's (portability): the other two are tried once."""

    decision: Decision
    blame: Blame
    english: str
    chinese: str
    elsewhere: bool = False
