"""The renderer: one alert, one audience, one channel → the text that leaves.

Called by the sender, the preview and doctor. Templates hold the sentences; this file holds what no template
may get wrong: the registered signature first and once, the drill mark as the first word (rule 3), 再次提醒
after it (rule 2), the order of shortening (rule 7). Alert text is data: it is cleaned, passed as values and
never compiled.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gateway.errors import ConfigError
from gateway.model import Alert, Group, Level, Notice
from gateway.policy import LintFile
from gateway.render.facts import Facts, Wording, gather
from gateway.render.library import SPEECH, Library
from gateway.render.lint import Finding, lint
from gateway.render.part import compulsory
from gateway.render.prose import Want
from gateway.render.speech import spoken
from gateway.render.text import clean, segment_count, utf16_units

KEEP = 20_000
"""Rendered texts kept in memory; the oldest go first."""

_WORDS = {
    "zh": {"list_join": "、", "others": "等{n}{unit}", "unsure": "你乡", "mark": "演练：", "mark_spoken": "演练。"},
    "en": {"list_join": ", ", "others": " (one of {n} {unit})", "unsure": "your township", "mark": "DRILL: "},
}
_WORDS["zh"] |= {"again": "再次提醒：", "again_spoken": "再次提醒。", "end": "演练"}
_WORDS["en"] |= {"mark_spoken": "DRILL. ", "again": "Reminder: ", "again_spoken": "Reminder. "}
_WORDS["en"] |= {"end": " This is a DRILL."}
_WORDS["zh"] |= {"unnamed": "灾害"}
_WORDS["en"] |= {"unnamed": "hazard"}


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished text. `segments` is what it takes as SMS; `cut` names what was left out to fit the limit.

    `want` is what was asked for, so that `Renderer.check` can look for the parts it must hold.
    """

    text: str
    title: str
    segments: int
    cut: tuple[str, ...] = ()
    want: Want | None = None


class Renderer:
    """Renders texts from the templates in `folder` (layout: `templates/README.md`).

    `signatures` maps an issuer's `sender` to its registered signature, without brackets; "*" is the relaying
    centre's own, used for senders that have none. `place_name` turns an area code into its name.
    """

    def __init__(self, folder: Path, signatures: Mapping[str, str], place_name: Callable[[str], str]) -> None:
        self._library = Library(folder)
        self.digest = self._library.digest
        self._signatures = dict(signatures)
        self._place_name = place_name
        self._cache: dict[tuple[object, ...], tuple[Alert, Alert | None, Rendered]] = {}

    def text(
        self,
        alert: Alert,
        *,
        notice: Notice,
        channel: str,
        group: Group,
        language: str = "zh",
        places: Sequence[str] = (),
        others: int = 0,
        limit: int = 70,
        signed: bool = False,
        again: bool = False,
        previous: Alert | None = None,
        remaining: Sequence[str] = (),
        confirm: bool = False,
        told: Sequence[tuple[int, Sequence[str]]] = (),
    ) -> Rendered:
        """Render one text; repeated calls are a dict hit.

        Args:
            alert: The version to tell of.
            notice: What this audience is told.
            channel: Name of the channel; chooses the template.
            group: Who the audience is made of.
            language: "zh" or "en".
            places: Names (or codes) of the audience's places, its own first; empty where the area is not
                certain: then no township is named (D26).
            others: Number of further affected townships.
            limit: Longest text in UTF-16 units, signature included. Compulsory parts are never cut: a text
                that cannot fit stays longer.
            signed: Whether a registered 【signature】 goes first (SMS).
            again: Whether this is the one repeat of rule 2.
            previous: The version being updated, ended or corrected.
            remaining: Places still affected (partial all-clear).
            confirm: Whether officials are asked to answer; only for channels that can take the answer.
            told: Which infos speak to this audience, by number, and of which of its places each; see
                `gateway.telling`. Empty: the first one in the language.

        Raises:
            ConfigError: no signature is registered for the sender, no template fits, or a template is wrong.
        """
        shape = (notice, channel, group, language, tuple(places), others, limit, signed, again)
        speaking = tuple((number, tuple(of)) for number, of in told)
        key = (alert.id, previous.id if previous else "", *shape, tuple(remaining), confirm, speaking)
        hit = self._cache.get(key)
        # A draft being edited keeps its id: the content decides.
        if hit and (hit[0] is alert or hit[0] == alert) and (hit[1] is previous or hit[1] == previous):
            return hit[2]
        want = Want(
            notice, channel, group, language, self._named(places), others, limit, signed, again,
            self._named(remaining), confirm, tuple((number, self._named(of)) for number, of in speaking),
        )  # fmt: skip
        rendered = self._render(alert, previous, want)
        if len(self._cache) >= KEEP:
            self._cache.pop(next(iter(self._cache)))
        self._cache[key] = (alert, previous, rendered)
        return rendered

    def language(self, channel: str, language: str) -> str:
        """Return the language a channel's texts are written in, where this one is wanted."""
        return self._library.choose(channel, language)[0]

    def lint(self, text: str, *, signed: bool = True, actual: bool = True) -> list[Finding]:
        """Return findings on a text that nothing is known of; see `gateway.render.lint`."""
        return lint(text, signed=signed, actual=actual)

    def check(
        self, alert: Alert, said: Rendered, previous: Alert | None, rules: LintFile, *, urgent: bool = False
    ) -> list[Finding]:
        """Return findings on a rendered text, held against the facts of its alert; see `gateway.render.lint`."""
        want = said.want
        if want is None:
            raise ValueError("only a text of this renderer can be checked")
        speech = self._library.choose(want.channel, want.language)[1].endswith(SPEECH)
        facts = gather(alert, previous, want, self._words(alert, previous, want), self._issuer(alert))
        parts = compulsory(
            alert, want, facts, self._issuer(alert), (lambda text: spoken(text, want.language)) if speech else str
        )
        return lint(
            said.text, signed=want.signed, actual=alert.actual, language=want.language,
            signature=self.signature(alert.sender) if want.signed else "", parts=parts, rules=rules, urgent=urgent,
        )  # fmt: skip

    def _issuer(self, alert: Alert) -> str:
        """Name of the issuer where the alert carries none."""
        return clean(self._signatures.get(alert.sender)) or clean(alert.sender)

    def signature(self, sender: str) -> str:
        """Return the registered signature of `sender`, without brackets.

        Raises:
            ConfigError: neither the sender nor "*" has one.
        """
        name = clean(self._signatures.get(sender) or self._signatures.get("*")).strip("〔〕")
        if not name:
            raise ConfigError(f"signatures: no registered signature for {clean(sender)!r}; add one, or one for '*'")
        return name

    def _named(self, places: Sequence[str]) -> tuple[str, ...]:
        named = (self._place_name(place) if place.isascii() and place.isdigit() else place for place in places)
        return tuple(dict.fromkeys(filter(None, map(clean, named))))

    def _render(self, alert: Alert, previous: Alert | None, want: Want) -> Rendered:
        language, name = self._library.choose(want.channel, want.language)
        want = replace(want, language=language)
        facts = gather(alert, previous, want, self._words(alert, previous, want), self._issuer(alert))
        frame = _Frame(alert, want, name.endswith(SPEECH), self.signature(alert.sender) if want.signed else "")
        title, text, cut = self._fit(name, frame, facts)
        if title is None:
            title = self._library.run(f"{language}/title.txt", facts.names(facts.full))[1]
        return Rendered(text, ("" if alert.actual else frame.words["mark"]) + title, segment_count(text), cut, want)

    def _fit(self, name: str, frame: _Frame, facts: Facts) -> tuple[str | None, str, tuple[str, ...]]:
        """Find the fullest wording within the limit; the shortest if none is."""

        @cache
        def say(wording: Wording) -> tuple[str | None, str, tuple[str, ...]]:
            title, body = self._library.run(name, facts.names(wording))
            return title, frame.around(body), wording.cut

        def fits(said: tuple[str | None, str, tuple[str, ...]]) -> bool:
            return utf16_units(said[1]) <= frame.want.limit

        full = say(facts.full)
        if fits(full):
            return full
        wordings = facts.shorter()
        best = len(wordings) - 1
        if best < 0:
            return full
        # Nearly always each wording is shorter than the one before.
        index = bisect_left(range(best), True, key=lambda at: fits(say(wordings[at])))
        said = say(wordings[index])
        if not fits(said):
            tried = [say(wording) for wording in wordings]
            said = next(filter(fits, tried), min(tried, key=lambda one: utf16_units(one[1])))
        elif "trend" in said[2]:
            # Giving up a clause of the trend may have made room for measures given up before.
            said = next(filter(fits, map(say, facts.refills(wordings[index]))), said)
        return said if said[1] != full[1] else full

    def _words(self, alert: Alert, previous: Alert | None, want: Want) -> dict[str, str]:
        group = "officials" if want.group is Group.OFFICIALS else "residents"
        advice = self._library.advice(want.language, alert.event_code, Level(alert.level).name.lower(), group).text
        codes = {version.event_code for version in (alert, previous) if version}
        names = {f"hazard:{code}": self._library.hazard(want.language, code) for code in codes}
        return _WORDS[want.language] | {"advice": advice} | names


class _Frame:
    """What stands before and after every body: signature, drill mark, 再次提醒."""

    def __init__(self, alert: Alert, want: Want, speech: bool, signature: str) -> None:
        self.want = want
        self.words = _WORDS[want.language]
        self._actual, self._speech, self._signature = alert.actual, speech, signature

    def around(self, body: str) -> str:
        """Put the frame around `body`, taking away what an issuer's short text already carries of it."""
        spoken_ = "_spoken" if self._speech else ""
        if self._speech:
            body = spoken(body, self.want.language)
        if self._signature:
            body = body.removeprefix(f"〔{self._signature}〕")
        head = f"【{self._signature}】" if self._signature else ""
        end = ""
        if not self._actual:
            head += self.words["mark" + spoken_]
            body = body.removeprefix(self.words["mark"]).removeprefix(self.words["mark" + spoken_])
            end = "" if body.endswith(self.words["end"]) else self.words["end"]
            if end and body and body[-1] not in "。.！!":
                body += "。" if self.want.language == "zh" else "."
        if self.want.again:
            head += self.words["again" + spoken_]
        return head + body + end
