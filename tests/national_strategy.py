"""Messages of the national dialect for property tests, as the writer gives them."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st
from test_cap_roundtrip import lines, maybe, names, points, rings, times

from gateway.cap.national_form import write_time
from gateway.cap.national_table import STATUSES, Message, Method, Methods, Part, Place
from gateway.cap.national_title import write_title
from gateway.cap.table import URGENCIES
from gateway.model import Circle, Level

units = st.from_regex(r"[0-9]{14}", fullmatch=True)
chinese = st.sampled_from(["暴雨", "山洪灾害", "雷雨大风", "地质灾害气象风险", "气象灾害（台风）"])
bodies = st.sampled_from(["泌阳县气象局", "驻马店市突发事件预警信息发布中心", "驻马店市水利局、驻马店市气象台"])
area_codes = st.from_regex(r"[0-9]{12}", fullmatch=True)
circles = st.builds(Circle, points, st.just(0.0) | st.floats(0.1, 20_000))
places = st.builds(
    Place,
    lines,
    st.lists(rings, max_size=2).map(tuple),
    st.lists(circles, max_size=2).map(tuple),
    st.lists(area_codes, max_size=3).map(tuple),
)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message that contradicts itself nowhere; `signer` is the unit, as persons' names are dropped."""
    sent, unit, body = draw(times), draw(units), draw(bodies)
    kind, level = draw(st.sampled_from(["Alert", "Update", "Cancel"])), draw(st.sampled_from(Level))
    code = draw(st.sampled_from(["11B03", "11A51", "12A00", "00000"]))
    entered = "".join(filter(str.isdigit, write_time(sent)[:19]))
    identifier = f"{unit}_{entered}{draw(st.sampled_from(['', '_0', '_7']))}"
    earlier = f"{unit}_20200720{draw(st.integers(10, 23))}{draw(st.integers(10, 59))}00"
    part = st.builds(
        Part,
        event_code=st.just(code),
        level=st.just(level),
        headline=chinese.map(lambda event: write_title(body, kind, event, level)),
        language=st.sampled_from(["zh-CN", "zh", "zh-Hans"]),
        urgency=st.sampled_from(URGENCIES),
        certainty=st.sampled_from(["Observed", "Likely", "Unlikely", "Unknown"]),
        effective=st.just(sent),
        onset=st.none() | st.just(sent),
        expires=st.none() | st.integers(1, 90_000).map(lambda seconds: sent + timedelta(seconds=seconds)),
        signer=st.just(body),
        description=lines,
        instruction=maybe,
        web=st.sampled_from([None, "https://mingluo.example/a?b=1&c=2"]),
        areas=st.lists(places, max_size=2).map(tuple),
    )
    return Message(
        identifier=identifier,
        unit_name=body,
        unit=unit,
        sent=sent,
        status=draw(st.sampled_from(STATUSES)),
        kind=kind,
        parts=tuple(draw(st.lists(part, min_size=1, max_size=2))),
        code=Methods(tuple(draw(st.lists(st.builds(Method, names), max_size=2)))),
        note=draw(maybe),
        references=() if kind == "Alert" else (earlier,),
    )
