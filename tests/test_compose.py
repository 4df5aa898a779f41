"""By which accounts a text may leave, and what is said where its unit's signature is known at no carrier's."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from test_drill_mapping import CHANNELS, HERE, NOON, SENDER, alert_of, written
from test_routing import POLICY

from gateway import compose
from gateway.channel import Channel
from gateway.compose import GatewayComposer
from gateway.metrics import REGISTRY
from gateway.model import Alert, Batch, Document, Group, Kind, Lane, Notice, Plan, Status
from gateway.policy import Policy
from gateway.ports import AlertRow, Outbox

ROAD = "sms_cmpp"


class Stored:
    """An outbox of one alert."""

    def __init__(self, alert: Alert) -> None:
        self._row = AlertRow(alert, Plan(alert.id, "green", (), HERE[:1], (), ()), "active", "", "", NOON)

    async def alert(self, _: str) -> AlertRow:
        return self._row


def composer(alert: Alert, *statuses: str) -> GatewayComposer:
    """Return a composer under a policy that says how the issuer's signature stands with China Mobile, for each port."""
    issuer = POLICY.issuer(SENDER)
    assert issuer is not None
    content = json.loads(POLICY.to_bytes())
    content["lint"]["signature"] = [
        {"unit": issuer.id, "account": ROAD, "port": f"1065730{n}", "carrier": "mobile", "status": status}
        for n, status in enumerate(statuses)
    ]
    policy = Policy.from_bytes(json.dumps(content).encode())
    known = {name: kind for name, kind in CHANNELS.items() if name != ROAD} | {ROAD: mobile()}
    return GatewayComposer(
        cast(Outbox, Stored(alert)), written(), lambda: policy, cast("dict[str, Channel]", known)
    )  # fmt: skip


def mobile() -> object:
    """Return the class facts of China Mobile's channel, as an account of it has them."""
    return type("Mobile", (cast(type, CHANNELS[ROAD]),), {"carriers": frozenset({"mobile"}), "takes_replies": True})


def batch_of(alert: Alert, channel: str = ROAD) -> Batch:
    return Batch(
        f"{alert.id}.1.0", alert.id, 1, channel, Lane.GREEN, Group.OFFICIALS, Notice.ISSUE, "zh", "411726209",
        NOON + timedelta(hours=3), (1,), ("",), (("411726209201", 1),),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "accounts", "said"),
    [
        (("pending", "registered"), (("", "10657301"),), []),
        (("pending", "refused"), (), [{"mobile": "refused"}]),
        ((), (), []),
    ],
)
async def test_a_signature_no_carrier_knows_is_said_loudly_and_once(
    monkeypatch: pytest.MonkeyPatch,
    statuses: tuple[str, ...],
    accounts: tuple[tuple[str, str], ...],
    said: list[object],
) -> None:
    """Red leaves all the same, and reaches nobody there: only who hears of it now can telephone (D11)."""
    heard: list[object] = []

    class Log:
        def error(self, event: str, **fields: object) -> None:
            assert event == "signature_unregistered"
            heard.append(fields["carriers"])

    monkeypatch.setattr(compose, "_log", Log())
    labels = {"kind": "signature_unregistered"}
    before = REGISTRY.get_sample_value("mingluo_alarms_total", labels) or 0
    alert = alert_of(Status.ACTUAL, Document.WARNING, Kind.ALERT)
    made = composer(alert, *statuses)
    for _ in range(2):
        message = await made.message(batch_of(alert), [0], again=False)
        assert tuple(message.accounts) == accounts
    assert heard == said
    assert (REGISTRY.get_sample_value("mingluo_alarms_total", labels) or 0) == before + len(said)


async def test_only_roads_of_a_pool_ask_for_a_registration() -> None:
    """A loudspeaker has no signature, and an issuer nobody knows none to look up."""
    alert = alert_of(Status.ACTUAL, Document.WARNING, Kind.ALERT)
    assert (await composer(alert, "registered").message(batch_of(alert, "noop"), [0], again=False)).accounts == ()
    stranger = replace(alert, sender="nobody@example.org")
    assert (await composer(stranger, "registered").message(batch_of(stranger), [0], again=False)).accounts == ()
