"""Is this installation sound? Pure checks; each verdict says what was found and what to do.

Called by `mingluo doctor`, which gathers the facts (files, database, broker, channels) and prints the verdicts.
An error means that a village would not be reached, or somebody could do what they must not. A warning is worth a
person's look. Nothing here opens, changes or sends anything, and no verdict holds a name, a number or a secret.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Literal, NamedTuple

from gateway.cap.certificate import from_pem, load
from gateway.carrier import CARRIERS, HOST
from gateway.channel import Channel
from gateway.device_key import FIX, PINS, DeviceKeys
from gateway.errors import ConfigError
from gateway.model import ROSTERS, Alert, Condition, Document, Group, Info, Kind, Level, Notice, Status
from gateway.policy import Policy
from gateway.policy.hazard import CHINA
from gateway.policy.trust import TrustFile
from gateway.regions import Regions
from gateway.render import Renderer
from gateway.settings import Settings
from gateway.signer import Keys

Severity = Literal["ok", "note", "warning", "error"]

MANY_PERSONS = 1_000_000
SIGNED = "sms"  # channels of this family carry the registered signature
SEGMENT = 70  # UTF-16 units of one SMS
NOBODY = "noop"  # the channel that reaches nobody: never a remedy
SPREAD = 3  # counties named in one verdict
SOON = timedelta(days=30)
ENDINGS = frozenset({Notice.ALL_CLEAR, Notice.PARTIAL_ALL_CLEAR})


class Verdict(NamedTuple):
    """One finding: which check, how bad, what was found, what to do (empty where nothing is to be done)."""

    check: str
    severity: Severity
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the database says.

    `sizes` are rows per kind, `bare` the villages with neither an official nor a loudspeaker, `live` the channels
    two people have made live, `halted` the halted scopes, `restored` whether the gateway has halted a restored
    database, `down` the channels whose carrier serves nobody, with its code, `devices` the loudspeakers by channel,
    `speaking` the channels with which some process is logged in just now. `heard` are villages by the condition of
    their best loudspeaker, as of `heard_at`, when any last said anything.
    `drilled` is when each county that knows anybody has held its last drill.
    """

    sizes: Mapping[str, int]
    bare: Collection[str] = ()
    live: Collection[str] = ()
    halted: Collection[str] = ()
    broken_audit: str = ""
    restored: bool = False
    down: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, int] = field(default_factory=dict)
    speaking: Collection[str] = ()
    heard: Mapping[Condition, int] = field(default_factory=dict)
    heard_at: datetime | None = None
    drilled: Mapping[str, datetime | None] = field(default_factory=dict)


def nothing() -> Facts:
    """Return the facts of an installation without a database."""
    return Facts(dict.fromkeys((group.value for group in ROSTERS), 0))


def settings(found: Settings) -> Iterator[Verdict]:
    """Check the process settings against each other."""
    mode = "embedded: one process with SQLite" if found.embedded else "cluster: RabbitMQ and PostgreSQL"
    problems = [*_cluster(found)] if not found.embedded else []
    if key := found.secret_key.get_secret_value():
        from gateway.directory.vault import Vault

        try:
            Vault.of(key, found.data)
        except ConfigError as error:
            problems.append(
                Verdict("settings", "error", str(error), "make one: python -c 'import base64,secrets; "
                        "print(base64.b64encode(secrets.token_bytes(32)).decode())'")
            )  # fmt: skip
    if not _loopback(found.host) and not found.public_url:
        problems.append(
            Verdict("settings", "warning", f"listens on {found.host}, but MINGLUO_PUBLIC_URL is empty",
                    "set it to the https:// address by which providers and browsers reach the gateway")
        )  # fmt: skip
    yield from problems or [Verdict("settings", "ok", mode)]


def _cluster(found: Settings) -> Iterator[Verdict]:
    try:
        found.database()
    except ConfigError as error:
        yield Verdict("settings", "error", str(error), "or unset MINGLUO_AMQP_URL to run one process")
    if not found.redis_url.get_secret_value():
        yield Verdict(
            "settings", "error", "MINGLUO_REDIS_URL is empty, so each process would count the rates alone",
            "set it to the Redis or Valkey all processes share",
        )  # fmt: skip
    if not found.secret_key.get_secret_value():
        yield Verdict(
            "settings", "error", "MINGLUO_SECRET_KEY is empty, so no process could read what another has sealed",
            "give all processes the same base64 of 32 random bytes",
        )  # fmt: skip


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def policy(found: Policy, regions: Regions, installed: Collection[str]) -> Iterator[Verdict]:
    """Check the policy against the places and the installed channels."""
    yield Verdict("policy", "ok", f"{len(found.issuers)} issuers, digest {found.digest[:12]}")
    try:
        found.check_channels(installed)
    except ConfigError as error:
        yield Verdict("policy", "error", str(error), "or install the channel's file in channels/")
    for issuer in found.issuers:
        unknown = [area for area in issuer.areas if not regions.get(area) and not regions.under(area)]
        if unknown:
            yield Verdict(
                "policy", "error", f"{issuer.id}: no place has the code {', '.join(unknown)}",
                "correct `areas` in authority.toml, or add the places to config/regions",
            )  # fmt: skip
    unsigned = [issuer.id for issuer in found.issuers if not issuer.signature]
    if unsigned:
        yield Verdict(
            "signatures", "error", f"no signature is registered for {', '.join(unsigned)}: no SMS of theirs leaves",
            "register the unit's full or short name with the carriers (7 to 10 working days), then write it into "
            "authority.toml",
        )  # fmt: skip
    for name, count in Counter(issuer.signature for issuer in found.issuers if issuer.signature).items():
        if count > 1:
            yield Verdict(
                "signatures", "warning", f"{count} issuers sign as 【{name}】, so nobody can tell them apart",
                "register one signature each with the carrier and write it into authority.toml",
            )  # fmt: skip
    signed = len(found.issuers) - len(unsigned)
    yield Verdict("signatures", "ok", f"{signed} issuers have one; the carrier must know each of them")


def certificates(trust: TrustFile, keys: Keys, now: datetime) -> Iterator[Verdict]:
    """Check how long the signatures of issuers will count, and our own."""
    for issuer in sorted({pin.issuer for pin in trust.pin}):
        ends = [from_pem(pin.pem).not_valid_after_utc for pin in trust.pin if pin.issuer == issuer]
        fix = f"pin the next one: mingluo cap pin FILE --issuer {issuer}"
        if max(ends) < now:
            severity: Severity = "error" if issuer in trust.required else "warning"
            yield Verdict("certificates", severity, f"{issuer}: expired; what it signs is refused", fix)
        elif max(ends) < now + SOON:
            yield Verdict("certificates", "warning", f"{issuer}: expires on {max(ends):%Y-%m-%d}", fix)
        elif min(ends) < now:
            yield Verdict("certificates", "note", f"{issuer}: one has expired", "delete its row from trust.toml")
    pinned = len({pin.issuer for pin in trust.pin})
    yield Verdict("certificates", "ok", f"signatures of {pinned} issuers count, {len(trust.required)} must sign")
    yield from _keys(keys, now)


def channel_certificates(enabled: Mapping[str, Channel], now: datetime) -> Iterator[Verdict]:
    """Check how long the certificates last that channels talk with."""
    for name, channel in sorted(enabled.items()):
        for whose, end in channel.certificates().items():
            fix = f"ask for the next one now and write it into [{name}] of channels.toml beside the old one"
            if end <= now:
                text = f"{name}: the {whose} certificate has expired; nothing is believed or taken any more"
                yield Verdict("certificates", "error", text, fix)
            elif end < now + SOON:
                yield Verdict("certificates", "warning", f"{name}: the {whose} certificate ends on {end:%Y-%m-%d}", fix)
            else:
                yield Verdict("certificates", "ok", f"{name}: the {whose} certificate lasts until {end:%Y-%m-%d}")


def device_keys(keys: DeviceKeys, now: datetime, *, alone: bool) -> Iterator[Verdict]:
    """Check the keys that sign what loudspeakers are told; `alone`: an embedded gateway makes its first one."""
    if not keys.keys:
        severity: Severity = "note" if alone else "error"
        yield Verdict("device_keys", severity, "none yet: no loudspeaker would obey a hub", FIX)
    elif len(keys.keys) > PINS:
        fix = "remove the files of the oldest from keys/device, once no loudspeaker has them pinned"
        yield Verdict("device_keys", "warning", f"{len(keys.keys)}, and a loudspeaker pins {PINS} at most", fix)
    else:
        begins = keys.keys[0].begins
        text = f"the next begins on {begins:%Y-%m-%d}; it must be pinned by then" if begins > now else "one signs"
        yield Verdict("device_keys", "ok", f"what loudspeakers are told is signed; {text}")


def _keys(keys: Keys, now: datetime) -> Iterator[Verdict]:
    fix = "make the next one and restart: mingluo keys new NAME --subject …"
    ends = max((load(one.chain[0]).not_valid_after_utc for one in keys.signers), default=None)
    if ends is None:
        yield Verdict(
            "keys", "note", "none, so CAP is published unsigned", "make one: mingluo keys new NAME --subject …"
        )
    elif ends < now:
        yield Verdict("keys", "error", "every signing key has expired, so no CAP is published", fix)
    elif ends < now + SOON:
        yield Verdict("keys", "warning", f"the last signing key expires on {ends:%Y-%m-%d}", fix)
    else:
        yield Verdict("keys", "ok", f"CAP is signed; the last key expires on {ends:%Y-%m-%d}")


def regions(found: Regions, folder: str) -> Iterator[Verdict]:
    """Say how many places there are, and whether polygons can be matched."""
    kinds = Counter(one.kind for one in found.places.values())
    text = f"{folder}: {kinds['county']} counties, {kinds['township']} townships, {kinds['village']} villages"
    yield Verdict("regions", "ok", text)
    townships = found.under("")
    drawn = sum(one.code in found.shapes.drawn for one in townships)
    if drawn < len(townships):
        yield Verdict(
            "regions", "warning", f"{len(townships) - drawn} of {len(townships)} townships have no shape; a polygon "
            "that touches their county warns them as uncertain",
            "name GeoJSON files of the townships in MINGLUO_GEOMETRY",
        )  # fmt: skip


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
                _enable(sorted(name for name, groups in planned.items() if group in groups and name != NOBODY)),
            )  # fmt: skip
    yield from _pools(rules, installed, enabled)
    yield from _unserved(facts.devices if facts else {}, enabled)
    for name, channel in sorted(enabled.items()):
        yield _standing(name, channel, facts)
        yield from _cross_border(name, channel)
        yield from _played_share(name, channel, rules)


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
    real = sorted(host for host in channel.endpoints() if not _loopback(host))
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
    if assessment is None or all(map(_loopback, channel.endpoints())):
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


def safety(rules: Policy, facts: Facts) -> Iterator[Verdict]:
    """Check what must not be while real people are reached, and what stands still."""
    demo = sum(token.demo for token in rules.tables.tokens.token)
    if demo and facts.live:
        yield Verdict(
            "tokens", "error", f"{demo} demo tokens, whose texts are public, stand in tokens.toml while a channel is "
            "live", "delete every row with demo = true and restart",
        )  # fmt: skip
    elif demo:
        yield Verdict("tokens", "note", f"{demo} demo tokens open this simulation", "delete them before going live")
    if not any(token.role == "signer" for token in rules.tables.tokens.token):
        yield Verdict(
            "tokens", "error", "nobody is a signer: whatever is held would wait for ever",
            "add one: mingluo policy token --role signer --issuer ID --name NAME",
        )  # fmt: skip
    if facts.halted:
        names = ", ".join("all" if scope == "*" else scope for scope in sorted(facts.halted))
        yield Verdict("halt", "warning", f"halted: {names}; nothing leaves there", "release: mingluo halt SCOPE --off")
    if facts.restored:
        yield Verdict(
            "halt", "error", "the database was restored from a back-up, so everything is held",
            "mingluo list --standing active, recall what is over, then: mingluo halt all --off",
        )  # fmt: skip
    for name, code in sorted(facts.down.items()):
        yield Verdict(
            "channels", "error", f"{name}: the carrier serves nobody ({code or 'no code'})",
            "call the carrier; what waits for it and whom a fallback serves: mingluo stuck",
        )  # fmt: skip
    if facts.broken_audit:
        yield Verdict("audit", "error", facts.broken_audit, "keep the database as it is: it is evidence")


def rosters(facts: Facts, places: Regions) -> Iterator[Verdict]:
    """Check whom the directory knows, and which villages nobody would hear in."""
    for kind, number in facts.sizes.items():
        if number:
            yield Verdict("rosters", "ok", f"{number} {kind}")
        else:
            severity: Severity = "error" if kind == Group.OFFICIALS else "warning"
            table = "devices" if kind == Group.LOUDSPEAKERS else kind
            yield Verdict("rosters", severity, f"no {kind}", f"import them: mingluo import {table} FILE")
    villages = sum(one.kind == "village" for one in places.places.values())
    if facts.bare:
        counties = Counter(code[:6] for code in facts.bare).most_common()
        named = ", ".join(f"{places.name(code)} {number}" for code, number in counties[:SPREAD])
        more = f" and {len(counties) - SPREAD} counties more" if len(counties) > SPREAD else ""
        yield Verdict(
            "rosters", "warning", f"{len(facts.bare)} of {villages} villages have neither an official nor a "
            f"loudspeaker ({named}{more}): a warning would find nobody there",
            "complete officials.csv and devices.csv and import them again",
        )  # fmt: skip
    yield from _loudspeakers(facts)
    persons = sum(number for kind, number in facts.sizes.items() if kind != Group.LOUDSPEAKERS)
    if persons > MANY_PERSONS:
        yield Verdict(
            "personal data", "warning", f"{persons} persons: above {MANY_PERSONS} the law asks to register a person "
            "in charge of personal data", "register with the province's cyberspace administration",
        )  # fmt: skip


def _loudspeakers(facts: Facts) -> Iterator[Verdict]:
    """Say whether villages with loudspeakers would hear them."""
    if not facts.sizes.get(Group.LOUDSPEAKERS):
        return
    if facts.heard_at is None:
        yield Verdict("loudspeakers", "note", "none has ever been heard of; see that devices have their name and key")
        return
    having = sum(facts.heard.values()) - facts.heard.get(Condition.NONE, 0)
    dead = {one.value: facts.heard.get(one, 0) for one in (Condition.OFFLINE, Condition.FAULTY)}
    untested, at = facts.heard.get(Condition.UNTESTED, 0), f"{facts.heard_at.astimezone(CHINA):%Y-%m-%d %H:%M}"
    if mute := sum(dead.values()):
        named = ", ".join(f"{number} {why}" for why, number in dead.items() if number)
        yield Verdict(
            "loudspeakers", "warning", f"none works in {mute} of {having} villages that have one ({named}), as of {at}",
            "mingluo report devices names them: power, network, amplifier",
        )  # fmt: skip
    if untested:
        yield Verdict(
            "loudspeakers", "note", f"in {untested} villages nobody has heard one for too long",
            "hold a drill, or: mingluo speaker self-test --area CODE",
        )  # fmt: skip
    if not mute:
        yield Verdict("loudspeakers", "ok", f"one works in each of {having} villages that have any, as of {at}")


def drills(rules: Policy, facts: Facts, places: Regions, now: datetime) -> Iterator[Verdict]:
    """Name the counties that have held no drill for the policy's months (D19)."""
    months = rules.drill.every_months
    since = now - timedelta(days=months * 30.5)
    idle = [county for county, last in sorted(facts.drilled.items()) if months and (last is None or last < since)]
    if idle:
        named = ", ".join(places.name(county) for county in idle[:SPREAD])
        more = f" and {len(idle) - SPREAD} counties more" if len(idle) > SPREAD else ""
        yield Verdict(
            "drills", "warning", f"no drill was held for {months} months in {named}{more}",
            "plan one: mingluo drill plan AREA --at TIME",
        )  # fmt: skip


# --- templates ------------------------------------------------------------------------------------


def templates(
    renderer: Renderer, choose: Callable[[str, str], tuple[str, str]], rules: Policy, enabled: Mapping[str, Channel],
    places: Regions,
) -> Iterator[Verdict]:  # fmt: skip
    """Render every text the plan can ask for, with the longest signature and the longest name of a township.

    `choose` names the template of a channel and language, as `(language, file)`.
    """
    wrong, doubtful, long = Counter[str](), Counter[str](), Counter[str]()
    number = 0
    for name in sorted(enabled):
        if choose(name, "zh")[1].startswith("zh/default."):
            yield Verdict(
                "templates", "warning", f"{name} has no template of its own and uses the default",
                f"add templates/zh/{name}.txt and have the issuing bureau approve it",
            )  # fmt: skip
    for channel, group, language, notice, alert, before in _texts(rules, enabled):
        number += 1
        limit = enabled[channel].text_limit
        place = max((one.code for one in places.under("")), key=lambda code: len(places.name(code)), default="")
        try:
            said = renderer.text(
                alert, notice=notice, channel=channel, group=group, language=language, places=(place,) if place else (),
                limit=SEGMENT if channel.startswith(SIGNED) else limit, signed=channel.startswith(SIGNED),
                previous=before, confirm=group is Group.OFFICIALS and enabled[channel].takes_replies,
            )  # fmt: skip
        except ConfigError as error:
            wrong[str(error)] += 1
            continue
        if len(said.text.encode("utf-16-le")) // 2 > limit:
            wrong[f"{channel}: {alert.document} {notice} {group} is longer than the channel takes ({limit})"] += 1
        elif channel.startswith(SIGNED) and said.segments > 1:
            long[channel] += 1
        for finding in renderer.check(alert, said, before, rules.tables.lint):
            found = {"error": wrong, "warning": doubtful}.get(finding.severity)
            if found is not None:
                found[f"{channel}: {alert.document} {notice} {group}: {finding.detail}"] += 1
    yield from _judged(wrong, doubtful, long)
    if not wrong:
        yield Verdict("templates", "ok", f"{number} texts rendered, digest {renderer.digest[:12]}")


def _judged(wrong: Counter[str], doubtful: Counter[str], long: Counter[str]) -> Iterator[Verdict]:
    for text, times in wrong.items():
        yield Verdict("templates", "error", f"{text} ({times} times)", "mend the template under templates/")
    for text, times in doubtful.items():
        yield Verdict("templates", "warning", f"{text} ({times} times)", "look at the template under templates/")
    for channel, times in long.items():
        yield Verdict("templates", "note", f"{channel}: {times} of the sample texts take more than one SMS segment")


def _texts(rules: Policy, enabled: Collection[str]) -> Iterator[tuple[str, Group, str, Notice, Alert, Alert | None]]:
    """Yield (channel, group, language, notice, alert, alert before) for whatever the plan can ask for."""
    signer = max(rules.issuers, key=lambda issuer: len(issuer.signature))
    for row in rules.tables.plan.row:
        asked = (name for name in (*row.channels, row.fallback) if name)
        names = [road for name in asked for road in rules.roads(name) if road in enabled]
        for name in dict.fromkeys(names):
            for language in row.languages:
                for document in row.documents:
                    for level in row.levels:
                        for notice in Notice:
                            alert, before = _sample(signer.sender, document, level, notice)
                            yield name, row.group, language, notice, alert, before


def _sample(sender: str, document: Document, level: Level, notice: Notice) -> tuple[Alert, Alert | None]:
    """Return a message of this kind, and the one it follows."""
    kinds = {Notice.ISSUE: Kind.ALERT, Notice.CORRECTION: Kind.CORRECTION, Notice.ALL_CLEAR: Kind.CANCEL}
    kind = kinds.get(notice, Kind.UPDATE)
    at = datetime(2026, 7, 20, 6, 0, tzinfo=UTC)
    trend = "预计未来3小时，部分乡镇雨量将超过100毫米，山洪和地质灾害风险很高。"
    told = (
        Info("暴雨", "zh-CN", description=trend, instruction="立即转移危险区群众，远离河道和低洼处。"),
        Info("rainstorm", "en", description="More than 100 mm of rain", instruction="Move out of danger zones at once"),
    )
    bare = (Info("暴雨", "zh-CN"),)

    def version(of: Kind, when: datetime, infos: tuple[Info, ...]) -> Alert:
        return Alert(
            sender, f"doctor-{of}", when, Status.ACTUAL, of, document, "11B03", "暴雨", level,
            infos=infos, effective=when, expires=when + timedelta(hours=6),
        )  # fmt: skip

    if kind is Kind.ALERT:
        return version(kind, at, told), None
    ends = notice in ENDINGS or kind is Kind.CORRECTION
    return version(kind, at + timedelta(hours=1), bare if ends else told), version(Kind.ALERT, at, told)
