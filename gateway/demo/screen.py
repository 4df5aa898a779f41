"""What the demonstration shows: a live table while it runs, the report at its end."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.demo.judge import Phase

GROUPS = {"officials": "责任人", "loudspeakers": "大喇叭", "subscribers": "订阅者", "residents": "居民"}
VILLAGES = {"confirmed": "叫应", "played": "已播出", "sms_only": "仅短信", "silent": "失联", "gap": "缺口"}
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
        self._live.stop()

    def say(self, text: str) -> None:
        """Say what is being done."""
        self._said = text
        if not self.console.is_terminal:
            self.console.print(f"· {text}")
        else:
            self._live.update(Text(f"· {text}"))

    def phase(self, name: str) -> None:
        """Begin a version."""
        self._phase = name
        self.say(name)

    def status(self, status: dict[str, Any]) -> None:
        """Show where the version stands."""
        if self.console.is_terminal:
            self._live.update(
                Group(Text(f"{self._phase}   {self._said}", style="bold"), table(status), villages(status))
            )

    def figures(self, figures: Sequence[Measured]) -> None:
        """Print what was measured after the night, against its targets."""
        self.console.rule("本机实测 measured here")
        shown = Table("figure", "measured", "target", "met", box=None)
        for one in figures:
            shown.add_row(
                one.name, f"{one.measured:,g} {one.unit}", f"{one.target} {one.unit}", "✓" if one.met else "✗"
            )
        self.console.print(shown)
        self.console.print("short runs on a machine that also ran the demonstration; mingluo bench measures longer")

    def report(self, phases: Sequence[Phase], result: dict[str, Any]) -> None:
        """Print the report."""
        for phase in phases:
            self.console.rule(phase.name)
            self.console.print(table(phase.status), villages(phase.status), sep="\n")
            verdict = phase.verdict
            self.console.print(
                f"by the counterparts' logs: {verdict.expected:,} expected, {verdict.unaccounted} unaccounted for, "
                f"{verdict.duplicates} duplicates, {verdict.marked} marked repeats"
            )
        self.console.rule("报告 report")
        times = Table(show_header=False, box=None)
        for key, label in (
            ("accepted_ms", "request → 202"),
            ("first_loudspeaker_ms", "last byte read → first loudspeaker written"),
            ("first_official_ms", "last byte read → first text at the carrier"),
            ("all_submitted_ms", "last byte read → everybody submitted"),
        ):
            times.add_row(label, f"{result[key]:,} ms" if result[key] is not None else "—")
        self.console.print(times)
        shown = result["gaps"][:GAPS_SHOWN]
        more = f" … and {len(result['gaps']) - len(shown)} more" if len(result["gaps"]) > len(shown) else ""
        self.console.print(f"villages {result['villages']}: {result['villages_confirmed']} confirmed, "
                           f"{result['villages_played']} played, {len(result['gaps'])} gaps by name: "
                           f"{'、'.join(shown)}{more}")  # fmt: skip


def table(status: dict[str, Any]) -> Table:
    """Recipients by group and state; states nobody stands in are left out."""
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for count in status["counts"]:
        counts.setdefault((count["group"], count["channel"]), {})[count["state"]] = count["recipients"]
    states = [state for state in STATES if any(state in row for row in counts.values())]
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title=f"{status['route']} · {status['standing']}")
    shown.add_column("group 群体", no_wrap=True)
    for state in states:
        shown.add_column(state, justify="right", no_wrap=True)
    for (group, channel), row in sorted(counts.items(), key=lambda item: list(GROUPS).index(item[0][0])):
        cells = (f"{row[state]:,}" if state in row else "" for state in states)
        shown.add_row(f"{GROUPS[group]} {channel}", *cells)
    return shown


def villages(status: dict[str, Any]) -> Text:
    """Villages by state, side by side, never added up."""
    parts = (f"{VILLAGES[key]} {number} {key}" for key, number in status["villages"].items())
    return Text("villages 村: " + ", ".join(parts))
