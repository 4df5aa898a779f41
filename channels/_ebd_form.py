"""What messages of the emergency-broadcast platforms (应急广播) hold: a table per element, read and written from it.

Used by `_ebd`. A field's name says its element (`ebm_id` → EBMID); the order of the fields is that of the elements.
What a table does not name is ignored, for vendors add to it; what it names must be as it says.

**Source:** GD/J 082-2018 (superseded by GY/T 385-2023) as two public implementations write it; the standard itself was
not at hand, so interoperability is unverified.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from lxml import etree
from msgspec import Meta, Struct

from channels._sm2 import sm3

LARGEST = 4 << 20  # bytes of a package; a text with an announcement of two minutes is below
ZONE = timezone(timedelta(hours=8))
REPEATED = frozenset({"Coverage", "EBMBrdItem", "EBRDT", "Auxiliary"})
_ACRONYMS = {"id", "ebd", "ebm", "ebr", "ebrdt", "omd", "src", "dest", "sn"}
_PARSER = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    dtd_validation=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)

T = TypeVar("T", bound=Struct)

Ebrid = Annotated[str, Meta(pattern=r"^([0-9]{18}|[0-9]{23})$")]
"""A platform or terminal: level, 12 digits of its area, type and number; older equipment has 18 digits."""
Ebdid = Annotated[str, Meta(pattern=r"^(10|01)([0-9]{18}|[0-9]{23})[0-9]{16}$")]
Ebmid = Annotated[str, Meta(pattern=r"^([0-9]{18}|[0-9]{23})[0-9]{12}$")]
Moment = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$")]
"""Beijing time."""
Areas = Annotated[str, Meta(pattern=r"^[0-9]{6,12}(,[0-9]{6,12})*$", max_length=40_000)]
Share = Annotated[str, Meta(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?)$")]
Words = Annotated[str, Meta(min_length=1, max_length=4000)]
MsgType = Literal["1", "2", "3", "4", "5"]
BrdState = Literal["0", "1", "2", "3", "4", "5"]
Result = Literal["0", "1", "2", "3", "4", "5"]
"""ResultCode: 0 收到未处理, 1 成功, 2 解析失败, 3 内容缺失, 4 签名验证失败, 5 其他错误."""


class EbdError(Exception):
    """A package that cannot be taken. `result` is the ResultCode it is answered with, `why` ours, `id` its own."""

    def __init__(self, result: Result, why: str, id_: str = "") -> None:
        super().__init__(why)
        self.result = result
        self.why = why
        self.id = id_


TAKEN: Result = "1"
UNREADABLE: Result = "2"
INCOMPLETE: Result = "3"
UNSIGNED: Result = "4"
OTHER: Result = "5"


def _element(name: str) -> str:
    return "".join(word.upper() if word in _ACRONYMS else word.capitalize() for word in name.split("_"))


class _Form(Struct, frozen=True, rename=_element, omit_defaults=True):
    """Base of the tables."""


class Resource(_Form, frozen=True):
    """Who sends, or is to take it."""

    ebr_id: Ebrid


class Related(_Form, frozen=True):
    """The package this one answers."""

    ebd_id: Ebdid


class RelatedMessage(_Form, frozen=True):
    """The broadcast this one is about."""

    ebm_id: Ebmid


class BasicInfo(_Form, frozen=True):
    """MsgBasicInfo. `msg_type`: 1 实际播发, 2 取消播发, 3 平台演练, 4 前端演练, 5 终端演练."""

    msg_type: MsgType
    sender_name: Words
    sender_code: Ebrid
    send_time: Moment
    event_type: Annotated[str, Meta(pattern=r"^[0-9A-Za-z]{5}$")]
    severity: Literal["1", "2", "3", "4"]
    start_time: Moment
    end_time: Moment


class Auxiliary(_Form, frozen=True):
    """A file that comes with it (2: mp3), named by `auxiliary_desc`; or a live stream (61)."""

    auxiliary_type: Literal["2", "61"]
    auxiliary_desc: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:/-]{1,200}$")]
    size: Annotated[int, Meta(ge=0, le=LARGEST)] = 0
    digest: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{0,64}$")] = ""


def auxiliary(name: str, recording: bytes) -> Auxiliary:
    """Return the note of a recording (mp3) that comes as EBDR_<name>."""
    return Auxiliary("2", f"EBDR_{name}", len(recording), sm3(recording).hex())


class Content(_Form, frozen=True):
    """MsgContent. `area_code`: codes of 12 digits, with commas between them."""

    language_code: Literal["zho"]
    msg_title: Words
    msg_desc: Words
    area_code: Areas
    program_num: Annotated[str, Meta(pattern=r"^[0-9]{0,8}$")] = ""
    auxiliary: tuple[Auxiliary, ...] = ()


class Ebm(_Form, frozen=True):
    """A broadcast. A cancel needs no content."""

    ebm_version: Words
    ebm_id: Ebmid
    msg_basic_info: BasicInfo
    related_info: RelatedMessage | None = None
    msg_content: Content | None = None


class LoggedKind(_Form, frozen=True):
    """What counts here of a logged broadcast's MsgBasicInfo."""

    msg_type: MsgType


class LoggedMessage(_Form, frozen=True):
    """A broadcast in a log, where its platform says of what kind it was."""

    ebm_id: Ebmid
    msg_basic_info: LoggedKind | None = None


class StateRequest(_Form, frozen=True):
    """How far is a broadcast?"""

    ebm: RelatedMessage


class Coverage(_Form, frozen=True):
    """What share of the terminals of these areas sounds."""

    area_code: Areas
    coverage_rate: Share
    res_brd_stat: Annotated[str, Meta(pattern=r"^[0-9, ]{0,80}$")] = ""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The areas as the codes of their villages begin: a township of 12 digits ends in three zeros."""
        return tuple(area.removesuffix("000").removesuffix("000") for area in self.area_code.split(","))


Coverages = Annotated[tuple[Coverage, ...], Meta(max_length=5000)]


class StateResponse(_Form, frozen=True):
    """`brd_state_code`: 0 未处理, 1 等待播发, 2 播发中, 3 播发成功, 4 播发失败, 5 播发取消."""

    rpt_time: Moment
    ebm: RelatedMessage
    brd_state_code: BrdState
    brd_state_desc: str = ""
    coverage: Coverages = ()


class LogItem(_Form, frozen=True):
    """What became of one broadcast."""

    ebm: LoggedMessage
    brd_state_code: BrdState
    brd_state_desc: str = ""
    coverage: Coverages = ()


class BrdLog(_Form, frozen=True):
    """What became of some."""

    ebm_brd_item: Annotated[tuple[LogItem, ...], Meta(min_length=1, max_length=1000)]


class Response(_Form, frozen=True):
    """What became of a package."""

    result_code: Result
    result_desc: Words


class Check(_Form, frozen=True):
    """A heartbeat."""

    rpt_time: Moment


class Period(_Form, frozen=True):
    """What a request for data is about. `rpt_type`: Full or Incremental."""

    rpt_start_time: Moment
    rpt_end_time: Moment
    rpt_type: Literal["Full", "Incremental"]


class DataRequest(_Form, frozen=True):
    """Asks for data of that type, such as EBRDTState."""

    omd_type: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,32}$")]
    params: Period


class Terminal(_Form, frozen=True):
    """`state_code`: 1 正常, 2 关机, 3 故障, 4 故障恢复, 5 播发中."""

    rpt_time: Moment
    ebr_id: Ebrid
    state_code: Literal["1", "2", "3", "4", "5"]
    state_desc: str = ""

    @property
    def area(self) -> str:
        """The 12 digits of its place."""
        return self.ebr_id[1:13] if len(self.ebr_id) == 23 else self.ebr_id[2:14]


class TerminalStates(_Form, frozen=True):
    """How terminals are."""

    ebrdt: Annotated[tuple[Terminal, ...], Meta(max_length=20_000)] = ()


Body = Ebm | StateRequest | StateResponse | BrdLog | Response | Check | DataRequest | TerminalStates
BODIES: dict[str, type[Body]] = {
    "EBM": Ebm,
    "EBMStateRequest": StateRequest,
    "EBMStateResponse": StateResponse,
    "EBMBrdLog": BrdLog,
    "EBDResponse": Response,
    "ConnectionCheck": Check,
    "OMDRequest": DataRequest,
    "EBRDTState": TerminalStates,
}
"""EBDType → the element of the same name."""
_TYPES = {body: name for name, body in BODIES.items()}


class Head(_Form, frozen=True):
    """What stands before the body."""

    ebd_version: Words
    ebd_id: Ebdid
    ebd_type: Annotated[str, Meta(pattern=r"^[A-Za-z]{1,32}$")]
    src: Resource
    dest: Resource
    ebd_time: Moment
    related_ebd: Related | None = None


class Cert(_Form, frozen=True):
    """Names a certificate: by whom it was issued, and its number there."""

    cert_type: Literal["0", "1"]
    issuer_id: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{12}$")]
    cert_sn: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{12}$")]


class Signature(_Form, frozen=True):
    """EBDS: the signature over the bytes of the EBDB file. `signature_time`: seconds since 1970, in hex."""

    version: Words
    related_ebd: Related
    signature_cert: Cert
    signature_time: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f]{8}$")]
    digest_algorithm: Literal["SM3"]
    signature_algorithm: Literal["SM2"]
    signature_value: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{80,104}={0,2}$")]


def type_of(body: Body) -> str:
    """Return the EBDType of a body."""
    return _TYPES[type(body)]


def moment(at: datetime) -> str:
    """Write a time as the protocol does."""
    return at.astimezone(ZONE).strftime("%Y-%m-%d %H:%M:%S")


def at_of(text: Moment) -> datetime:
    """Return a time of the protocol as aware UTC.

    Raises:
        EbdError: there is no such day or hour.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE).astimezone(UTC)
    except ValueError:
        raise EbdError(UNREADABLE, "time") from None


def write(root: str, *forms: tuple[str, Struct]) -> bytes:
    """Return a document: the elements of the forms named "" in its root, of all others in an element of that name.

    Raises:
        EbdError: a text holds what XML cannot.
    """
    tree = etree.Element(root)
    try:
        for name, form in forms:
            _fill(etree.SubElement(tree, name) if name else tree, msgspec.to_builtins(form))
    except ValueError:
        raise EbdError(OTHER, "text") from None
    return etree.tostring(tree, encoding="utf-8", xml_declaration=True)


def _fill(parent: etree._Element, values: dict[str, Any]) -> None:
    for name, value in values.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            child = etree.SubElement(parent, name)
            if isinstance(one, dict):
                _fill(child, one)
            else:
                child.text = str(one)


def read(data: bytes, root: str) -> dict[str, Any]:
    """Return a document's elements by name: texts, further elements, or lists of what may be repeated.

    Empty ones are left out. A second element where there may be one becomes a list, which no table takes.

    Raises:
        EbdError: it is no such document, or begins with a DTD.
    """
    try:
        tree = etree.fromstring(data, _PARSER)
    except (etree.XMLSyntaxError, ValueError):
        raise EbdError(UNREADABLE, "xml") from None
    if tree.getroottree().docinfo.internalDTD is not None or tree.tag != root:
        raise EbdError(UNREADABLE, "xml")
    found = _tree(tree)
    return found if isinstance(found, dict) else {}


def _tree(element: etree._Element) -> dict[str, Any] | str:
    if not len(element):
        return (element.text or "").strip()
    found: dict[str, Any] = {}
    for child in element:
        if not isinstance(child.tag, str):  # an entity that was not followed
            raise EbdError(UNREADABLE, "entity")
        if value := _tree(child):
            if child.tag in REPEATED:
                found.setdefault(child.tag, []).append(value)
            elif child.tag in found:
                found[child.tag] = [found[child.tag], value]
            else:
                found[child.tag] = value
    return found


def convert(found: Any, form: type[T]) -> T:
    """Return elements as their table says.

    Raises:
        EbdError: one is missing, or is not as the table says.
    """
    try:
        return msgspec.convert(found, form, strict=False)
    except msgspec.ValidationError as error:
        missing = str(error).startswith("Object missing required field")
        raise EbdError(INCOMPLETE if missing else UNREADABLE, "missing" if missing else "value") from None
