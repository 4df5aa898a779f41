"""Reports and replies out of what a provider posted or was asked for, as its table says where they stand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

from channels._http_table import MAINLAND, HttpSettings, Replies, Reports, code_at, entries, id_at, text_at
from gateway.channel import Event
from gateway.model import Reply, Report, State

CHINA = timezone(timedelta(hours=8))
AHEAD = timedelta(minutes=5)  # by which a provider's clock may be wrong
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
STATES = {
    "delivered": State.DELIVERED,
    "failed": State.FAILED,
    "elsewhere": State.FAILED,
    "unknown": State.UNKNOWN,
    "wait": State.SUBMITTED,
}


def events(settings: HttpSettings, name: str, told: Any, now: datetime) -> list[Event]:
    """Return what is a report or a reply, in order; what is neither is left out."""
    found: list[Event] = []
    if settings.reports is not None:
        found += _reports(settings, settings.reports, name, told, now)
    if settings.replies is not None:
        found += _replies(settings, settings.replies, name, told, now)
    return found


def _reports(settings: HttpSettings, table: Reports, name: str, told: Any, now: datetime) -> Iterator[Report]:
    for entry in entries(told, table.entries):
        id_, status = id_at(entry, table.id), code_at(entry, table.status, table.states)
        if not id_ or not status:
            continue
        meaning = table.states.get(status, "failed")
        reference = settings.reference(name, id_, text_at(entry, table.number))
        yield Report(name, reference, STATES[meaning], now, status, elsewhere=meaning == "elsewhere")


def _replies(settings: HttpSettings, table: Replies, name: str, told: Any, now: datetime) -> Iterator[Reply]:
    for entry in entries(told, table.entries):
        number, text = settings.national(text_at(entry, table.number)), text_at(entry, table.text)
        if not MAINLAND.fullmatch(number):
            continue
        when = text_at(entry, table.at)
        # Without a time of its own, the same answer to two warnings must not look like one told twice.
        own = sha256(f"{number}\0{text}\0{when or now.isoformat()}".encode(errors="replace")).hexdigest()[:32]
        id_ = id_at(entry, table.id) or own
        yield Reply(name, name, f"{name}/{id_}", number, text, _moment(when, now))


def _moment(text: str, now: datetime) -> datetime:
    """Return when a person wrote, by the provider's clock (naive: China); now, where it tells no believable time.

    A repeated reply keeps its time: an answer to yesterday's warning confirms none of today's.
    """
    try:
        when = datetime.fromisoformat(text)
        when = when if when.tzinfo else when.replace(tzinfo=CHINA)
        return min(when.astimezone(UTC), now) if EARLIEST <= when <= now + AHEAD else now
    except (ValueError, OverflowError):
        return now
