"""Dashboard, alert rules and docs name what the gateway really shows.

A rule about a metric that does not exist never fires, and nobody notices before the night it was written for.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from gateway import metrics
from gateway.model import Lane

ROOT = Path(__file__).parent.parent
RULES = (ROOT / "ops" / "prometheus" / "alerts.yml").read_text(encoding="utf8")
DOCS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf8")
OPERATING = (ROOT / "docs" / "operating.md").read_text(encoding="utf8")
NOT_SHOWN: Mapping[str, str] = {}
"""Metric → why neither dashboard nor rules show it. Empty: everything is shown."""
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
FROM_PROMETHEUS = frozenset({"job", "instance"})
WORDS = frozenset({"by", "sum", "max", "rate", "increase", "round", "histogram_quantile", "up"})
OPERANDS = re.compile(r'"[^"]*"|\[[^]]*\]|\{[^}]*\}|by \([^)]*\)|\bmingluo_\w+')
RAISED = re.compile(r"metrics\.alarms\.labels\((.*)\)\.inc")


class Metric(NamedTuple):
    """What the registry knows of one metric."""

    kind: str
    labels: tuple[str, ...]
    text: str

    @property
    def usable(self) -> frozenset[str]:
        """Labels an expression may name."""
        return FROM_PROMETHEUS | set(self.labels) | ({"le"} if self.kind == "histogram" else set())


def known() -> dict[str, Metric]:
    """All metrics of the gateway by their name in the registry, without suffix."""
    found = {}
    for value in vars(metrics).values():
        if isinstance(value, Counter | Gauge | Histogram):
            family = next(iter(value.collect()))
            found[family.name] = Metric(family.type, tuple(value._labelnames), family.documentation)
    return found


def samples() -> dict[str, str]:
    """Name as an expression has to write it → name in the registry."""
    return {name + suffix: name for name, metric in known().items() for suffix in SUFFIXES[metric.kind]}


def script() -> ModuleType:
    """`ops/make_dashboard.py` as a module."""
    spec = importlib.util.spec_from_file_location("make_dashboard", ROOT / "ops" / "make_dashboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dashboard() -> dict[str, Any]:
    """The committed dashboard."""
    content: dict[str, Any] = json.loads((ROOT / "ops" / "grafana" / "mingluo.json").read_text(encoding="utf8"))
    return content


def panels() -> list[dict[str, Any]]:
    """Its panels without the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def rules() -> list[dict[str, str]]:
    """The rules; each key stands on a line of its own, so that no YAML reader is needed."""
    found = []
    for block in re.split(r"^ +- alert: ", RULES, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition("\n")
        rule = {"alert": name.strip()}
        rule |= {key: value.strip() for key, value in re.findall(r"^ +(\w+): (.+)$", rest, flags=re.MULTILINE)}
        found.append(rule)
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """(where, expression) of every panel and rule."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for rule in rules():
        yield rule["alert"], rule["expr"]


def named(expr: str) -> list[str]:
    """Metrics an expression names."""
    return re.findall(r"\bmingluo_\w+", expr)


def labels(expr: str) -> set[str]:
    """Labels an expression groups by or selects."""
    grouped = {label.strip() for part in re.findall(r"by \(([^)]*)\)", expr) for label in part.split(",")}
    return grouped | set(re.findall(r'(\w+)=~?"', expr))


def test_the_committed_dashboard_is_what_the_script_writes() -> None:
    """An edit in Grafana's window that is not in the table would be lost at the next run."""
    module = script()
    assert module.TARGET.read_text(encoding="utf8") == module.text()


def test_every_metric_of_an_expression_exists_with_its_suffix() -> None:
    """`mingluo_alarms` without `_total` is an empty panel, and it looks as calm as a quiet night."""
    allowed = samples()
    for where, expr in expressions():
        unknown = [name for name in named(expr) if name not in allowed]
        assert not unknown, f"{where}: {unknown}"
        rest = set(
            re.findall(r"[a-z_]{2,}", re.sub(r'"[^"]*"|\[[^]]*\]|\{[^}]*\}|by \([^)]*\)|\bmingluo_\w+', "", expr))
        )
        assert rest <= WORDS, f"{where}: a metric without our prefix? {rest - WORDS}"


def test_every_label_of_an_expression_exists_on_its_metric() -> None:
    """Grouping by a label that is not there folds all lanes into one line: green hides behind bulk."""
    metric, allowed = known(), samples()
    for where, expr in expressions():
        for name in named(expr):
            unknown = labels(expr) - metric[allowed[name]].usable
            assert not unknown, f"{where}: {name} has no {unknown}"


def test_a_legend_names_only_labels_its_expression_keeps() -> None:
    """A legend of empty braces tells nobody which channel is slow."""
    for panel in panels():
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels(target["expr"]), panel["title"]


def test_values_a_rule_selects_are_values_the_gateway_writes() -> None:
    """A rule about the kind "hold" would wait for ever for an alarm called "held"."""
    closed = {
        "kind": set(metrics.ALARMS), "lane": {lane.value for lane in Lane},
        "result": {"confirmed", "unconfirmed"}, "why": set(metrics.WHYS),
    }  # fmt: skip
    for where, expr in expressions():
        for label, value in re.findall(r'(\w+)="([^"]*)"', expr):
            assert value in closed[label], f"{where}: {label}={value}"


def test_every_alarm_the_gateway_raises_has_a_rule() -> None:
    """An alarm that only counts up wakes nobody."""
    ruled = {value for rule in rules() for value in re.findall(r'kind="([^"]*)"', rule["expr"])}
    assert ruled == set(metrics.ALARMS)
    raised = [match for path in sorted((ROOT / "gateway").rglob("*.py")) for match in RAISED.findall(path.read_text())]
    written = set(re.findall(r'"([a-z_]+)"', " ".join(raised)))
    assert written == set(metrics.ALARMS)


def test_no_metric_is_forgotten() -> None:
    """What is measured and never looked at is measured for nobody."""
    allowed = samples()
    shown = {allowed[name] for _, expr in expressions() for name in named(expr)}
    assert set(known()) - shown == set(NOT_SHOWN)


def test_every_metric_is_set_somewhere() -> None:
    """A metric nobody sets is a flat line at zero: the most reassuring lie there is."""
    text = "\n".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py") if path.name != "metrics.py")
    unset = [name for name in known() if f"metrics.{name.removeprefix('mingluo_')}." not in text]
    assert unset == []


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    """Whoever is woken at three has to know the first step; the page of the operator explains the rest."""
    assert RULES.count("- alert:") == len(rules()) == len({rule["alert"] for rule in rules()})
    for rule in rules():
        assert rule["labels"] in ("{severity: page}", "{severity: ticket}"), rule["alert"]
        assert len(rule["summary"]) > 20, rule["alert"]
        assert len(rule["action"]) > 40, rule["alert"]
        assert rule["alert"] in OPERATING, f"docs/operating.md says nothing of {rule['alert']}"


def test_panels_stand_side_by_side_without_gaps_between_ids() -> None:
    """Grafana shows panels that overlap on top of each other, and one of them is not seen."""
    taken: set[tuple[int, int]] = set()
    everything = dashboard()["panels"]
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells
    assert [panel["id"] for panel in everything] == list(range(1, len(everything) + 1))


def test_titles_are_english_and_chinese() -> None:
    """The duty room reads Chinese, the maintainer may not."""
    for panel in dashboard()["panels"]:
        assert re.search(r"[A-Z][a-z]", panel["title"]), panel["title"]
        assert re.search(r"[\u4e00-\u9fff]", panel["title"]), panel["title"]


def test_the_table_of_metrics_is_the_registry() -> None:
    """Prose about a metric drifts; this table cannot."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", DOCS, flags=re.MULTILINE)
    written = {name: Metric(kind, tuple(re.findall(r"`(\w+)`", names)), text) for name, kind, names, text in rows}
    expected = {name + ("_total" if metric.kind == "counter" else ""): metric for name, metric in known().items()}
    assert written == expected
    assert len(rows) == len(written)
