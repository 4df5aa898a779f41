"""Read the national dialect: bytes in, an Alert or the reasons why not.

`parse` sends here what `is_national` knows. Bytes are opened as `reader` opens CAP's: 4 MiB, no DOCTYPE, no entity,
no network, GB18030 and the other encodings. What the dialect holds and CAP does not is dropped, and named by a
finding `not_carried`.

**Source:** see `gateway.cap.national_table`. Interoperability unverified.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from lxml import etree

from gateway.cap.finding import Finding, Findings, Malformed, Path, Severity
from gateway.cap.national_meaning import to_alert
from gateway.cap.national_table import ALERT, Message
from gateway.cap.reader import parse_xml
from gateway.cap.table import Block, Rule, repeated
from gateway.model import Alert

OASIS = ("urn:oasis:names:tc:emergency:cap:", "http://www.incident.com/cap/")
SIGNS = ("senderCode", "sendTime")
"""Elements that CAP does not have."""
_SIGNS = tuple(sign.encode(form) for sign in SIGNS for form in ("ascii", "utf-16-le"))
_REPEATED = repeated(ALERT)
_NAMES = {"eventCode": "eventType", "sent": "sendTime"}
_NOTHING = " \t\r\n,，"  # live messages write a comma where nobody is named


def is_national(data: bytes) -> bool:
    """Whether this is a message in the national dialect: an `alert` outside OASIS's namespaces with a sendTime."""
    # Cheap first: a CAP message of a megabyte is not parsed twice.
    if not any(sign in data for sign in _SIGNS):
        return False
    root = parse_xml(data, Findings())
    if root is None:
        return False
    name = etree.QName(root)
    foreign = not (name.namespace or "").startswith(OASIS)
    return name.localname == "alert" and foreign and any(root.find(f"{{*}}{sign}") is not None for sign in SIGNS)


def read_national(data: bytes) -> tuple[Alert | None, list[Finding]]:
    """Return the alert, None if any finding is an error, and all findings. Never raises on any bytes."""
    findings = Findings()
    message = read_message(data, findings)
    alert = to_alert(message, findings) if message is not None else None
    return alert, findings.found


def read_message(data: bytes, findings: Findings) -> Message | None:
    """Return the message as the dialect has it, or None after telling `findings` why not."""
    root = parse_xml(data, findings)
    if root is None:
        return None
    if _local(root) != "alert":
        findings.put("not_an_alert", (_local(root), _line(root)), "the message is no <alert>; send one")
        return None
    findings.locate = lambda path: _locate(root, path)
    message = _Walk(findings).block(ALERT, root)
    return message if isinstance(message, Message) else None


class _Walk:
    """Walks elements along the table, in any order, and builds what they stand for."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._steps: list[str] = []

    def block(self, block: Block, element: etree._Element) -> Any:
        """Return what the block builds, or None if anything in it is an error."""
        values: dict[str, Any] = {}
        seen: dict[str, int] = {}
        rows, errors, wrong = _ROWS[id(block)], self._findings.errors, set[str]()
        self._outside(element, element.text)
        for child in element:
            if self._findings.full and self._findings.errors:
                return None
            self._outside(child, child.tail)
            rule = rows.get(_local(child).lower())
            name = rule.name if rule else _local(child)[:60]
            seen[name] = seen.get(name, -1) + 1
            self._steps.append(f"{name}[{seen[name] + 1}]" if name in _REPEATED else name)
            before = self._findings.errors
            if rule is None:
                self._put(child, "not_carried", f"{name} is not known here, and was dropped", "warning")
            elif seen[name] and rule.times in "1?":
                self._put(child, "duplicate_element", f"{name} may stand only once; remove this one")
            else:
                self._value(rule, child, values)
            if self._findings.errors > before:
                wrong.add(name)
            self._steps.pop()
        for rule in block.rules:
            if rule.times in "1+" and rule.field not in values and rule.name not in wrong:
                self._steps.append(rule.name)
                self._put(element, "missing_required_element", f"{rule.name} is missing or empty; write it")
                self._steps.pop()
        if self._findings.errors > errors:
            return None
        return block.build(**{field: tuple(v) if isinstance(v, list) else v for field, v in values.items()})

    def _value(self, rule: Rule, element: etree._Element, values: dict[str, Any]) -> None:
        """Read one element into `values`, unless it is empty, wrong, or not carried."""
        if rule.block:
            value = self.block(rule.block, element) if len(element) or rule.times in "1+" else None
        else:
            value = self._simple(rule, element)
        if value is None:
            return
        if rule.times in "*+":
            values.setdefault(rule.field, []).append(value)
        else:
            values[rule.field] = value

    def _simple(self, rule: Rule, element: etree._Element) -> Any:
        text = (element.text or "").strip()
        if not len(element) and not (text if rule.field else text.strip(_NOTHING)):
            return None  # the dialect writes every element, empty where it says nothing
        if rule.field and len(element):
            self._put(element, "unsupported_element", f"{rule.name} holds text only; remove the element inside")
            return None
        if rule.remark and (remark := rule.remark(text)):
            self._put(element, *remark, "warning")
        if not rule.field:
            return None
        try:
            return rule.read(text)
        except Malformed as error:
            self._put(element, error.code, error.message)
            return None

    def _outside(self, element: etree._Element, text: str | None) -> None:
        """Name what stands between elements."""
        if text and (text := text.strip(_NOTHING)):
            message = f"{text[:40]!r} stands between elements, and was dropped"
            self._put(element, "not_carried", message, "warning")

    def _put(self, element: etree._Element, code: str, message: str, severity: Severity = "error") -> None:
        self._findings.put(code, ("/".join(self._steps), _line(element)), message, severity)


def _rows(block: Block) -> dict[int, dict[str, Rule]]:
    """Return, per block, element name in lower case → rule."""
    found = {id(block): {rule.name.lower(): rule for rule in block.rules}}
    for rule in block.rules:
        found |= _rows(rule.block) if rule.block else {}
    return found


_ROWS = _rows(ALERT)


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname


def _line(element: etree._Element) -> int | None:
    line: Any = element.sourceline  # the stubs call it an ellipsis
    return line if isinstance(line, int) else None


def _locate(root: etree._Element, path: Path) -> tuple[str, int | None]:
    """Return path (counted from 1) and line of an element by CAP's names, or the nearest above it."""
    element, steps = root, []
    for cap_name, index in path:
        name = _NAMES.get(cap_name, cap_name)
        steps.append(f"{name}[{index + 1}]" if name in _REPEATED else name)
        named = (child for child in element if _local(child).lower() == name.lower())
        child = next(islice(named, index, None), None)
        if child is None:
            break
        element = child
    return "/".join(steps), _line(element)
