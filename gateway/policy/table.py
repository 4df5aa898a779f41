"""The policy's tables: one frozen model per file under `config/policy/`, unknown keys refused.

Read by `gateway.policy.reading`, asked through `gateway.policy.Policy`. What one row may say is checked here,
what files say of each other in `reading`.

**Source:** hazard codes GB/T 35561; which colours exist for a hazard: the tables named in `levels.csv`.
"""

from __future__ import annotations

from datetime import date, time, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, model_validator

from gateway.model import Alert, Document, Group, Kind, Lane, Level, Notice, Target

COLOURS = (Level.BLUE, Level.YELLOW, Level.ORANGE, Level.RED)
COLOURED = frozenset({Document.WARNING, Document.JOINT_RISK})
"""Documents that carry a colour. An emergency response Ⅳ–Ⅰ is never shown as one."""

BY_HAZARD = "hazard"
"""In `documents.csv`: whoever the hazard's own row names."""

TOWNSHIP = "乡镇"
"""The bureau of a township: it orders for its own villages and relays everything else."""

ALL_CLEARS = frozenset({Notice.PARTIAL_ALL_CLEAR, Notice.ALL_CLEAR})
DRILL_GROUPS = frozenset({Group.OFFICIALS, Group.LOUDSPEAKERS})


def _level(value: object) -> Level:
    names = {level.name.lower(): level for level in Level}
    if isinstance(value, Level):
        return value
    # A bare digit is refused: feeds disagree whether 1 is blue or red.
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"not a level; use one of {', '.join(names)}")
    return names[value]


def _listed(value: object) -> object:
    """Split the list in a CSV cell: 气象|应急."""
    return tuple(filter(None, (part.strip() for part in value.split("|")))) if isinstance(value, str) else value


LevelName = Annotated[Level, BeforeValidator(_level), PlainSerializer(lambda level: level.name.lower())]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
AreaPrefix = Annotated[str, StringConstraints(pattern=r"^(\d{2}|\d{4}|\d{6}|\d{9}|\d{12})$")]
HazardCode = Annotated[str, StringConstraints(pattern=r"^\d\d[0-9A-Z]\d\d$")]
HazardGlob = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z]*\*?$", min_length=1)]
Bureaus = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_listed)]
Minutes = Annotated[int, Field(gt=0, le=7 * 24 * 60)]
Percent = Annotated[int, Field(ge=0, le=100)]
Role = Literal["issuer", "reviewer", "signer", "clerk", "viewer", "admin"]
WRITERS = frozenset({"issuer", "reviewer", "signer"})
"""Roles that may send a message in; who may decide on it says `gateway.standing`."""


@lru_cache(4096)
def hazard_matches(code: str, globs: tuple[str, ...]) -> bool:
    """Whether a hazard code is covered by one of the globs ("11B03", "11B*")."""
    return any(fnmatchcase(code, glob) for glob in globs)


def area_covers(prefixes: tuple[str, ...], target: Target) -> bool:
    """Whether the whole target lies inside the prefixes (a village prefix covers a target narrowed to it)."""
    if target.township.startswith(prefixes):
        return True
    return bool(target.villages) and all(village.startswith(prefixes) for village in target.villages)


class Table(BaseModel):
    """Base of every row and file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Hazard(Table):
    """One row of `hazards.csv`: a code, its names, and the bureaus that may warn of it."""

    code: HazardCode
    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)
    bureaus: Bureaus


class LevelRow(Table):
    """One row of `levels.csv`: the colour exists for the hazard in this version of a table, from a day in China on."""

    table: Identifier
    version: str = Field(min_length=1)
    since: date
    hazard: HazardCode
    level: LevelName
    criteria: str = ""

    @model_validator(mode="after")
    def _a_colour(self) -> Self:
        if self.level is Level.UNKNOWN:
            raise ValueError("unknown is no colour; use blue, yellow, orange or red")
        return self


class DocumentRow(Table):
    """One row of `documents.csv`: a kind of document and the bureaus that may be granted it."""

    document: Document
    zh: str = Field(min_length=1)
    en: str = Field(min_length=1)
    bureaus: Bureaus


class Hours(Table):
    """From one time of the day until another, in China; across midnight where `until` comes first."""

    start: time = Field(alias="from")
    until: time

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.start == self.until:
            raise ValueError("from and until are the same; leave hours out for the whole day")
        return self

    def cover(self, moment: time) -> bool:
        """Whether the moment lies within; `until` does not."""
        if self.start < self.until:
            return self.start <= moment < self.until
        return moment >= self.start or moment < self.until

    def __str__(self) -> str:
        return f"{self.start:%H:%M} to {self.until:%H:%M}"


class Grant(Table):
    """What an issuer may say: documents × hazards, up to a level.

    `areas`, `channels` and `hours` make it narrower than the issuer; left out: its areas, every channel, always.
    """

    documents: tuple[Document, ...] = Field(min_length=1)
    hazards: tuple[HazardGlob, ...] = Field(min_length=1)
    highest: LevelName
    areas: Annotated[tuple[AreaPrefix, ...], Field(min_length=1)] | None = None
    channels: Annotated[tuple[Identifier, ...], Field(min_length=1)] | None = None
    hours: Hours | None = None


class Issuer(Table):
    """A body entitled to issue. `sender` is its CAP sender.

    `signature` stands in 【】 before an SMS; "" while none is registered with the carriers: then no SMS of it leaves.
    `national` is its unit code on the national platform (国突), by which it is known in the national dialect.
    """

    id: Identifier
    sender: str = Field(pattern=r"^[^\s,<&]+$")
    name: str = Field(min_length=1)
    name_en: str = Field(min_length=1)
    signature: str = Field(default="", pattern=r"^([^【】\s]{2,})?$")
    national: str = Field("", pattern=r"^([0-9]{14})?$")
    bureau: str = Field(min_length=1)
    areas: tuple[AreaPrefix, ...] = Field(min_length=1)
    grant: tuple[Grant, ...] = Field(min_length=1)
    green: bool = False
    ceiling: tuple[AreaPrefix, ...] = ()


class AuthorityFile(Table):
    """`authority.toml`."""

    issuer: tuple[Issuer, ...] = Field(min_length=1)


class Token(Table):
    """One API token: the digest of a random text, and the person it stands for."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    issuer: Identifier
    name: str = Field(min_length=1)
    role: Role
    demo: bool = False


class TokensFile(Table):
    """`tokens.toml`."""

    token: tuple[Token, ...] = ()


class GreenFile(Table):
    """`green.toml`: what may leave before a second person has seen it."""

    hazards: tuple[HazardCode, ...]
    documents: tuple[Document, ...]
    lowest: LevelName = Level.UNKNOWN
    ceiling: Literal["own_county", "own_area"] = "own_county"
    review_within_min: Minutes = 30

    @model_validator(mode="after")
    def _no_orders(self) -> Self:
        for document in (Document.EVACUATION, Document.RETURN):
            if document in self.documents:
                raise ValueError(f"{document} moves people and never uses the green channel; remove it from documents")
        return self


class ChannelRow(Table):
    """A channel the plan may name, and whom it can serve.

    `roads` makes it a pool: the channels that share its people by their numbers, in order of preference.
    """

    name: Identifier
    groups: tuple[Group, ...] = Field(min_length=1)
    roads: tuple[Identifier, ...] = ()


class PlanRow(Table):
    """Which channels one group hears a document and level through. `levels` left out: every level.

    Of an area request: `emergency`, only under the emergency regime (D8); `approval`, not without its number.
    `announces`: only the announcement of a drill goes this way.
    """

    documents: tuple[Document, ...] = Field(min_length=1)
    levels: tuple[LevelName, ...] = Field(default=tuple(Level), min_length=1)
    group: Group
    channels: tuple[Identifier, ...] = Field(min_length=1)
    languages: tuple[Literal["zh", "en"], ...] = ("zh",)
    lane: Lane
    start_after_s: int = Field(default=0, ge=0, le=3600)
    deadline_min: Minutes | None = None
    fallback: Identifier | None = None
    fallback_after_s: int = Field(default=300, ge=0, le=3600)
    emergency: bool = False
    approval: bool = False
    announces: bool = False

    @model_validator(mode="after")
    def _rules(self) -> Self:
        first = self.group in (Group.OFFICIALS, Group.LOUDSPEAKERS)
        if first and self.start_after_s:
            raise ValueError("officials and loudspeakers start at once; remove start_after_s")
        if self.lane is Lane.GREEN and not first:
            raise ValueError("lane green is reserved for officials and loudspeakers; use urgent or bulk")
        if (self.lane is Lane.SERVICE) != (self.documents == (Document.SERVICE,)):
            raise ValueError('lane service is for documents = ["service"] alone, and they use no other lane')
        mild = min(self.levels) < Level.ORANGE and self.documents != (Document.EVACUATION,)
        if self.lane is Lane.URGENT and mild:
            raise ValueError("lane urgent is for orange, red and evacuation; split the row or use bulk")
        if "zh" not in self.languages or ("en" in self.languages and self.group is not Group.SUBSCRIBERS):
            raise ValueError('languages: "zh" for everybody, "en" in addition only for subscribers')
        if self.group is not Group.AREA and (self.emergency or self.approval):
            raise ValueError('emergency and approval are for area requests; remove them, or use group = "area"')
        if self.announces and self.documents != (Document.SERVICE,):
            raise ValueError('a drill is announced by a service message; use documents = ["service"]')
        if self.group is Group.AREA and self.fallback:
            raise ValueError("an area request stands in for nobody and nobody for it; remove fallback")
        return self

    def covers(self, document: Document, level: Level) -> bool:
        """Whether the row speaks of this document and level."""
        return document in self.documents and level in self.levels


class PlanFile(Table):
    """`plan.toml`."""

    channel: tuple[ChannelRow, ...] = Field(min_length=1)
    row: tuple[PlanRow, ...] = Field(min_length=1)


class DeferRow(Table):
    """What waits for the morning. All keys but `channels` are written out, so that no row catches more than it says."""

    documents: tuple[Document, ...] = Field(min_length=1)
    levels: tuple[LevelName, ...] = Field(min_length=1)
    groups: tuple[Group, ...] = Field(min_length=1)
    notices: tuple[Notice, ...] = Field(min_length=1)
    channels: tuple[Identifier, ...] | None = None

    @model_validator(mode="after")
    def _never_delayed(self) -> Self:
        if Group.OFFICIALS in self.groups:
            raise ValueError("officials are never delayed; remove them from groups")
        if Document.EVACUATION in self.documents:
            raise ValueError("an evacuation instruction is never delayed; remove it from documents")
        if Level.RED in self.levels and not ALL_CLEARS.issuperset(self.notices):
            raise ValueError("red is never delayed, except its all-clear; put red into a row of its own")
        return self


class QuietFile(Table):
    """`quiet.toml`: quiet hours in China time, across midnight."""

    start: time = Field(alias="from")
    until: time
    resume: time
    defer: tuple[DeferRow, ...] = ()

    @model_validator(mode="after")
    def _across_midnight(self) -> Self:
        if not self.until <= self.resume < self.start:
            raise ValueError("expected until <= resume < from (quiet hours cross midnight)")
        return self

    def quiet(self, moment: time) -> bool:
        """Whether it is night."""
        return not self.until <= moment < self.start

    def row(self, document: Document, level: Level, group: Group, channel: str, notice: Notice) -> int | None:
        """Return the position of the row that makes this wait, or None."""
        for number, row in enumerate(self.defer):
            speaks = document in row.documents and level in row.levels and notice in row.notices
            if speaks and group in row.groups and (row.channels is None or channel in row.channels):
                return number
        return None


class ExpiresRow(Table):
    """Validity in hours of a message without `expires`. A key left out matches everything."""

    documents: tuple[Document, ...] = tuple(Document)
    levels: tuple[LevelName, ...] = tuple(Level)
    kinds: tuple[Kind, ...] = tuple(Kind)
    hours: int = Field(gt=0, le=30 * 24)

    def covers(self, alert: Alert) -> bool:
        """Whether the row speaks of this alert."""
        return alert.document in self.documents and alert.level in self.levels and alert.kind in self.kinds


class ConfirmRow(Table):
    """Which alerts a person must answer for, and minutes per rung of the ladder. A key left out matches everything."""

    documents: tuple[Document, ...] = tuple(Document)
    levels: tuple[LevelName, ...] = tuple(Level)
    hazards: tuple[HazardGlob, ...] = ("*",)
    response_types: tuple[str, ...] | None = None
    within_min: Minutes

    def covers(self, alert: Alert) -> bool:
        """Whether the row speaks of this alert."""
        asked = {word for info in alert.infos for word in info.response_types}
        return (
            alert.document in self.documents
            and alert.level in self.levels
            and hazard_matches(alert.event_code, self.hazards)
            and (self.response_types is None or not asked.isdisjoint(self.response_types))
        )


class RepeatRow(Table):
    """What loudspeakers say again every so many seconds (D13). A key left out matches everything."""

    documents: tuple[Document, ...] = tuple(Document)
    levels: tuple[LevelName, ...] = tuple(Level)
    every_s: int = Field(ge=60, le=24 * 3600)

    def covers(self, alert: Alert) -> bool:
        """Whether the row speaks of this alert."""
        return alert.document in self.documents and alert.level in self.levels


class LevelsRow(Table):
    """Which table of `levels.csv` counts for an issuer's area and a hazard; no areas: everywhere."""

    areas: tuple[AreaPrefix, ...] = ()
    hazards: tuple[HazardGlob, ...] = ("*",)
    table: Identifier

    def covers(self, code: str, areas: tuple[str, ...]) -> bool:
        """Whether the row speaks of this hazard and of all these areas."""
        return hazard_matches(code, self.hazards) and (
            not self.areas or all(area.startswith(self.areas) for area in areas)
        )


class Limits(Table):
    """Alerts per issuer and hour; above it an alarm and one more tap, never a block of red."""

    alerts_per_hour: int = Field(gt=0)
    issuers: dict[Identifier, Annotated[int, Field(gt=0)]] = Field(default_factory=dict)


class Drill(Table):
    """The audience of everything that is not Actual, and its hours in China time.

    A planned drill is announced `notice_h` hours before, to `notice_groups`, and lasts `longest_min` minutes at most; a
    county that has held none for `every_months` is named by doctor (0: never).
    """

    groups: tuple[Group, ...]
    notice_groups: tuple[Group, ...] = (Group.OFFICIALS, Group.LOUDSPEAKERS, Group.RESIDENTS)
    notice_h: int = Field(default=24, ge=1, le=14 * 24)
    longest_min: int = Field(default=120, ge=5, le=12 * 60)
    every_months: int = Field(default=6, ge=0, le=36)
    channels: tuple[Identifier, ...]
    areas: tuple[AreaPrefix, ...]
    start: time = Field(alias="from")
    until: time

    @model_validator(mode="after")
    def _only_those_who_know(self) -> Self:
        if not DRILL_GROUPS.issuperset(self.groups):
            raise ValueError("a drill reaches officials and loudspeakers only; remove the other groups")
        if Group.AREA in self.notice_groups:
            raise ValueError("an announcement goes to those who are registered; remove area from notice_groups")
        if not self.start < self.until:
            raise ValueError("drills are held by day: from must be before until")
        return self

    def audience(self, alert: Alert) -> frozenset[Group]:
        """Return the groups that may hear this drill, or the announcement of one."""
        allowed = frozenset(self.notice_groups if alert.announces else self.groups)
        return frozenset(one for one in allowed if one in alert.narrowed) if alert.narrowed else allowed


class NightVolume(Hours):
    """The volume of the night."""

    volume: Percent


class SpeakerVolume(Table):
    """How loud every loudspeaker plays: by day, by night, and not below the floor of a level, at whatever hour."""

    volume: Percent
    night: NightVolume | None = None
    floor: dict[Literal["red", "orange", "yellow", "blue"], Percent] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _red_is_heard(self) -> Self:
        if self.floor.get("red", 0) < self.volume:
            raise ValueError("red is never quieter than the rest (D14): give floor.red, at least as high as volume")
        return self


class SpeakerRules(Table):
    """When a loudspeaker counts as one nobody would hear, and what the gateway orders by itself.

    `offline_min`: not heard of for longer. `untested_days`: no drill, self-test or broadcast finished for longer; 0:
    never asked for. `tolerated_faults` silence nobody. `clock_skew_s`: beyond it the clock is set; 0: never.
    """

    offline_min: Minutes = 15
    untested_days: int = Field(default=90, ge=0, le=3650)
    tolerated_faults: tuple[str, ...] = ()
    clock_skew_s: int = Field(default=60, ge=0, le=86_400)
    volume: SpeakerVolume | None = None

    @property
    def offline(self) -> timedelta:
        """As a span of time."""
        return timedelta(minutes=self.offline_min)

    @property
    def untested(self) -> timedelta:
        """As a span of time; none: never asked for."""
        return timedelta(days=self.untested_days)


class DefaultsFile(Table):
    """`defaults.toml`."""

    coarse_area: Literal["hold_residents", "send"] = "hold_residents"
    played_share: float = Field(default=0.5, gt=0, le=1)
    levels: tuple[LevelsRow, ...] = ()
    expires: tuple[ExpiresRow, ...] = Field(min_length=1)
    confirm: tuple[ConfirmRow, ...] = ()
    repeat: tuple[RepeatRow, ...] = ()
    limits: Limits
    drill: Drill
    speakers: SpeakerRules = SpeakerRules()  # policies stored by earlier versions have none

    def ladder(self, alert: Alert) -> int | None:
        """Return the position of the confirm row that speaks of the alert, or None: nobody is called."""
        return next((number for number, row in enumerate(self.confirm) if row.covers(alert)), None)
