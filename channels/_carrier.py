"""What the carriers' channels share: slices become submits, submits' answers become receipts, accounts are chosen.

The protocols' channels (`sms_cmpp` and its neighbours) say which `Wire` an account speaks. One `send` call goes to one
account; what certainly did not leave there goes to another. Choosing: among the accounts that know the unit's
signature, where there are such (D11), by weight and health, smoothly in turn; a red message goes to the healthiest. A
bulk that one number may have spoilt is sent again by halves, so that it costs the other 98 nothing and a bad one
O(log n) submits.

On each failure: no answer, or a connection that ends with the submit in its window: Ambiguous, for exactly those.
Never written: Temporary, or Throttled where the account was only busy. Some parts of a long text taken and some not:
Ambiguous. `send` ends within `answer_s`: what has not left `answer_s` of its account before that, does not leave.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, field_validator

from channels._account import Account
from channels._sheet import Piece, Sheet
from channels._wire import AccountSettings, Wire
from gateway.channel import Channel, Lines, Link
from gateway.channel import Settings as ChannelSettings
from gateway.errors import Throttled
from gateway.model import Group, Level, Message, Receipt, Slice

READY_S = 3.0  # wait for a connection that is being made
MARGIN_S = 2.0


class CarrierSettings(ChannelSettings):
    """Table of a carrier's channel. `carriers`: whose numbers it serves, as `config/carriers.csv` names them."""

    model_config = ConfigDict(hide_input_in_errors=True)

    carriers: frozenset[str] = frozenset()
    takes_replies: bool = True
    account: tuple[AccountSettings, ...] = Field(min_length=1)

    @field_validator("account")
    @classmethod
    def _distinct(cls, accounts: tuple[AccountSettings, ...]) -> tuple[AccountSettings, ...]:
        if len({one.name for one in accounts}) != len(accounts):
            raise ValueError("two accounts have one name")
        return accounts


class CarrierChannel(Channel):
    """Base of a channel that keeps sessions with a carrier."""

    groups: ClassVar[frozenset[Group]] = frozenset({Group.OFFICIALS, Group.RESIDENTS})
    concurrency: ClassVar[int] = 32
    answer_s: ClassVar[float] = 30.0
    sessions: ClassVar[bool] = True
    settings: CarrierSettings

    def __init__(self, settings: CarrierSettings) -> None:
        super().__init__(settings)
        self.carriers = settings.carriers
        self.takes_replies = settings.takes_replies
        self.accounts: list[Account] = []
        self._known = asyncio.Event()

    @abstractmethod
    def wire(self, account: Any) -> Wire[Any]:
        """Return the protocol of an account."""

    def endpoints(self) -> Collection[str]:
        """Return the carriers' hosts."""
        return [account.host for account in self.settings.account]

    async def open(self, link: Link) -> None:
        """Begin to connect; never waits for a carrier."""
        self.accounts = [Account(self.name, self.wire(one), self._look) for one in self.settings.account]
        for account in self.accounts:
            account.open(link)

    async def close(self) -> None:
        """Take leave of the carriers."""
        await asyncio.gather(*(account.close() for account in self.accounts))
        self._look()

    def up(self) -> bool:
        """Whether this process has a connection, or can make one."""
        return any(account.ready for account in self.accounts)

    def lines(self) -> Lines:
        """Tell how the connections of all accounts do; those on demand come and go."""
        kept = [account for account in self.accounts if not account.wire.on_demand]
        return Lines(
            sum(session.ready for account in kept for session in account.sessions),
            sum(account.settings.connections for account in kept),
            sum((account.broken for account in self.accounts), Counter()),
        )

    def _look(self) -> None:
        """Let those who wait for a connection go on: there is one, or every account is refused."""
        if self.up() or all(account.refused for account in self.accounts):
            self._known.set()
        else:
            self._known.clear()

    async def send(self, slice_: Slice, message: Message, link: Link) -> list[Receipt]:
        """Submit one slice; return when every part has its answer, or must count as without one."""
        now = asyncio.get_running_loop().time()
        longest_s = max(account.answer_s for account in self.settings.account)
        sheet = Sheet(self.name, slice_, message, now + self.answer_s - longest_s - MARGIN_S)
        left = sheet.pieces()
        if left and not self.up():
            await self._connected(sheet.until)
        tried, able = set[str](), self._knowing(message)
        while left and (account := self._choose(able, message.level, sum(piece.units for piece in left), tried)):
            tried.add(account.name)
            try:
                await link.pace(account.key, sum(piece.units for piece in left), message.lane)
            except Throttled as error:
                left = [piece._replace(trouble=error) for piece in left]
            else:
                alone = not any(one.ready and one.name not in tried for one in able)
                left = await sheet.through(account, left, alone)
        sheet.give_up(left if tried else self._troubled(left))
        return sheet.receipts()

    def _troubled(self, pieces: list[Piece]) -> list[Piece]:
        """Say why no account could even be asked."""
        trouble = next((account.trouble for account in self.accounts if account.trouble is not None), None)
        return pieces if trouble is None else [piece._replace(trouble=trouble) for piece in pieces]

    async def _connected(self, until: float) -> None:
        """Wait for the first connection, but not for long."""
        try:
            async with asyncio.timeout_at(min(until, asyncio.get_running_loop().time() + READY_S)):
                await self._known.wait()
        except TimeoutError:
            pass  # the caller sees that there is no account

    def _knowing(self, message: Message) -> list[Account]:
        """Return the accounts that know the unit's signature; all where none does, or nothing is written down."""
        pairs = message.accounts
        known = [
            one
            for one in self.accounts
            if any(name in ("", one.name) and port in ("", one.settings.src_id) for name, port in pairs)
        ]
        return known or self.accounts

    def _choose(self, accounts: Sequence[Account], level: Level, units: int, tried: Collection[str]) -> Account | None:
        """Return the account whose turn it is; a refused or a paused one only for want of another."""
        able = [account for account in accounts if account.ready and account.name not in tried]
        if not able:
            return None
        best = min(map(_obstacle, able))
        able = [account for account in able if _obstacle(account) == best]
        if level is Level.RED:
            well = max(round(account.health.value, 1) for account in able)
            able = [account for account in able if round(account.health.value, 1) == well]
        return _turn(able, units)


def _obstacle(account: Account) -> int:
    return 2 if account.refused else int(account.waits())


def _turn(accounts: Collection[Account], units: int) -> Account:
    """Smooth weighted turns: each gains its share of the units, the richest pays for them."""
    shares = {account: account.settings.weight * account.health.value for account in accounts}
    total = sum(shares.values())
    for account, share in shares.items():
        account.credit += units * share / total
    chosen = max(shares, key=lambda account: account.credit)
    chosen.credit -= units
    return chosen
