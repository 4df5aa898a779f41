"""Several infos of one language: each place is told by the info that speaks of it, on every channel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from api_support import ISSUER, JIALOU, REGIONS, SIGNER, TONGSHAN, Desk, opened
from hypothesis import given
from hypothesis import strategies as st
from manual_clock import ManualClock

from gateway.api.shape import EXAMPLE
from gateway.case import lost
from gateway.compose import spoken_of
from gateway.model import Alert, Area, Code, Document, Group, Info, Kind, Level, Status, Target
from gateway.telling import divided, lapses, tellings, voices

HUAYUAN = "411702001"
FIRST, SECOND, THIRD = (one.code for one in REGIONS.villages(JIALOU)[:3])
FLAT = {
    name: value for name, value in EXAMPLE.items() if name not in ("headline", "description", "instruction", "areas")
}
HARD = {"description": "未来3小时雨量将超100毫米。", "instruction": "立即转移危险区群众。"}
SOFT = {"description": "未来6小时雨量将达50毫米。", "instruction": "做好转移准备。"}


def info(words: dict[str, str], *places: str, **more: Any) -> dict[str, Any]:
    kind = "township" if len(places[0]) == len(JIALOU) else "village"
    names = "、".join(REGIONS.name(one) for one in places)
    return words | {"areas": [{"description": names, "geocodes": {kind: list(places)}}]} | more


def message(*infos: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = FLAT | {"infos": list(infos)} | changes
    body.pop("expires", None)
    return body


@pytest.fixture
async def desk(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Desk]:
    async with opened(tmp_path, clock) as one:
        yield one


async def issue(desk: Desk, *infos: dict[str, Any], **changes: Any) -> Any:
    response, answer = await desk.call("POST", "/v1/alerts", ISSUER, message(*infos, **changes))
    assert response.status == 202, answer
    while await desk.planner.round():
        pass
    return answer


async def heard(desk: Desk, alert: str, **changes: Any) -> dict[tuple[str, str, str], str]:
    """What each batch is told: (township, channel, group) → text of its first recipient."""
    found = {}
    for batch, _ in await desk.core.store.ledger.batches(alert):
        asked = replace(batch, **changes)
        said = await desk.core.composer.message(asked, range(len(asked)), again=False)
        found[batch.township, batch.channel, batch.group.value] = said.text_at(0)
    return found


async def test_each_township_hears_its_own_words_and_only_itself(desk: Desk) -> None:
    """铜山 must not be told the rain, nor the order, that was written for 贾楼."""
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    assert not [one for one in sent["warnings"] if one["code"] == "texts_differ_in_one_language"]
    texts = await heard(desk, sent["id"])
    assert {(township, group) for township, _, group in texts} == {
        (township, group) for township in (JIALOU, TONGSHAN) for group in ("officials", "residents")
    }
    for (township, _, group), text in texts.items():
        own, other = (HARD, SOFT) if township == JIALOU else (SOFT, HARD)
        assert ("100毫米" in text, "50毫米" in text) == (own is HARD, own is SOFT)
        assert own["instruction"][:-1] in text or group == "officials"
        assert other["instruction"][:-1] not in text
        assert ("贾楼乡" in text, "铜山乡" in text) == (township == JIALOU, township == TONGSHAN)


async def test_others_are_counted_among_those_the_words_hold_for(desk: Desk) -> None:
    """贾楼乡等2个乡镇雨量将超100毫米: of a third township nobody has said so."""
    wet = ("411726209", "411726204")
    sent = await issue(desk, info(HARD, *wet), info(SOFT, "411726205"))
    texts = await heard(desk, sent["id"])
    assert all("等3" not in text for text in texts.values())
    assert any("等2个乡镇" in text for text in texts.values())


async def test_a_loudspeaker_speaks_the_words_of_its_own_township(desk: Desk) -> None:
    """What is read aloud to a village is as much its own as what is texted."""
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    texts = await heard(desk, sent["id"], channel="loudspeaker_ws", group=Group.LOUDSPEAKERS)
    assert {township for township, *_ in texts} == {JIALOU, TONGSHAN}
    for (township, *_), text in texts.items():
        assert ("一百毫米" in text, "五十毫米" in text) == (township == JIALOU, township == TONGSHAN)


async def test_a_stranger_to_the_language_is_told_of_the_own_place_too(desk: Desk) -> None:
    """An English text for 贾楼 alone says nothing of 铜山; there the templates say what needs no words."""
    english = {"description": "More than 100 mm of rain in the next 3 hours.", "language": "en", "event": "Rainstorm"}
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN), info(english, JIALOU))
    texts = await heard(desk, sent["id"], language="en")
    for (township, channel, _), text in texts.items():
        assert ("100 mm" in text) == (township == JIALOU and channel == "noop")  # an SMS has no room for it
        assert "red rainstorm" in text.lower()


async def test_who_answers_for_places_of_two_infos_hears_what_each_says_of_its_own(desk: Desk) -> None:
    """One message names all places (rule 6), and none of them with the other's rain."""
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    several = {0: (JIALOU, TONGSHAN)}
    for (_, channel, _), text in (await heard(desk, sent["id"], places=several)).items():
        assert "影响贾楼乡、铜山乡" in text
        assert "贾楼乡：未来3小时雨量将超100毫米；铜山乡：未来6小时雨量将达50毫米" in text or channel.startswith("sms")
        assert text.index("100毫米") < text.index("50毫米") if "50毫米" in text else "铜山乡：" not in text


async def test_villages_of_one_township_may_hear_different_words(desk: Desk) -> None:
    """The villages by the river go, those on the hill stay; the township's own post hears both."""
    sent = await issue(desk, info(HARD, FIRST), info(SOFT, SECOND, THIRD))
    [batch, *_] = [batch for batch, _ in await desk.core.store.ledger.batches(sent["id"])]
    people = tuple(range(4))
    homes = ((FIRST, 1), (SECOND, 1), (THIRD, 1), ("", 1))
    both = replace(batch, channel="noop", persons=people, addresses=("",) * 4, villages=homes, places={})
    said = await desk.core.composer.message(both, people, again=False)
    assert said.texts is not None
    assert [("100毫米" in text, "50毫米" in text) for text in said.texts] == [
        (True, False), (False, True), (False, True), (True, True),
    ]  # fmt: skip
    assert REGIONS.name(SECOND) not in said.texts[0]
    assert f"{REGIONS.name(FIRST)}：" in said.texts[3]
    alone = await desk.core.composer.message(replace(both, villages=((SECOND, 4),)), (2,), again=False)
    assert "50毫米" in alone.text_at(0)  # a page of the hill alone does not fall back to the river's words


async def test_the_preview_shows_every_wording_and_the_real_run_says_it(desk: Desk) -> None:
    """Who approves sees what each part of the area will be told."""
    body = message(info(HARD, JIALOU), info(SOFT, TONGSHAN))
    response, shown = await desk.call("POST", "/v1/alerts/preview", ISSUER, body)
    assert response.status == 200
    texts = {(one["township"], one["channel"], one["group"]): one for one in shown["texts"]}
    assert {(township, one["info"]) for (township, *_), one in texts.items()} == {(JIALOU, 1), (TONGSHAN, 2)}
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    for key, text in (await heard(desk, sent["id"])).items():
        assert texts[key]["text"] == text


async def test_lint_looks_at_every_wording(desk: Desk) -> None:
    """A phone number in the second info is as fatal as in the first."""
    spoilt = SOFT | {"instruction": "做好转移准备，加微信领取。"}
    plain = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    sent = await issue(desk, info(HARD, JIALOU), info(spoilt, TONGSHAN), identifier="again")
    codes = [{one["code"] for one in answer["warnings"]} for answer in (plain, sent)]
    assert codes[1] - codes[0] == {"forbidden", "same_text"}  # of the first info it says so, too


async def test_where_two_infos_name_one_place_the_first_is_told_and_the_issuer_hears_of_it(desk: Desk) -> None:
    """Words that nobody will hear must not seem sent."""
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, FIRST))
    [found] = [one for one in sent["warnings"] if one["code"] == "texts_differ_in_one_language"]
    assert "贾楼乡" in found["message"]
    texts = await heard(desk, sent["id"])
    assert all("100毫米" in text for (township, *_), text in texts.items() if township == JIALOU)


async def test_what_waited_for_its_signature_still_knows_who_speaks_to_whom(desk: Desk) -> None:
    """Planned anew when it is signed, it must not fall back to the first info's words for all."""
    hot = {"event_code": "11B09", "event": "高温", "level": "orange"}
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN), **hot)
    response, _ = await desk.call("POST", f"/v1/alerts/{sent['id']}/approve", SIGNER)
    assert response.status == 200
    while await desk.planner.round():
        pass
    for (township, *_), text in (await heard(desk, sent["id"])).items():
        assert ("50毫米" in text) == (township == TONGSHAN)


async def test_an_end_in_words_of_its_own_for_each_area_is_told_so(desk: Desk) -> None:
    """A correction may explain itself differently to those it moved out and those it only worried."""
    sent = await issue(desk, info(HARD, JIALOU), info(SOFT, TONGSHAN))
    desk.clock.advance(1)
    said = {name: EXAMPLE[name] for name in ("sender", "identifier", "sent")}
    ours = [info({"description": "已转移群众可以返回"}, JIALOU), info({"description": "无需转移"}, TONGSHAN)]
    changes = {
        "kind": "Correction",
        "references": [said],
        "identifier": "withdrawn",
        "sent": "2026-07-20T14:00:00+08:00",
    }
    response, made = await desk.call("POST", "/v1/alerts", SIGNER, message(*ours, **changes))
    assert (response.status, made["standing"]) == (202, "active"), made
    while await desk.planner.round():
        pass
    texts = await heard(desk, made["id"])
    assert sent["id"] != made["id"]
    for (township, *_), text in texts.items():
        assert ("无需转移" in text) == (township == TONGSHAN), text
        assert "误发" in text


async def test_the_words_for_one_area_do_not_leave_after_they_have_lapsed(desk: Desk) -> None:
    """Rule 4 holds for each part: a village must not hear at six what was said to hold until four."""
    soon, late = ("2026-07-20T16:00:00+08:00", "2026-07-20T18:00:00+08:00")
    sent = await issue(desk, info(HARD, JIALOU, expires=soon), info(SOFT, TONGSHAN, expires=late))
    batches = [batch for batch, _ in await desk.core.store.ledger.batches(sent["id"])]
    assert {(batch.township, batch.deadline) for batch in batches if batch.group is Group.OFFICIALS} == {
        (JIALOU, datetime.fromisoformat(soon)),
        (TONGSHAN, datetime.fromisoformat(late)),
    }


# --- who speaks -----------------------------------------------------------------------------------


def alert(*infos: Info) -> Alert:
    return Alert(
        "s", "i", ManualClock().now(), Status.ACTUAL, Kind.ALERT, Document.WARNING, "11B03", "暴雨", Level.RED, infos
    )  # fmt: skip


def zh(words: str, **more: Any) -> Info:
    return Info("暴雨", language="zh-CN", description=words, **more)


def test_infos_that_say_the_same_are_one_and_need_no_parts() -> None:
    """A feed that repeats its text per area must not double every text we render and keep."""
    one = alert(zh("雨"), zh("雨"), Info("rain", description="rain"))
    parts = ((Target(JIALOU),), (Target(TONGSHAN),), (Target(JIALOU), Target(TONGSHAN)))
    assert divided(one, parts) == ()
    two = alert(zh("雨"), zh("风"), zh("雨"))
    assert divided(two, parts)[0] == (Target(TONGSHAN), Target(JIALOU))
    assert divided(two, parts)[2] == ()
    assert tellings(two, "zh") == tellings(two, "fr") == (0, 1)


def test_words_lapse_by_their_own_language() -> None:
    """Rule 4: that the English words of a place hold two hours longer brings no Chinese ones after their end."""
    noon = ManualClock().now()
    soon, late, last = (noon + timedelta(hours=hours) for hours in (1, 3, 5))
    english = Info("rain", language="en", description="rain", expires=late)
    told = replace(alert(zh("一", expires=soon), zh("二", expires=last), english), expires=last)
    parts = ((Target(JIALOU),), (Target(TONGSHAN),), (Target(JIALOU), Target(HUAYUAN)))
    assert lapses(told, parts, "zh") == ((HUAYUAN, late), (JIALOU, soon))
    assert lapses(told, parts, "en") == ((HUAYUAN, late), (JIALOU, late))


def test_a_certain_match_speaks_before_one_that_was_only_touched() -> None:
    """A polygon's ragged edge must not put another area's words into a township that was named."""
    one = alert(zh("雨"), zh("风"))
    parts = ((Target(JIALOU, how="touching", certain=False),), (Target(JIALOU),))
    assert voices(one, parts, "zh", (JIALOU,)) == ((1, (JIALOU,)),)
    assert lost(one, parts, str) == ()


def test_a_translation_whose_places_nobody_knows_speaks_everywhere() -> None:
    """No table of ours knows a "Jialou"; the English text must not be lost for it."""
    one = alert(zh("雨"), zh("风"), Info("rain", language="en", description="rain"))
    parts = ((Target(JIALOU),), (Target(TONGSHAN),), ())
    assert voices(one, parts, "en", (TONGSHAN,)) == ((2, (TONGSHAN,)),)


def test_a_place_that_no_info_names_is_told_by_the_first() -> None:
    """Under the emergency regime the neighbours hear, too; somebody has to speak to them."""
    one = alert(zh("雨"), zh("风"))
    parts = ((Target(JIALOU),), (Target(TONGSHAN),))
    assert voices(one, parts, "zh", (HUAYUAN,)) == ((0, (HUAYUAN,)),)
    assert spoken_of(parts[0], (Target(HUAYUAN),), HUAYUAN) == (Target(HUAYUAN),)


TARGETS = st.builds(
    Target, st.sampled_from((JIALOU, TONGSHAN)),
    st.sampled_from(((), (FIRST,), (SECOND, THIRD))), certain=st.booleans(),
).filter(lambda one: not one.villages or one.township == JIALOU)  # fmt: skip


@given(
    st.lists(st.tuples(st.sampled_from("雨风雪"), st.lists(TARGETS, max_size=3)), min_size=1, max_size=4),
    st.lists(st.sampled_from((JIALOU, TONGSHAN, FIRST, SECOND, THIRD)), min_size=1, max_size=3),
)
def test_every_place_is_spoken_of_and_by_an_info_that_holds_it(
    infos: list[tuple[str, list[Target]]], places: list[str]
) -> None:
    """Nobody is left without words, and nobody hears words for elsewhere where there are some for here."""
    one = alert(*(zh(words) for words, _ in infos))
    parts = divided(one, tuple(tuple(part) for _, part in infos))
    said = voices(one, parts, "zh", tuple(places))
    if not parts:
        assert said == ()
        return
    named = {place for _, places_ in said for place in places_}
    assert [number for number, _ in said] == sorted({number for number, _ in said})
    assert all(place in named or any(other.startswith(place) for other in named) for place in places)
    holds = {
        place: any(t.township == place[:9] and (not t.villages or place in t.villages) for part in parts for t in part)
        for place in named
    }
    for number, places_ in said:
        for place in places_:
            own = [t for t in parts[number] if t.township == place[:9]]
            assert not holds[place] or any(not t.villages or place in t.villages for t in own)


def test_an_info_without_an_area_speaks_of_all() -> None:
    """CAP lets an info leave out its area; it then means what the others name."""
    named = (Area("贾楼乡", geocodes=(Code("township", JIALOU),)),)
    found = REGIONS.resolve_alert(alert(zh("雨", areas=named), zh("风")), ("411726",))
    assert found.parts == (found.targets, found.targets)
    assert REGIONS.resolve_alert(alert(zh("雨", areas=named), zh("风", areas=named)), ("411726",)).parts == ()
