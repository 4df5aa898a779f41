"""A synthetic roster for demonstrations, load tests and the test suite: nobody in it exists.

Called by `mingluo demo`, `bench` and tests. Villages are real, people are not: names are drawn from small lists, and
every number begins with 100, which is no mobile range, so no network can ever ring it. The same seed gives the same
bytes. Keys of devices and of subscriptions follow from the seed too: never use such a roster in service.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.regions import Region, Regions

FAMILY = "王李张刘陈杨赵黄周吴徐孙马朱胡郭何高林罗郑梁谢宋唐许邓冯韩曹"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰建国红志"
TURN = ("flood_warden", "grid_worker", "disaster_informant", "monitor", "weather_informant")
NUMBERS = 10**8
STEP = 7_368_787  # a prime: consecutive persons get numbers that look unlike, and none twice
BOTH_EVERY = 6  # every sixth village: one person answers for the next one, too
SHARED_EVERY = 10  # every tenth village: two officials of one household share a telephone
NEIGHBOURS_EVERY = 15  # every fifteenth village: an official is registered as a resident, too


class Person(NamedTuple):
    """Name and telephone number."""

    name: str
    phone: str


class Sample(NamedTuple):
    """The files written; `subscribers` is None where nobody can be subscribed."""

    officials: Path
    residents: Path
    devices: Path
    subscribers: Path | None


class _People:
    """An endless supply of different persons."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._start = chance.randrange(NUMBERS)
        self._given = 0

    def name(self) -> str:
        """Draw a family name and one or two given characters."""
        pick = self._chance.random
        second = GIVEN[int(pick() * len(GIVEN))] if pick() < 0.7 else ""
        return FAMILY[int(pick() * len(FAMILY))] + GIVEN[int(pick() * len(GIVEN))] + second

    def next(self) -> Person:
        """Return a person whose number nobody had before."""
        self._given += 1
        return Person(self.name(), f"100{(self._start + self._given * STEP) % NUMBERS:08d}")


def write_sample(
    folder: Path,
    regions: Regions,
    residents: int,
    seed: int,
    officials_per_village: int = 2,
    devices_per_village: int = 2,
    subscribers: int = 200,
    townships: Sequence[str] | None = None,
    push_endpoint: Callable[[int], str] | None = None,
) -> Sample:
    """Write officials.csv, residents.csv, devices.csv and, given `push_endpoint`, subscribers.csv.

    Args:
        folder: made if it is not there.
        regions: the places.
        residents: rows of residents.csv, spread over the villages unevenly, as people live.
        seed: the same gives the same bytes.
        officials_per_village: at least 1; some answer for two villages.
        devices_per_village: loudspeakers.
        subscribers: rows of subscribers.csv.
        townships: 9-digit codes; None for all.
        push_endpoint: gives subscriber number 0, 1, … its endpoint's URL, or its whole subscription as JSON.
    """
    chance = random.Random(seed)  # noqa: S311  # nothing here is secret
    people = _People(chance)
    codes = sorted(townships) if townships is not None else [one.code for one in regions.under("")]
    villages = [village for code in codes for village in regions.villages(code)]
    folder.mkdir(parents=True, exist_ok=True)
    sample = Sample(
        folder / "officials.csv",
        folder / "residents.csv",
        folder / "devices.csv",
        folder / "subscribers.csv" if push_endpoint else None,
    )
    posts = list(_officials(people, codes, villages, officials_per_village))
    _write(sample.officials, ("name", "phone", "township", "village", "role", "rank"), posts)
    both = [(Person(post[0], post[1]), post[3]) for post in posts if post[3] and post[4] == "village_head"]
    rows = _residents(chance, people, villages, residents, both[::NEIGHBOURS_EVERY])
    _write(sample.residents, ("name", "phone", "village", "basis", "needs_helper"), rows)
    _write(sample.devices, ("name", "village", "key"), _devices(villages, devices_per_village, seed))
    if push_endpoint and sample.subscribers:
        listed = _subscribers(chance, codes, villages, subscribers, seed, push_endpoint)
        _write(sample.subscribers, ("subscription", "area", "language"), listed)
    return sample


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _officials(
    people: _People, townships: Sequence[str], villages: Sequence[Region], each: int
) -> Iterator[tuple[str, str, str, str, str, int]]:
    """Yield the duty posts of townships, then each village's officials."""
    for code in townships:
        for rank in (1, 2):
            yield (*people.next(), code, "", "township_duty", rank)
    for at, village in enumerate(villages):
        head = people.next()
        yield (*head, village.parent, village.code, "village_head", 1)
        for number in range(each - 1):
            one = people.next()
            if at % SHARED_EVERY == 0 and number == 0 and one.name != head.name:
                one = Person(one.name, head.phone)
            role = TURN[(at + number) % len(TURN)]
            yield (*one, village.parent, village.code, role, 1)
            if at % BOTH_EVERY == 0 and number == 0 and at + 1 < len(villages):
                beside = villages[at + 1]
                yield (*one, beside.parent, beside.code, role, 2)
                yield (*one, village.parent, village.code, "disaster_informant" if role == "monitor" else "monitor", 2)


def _residents(
    chance: random.Random, people: _People, villages: Sequence[Region], number: int, both: Sequence[tuple[Person, str]]
) -> Iterator[tuple[str, str, str, str, int]]:
    """Yield residents village by village; a few of them are officials as well (rule 6)."""
    if not villages:
        return
    weights = [1 + 4 * chance.random() for _ in villages]
    homes = sorted(chance.choices(range(len(villages)), weights, k=max(0, number - len(both))))
    for person, code in both[:number]:
        yield (*person, code, "opted_in", 0)
    for home in homes:
        kind = chance.random()
        yield (*people.next(), villages[home].code, "opted_in" if kind < 0.6 else "village_list", int(kind > 0.97))


def _devices(villages: Sequence[Region], each: int, seed: int) -> Iterator[tuple[str, str, str]]:
    for village in villages:
        for number in range(1, each + 1):
            name = f"lb-{village.code}-{number}"
            yield name, village.code, hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:32]


def _subscribers(
    chance: random.Random,
    townships: Sequence[str],
    villages: Sequence[Region],
    number: int,
    seed: int,
    push_endpoint: Callable[[int], str],
) -> Iterator[tuple[str, str, str]]:
    """Yield subscriptions to villages and, every fourth, to a whole township; every fifth in English."""
    for at in range(number if villages else 0):
        given = push_endpoint(at)
        area = chance.choice(townships) if at % 4 == 3 else chance.choice(villages).code
        yield given if given.startswith("{") else _subscription(given, seed, at), area, "en" if at % 5 == 4 else "zh"


def _subscription(endpoint: str, seed: int, number: int) -> str:
    """Return a PushSubscription as JSON whose keys have the right form and follow from the seed."""
    digest = hashlib.sha256(f"{seed}/subscriber/{number}".encode()).digest()
    private = ec.derive_private_key(int.from_bytes(digest, "big") >> 8 | 1, ec.SECP256R1())
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    keys = {"p256dh": _base64(public), "auth": _base64(hashlib.sha256(digest).digest()[:16])}
    return json.dumps({"endpoint": endpoint, "keys": keys})


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
