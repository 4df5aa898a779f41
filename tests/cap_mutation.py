"""Valid CAP messages broken at exactly one rule, for every element there is: what the table says, turned round.

`broken` walks a valid message along `gateway.cap.table` and yields each single mistake with the code it must be
named by and the place it must be found at. What the table does not say (values against each other) is broken by hand
in `test_cap_findings`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lxml import etree

from gateway.cap.table import ALERT, NAMESPACE, Block, Rule, repeated

NS = f"{{{NAMESPACE}}}"
NOT_EMPTIED: Mapping[str, str] = {
    "language": "its default is English, and the text is Chinese",
    "restriction": "scope Restricted needs it",
    "note": "an exercise needs it",
    "references": "an update needs them",
    "expires": "it is recommended",
    "description": "it is recommended",
    "web": "it is recommended",
    "altitude": "a ceiling needs it",
}
"""Element → the second rule that breaks when it is empty; those pairs are tested by hand."""

_TIMES = (
    "2026-07-20T16:00:00Z", "2026-07-20T16:00:00", "2026-07-20T16:00:00.5+08:00", "2026-07-20T16:00:00,08:00",
    "2026-07-20T16:00+08:00", "2026-07-20t16:00:00+08:00", "2026-7-20T16:00:00+08:00", "20260720160000",
    "2026-02-30T16:00:00+08:00", "2026-07-20T24:00:01+08:00", "2026-07-20T16:00:60+08:00", "2026-07-20T16:60:00+08:00",
    "2026-07-20T16:00:00+14:01", "2026-07-20T16:00:00+08:60", "0001-01-01T00:00:00+08:00", "2026-07-20T16:00:00 +08:00",
)  # fmt: skip
_NO_NAMES = ("a b", "a,b", "a<b", "a&b", "a\u3000b", "a\u200bb", "a\u202eb")
_WORDS = ("actual", "RED", "Alert,", "None None")
WRONG: Mapping[str, tuple[str, Sequence[str]]] = {
    "identifier": ("invalid_identifier", _NO_NAMES),
    "sender": ("invalid_sender", _NO_NAMES),
    **dict.fromkeys(("sent", "effective", "onset", "expires"), ("invalid_date", _TIMES)),
    **dict.fromkeys(
        ("status", "msgType", "scope", "category", "responseType", "urgency", "severity", "certainty"),
        ("invalid_enum_value", _WORDS),
    ),
    "references": (
        "invalid_references",
        ("a,b", "a,b,c", "a,b,2026-07-20T14:30:00Z", "a,b,2026-07-20T14:30:00+08:00,d", ",b,2026-07-20T14:30:00+08:00"),
    ),
    "language": ("invalid_language", ("中文", "zh_CN", "zh-", "chinesefor", "zh-CN zh")),
    "web": ("invalid_web", ("www.mingluo.example", "ftp://mingluo.example/", "https://", "https://a b/", "//a/b")),
    "mimeType": ("invalid_mime_type", ("picture", "image/", "/png", "image png")),
    "size": ("invalid_resource_size", ("20 KB", "-1", "1.5", "1e3")),
    "uri": ("invalid_uri", ("area map.png", "https://a/%zz", 'a"b', "https://[::1/a", "a[1].png")),
    "derefUri": ("invalid_deref_uri", ("no base64!", "abc", "ab=c", "====")),
    "digest": ("invalid_digest", ("0123", "g" * 40, "0" * 41)),
    "polygon": (
        "invalid_polygon",
        (
            "32.7,113.3 32.7,113.4 32.8,113.4 32.8,113.3", "32.7,113.3 32.7,113.4 32.7,113.3", "32.7,113.3",
            "113.3,32.7 113.4,32.7 113.4,32.8 113.3,32.7", "91,1 1,1 2,2 91,1", "1,181 1,1 2,2 1,181",
            "1,1 1,2 2,nan 1,1", "1,1 1,2 2,inf 1,1", "1,1 1,2 2,2,0 1,1", "1 1 1 2 2 2 1 1", "1,1 1,2 2,0x1 1,1",
            "1,1 1,2 2,1_0 1,1", "1, 1 1,2 2,2 1,1", "1,1;1,2;2,2;1,1", "1,1 1,2 2..0,2 1,1",
        ),
    ),
    "circle": ("invalid_circle", ("32.7,113.3", "1,1 five", "32.7,113.3 -1", "32.7,113.3 9e9", "113,32 5", "1,1,5")),
    **dict.fromkeys(("altitude", "ceiling"), ("invalid_number", ("300 m", "1e3", "1,000", "nan", "三百"))),
}  # fmt: skip
"""Element → the code of its format, and what breaks it."""

Path = tuple[tuple[str, int], ...]
_REPEATED = repeated()


class Broken(NamedTuple):
    """One mistake: the only finding must be `code` at `element`. `what` names it for people."""

    what: str
    code: str
    element: str
    data: bytes


def broken(valid: bytes) -> Iterator[Broken]:
    """Yield every mistake that the table lets one make in this message, one at a time."""
    root = etree.fromstring(valid, etree.XMLParser(remove_comments=True))
    for path, rule, block in _walk(root, ALERT):
        yield from _Place(root, path, rule, block).mistakes()


def _walk(element: etree._Element, block: Block, path: Path = ()) -> Iterator[tuple[Path, Rule, Block]]:
    """Yield way, row and parent's block of each element below."""
    seen: dict[str, int] = {}
    rows = {NS + rule.name: rule for rule in block.rules}
    for child in element:
        rule = rows.get(child.tag)
        if rule is None:
            continue  # the signature
        seen[rule.name] = seen.get(rule.name, -1) + 1
        here = (*path, (rule.name, seen[rule.name]))
        yield here, rule, block
        if rule.block:
            yield from _walk(child, rule.block, here)


class _Place:
    """One element of the valid message, and what can be done to it."""

    def __init__(self, root: etree._Element, path: Path, rule: Rule, block: Block) -> None:
        self._root, self._path, self._rule, self._block = root, path, rule, block

    def mistakes(self) -> Iterator[Broken]:
        """Yield what can be wrong with this element."""
        yield from self._structure()
        yield from self._dress()
        code, values = WRONG.get(self._rule.name, ("", ()))
        for value in values:
            yield self._made(f"is {value}", code, lambda element, value=value: setattr(element, "text", value))  # type: ignore[misc]  # lambda default

    def _structure(self) -> Iterator[Broken]:
        rule, parent = self._rule, self._element(self._root).getparent()
        assert parent is not None
        alone = len(parent.findall(NS + rule.name)) == 1
        if rule.times == "1" or (rule.times == "+" and alone):
            yield self._made("missing", "missing_required_element", _drop, _names(self._path[:-1], rule.name))
        if rule.times in "1?":
            yield self._made("twice", "duplicate_element", lambda element: element.addnext(copy.deepcopy(element)))
        after = self._element(self._root).getnext()
        if after is not None and after.tag != self._element(self._root).tag:
            yield self._made("late", "invalid_sequence", lambda element: _next(element).addnext(element))
        if rule.block:
            yield self._made("stray text", "stray_text", lambda element: setattr(element, "text", "urgent!"))
            yield self._made("a child not of CAP", "unsupported_element", _insert(NS + "colour"), self._below("colour"))
            yield self._made("a stranger", "unsupported_element", _insert("{urn:x}hurry"), self._below("hurry"))
        else:
            yield self._made("an element in the text", "unsupported_element", _insert(NS + "b"), self._below("b"))

    def _dress(self) -> Iterator[Broken]:
        """Yield what only makes it look wrong, and what an empty text means."""
        rule = self._rule
        yield self._made("an attribute", "unexpected_attribute", lambda element: element.set("lang", "zh"))
        if rule.around is not None:
            space = " " if rule.around == "" else "\u3000"
            yield self._made("blanks around", "surrounding_blanks", lambda element: _append(element, space))
        if rule.name in ("sent", "effective", "onset", "expires"):
            yield self._made("national", "national_date", lambda element: _replace(element, "T", " "))
        if rule.block or rule.empty or (rule.name in NOT_EMPTIED and rule.times not in "1+"):
            return
        code = "missing_required_element" if rule.times in "1+" else "empty_element"
        yield self._made("empty", code, lambda element: setattr(element, "text", " \n"))

    def _made(self, what: str, code: str, change: Callable[[etree._Element], Any], element: str = "") -> Broken:
        root = copy.deepcopy(self._root)
        change(self._element(root))
        here = _names(self._path)
        return Broken(f"{here} {what}", code, element or here, etree.tostring(root, encoding="UTF-8"))

    def _element(self, root: etree._Element) -> etree._Element:
        for name, number in self._path:
            root = root.findall(NS + name)[number]
        return root

    def _below(self, name: str) -> str:
        return _names(self._path, name)


def _names(path: Path, below: str = "") -> str:
    steps = [f"{name}[{number + 1}]" if name in _REPEATED else name for name, number in path]
    return "/".join([*steps, below] if below else steps)


def _drop(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None
    parent.remove(element)


def _next(element: etree._Element) -> etree._Element:
    after = element.getnext()
    assert after is not None
    return after


def _insert(name: str) -> Callable[[etree._Element], None]:
    return lambda element: element.insert(0, etree.Element(name))


def _append(element: etree._Element, text: str) -> None:
    element.text = (element.text or "") + text


def _replace(element: etree._Element, old: str, new: str) -> None:
    element.text = (element.text or "").replace(old, new)
