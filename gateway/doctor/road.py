"""Channels and pools: whether everybody has a road, and which roads lead to the world."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from gateway.carrier import CARRIERS, HOST
from gateway.channel import Channel
from gateway.doctor.verdict import Facts, Severity, Verdict
from gateway.link import Rate
from gateway.model import ROSTERS, Group
from gateway.policy import Policy
from gateway.settings import on_loopback

NOBODY = "noop"  # the channel that reaches nobody: never a remedy


def channels(
    rules: Policy, installed: Collection[str], enabled: Mapping[str, Channel], facts: Facts | None
) -> Iterator[Verdict]:
    """Check which channels of the plan are on, and which of them talk to the world."""
    planned = {row.name: row.groups for row in rules.tables.plan.channel}
    for name in sorted(set(planned) - set(enabled)):
        if name in installed and name != NOBODY:
            yield Verdict(
                "channels", "warning", f"{name} stands in the plan and is off: its steps are left out",
                f"add a table [{name}] to channels.toml, or take it out of plan.toml",
            )  # fmt: skip
    for name in sorted(set(enabled).difference(planned, *rules.pools.values())):
        yield Verdict("channels", "warning", f"{name} is on, but no plan names it", "add it to plan.toml")
    if NOBODY in enabled:
        yield Verdict(
            "channels", "warning", f"{NOBODY} is on: it reaches nobody and calls everybody delivered",
            f"take [{NOBODY}] out of channels.toml; it is for benches only",
        )  # fmt: skip
    for group in ROSTERS:
        if any(group in groups for groups in planned.values()) and not _served(rules, group, enabled):
            severity: Severity = "error" if group is Group.OFFICIALS else "warning"
            yield Verdict(
                "channels", severity, f"no enabled channel serves {group}",
                _enable([
                    road
                    for name in sorted(planned)
                    if group in planned[name] and name != NOBODY
                    for road in rules.roads(name)
                    if road in installed
                ]),
            )  # fmt: skip
    yield from _pools(rules, installed, enabled)
    yield from _unserved(facts.devices if facts else {}, enabled)
    for name, channel in sorted(enabled.items()):
        yield _standing(name, channel, facts)
        yield from _cross_border(name, channel)
        yield from _played_share(name, channel, rules)


def reserves(enabled: Mapping[str, Channel], rates: Mapping[str, Rate]) -> Iterator[Verdict]:
    """Check that no slice of another lane can use up what an account keeps for the green one; see docs/carriers.md."""
    for account, rate in sorted(rates.items()):
        channel = enabled.get(account.partition("/")[0])
        if channel is None:
            continue
        least = max(rate.green, channel.slice)
        if rate.green < channel.slice:
            why = f"green = {rate.green} is less than a slice ({channel.slice}): officials wait behind a bulk slice"
        elif rate.burst < channel.slice + rate.green:
            why = (
                f"burst = {rate.burst} is less than a slice ({channel.slice}) and green: bulk takes the reserve with it"
            )
        else:
            continue
        yield Verdict(
            "channels", "warning", f"{account}: {why}",
            f"in [rates] of channels.toml: green = {least}, burst = {max(rate.burst, channel.slice + least)} or more",
        )  # fmt: skip


def _pools(rules: Policy, installed: Collection[str], enabled: Mapping[str, Channel]) -> Iterator[Verdict]:
    """Check that every carrier's numbers have a road; a loudspeaker has the one it names, see `_unserved`."""
    numbered = {row.name for row in rules.tables.plan.channel if Group.LOUDSPEAKERS not in row.groups}
    for pool, roads in rules.pools.items():
        if unknown := [road for road in roads if road not in installed]:
            yield Verdict(
                "channels", "warning", f"{pool}: no such channel: {', '.join(unknown)}; these roads are passed over",
                "correct `roads` in plan.toml, or install the channel's file in channels/",
            )  # fmt: skip
        on = {road: enabled[road].carriers for road in roads if road in enabled}
        if pool not in numbered:
            continue
        yield from _registrations(rules, on)
        if not on:
            yield Verdict("channels", "note", f"{pool}: none of its roads is on; its fallback takes its place")
            continue
        served = frozenset().union(*on.values())
        without = [one for one in CARRIERS if not {one, HOST.get(one, one)} & served]
        if without and all(on.values()):
            more = " or ".join(road for road in roads if road not in on)
            yield Verdict(
                "channels", "warning", f"{pool}: no road that is on serves {', '.join(without)}: their people are left "
                "to the fallback", f"switch on in channels.toml: {more}",
            )  # fmt: skip
        else:
            yield Verdict("channels", "ok", f"{pool}: every number has a road ({', '.join(on)})")


def _unserved(devices: Mapping[str, int], enabled: Collection[str]) -> Iterator[Verdict]:
    """Check that every loudspeaker's own road is on: no other may command it."""
    for channel, number in sorted(devices.items()):
        if channel not in enabled:
            yield Verdict(
                "channels", "error", f"{number} loudspeakers have the road {channel}, which is off: they stay silent",
                f"switch on in channels.toml: {channel}; or correct the column channel of devices.csv",
            )  # fmt: skip


def _registrations(rules: Policy, roads: Mapping[str, frozenset[str]]) -> Iterator[Verdict]:
    """Check that each issuer's signature is registered wherever its texts go (D11)."""
    lint = rules.tables.lint
    if roads and not lint.signature:
        yield Verdict(
            "signatures", "warning", f"nothing says where signatures are registered, and {', '.join(roads)} are on; a "
            "carrier refuses one it does not know", "write [[signature]] rows into lint.toml, as the carriers confirm",
        )  # fmt: skip
    for road, carriers in roads.items():
        lacks: dict[str, list[str]] = {}
        for issuer in rules.issuers:
            for carrier, status in lint.unregistered(issuer.id, road, carriers).items():
                lacks.setdefault(f"{carrier} ({status})", []).append(issuer.id)
        for where, units in lacks.items():
            yield Verdict(
                "signatures", "error", f"{road}: not registered at {where}: {', '.join(units)}; they are refused",
                "register the signature with the carrier (7 to 10 working days), then write it into lint.toml",
            )  # fmt: skip


def _enable(names: list[str]) -> str:
    if not names:
        return "name a channel for it in plan.toml and switch it on in channels.toml"
    return f"switch on in channels.toml: {' or '.join(names)} (against mingluo simulate first)"


def _served(rules: Policy, group: Group, enabled: Collection[str]) -> bool:
    rows = [row for row in rules.tables.plan.row if row.group is group]
    names = (name for row in rows for name in (*row.channels, row.fallback) if name)
    return any(road in enabled for name in names for road in rules.roads(name))


def _standing(name: str, channel: Channel, facts: Facts | None) -> Verdict:
    real = sorted(host for host in channel.endpoints() if not on_loopback(host))
    if facts is not None and name in facts.live:
        return Verdict("channels", "note", f"{name}: live; real people are reached")
    if real and facts is None:
        return Verdict("channels", "note", f"{name} would talk to {', '.join(real)}; if it is live was not looked at")
    if real:
        return Verdict(
            "channels", "error", f"{name} would talk to {', '.join(real)}, but is not live: it is not started",
            f"two people run: mingluo live {name} --person NAME; or point it to a counterpart (mingluo simulate)",
        )  # fmt: skip
    return Verdict("channels", "ok", f"{name}: simulation, talks to this machine only")


def _cross_border(name: str, channel: Channel) -> Iterator[Verdict]:
    """A provider abroad: personal data of the mainland leaves only on a named assessment."""
    assessment = getattr(channel.settings, "mainland_assessment", None)
    if assessment is None or all(map(on_loopback, channel.endpoints())):
        return
    if assessment:
        yield Verdict(
            "cross-border", "warning", f"{name}: mainland numbers are sent to a provider abroad, on the assessment "
            "named in channels.toml", "see that the assessment is in force; else remove mainland_assessment",
        )  # fmt: skip
    else:
        yield Verdict(
            "cross-border", "note", f"{name}: mainland numbers are refused, for sending them abroad is a cross-border "
            "transfer of personal data", "use a domestic carrier; or name the assessment in mainland_assessment",
        )  # fmt: skip


def _played_share(name: str, channel: Channel, rules: Policy) -> Iterator[Verdict]:
    """Say where a platform's villages count as played by another share than all others."""
    share = getattr(channel.settings, "played_share", rules.played_share)
    if share != rules.played_share:
        yield Verdict(
            "channels", "note", f"{name}: a village counts as played from {share:.0%} of its terminals, elsewhere from "
            f"{rules.played_share:.0%} of its loudspeakers",
            f"if that is not meant, make played_share the same in [{name}] of channels.toml and in defaults.toml",
        )  # fmt: skip
