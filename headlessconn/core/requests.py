"""Requests are picked: a member for each, and what its end says about the pod.

The first half of an engine; `core/engine.py` has the other one, the world. One class by inheritance, since the hot path
runs through here and an object between would cost a call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from math import inf

from headlessconn.core.budget import Budget
from headlessconn.core.effects import Admit, Effect
from headlessconn.core.endpoint import NO_DIAL, How, Key
from headlessconn.core.health import Health
from headlessconn.core.lane import Lane, Lanes
from headlessconn.core.latency import Latencies
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.core.pick import (
    ALL_AVOIDED,
    ANSWERED,
    BAD,
    CONNECTED,
    ENDED,
    FULL,
    LIMITED,
    NOBODY,
    STREAMS,
    TRIAL,
    Nobody,
    Pick,
)
from headlessconn.core.refresh import Refresh
from headlessconn.core.room import Room
from headlessconn.core.silence import SILENT_MIN, Silence
from headlessconn.core.verifying import Verifying
from headlessconn.errors import PickEnded
from headlessconn.options import Options

DIAL_SILENT = 0.05  # seconds: inside a cluster TCP takes 0.2 ms, between zones 2 ms

_OK, _DRAINING = How.OK, State.DRAINING  # reading a member of an Enum costs 100 ns, and these are read per request
_APART = TRIAL | LIMITED


class Requests(ABC):
    """What an engine is told and asked about requests. The attributes are the engine's."""

    __slots__ = (
        "_answered_at",
        "_care_at",
        "_fresh_until",
        "_health",
        "_lanes",
        "_latencies",
        "_overslept_at",
        "_owed",
        "_room",
        "_set",
        "_silence",
        "_turn",
        "_verifying",
        "again",
        "budget",
        "idle",
        "options",
        "outbox",
        "picks",
        "refresh",
        "waiting",
        "wakeup_at",
    )

    _answered_at: float
    _care_at: float
    _fresh_until: float
    _health: Health
    _lanes: Lanes
    _latencies: Latencies
    _overslept_at: float
    _owed: dict[Pick, None]
    _room: Room | None
    _set: Membership
    _silence: Silence
    _turn: bool
    _verifying: Verifying
    again: int
    budget: Budget
    idle: bool
    options: Options
    outbox: tuple[Effect, ...]
    picks: int
    refresh: Refresh
    waiting: int
    wakeup_at: float

    def pick(self, now: float, avoid: Collection[Key] = (), safe: bool = True, again: bool = False) -> Pick | Nobody:
        """A member for one request, counted as in flight from now on.

        `avoid`: endpoints this request has tried. `safe`: the request may serve as the trial of an ejected member.
        `again`: it is a further attempt of a request that had one, so it earns nothing for the budget.
        """
        if now >= self._care_at:
            careful = self._pick_with_care(now, avoid, safe, again)
            if careful is not None:
                return careful
        picker = self._set.picker
        if picker is None:
            picker = self._set.roster()
            if picker is None:
                return NOBODY
        if avoid:
            other = self._set.pick_avoiding(avoid, now)
            if other is None:
                return ALL_AVOIDED
            member = other
        else:
            member = picker.pick(now)
        if again:
            self.again += 1
        return self._taken(member, now)

    def _taken(self, member: Member, now: float) -> Pick:
        self.picks = member.picked = self.picks + 1
        member.in_flight += 1
        silence = self._silence
        pick = Pick(member, now)
        self._owed[pick] = None
        if silence.look_at == inf:
            silence.look_at = now + SILENT_MIN
            if silence.look_at < self.wakeup_at:
                self.wakeup_at = silence.look_at
        return pick

    def lane(self, name: str) -> Lane:
        """The latencies of one kind of request, for `Pick.lane`: a route, or a class that the caller names."""
        return self._lanes.named(name)

    def may_spend(self, now: float) -> bool:
        """Take from the budget what one attempt more than asked for costs; False when it is empty."""
        return self.budget.spend(self.picks - self.again, now)

    def could_spend(self, now: float) -> bool:
        """Whether the budget would allow one now."""
        return self.budget.allows(self.picks - self.again, now)

    def dialled(self, pick: Pick, how: How, now: float) -> None:
        """A dial for this pick ended: evidence about connections, apart from evidence about answers."""
        member = pick.member
        if how is _OK:
            if self._verifying.reached(member, now):
                self._rearm(now)
            member.connected_at = now
            self.sent(pick, now)
            if member.state is State.FAILING:
                self._health.connected(member, now)
                self._settle(now)
        elif how in NO_DIAL and not self._is_void(pick, how):
            if pick.started_at >= member.connected_at:  # else a later dial has already succeeded
                self._health.refused(member, how.value, now)
            self.refresh.hint(now)
            self._settle(now)

    def sent(self, pick: Pick, now: float) -> None:
        """It has a connection: its latency and its silence are the pod's own from now on, without the dial."""
        pick.flags |= CONNECTED
        pick.started_at = now

    def responded(self, pick: Pick, bad: bool, now: float, retry_after: float = 0.0) -> None:
        """The answer's head came: its latency is taken here, and whether it was good.

        `retry_after`: it asks to be left alone for so many seconds (a 429 or 503; if it names none, any number above 0
        will do). The pod gets less for that long, at most 300 s, also when the answer is not `bad`.
        """
        flags = pick.flags
        if flags & ANSWERED:
            return
        pick.flags = flags | ANSWERED | CONNECTED
        member = pick.member
        self._answered_at = member.heard_at = now
        self._silence.began.append(pick.started_at)
        self._owed.pop(pick, None)
        if pick.lane is not None:
            pick.lane.observe(now - pick.started_at)
        if member.suspected:
            self._health.heard(member, now)
            self._settle(now)
        member.silent = 0
        member.answers += 1
        if bad or retry_after or member.bad_in_a_row or flags & TRIAL:
            self._responded_otherwise(pick, bad, now, retry_after)
        else:
            self._latencies.observe(member, now - pick.started_at, now, self._set.members)

    def streams(self, pick: Pick) -> None:
        """The exchange became a long-lived one (upgrade, event stream): it is a connection now, not a request."""
        if not pick.flags & (STREAMS | ENDED):
            pick.flags |= STREAMS
            self._owed.pop(pick, None)
            pick.member.in_flight -= 1
            pick.member.connections += 1
            if pick.flags & LIMITED and self.waiting:
                self.outbox += (Admit(1),)

    def ended(self, pick: Pick, how: How, now: float) -> None:
        """The pick is over, exactly once. Raises `PickEnded` the second time."""
        flags = pick.flags
        if flags & ENDED:
            raise PickEnded(f"the pick of {pick.endpoint} was ended twice, now as {how.value!r}")
        pick.flags = flags | ENDED
        member = pick.member
        if flags & STREAMS:
            member.connections -= 1
        else:
            member.in_flight -= 1
        if how is not _OK:
            self._owed.pop(pick, None)
            self._ended_otherwise(pick, how, now)
        elif not flags & ANSWERED:
            self.responded(pick, False, now)  # left unsaid: it went well
        if flags & _APART:
            if flags & TRIAL and member.trial:
                member.trial = False  # however it ended the next trial is possible
                if member.state is State.EJECTED and not flags & ANSWERED:
                    self._not_tried(pick, how, now)
                self._care_at = self._next_care()
            if flags & LIMITED and self.waiting:
                self.outbox += (Admit(1),)
        if member.state is _DRAINING:
            self._set.close_if_drained(member, now)
            self._settle(now)

    # ---- what the end of a pick says ---------------------------------------------------------------------------

    def _is_void(self, pick: Pick, how: How) -> bool:
        """Whether our own stall may be what was observed. A refusal is the kernel's word and stays."""
        return how is not How.REFUSED and pick.started_at <= self._overslept_at

    def _was_silent(self, pick: Pick, now: float) -> bool:
        """Whether it had time to answer: our own races and hedges cancel their losers early."""
        if not pick.flags & CONNECTED:
            return now - pick.started_at >= DIAL_SILENT
        return self._had_time(pick, now)

    def _had_time(self, pick: Pick, now: float) -> bool:
        """Whether it lasted for as long as its kind may take, where that is known."""
        usual = None if pick.lane is None else pick.lane.quantile(0.99)
        return usual is None or now - pick.started_at >= usual

    def _not_tried(self, pick: Pick, how: How, now: float) -> None:
        """A trial ended without an answer. Its pod must not be tried again at once, or every request is its trial."""
        if how is How.CANCELLED and not self._is_void(pick, how) and self._was_silent(pick, now):
            self._health.trial_is_silent(pick.member, now)
        elif how is How.LOCAL or how is How.CANCELLED or how is How.TIMEOUT:
            pick.member.retry_at = now + self.options.eject_base  # undoubled: nothing was learnt

    def _responded_otherwise(self, pick: Pick, bad: bool, now: float, retry_after: float) -> None:
        """An answer that is bad, asks to be left alone, or was waited for by those who judge."""
        member = pick.member
        if bad or retry_after > 0.0:
            again = bad and pick.started_at > member.failed_at > -inf
            self._latencies.penalize(member, now - pick.started_at, now, retry_after, self._set.members, again)
            if self._health.penalized(member, retry_after, now):
                self._rearm(now)
        else:
            self._latencies.observe(member, now - pick.started_at, now, self._set.members)
        if bad or member.bad_in_a_row or pick.flags & TRIAL:
            self._judge(pick, bad, How.BAD_STATUS.value, now)

    def _judge(self, pick: Pick, bad: bool, why: str, now: float) -> None:
        trial = bool(pick.flags & TRIAL)
        if bad:
            if not pick.flags & BAD:  # else a bad head, and then a reset: one request
                pick.flags |= BAD
                self._health.counted_bad(pick.member, now)
            self._health.answered_badly(pick.member, trial, why, now)
        else:
            self._health.answered_well(pick.member, trial, now)
            pick.member.bad_checks = 0
        if trial:
            pick.flags &= ~TRIAL  # it is judged: its end, which may be long after, makes no room for another
            self._care_at = self._next_care()
        self._settle(now)

    def _ended_otherwise(self, pick: Pick, how: How, now: float) -> None:
        answered = pick.flags & ANSWERED
        if how is How.BAD_STATUS:
            self.responded(pick, True, now)
        elif how is How.RESET or how is How.TIMEOUT:
            if self._is_void(pick, how):
                return
            if not answered:
                self._at_least(pick, now)  # no penalty: the next dial tells more of it, and costs no request
            if how is How.RESET or answered or self._had_time(pick, now):  # else its caller had little time left
                if not answered:
                    pick.member.answers += 1
                self._judge(pick, True, how.value, now)
                self.refresh.hint(now)
                self._rearm(now)
        elif how is How.CANCELLED and not answered and not self._is_void(pick, how):
            self._at_least(pick, now)
            if not pick.flags & CONNECTED and now - pick.started_at >= self.options.race_after:
                if self._health.doubt(pick.member, now):
                    self._rearm(now)
            if self._was_silent(pick, now) and self._health.silent(pick.member, pick.started_at, self._answered_at):
                if pick.flags & CONNECTED:
                    self._health.answered_badly(pick.member, False, "silent until its callers gave up", now)
                elif pick.started_at >= pick.member.connected_at:
                    self._health.refused(pick.member, "no connection until its callers gave up", now)
                self.refresh.hint(now)
                self._settle(now)

    def _at_least(self, pick: Pick, now: float) -> None:
        self._latencies.at_least(pick.member, now - pick.started_at, now, self._set.members)

    def _pick_with_care(self, now: float, avoid: Collection[Key], safe: bool, again: bool) -> Pick | Nobody | None:
        if self.idle:
            self._wake_from_idleness(now)
        if now < self._fresh_until:
            return NOBODY
        trial = self._health.trial(now, avoid) if safe else None
        if trial is None:
            return None if self._room is None else self._pick_within_limit(self._room, now, avoid, again)
        self._care_at = self._next_care()
        pick = self._taken(trial, now)
        pick.flags = TRIAL
        return pick

    def _pick_within_limit(self, room: Room, now: float, avoid: Collection[Key], again: bool) -> Pick | Nobody:
        turn, self._turn = self._turn, False
        if self.waiting and not turn and not again and not avoid and self._set.listed:
            return FULL  # those who wait come first: else a caller in a loop of requests would starve them
        found = room.pick(avoid, now)
        if isinstance(found, Nobody):
            return found
        if again:
            self.again += 1
        pick = self._taken(found, now)
        pick.flags = LIMITED
        return pick

    # ---- the engine's other half -------------------------------------------------------------------------------

    @abstractmethod
    def _next_care(self) -> float: ...

    @abstractmethod
    def _wake_from_idleness(self, now: float) -> None: ...

    @abstractmethod
    def _settle(self, now: float) -> None: ...

    @abstractmethod
    def _rearm(self, now: float) -> None: ...
