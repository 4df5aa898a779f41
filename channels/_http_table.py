"""The table of an SMS provider with an HTTP API: what is sent it, what its answers mean, where its reports stand.

Every cloud service has an interface of its own and all are of one shape: a text and some numbers go out as JSON or a
form; a code and one id, or one per number, come back; reports and replies are posted to us or fetched. `sms_http`
reads this table, so that a new provider is configuration.

A template holds placeholders in braces: {numbers} (a list in JSON, joined by `separator` in a form), {number} (the
first), {text}, {reference} (ours, opaque), {account}, {secret} and {time} (seconds since 1970). What stands for them
is encoded as JSON or a form encodes it, never pasted into text that is parsed afterwards.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b, sha256
from operator import itemgetter
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from multidict import CIMultiDict
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from channels._http import Url
from gateway.channel import Settings

PLACEHOLDER = re.compile(r"\{(numbers|number|text|reference|account|secret|time)\}")
MAINLAND = re.compile(r"1[0-9]{10}")
CODE = re.compile(r"(?!.*1[0-9]{10})[A-Za-z0-9_.:-]{1,40}")  # never one that quotes a number
ID = re.compile(r"[!-~]{1,128}")
TAG_BYTES = 8

Verdict = Literal["done", "temporary", "throttled", "permanent", "unusable", "unknown", "elsewhere", "number"]
"""As `channels._meaning.Decision`; `elsewhere`: another carrier's number; `number`: one may have spoilt the others."""


def _names(path: object) -> object:
    """Take a path apart; what is no text is left to be refused."""
    if not isinstance(path, str):
        return path
    return path.split(".") if path else ()


Path = Annotated[tuple[str, ...], BeforeValidator(_names)]
"""Where a value stands: names, in the table with dots between; none is the whole."""


class Part(BaseModel):
    """Base of a part of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Result(Part):
    """What an answer means: where the code and the id stand, for all, or number by number in `each`."""

    code: Path = ("code",)
    codes: dict[str, Verdict] = Field(min_length=1)
    """Codes and what they mean; one that is not here means nobody knows what became of the texts."""
    id: Path = ()
    each: Path = ()
    """List with an entry per number; "": one code and id for all."""
    each_number: Path = ()
    """In an entry; "": the entries stand in the order of the numbers."""
    each_code: Path = ()
    each_id: Path = ()


class Reports(Part):
    """Where delivery reports stand in what is posted or fetched."""

    entries: Path = ()
    id: Path
    number: Path = ()
    status: Path
    states: dict[str, Literal["delivered", "failed", "unknown", "elsewhere", "wait"]] = Field(min_length=1)
    """Statuses and what they mean; one that is not here is a failure under its own code."""


class Replies(Part):
    """Where people's answers stand."""

    entries: Path = ()
    number: Path
    text: Path
    id: Path = ()
    """Their own id; "": number, text and time make one."""
    at: Path = ()


class Callback(Part):
    """How the provider proves itself when it posts, and what it wants to hear."""

    header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")
    kind: Literal["shared", "hmac"] = "shared"
    """`shared`: the header holds `callback_secret`; `hmac`: HMAC-SHA256 of the body under it, in hex."""
    prefix: str = ""
    """Before it in the header, such as "Bearer "."""
    answer: str = '{"code":"0"}'


class Poll(Part):
    """Where reports or replies are fetched. The provider keeps them: `cursor` asks for what stands behind `next`."""

    url: Url
    cursor: str = Field("after", min_length=1)
    first: str = "0"
    next: Path = ("next",)
    every_s: float = Field(5.0, ge=0.2, le=600)


class HttpSettings(Settings):
    """Table `sms_http`."""

    model_config = ConfigDict(hide_input_in_errors=True)

    url: Url
    auth: Literal["header", "bearer", "basic", "hmac"] = "bearer"
    """`header`: the secret in `auth_header`; `hmac`: HMAC-SHA256 of the body there, in hex."""
    auth_header: str = Field("Authorization", pattern=r"^[A-Za-z0-9-]{1,64}$")
    account: str = ""
    secret: SecretStr = Field(min_length=8)
    format: Literal["json", "form"] = "json"
    body: dict[str, Any] = Field(min_length=1)
    numbers: int = Field(1, ge=1, le=500)
    """How many numbers one request takes, where the text is the same."""
    separator: str = ","
    prefix: str = Field("", pattern=r"^\+?[0-9]{0,4}$")
    """Before each number, such as 86."""
    ids: Literal["number", "batch", "ours"] = "number"
    """Whose id a report names: one per number, one per request, or the {reference} we gave."""
    result: Result
    reports: Reports | None = None
    replies: Replies | None = None
    callback: Callback | None = None
    callback_secret: SecretStr | None = Field(None, min_length=8)
    poll_reports: Poll | None = None
    poll_replies: Poll | None = None
    pool: int = Field(25, ge=1, le=50)
    timeout_s: float = Field(7.0, gt=0, le=7.0)

    @model_validator(mode="after")
    def _whole(self) -> HttpSettings:
        asked = set(PLACEHOLDER.findall(repr(self.body)))
        if "text" not in asked or not asked & {"number", "numbers"}:
            raise ValueError("body: name {text}, and {numbers} or {number}")
        if self.numbers > 1 and "numbers" not in asked:
            raise ValueError("numbers: a body without {numbers} takes 1")
        if self.ids == "ours" and "reference" not in asked:
            raise ValueError('ids = "ours" needs {reference} in body')
        if self.format == "form" and any(not isinstance(value, str | int) for value in self.body.values()):
            raise ValueError("body: a form has texts and numbers only")
        if self.numbers > 1 and self.ids != "number" and self.reports and not self.reports.number:
            raise ValueError("reports.number: needed where one id stands for several numbers")
        if bool(self.callback) != bool(self.callback_secret):
            raise ValueError("callback and callback_secret: give both or neither")
        if (self.poll_reports and not self.reports) or (self.poll_replies and not self.replies):
            raise ValueError("poll_reports needs reports, and poll_replies needs replies")
        if self.poll_replies and self.replies and not self.replies.at:
            # They are fetched again after a start: an old answer must not confirm a new warning.
            raise ValueError("replies.at: needed where replies are fetched")
        return self

    @cached_property
    def request(self) -> Callable[[Sequence[str], str, str, int], tuple[bytes, Mapping[str, str]]]:
        """Return what makes a request of numbers, one text, reference and time: its body and headers.

        What the table alone decides is worked out here, once.
        """
        fill, form, prefix = _filler(self.body), self.format == "form", self.prefix
        own = {"account": self.account, "secret": self.secret.get_secret_value()}
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        headers = CIMultiDict({"Content-Type": kind} | self.signed())  # as aiohttp would make of them every time

        def request(numbers: Sequence[str], text: str, reference: str, at: int) -> tuple[bytes, Mapping[str, str]]:
            listed = [prefix + number for number in numbers]
            filled = fill(
                {
                    "numbers": self.separator.join(listed) if form else listed,
                    "number": listed[0],
                    "text": text,
                    "reference": reference,
                    "time": str(at),
                    **own,
                }
            )
            body = urlencode(filled).encode() if form else msgspec.json.encode(filled)
            return body, {**headers, **self.signed(body)} if self.auth == "hmac" else headers

        return request

    def signed(self, body: bytes = b"") -> dict[str, str]:
        """Return the header that says who we are."""
        secret = self.secret.get_secret_value()
        if self.auth == "basic":
            return {"Authorization": "Basic " + b64encode(f"{self.account}:{secret}".encode()).decode()}
        if self.auth == "bearer":
            return {"Authorization": f"Bearer {secret}"}
        return {self.auth_header: digest(secret, body) if self.auth == "hmac" else secret}

    def came_from_provider(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a callback proves to be the provider's; the time it takes tells nothing."""
        if self.callback is None or self.callback_secret is None:
            return False
        secret = self.callback_secret.get_secret_value()
        wanted = self.callback.prefix + (digest(secret, body) if self.callback.kind == "hmac" else secret)
        given = headers.get(self.callback.header, "")
        return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())

    def reference(self, name: str, id_: str, number: str) -> str:
        """Return what the ledger matches submit and report by; no number can be read from it."""
        own = f"{name}/{id_}"
        if self.ids == "number" or self.numbers == 1:
            return own
        key = blake2b(self.secret.get_secret_value().encode(), digest_size=32).digest()
        tag = blake2b(self.national(number).encode(), digest_size=TAG_BYTES, key=key).digest()
        return f"{own}/{urlsafe_b64encode(tag).decode().rstrip('=')}"

    def national(self, number: str) -> str:
        """Return a mainland number without its country, whichever way the provider writes it."""
        bare = number.strip().removeprefix(self.prefix)
        return bare if MAINLAND.fullmatch(bare) else bare.removeprefix("+").removeprefix("86")


def digest(secret: str, body: bytes) -> str:
    """Return the HMAC-SHA256 of a body, in hex."""
    return hmac.new(secret.encode(), body, sha256).hexdigest()


def _filler(template: Any) -> Callable[[Mapping[str, Any]], Any]:
    """Return what fills a template's placeholders with values, in nested tables and lists, too."""
    if isinstance(template, dict):
        table = {key: _filler(value) for key, value in template.items()}
        return lambda values: {key: fill(values) for key, fill in table.items()}
    if isinstance(template, list):
        entries_ = [_filler(value) for value in template]
        return lambda values: [fill(values) for fill in entries_]
    if not isinstance(template, str) or not PLACEHOLDER.search(template):
        return lambda _: template
    if (whole := PLACEHOLDER.fullmatch(template)) is not None:
        return itemgetter(whole[1])
    return lambda values: PLACEHOLDER.sub(lambda found: _joined(values[found[1]]), template)


def _joined(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def at(value: Any, path: Path) -> Any:
    """Return what stands at a path, None if nothing does."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Any, path: Path) -> str:
    """Return the text or number at a path as text, "" if there is none."""
    found = at(value, path) if path else ""
    if isinstance(found, str):
        return found
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else ""


def code_at(value: Any, path: Path, known: Container[str]) -> str:
    """Return a code at a path; what is neither known nor a code (it could quote a number or a text) is "other"."""
    found = text_at(value, path)
    return found if found in known or not found or CODE.fullmatch(found) else "other"


def id_at(value: Any, path: Path) -> str:
    """Return an id at a path; "" if there is none that can be one."""
    found = text_at(value, path)
    return found if found and ID.fullmatch(found) else ""


def entries(value: Any, path: Path) -> list[Any]:
    """Return the entries at a path: those of a list, or the one that stands there."""
    found = at(value, path)
    return found if isinstance(found, list) else [] if found is None else [found]
