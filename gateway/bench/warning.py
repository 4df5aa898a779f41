"""The warnings that `gateway.bench.intake` has posted: some 2 KB as a county observatory writes them, and one giant.

Each says its own identifier in its text: two that differ in numbers only would be near-duplicates (D4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway.model import Alert, Area, Code, Document, Info, Kind, Level, Point, Status

POINTS = 41_000
MIDDLE, HEIGHT, WIDTH = Point(32.74, 113.3), 0.12, 0.25
"""Centre and half axes, in degrees, of an ellipse within 泌阳县."""

_DESCRIPTION = (
    "受强对流云团影响，预计未来3小时内{what}，并可能伴有短时强降水、雷电等强对流天气，"
    "部分乡镇累计雨量可达50毫米以上，山洪、地质灾害和城乡积涝气象风险较高，请各单位和公众加强防范。"
)
_INSTRUCTION = (
    "1.政府及相关部门按照职责做好防御应急工作；2.停止露天集体活动和户外作业，人员转移到安全场所；"
    "3.加固围板、棚架、广告牌，切断危险地带的室外电源；4.检查农田、鱼塘排水系统，做好防御准备；"
    "5.行人和车辆避开低洼路段、桥涵和山洪沟口，驾驶人员减速慢行；6.各村预警责任人逐户通知，并及时回复。"
)


def yellow_gale(sender: str, identifier: str, townships: Sequence[str]) -> Alert:
    """Return a yellow gale warning, which is not on the green channel's list and waits for a second person."""
    return _warning(sender, identifier, "11B06", "大风", Level.YELLOW, "平均风力可达6级以上、阵风8级", townships)


def rain(sender: str, identifier: str, townships: Sequence[str]) -> Alert:
    """Return a red rainstorm warning, which goes out at once."""
    return _warning(sender, identifier, "11B03", "暴雨", Level.RED, "将有100毫米以上强降雨", townships)


def polygon_gale(sender: str, identifier: str, townships: Sequence[str]) -> Alert:
    """Return a yellow gale warning whose area is a polygon of 41,000 points and no code."""
    alert = yellow_gale(sender, identifier, townships)
    turns = [2 * math.pi * step / POINTS for step in range(POINTS)]
    ring = tuple(
        Point(round(MIDDLE.lat + HEIGHT * math.sin(turn), 6), round(MIDDLE.lon + WIDTH * math.cos(turn), 6))
        for turn in turns
    )
    area = replace(alert.infos[0].areas[0], geocodes=(), polygons=((*ring, ring[0]),))
    return replace(alert, infos=(replace(alert.infos[0], areas=(area,)),))


def _warning(
    sender: str, identifier: str, code: str, event: str, level: Level, what: str, townships: Sequence[str]
) -> Alert:
    now = datetime.now(UTC).replace(microsecond=0)
    info = Info(
        event, language="zh-CN", urgency="Immediate", severity=_SEVERITY[level], certainty="Likely",
        event_codes=(Code("GB/T 35561", code),), effective=now, onset=now, expires=now + timedelta(hours=3),
        sender_name="泌阳县气象局", headline=f"泌阳县气象局发布{event}{_COLOUR[level]}预警",
        description=f"{_DESCRIPTION.format(what=what)}（{identifier}）", instruction=_INSTRUCTION,
        contact="泌阳县气象局值班室", web="https://qxj.mingluo.example/warnings/11B",
        areas=(Area("泌阳县部分乡镇", geocodes=tuple(Code("township", code) for code in townships)),),
    )  # fmt: skip
    return Alert(
        sender, identifier, now, Status.ACTUAL, Kind.ALERT, Document.WARNING, code, event, level, infos=(info,)
    )


_SEVERITY = {Level.YELLOW: "Moderate", Level.RED: "Extreme"}
_COLOUR = {Level.YELLOW: "黄色", Level.RED: "红色"}
