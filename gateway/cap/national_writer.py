"""Write an Alert in the national dialect, for the platform and for exports.

`read_national` of it gives the same alert but for the losses named; see `national_meaning`. Elements that say nothing
are written empty, as live messages do.

**Source:** see `gateway.cap.national_table`. Interoperability unverified.
"""

from __future__ import annotations

from typing import Any

from lxml import etree

from gateway.cap.national_meaning import Loss, from_alert
from gateway.cap.national_table import ALERT, Message
from gateway.cap.table import Block
from gateway.model import Alert


def write_national(alert: Alert) -> tuple[bytes, list[Loss]]:
    """Return the alert as UTF-8 XML, times with +08:00, and what it could not carry.

    Raises:
        Unwritable: see `from_alert`.
        ValueError: a time is naive.
    """
    message, losses = from_alert(alert)
    return write_message(message), losses


def write_message(message: Message) -> bytes:
    """Return a message of the dialect as UTF-8 XML. What XML cannot carry in a text becomes U+FFFD."""
    root = etree.Element("alert")
    _fill(root, ALERT, message)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, pretty_print=True)


def _fill(element: etree._Element, block: Block, value: Any) -> None:
    for rule in block.rules:
        if not rule.field:
            continue
        held = getattr(value, rule.field)
        for item in held if rule.times in "*+" else (held,):
            child = etree.SubElement(element, rule.name)
            if rule.block:
                _fill(child, rule.block, item)
            elif item is not None:
                child.text = rule.write(item)
