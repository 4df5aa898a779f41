"""Rules between the values of one message: what OASIS writes in words, and what receivers rely on.

`classify` calls these for XML and JSON alike, after every single value has been read. Errors are what CAP forbids
and we could not act on; warnings are best practice.

**Source:** OASIS CAP 1.2 §3.2, its notes to each element; the profile Google asks of publishers; ISO 639-1.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import shapely

from gateway.cap.finding import Findings, Path
from gateway.cap.form import EVENT_CODE, has_markup
from gateway.model import Alert, Area, Info, Kind, Reference, Resource
from gateway.regions.ring import is_dense
from gateway.telling import primary, words_of

HEADLINE = 140
_AT_ONCE = 2000
_TOLD = ("event", "headline", "description", "instruction")
_READ_ALOUD = (("event", "event"), ("senderName", "sender_name"), ("headline", "headline"),
               ("description", "description"), ("instruction", "instruction"), ("contact", "contact"))  # fmt: skip
_RECOMMENDED = (("expires", "expires", "when it ends"), ("description", "description", "what happens"),
                ("area", "areas", "where"))  # fmt: skip
_CHINESE = re.compile(r"[\u3400-\u9fff]")
_PROFILE = re.compile(r"(.*:)?profile:|layer:|IPAWS", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_ISO_639_1 = frozenset(
    re.findall(
        r"\w+",
        "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz "
        "ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii "
        "ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi "
        "mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw "
        "sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk "
        "ur uz ve vi vo wa wo xh yi yo za zh zu",
    )
)
_MISTAKEN = {"cn": "zh-CN", "chs": "zh-CN", "cht": "zh-TW", "jp": "ja", "kr": "ko"}


def check_header(header: Mapping[str, Any], findings: Findings) -> None:
    """Check scope, note and codes; `header` as in `classify`."""
    restricted = header["scope"] == "Restricted"
    if restricted is not bool(header.get("restriction")):
        wrong = "scope Restricted needs a restriction" if restricted else "a restriction needs scope Restricted"
        findings.error("restriction_scope_mismatch", (("restriction", 0),), f"{wrong}; add the one or drop the other")
    if header["scope"] == "Private" and not header.get("addresses"):
        findings.error("missing_required_element", (("addresses", 0),), "scope Private needs addresses; add them")
    purpose = "the exercise is for" if header["status"] == "Exercise" else "the error was"
    if (header["status"] == "Exercise" or header["kind"] == "Error") and not header.get("note"):
        findings.warn("missing_note", (("note", 0),), f"nothing says what {purpose}; add a note")
    for number, code in enumerate(header["codes"]):
        if _PROFILE.match(code):
            message = f"{code[:60]!r} announces a profile; only CAP itself is read, its further rules are not"
            findings.warn("foreign_profile", (("code", number),), message)


def earlier(header: Mapping[str, Any], findings: Findings) -> tuple[Reference, ...]:
    """Return the references but the message itself, which some national feeds name; check their times."""
    sent, path = header["sent"], (("references", 0),)
    every: tuple[Reference, ...] = header.get("references", ())
    own = (header["sender"], header["identifier"])
    others = tuple(reference for reference in every if reference[:2] != own)
    if len(others) < len(every):
        findings.warn("circular_reference", path, "the message references itself; name only earlier messages")
    for late in (reference for reference in others if reference.sent > sent):
        message = f"{late.identifier} was sent after this message; check both times"
        findings.error("postdated_reference", path, message)
    for late in (reference for reference in others if reference.sent == sent):
        message = f"{late.identifier} has the time of this message, so each could follow the other; check both times"
        findings.warn("simultaneous_reference", path, message)
    seen: set[tuple[str, str]] = set()
    for reference in others:
        if reference[:2] in seen:
            message = f"{reference.identifier} is named twice; name each message once, with its own sent"
            findings.warn("duplicate_reference", path, message)
        seen.add(reference[:2])
    return others


def check_infos(sent: datetime, infos: Sequence[Info], findings: Findings) -> None:
    """Check each info, then the infos against each other."""
    for number, info in enumerate(infos):
        path: Path = (("info", number),)
        _check_times(sent, info, path, findings)
        _check_texts(info, path, findings)
        _check_language(info, path, findings)
        for at, area in enumerate(info.areas):
            _check_area(area, (*path, ("area", at)), findings)
        for at, resource in enumerate(info.resources):
            _check_resource(resource, (*path, ("resource", at)), findings)
    _check_rings(infos, findings)
    if len(infos) > 1:
        _check_translations(infos, findings)
        _check_tellings(infos, findings)
        _check_kinship(infos, findings)


def check_alert(alert: Alert, findings: Findings) -> None:
    """Check that an alert says something, and what receivers rely on."""
    if alert.kind not in (Kind.ALERT, Kind.UPDATE):
        return
    if not alert.infos:
        message = f"an {alert.kind} without info says nothing; add an info"
        findings.error("missing_required_element", (("info", 0),), message)
    for number, info in enumerate(alert.infos):
        for name, field, says in _RECOMMENDED:
            if not getattr(info, field):
                message = f"{name} is missing; add it, to say {says}"
                findings.warn("missing_recommended_element", (("info", number), (name, 0)), message)


def _check_times(sent: datetime, info: Info, path: Path, findings: Findings) -> None:
    start = info.effective or sent
    ends = (*path, ("expires", 0))
    if info.expires and info.expires <= start:
        message = "expires must lie after effective (or sent, if effective is absent); correct one of them"
        findings.error("expires_before_effective", ends, message)
    if info.expires and info.onset and info.expires < info.onset:
        findings.error("expires_before_onset", ends, "expires must not lie before onset; correct one of them")
    if info.onset and info.onset < start and info.urgency in ("Expected", "Future"):
        message = (
            f"onset lies before effective, but urgency is {info.urgency}; write Immediate or Past, or correct onset"
        )
        findings.warn("onset_before_effective", (*path, ("onset", 0)), message)


def _check_texts(info: Info, path: Path, findings: Findings) -> None:
    for name, field in _READ_ALOUD:
        if has_markup(getattr(info, field) or ""):
            message = "the text holds HTML tags or entities; write plain text"
            findings.warn("markup_in_text", (*path, (name, 0)), message)
    if info.headline and len(info.headline) > HEADLINE:
        message = f"the headline has {len(info.headline)} characters; write at most {HEADLINE}, the rest as description"
        findings.warn("long_headline", (*path, ("headline", 0)), message)


def _check_language(info: Info, path: Path, findings: Findings) -> None:
    here = (*path, ("language", 0))
    code, *rest = info.language.lower().split("-")
    if (len(code) == 2 and code not in _ISO_639_1) or len(code) > 3 or code in _MISTAKEN:
        advice = _MISTAKEN.get(code, "a code of ISO 639 such as zh-CN or en")
        findings.warn("unknown_language", here, f"{info.language[:40]!r} is no language; write {advice}")
    elif "uk" in rest:
        findings.warn("unknown_language", here, f"{info.language[:40]!r} names no country; the United Kingdom is GB")
    if code == "en" and _is_chinese("".join(getattr(info, field) or "" for field in _TOLD)):
        message = f"the text is Chinese, the language {info.language} (CAP's default is en-US); write zh-CN"
        findings.warn("language_disagrees", here, message)


def _is_chinese(text: str) -> bool:
    return 2 * len(_CHINESE.findall(text)) > len(text)


def _check_area(area: Area, path: Path, findings: Findings) -> None:
    if not (area.geocodes or area.polygons or area.circles):
        findings.warn("area_without_shape", path, "only words say where; add a geocode, polygon or circle")
    seen = set()
    for number, code in enumerate(area.geocodes):
        if code in seen:
            message = f"{code.value[:40]!r} stands twice; remove one, or correct it if another place was meant"
            findings.warn("duplicate_geocode", (*path, ("geocode", number)), message)
        seen.add(code)
    ceiling = (*path, ("ceiling", 0))
    if area.ceiling_ft is not None and area.altitude_ft is None:
        findings.error("invalid_area", ceiling, "a ceiling needs an altitude; add it or drop the ceiling")
    elif area.ceiling_ft is not None and area.altitude_ft is not None and area.ceiling_ft < area.altitude_ft:
        findings.error("invalid_altitude_ceiling_range", ceiling, "the ceiling is below the altitude; swap them")


def _check_rings(infos: Sequence[Info], findings: Findings) -> None:
    """Remark on outlines that cross themselves. Many are asked in one go: a message may hold 75,000 of them."""
    found = (
        ((("info", number), ("area", at), ("polygon", nth)), ring)
        for number, info in enumerate(infos)
        for at, area in enumerate(info.areas)
        for nth, ring in enumerate(area.polygons)
    )
    while (some := list(islice(found, _AT_ONCE))) and not findings.tired:
        of_ring = [nth for nth, (_, ring) in enumerate(some) for _ in ring]
        rings = shapely.linearrings([point for _, ring in some for point in ring], indices=of_ring)
        surfaces: Any = shapely.polygons(rings)
        dense = [is_dense(surface) for surface in surfaces]
        valid = shapely.is_valid([None if thick else surface for thick, surface in zip(dense, surfaces, strict=True)])
        for (path, _), thick, sound in zip(some, dense, valid, strict=True):
            if thick:
                message = "too many sides lie over each other to tell them apart; draw a simpler polygon"
                findings.warn("intricate_polygon", path, message)
            elif not sound:
                message = "the polygon crosses itself or encloses nothing; draw one outline without crossings"
                findings.warn("invalid_polygon_self_intersection", path, message)


def _check_resource(resource: Resource, path: Path, findings: Findings) -> None:
    if not resource.deref_uri:
        if resource.uri is None:
            findings.warn("resource_without_content", path, "the resource is only described; add uri or derefUri")
        elif not _SCHEME.match(resource.uri):
            message = "a relative uri needs its content in derefUri; add it, or write a full address"
            findings.error("relative_uri_missing_deref_uri", (*path, ("uri", 0)), message)
        return
    content = base64.b64decode(resource.deref_uri)
    if resource.size_bytes not in (None, len(content)):
        message = f"size says {resource.size_bytes}, derefUri holds {len(content)} bytes; correct the one or the other"
        findings.warn("size_disagrees", (*path, ("size", 0)), message)
    if resource.digest and resource.digest.lower() != hashlib.sha1(content, usedforsecurity=False).hexdigest():
        message = "digest is not the SHA-1 of what derefUri holds; write it anew"
        findings.warn("digest_disagrees", (*path, ("digest", 0)), message)


def _check_translations(infos: Sequence[Info], findings: Findings) -> None:
    """Remark on texts that two languages share, once per info."""
    spoken: dict[str, str] = {}
    for number, info in enumerate(infos):
        for field in _TOLD[1:]:
            text = getattr(info, field)
            if text and primary(spoken.setdefault(text, info.language)) != primary(info.language):
                message = f"the text is the same as in {spoken[text]}; write it in {info.language}"
                findings.warn("same_text_different_language", (("info", number), (field, 0)), message)
                break


def _check_tellings(infos: Sequence[Info], findings: Findings) -> None:
    """Remark on texts that nobody will hear: of several infos of one language for one place, the first is told.

    Only what the message shows by itself; where areas of other shape or code meet, intake finds it.
    """
    told: dict[tuple[str, object], Info] = {}
    for number, info in enumerate(infos):
        language = primary(info.language)
        whole = (language, None)  # an info without an area speaks of all
        here = [(language, key) for area in info.areas for key in (area, *area.geocodes)] or [whole]
        earlier = [told[key] for key in (*here, whole) if key in told]
        if any(words_of(one) != words_of(info) for one in earlier):
            message = "an earlier info of this language speaks of the same area, and is told there; part their areas"
            findings.warn("texts_differ_in_one_language", (("info", number),), message)
        for key in here:
            told.setdefault(key, info)


def _check_kinship(infos: Sequence[Info], findings: Findings) -> None:
    """Remark on infos that are filed under different kinds; one message speaks of one event."""
    first, codes = infos[0], {code.name: code.value for code in infos[0].event_codes}
    for number, info in enumerate(infos[1:], start=1):
        if set(info.categories) != set(first.categories):
            message = f"category differs from {', '.join(first.categories)[:80]} of the first info; write the same"
            findings.warn("categories_differ", (("info", number), ("category", 0)), message)
        for at, (name, value) in enumerate(info.event_codes):
            # Different GB/T 35561 codes are an error: `classify`.
            if codes.get(name, value) != value and not EVENT_CODE.fullmatch(value):
                message = f"{name[:40]} differs from {codes[name][:40]!r} of the first info; write the same"
                findings.warn("event_codes_differ", (("info", number), ("eventCode", at)), message)
