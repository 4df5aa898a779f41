"""Read CAP 1.2 XML strictly: bytes in, an Alert or the reasons why not.

Intake calls `read` for every XML message, in its own process or in the pool. Nothing outside the bytes is ever
opened: a DOCTYPE is refused before parsing, entities, network and DTDs are switched off, and 4 MiB is the limit.
Signatures are the business of `verify`: it is given the tree and returns what was signed, which alone is then read.
Without one (`mingluo cap check`) they are tolerated and ignored.

**Source:** OASIS CAP 1.2 (table in `gateway.cap.table`); XML 1.0 for the encoding declaration.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from itertools import islice
from typing import Any

from lxml import etree

from gateway.cap.classify import classify
from gateway.cap.finding import Finding, Findings, Malformed, Path
from gateway.cap.table import ALERT, BLANKS, CODE, NAMESPACE, Block, Rule, repeated
from gateway.model import Alert

MAX_BYTES = 4 * 1024 * 1024
MAX_COMMAS = 300_000
"""Each point of a polygon has one, and costs far more memory than its bytes; the largest real one has 41,009."""
_NS = f"{{{NAMESPACE}}}"
_SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
_OLDER = {
    "urn:oasis:names:tc:emergency:cap:1.1": "CAP 1.1",
    "urn:oasis:names:tc:emergency:cap:1.0": "CAP 1.0",
    "http://www.incident.com/cap/1.0": "CAP 1.0",
}
_ENVELOPES = {"feed": "an Atom feed", "rss": "an RSS feed", "EDXLDistribution": "an EDXL envelope", "Envelope": "SOAP"}
_SCHEMA = "{http://www.w3.org/2001/XMLSchema-instance}"
_KNOWN_ATTRIBUTES = frozenset({_SCHEMA + "schemaLocation", _SCHEMA + "noNamespaceSchemaLocation"})
ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "iso-8859-1": "iso-8859-1",
    "gb18030": "gb18030",
    "gbk": "gb18030",  # GB18030 contains both of its elders
    "gb2312": "gb18030",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the next one, and is not read
    (codecs.BOM_UTF16_LE, "utf-16le"),
    (codecs.BOM_UTF16_BE, "utf-16be"),
)
_WIDE = ((b"<\0", "utf-16le"), (b"\0<", "utf-16be"))
_HEAD = 2000  # bytes; the declaration stands in them, in either width
_DECLARED = re.compile(rb"<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([^\"'>]*)")
_CHINESE = re.compile("[\u4e00-\u9fff]")
_HANZI = re.compile(rb"(?:[\xb0-\xf7][\xa1-\xfe]){2}")  # two of GB 2312 in a row; as Latin-1 it spells nothing
_PAIR = [_NS + rule.name for rule in CODE.rules]
_REPEATED = repeated()
# The bytes are UTF-8 by the time they are parsed, whatever the declaration says.
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


def read(
    data: bytes, verify: Callable[[etree._Element], etree._Element] | None = None
) -> tuple[Alert | None, list[Finding]]:
    """Return the alert, None if any finding is an error, and all findings. Never raises on any bytes.

    `verify` returns the tree to read instead of the one that came, or raises `Malformed`.
    """
    findings = Findings()
    root = _parse(data, findings)
    if root is not None and verify:
        try:
            root = verify(root)
        except Malformed as error:
            findings.put(error.code, ("Signature", None), error.message)
            root = None
    if root is None:
        return None, findings.found
    findings.locate = lambda path: _locate(root, path)
    walk = _Walk(findings)
    walk.attributes(root)
    header = walk.block(ALERT, root, signed=True)
    if header is None:
        return None, findings.found
    infos = header.pop("infos", ())
    return classify(header, infos, {}, findings), findings.found


def _parse(data: bytes, findings: Findings) -> etree._Element | None:
    root = parse_xml(data, findings)
    return root if root is not None and _is_alert(root, findings) else None


def parse_xml(data: bytes, findings: Findings) -> etree._Element | None:
    """Return the root of a message of any dialect, or None after telling `findings` what is wrong with the bytes."""
    nowhere = ("", None)
    if too_large(data, findings):
        return None
    try:
        data = _as_utf8(data, findings)
    except Malformed as error:
        findings.put(error.code, nowhere, error.message)
        return None
    if b"<!DOCTYPE" in data:
        line = data.count(b"\n", 0, data.index(b"<!DOCTYPE")) + 1
        findings.put("entity_forbidden", ("", line), "the message holds a DOCTYPE; remove it and write text in full")
        return None
    try:
        root = etree.fromstring(data, _PARSER)
    except etree.XMLSyntaxError as error:
        findings.put("not_xml", ("", error.lineno or None), f"not well-formed: {error.msg}; send well-formed XML")
        return None
    return root


def too_large(data: bytes, findings: Findings) -> bool:
    """Whether reading the message would cost too much, which is said in the findings."""
    for count, what, limit in ((len(data), "bytes", MAX_BYTES), (data.count(b","), "commas (points)", MAX_COMMAS)):
        if count > limit:
            message = f"the message has {count} {what}, the limit is {limit}; simplify it, or send several alerts"
            findings.put("too_large", ("", None), message)
            return True
    return False


def _as_utf8(data: bytes, findings: Findings) -> bytes:
    """Return the message in UTF-8 without byte order mark, decoded as its bytes say, else as it declares."""
    mark, name = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", ""))
    name = name or next((name for start, name in _WIDE if data.startswith(start)), "")
    data = data.removeprefix(mark)
    found = _DECLARED.match(data[:_HEAD].replace(b"\0", b""))
    declared = found[1].decode("latin-1").lower() if found else ""
    name = name or _in_bytes(declared or "utf-8", data)
    codec = ENCODINGS.get(name)
    if codec is None:
        raise Malformed("wrong_encoding", f"encoding {name[:40]!r} is not read; send UTF-8")
    try:
        text = data.decode(codec)
    except UnicodeError:
        seems = "; they look like GB18030, so declare that" if _is_chinese(data, "gb18030") else ""
        raise Malformed("wrong_encoding", f"the bytes are not {name}{seems}; send UTF-8 and declare it") from None
    if declared and ENCODINGS.get(declared) not in (codec, codec[:6]):
        message = f"the message declares {declared[:40]}, but its bytes are {name}; declare {name}"
        findings.put("encoding_disagrees", ("", 1), message, "warning")
    return data if codec == "utf-8" else text.encode()


def _in_bytes(declared: str, data: bytes) -> str:
    """Return the encoding of bytes without mark: the declared one, unless they are UTF-8 beyond doubt.

    A declaration that can be read byte by byte is not in UTF-16, whatever it says (.NET writes that by default), and
    UTF-8 taken for GB18030 or ISO-8859-1 would decode into other characters without an error. So would GB18030 taken
    for ISO-8859-1, in which any bytes are text.
    """
    codec = ENCODINGS.get(declared, "")
    if codec == "iso-8859-1" and _HANZI.search(data) and not _is_chinese(data, "utf-8"):
        return "gb18030" if _is_chinese(data, "gb18030") else declared
    misled = codec in ("gb18030", "iso-8859-1") and not data.isascii() and _is_chinese(data, "utf-8")
    return "utf-8" if misled or codec.startswith("utf-16") else declared


def _is_chinese(data: bytes, codec: str) -> bool:
    """Whether the bytes are Chinese in this encoding; text in GB18030 is never valid UTF-8 by chance."""
    try:
        return _CHINESE.search(data.decode(codec)) is not None
    except UnicodeError:
        return False


def _is_alert(root: etree._Element, findings: Findings) -> bool:
    name = etree.QName(root)
    if name.localname == "alert" and name.namespace == NAMESPACE:
        return True
    place = (name.localname, _line(root))
    if name.localname != "alert":
        envelope = _ENVELOPES.get(name.localname)
        what = f"{envelope}; send the alert inside it" if envelope else f"<{name.localname}>; send <alert>"
        findings.put("not_an_alert", place, f"the message is {what}, xmlns='{NAMESPACE}'")
        return False
    older = _OLDER.get(name.namespace or "")
    code = "older_cap" if older else "wrong_namespace"
    what = older or f"of namespace {name.namespace or '(none)'}"
    findings.put(code, place, f"the message is {what}; send CAP 1.2, xmlns='{NAMESPACE}'")
    return False


class _Walk:
    """Walks elements along the table and builds what they stand for."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._steps: list[tuple[str, int]] = []  # where we are: names and their counts from 0

    def block(self, block: Block, element: etree._Element, signed: bool = False) -> Any:
        """Return what the block builds, or None if anything in it is an error."""
        values: dict[str, Any] = {}
        seen: dict[str, int] = {}
        findings, steps = self._findings, self._steps
        rows, last, errors, ordered = _ROWS[id(block)], 0, findings.errors, True
        self._outside(element, element.text)
        for child in element:
            if findings.errors and findings.full:
                return None
            if (tail := child.tail) and tail.strip(BLANKS):
                self._outside(child, tail)
            row = rows.get(child.tag)
            if row is None:
                if signed and child.tag.startswith(_SIGNATURE):
                    last = max(last, len(block.rules))
                else:
                    self._unknown(child)
                continue
            number, rule = row
            seen[rule.name] = count = seen.get(rule.name, -1) + 1
            steps.append((rule.name, count))
            if number < last and ordered:
                self._wrong(child, "invalid_sequence", f"{rule.name} stands too late; {_order(block, number)}")
                ordered = False  # one shift displaces all that follows; the first of them says enough
            last = number if number > last else last
            if child.keys():
                self.attributes(child)
            if count and rule.times in "1?":
                self._wrong(child, "duplicate_element", f"{rule.name} may stand only once; remove this one")
            else:
                self._value(rule, child, values)
            steps.pop()
        for rule in block.rules:
            if rule.times in "1+" and rule.name not in seen:
                self._wrong(element, "missing_required_element", f"{rule.name} is missing; add it", rule.name)
        if findings.errors > errors:
            return None
        return block.build(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def _value(self, rule: Rule, element: etree._Element, values: dict[str, Any]) -> None:
        """Read one element into `values`, unless it is empty or wrong."""
        if rule.block is CODE and _is_empty_pair(element):
            self._odd(element, "empty_element", f"{rule.name} is an empty pair and was ignored; leave it out")
            return
        value = self.block(rule.block, element) if rule.block else self._simple(rule, element)
        if value is None:
            return
        if rule.times in "*+":
            values.setdefault(rule.field, []).append(value)
        else:
            values[rule.field] = value

    def _outside(self, element: etree._Element, text: str | None) -> None:
        """Refuse text between elements: what the sender meant to say there would be lost."""
        if text and (text := text.strip(BLANKS)):
            message = f"{text[:40]!r} stands between elements; move it into the element it belongs to"
            self._wrong(element, "stray_text", message)

    def attributes(self, element: etree._Element) -> None:
        """Remark on the first attribute that is not of CAP or XML Schema."""
        for name in map(str, element.keys()):
            if name not in _KNOWN_ATTRIBUTES:
                message = f"attribute {etree.QName(name).localname[:60]} is not CAP's and was ignored; leave it out"
                self._odd(element, "unexpected_attribute", message)
                return

    def _simple(self, rule: Rule, element: etree._Element) -> Any:
        if len(element):
            inside = etree.QName(element[0]).localname
            message = f"{rule.name} holds text only; remove the element inside"
            self._wrong(element[0], "unsupported_element", message, inside)
            return None
        raw = element.text or ""
        text = raw.strip()
        if not text and not rule.empty:
            if rule.times in "1+":
                self._wrong(element, "missing_required_element", f"{rule.name} is empty; write its value")
            else:
                self._odd(element, "empty_element", f"{rule.name} is empty and was ignored; leave it out")
            return None
        try:
            value = rule.read(text)
        except Malformed as error:
            self._wrong(element, error.code, error.message)
            return None
        if rule.around is not None and text != raw.strip(rule.around):
            self._odd(element, "surrounding_blanks", f"blanks around {rule.name} were ignored; leave them out")
        if rule.remark and (remark := rule.remark(text)):
            self._odd(element, *remark)
        return value

    def _unknown(self, element: etree._Element) -> None:
        name = etree.QName(element)
        advice = "remove it, or carry it as a parameter"
        if name.namespace != NAMESPACE:
            advice = f"its namespace is {name.namespace or '(none)'}; inside an alert it must be {NAMESPACE}"
        self._wrong(
            element, "unsupported_element", f"{name.localname[:60]} is not expected here; {advice}", name.localname
        )

    def _odd(self, element: etree._Element, code: str, message: str) -> None:
        if not self._findings.tired:
            self._findings.put(code, self._place(element), message, "warning")

    def _wrong(self, element: etree._Element, code: str, message: str, below: str = "") -> None:
        self._findings.put(code, self._place(element, below), message)

    def _place(self, element: etree._Element, below: str = "") -> tuple[str, int | None]:
        """Return path and line of the element we are at, or of one below it."""
        steps = [_name(*step) for step in self._steps]
        return "/".join([*steps, below] if below else steps), _line(element)


def _is_empty_pair(element: etree._Element) -> bool:
    parts = [] if any((child.text or "").strip() or len(child) for child in element) else [c.tag for c in element]
    return parts == _PAIR


def _rows(block: Block) -> dict[int, dict[str, tuple[int, Rule]]]:
    """Return, per block, qualified element name → (position, rule)."""
    found = {id(block): {_NS + rule.name: (number, rule) for number, rule in enumerate(block.rules)}}
    for rule in block.rules:
        found |= _rows(rule.block) if rule.block else {}
    return found


_ROWS = _rows(ALERT)


def _order(block: Block, number: int) -> str:
    return f"it goes before {block.rules[number + 1].name}" if number + 1 < len(block.rules) else "it goes last"


def _line(element: etree._Element) -> int | None:
    line: Any = element.sourceline  # the stubs call it an ellipsis
    return line if isinstance(line, int) else None


def _name(name: str, index: int) -> str:
    return f"{name}[{index + 1}]" if name in _REPEATED else name


def _locate(root: etree._Element, path: Path) -> tuple[str, int | None]:
    """Return path (counted from 1) and line of an element by its names; the line of the nearest element there is."""
    element = root
    for name, index in path:
        child = next(islice(element.iterchildren(_NS + name), index, None), None)
        if child is None:
            break
        element = child
    return "/".join(_name(name, index) for name, index in path), _line(element)
