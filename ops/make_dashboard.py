"""Write `grafana/mingluo.json`, the duty room's dashboard, from the table below. Standard library only.

Run by hand after a change (`python ops/make_dashboard.py`); a test checks that the committed file is what this
script writes, that every metric and label named here exists, and that no metric of the gateway is forgotten.

Gauges are read as the maximum over processes, for several schedulers show the same ones; counters and histograms
are summed. Warnings are rare, so latencies look back over `WINDOW`, and the rest over Grafana's own interval.

**Source:** Grafana 11, dashboard JSON model, schema version 39.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

TARGET = Path(__file__).parent / "grafana" / "mingluo.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WINDOW = "15m"
WIDTH, HEIGHT = 24, 7
COLOURS = {
    "state": {"confirmed": "green", "played": "light-green", "sms_only": "yellow", "silent": "purple", "gap": "red"},
    "lane": {"green": "green", "urgent": "orange", "bulk": "blue", "service": "purple"},
    "kind": {"held": "red", "held_leader": "dark-red", "account_unusable": "orange", "restored": "dark-red"},
    "outcome": {"accepted": "green", "held": "red", "refused": "orange", "duplicate": "text"},
    "condition": {"working": "green", "untested": "yellow", "faulty": "orange", "offline": "red", "none": "dark-red"},
    "result": {"confirmed": "green", "unconfirmed": "red"},
}  # of the values of labels that stand alone in a legend


class Query(NamedTuple):
    """One PromQL expression and the legend of its series."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One panel: `kind` stat or lines, `unit` in Grafana's words, `red` the value from which it is red.

    `up`: red at 0, green at 1.
    """

    title: str
    says: str
    unit: str
    queries: Sequence[Query]
    kind: str = "lines"
    width: int = 8
    red: float | None = None
    up: bool = False


def gauge(metric: str, by: str, legend: str = "") -> tuple[Query]:
    """A gauge that several processes may show alike."""
    return (Query(f"max by ({by}) (mingluo_{metric})", legend or f"{{{{{by}}}}}"),)


def counted(metric: str, by: str) -> tuple[Query]:
    """How much a counter grew, per step of the graph."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return (Query(f"sum by ({by}) (increase(mingluo_{metric}_total[$__rate_interval]))", legend),)


def quantiles(metric: str, by: str = "") -> tuple[Query, ...]:
    """The median and the 95th percentile of a histogram over `WINDOW`; `> 0` leaves out where nothing happened."""
    labels = ", ".join(filter(None, ["le", by]))
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", ") if label)
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by ({labels}) (rate(mingluo_{metric}_bucket[{WINDOW}]))) > 0",
            f"{legend} {name}".strip(),
        )
        for share, name in ((0.5, "p50"), (0.95, "p95"))
    )


def at_end(metric: str, by: str, above: str = "") -> tuple[Query]:
    """How much a counter grew over the whole time shown; `above` leaves out what is not worth a place."""
    legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
    return (Query(f"round(sum by ({by}) (increase(mingluo_{metric}_total[$__range]))) {above}".rstrip(), legend),)


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("Is every village reached 村村是否叫应", (
        Panel("Villages now 各状态村数", "Live actual warnings. States stand apart and are never one percentage.",
              "none", gauge("villages", "state"), "stat", 12),
        Panel("Alarms in the time shown 告警次数", "held: somebody must decide now. Each kind: docs/operating.md.",
              "none", at_end("alarms", "kind"), "stat", 12, red=1),
        Panel("Villages over time 村状态变化", "A gap that does not shrink needs a telephone, not patience.",
              "none", gauge("villages", "state"), width=12),
        Panel("Alarms 告警", "When they rang.", "none", counted("alarms", "kind"), width=6),
        Panel("Alerts taken in 接收预警", "What became of them.", "none", counted("alerts", "outcome"), width=6),
    )),
    ("Is the red one fast 红色是否快", (
        Panel("Accepted 受理用时", "Last byte read to 202, by route. Everything after it is safe on disk.",
              "s", quantiles("accept_seconds", "route"), width=12),
        Panel("First device written 首个喇叭下发", "Last byte read to the first loudspeaker's socket.",
              "s", quantiles("first_socket_seconds"), width=12),
        Panel("First submitted 首条提交", "Due to an alert's first submit. Green belongs below 1 s.",
              "s", quantiles("first_submitted_seconds", "channel, lane"), width=12),
        Panel("All submitted 全部提交", "Due to each batch's settling; p95 is near the last village.",
              "s", quantiles("all_submitted_seconds", "channel, lane"), width=12),
    )),
    ("Is anything stuck 是否有积压", (
        Panel("Oldest due batch 最老待发批次", "Green above 5 s, urgent above 60 s: alarm. Without loudspeakers.",
              "s", gauge("outbox_age_seconds", "lane")),
        Panel("Unfinished batches 未完成批次", "Without an outcome; in the store, so nothing is lost.",
              "none", gauge("outbox_unfinished", "lane")),
        Panel("Waiting, by why 等待原因", "What has no outcome yet; mingluo stuck names the alerts.",
              "none", gauge("waiting_batches", "reason"), width=12),
        Panel("Carriers down 通道中断", "1: the carrier serves nobody of that worker; asked again by itself.",
              "none", gauge("channel_down", "channel"), "stat", 6, red=1),
        Panel("Log lines lost 丢失日志", "The disk of the log is full.", "none",
              (Query("sum(mingluo_log_lines_lost_total)", "lost"),), "stat", 6, red=1),
        Panel("Waiting in the broker 队列积压", "Batches ready in the queues.", "none", gauge("queue_depth", "lane")),
        Panel("Database and broker 数据库与队列", "Database 0: nothing is taken in. Broker 0: green goes on.",
              "none", (*gauge("store_up", "store"), *gauge("broker_up", "broker")), "stat", 4, up=True),
        Panel("Publishes unconfirmed 未确认发布", "Offered again by the sweeper.", "none",
              (Query('sum by (lane) (increase(mingluo_publishes_total{result="unconfirmed"}[$__rate_interval]))',
                     "{{lane}}"),), width=5),
        Panel("Publishes 发布", "By result.", "none", counted("publishes", "result"), width=5),
        Panel("Claims lapsed 租约过期", "A worker died or hung while it sent; see possible duplicates.",
              "none", counted("claims_lapsed", "channel"), width=5),
        Panel("Retries 重试", "By the error that asked for it.", "none", counted("retries", "channel, why"), width=5),
        Panel("Unmatched reports 未匹配回执", "Reports whose submit has not shown up.", "none",
              (Query("max(mingluo_unmatched_reports)", "unmatched"),), width=12),
        Panel("Numbers of another carrier 携号转网", "A carrier said so: the next ones are tried, each once.", "none",
              counted("elsewhere", "channel"), width=12),
    )),
    ("Deliveries 送达", (
        Panel("Reached at settle, in the time shown 发送结果",
              "Submitted is not delivered: the carrier has it, the phone may not.", "none",
              at_end("deliveries", "channel, state", "> 0"), "stat", 12),
        Panel("Replies, in the time shown 回复", "What people texted back, by what it means; other waits for a clerk.",
              "none", at_end("replies", "meaning"), "stat", 24),
        Panel("Reports, in the time shown 回执", "Later facts from carriers and devices.", "none",
              at_end("reports", "channel, state", "> 0"), "stat", 12),
        Panel("Recipients per second 每秒人数", "By channel and state at settle.", "none",
              (Query("sum by (channel, state) (rate(mingluo_deliveries_total[$__rate_interval])) > 0",
                     "{{channel}} {{state}}"),), width=12),
        Panel("Possible duplicates 可能重复", "Doubtful recipients of red sent once more, marked 再次提醒 (rule 2).",
              "none", counted("possible_duplicates", "channel"), width=12),
    )),
    ("Devices 设备", (
        Panel("Loudspeakers online 在线喇叭", "Over all hubs.", "none",
              (Query("sum by (channel) (mingluo_devices_online)", "{{channel}}"),), "stat", 6),
        Panel("Villages without a working loudspeaker 无可用喇叭的村", "mingluo report devices names them.", "none",
              gauge("mute_villages", "condition"), "stat", 9, red=1),
        Panel("Village alarms, in the time shown 村级报警", "Sounded by villages themselves; mingluo speaker alarms.",
              "none", (Query("round(sum(increase(mingluo_village_alarms_total[$__range])))", "alarms"),), "stat", 9,
              red=1),
        Panel("Loudspeakers by condition 喇叭状态", "Untested: no drill, self-test or broadcast for too long.", "none",
              gauge("speakers", "condition"), width=12),
        Panel("Orders 喇叭指令", "Volume, self-tests, settings, clocks: how they ended.", "none",
              counted("speaker_orders", "outcome"), width=12),
        Panel("Drills 演练", "Planned, approved, begun, refused, cancelled, in the time shown.", "none",
              (Query("round(sum by (kind, result) (increase(mingluo_drills_total[$__range]))) > 0",
                     "{{kind}} {{result}}"),), "stat", 6),
        Panel("Certificates, days left 证书剩余天数", "Of channels that have any; mingluo doctor.", "none",
              (Query("max by (channel) (mingluo_certificate_days)", "{{channel}}"),), "stat", 6),
        Panel("Loudspeakers over time 在线变化", "A step down is a network, a slope is power.", "none",
              (Query("sum by (channel) (mingluo_devices_online)", "{{channel}}"),), width=12),
    )),
)  # fmt: skip


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append({
            "id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top},
        })  # fmt: skip
        top += 1
        left = 0
        for panel in row:
            if left + panel.width > WIDTH:
                left, top = 0, top + HEIGHT
            place = {"h": HEIGHT, "w": panel.width, "x": left, "y": top}
            panels.append(_panel(panel, len(panels) + 1, place))
            left += panel.width
        top += HEIGHT
    return _frame(panels)


def _frame(panels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    source = {
        "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {},
        "hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "", "skipUrlSync": False,
    }  # fmt: skip
    return {
        "annotations": {"list": []}, "description": "The gateway's own view. What each alarm means: docs/operating.md.",
        "editable": True, "fiscalYearStartMonth": 0, "graphTooltip": 1, "id": None, "links": [],
        "panels": panels, "refresh": "10s", "schemaVersion": 39, "tags": ["mingluo"],
        "templating": {"list": [source]}, "time": {"from": "now-3h", "to": "now"}, "timepicker": {},
        "timezone": "Asia/Shanghai", "title": "Mingluo 鸣锣", "uid": "mingluo", "version": 1, "weekStart": "",
    }  # fmt: skip


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    calm = "red" if panel.up else "text" if panel.kind == "stat" else "green"
    steps: list[dict[str, Any]] = [{"color": calm, "value": None}]
    if panel.up:
        steps.append({"color": "green", "value": 1})
    elif panel.red is not None:
        steps.append({"color": "red", "value": panel.red})
    defaults: dict[str, Any] = {
        "unit": panel.unit, "min": 0, "decimals": 0 if panel.kind == "stat" else None,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }  # fmt: skip
    if panel.kind == "lines":
        defaults["custom"] = {"drawStyle": "line", "lineWidth": 2, "fillOpacity": 8, "spanNulls": False,
                              "showPoints": "auto"}  # fmt: skip
    return {
        "id": number,
        "type": "stat" if panel.kind == "stat" else "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {k: v for k, v in defaults.items() if v is not None}, "overrides": _colours(panel)},
        "options": _options(panel.kind),
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "editorMode": "code", "expr": query.expr,
             "range": panel.kind == "lines", "instant": panel.kind == "stat", "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
    }  # fmt: skip


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "justifyMode": "auto",
                "orientation": "auto", "textMode": "value_and_name", "wideLayout": True}  # fmt: skip
    legend = {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True}
    return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}


def _colours(panel: Panel) -> list[dict[str, Any]]:
    """Give a state or lane the same colour wherever it stands alone in the legend."""
    legend = panel.queries[0].legend
    return [
        {"matcher": {"id": "byName", "options": name},
         "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
        for label, colours in COLOURS.items() if legend == f"{{{{{label}}}}}"
        for name, colour in colours.items()
    ]  # fmt: skip


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf8")
