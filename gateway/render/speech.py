"""Text to be read aloud: Hanzi numerals, spoken units, no brackets and no symbols.

Used by the renderer for `*.speech.txt` templates (loudspeakers, calls). Speech engines read "30%", "mm"
and "℃" in English or not at all, so nothing of the kind may reach them.
"""

from __future__ import annotations

import re

_DIGITS = "零一二三四五六七八九"
_TENS = ("", "十", "百", "千")
_GROUPS = ("", "万", "亿", "万亿")
_ROMAN = {ord("Ⅰ") + place: word for place, word in enumerate((*"一二三四五六七八九十", "十一", "十二"))}
_CIRCLED = {ord("①") + place: word for place, word in enumerate("一二三四五六七八九十")}
_WIDE = {code: code - 0xFEE0 for code in range(0xFF10, 0xFF1A)} | {ord("％"): "%", ord("．"): ".", ord("﹪"): "%"}

_NUMBER = r"\d+(?:\.\d+)?"
_DASH = r"\s*[-–—－~～∼]\s*"
_LETTER = r"(?![A-Za-z])"
_UNITS = (
    (rf"m[³3]/s{_LETTER}", "立方米每秒"),
    (rf"km/h{_LETTER}", "公里每小时"),
    (rf"m/s{_LETTER}", "米每秒"),
    (rf"mm/h{_LETTER}", "毫米每小时"),
    (rf"mm{_LETTER}", "毫米"),
    (rf"cm{_LETTER}", "厘米"),
    (rf"km[²2]{_LETTER}", "平方公里"),
    (rf"km{_LETTER}", "公里"),
    (rf"hPa{_LETTER}", "百帕"),
    (rf"kg{_LETTER}", "公斤"),
    (rf"kV{_LETTER}", "千伏"),
    (rf"kW{_LETTER}", "千瓦"),
    (rf"ha{_LETTER}", "公顷"),
    (rf"min{_LETTER}", "分钟"),
    (rf"m[³3]{_LETTER}", "立方米"),
    (rf"m[²2]{_LETTER}", "平方米"),
    (rf"m{_LETTER}", "米"),
    (rf"h{_LETTER}", "小时"),
    (rf"s{_LETTER}", "秒"),
    (rf"t{_LETTER}", "吨"),
    (rf"L{_LETTER}", "升"),
)
_SYMBOLS = {
    "≥": "大于等于", "≧": "大于等于", "≤": "小于等于", "≦": "小于等于",
    ">": "大于", "＞": "大于", "<": "小于", "＜": "小于", "±": "正负",
    "＋": "加", "+": "加", "×": "乘", "≈": "约", "∶": "比", "℃": "摄氏度", "°C": "摄氏度",
    "°": "度", "′": "分", "″": "秒",
}  # fmt: skip
_SILENT = re.compile(r"[^\w，。、；！？ ]|[_²³¹⁰-⁹₀-₉]")
_ENGLISH = {
    "℃": " degrees Celsius", "°C": " degrees Celsius", "%": " percent", "≥": " at least ", "≤": " at most ",
    "&": " and ", "+": " plus ",
}  # fmt: skip


def hanzi(number: int) -> str:
    """Read a whole number from 0 below 10**16 as Hanzi: 105 → 一百零五, 12 → 十二."""
    if number == 0:
        return _DIGITS[0]
    words, gap = "", False
    for power in range(15, -1, -1):
        digit = number // 10**power % 10
        if digit:
            words += (_DIGITS[0] if gap and words else "") + _DIGITS[digit] + _TENS[power % 4]
            gap = False
        else:
            gap = True
        if power % 4 == 0 and number // 10**power % 10_000:
            words += _GROUPS[power // 4]
    return words.removeprefix("一") if words.startswith("一十") else words


def spoken(text: str, language: str = "zh") -> str:
    """Turn a written text into one to be read aloud. In Chinese no digit, bracket or symbol is left."""
    return _spoken_zh(text) if language == "zh" else _spoken_en(text)


def _spoken_zh(text: str) -> str:
    text = text.translate(_WIDE).translate(_ROMAN).translate(_CIRCLED)
    text = re.sub(r"(?<=\d)[, ](?=\d{3}(?!\d))", "", text)
    text = _names(text)
    text = _moments(text)
    text = _measures(text)
    text = re.sub(r"\d+(?:\.\d+)*", _number, text)
    text = re.sub(r"[：:（）()〔〕【】\[\]“”「」『』《》<>\n]+", "，", text)
    text = _SILENT.sub("", text)
    text = re.sub(r" *([，。、；！？]) *", r"\1", text)
    text = re.sub(r"[，、；]+(?=[，。；！？])|(?<=[。！？；])[，、；]+", "", text)
    return text.strip("，、； ")


def _names(text: str) -> str:
    """Digits that name and do not count: 1# → 1号, telephone numbers one by one (1 as 幺, as it is said there)."""
    text = re.sub(r"(?<![\d.])(\d{1,4})\s*[#＃]", r"\1号", text)
    text = re.sub(r"(?:№|[Nn][Oo]\.)\s*(\d{1,4})(?!\d)", r"\1号", text)
    said = r"(?:拨打|拨|致电|电话|热线)[:：是为]?\s*"
    number = r"\d{3,5}(?!\d)(?:[-－]\d{7,8}(?!\d))?|\d{7,12}(?!\d)"
    text = re.sub(rf"({said})({number})", lambda match: match[1] + _dialled(match[2]), text)
    return re.sub(r"(?<!\d)0\d{2,3}[-－]\d{7,8}(?!\d)", lambda match: _dialled(match[0]), text)


def _dialled(digits: str) -> str:
    return "".join("幺" if digit == "1" else _DIGITS[int(digit)] for digit in digits if digit.isdigit())


def _moments(text: str) -> str:
    """Dates and clock times: 2026-07-20 14:30 → 二零二六年7月20日14时30分."""
    text = re.sub(r"(?<![\d.])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?![\d.])", r"\1年\3月\4日", text)
    text = re.sub(r"(?<!\d)(\d{4})(?=年(?!一遇))", lambda match: _one_by_one(match[1]), text)
    text = re.sub(r"(?<!\d)([01]?\d|2[0-4])[:：]([0-5]\d)(?:[:：][0-5]\d)?(?!\d)", r"\1时\2分", text)
    text = text.replace("时00分", "时")
    return re.sub(r"(?<!\d)0(\d)(?=[月日时分])", r"\1", text)


def _measures(text: str) -> str:
    """Ranges, percentages, temperatures, units and comparison signs."""
    text = re.sub(rf"({_NUMBER}){_DASH}({_NUMBER})\s*%", r"百分之\1到\2", text)
    text = re.sub(rf"({_NUMBER})\s*%", r"百分之\1", text)
    text = text.replace("℃", "°C")
    for pattern, word in _UNITS:
        text = re.sub(rf"(?<=[\d万亿])\s*{pattern}", word, text)
    text = re.sub(r"(?<=[米升吨斤])/(?=小时|秒|分|天|日)", "每", text)
    text = re.sub(rf"(?<=[\d级C米时分日]){_DASH}(?=-?\d|百分之)", "到", text)
    text = re.sub(r"(?<!\d)[-－−](?=\d[\d.]*(?:到[-－−]?[\d.]+)?(?:°C|度))", "零下", text)
    text = re.sub(r"(?<=到)[-－−](?=\d)", "零下", text)
    for sign, word in _SYMBOLS.items():
        text = text.replace(sign, word)
    text = re.sub(r"(?<![\d.第])2(?=小时|个|天|次|人|户|名|米|座|处)", "两", text)
    text = re.sub(r"(?<![\d/])(\d+)/(\d+)(?![\d/])", r"\2分之\1", text)
    return text.replace("/", "、")


def _number(match: re.Match[str]) -> str:
    """Read one written number; identifiers (leading zero, many digits, several dots) digit by digit."""
    whole, *rest = match[0].split(".")
    if len(rest) > 1 or len(whole) > 9 or (len(whole) > 1 and whole[0] == "0"):
        return "点".join(_one_by_one(part) for part in match[0].split("."))
    return hanzi(int(whole)) + "".join("点" + _one_by_one(part) for part in rest)


def _one_by_one(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _spoken_en(text: str) -> str:
    text = text.translate(_WIDE)
    text = re.sub(r"(?<=\d)\s*mm\b", " millimetres", text)
    text = re.sub(r"(?<=\d)\s*km/h\b", " kilometres per hour", text)
    text = re.sub(r"(?<=\d)\s*m/s\b", " metres per second", text)
    text = re.sub(r"(?<=\d)\s*[-–—~](?=\s*\d)", " to ", text)
    text = re.sub(r"(?<![\w.])[-－−](?=\d)", "minus ", text)
    for sign, word in _ENGLISH.items():
        text = text.replace(sign, word)
    text = re.sub(r"[()\[\]【】〔〕“”\"<>\n]+", ", ", text)
    text = re.sub(r"[^\w\s，。、；,.;:!?'-]|_", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    return re.sub(r",(?=[,.;:!?])|(?<=[.;:!?]),", "", text)
