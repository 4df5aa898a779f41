"""One row of an imported table: from cells to a person's place, a subscription or a loudspeaker.

Called by the importer, chunk by chunk, outside the event loop and outside every transaction: here numbers are
hashed, names and addresses sealed and keys hashed. A `Wrong` never quotes the value: it would be personal data.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping

import msgspec
from msgspec.structs import replace

from gateway.directory.table import Roster
from gateway.directory.vault import Secret, Vault, encode_secret, normal_name, normal_phone
from gateway.regions import Region, Regions

NAME_LENGTH = 60
KEY_LENGTH = 16  # a shorter key could be tried out
LAST_RANK = 99
ROUNDED = "00000000"  # what 1.39E+10 becomes once it is stored as a number
HAN = re.compile(r"[\u4e00-\u9fff]{1,60}")  # most names need no cleaning
AREAS = frozenset({"county", "township", "village"})
POSTS, TOWNSHIP, VILLAGE = frozenset({"township", "village"}), frozenset({"township"}), frozenset({"village"})

ROLES = {
    "village_head": ("村干部", "村支书", "村主任"),
    "flood_warden": ("防汛责任人",),
    "monitor": ("群测群防员", "监测员"),
    "weather_informant": ("气象信息员",),
    "grid_worker": ("网格员",),
    "disaster_informant": ("灾害信息员",),
    "township_duty": ("乡镇值班", "乡镇值班室", "值班员"),
}
BASES = {"opted_in": ("本人登记", "自愿登记"), "village_list": ("村级名册", "村名册")}
LANGUAGES = {"zh": ("中文", "zh-cn", ""), "en": ("英文", "en-us", "en-gb")}
NETWORKS = {
    "mobile": ("移动", "中国移动"),
    "unicom": ("联通", "中国联通"),
    "telecom": ("电信", "中国电信"),
    "broadcast": ("广电", "中国广电"),
}
CHANNEL = "loudspeaker_ws"  # by which a device is commanded where the list does not say
PLATFORM = "loudspeaker_ebd"  # what it serves is a village, which proves itself to nobody here
ANSWERS = {"1": ("是", "yes", "true"), "0": ("否", "no", "false", "")}


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One place of a person. `village` is "" for all of the township; `role` as stored, `duty` without its rank."""

    township: str
    village: str
    role: str
    duty: str


class PersonRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of officials, residents or subscribers, with nothing in clear: it may wait in a file.

    Like its places it holds nothing that could hold it: a million of them are none of the cycle collector's business.

    `address_hash` is the keyed hash, `sealed` name and address. `carrier` is None where the table has no such column,
    and so is `deputy`, the keyed hash of the deputy's number (b"": none).
    """

    sheet: int
    row: int
    id: int
    address_hash: bytes
    sealed: bytes
    language: str
    county: str
    needs_helper: int
    basis: str
    places: tuple[Place, ...]
    carrier: str | None = None
    deputy: bytes | None = None


class DeviceRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of devices. `key_hash` is SHA-256 in lower-case hex, "" where the device's channel asks for none.

    `channel` is None where the table has no such column.
    """

    sheet: int
    row: int
    id: int
    name: str
    village: str
    key_hash: str
    channel: str | None = None


class Wrong(Exception):
    """One cell cannot be used."""

    def __init__(self, column: str, message: str) -> None:
        super().__init__(column, message)
        self.column = column
        self.message = message


class _Keys(msgspec.Struct):
    p256dh: str
    auth: str


class _Subscription(msgspec.Struct):
    """What is kept of a PushSubscription."""

    endpoint: str
    keys: _Keys


class Reading:
    """Reads the rows of one kind against the places in force."""

    def __init__(self, kind: Roster, regions: Regions, vault: Vault) -> None:
        self._regions = regions
        self._vault = vault
        self._found: dict[tuple[str, frozenset[str]], Region] = {}
        readers: dict[Roster, Callable[[int, int, Mapping[str, str]], PersonRow | DeviceRow]] = {
            Roster.OFFICIALS: self._official,
            Roster.RESIDENTS: self._resident,
            Roster.SUBSCRIBERS: self._subscriber,
            Roster.DEVICES: self._device,
        }
        self.read = readers[kind]
        """Return what a row (its sheet, its number, its cells by column) says. Raises `Wrong`."""

    def _official(self, sheet: int, row: int, cells: Mapping[str, str]) -> PersonRow:
        duty = _word("role", cells["role"], ROLES)
        rank = cells.get("rank") or "1"
        if not re.fullmatch(r"[1-9][0-9]?", rank):
            raise Wrong("rank", f"not a number from 1 to {LAST_RANK}")
        township, village = self._post(cells.get("township", ""), cells.get("village", ""))
        if duty == "village_head" and not village:
            raise Wrong("village", "is missing; this role answers for one village")
        place = Place(township, village, duty if rank == "1" else f"{duty}:{rank}", duty)
        person = self._person(sheet, row, cells, place, "duty", 0)
        return replace(person, deputy=self._deputy(cells["deputy"], person)) if "deputy" in cells else person

    def _deputy(self, cell: str, person: PersonRow) -> bytes:
        """Return the keyed hash of a deputy's number; b"" for none."""
        if not cell:
            return b""
        found = self._vault.phone_hash(_number("deputy", cell))
        if found == person.address_hash:
            raise Wrong("deputy", "is the number of the official; name somebody else's, or nobody's")
        return found

    def _resident(self, sheet: int, row: int, cells: Mapping[str, str]) -> PersonRow:
        basis = _word("basis", cells["basis"], BASES)
        helper = int(_word("needs_helper", cells.get("needs_helper", ""), ANSWERS))
        village = self._region("village", cells["village"], VILLAGE)
        return self._person(sheet, row, cells, Place(village.parent, village.code, "", ""), basis, helper)

    def _person(
        self, sheet: int, row: int, cells: Mapping[str, str], place: Place, basis: str, helper: int
    ) -> PersonRow:
        name = _person_name(cells["name"])
        if not cells["phone"]:
            raise Wrong("phone", "is missing")
        phone = _number("phone", cells["phone"])
        phone_hash = self._vault.phone_hash(phone)
        return PersonRow(
            sheet,
            row,
            self._vault.identity(phone_hash, name),
            phone_hash,
            self._vault.seal(encode_secret(Secret(name, phone))),
            "zh",
            place.township[:6],
            helper,
            basis,
            (place,),
            _word("carrier", cells["carrier"], NETWORKS) if cells.get("carrier") else cells.get("carrier"),
        )

    def _subscriber(self, sheet: int, row: int, cells: Mapping[str, str]) -> PersonRow:
        name = _person_name(cells["name"]) if cells.get("name") else ""
        language = _word("language", cells.get("language", ""), LANGUAGES)
        area = self._region("area", cells["area"], AREAS)
        endpoint, address = _subscription(cells["subscription"])
        return PersonRow(
            sheet,
            row,
            self._vault.person_id(endpoint, ""),
            self._vault.phone_hash(address),
            self._vault.seal(encode_secret(Secret(name, address))),
            language,
            area.code[:6],
            0,
            "opted_in",
            self._townships(area),
        )

    def _townships(self, area: Region) -> tuple[Place, ...]:
        if area.kind == "village":
            return (Place(area.parent, area.code, "", ""),)
        return tuple(Place(one.code, "", "", "") for one in self._regions.under(area.code))

    def _device(self, sheet: int, row: int, cells: Mapping[str, str]) -> DeviceRow:
        name, key, digest = cells["name"], cells.get("key", ""), cells.get("key_hash", "").lower()
        if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", name):
            raise Wrong("name", "must be 1 to 64 of: letters A to Z, digits, . _ : -")
        village = self._region("village", cells["village"], VILLAGE)
        channel = cells.get("channel", "").lower()
        if channel and not re.fullmatch(r"loudspeaker_[a-z0-9_]{1,32}", channel):
            raise Wrong("channel", f"must be the name of a channel of loudspeakers, such as {CHANNEL}")
        if channel == PLATFORM and name != village.code:
            raise Wrong("name", f"must be the village's own code where the channel is {PLATFORM}")
        if key and len(key) < KEY_LENGTH:
            raise Wrong("key", f"shorter than {KEY_LENGTH} characters")
        if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Wrong("key_hash", "not 64 hexadecimal digits")
        if bool(key) == bool(digest) and (key or channel != PLATFORM):
            raise Wrong("key", "give either the key or its hash" + ("" if key else "; both are missing"))
        if key:
            digest = hashlib.sha256(key.encode()).hexdigest()
        number = int.from_bytes(hashlib.sha256(b"device\0" + name.encode()).digest()[:8], "big") >> 2
        return DeviceRow(
            sheet, row, number, name, village.code, digest, (channel or CHANNEL) if "channel" in cells else None
        )

    def _post(self, township: str, village: str) -> tuple[str, str]:
        """Return (township, village or "") of an official's place; either code may stand in the village's column."""
        above = self._region("township", township, TOWNSHIP).code if township else ""
        if not village:
            if not above:
                raise Wrong("village", "is missing, and so is the township")
            return above, ""
        place = self._region("village", village, POSTS)
        found = (place.parent, place.code) if place.kind == "village" else (place.code, "")
        if above and found[0] != above:
            raise Wrong("village", "does not belong to the township of this row")
        return found

    def _region(self, column: str, code: str, kinds: frozenset[str]) -> Region:
        one = self._found.get((code, kinds))
        if one is None:
            one = self._found[code, kinds] = self._checked_region(column, code, kinds)
        return one

    def _checked_region(self, column: str, code: str, kinds: Collection[str]) -> Region:
        if re.fullmatch(r"[0-9.]+[eE]\+?[0-9]+", code):
            raise Wrong(column, "a code in scientific notation has lost digits; format the column as text")
        if not re.fullmatch(r"[0-9]{6}|[0-9]{9}|[0-9]{12}", code):
            raise Wrong(column, "not a code of 6, 9 or 12 digits" if code else "is missing")
        one = self._regions.get(code)
        if one is None:
            raise Wrong(column, "unknown code")
        if one.kind not in kinds:
            raise Wrong(column, f"the code of a {one.kind}; expected: {', '.join(sorted(kinds))}")
        return one


def _subscription(text: str) -> tuple[str, str]:
    """Return the endpoint and what is kept, as JSON."""
    try:
        subscription = msgspec.json.decode(text, type=_Subscription)
    except msgspec.MsgspecError:
        raise Wrong("subscription", "not a PushSubscription as JSON" if text else "is missing") from None
    if not re.match(r"https?://[^/]", subscription.endpoint):
        raise Wrong("subscription", "its endpoint is not an https:// address")
    return subscription.endpoint, msgspec.json.encode(subscription).decode()


def _number(column: str, cell: str) -> str:
    """Return a telephone number in E.164.

    Raises:
        Wrong: it is none, or has lost digits.
    """
    try:
        phone = normal_phone(cell)
    except ValueError as error:
        raise Wrong(column, str(error)) from None
    if phone.endswith(ROUNDED):
        raise Wrong(column, "ends in eight zeros: a spreadsheet has rounded it; format the column as text")
    return phone


def _person_name(text: str) -> str:
    """Return a name in its normal form.

    Raises:
        Wrong: empty, too long, without a letter, or broken over lines.
    """
    if HAN.fullmatch(text):
        return text
    if not text:
        raise Wrong("name", "is missing")
    if len(text) > NAME_LENGTH:
        raise Wrong("name", f"longer than {NAME_LENGTH} characters; is a quotation mark left open?")
    if any(unicodedata.category(letter) == "Cc" for letter in text):
        raise Wrong("name", "holds a line break or control character")
    if not any(letter.isalpha() for letter in text):
        raise Wrong("name", "holds no letter; is it a number or a date?")
    return normal_name(text)


def _word(column: str, text: str, words: Mapping[str, tuple[str, ...]]) -> str:
    """Return the stored word for a cell.

    Raises:
        Wrong: none of them; the message lists them.
    """
    if text in words:
        return text
    text = text.lower()
    for stored, others in words.items():
        if text == stored or text in others:
            return stored
    known = ", ".join(stored + (f" {others[0]}" if others[0] else "") for stored, others in words.items())
    raise Wrong(column, f"must be one of: {known}" if text else f"is missing; one of: {known}")
