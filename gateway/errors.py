"""Every failure the gateway knows, in one tree, each with its decision.

Channels raise or return these; anything else is a bug: logged with its traceback and treated as Temporary.
No message may hold an address, a name, a text or a secret.
"""

from __future__ import annotations

PACED = "paced"
"""Code of a Throttled that is our own account's rate: it says nothing of the provider."""


class MingluoError(Exception):
    """Root of the tree."""


class ChannelError(MingluoError):
    """What a channel may say of a send."""

    def __init__(self, code: str = "") -> None:
        super().__init__(code)
        self.code = code


class Temporary(ChannelError):
    """Nothing was sent; try again later, a bounded number of times."""


class Throttled(Temporary):
    """Nothing was sent; the provider asks for `after_s` seconds, an hour at most. Does not count as an attempt."""

    LONGEST_S = 3600.0

    def __init__(self, after_s: float, code: str = "throttled") -> None:
        super().__init__(code)
        # A header may hold anything. In this order NaN becomes 0.
        self.after_s = min(max(0.0, after_s), self.LONGEST_S)


class Permanent(ChannelError):
    """This recipient will never be reached this way; do not repeat."""


class Elsewhere(Permanent):
    """The number is another carrier's (ported, or not of this network): the others are tried, each once."""


class Unusable(ChannelError):
    """The account is refused: switch it off, page a person, start the fallbacks."""


class Ambiguous(ChannelError):
    """The request left, no answer came: it may have been sent (rule 2)."""


class Refused(MingluoError):
    """A request the gateway refuses; becomes a problem+json answer.

    `status` is the HTTP status, `code` a stable slug, `detail` says what is wrong and what to fix,
    `errors` holds the single findings.
    """

    def __init__(self, status: int, code: str, detail: str, errors: tuple[dict[str, object], ...] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors


class StoreDown(MingluoError):
    """The store did not answer in time: accept says 503, settles wait."""


class BrokerDown(MingluoError):
    """The broker did not confirm in time: the outbox holds the work."""


class StateDown(MingluoError):
    """Redis did not answer in time: local limits hold, delivery goes on."""


class ConfigError(MingluoError):
    """A setting or policy file is wrong; the message names the file, the key and the fix."""
