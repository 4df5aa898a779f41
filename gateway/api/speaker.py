"""Loudspeakers over HTTP: their state, orders to them, which villages would hear nothing, alarms of villages.

Everybody sees and orders only what lies in the own area: a township its own villages (D18). Who ordered what stands in
the audit chain.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial

from gateway.api.access import areas_of
from gateway.api.endpoint import Answer, Call, Endpoint
from gateway.api.reply import PlaceOut
from gateway.api.speaker_shape import (
    ClockIn,
    ConfigIn,
    MuteOut,
    MuteQuery,
    MuteTownship,
    MuteVillage,
    OrderedOut,
    OrderIn,
    OrderOut,
    OrdersOut,
    OrdersQuery,
    SelfTestIn,
    SpeakerOut,
    SpeakersPage,
    SpeakersQuery,
    VillageAlarmOut,
    VillageAlarmsOut,
    VillageAlarmsQuery,
    VolumeIn,
)
from gateway.core import Core
from gateway.errors import Refused
from gateway.fleet import values_of
from gateway.intake import actor
from gateway.model import Condition, Record, Target
from gateway.obligation import RULES
from gateway.policy.hazard import CHINA
from gateway.policy.table import WRITERS
from gateway.store.device import Speaker
from gateway.store.meeting import RealWarningError, bar
from gateway.store.sounded import KIND, Sounded

DUTY = WRITERS | {"clerk", "admin"}
LIMIT = 500


async def speakers(call: Call) -> Answer:
    """List loudspeakers of the caller's area."""
    asked, core = call.asked(SpeakersQuery), call.core
    areas, rules = _within(call, asked.area), core.policy.speakers
    if asked.name:
        found = [one for one in await core.store.devices.named([asked.name], rules) if one.village.startswith(areas)]
    else:
        found = await core.store.devices.below(areas, rules, asked.after, asked.limit)
    further = f"{found[-1].village}/{found[-1].name}" if len(found) == asked.limit else None
    wanted = [one for one in found if not asked.condition or one.condition in asked.condition]
    return 200, SpeakersPage(speakers=[_speaker(core, one) for one in wanted], next=further)


async def orders(call: Call) -> Answer:
    """List orders to loudspeakers of the caller's area."""
    asked, core = call.asked(OrdersQuery), call.core
    since = core.clock.now() - timedelta(hours=asked.hours)
    found = await core.store.orders.recent(_within(call, asked.area), since, asked.limit, asked.speaker)
    return 200, OrdersOut(
        orders=[
            OrderOut.model_validate(
                {**one._asdict(), "village": _place(core, one.village), "values": dict(one.values), "by": one.actor}
            )
            for one in found
        ]
    )


async def volume(call: Call) -> Answer:
    """Order a volume."""
    form = call.form(VolumeIn)
    return await _order(call, form, "volume", values_of(form.wanted()))


async def self_test(call: Call) -> Answer:
    """Order a self-test."""
    form = call.form(SelfTestIn)
    return await _order(call, form, "self_test", {"audible": form.audible})


async def config(call: Call) -> Answer:
    """Order settings."""
    form = call.form(ConfigIn)
    return await _order(call, form, "config", dict(form.values))


async def clock(call: Call) -> Answer:
    """Order the clock to be set."""
    return await _order(call, call.form(ClockIn), "clock", {})


async def _order(call: Call, form: OrderIn, kind: str, values: Mapping[str, object]) -> Answer:
    core, now = call.core, call.core.clock.now()
    found = await _meant(call, form)
    request, expires = secrets.token_hex(10), now + timedelta(minutes=form.expires_min)
    whom = form.area or f"{len(found)} by name"
    record = Record(now, actor(call.principal), f"order:{kind}", request, f"{len(found)} loudspeakers; {whom}")
    clear = None
    if values.get("audible"):
        expires = min(expires, _heard_until(core))
        villages = sorted({one.village for one in found})
        clear = partial(bar, targets=[Target(village[:9], (village,)) for village in villages])
    try:
        await core.store.orders.add(request, [one.id for one in found], kind, values, expires, record, clear)
    except RealWarningError:
        raise Refused(409, "under_warning", "a real warning is in force there; test later") from None
    return 200, OrderedOut(id=request, kind=kind, speakers=len(found), expires=expires)


async def _meant(call: Call, form: OrderIn) -> Sequence[Speaker]:
    """Return the loudspeakers an order is for.

    Raises:
        Refused: 404 one of them is not there, or not in the caller's area.
    """
    devices, rules = call.core.store.devices, call.core.policy.speakers
    areas = _within(call, form.area)
    if form.area:
        found = await devices.below(areas, rules)
        if not found:
            raise Refused(404, "unknown_speaker", "no loudspeaker of your area is in service there")
        return found
    found = [one for one in await devices.named(form.speakers, rules) if one.village.startswith(areas)]
    if missing := sorted(set(form.speakers) - {one.name for one in found}):
        text = f"no loudspeaker of your area is called {', '.join(missing[:5])}; GET /v1/speakers lists them"
        raise Refused(404, "unknown_speaker", text)
    return found


def _heard_until(core: Core) -> datetime:
    """Return until when today a tone may sound: nobody may take it for a warning at night, nor who comes back then.

    Raises:
        Refused: 409, it is night.
    """
    drill, local = core.policy.drill, core.clock.now().astimezone(CHINA)
    if not drill.start <= local.time() < drill.until:
        text = f"an audible self-test is held from {drill.start:%H:%M} to {drill.until:%H:%M} only; audible = false"
        raise Refused(409, "quiet_hours", f"{text} tests silently at any hour")
    return datetime.combine(local.date(), drill.until, CHINA)


async def mute(call: Call) -> Answer:
    """Say which villages would hear nothing."""
    core, rules = call.core, call.core.policy.speakers
    areas = _within(call, call.asked(MuteQuery).area)
    codes = [code for code, one in core.regions.places.items() if one.kind == "village" and code.startswith(areas)]
    found = await core.store.devices.below(areas, rules)
    by_village: dict[str, list[Speaker]] = {code: [] for code in sorted(codes)}
    for one in found:
        by_village.setdefault(one.village, []).append(one)
    villages = [_village(core, code, some) for code, some in by_village.items()]
    townships: dict[str, Counter[Condition]] = {}
    for line in villages:
        townships.setdefault(line.village.code[:9], Counter())[line.condition] += 1
    return 200, MuteOut(
        at=core.clock.now(), offline_min=rules.offline_min, untested_days=rules.untested_days, speakers=len(found),
        villages=_counted(sum(townships.values(), Counter())),
        townships=[
            MuteTownship(township=_place(core, code), villages=_counted(count)) for code, count in townships.items()
        ],
        mute=[line for line in villages if line.condition.mute],
        untested=[line for line in villages if line.condition is Condition.UNTESTED],
    )  # fmt: skip


def _counted(count: Counter[Condition]) -> dict[Condition, int]:
    return {condition: count[condition] for condition in Condition}


def _village(core: Core, code: str, found: Sequence[Speaker]) -> MuteVillage:
    return MuteVillage(
        village=_place(core, code),
        condition=max((one.condition for one in found), key=list(Condition).index, default=Condition.NONE),
        speakers=len(found),
        seen_at=max((one.seen_at for one in found if one.seen_at is not None), default=None),
        faults=sorted({fault for one in found for fault in one.state.faults}),
    )


async def village_alarms(call: Call) -> Answer:
    """List alarms that villages of the caller's area have sounded."""
    asked, core = call.asked(VillageAlarmsQuery), call.core
    areas, since = areas_of(core, call.principal), core.clock.now() - timedelta(hours=asked.hours)
    lines = [await _alarm(core, one) for one in await core.store.sounded.recent(areas, since, LIMIT)]
    return 200, VillageAlarmsOut(alarms=[one for one in lines if one.answers or not asked.undecided])


async def _alarm(core: Core, one: Sounded) -> VillageAlarmOut:
    owed = await core.store.obligations.get(one.id, KIND)
    is_open = owed is not None and owed.answered_at is None
    return VillageAlarmOut(
        id=one.id, at=one.at, speaker=one.speaker, village=_place(core, one.village),
        answers=list(RULES[KIND].answers) if is_open else [],
        decided_at=owed.answered_at if owed else None, by=owed.actor if owed else "",
        decision=owed.answer if owed else "", reason=owed.remark if owed else "",
    )  # fmt: skip


def _within(call: Call, area: str) -> tuple[str, ...]:
    """Return the codes a question is about: the part of `area` that is the caller's, or all that is the caller's.

    Raises:
        Refused: 422 no place has the code: an empty list would say that nothing is there.
    """
    mine = areas_of(call.core, call.principal)
    if not area:
        return mine
    if unknown := call.core.regions.unknown([area]):
        raise Refused(422, "unknown_area", unknown)
    return (area,) if area.startswith(mine) else tuple(one for one in mine if one.startswith(area))


def _speaker(core: Core, one: Speaker) -> SpeakerOut:
    same = ("name", "condition", "online", "seen_at", "since", "told_at", "drilled_at", "tested_at", "played_at")
    state = one.state
    return SpeakerOut(
        **{name: getattr(one, name) for name in same}, village=_place(core, one.village), firmware=state.firmware,
        volume=state.volume, power=state.power, battery=state.battery, clock_skew_s=state.clock_skew_s,
        faults=list(state.faults),
    )  # fmt: skip


def _place(core: Core, code: str) -> PlaceOut:
    return PlaceOut(code=code, name=core.regions.path_name(code))


SPEAKERS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET", "/v1/speakers", "listSpeakers", "Loudspeakers of your area and their state, by village and name.",
        speakers, {200: SpeakersPage}, (422,), query=SpeakersQuery,
    ),
    Endpoint(
        "GET", "/v1/speakers/villages", "listMuteVillages",
        "Villages without a working loudspeaker: none in service, all offline, or all faulty; and those where none was "
        "heard for too long. With counts by township.",
        mute, {200: MuteOut}, (422,), query=MuteQuery,
    ),
    Endpoint(
        "GET", "/v1/speakers/orders", "listOrders",
        "What loudspeakers of your area were ordered to do, by whom, and what became of it.",
        orders, {200: OrdersOut}, (422,), query=OrdersQuery,
    ),
    Endpoint(
        "POST", "/v1/speakers/volume", "orderVolume",
        "Order a volume, with that of the night and the floors of levels. Who is not there gets it once back.",
        volume, {200: OrderedOut}, (404, 422), roles=DUTY, body=VolumeIn,
    ),
    Endpoint(
        "POST", "/v1/speakers/self-test", "orderSelfTest", "Order a self-test; an audible one by day only.",
        self_test, {200: OrderedOut}, (404, 409, 422), roles=DUTY, body=SelfTestIn,
    ),
    Endpoint(
        "POST", "/v1/speakers/config", "orderConfig", "Order settings of the device's maker.",
        config, {200: OrderedOut}, (404, 422), roles=frozenset({"admin"}), body=ConfigIn,
    ),
    Endpoint(
        "POST", "/v1/speakers/clock", "orderClock", "Order the clock to be set; a wrong one is set by itself, too.",
        clock, {200: OrderedOut}, (404, 422), roles=DUTY, body=ClockIn,
    ),
    Endpoint(
        "GET", "/v1/speakers/alarms", "listVillageAlarms",
        "Alarms that villages have sounded by themselves, newest first. Decide with "
        "POST /v1/obligations/{id}/village_alarm.",
        village_alarms, {200: VillageAlarmsOut}, query=VillageAlarmsQuery,
    ),
)  # fmt: skip
