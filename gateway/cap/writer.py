"""Write an Alert as CAP 1.2 XML, for the feed, exports and upward reports.

`read(write(alert)) == alert` for every alert that came from `read` or from JSON, whose `policy_digest` is still
empty: that one says how *we* took the alert and never leaves the house. An expiry set by policy is written into the
infos that have none.

**Source:** OASIS CAP 1.2 (table in `gateway.cap.table`).
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from gateway.cap.classify import own_codes, own_info, with_expiry
from gateway.cap.table import ALERT, NAMESPACE, Block, Rule
from gateway.model import Alert, Kind

_NS = f"{{{NAMESPACE}}}"


def write(alert: Alert) -> bytes:
    """Return the alert as UTF-8 XML, times with +08:00. What XML cannot carry in a text becomes U+FFFD.

    Raises:
        ValueError: a time is naive.
    """
    root = etree.XML(f'<alert xmlns="{NAMESPACE}"/>')
    fields: dict[str, Any] = {rule.field: getattr(alert, rule.field) for rule in ALERT.rules}
    fields["kind"] = Kind.UPDATE if alert.kind is Kind.CORRECTION else alert.kind
    fields["codes"] = own_codes(alert)
    fields["infos"] = [own_info(alert, info) for info in with_expiry(alert)]
    for rule in ALERT.rules:
        _add(root, rule, fields[rule.field])
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True)


def _add(parent: etree._Element, rule: Rule, value: Any) -> None:
    """Append the element or elements of one rule; an empty optional value is left out."""
    for item in _items(rule, value):
        child = etree.SubElement(parent, _NS + rule.name)
        if rule.block:
            _fill(child, rule.block, item)
        else:
            child.text = rule.write(item)


def _fill(element: etree._Element, block: Block, value: Any) -> None:
    for rule in block.rules:
        _add(element, rule, getattr(value, rule.field))


def _items(rule: Rule, value: Any) -> tuple[Any, ...]:
    if rule.times in "*+":
        return tuple(value) or (("Other",) if rule.name == "category" else ())  # CAP asks for at least one category
    absent = value is None or value == () or value == ""
    return () if absent and rule.times == "?" else (value,)
