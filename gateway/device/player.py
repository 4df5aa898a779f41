"""What a loudspeaker does with what it is told: a state machine without time, sound, network or disk of its own.

Whoever runs it gives it the time, every command whose signature holds, the microphone, and the progress of its sound;
it makes `turn` sound and sends what `owed` holds. `now` is always a monotonic clock that goes on in standby.

- **Which sounds.** A live microphone, then Actual (red, orange, yellow, blue), then drills; in one level as they came.
  What was interrupted comes back, unless it has expired; a drill that a real warning interrupts does not.
- **Never twice.** A version (id, status, language, again) is known for a day, and as long as it is valid; told again,
  the device answers with its state. Only `every_s` repeats it: in rounds, until a stop, a hush or the end.
- **Never stale.** Validity is measured in the gateway's time (`reckoning`), never by a clock of the device. After the
  device was switched off nothing sounds before a signed payload says what time it is.
- **Never cancelled.** The ids of stopped and superseded versions are known as long. A drill supersedes only drills.

**Source:** docs/device-protocol.md, version 2.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

from gateway.device.command import AnyOrder, Clock, Hush, Key, Play, Stop, Time
from gateway.device.owed import RESEND_S, UNHEARD, Owed
from gateway.device.reckoning import DAY_S, Reckoning
from gateway.device.record import Announcement, Done, Memory, Name, Turn

ORDERS = 1_000
NAMES = 64


class Player:
    """The loudspeaker `name` in the village of that 12-digit code; "": wherever a command is for."""

    __slots__ = (
        "_boot", "_due", "_hushed", "_known", "_order", "_orders", "_under_way", "_void", "_void_drills", "live_speech",
        "name", "nonce", "owed", "reckoning", "turn", "village",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        village: str,
        memory: Memory | None = None,
        now: float = 0.0,
        boot: str = "",
        resend_s: float = RESEND_S,
    ) -> None:
        memory = memory or Memory()
        same = bool(boot) and memory.boot == boot
        self.name = name
        self.village = village
        self.turn: Turn | None = None
        self.live_speech = False
        self.nonce = ""  # of the last hello
        self.owed = Owed(memory.words, resend_s)
        self.reckoning = Reckoning(memory.at, memory.clock if same else now)
        self.reckoning.sure = same and memory.sure
        self._boot = boot
        self._known: dict[Key, Announcement] = {one.play.key: one for one in memory.announcements}
        self._due = [one for one in memory.announcements if one.due is not None]  # and some that are over meanwhile
        self._void = dict(memory.void)  # id → until when it is remembered
        self._void_drills = dict(memory.void_drills)
        self._hushed = dict(memory.hushed)
        self._orders = dict(memory.orders)
        self._order = memory.order
        self._under_way: set[str] = set()

    def memory(self, now: float) -> Memory:
        """Return what is to be kept through a power cut."""
        return Memory(
            self.reckoning.at(now), now, self._boot, self.reckoning.sure, list(self._known.values()), self._void,
            self._void_drills, self._hushed, self._orders, self.owed.words, self._order,
        )  # fmt: skip

    # -- what it is told ---------------------------------------------------------------------------------------------

    def greet(self) -> str:
        """Return the nonce of a new hello; what answers an older one is not believed."""
        self.nonce = secrets.token_urlsafe(16)
        return self.nonce

    def told_time(self, told: Time, now: float) -> None:
        """Take in what time it is, where it was said in answer to the last hello: what was heard already may go on."""
        if told.to == self.name and self.nonce and told.nonce == self.nonce:
            self.reckoning.learn(told.now.timestamp(), now, new=True)
            self.tick(now)

    def take(
        self, command: Play | Stop | Hush, name: Name, now: float, signed: tuple[str, str, str] | None = None
    ) -> None:
        """Act on a command whose signature holds."""
        if code := self._refusal(command, now):
            self.owed.add(_receipt(command.id, name, "failed", code), self.reckoning.at(now))
            return
        until = max(self.reckoning.at(now) + DAY_S, command.expires.timestamp())
        match command:
            case Play():
                self._play(command, name, now, until, signed)
            case Stop():
                self._void[command.id] = until
                self._end(lambda one: one.play.id == command.id, now)
                self.owed.add(_receipt(command.id, name, "stopped", ""), self.reckoning.at(now))
            case Hush():
                self._hushed[command.id] = until
                self._hush(command.id, name, now)
        self.tick(now)

    def _refusal(self, command: Play | Stop | Hush, now: float) -> str:
        """Return why a signed command is not for here and now, or nothing; learn the time from it."""
        if not self._is_here(command.to):
            return "not_for_me"
        said = command.now.timestamp()
        if self.reckoning.stale(said, now):
            return "replayed"
        new = isinstance(command, Play) and command.key not in self._known
        self.reckoning.learn(said, now, new=new)
        return ""

    def _is_here(self, place: str) -> bool:
        """Tell whether this village lies in a place; one that is not known (in a simulation) lies everywhere."""
        if not self.village:
            return True
        return len(place) in (6, 9, 12) and place.isdecimal() and self.village.startswith(place)

    def _play(self, play: Play, name: Name, now: float, until: float, signed: tuple[str, str, str] | None) -> None:
        known = self._known.get(play.key)
        if known is not None:
            if name not in known.names:
                known.names = [*known.names[1 - NAMES :], name]
            self._tell(known, [name], now)
            return
        self._supersede(play, now, until)
        at = self.reckoning.at(now)
        self._order += 1
        one = Announcement(play, self._order, at, names=[name], hushed=play.id in self._hushed, signed=signed)
        self._known[play.key] = one
        self._due.append(one)
        if self._is_void(play):
            one.due = None
            self._set(one, "stopped", "", now)
        else:
            self._set(one, "received", "", now)

    def _supersede(self, play: Play, now: float, until: float) -> None:
        """Silence what this one stands in for. A drill can silence drills alone (D19)."""
        replaced = set(play.supersedes) - {play.id}
        if not replaced:
            return
        (self._void if play.real else self._void_drills).update(dict.fromkeys(replaced, until))
        self._end(lambda one: one.play.id in replaced and self._is_void(one.play), now)

    def _is_void(self, play: Play) -> bool:
        return play.id in self._void or (not play.real and play.id in self._void_drills)

    def _end(self, concerned: Callable[[Announcement], bool], now: float) -> None:
        """Fall silent and drop; what was played stays played."""
        for one in filter(concerned, list(self._known.values())):
            if self.turn is not None and self.turn.announcement is one:
                self.turn = None
            if one.state in UNHEARD:
                self._set(one, "stopped", "", now)
            one.due = None

    def _hush(self, id_: str, name: Name, now: float) -> None:
        """Let the round that sounds be the last one; a first one that waits is still heard."""
        for one in self._known.values():
            if one.play.id == id_:
                one.hushed = True
                sounds = self.turn is not None and self.turn.announcement is one
                if one.state not in UNHEARD and not sounds:
                    one.due = None
        self.owed.add(_receipt(id_, name, "hushed", ""), self.reckoning.at(now))

    # -- orders ------------------------------------------------------------------------------------------------------

    def ordered(self, order: AnyOrder, now: float) -> bool:
        """Tell whether an order is to be carried out now; what is refused or known is answered here."""
        at = self.reckoning.at(now)
        known = self._orders.get(order.order)
        if order.to != self.name:
            self._say_done(order.order, Done("failed", "not_for_me"), at)
        elif known is not None:
            self._say_done(order.order, known, at)
        elif order.order in self._under_way:
            pass  # answered when it is done
        elif isinstance(order, Clock) and order.nonce != self.nonce:  # held back since another connection
            self._say_done(order.order, Done("failed", "replayed"), at)
        elif isinstance(order, Clock):  # an id it has not seen: nobody can play an old one back
            self.reckoning.set(order.now.timestamp(), now)
            self._under_way.add(order.order)
            return True
        elif self.reckoning.stale(order.now.timestamp(), now):
            self._say_done(order.order, Done("failed", "replayed"), at)
        else:
            self.reckoning.learn(order.now.timestamp(), now, new=False)
            if order.expires.timestamp() > self.reckoning.at(now):
                self._under_way.add(order.order)
                return True
            self.carried_out(order.order, "expired", now)
        return False

    def carried_out(self, order: str, code: str, now: float) -> None:
        """Report the result of an order: done where there is no code."""
        at = self.reckoning.at(now)
        done = Done("failed" if code else "done", code)
        self._under_way.discard(order)
        self._orders[order] = done
        if len(self._orders) > ORDERS:
            del self._orders[next(iter(self._orders))]
        self._say_done(order, done, at)

    def _say_done(self, order: str, done: Done, at: float) -> None:
        self.owed.add({"type": "receipt", "order": order, "state": done.state, "code": done.code}, at)

    # -- what happens in the village ---------------------------------------------------------------------------------

    def speak(self, live: bool, now: float) -> None:
        """Somebody takes up the microphone, or puts it down."""
        self.live_speech = live
        self.tick(now)

    def alarm(self, id_: str, when: str, now: float) -> None:
        """Report that the village has sounded its own alarm."""
        self.owed.add({"type": "alarm", "alarm": id_, "at": when}, self.reckoning.at(now))

    # -- progress of the sound ---------------------------------------------------------------------------------------

    def started(self, turn: Turn, now: float) -> None:
        """Sound begins, unless getting ready for it took longer than it is valid: see whether `turn` still is."""
        if turn is not self.turn or turn.since is not None:
            return
        one, at = turn.announcement, self.reckoning.at(now)
        if one.ends <= at:
            self._ended(turn, "failed", "expired", now)
            self.tick(now)
            return
        turn.since = at
        if one.state != "played":
            self._set(one, "playing", "", now)

    def spoken(self, turn: Turn, heard_s: float, now: float) -> None:
        """One repetition has ended, in which `heard_s` seconds were heard."""
        if turn is not self.turn:
            return
        one = turn.announcement
        turn.repetition += 1
        turn.heard_s += heard_s
        if turn.repetition >= one.play.repeat:
            one.heard_s = round(turn.heard_s, 3)
            self._ended(turn, "played", "", now)
        elif one.ends <= self.reckoning.at(now):
            self._ended(turn, "failed", "expired", now)
        self.tick(now)

    def broken(self, turn: Turn, code: str, now: float) -> None:
        """Nothing came out, or no longer."""
        if turn is self.turn:
            self._ended(turn, "failed", code, now)
            self.tick(now)

    def _ended(self, turn: Turn, state: str, code: str, now: float) -> None:
        """End a round; its state is the first round's, unless only a later one was heard."""
        one, at = turn.announcement, self.reckoning.at(now)
        self.turn = None
        again = (turn.since if turn.since is not None else at) + one.play.every_s
        one.due = None
        if one.play.every_s and not one.hushed:
            one.due = again if again > at else at + one.play.every_s
        if one.state != "played":
            self._set(one, state, code, now)

    # -- time --------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Let what has become due sound, and drop what has expired. Call it at `next_at`, at the latest."""
        if not self.reckoning.sure:
            return
        at = self.reckoning.at(now)
        sounding = self.turn.announcement if self.turn is not None else None
        self._due = [one for one in self._due if one.due is not None]
        for one in self._due:
            if one is not sounding and one.ends <= at:
                one.due = None
                if one.state in UNHEARD:
                    self._set(one, "failed", "expired", now)
        waiting = [one for one in self._due if one.due is not None and one.due <= at and one is not sounding]
        first = min(waiting, key=lambda one: one.rank, default=None)
        if self.live_speech:
            self._interrupt("live_speech", now)
            first = first if sounding is None or (first and first.rank < sounding.rank) else sounding
            if first is not None and first.code != "live_speech" and first.state != "played":
                self._set(first, "busy", "live_speech", now)
        elif first is not None and (sounding is None or first.play.rank < sounding.play.rank):
            self._interrupt("pre_empted", now, by=first)
            self.turn = Turn(first)

    def _interrupt(self, code: str, now: float, by: Announcement | None = None) -> None:
        """Break off what sounds. It comes back, except a drill that gives way to a real warning."""
        turn, self.turn = self.turn, None
        if turn is None:
            return
        one = turn.announcement
        if by is not None and by.play.real and not one.play.real:
            one.due = None
            if one.state != "played":
                self._set(one, "failed", code, now)
        elif one.state != "played":
            self._set(one, "busy", code, now)

    def next_at(self, now: float) -> float | None:
        """Return when (monotonic) time alone will change something."""
        if not self.reckoning.sure:
            return None
        at = self.reckoning.at(now)
        sounding = self.turn.announcement if self.turn is not None else None
        waiting = [one for one in self._due if one.due is not None and one is not sounding]
        moments = [one.ends if one.due is None or one.due <= at else min(one.due, one.ends) for one in waiting]
        return min((now + moment - at for moment in moments), default=None)

    def forget(self, now: float) -> None:
        """Drop what no frame can bring up again; call it every few minutes."""
        at = self.reckoning.at(now)
        over = [key for key, one in self._known.items() if one.due is None and self._past(one, at)]
        for key in over:
            del self._known[key]
        for known in (self._void, self._void_drills, self._hushed):
            for id_ in [id_ for id_, until in known.items() if until <= at]:
                del known[id_]
        self.owed.forget(at)

    def _past(self, one: Announcement, at: float) -> bool:
        sounding = self.turn is not None and self.turn.announcement is one
        return not sounding and max(one.ends, one.play.now.timestamp() + DAY_S) <= at

    # -- words -------------------------------------------------------------------------------------------------------

    def _set(self, one: Announcement, state: str, code: str, now: float) -> None:
        one.state, one.code = state, code
        self._tell(one, one.names, now)

    def _tell(self, one: Announcement, names: Sequence[Name], now: float) -> None:
        for name in names:
            receipt = _receipt(one.play.id, name, one.state, one.code)
            if one.state == "played":
                receipt["heard_s"] = one.heard_s
            self.owed.add(receipt, self.reckoning.at(now))

    @property
    def playing(self) -> str | None:
        """Id of the version that sounds."""
        return self.turn.announcement.play.id if self.turn is not None else None


def _receipt(id_: str, name: Name, state: str, code: str) -> dict[str, Any]:
    return {"type": "receipt", "id": id_, "batch": name[0], "position": name[1], "state": state, "code": code}
