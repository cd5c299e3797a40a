"""One target's machine: facts come in, questions are answered at once, wishes go out.

It composes the parts and holds only the rules that touch two of them. After *every* call the driver obeys one law:
carry out `take()` if `outbox` is not empty, and re-arm its timer if `wakeup_at` moved earlier.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from math import inf

from headlessconn.core.budget import Budget
from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget
from headlessconn.core.endpoint import NO_DIAL, Answer, How, Key
from headlessconn.core.health import Health
from headlessconn.core.latency import Latencies
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.core.pick import ALL_AVOIDED, ANSWERED, CONNECTED, ENDED, NOBODY, STREAMS, TRIAL, Nobody, Pick
from headlessconn.core.refresh import Refresh
from headlessconn.core.snapshot import MemberView, Snapshot
from headlessconn.core.target import Target
from headlessconn.errors import PickEnded
from headlessconn.options import Options

FRESHEN = 0.1  # seconds the first user of an idle target waits for a fresh answer before the old set serves
FAR = 3600.0  # a wake-up is always armed, so that "never armed" can be told from "nothing to do"

_OK, _DRAINING = How.OK, State.DRAINING  # reading a member of an Enum costs 100 ns, and these are read per request


class Engine:
    """One per target: the set, its health, its load, its schedule.

    wakeup_at  when `wake` wants to be called; always finite; may move earlier in any call
    outbox     effects to carry out; `take()` returns and clears them
    picks      how many picks there have been
    """

    __slots__ = (
        "_answered_at",
        "_care_at",
        "_fresh_until",
        "_health",
        "_latencies",
        "_overslept_at",
        "_picks_seen",
        "_set",
        "answer",
        "answer_at",
        "budget",
        "idle",
        "options",
        "outbox",
        "picks",
        "refresh",
        "target",
        "trouble",
        "used_at",
        "waiting",
        "watchers",
        "wakeup_at",
    )

    def __init__(self, target: Target, options: Options, rng: random.Random, now: float) -> None:
        self.target = target
        self.options = options
        self.outbox: tuple[Effect, ...] = ()
        self.wakeup_at = now
        self.picks = 0
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
        self._care_at = inf  # from when on picking must look twice: a trial is due, or the target was idle
        self._fresh_until = -inf  # until when the first user after idleness waits for a fresh answer
        self._answered_at = -inf  # when any pod answered last
        self._overslept_at = -inf
        self._picks_seen = 0

    # ---- requests: picked --------------------------------------------------------------------------------------

    def pick(self, now: float, avoid: Collection[Key] = (), safe: bool = True) -> Pick | Nobody:
        """A member for one request, counted as in flight from now on.

        `avoid`: endpoints this request has tried. `safe`: the request may serve as the trial of an ejected member.
        """
        if now >= self._care_at:
            careful = self._pick_with_care(now, avoid, safe)
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
        self.picks = member.picked = self.picks + 1
        member.in_flight += 1
        return Pick(member, now)

    def dialled(self, pick: Pick, how: How, now: float) -> None:
        """A dial for this pick ended: evidence about connections, apart from evidence about answers."""
        member = pick.member
        if how is _OK:
            pick.flags |= CONNECTED
            pick.started_at = member.connected_at = now  # a latency is the pod's own, without the dial
            if member.state is State.FAILING:
                self._health.connected(member, now)
                self._settle(now)
        elif how in NO_DIAL and not self._is_void(pick, how):
            if pick.started_at >= member.connected_at:  # else a later dial has already succeeded
                self._health.refused(member, how.value, now)
            self.refresh.hint(now)
            self._settle(now)

    def responded(self, pick: Pick, bad: bool, now: float) -> None:
        """The answer's head came: its latency is taken here, and whether it was good."""
        flags = pick.flags
        if flags & ANSWERED:
            return
        pick.flags = flags | ANSWERED | CONNECTED
        member = pick.member
        self._answered_at = now
        self._latencies.observe(member, now - pick.started_at, now, self._set.members)
        member.silent = 0
        if bad or member.bad_in_a_row or flags & TRIAL:
            self._judge(pick, bad, How.BAD_STATUS.value, now)

    def streams(self, pick: Pick) -> None:
        """The exchange became a long-lived one (upgrade, event stream): it is a connection now, not a request."""
        if not pick.flags & (STREAMS | ENDED):
            pick.flags |= STREAMS
            pick.member.in_flight -= 1
            pick.member.connections += 1

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
            self._ended_otherwise(pick, how, now)
        elif not flags & ANSWERED:
            self.responded(pick, False, now)  # left unsaid: it went well
        if flags & TRIAL and member.trial:
            member.trial = False  # however it ended the next trial is possible: a cancelled one proves nothing
            self._care_at = self._next_care()
        if member.state is _DRAINING:
            self._set.close_if_drained(member, now)
            self._settle(now)

    def needed(self, now: float) -> None:
        """Somebody wants to know the set without picking: a target that was idle asks again."""
        self.used_at = now
        if self.idle:
            self._wake_from_idleness(now)

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

    def probed(self, probe: int, passed: bool, now: float) -> None:
        """A probe ended."""
        self._health.probed(probe, passed, now)
        self._settle(now)

    def overslept(self, seconds: float, now: float) -> None:
        """Our own loop stalled: time-outs of attempts begun before now are no evidence against anybody."""
        self._overslept_at = now

    def wake(self, now: float) -> None:
        """Timers only; facts act when they are told."""
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
            self.outbox += tuple(self._health.due(now))
        self._settle(now)

    def take(self) -> tuple[Effect, ...]:
        effects, self.outbox = self.outbox, ()
        return effects

    # ---- what can be seen --------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> Snapshot:
        refresh, hold_until = self.refresh, self._set.hold_until
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
        )

    def _view(self, member: Member, now: float) -> MemberView:
        return MemberView(
            member.endpoint,
            member.state,
            member.why,
            now - member.moved_at,
            member.in_flight,
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

    def _is_void(self, pick: Pick, how: How) -> bool:
        """Whether our own stall may be what was observed. A refusal is the kernel's word and stays."""
        return how is not How.REFUSED and pick.started_at <= self._overslept_at

    def _judge(self, pick: Pick, bad: bool, why: str, now: float) -> None:
        trial = bool(pick.flags & TRIAL)
        if bad:
            self._health.answered_badly(pick.member, trial, why, now)
        else:
            self._health.answered_well(pick.member, trial, now)
        if trial:
            pick.flags &= ~TRIAL  # it is judged: its end, which may be long after, makes no room for another
            self._care_at = self._next_care()
        self._settle(now)

    def _ended_otherwise(self, pick: Pick, how: How, now: float) -> None:
        answered = pick.flags & ANSWERED
        if how is How.BAD_STATUS:
            self.responded(pick, True, now)
        elif how is How.RESET or how is How.TIMEOUT:
            if not self._is_void(pick, how):
                if not answered:
                    self._at_least(pick, now)
                self._judge(pick, True, how.value, now)
                self.refresh.hint(now)
                self._rearm(now)
        elif how is How.CANCELLED and not answered and not self._is_void(pick, how):
            self._at_least(pick, now)
            if self._health.silent(pick.member, pick.started_at, self._answered_at):
                if pick.flags & CONNECTED:
                    self._health.answered_badly(pick.member, False, "silent until its callers gave up", now)
                elif pick.started_at >= pick.member.connected_at:
                    self._health.refused(pick.member, "no connection until its callers gave up", now)
                self.refresh.hint(now)
                self._settle(now)

    def _at_least(self, pick: Pick, now: float) -> None:
        self._latencies.at_least(pick.member, now - pick.started_at, now, self._set.members)

    def _pick_with_care(self, now: float, avoid: Collection[Key], safe: bool) -> Pick | Nobody | None:
        if self.idle:
            self._wake_from_idleness(now)
        if now < self._fresh_until:
            return NOBODY
        trial = self._health.trial(now, avoid) if safe else None
        if trial is None:
            return None
        self._care_at = self._next_care()
        self.picks = trial.picked = self.picks + 1
        trial.in_flight += 1
        pick = Pick(trial, now)
        pick.flags = TRIAL
        return pick

    def _next_care(self) -> float:
        if self.idle or self._fresh_until != -inf:
            return -inf
        return self._health.next_trial_at()

    def _can_serve(self) -> bool:
        return bool(self._set.listed) and self._fresh_until == -inf

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
            self._care_at = self._next_care()
        if self._fresh_until != -inf and now >= self._fresh_until:
            self._fresh_until = -inf
            self._care_at = self._next_care()
        if self.waiting and self._can_serve():
            self.outbox += (Admit(self.waiting),)
        self._rearm(now)

    def _rearm(self, now: float) -> None:
        at = min(now + FAR, self.refresh.due_at, self.refresh.give_up_at, self._set.hold_until)
        if self._fresh_until != -inf:
            at = min(at, self._fresh_until)
        if not self.idle:
            at = min(at, self._health.next_at)
        self.wakeup_at = at
