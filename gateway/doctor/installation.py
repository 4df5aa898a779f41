"""Settings, policy, keys and certificates, places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta

from gateway.cap.certificate import from_pem, load
from gateway.channel import Channel
from gateway.device_key import FIX, PINS, DeviceKeys
from gateway.doctor.verdict import Severity, Verdict
from gateway.errors import ConfigError
from gateway.policy import Policy
from gateway.policy.trust import TrustFile
from gateway.regions import Regions
from gateway.settings import Settings, on_loopback
from gateway.signer import Keys

SOON = timedelta(days=30)


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
    if not on_loopback(found.host) and not found.public_url:
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
