"""The nouns of the gateway: Alert, Audience, Plan, Batch, Delivery, Receipt.

Everything here is frozen, holds no behaviour beyond small derivations, and imports the standard
library only, so every layer may use it. Times are aware UTC (the edges convert; naive Chinese
times are +08:00).

**Source:** OASIS CAP 1.2 for the element names and enumerations of Alert, Info and Area.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum, StrEnum
from functools import cached_property
from typing import NamedTuple


class Status(StrEnum):
    """CAP `status`. Only ACTUAL may ever look or sound like a real warning (rule 3)."""

    ACTUAL = "Actual"
    EXERCISE = "Exercise"
    SYSTEM = "System"
    TEST = "Test"
    DRAFT = "Draft"


class Kind(StrEnum):
    """What a message does to the ones before it. CORRECTION (更正) revokes a mistake; the rest are CAP `msgType`."""

    ALERT = "Alert"
    UPDATE = "Update"
    CANCEL = "Cancel"
    CORRECTION = "Correction"


class Document(StrEnum):
    """The kind of document an alert is; each has its own issuers, templates and ladder."""

    WARNING = "warning"  # 预警信号
    JOINT_RISK = "joint_risk"  # 联合风险预警
    RESPONSE = "response"  # 应急响应
    EVACUATION = "evacuation"  # 转移指令
    RETURN = "return"  # 返回通知
    NOWCAST = "nowcast"  # 实况/短临提醒
    SERVICE = "service"  # 服务科普


class Level(IntEnum):
    """Colour of a warning, ordered by severity. UNKNOWN where a document has no colour."""

    UNKNOWN = 0
    BLUE = 1  # 蓝 Ⅳ
    YELLOW = 2  # 黄 Ⅲ
    ORANGE = 3  # 橙 Ⅱ
    RED = 4  # 红 Ⅰ


class Group(StrEnum):
    """Who an audience is made of."""

    OFFICIALS = "officials"
    LOUDSPEAKERS = "loudspeakers"
    RESIDENTS = "residents"
    SUBSCRIBERS = "subscribers"
    AREA = "area"  # everybody in a place, known to nobody here: its recipients are places (area requests, D10)


ROSTERS = (Group.OFFICIALS, Group.LOUDSPEAKERS, Group.RESIDENTS, Group.SUBSCRIBERS)
"""The groups whose members are registered one by one."""


class Lane(StrEnum):
    """Isolated ways through the gateway, from most to least urgent (rule 5)."""

    GREEN = "green"
    URGENT = "urgent"
    BULK = "bulk"
    SERVICE = "service"


class Notice(StrEnum):
    """What one audience is told; chooses the template."""

    ISSUE = "issue"  # 发布
    UPDATE = "update"  # 继续 / 升级 / 变更
    DOWNGRADE = "downgrade"  # 降级
    PARTIAL_ALL_CLEAR = "partial_all_clear"  # villages leaving the area
    ALL_CLEAR = "all_clear"  # 解除
    CORRECTION = "correction"  # 更正


class State(IntEnum):
    """Where one recipient stands. The value is the rank of the fold: a higher one wins, whenever it arrives.

    A late DELIVERED beats UNKNOWN and FAILED; SUBMITTED is never shown as DELIVERED.
    """

    QUEUED = 0
    SUBMITTED = 10
    UNKNOWN = 20  # the provider never said
    SKIPPED = 30  # never sent: opted out, refused address, no way to reach
    SUPERSEDED = 31  # never sent: a newer version or a stop came first
    EXPIRED = 32  # never sent in time
    FAILED = 40
    DELIVERED = 50
    PLAYED = 60
    CONFIRMED = 70


NEVER_SENT = frozenset({State.SKIPPED, State.SUPERSEDED, State.EXPIRED})


def fold(old: State, new: State) -> State:
    """Return the state after one more fact: only ever forward by rank."""
    return new if new > old else old


class VillageState(StrEnum):
    """What is known of one village for one version (D1). Never added into one percentage."""

    CONFIRMED = "confirmed"  # 叫应: a person answerable for it answered
    PLAYED = "played"  # 已播出
    SMS_ONLY = "sms_only"  # 仅短信
    SILENT = "silent"  # 失联
    GAP = "gap"  # 缺口


class Code(NamedTuple):
    """CAP `valueName` / `value` pair (eventCode, geocode, parameter)."""

    name: str
    value: str


class Reference(NamedTuple):
    """CAP `references` entry: the (sender, identifier, sent) of an earlier message."""

    sender: str
    identifier: str
    sent: datetime


class Point(NamedTuple):
    """WGS84 degrees, latitude first as CAP writes it."""

    lat: float
    lon: float


class Circle(NamedTuple):
    """CAP `circle`: centre and radius in kilometres."""

    centre: Point
    radius_km: float


@dataclass(frozen=True, slots=True)
class Area:
    """CAP `area`; polygons, circles and geocodes form a union. Polygon: ring of Points, first = last."""

    description: str
    polygons: tuple[tuple[Point, ...], ...] = ()
    circles: tuple[Circle, ...] = ()
    geocodes: tuple[Code, ...] = ()
    altitude_ft: float | None = None
    ceiling_ft: float | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """CAP `resource`. `digest` is SHA-1 hex."""

    description: str
    mime_type: str
    size_bytes: int | None = None
    uri: str | None = None
    deref_uri: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """CAP `info`: one language (or one part) of an alert. Enumerated fields hold CAP's own words."""

    event: str
    language: str = "en-US"
    categories: tuple[str, ...] = ("Met",)
    response_types: tuple[str, ...] = ()
    urgency: str = "Unknown"
    severity: str = "Unknown"
    certainty: str = "Unknown"
    audience: str | None = None
    event_codes: tuple[Code, ...] = ()
    effective: datetime | None = None
    onset: datetime | None = None
    expires: datetime | None = None
    sender_name: str | None = None
    headline: str | None = None
    description: str | None = None
    instruction: str | None = None
    web: str | None = None
    contact: str | None = None
    parameters: tuple[Code, ...] = ()
    resources: tuple[Resource, ...] = ()
    areas: tuple[Area, ...] = ()

    def parameter(self, name: str) -> str | None:
        """Return the first parameter of that name."""
        return next((code.value for code in self.parameters if code.name == name), None)


class Partner(NamedTuple):
    """A body that issues a joint warning with its sender (D9), by its names."""

    zh: str
    en: str


AREA_APPROVAL = "area_approval"
DRILL_GROUPS = "drill_groups"


@dataclass(frozen=True)
class Alert:
    """What happened: one frozen, self-contained version of a warning. Key: (sender, identifier, sent).

    `event_code` is the GB/T 35561 code ("11B03"); `event` its Chinese name. `expires` is None until
    intake has applied the policy's default. `policy_digest` names the policy it was accepted under; `partners` have
    agreed to a joint warning.
    """

    sender: str
    identifier: str
    sent: datetime
    status: Status
    kind: Kind
    document: Document
    event_code: str
    event: str
    level: Level
    infos: tuple[Info, ...] = ()
    references: tuple[Reference, ...] = ()
    scope: str = "Public"
    source: str | None = None
    restriction: str | None = None
    addresses: tuple[str, ...] = ()
    codes: tuple[str, ...] = ()
    note: str | None = None
    incidents: tuple[str, ...] = ()
    effective: datetime | None = None
    expires: datetime | None = None
    policy_digest: str = ""
    partners: tuple[Partner, ...] = ()

    @cached_property
    def id(self) -> str:
        """Opaque stable id of this version: 20 hex digits of a digest over the key."""
        key = "\0".join((self.sender, self.identifier, self.sent.isoformat()))
        return hashlib.sha256(key.encode()).hexdigest()[:20]

    @property
    def areas(self) -> tuple[Area, ...]:
        """Areas of all infos, each once, in order."""
        return tuple(dict.fromkeys(area for info in self.infos for area in info.areas))

    @property
    def approval(self) -> str:
        """Number under which an area request for it was approved (审批号): parameter `area_approval`; "": none."""
        return next(filter(None, (info.parameter(AREA_APPROVAL) for info in self.infos)), "")

    def approved(self, number: str) -> Alert:
        """Return it with the approval number, as if it had come with it: its all-clear carries it, too."""
        first, *rest = self.infos
        first = replace(first, parameters=(*first.parameters, Code(AREA_APPROVAL, number)))
        return replace(self, infos=(first, *rest))

    @property
    def actual(self) -> bool:
        """Whether this is real; everything else carries the drill mark first."""
        return self.status is Status.ACTUAL

    @property
    def public(self) -> bool:
        """Whether everybody may hear it (CAP `scope`)."""
        return self.scope == "Public"

    @property
    def announces(self) -> bool:
        """Whether it tells beforehand that a drill will be held: the service message of an exercise (D19)."""
        return self.status is Status.EXERCISE and self.document is Document.SERVICE

    @property
    def narrowed(self) -> frozenset[str]:
        """Groups a drill is narrowed to (parameter `drill_groups`, with blanks between); empty: all that may hear."""
        return frozenset(word for info in self.infos for word in (info.parameter(DRILL_GROUPS) or "").split())

    def info(self, language: str) -> Info | None:
        """Return the info in `language` ("zh" or "en", matched by prefix), else the first, else None."""
        wanted = (info for info in self.infos if info.language.lower().startswith(language))
        return next(wanted, self.infos[0] if self.infos else None)


@dataclass(frozen=True, slots=True)
class Target:
    """One affected township (9-digit code) and how it was matched.

    `villages` (12-digit codes) narrows it; empty means the whole township. `certain` is False for
    townships only touched, or without geometry inside a touched county. `coarse` marks a county-only match:
    officials and loudspeakers go, residents wait for a person (policy `coarse_area`).
    """

    township: str
    villages: tuple[str, ...] = ()
    how: str = "code"
    certain: bool = True
    coarse: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """Targets in township order, and the area descriptions that resolved to nothing.

    `parts` are the targets of each info, where infos name different areas; empty: each speaks of all.
    """

    targets: tuple[Target, ...]
    unresolved: tuple[str, ...] = ()
    parts: tuple[tuple[Target, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Audience:
    """Who should hear it: townships × group × channel × language. A query, not a list.

    `opted_out` includes residents who opted out: orange, red and evacuation rest on the emergency basis (D24).
    `before` are the targets of earlier steps on the same channel: who is counted there is not counted here (rule 6).
    """

    targets: tuple[Target, ...]
    group: Group
    channel: str
    language: str = "zh"
    opted_out: bool = False
    before: tuple[Target, ...] = ()
    rings: tuple[tuple[str, str], ...] = ()
    """Of an area request: (township, ring) where the issuer drew less than the township; see `gateway.regions.clip`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One ordered step of a plan. `fallback_of` is the number of the step it stands in for.

    `lapses` are the townships whose own words end before the deadline: (township, when).
    """

    number: int
    audience: Audience
    notice: Notice
    lane: Lane
    start: datetime
    deadline: datetime
    fallback_of: int | None = None
    lapses: tuple[tuple[str, datetime], ...] = ()
    every_s: int = 0
    """Loudspeakers say it again this often, until their village has confirmed; 0: once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be done for one alert, stored whole. `held` names what waits for a person, and why."""

    alert: str
    route: str  # "green" | "emergency" | "normal" | "drill"
    reasons: tuple[str, ...]
    targets: tuple[Target, ...]
    leaving: tuple[Target, ...]
    steps: tuple[Step, ...]
    held: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Stages of `gateway.standing` it has still to pass, the present one first."""
    before: tuple[Target, ...] = ()
    """What the versions it follows were in force for, when it was planned."""
    parts: tuple[tuple[Target, ...], ...] = ()
    """The targets of each info, where infos of one language say different things; see `gateway.telling`."""
    supersedes: tuple[str, ...] = ()
    """Versions that end as it starts; a loudspeaker falls silent for them as it is told the new one."""
    mute: tuple[Mute, ...] = ()
    """Villages that were to hear it and had no working loudspeaker as it began: gaps from the first second."""


class Mute(NamedTuple):
    """A village whose best loudspeaker would not sound, and why."""

    village: str
    condition: Condition


@dataclass(frozen=True, slots=True)
class Batch:
    """One unit of work: up to 1,000 recipients of one channel and township, frozen in order.

    Order: (village, person id). `persons`, `addresses` run parallel; `villages` are runs of
    (12-digit code, count) over the same order; `places` names all places of the few recipients who
    have several (position → place names); `texts` is empty while the sender renders from the alert.
    """

    id: str  # "<alert>.<step>.<sequence>"
    alert: str
    step: int
    channel: str
    lane: Lane
    group: Group
    notice: Notice
    language: str
    township: str
    deadline: datetime
    persons: tuple[int, ...]
    addresses: tuple[str, ...]
    villages: tuple[tuple[str, int], ...]
    places: dict[int, tuple[str, ...]] = field(default_factory=dict)
    slice: int = 0
    """Recipients per slice, frozen with the batch; 0: desired state of devices, carried out by the hubs."""
    every_s: int = 0
    """As in its step."""

    @property
    def slices(self) -> int:
        """Number of slices."""
        return -(-len(self.persons) // self.slice) if self.slice else 0

    def __len__(self) -> int:
        return len(self.persons)

    def village_of(self) -> Iterator[str]:
        """Yield each recipient's village code, in order."""
        for code, count in self.villages:
            for _ in range(count):
                yield code


class Recipient(NamedTuple):
    """One row of an audience page: who, how to reach, where. `places` (codes) is set only if there are several."""

    person: int
    address: str
    village: str
    places: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of a batch one `send` call works on; all sequences run parallel.

    `positions` are indices into the batch; `attempt` counts from 1; `number` is the slice's own.
    """

    batch: str
    number: int
    attempt: int
    positions: Sequence[int]
    persons: Sequence[int]
    addresses: Sequence[str]

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class Message:
    """What a slice is sent. `text` for all, or `texts` parallel to the slice where they differ.

    `again` is set on the one repeat of rule 2: the text already starts with 再次提醒.
    """

    alert: str
    notice: Notice
    status: Status
    level: Level
    lane: Lane
    language: str
    title: str
    text: str
    expires: datetime
    texts: Sequence[str] | None = None
    again: bool = False
    approval: str = ""
    """Number under which an area request was approved."""
    region: str = ""
    """The township it is for, or a code before or behind that; loudspeakers elsewhere refuse it."""
    supersedes: Sequence[str] = ()
    """Versions that end as it starts."""
    every_s: int = 0
    """Loudspeakers say it again this often, until somebody has confirmed; 0: once."""
    document: Document = Document.WARNING
    hazard: str = ""
    """Code of the hazard (GB/T 35561), where the alert has one."""

    accounts: Sequence[tuple[str, str]] = ()
    """The channel's accounts and their ports that know the unit's signature, "" for any; none: nothing is known."""

    def text_at(self, index: int) -> str:
        """Return the text of the slice's recipient `index`."""
        return self.texts[index] if self.texts is not None else self.text


MEMBER = "#"
"""In a reference: between a provider's message and which of its recipients is meant."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One fact about one recipient: state, the provider's own code and reference, or an error.

    An `error` from `gateway.errors` leaves the retry decision to the sender; without one, `state` holds.
    Texts, numbers and names never appear in `code`.
    """

    state: State
    code: str = ""
    reference: str = ""
    error: Exception | None = None
    more: tuple[str, ...] = ()
    """References of the further parts of a long text: its recipient has it when all are delivered."""
    members: tuple[str, ...] = ()
    """Where one message of the provider's went to several: this object is the receipt of them all, and their reports
    come under `reference`, `MEMBER` and each one's own of these (no blank, no comma), in the order of the positions."""


@dataclass(frozen=True, slots=True)
class Report:
    """A later fact from a provider, named by its reference, or by (batch, position, attempt) where known.

    A reference with `MEMBER` in it is about one of those to whom one message went, see `Receipt.members`.
    """

    account: str
    reference: str
    state: State
    at: datetime
    code: str = ""
    batch: str = ""
    position: int = -1
    attempt: int = 1
    elsewhere: bool = False
    """The carrier says that the number is another one's."""
    more: tuple[str, ...] = ()
    """References of a long text's other parts, where `batch` is known: they are the recipient's from now on."""


def extension_of(alert: str, digits: int) -> str:
    """Return the digits behind our port under which a version is sent: a reply to them is an answer to it."""
    value = int.from_bytes(hashlib.blake2b(alert.encode(), digest_size=8).digest())
    return f"{value % 10**digits:0{digits}d}" if digits else ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A message a person sent back. `address` is the phone number; it is hashed before anything is stored."""

    channel: str
    account: str
    reference: str
    address: str
    text: str
    at: datetime
    extension: str = ""
    """Digits the person dialled behind our own number, where they tell which alert is answered: `extension_of`."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a loudspeaker says of its condition; "" or None: it did not say."""

    firmware: str = ""
    volume: int | None = None
    """0 to 100."""
    power: str = ""
    """mains, battery or solar."""
    battery: int | None = None
    """Percent."""
    clock_skew_s: float | None = None
    """Its clock minus ours."""
    faults: tuple[str, ...] = ()


class Condition(StrEnum):
    """Whether a village would hear its loudspeaker, from worst to best: a village is as well off as its best one."""

    NONE = "none"  # the village has none in service
    OFFLINE = "offline"  # not heard of for too long
    FAULTY = "faulty"
    UNTESTED = "untested"  # it is there, but nobody has heard it for too long: its last drill is old
    WORKING = "working"

    @property
    def mute(self) -> bool:
        """Whether nothing would sound. Who is only untested may well."""
        return self in (Condition.NONE, Condition.OFFLINE, Condition.FAULTY)


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something a device said of itself: `kind` is online, offline, replaced, fault, state or alarm.

    The `code` of an alarm, which the village has sounded by itself, is the device's own id of it.
    """

    device: int
    kind: str
    at: datetime
    code: str = ""
    state: DeviceState | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """One thing a single device is to do that is no warning: `kind` is volume, self_test, config or clock."""

    id: str
    device: int
    kind: str
    values: Mapping[str, object]
    expires: datetime


@dataclass(frozen=True, slots=True)
class OrderReceipt:
    """What a device says of an order: done, or not with its code."""

    order: str
    device: int
    done: bool
    at: datetime
    code: str = ""


@dataclass(frozen=True, slots=True)
class Audio:
    """A text that was spoken in advance: where a device fetches it, and what it must be (SHA-256 in hex)."""

    url: str
    sha256: str
    size_bytes: int
    duration_s: float
    type: str


class JobState(IntEnum):
    """Where an area request stands at its platform. The value is the rank of the fold, as in `State`."""

    ASKED = 0  # about to be asked, and perhaps taken
    LOST = 1  # the platform knows of none, and it is asked no more
    RUNNING = 2
    DONE = 3
    STOPPED = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """An aggregate receipt: how far one request for places has come, in telephones and never in persons.

    Counts only grow; a repeated or late one changes nothing. `source` is the request's own reference, `job` the
    platform's number for it; after `last` nothing more is told of it, unless it is ASKED again.
    """

    batch: str
    source: str
    state: JobState
    at: datetime
    requested: int = 0
    submitted: int = 0
    delivered: int = 0
    job: str = ""
    last: bool = False


class Rounds(NamedTuple):
    """What is said again: its batch, when it was last asked, and the positions whose villages have not confirmed.

    `halted`: only a person's halt makes it over; it goes on once that is lifted.
    """

    batch: Batch
    asked_at: datetime
    wanted: frozenset[int]
    halted: bool = False


class Job(NamedTuple):
    """A request for places that may still run. `over`: it must no longer; `since`: when it last moved.

    `places` are the addresses of its batch by position, "" once erased; `rounds` where it is said again.
    """

    progress: Progress
    over: bool
    since: datetime
    places: tuple[str, ...] = ()
    rounds: Rounds | None = None


class ClaimResult(StrEnum):
    """What became of a claim."""

    GRANTED = "granted"  # yours until the lease ends
    SETTLED = "settled"  # nothing left: ack
    HELD = "held"  # someone else holds it until `until`
    WAITING = "waiting"  # a retry is due at `until`
    HALTED = "halted"  # a person has stopped this county, channel or everything


@dataclass(frozen=True, slots=True)
class Claim:
    """The store's answer to a claim of one slice.

    `pending` are the positions to send; `doubtful` ones may or may not have been sent once (rule 2);
    `lost` ones twice. Where the alert was stopped or has expired, the store settles the slice as such
    in the same transaction and answers SETTLED.
    """

    result: ClaimResult
    attempt: int = 1
    pending: tuple[int, ...] = ()
    doubtful: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change feed. `cursor` is opaque and ordered; `kind` says what moved for which alert."""

    cursor: tuple[int, int]
    kind: str
    alert: str
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """One step in the life of an alert: what happened at which standing, by whom ("issuer/name"), and why."""

    standing: str
    event: str
    actor: str
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Minute:
    """A note with names in it, encrypted: a telephone authorisation (D3), a consultation 会商记录 (D9)."""

    kind: str  # "authorise" | "join" | "emergency" | "consultation"
    actor: str
    at: datetime
    secret: bytes


@dataclass(frozen=True, slots=True)
class Obligation:
    """Something the duty room owes an alert by a time: it rings from `due` on until a person has answered."""

    alert: str
    kind: str
    due: datetime
    opened_at: datetime
    answered_at: datetime | None = None
    actor: str = ""
    answer: str = ""
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision for the audit chain. `detail` holds no personal data."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: str = ""
