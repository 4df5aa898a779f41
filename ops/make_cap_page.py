"""Write docs/cap.md: what is read, the facts we carry, and every finding, from the tables the code itself obeys.

Run `python ops/make_cap_page.py` after a change to `gateway.cap.finding` or to the text below; a test compares the
committed file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.cap.classify import LEVEL_NAMES, LEVEL_SEVERITY, LEVEL_WORDS
from gateway.cap.finding import ERRORS, MAX_FINDINGS, WARNINGS
from gateway.cap.reader import ENCODINGS, MAX_BYTES, MAX_COMMAS
from gateway.model import Document, Level

TARGET = Path(__file__).parent.parent / "docs" / "cap.md"

PAGE = """# CAP 1.2: what is read, what is written, what is found

Written by `ops/make_cap_page.py` from the tables in `gateway/cap`. `mingluo cap check FILE` tells what is found in a
message, with the line; the API answers the same findings in its problem document.

## What is read

- CAP 1.2 in XML, and our own JSON form of the same model (`/openapi.json`, `AlertIn`). Both obey the same rules under
  the same codes. CAP 1.0 and 1.1 are recognised and refused by name (`older_cap`).
- Any namespace prefix; comments, CDATA, `xsi:schemaLocation` and an enveloped XML signature after the last info.
  Whatever else stands in a message is named, never skipped in silence.
- Encodings {encodings}.
  Where the bytes (a byte order mark, Chinese in valid UTF-8, GB18030 under ISO-8859-1) and the declaration disagree
  beyond doubt, the bytes are believed (`encoding_disagrees`).
- Up to {mebibytes} MiB and {points:,} points. A DOCTYPE is refused unread; no entity is resolved, no file or address
  opened.
- Several infos: one alert in several languages, or for several areas. All must speak of one event, level and document
  (`mixed_infos`: another colour is another warning, with its own authority, approval and number); the areas of all are
  warned. Each place is told, in its language, the info whose areas hold it; of several the one that names it for
  certain, then the first (`texts_differ_in_one_language`). Whoever answers for places of several infos is told what
  each says of its own.
- `scope` Restricted reaches officials only. Private is valid, and refused when it is issued (`not_public`): its
  addresses are none of ours. An update or end keeps the scope of what it follows (`scope_differs`).
- Times with seconds and offset, no `Z`, no fraction; `24:00:00` ends a day; a space for the `T` is accepted from
  national feeds. Polygons and circles are `lat,lon` in WGS 84, latitude first.

## What is written

Always valid by the official schema: UTF-8, times with `+08:00`, elements in order. A correction is written as an Update
with the parameter `correction`. `read` of what was written gives the same alert.

## The facts we carry

CAP has no place for some of what a Chinese warning says. These travel as a `parameter` of each info (the event code as
an `eventCode`), or, where a message has no info, as a `code`:

| fact | in an info | without an info | values |
| --- | --- | --- | --- |
| level | parameter `level`, read under any of {level_names}; else from `severity` | `mingluo:level=…` | {levels} |
| document | parameter `document` | `mingluo:document=…` | {documents} |
| correction | parameter `correction` | `mingluo:correction=…` | `true`, with msgType Update or Cancel |
| event code | eventCode `GB/T 35561` | `mingluo:event_code=…` | such as `11B03`; `00000` for tests |
| event | parameter `mingluo:event`, where it is not the Chinese info's own `event` | `mingluo:event=…` | any text |

A level is a word, also 红 or 红色, never a digit: feeds disagree on which end 1 is. Level and severity must agree:
{severities}.

## Findings

A code is an error or a warning wherever it appears, and keeps its meaning. Errors refuse the message; at most
{most} findings are listed, errors before the surplus of warnings.

### Errors

{errors}

### Warnings

The message passes; the sender should mend it.

{warnings}
"""


def _table(codes: Mapping[str, str]) -> str:
    rows = [f"| `{code}` | {meaning.replace('<', '&lt;')} |" for code, meaning in codes.items()]
    return "\n".join(["| code | meaning |", "| --- | --- |", *rows])


def _words(level: Level) -> str:
    return "/".join(word for word, meant in LEVEL_WORDS.items() if meant is level)


def text() -> str:
    """Return the page's content."""
    return PAGE.format(
        encodings=", ".join(name.upper() for name in ENCODINGS if name != "utf8"),
        mebibytes=MAX_BYTES // 1024 // 1024,
        points=MAX_COMMAS,
        level_names=", ".join(f"`{name}`" for name in sorted(LEVEL_NAMES)),
        levels=", ".join(_words(level) for level in Level),
        documents=", ".join(f"`{document}`" for document in Document),
        severities=", ".join(f"{level.name.lower()} is {LEVEL_SEVERITY[level]}" for level in reversed(Level)),
        most=MAX_FINDINGS,
        errors=_table(ERRORS),
        warnings=_table(WARNINGS),
    )


if __name__ == "__main__":
    TARGET.write_text(text(), encoding="utf8")
