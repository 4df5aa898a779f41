"""One `send` call of a carrier's channel: its SMS on their way, and the receipt of each position.

Used by `_carrier`; the sessions bring back each SMS when all its parts have an answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import NamedTuple

from channels._account import Account
from channels._field import WireError
from channels._login import validity
from channels._meaning import Blame, Decision, Meaning
from channels._sms_text import contents
from channels._wire import MOBILE, Answer, Sms, national
from gateway.errors import Ambiguous, ChannelError, Elsewhere, Permanent, Temporary, Throttled, Unusable
from gateway.model import Message, Receipt, Report, Slice, State, extension_of

BUSY_S = 1.0
LONGEST_VALIDITY = timedelta(hours=48)
REFUSED_IN_A_ROW = 14  # twice the halvings of a full bulk: it is not about single numbers
NEVER = "-"  # names a part no report will ever name
BUSY = Meaning(Decision.THROTTLED, Blame.CARRIER, "no room in the window", "窗口已满")


class Piece(NamedTuple):
    """A text that certainly has not left for these places of the slice, and why not."""

    text: str
    contents: list[bytes]
    indices: tuple[int, ...]
    trouble: ChannelError

    @property
    def units(self) -> int:
        """How many messages the carrier counts."""
        return len(self.contents) * len(self.indices)


class Sheet:
    """Receipts of a slice. `until`, by the loop's clock, is when the last of it may leave."""

    def __init__(self, channel: str, slice_: Slice, message: Message, until: float) -> None:
        self._channel = channel
        self._slice = slice_
        self._message = message
        self._receipts: list[Receipt | None] = [None] * len(slice_)
        self._numbers = [national(address) for address in slice_.addresses]
        self._loop = asyncio.get_running_loop()
        now = datetime.now(UTC)
        # Rule 4: nothing leaves after it expired, however long it waited for room.
        self.until = min(until, self._loop.time() + (message.expires - now).total_seconds())
        self._leave_by = self.until
        self._validity = validity(min(message.expires, now + LONGEST_VALIDITY))
        self._account: Account | None = None
        self._alive: set[Sms] = set()
        self._left: list[Piece] = []
        self._done = self._loop.create_future()
        self._refused = 0

    def pieces(self) -> list[Piece]:
        """Return what is to be sent, one piece per text; what cannot be has its receipt."""
        good = [index for index, number in enumerate(self._numbers) if MOBILE.fullmatch(number)]
        if len(good) < len(self._numbers):
            self._fail(sorted(set(range(len(self._numbers))).difference(good)), Permanent("bad_address"))
        by_text: dict[str, list[int]] = {}
        if self._message.texts is None and good:
            by_text[self._message.text] = good
        else:
            for index in good:
                by_text.setdefault(self._message.text_at(index), []).append(index)
        found = []
        for text, indices in by_text.items():
            try:
                found.append(Piece(text, contents(text, 0), tuple(indices), Temporary("no_connection")))
            except WireError:
                self._fail(indices, Permanent("text"))
        return found

    def receipts(self) -> list[Receipt]:
        """Return one receipt per position."""
        return [one if one is not None else Receipt(State.QUEUED, error=Ambiguous("lost")) for one in self._receipts]

    def give_up(self, pieces: Sequence[Piece]) -> None:
        """Nobody can send these now."""
        for piece in pieces:
            if datetime.now(UTC) >= self._message.expires:
                self._settle(piece.indices, Receipt(State.EXPIRED))
            else:
                self._fail(piece.indices, piece.trouble)

    async def through(self, account: Account, pieces: Sequence[Piece], alone: bool) -> list[Piece]:
        """Send by one account; return what did not leave. One that is not alone has half of the time that is left."""
        now = self._loop.time()
        self._leave_by = self.until if alone else now + (self.until - now) / 2
        self._account, self._left = account, []
        self._done = self._loop.create_future()
        self._put([sms for piece in pieces for sms in self._cut(piece)])
        timer = self._loop.call_at(self._leave_by, self._withdraw)
        try:
            await self._done
        except asyncio.CancelledError:
            self._leave_by = self._loop.time()  # whoever gave up waiting for us must not find it sent later
            self._withdraw()
            raise
        finally:
            timer.cancel()
        return self._left

    # -- what becomes of an SMS ----------------------------------------------------------------------------------------

    def _cut(self, piece: Piece) -> Iterator[Sms]:
        """Yield an SMS per submit; no number stands in one submit twice."""
        assert self._account is not None
        most = self._account.wire.most if self._account.settings.bulk else 1
        for layer in self._layers(piece.indices):
            for start in range(0, len(layer), most):
                indices = layer[start : start + most]
                yield self._sms(piece.text, piece.contents, tuple([self._numbers[at] for at in indices]), indices)

    def _layers(self, indices: Sequence[int]) -> Sequence[Sequence[int]]:
        """Lay out places so that no number is twice in a layer: nearly always there is one layer."""
        if len({self._numbers[index] for index in indices}) == len(indices):
            return [indices]
        layers: list[list[int]] = []
        seen: Counter[str] = Counter()
        for index in indices:
            number = self._numbers[index]
            if seen[number] == len(layers):
                layers.append([])
            layers[seen[number]].append(index)
            seen[number] += 1
        return layers

    def _sms(self, text: str, parts: list[bytes], numbers: tuple[str, ...], indices: Sequence[int]) -> Sms:
        assert self._account is not None
        own, message = self._account.settings, self._message
        source = own.src_id + extension_of(message.alert, own.extension)
        return Sms(self, text, parts, numbers, indices, message.lane, source, self._validity, self._leave_by)

    def _put(self, messages: Sequence[Sms]) -> None:
        assert self._account is not None
        self._alive.update(messages)
        self._account.put(messages)

    def settled(self, sms: Sms) -> None:
        """Take an SMS whose parts all have an answer."""
        self._alive.discard(sms)
        self._judge(sms)
        if not self._alive and not self._done.done():
            self._done.set_result(None)

    def _judge(self, sms: Sms) -> None:
        answers = [one for one in sms.answers if one is not None]
        refusals = [one for one in answers if one.meaning.decision is not Decision.DONE]
        if not refusals:
            self._refused = 0
            self._taken(sms, answers)
            return
        meaning, code, _ = refusals[0]
        doubt = next((one for one in refusals if one.meaning.decision is Decision.UNKNOWN), None)
        final = meaning.decision is Decision.PERMANENT and (len(sms.numbers) == 1 or meaning.blame is not Blame.NUMBER)
        if doubt is not None or (len(refusals) < len(answers) and not final):
            self._doubt(sms, answers, doubt.code if doubt is not None else "in_part")
        elif self._splits(sms, meaning):
            half = (len(sms.numbers) + 1) // 2
            self._put(
                [
                    self._sms(sms.text, sms.contents, sms.numbers[part], sms.indices[part])
                    for part in (slice(half), slice(half, None))
                ]
            )
        elif final or meaning.decision is Decision.PERMANENT:
            self._fail(sms.indices, Elsewhere(code) if meaning.elsewhere else Permanent(code))
        else:
            self._unsent(sms, meaning, code)

    def _splits(self, sms: Sms, meaning: Meaning) -> bool:
        """Whether one number may have spoilt it: the carrier says so, or refuses it a second time without a reason."""
        self._refused += 1
        if len(sms.numbers) == 1 or self._loop.time() >= self._leave_by:
            return False
        if meaning.blame is Blame.NUMBER:
            return True
        unexplained = (meaning.decision, meaning.blame) == (Decision.TEMPORARY, Blame.CARRIER)
        answered = bool(meaning.english)  # else it never left
        return unexplained and answered and self._slice.attempt > 1 and self._refused <= REFUSED_IN_A_ROW

    def _taken(self, sms: Sms, answers: Sequence[Answer]) -> None:
        code = answers[0].code
        if len(answers) == 1:
            indices = iter(sms.indices)
            for reference, members in answers[0].sent:
                receipt = Receipt(State.SUBMITTED, code, reference, members=members if members[0] else ())
                for index in islice(indices, len(members)):
                    self._receipts[index] = receipt
            return
        more = zip(*(one.references for one in answers[1:]), strict=True)
        for index, reference, others in zip(sms.indices, answers[0].references, more, strict=True):
            self._receipts[index] = Receipt(State.SUBMITTED, code, reference, more=others)

    def _doubt(self, sms: Sms, answers: Sequence[Answer], code: str) -> None:
        """Whoever may have it is doubtful; references we know of are kept, for the report will have them."""
        known = [one.references for one in answers if one.sent]
        for place, index in enumerate(sms.indices):
            first, *more = [references[place] for references in known] or [""]
            if first and len(more) + 1 < len(answers):
                more.append(f"{first}/{NEVER}")  # parts without a reference: the others do not make a whole
            self._receipts[index] = Receipt(State.QUEUED, code, first, Ambiguous(code), tuple(more))

    def _unsent(self, sms: Sms, meaning: Meaning, code: str) -> None:
        assert self._account is not None
        trouble: ChannelError
        if meaning.decision is Decision.UNUSABLE:
            self._account.refuse()
            trouble = Unusable(code)
        elif meaning.decision is Decision.THROTTLED:
            trouble = Throttled(max(BUSY_S, self._account.patience_s), code)
        else:
            trouble = Temporary(code)
        self._left.append(Piece(sms.text, sms.contents, tuple(sms.indices), trouble))

    def late(self, sms: Sms, part: int, answer: Answer) -> list[Report]:
        """Return the facts of an answer that came when nobody waited for it any more."""
        sms.answers[part] = answer
        answers = [one for one in sms.answers if one is not None and one.sent]
        if answer.meaning.decision is not Decision.DONE or len(answers) < len(sms.contents):
            return []  # of a long text, the last missing part's answer speaks for all
        own, others = answer.references, [one.references for one in answers if one is not answer]
        return [
            Report(
                self._channel, own[place], State.SUBMITTED, datetime.now(UTC), answer.code,
                self._slice.batch, self._slice.positions[index], self._slice.attempt,
                more=tuple([references[place] for references in others]),
            )
            for place, index in enumerate(sms.indices)
        ]  # fmt: skip

    def _withdraw(self) -> None:
        """Take back what has not left."""
        busy = Answer(BUSY, "flow_control" if self._account is not None and self._account.patience_s else "window_full")
        for sms in list(self._alive):
            sms.withdraw(busy)

    def _fail(self, indices: Sequence[int], error: ChannelError) -> None:
        self._settle(indices, Receipt(State.FAILED, error.code, error=error))

    def _settle(self, indices: Sequence[int], receipt: Receipt) -> None:
        for index in indices:
            self._receipts[index] = receipt
