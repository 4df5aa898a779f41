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
from gateway.cap.table import ALERT, NAMESPACE, Block, Rule, repeated
from gateway.model import Alert

MAX_BYTES = 4 * 1024 * 1024
_NS = f"{{{NAMESPACE}}}"
_SIGNATURE = "{http://www.w3.org/2000/09/xmldsig#}"
_OLDER = {"urn:oasis:names:tc:emergency:cap:1.1": "CAP 1.1", "http://www.incident.com/cap/1.0": "CAP 1.0"}
_ENCODINGS = {
    "utf-8": "utf-8",
    "us-ascii": "ascii",
    "utf-16": "utf-16",
    "utf-16le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "iso-8859-1": "iso-8859-1",
    "gb18030": "gb18030",
    "gbk": "gb18030",  # GB18030 contains both of its elders
    "gb2312": "gb18030",
}
_DECLARED = re.compile(rb"<\?xml[^>]{0,80}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
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
    header = _Walk(findings).block(ALERT, root, signed=True)
    if header is None:
        return None, findings.found
    infos = header.pop("infos", ())
    return classify(header, infos, {}, findings), findings.found


def _parse(data: bytes, findings: Findings) -> etree._Element | None:
    nowhere = ("", None)
    if len(data) > MAX_BYTES:
        findings.put("too_large", nowhere, f"the message has {len(data)} bytes; the limit is {MAX_BYTES}")
        return None
    try:
        data = _as_utf8(data)
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
    return root if _is_alert(root, findings) else None


def _as_utf8(data: bytes) -> bytes:
    """Return the message in UTF-8 without byte order mark, decoded as it declares."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    elif data.startswith((b"<\0?\0", b"\0<\0?")):
        name = "utf-16le" if data[1] == 0 else "utf-16be"
    else:
        data = data.removeprefix(codecs.BOM_UTF8)
        declared = _DECLARED.match(data)
        name = declared[1].decode().lower() if declared else "utf-8"
    if name not in _ENCODINGS:
        raise Malformed("wrong_encoding", f"encoding {name!r} is not read; send UTF-8")
    try:
        text = data.decode(_ENCODINGS[name])
        return data if name == "utf-8" else text.encode()
    except UnicodeError:
        raise Malformed("wrong_encoding", f"the bytes are not {name}; send UTF-8 and declare it") from None


def _is_alert(root: etree._Element, findings: Findings) -> bool:
    name = etree.QName(root)
    if name.localname == "alert" and name.namespace == NAMESPACE:
        return True
    place = (name.localname, _line(root))
    if name.localname != "alert":
        findings.put("not_an_alert", place, f"the message is <{name.localname}>; send <alert xmlns='{NAMESPACE}'>")
        return False
    what = _OLDER.get(name.namespace or "", f"namespace {name.namespace or '(none)'}")
    findings.put("wrong_namespace", place, f"the message is {what}; send CAP 1.2, xmlns='{NAMESPACE}'")
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
        rows, last, errors = _ROWS[id(block)], 0, self._findings.errors
        for child in element:
            if self._findings.full and self._findings.errors:
                return None
            row = rows.get(child.tag)
            if row is None:
                if not (signed and child.tag.startswith(_SIGNATURE)):
                    self._unknown(child)
                continue
            number, rule = row
            seen[rule.name] = count = seen.get(rule.name, -1) + 1
            self._steps.append((rule.name, count))
            if number < last:
                self._wrong(child, "invalid_sequence", f"{rule.name} stands too late; {_order(block, number)}")
            last = max(number, last)
            if count and rule.times in "1?":
                self._wrong(child, "duplicate_element", f"{rule.name} may stand only once; remove this one")
            else:
                self._value(rule, child, values)
            self._steps.pop()
        for rule in block.rules:
            if rule.times in "1+" and rule.name not in seen:
                self._wrong(element, "missing_required_element", f"{rule.name} is missing; add it", rule.name)
        if self._findings.errors > errors:
            return None
        return block.build(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})

    def _value(self, rule: Rule, element: etree._Element, values: dict[str, Any]) -> None:
        """Read one element into `values`, unless it is empty or wrong."""
        value = self.block(rule.block, element) if rule.block else self._simple(rule, element)
        if value is None:
            return
        if rule.times in "*+":
            values.setdefault(rule.field, []).append(value)
        else:
            values[rule.field] = value

    def _simple(self, rule: Rule, element: etree._Element) -> Any:
        if len(element):
            inside = etree.QName(element[0]).localname
            message = f"{rule.name} holds text only; remove the element inside"
            self._wrong(element[0], "unsupported_element", message, inside)
            return None
        text = (element.text or "").strip()
        if not text and not rule.blank:
            if rule.times in "1+":
                self._wrong(element, "missing_required_element", f"{rule.name} is empty; write its value")
            else:
                self._odd(element, "empty_element", f"{rule.name} is empty and was ignored; leave it out")
            return None
        if rule.remark and (remark := rule.remark(text)):
            self._odd(element, *remark)
        try:
            return rule.read(text)
        except Malformed as error:
            self._wrong(element, error.code, error.message)
            return None

    def _unknown(self, element: etree._Element) -> None:
        name = etree.QName(element)
        advice = "remove it, or carry it as a parameter"
        if name.namespace != NAMESPACE:
            advice = f"its namespace is {name.namespace or '(none)'}; inside an alert it must be {NAMESPACE}"
        self._wrong(
            element, "unsupported_element", f"{name.localname[:60]} is not expected here; {advice}", name.localname
        )

    def _odd(self, element: etree._Element, code: str, message: str) -> None:
        if not self._findings.full:
            self._findings.put(code, self._place(element), message, "warning")

    def _wrong(self, element: etree._Element, code: str, message: str, below: str = "") -> None:
        self._findings.put(code, self._place(element, below), message)

    def _place(self, element: etree._Element, below: str = "") -> tuple[str, int | None]:
        """Return path and line of the element we are at, or of one below it."""
        steps = [_name(*step) for step in self._steps]
        return "/".join([*steps, below] if below else steps), _line(element)


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
