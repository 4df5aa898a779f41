"""What the demonstration shows: a live table while it runs, the report at its end."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.demo.judge import Phase

GROUPS = {"officials": "责任人", "loudspeakers": "大喇叭", "subscribers": "订阅者", "residents": "居民"}
VILLAGES = {"confirmed": "叫应", "played": "已播出", "sms_only": "仅短信", "silent": "失联", "gap": "缺口"}
OPEN = ("sms_only", "silent", "gap")
STATES = ("queued", "submitted", "delivered", "played", "failed", "unknown", "superseded", "expired", "skipped")
GAPS_SHOWN = 12


class Measured(Protocol):
    """One figure and its target; the benches bring them."""

    @property
    def name(self) -> str:
        """What was measured."""

    @property
    def measured(self) -> float:
        """The figure, in `unit`."""

    @property
    def unit(self) -> str:
        """Its unit."""

    @property
    def target(self) -> str:
        """What was promised, without the unit."""

    @property
    def met(self) -> bool:
        """Whether this run kept it."""


class Screen:
    """A live view on a terminal; plain lines where there is none."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._phase = ""
        self._said = ""

    def __enter__(self) -> Screen:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.update(Text())
        self._live.stop()

    def say(self, text: str) -> None:
        """Say what is being done; an empty text takes back what was said."""
        self._said = text
        if self.console.is_terminal:
            self._live.update(Text(f"· {text}" if text else ""))
        elif text:
            self.console.print(f"· {text}", highlight=False)

    def phase(self, name: str, told: str) -> None:
        """Begin a version."""
        self._phase, self._said = name, ""
        self.console.print(Text.assemble(f"· {name}: ", told))
        if self.console.is_terminal:
            self._live.update(Text())

    def status(self, status: dict[str, Any]) -> None:
        """Show where the version stands."""
        if self.console.is_terminal:
            head = f"{self._phase}   {self._said}".rstrip()
            self._live.update(Group(Text(head, style="bold"), table(status), villages(status)))

    def figures(self, figures: Sequence[Measured]) -> None:
        """Print what was measured after the night, against its targets."""
        self.console.rule("本机实测 measured here")
        shown = Table("figure", "measured", "target", "met", box=None)
        for one in figures:
            shown.add_row(
                one.name, f"{one.measured:,g} {one.unit}", f"{one.target} {one.unit}", "✓" if one.met else "✗"
            )
        self.console.print(shown)
        if all(one.met for one in figures):
            note = "short runs on a machine that also ran the demonstration; mingluo bench measures longer"
        else:
            load = " ".join(f"{one:.1f}" for one in os.getloadavg())
            note = (
                f"✗ in a short run: load average {load} on {os.cpu_count()} processors; other programs were running, "
                "the demonstration among them; mingluo bench measures longer"
            )
        self._line(note)

    def report(self, phases: Sequence[Phase], result: dict[str, Any]) -> None:
        """Print the report."""
        for phase in phases:
            self.console.rule(phase.name)
            self._phase_report(phase)
        self.console.rule("报告 report")
        times = Table(show_header=False, box=None)
        for key, label in (
            ("accepted_ms", "request → 202"),
            ("first_loudspeaker_ms", "last byte read → first loudspeaker written"),
            ("first_official_ms", "last byte read → first text at the carrier"),
            ("all_submitted_ms", "last byte read → all texts submitted"),
        ):
            times.add_row(label, _time(result[key]))
        self.console.print(times)
        self._line(
            f"villages 村 {result['villages']}: {result['villages_confirmed']} confirmed, "
            f"{result['villages_played']} played"
        )
        self._line(_open(phases[0].status))
        self._line(
            "push ends at “submitted”: a push service reports no delivery; loudspeakers that are switched off "
            "stay “queued” until the warning expires; 2 % of the phones are unreachable on purpose: “failed”"
        )
        self._outcome(phases, result)

    def _phase_report(self, phase: Phase) -> None:
        verdict = phase.verdict
        self._line(phase.told)
        self.console.print(table(phase.status), villages(phase.status), sep="\n")
        for who, text in (("an official", phase.samples.official), ("a resident", phase.samples.resident)):
            if text:
                self._line(f"{who} received:")
                for line in wrapped(text, self.console.width - 2):
                    self._line(f"  {line}")
        self._line(
            f"by the counterparts' logs: {verdict.expected:,} expected, {verdict.unaccounted} unaccounted for, "
            f"{verdict.duplicates} duplicates, {verdict.marked} marked repeats"
        )
        if verdict.silenced:
            self._line(
                f"not expected: {verdict.silenced} of {verdict.speakers} loudspeakers are switched off "
                "or broken on purpose"
            )
        if verdict.later:
            self._line(
                f"not expected yet: {verdict.later:,} told in the morning, for these are quiet hours; "
                "red itself and officials never wait"
            )

    def _outcome(self, phases: Sequence[Phase], result: dict[str, Any]) -> None:
        if not sum(phase.verdict.expected for phase in phases):
            self._line("✗ nobody was expected: the roster has nobody in the alert's area, so nothing was proven")
        elif result["unaccounted"] or result["duplicates"]:
            self._line(f"✗ {result['unaccounted']} unaccounted for, {result['duplicates']} told twice or in vain")
        else:
            self._line("✓ everybody who was expected was reached, and nobody was told twice")

    def _line(self, text: str) -> None:
        """Print one line as it stands: a name in brackets is a name."""
        self.console.print(Text(text))


def table(status: dict[str, Any]) -> Table:
    """Recipients by state and group; states nobody stands in are left out. Narrow enough for 80 columns."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for count in status["counts"]:
        counts.setdefault((count["group"], count["channel"]), {})[count["state"]] = count["recipients"]
    rows = sorted(counts.items(), key=lambda item: list(GROUPS).index(item[0][0]))
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=f"{status['route']} · {status['standing']}")
    shown.add_column("", no_wrap=True)
    for (group, channel), _ in rows:
        shown.add_column(f"{GROUPS[group]}\n{channel}", justify="right", no_wrap=True)
    for state in STATES:
        if any(state in row for _, row in rows):
            shown.add_row(state, *(f"{row[state]:,}" if state in row else "" for _, row in rows))
    return shown


def villages(status: dict[str, Any]) -> Text:
    """Villages by state, side by side, never added up; states no village is in are left out."""
    # Nobody is asked to confirm an all-clear, so a village that has not heard it yet is no gap.
    words = {key: f"{word} {{}} {key}" for key, word in VILLAGES.items()}
    if not status.get("confirmation_wanted", True):
        words["gap"] = "未告知 {} not told yet"
    parts = [words[key].format(number) for key, number in status["villages"].items() if number]
    return Text("villages 村: " + ", ".join(parts))


def wrapped(text: str, width: int) -> list[str]:
    """Break Chinese text into lines of at most `width` cells: never within a number, never before a comma."""
    lines = [""]
    for piece in re.findall(r"[0-9A-Za-z]+[，。、：；】]*|.[，。、：；】]*", text):
        if lines[-1] and cell_len(lines[-1]) + cell_len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return lines


def _time(measured_ms: float | None) -> str:
    if measured_ms is None:
        return "—"
    return f"{measured_ms / 1000:,.2f} s" if measured_ms >= 1000 else f"{measured_ms:,.1f} ms"


def _open(status: dict[str, Any]) -> str:
    """Say which villages nobody confirmed from and no loudspeaker played in, and how they stand."""
    names = [gap["name"] for gap in status["gaps"]]
    if not names:
        return "neither confirmed nor played: none"
    found = status["villages"]
    states = ", ".join(f"{found.get(key, 0)} {key}" for key in OPEN if found.get(key, 0) or key != "silent")
    more = f" … and {len(names) - GAPS_SHOWN} more" if len(names) > GAPS_SHOWN else ""
    return f"neither confirmed nor played: {len(names)} ({states}): {'、'.join(names[:GAPS_SHOWN])}{more}"
