"""What a text from an official's telephone means. Pure: no store, no clock; called by `receipts`.

| text | meaning | |
| --- | --- | --- |
| 1, １, 一, 收到, 到岗, "1 收到" | heard | heard and at post: confirms |
| 2, 二, "2 外出" | away | heard, but not at post: the deputy is to be called |
| 3, 三, "3 桥头塌方" | support | needs support or reports danger; the words behind the 3 are the report |
| TD, T, 退订 | opt_out | no more service messages, blue and yellow |
| anything else | other | a person reads it |

Who misreads a text as a confirmation leaves a village uncalled, so only these forms count, each as the whole text:
"12", "1或2", "1?", "不在" and "没收到" are read by a person. The other way round a false alarm costs a telephone call:
whatever begins with a 3 and words is a report, and only a 3 that stands apart confirms as well ("3人被困" may be
somebody at post, or not).
"""

from __future__ import annotations

import re
import unicodedata
from enum import StrEnum
from typing import NamedTuple

LONGEST = 500  # characters that are looked at: seven parts of a long text


class Meaning(StrEnum):
    """What a text means."""

    HEARD = "heard"
    AWAY = "away"
    SUPPORT = "support"
    OPT_OUT = "opt_out"
    OTHER = "other"


class Reading(NamedTuple):
    """A text as it was understood. `confirms`: whoever wrote it is at post."""

    meaning: Meaning
    confirms: bool = False


_CUT = "\ufffd"  # something follows, so that it is not the whole text
_LINES = dict.fromkeys(map(ord, "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"), " ")  # `.` ends at some of them
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_GAP = r"[\s。.,、!;:~…\"'“”‘’()\[\]【】「」—_-]"  # no question mark: who asks has not answered
_FRAME = r"[\s\"'“”‘’()\[\]【】「」]*"
_DONE = "(?:已?收到|已?到岗)"
_NO_REPORT = "[点时月或和到至]"  # "3点到", "3或1"
_GONE = "(?:人?不在岗?|外出|不在村)"


def _whole(body: str) -> re.Pattern[str]:
    """Match a text that says this and nothing else: after "回复", in quotes, with a full stop."""
    return re.compile(rf"{_FRAME}(?:(?:回复?|答复){_GAP}*)?{body}{_GAP}*", re.IGNORECASE)


_HEARD = _whole(rf"(?:[1一](?:{_GAP}*{_DONE}){{0,2}}|{_DONE}(?:{_GAP}*{_DONE})?(?:{_GAP}*1)?)")
_AWAY = _whole(rf"[2二](?:{_GAP}*{_GONE})?")
_OPT_OUT = _whole("(?:TD|T|TD退订|退订)")
# "3:30", "3.5" and "3-5" are no answer; "3 5人被困" is one.
_SUPPORT = _whole(rf"[3三](?:{_GAP}*|(?:{_GAP}*\s|{_GAP}+(?!\d))(?!{_GAP}*{_NO_REPORT})(?=.*[^\W\d_]).*)")
_REPORT = _whole(rf"[3三](?!{_NO_REPORT})[\u4e00-\u9fff].*")
_FORMS = (
    (_HEARD, Reading(Meaning.HEARD, confirms=True)),
    (_AWAY, Reading(Meaning.AWAY)),
    (_OPT_OUT, Reading(Meaning.OPT_OUT)),
    (_SUPPORT, Reading(Meaning.SUPPORT, confirms=True)),
    (_REPORT, Reading(Meaning.SUPPORT)),
)


def read(text: str) -> Reading:
    """Return what a text means; full-width digits, blanks, invisible marks and punctuation around it do not count."""
    bounded = text if len(text) <= LONGEST else text[:LONGEST] + _CUT
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", bounded)).translate(_LINES)
    return next((reading for form, reading in _FORMS if form.fullmatch(plain)), Reading(Meaning.OTHER))
