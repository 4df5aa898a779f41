"""Structured logs: one JSON line per event on standard error, opaque ids only.

No name, number, text or secret is ever a field; `redact` drops fields that could hold one, as a second fence.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog

from gateway import metrics

FORBIDDEN = frozenset({"address", "phone", "text", "name", "token", "password", "key", "secret", "body"})


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of every field that could hold personal data or a secret."""
    for field in FORBIDDEN & event.keys():
        event[field] = "[redacted]"
    return event


class Stream:
    """Standard error that never fails its writer: a full disk must not end the thread that reports it."""

    def write(self, text: str) -> None:
        """Write, or count what was lost."""
        try:
            sys.stderr.write(text)
        except OSError:
            metrics.log_lines_lost.inc()

    def flush(self) -> None:
        """Flush, or count what was lost."""
        try:
            sys.stderr.flush()
        except OSError:
            metrics.log_lines_lost.inc()


def configure(level: str = "info", *, pretty: bool = False) -> None:
    """Set up logging for a process; called once by the command line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            redact,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if pretty
            else structlog.processors.JSONRenderer(ensure_ascii=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, Stream())),
        cache_logger_on_first_use=False,
    )


def get(part: str) -> Any:
    """Return a logger that names its part of the gateway. It is bound when used, so `configure` may come later."""
    return structlog.get_logger(part=part)
