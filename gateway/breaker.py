"""The breaker of a channel: whether its carrier is worth asking, as this process has seen it. Used by `sender` only.

One answer that the account is refused shuts it, or `FAILURES` slices in a row of which the carrier served nobody
(no connection, 5xx, no answer). While it is shut nothing is claimed: batches are put off, and where the plan has a
fallback the planner moves them to it. When the pause is over one slice goes as a probe; whoever asks meanwhile comes
again. The longer the outage, the longer the pauses. A carrier that serves one recipient or refuses one number is up;
so is one that asks for patience, but not when it has done nothing else for a minute.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from gateway import log, metrics
from gateway.channel import BUG
from gateway.errors import PACED, ChannelError, Permanent, Throttled, Unusable
from gateway.model import NEVER_SENT, Receipt
from gateway.ports import Clock, Outage

FAILURES = 3
SHORTEST_S, LONGEST_S = 5.0, 30.0  # pauses; half the outage's age in between
REFUSED_S = 30.0  # an account that is refused wants a person: asking sooner only fails more people
PATIENCE = timedelta(minutes=1)
PROBE_S = 5.0  # a probe without an answer is followed by another after this long
NEVER = datetime.min.replace(tzinfo=UTC)

_log = log.get("breaker")


class Breaker:
    """Open or shut for one channel of this process. `outage` is None while the carrier is up."""

    def __init__(self, channel: str, clock: Clock) -> None:
        self.outage: Outage | None = None
        self._channel = channel
        self._clock = clock
        self._failed = 0
        self._busy_since = self._busy_at = NEVER
        self._told: Outage | None = None
        self._probe_until: datetime | None = None

    def shut_until(self) -> datetime | None:
        """Return when to come again, or None: go on. Where a pause has just ended, the caller is the probe."""
        if self.outage is None:
            return None
        now = self._clock.now()
        if self.outage.until > now:
            return self.outage.until
        self._probe_until = now + timedelta(seconds=PROBE_S)
        self.outage = self.outage._replace(until=self._probe_until)
        return None

    def untried(self) -> None:
        """Whoever went on had nothing to send after all: if it was the probe, the next one is."""
        if self.outage is not None and self.outage.until == self._probe_until:
            self.outage = self.outage._replace(until=self._clock.now())

    def note(self, receipts: Collection[Receipt]) -> None:
        """Learn from the answer to one slice."""
        errors = [error for error in map(_failure, receipts) if error is not None]
        busy = [error for error in errors if isinstance(error, Throttled)]
        if any(map(_served, receipts)):
            self._busy_at = NEVER
            self._up()
        elif busy:
            self._wait([error for error in busy if error.code != PACED])
        elif errors:
            self._failed += 1
            refused = next((error for error in errors if isinstance(error, Unusable)), None)
            if self.outage is not None or self._failed >= FAILURES or refused is not None:
                self._shut(refused or errors[0])

    def _wait(self, asked: Sequence[Throttled]) -> None:
        """Wait as the carrier asks, but not for ever; not at all where only our own rate did."""
        now = self._clock.now()
        if asked and now - self._busy_at > PATIENCE:
            self._busy_since = now
        if asked:
            self._busy_at = now
        if asked and now - self._busy_since >= PATIENCE:
            self._shut(asked[0])
        else:
            self._up()

    def news(self) -> bool:
        """Whether the outage is another than when this was asked last: the other processes should know."""
        told, self._told = self._told, self.outage
        return told != self.outage

    def _shut(self, error: ChannelError) -> None:
        now, refused = self._clock.now(), isinstance(error, Unusable)
        if self.outage is None:
            metrics.channel_down.labels(self._channel).set(1)  # rings by itself
            if refused:
                metrics.alarms.labels("account_unusable").inc()
            _log.error("account_unusable" if refused else "channel_down", channel=self._channel, code=error.code)
            self.outage = Outage(self._channel, now, now, error.code)
        age_s = (now - self.outage.since).total_seconds()
        pause_s = REFUSED_S if refused else min(max(SHORTEST_S, age_s / 2), LONGEST_S)
        until = max(self.outage.until, now + timedelta(seconds=pause_s))
        self.outage = self.outage._replace(until=until, code=error.code)

    def _up(self) -> None:
        self._failed = 0
        if self.outage is None:
            return
        down_s = (self._clock.now() - self.outage.since).total_seconds()
        metrics.channel_down.labels(self._channel).set(0)
        _log.warning("channel_up", channel=self._channel, down_s=round(down_s, 1))
        self.outage = None


def _served(receipt: Receipt) -> bool:
    """Whether the carrier did its part: took the text, or judged the recipient."""
    if receipt.error is None:
        return receipt.state not in NEVER_SENT
    return isinstance(receipt.error, Permanent)


def _failure(receipt: Receipt) -> ChannelError | None:
    """Return what the carrier failed with; a bug of ours says nothing of the carrier."""
    error = receipt.error
    return error if isinstance(error, ChannelError) and error.code != BUG else None
