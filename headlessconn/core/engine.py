"""One target's machine: facts come in, questions are answered at once, wishes go out.

It composes the parts and holds only the rules that touch two of them. After *every* call the driver obeys one law:
carry out `take()` if `outbox` is not empty, and re-arm its timer if `wakeup_at` moved earlier.
"""

from __future__ import annotations

import random
from math import inf

from headlessconn.core.budget import Budget
from headlessconn.core.checking import Checking
from headlessconn.core.connections import Connections
from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Hurry
from headlessconn.core.endpoint import Answer, How
from headlessconn.core.health import Health
from headlessconn.core.lane import Lanes
from headlessconn.core.latency import Latencies
from headlessconn.core.member import Member
from headlessconn.core.membership import Membership
from headlessconn.core.pick import TRIAL
from headlessconn.core.placement import Placement
from headlessconn.core.refresh import Refresh
from headlessconn.core.room import Room
from headlessconn.core.silence import SILENT_MIN, Silence
from headlessconn.core.snapshot import MemberView, Snapshot
from headlessconn.core.target import Target
from headlessconn.core.verifying import Verifying
from headlessconn.errors import Overloaded
from headlessconn.options import Options

FRESHEN = 0.1  # seconds the first user of an idle target waits for a fresh answer before the old set serves
LATE = 0.5  # seconds; what is observed while our own loop stands still for longer is evidence against nobody
FAR = 3600.0  # a wake-up is always armed, so that "never armed" can be told from "nothing to do"


class Engine(Connections):
    """One per target: the set, its health, its load, its schedule.

    wakeup_at  when `wake` wants to be called; always finite; may move earlier in any call
    outbox     effects to carry out; `take()` returns and clears them
    picks      how many picks there have been
    again      how many of them were further attempts of a request that had one
    """

    __slots__ = (
        "_checking",
        "_picks_seen",
        "_rest_at",
        "answer",
        "answer_at",
        "options",
        "target",
        "trouble",
        "watchers",
    )

    def __init__(self, target: Target, options: Options, rng: random.Random, now: float) -> None:
        self.target = target
        self.options = options
        self.outbox: tuple[Effect, ...] = ()
        self.wakeup_at = now
        self.picks = 0
        self.again = 0
        self.waiting = 0
        self.watchers = 0  # readers of its changes: they use it too
        self.used_at = now
        self.budget = Budget(now)
        self.refresh = Refresh(options, rng, now)
        self.answer: Answer | None = None  # the last one that said something
        self.answer_at = -inf
        self.trouble = ""
        self.idle = False
        self._latencies = Latencies(now)
        self._set = Membership(options, rng, self._latencies)
        self._health = Health(self._set, options, rng)
        self._checking = Checking(self._set, self._health, options, rng)
        self._verifying = Verifying(self._set, options, rng)
        self._placement = Placement(self._set, options, rng)
        self._room = None if options.max_in_flight is None else Room(self._set, options.max_in_flight)
        self._turn = False  # the next pick is that of a caller who has waited
        self._silence = Silence()
        self._owed = self._silence.owed
        self._lanes = Lanes()
        self._care_at = inf  # from when on picking must look twice: a trial is due, or the target was idle
        self._fresh_until = -inf  # until when the first user after idleness waits for a fresh answer
        self._answered_at = -inf  # when any pod answered last
        self._overslept_at = -inf
        self._picks_seen = 0
        self._rest_at = -inf  # when anything but silence is to be looked for
        self._try_out_at = -inf  # until when no member is tried out by moving a connection

    def needed(self, now: float) -> None:
        """Somebody wants to know the set without picking: a target that was idle asks again."""
        self.used_at = now
        if self.idle:
            self._wake_from_idleness(now)

    def hint(self, now: float) -> None:
        """Somebody has reason to think that the set in hand is old: DNS is asked soon, though not in a storm."""
        self.refresh.hint(now)
        self._rearm(now)

    def fresh_in(self, now: float) -> float:
        """Seconds until the old set serves, for the first user after idleness; 0 at any other time."""
        return max(0.0, self._fresh_until - now)

    # ---- waiting callers ---------------------------------------------------------------------------------------

    def queued(self, now: float) -> None:
        """A caller got Nobody and waits; `Admit` will wake it."""
        self.waiting += 1
        if not self._can_serve():
            self.refresh.hurry(now)
        self._rearm(now)

    def left(self, now: float) -> None:
        """A waiting caller stopped waiting: it was admitted, gave up, or was cancelled."""
        self.waiting -= 1
        if self._room is not None:
            self._turn = True
            if self.waiting and self._room.is_left():  # who was let in may be gone, or more than one place was freed
                self.outbox += (Admit(1),)

    @property
    def is_queue_full(self) -> bool:
        """Whether one more caller may not even wait."""
        return self.waiting >= self.options.max_waiting

    def overloaded(self, waited: float) -> Overloaded:
        """The error of a caller that may not wait, or has waited in vain for room."""
        serving = self._set.serving()
        in_flight = sum(member.in_flight - member.penalty for member in serving)
        options = self.options
        return Overloaded(
            str(self.target),
            len(serving),
            in_flight,
            options.max_in_flight,
            self.waiting,
            options.max_waiting,
            waited,
        )

    # ---- the world ---------------------------------------------------------------------------------------------

    def answered(self, answer: Answer, now: float, ask: int | None = None) -> None:
        """A source spoke. An answer to an old ask is dropped: a newer one is under way or has been heard."""
        if ask is not None and ask != self.refresh.asking:
            return
        if answer.kind == "no_news":
            self.trouble = answer.why
            self.refresh.no_news(self.waiting, now)
            if now - self.answer_at >= self.options.stale_after:
                self._set.expire_failing(self.options.stale_after, now)
        else:
            self.trouble = ""
            self.answer, self.answer_at = answer, now
            if answer.kind == "records":
                changed = self._set.replace(answer.keys, answer.about, now)
                self.refresh.records(answer.ttl, changed, now)
            else:
                changed = self.refresh.empty_since is None
                self.refresh.nobody(answer.ttl, self.waiting, changed, now)
                if changed or not self._set.listed:
                    self._set.nobody(now)
        if self._fresh_until != -inf:
            self._fresh_until = now
        self._settle(now)

    def probed(self, probe: int, passed: bool, now: float, how: How = How.DIAL_TIMEOUT, why: str = "") -> None:
        """A probe ended; if it did not pass: how, and why in words."""
        if probe > 0:
            self._health.probed(probe, passed, now, inf if how is How.LOCAL else self._overslept_at)
        elif self._checking.ended(probe, passed, how, why, self._overslept_at, now):
            self.refresh.hint(now)
            self._care_at = self._next_care()
        self._settle(now)

    def verified(self, question: int, meant: bool | None, now: float) -> None:
        """`Options.verify` spoke: yes, no, or None when it could not say."""
        self._verifying.told(question, meant, now)
        self._settle(now)

    def overslept(self, seconds: float, now: float) -> None:
        """Our own loop stalled: time-outs of attempts begun before now are no evidence against anybody."""
        self._overslept_at = now

    def wake(self, now: float) -> None:
        """Timers only; facts act when they are told. One that comes late tells of our own stall before anybody else."""
        if now - self.wakeup_at > LATE:
            self._overslept_at = now
        if now < self._rest_at and not self._look_for_silence(now):  # four times a second, as long as anything is owed
            self.wakeup_at = min(self._rest_at, self._silence.look_at)
            return
        refresh = self.refresh
        if now >= refresh.give_up_at:
            self.answered(Answer("dns", "no_news", why="the look-up never ended"), now, refresh.asking)
        self._set.release_held(now)
        if now >= refresh.due_at:
            if self._is_unused(now):
                self.idle = True
                refresh.sleep()
                self._care_at = -inf
            else:
                self._ask(now)
        if not self.idle:
            self.outbox += (*self._health.due(now), *self._checking.due(now), *self._verifying.due(now))
        if now >= self._silence.look_at:
            self._look_for_silence(now)
        self._place_by_time(now)
        self._settle(now)

    def _look_for_silence(self, now: float) -> bool:
        """Whether there was any."""
        if self._overslept_at >= now - SILENT_MIN:  # answers may lie in our own sockets, unread
            self._silence.look_at = now + SILENT_MIN
            return False
        found = self._silence.look(now)
        if not found.hurry and not found.suspects:
            return False
        for member, silent, owed in found.suspects:
            self._health.suspect(member, silent, owed, now)
            self._checking.hurry(member, now)
        if found.suspects:
            self.refresh.hint(now)
        for pick in found.hurry:
            if pick.flags & TRIAL:  # judged now: its holder will cancel it, and that proves nothing
                pick.flags &= ~TRIAL
                self._health.trial_is_silent(pick.member, now)
                self._care_at = self._next_care()
        self.outbox += tuple(map(Hurry, found.hurry))
        return True

    def take(self) -> tuple[Effect, ...]:
        effects, self.outbox = self.outbox, ()
        return effects

    # ---- what can be seen --------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        refresh, placement, hold_until = self.refresh, self._placement, self._set.hold_until
        return Snapshot(
            target=str(self.target),
            members=tuple(self._view(member, now) for member in self._set.members.values()),
            answer=self.answer,
            answer_age=None if self.answer is None else now - self.answer_at,
            trouble=self.trouble,
            asking=bool(refresh.asking),
            idle=self.idle,
            next_look_in=None if refresh.due_at == inf else refresh.due_at - now,
            held_for=None if hold_until == inf else hold_until - now,
            waiting=self.waiting,
            picks=self.picks,
            surplus=placement.surplus,
            moving=placement.moving,
            next_move_in=None if placement.next_move_at == inf else placement.next_move_at - now,
            ejections=self._health.ejections,
            unenforced=self._health.unenforced,
        )

    def _view(self, member: Member, now: float) -> MemberView:
        return MemberView(
            member.endpoint,
            member.state,
            member.why,
            now - member.moved_at,
            member.in_flight - member.penalty,
            member.connections,
            self._latencies.of(member, now) or None,
            None if member.retry_at == inf else member.retry_at - now,
        )

    @property
    def size(self) -> int:
        """How many endpoints are in the set."""
        return len(self._set.listed)

    @property
    def ready(self) -> int:
        """How many of them are READY."""
        return self._set.counts()[0]

    # ---- rules that touch two parts ----------------------------------------------------------------------------

    def _next_care(self) -> float:
        if self.idle or self._fresh_until != -inf or self._room is not None:
            return -inf
        return self._health.next_trial_at()

    def _can_serve(self) -> bool:
        return self._set.roster() is not None and self._fresh_until == -inf

    def _is_unused(self, now: float) -> bool:
        """Seen at each look-up, so that picking need not write down the time."""
        if self.picks != self._picks_seen:
            self._picks_seen = self.picks
            self.used_at = now
        if now - self.used_at <= self.options.idle_after or self.waiting or self.watchers:
            return False
        return not any(member.is_open for member in self._set.members.values())

    def _wake_from_idleness(self, now: float) -> None:
        self.idle = False
        self.used_at = now
        self._fresh_until = now + FRESHEN if self._set.listed else -inf
        if not self.refresh.asking:
            self._ask(now)
        self._care_at = self._next_care()
        self._rearm(now)

    def _ask(self, now: float) -> None:
        self.outbox += (Ask(self.refresh.ask(now)),)

    def _settle(self, now: float) -> None:
        """After a fact that may have changed the set: say what changed, let waiting callers in, set the alarm."""
        change = self._set.changes(now)
        if change is not None:
            self.outbox += (*map(Forget, self._set.forgotten), Changed(change))
            self._set.forgotten.clear()
            self._checking.follow(change, now)
            self._verifying.follow(change, now)
            self._placement.changed(now)
            self._care_at = self._next_care()
        if self._health.hastened:
            self._health.hastened = False
            self._care_at = self._next_care()
        if self._fresh_until != -inf and now >= self._fresh_until:
            self._fresh_until = -inf
            self._care_at = self._next_care()
        if self.waiting and self._can_serve():
            admitted = self.waiting if self._room is None else min(self.waiting, self._room.total())
            if admitted:
                self.outbox += (Admit(admitted),)
        self._rearm(now)

    def _rearm(self, now: float) -> None:
        at = min(now + FAR, self.refresh.due_at, self.refresh.give_up_at, self._set.hold_until)
        if self._fresh_until != -inf:
            at = min(at, self._fresh_until)
        if self._placement.in_use:
            at = min(at, self._placement.next_at, self._next_try_out())
        if self._placement.wishes:
            self.outbox += self._placement.take()
        if not self.idle:
            at = min(at, self._health.next_at, self._checking.next_at, self._verifying.next_at)
        self._rest_at = at
        self.wakeup_at = min(at, self._silence.look_at)
