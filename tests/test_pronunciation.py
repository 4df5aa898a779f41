"""How Hanzi are read aloud: every place by its own name, every word of a warning by its right reading."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from town import places

from gateway.errors import ConfigError
from gateway.render import spoken
from gateway.speech.engine import Engine, line
from gateway.speech.pronunciation import PAUSES, Pronunciation, readings

CONFIG = Path(__file__).parent.parent / "config"
TABLE = Pronunciation.load(CONFIG)
TOKEN = re.compile(rf"[a-z]{{1,6}}[1-5]|[{PAUSES}]")
COUNTIES = [one for one in places().places.values() if one.kind in ("city", "county", "township")]


@cache
def engine() -> Engine:
    """The synthesiser of this process."""
    return Engine()


def said(text: str) -> str:
    return " ".join(TABLE.read(spoken(text)))


def test_every_county_and_township_stands_in_the_table() -> None:
    """A name left to a general dictionary is read right until somebody updates it."""
    assert [one.name for one in COUNTIES if one.name not in TABLE.words] == []
    assert len([one for one in COUNTIES if one.kind == "township"]) == 208


def test_every_reading_in_the_table_is_one_of_its_hanzi() -> None:
    """A typing error would name a place nobody lives in."""
    wrong = [
        (word, one, syllable)
        for word, syllables in TABLE.words.items()
        for one, syllable in zip(word, syllables, strict=True)
        if syllable not in readings(one)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "pinyin"),
    [
        ("泌阳县", "bi4 yang2 xian4"),
        ("泌水街道", "bi4 shui3 jie1 dao4"),
        ("驿城区", "yi4 cheng2 qu1"),
        ("平舆县", "ping2 yu2 xian4"),
        ("遂平县", "sui4 ping2 xian4"),
        ("嵖岈山风景区", "cha2 ya2 shan1 feng1 jing3 qu1"),
        ("查岈山镇", "cha2 ya2 shan1 zhen4"),
        ("洙湖镇", "zhu1 hu2 zhen4"),
        ("宿鸭湖街道", "su4 ya1 hu2 jie1 dao4"),
        ("蔡都街道", "cai4 du1 jie1 dao4"),
        ("重阳街道", "chong2 yang2 jie1 dao4"),
        ("重渠乡", "chong2 qu2 xiang1"),
        ("佛阁寺镇", "fo2 ge2 si4 zhen4"),
        ("任店镇", "ren2 dian4 zhen4"),
        ("华陂镇", "hua2 bei1 zhen4"),
        ("柏城街道", "bai3 cheng2 jie1 dao4"),
        ("嫘祖镇", "lei2 zu3 zhen4"),
        ("瞿阳街道", "qu2 yang2 jie1 dao4"),
        ("闾河乡", "lv2 he2 xiang1"),
        ("古吕街道", "gu3 lv3 jie1 dao4"),
        ("栎城乡", "li4 cheng2 xiang1"),
        ("朗陵街道", "lang3 ling2 jie1 dao4"),
        ("石寨铺镇", "shi2 zhai4 pu4 zhen4"),
        ("万冢镇", "wan4 zhong3 zhen4"),
        ("黄埠镇", "huang2 bu4 zhen4"),
        ("三门闸街道", "san1 men2 zha2 jie1 dao4"),
        ("任庄村", "ren2 zhuang1 cun1"),
        ("翟庄村", "zhai2 zhuang1 cun1"),
        ("单庄村", "shan4 zhuang1 cun1"),
        ("曾庄村", "zeng1 zhuang1 cun1"),
    ],
)
def test_a_place_is_called_what_its_people_call_it(name: str, pinyin: str) -> None:
    """Who hears another name does not leave the house."""
    assert said(f"{name}有暴雨") == f"{pinyin} you3 bao4 yu3"


@pytest.mark.parametrize(
    ("text", "pinyin"),
    [
        ("重要通知", "zhong4 yao4 tong1 zhi1"),
        ("重新发布", "chong2 xin1 fa1 bu4"),
        ("银行", "yin2 hang2"),
        ("行人", "xing2 ren2"),
        ("还有雨", "hai2 you3 yu3"),
        ("归还", "gui1 huan2"),
        ("雨还没过去", "yu3 hai2 mei2 guo4 qu4"),
        ("水没过膝盖", "shui3 mo4 guo4 xi1 gai4"),
        ("淹没", "yan1 mo4"),
        ("持续时间长", "chi2 xu4 shi2 jian1 chang2"),
        ("长时间", "chang2 shi2 jian1"),
        ("河长、镇长", "he2 zhang3 、 zhen4 zhang3"),
        ("都要转移", "dou1 yao4 zhuan3 yi2"),
        ("上蔡都有雨", "shang4 cai4 dou1 you3 yu3"),
        ("必须得走", "bi4 xu1 dei3 zou3"),
        ("得到安置", "de2 dao4 an1 zhi4"),
        ("都得到安置", "dou1 de2 dao4 an1 zhi4"),
        ("降雨", "jiang4 yu3"),
        ("投降", "tou2 xiang2"),
        ("由红色降为橙色", "you2 hong2 se4 jiang4 wei2 cheng2 se4"),
        ("升级为红色", "sheng1 ji2 wei2 hong2 se4"),
        ("因为", "yin1 wei4"),
        ("预警解除", "yu4 jing3 jie3 chu2"),
        ("转移群众", "zhuan3 yi2 qun2 zhong4"),
        ("积水", "ji1 shui3"),
        ("低洼处", "di1 wa1 chu4"),
        ("妥善处理", "tuo3 shan4 chu3 li3"),
        ("水位上涨", "shui3 wei4 shang4 zhang3"),
        ("应立即转移", "ying1 li4 ji2 zhuan3 yi2"),
        ("应急响应", "ying4 ji2 xiang3 ying4"),
        ("避难场所", "bi4 nan4 chang3 suo3"),
        ("强降水", "qiang2 jiang4 shui3"),
        ("干旱", "gan1 han4"),
        ("村干部", "cun1 gan4 bu4"),
        ("冲毁", "chong1 hui3"),
        ("冰雹", "bing1 bao2"),
        ("疏散", "shu1 san4"),
        ("露天作业", "lu4 tian1 zuo4 ye4"),
        ("大棚倒塌", "da4 peng2 dao3 ta1"),
        ("看护", "kan1 hu4"),
        ("到岗", "dao4 gang3"),
        ("数小时", "shu4 xiao3 shi2"),
        ("着火", "zhao2 huo3"),
        ("更正", "geng1 zheng4"),
        ("调度", "diao4 du4"),
        ("撒盐", "sa3 yan2"),
        ("暴晒", "bao4 shai4"),
        ("不下河", "bu2 xia4 he2"),
        ("不停留", "bu4 ting2 liu2"),
        ("一百一十一毫米", "yi4 bai3 yi1 shi2 yi1 hao2 mi3"),
        ("一万人", "yi2 wan4 ren2"),
        ("第一次、十一日", "di4 yi1 ci4 、 shi2 yi1 ri4"),
        ("停止一切户外活动", "ting2 zhi3 yi2 qie4 hu4 wai4 huo2 dong4"),
    ],
)
def test_a_word_of_a_warning_is_read_as_it_is_meant(text: str, pinyin: str) -> None:
    """One syllable read wrong, and a sentence heard once in the wind is lost."""
    assert said(text) == pinyin


def test_no_place_of_the_region_has_a_silent_syllable() -> None:
    """A rare Hanzi in a village's name must be heard, not skipped."""
    silent = {one.name: found for one in places().places.values() if (found := TABLE.silent(one.spoken))}
    assert silent == {}


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_nothing_but_syllables_and_pauses_reaches_the_voice(text: str) -> None:
    """What is neither would be spelled in English in the middle of a warning."""
    assert [token for token in TABLE.read(spoken(text)) if not TOKEN.fullmatch(token)] == []


@given(st.text(alphabet="0123456789.-~～%℃mkh/³①Ⅲ＋×≥#№年月日时分毫米，", max_size=30))
def test_what_is_ready_to_be_spoken_stays_as_it_is(text: str) -> None:
    """A text passes the gateway and the speech: twice made ready must not be said otherwise."""
    assert spoken(spoken(text)) == spoken(text)


@pytest.mark.parametrize(
    ("written", "said_"),
    [
        ("1#闸门", "一号闸门"),
        ("No.3水库", "三号水库"),
        ("300万m³", "三百万立方米"),
        ("拨打12379", "拨打幺二三七九"),
        ("值班电话：0396-2601234。", "值班电话，零三九六二六零幺二三四。"),
        ("第2天", "第二天"),
        ("50 %", "百分之五十"),
        ("2026.7.20", "二零二六年七月二十日"),
        ("Ⅺ级", "十一级"),
        ("10min后", "十分钟后"),
        ("北纬32°48′", "北纬三十二度四十八分"),
        ("35kV线路", "三十五千伏线路"),
    ],
)
def test_gaps_in_numbers_are_closed(written: str, said_: str) -> None:
    """Each of these was read in English or left out."""
    assert spoken(written) == said_


def test_letters_are_spelled() -> None:
    """A road is called by its letter."""
    assert said("G107国道") == "ji4 yi4 bai3 ling2 qi1 guo2 dao4"


def test_biyang_is_pronounced_bi() -> None:
    """The county's name, from text to phonemes: pʰ would be another county, m the wrong reading."""
    assert engine().phonemes(line(TABLE.read("泌阳")), "zh").split() == ["p'i51_|", "j'iA35N_|"]


def test_the_voice_knows_every_syllable_of_every_place() -> None:
    """What it does not know it spells in English: 熊寨 was "kay ess"."""
    for one in COUNTIES:
        assert "(en)" not in engine().phonemes(line(TABLE.words[one.name]), "zh"), one.name


def test_the_voice_reads_every_common_hanzi() -> None:
    """All 6,763 of GB 2312, which texts and names are written in: none is skipped, none spelled in English."""
    pairs = (bytes([row, cell]) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    common = "".join(pair.decode("gb2312", "ignore") for pair in pairs)
    assert len(common) == 6763
    for at in range(0, len(common), 100):
        tokens = TABLE.read(common[at : at + 100])
        assert len(tokens) == len(common[at : at + 100])
        assert "(en)" not in engine().phonemes(line(tokens), "zh")


@pytest.mark.parametrize("syllable", ["xiong", "qiong", "jiong"])
@pytest.mark.parametrize("tone", range(1, 6))
def test_the_syllables_the_voice_lacks_are_lent_to_it(syllable: str, tone: int) -> None:
    """汹, 穷, 迥: they sound like their neighbours, with the tone they have."""
    contour = {1: "55", 2: "35", 3: "214", 4: "51", 5: "11"}[tone]
    phonemes = engine().phonemes(line([f"{syllable}{tone}"]), "zh")
    assert f"j'ong{contour}_" in phonemes
    assert "(en)" not in phonemes


@pytest.mark.parametrize(
    "row",
    ["泌阳,bi4", "泌阳,bi4 yang", "Biyang,bi4", "泌阳,bi4 yang6", "泌阳,[[ yang2", "泌阳,", ",bi4", "泌 阳,bi4 yang2"],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str) -> None:
    """The operator who extends the table learns at once which line is wrong."""
    (tmp_path / "pronunciation.csv").write_text(f"word,pinyin,note\n重要,zhong4 yao4,\n{row},\n")
    with pytest.raises(ConfigError, match="line 3"):
        Pronunciation.load(tmp_path)


def test_an_operators_row_holds_at_once_and_longest_first(tmp_path: Path) -> None:
    """A hamlet nobody else knows; with umlaut, byte order mark and capitals, as a spreadsheet writes them."""
    rows = "word,pinyin,note\n绿庄,Lü4 zhuang1,\n绿庄河,lu4 zhuang1 he2,\n"
    (tmp_path / "pronunciation.csv").write_text(rows, encoding="utf-8-sig")
    own = Pronunciation.load(tmp_path)
    assert own.read("绿庄，绿庄河") == ["lv4", "zhuang1", "，", "lu4", "zhuang1", "he2"]
