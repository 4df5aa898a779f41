"""Entity tags: what has not changed is not sent again, and a decision can be bound to what was seen.

**Source:** RFC 9110 sections 8.8.3 (ETag), 13.1.1 (If-Match) and 13.1.2 (If-None-Match).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def tag_of(body: bytes) -> str:
    """Return the strong entity tag of a representation."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def same(fields: Iterable[str], tag: str, *, weak: bool = False) -> bool:
    """Whether header fields name this tag or `*`. Weak tags count in a weak comparison (If-None-Match) only."""
    for field in fields:
        if field.strip() == "*" or any(found == tag and (weak or not mark) for mark, found in TAG.findall(field)):
            return True
    return False
