"""What is evidence against a pod, and what follows: FAILING by dials, EJECTED by answers, probes and trials back."""

from __future__ import annotations

import random
from collections.abc import Collection
from heapq import heappop, heappush
from math import inf

from headlessconn.core import outlier
from headlessconn.core.effects import Probe
from headlessconn.core.endpoint import Key
from headlessconn.core.interval import Interval
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.core.penalty import Penalties
from headlessconn.options import Options

REDIAL_FIRST = 0.5  # seconds; doubled at each failed probe
REDIAL_MAX = 5.0  # a pod that was restarted in place is back as soon as a new one would be (refresh_max)
HASTE = 2.0  # times `eject_base` after its last failure, one that is out may be tried before its time
SILENT_LIMIT = 3  # cancelled attempts in a row without a byte that count as a time-out
PROBE_GUARD = 1.0  # seconds beyond its time-out after which a probe that never reported is given up


class Health:
    """Judges the members of one target.

    A dead connection and a bad answer are different evidence. A failed dial makes a member FAILING: it is re-dialled
    in the background, so that no request pays for finding out. Bad answers make it EJECTED: only a request can tell
    that it answers well again, so one request tries it.
    """

    __slots__ = (
        "_interval",
        "_members",
        "_options",
        "_penalties",
        "_probe_count",
        "_probe_guard",
        "_probes",
        "_random",
        "_timer_count",
        "_timers",
        "ejections",
        "hastened",
        "unenforced",
    )

    def __init__(self, members: Membership, options: Options, rng: random.Random) -> None:
        self._members = members
        self._options = options
        self._random = rng.random
        self._timers: list[tuple[float, int, Member]] = []  # next probes; stale entries are dropped when they surface
        self._timer_count = 0
        self._probe_guard = options.connect_timeout + PROBE_GUARD
        self._probes: dict[int, tuple[Member, float]] = {}
        self._probe_count = 0
        self._interval = Interval(members, options, rng)
        self._penalties = Penalties() if options.policy == "least_request" else None
        self.ejections = 0  # made
        self.hastened = False  # a trial is due earlier than was planned: for the engine to see, and to take back
        self.unenforced = 0  # found right, and not made: one too many, or the options say so

    def refused(self, member: Member, why: str, now: float) -> None:
        """No connection could be had."""
        member.failed_at = now
        match member.state:
            case State.GONE:
                pass
            case State.FAILING:
                member.why = why
            case State.DRAINING:  # left the set *and* refuses
                self._members.move(member, "refuse", why, now)
            case _:
                self._members.move(member, "refuse", why, now)
                if self._members.hold_until != inf:
                    self._members.unlist((member.key,), "leave", "not listed, and refuses", now)
                else:
                    member.dial_failures = 0
                    self._redial_later(member, now)

    def connected(self, member: Member, now: float) -> None:
        """A connect lifts FAILING, and nothing else: a frozen process still accepts, and one that answered badly
        before goes back to be tried by a request."""
        if member.state is not State.FAILING:
            return
        member.dial_failures = 0
        ready, ejected = self._members.counts()
        answered_badly = outlier.is_outlier(member, self._options) or outlier.owes_trial(member)
        if answered_badly and outlier.may_eject(ready + 1, ejected):  # it would be one more
            self._members.move(member, "reconnect", "connects again, but had answered badly", now)
            member.retry_at = now
        else:
            self._members.move(member, "connect", "connected", now)

    def answered_badly(self, member: Member, trial: bool, why: str, now: float) -> None:
        member.failed_at = now
        member.bad_in_a_row += 1
        if member.state is State.EJECTED:
            if trial:
                member.why = f"its trial ended badly: {why}"
                self._tried_in_vain(member, now)
        elif member.state is State.READY and outlier.is_outlier(member, self._options):
            done = self._eject(member, f"{member.bad_in_a_row} bad answers in a row, the last: {why}", now)
            if not done and member.bad_in_a_row == self._options.consecutive_failures:
                self.unenforced += 1  # once a row: each further answer asks again

    def counted_bad(self, member: Member, now: float) -> None:
        """One of the answers counted in `Member.answers` was bad."""
        self._interval.bad(member, now)

    def penalized(self, member: Member, retry_after: float, now: float) -> bool:
        """An answer was bad, or asked to be left alone: a policy that does not look at latencies must hear of it too.
        Whether there is a new timer."""
        if self._penalties is None:
            return False
        self._penalties.add(member, retry_after, now)
        return True

    def _compare(self, now: float) -> None:
        """An interval is over: who answered worse than the others?"""
        for member, why, enforced in self._interval.end():
            if not (enforced and self._eject(member, why, now)):
                self.unenforced += 1

    def _eject(self, member: Member, why: str, now: float) -> bool:
        """Whether it was done: it may be one too many."""
        if not outlier.may_eject(*self._members.counts()):
            self._hasten(now)
            return False
        self._members.move(member, "eject", why, now)
        member.retry_at = outlier.sentence(member, self._options, now)
        self.ejections += 1
        return True

    def _hasten(self, now: float) -> None:
        """One that should go may not, since others are out: those that have recovered since shall come back for it."""
        for member in self._members.in_state(State.EJECTED):
            soon = max(now, member.failed_at + HASTE * self._options.eject_base)
            if not member.foreign and soon < member.retry_at < inf:
                member.retry_at = soon
                self.hastened = True

    def answered_well(self, member: Member, trial: bool, now: float) -> None:
        member.bad_in_a_row = 0
        if trial and member.state is State.EJECTED:
            self._members.move(member, "readmit", "its trial went well", now)
            member.grown = 0.0  # average, until it is measured: else its penalty would keep it out for longer than its
            if self._penalties is not None:  # sentence did
                self._penalties.lift(member)

    def suspect(self, member: Member, silent: float, owed: int, now: float) -> None:
        """It owes answers and says nothing while others answer (`core/silence.py`)."""
        member.suspected = True
        member.failed_at = now
        if member.state is State.READY:
            why = f"silent for {silent:.2f} s, owing {owed} answer{'s' if owed > 1 else ''}, while others answer"
            if self._eject(member, why, now):
                member.ejected_for_silence = True
            else:
                self.unenforced += 1

    def trial_is_silent(self, member: Member, now: float) -> None:
        """It was to show that it answers, and does not."""
        if member.state is State.EJECTED:
            member.failed_at = now
            member.why = "its trial is silent"
            self._tried_in_vain(member, now)
        member.trial = False

    def _tried_in_vain(self, member: Member, now: float) -> None:
        """It stays out for longer. A request and a check that try it at the same time are one trial."""
        member.trial = False
        if now >= member.retry_at:
            member.retry_at = outlier.sentence(member, self._options, now)

    def heard(self, member: Member, now: float) -> None:
        """A suspected member answers after all."""
        member.suspected = False
        if member.ejected_for_silence and not outlier.is_outlier(member, self._options):
            self._members.move(member, "readmit", "it answers again", now)

    def silent(self, member: Member, since: float, others_answered_at: float) -> bool:
        """An attempt was cancelled without a byte. True when it was the third in a row while others answered: that is
        how a caller's own time-out looks from here."""
        if not member.silent:
            member.silent_since = since
        member.silent += 1
        if member.silent < SILENT_LIMIT or others_answered_at <= member.silent_since:
            return False
        member.silent = 0
        return True

    def doubt(self, member: Member, now: float) -> bool:
        """A dial to it was silent for so long that another pod's was taken: a probe shall tell whether it is dead, so
        that no further request pays for finding out. False when one is under way or nothing hangs on it."""
        if member.state is not State.READY or member.probing:
            return False
        self._probe_at(member, now)
        return True

    def probed(self, probe: int, passed: bool, now: float, stalled_at: float = inf) -> None:
        """A probe ended. Without a connection it is evidence only if we did not stall since it began (`stalled_at`)."""
        member, until = self._probes.pop(probe, (None, 0.0))
        if member is None:
            return
        member.probing = False
        if passed:
            member.connected_at = now
            self.connected(member, now)
        elif member.state is State.FAILING:
            self._redial_later(member, now)
        elif member.state is State.READY and max(member.connected_at, stalled_at) < until - self._probe_guard:
            self.refused(member, "silent to a dial, and to a probe after it", now)

    def due(self, now: float) -> list[Probe]:
        """The probes to send now; and an interval may be over."""
        if now >= self._interval.ends_at:
            self._compare(now)
        if self._penalties is not None:
            self._penalties.due(now)
        if self._probes:
            for probe, (_, until) in list(self._probes.items()):
                if now >= until:  # the driver never told: go on all the same
                    self.probed(probe, False, now)
        probes = []
        while self._timers and self._timers[0][0] <= now:
            at, _, member = heappop(self._timers)
            if at != member.retry_at or member.probing:
                continue
            member.probing = True
            member.retry_at = inf
            timeout = self._options.connect_timeout
            self._probe_count += 1
            self._probes[self._probe_count] = (member, now + self._probe_guard)
            probes.append(Probe(self._probe_count, member.endpoint, timeout))
        return probes

    @property
    def next_at(self) -> float:
        """When `due` wants to be called."""
        while self._timers and self._timers[0][0] != self._timers[0][2].retry_at:
            heappop(self._timers)  # overtaken by a later one, or no longer needed
        at = min(self._interval.ends_at, self._timers[0][0] if self._timers else inf)
        if self._penalties is not None:
            at = min(at, self._penalties.next_at)
        return min(at, min(until for _, until in self._probes.values())) if self._probes else at

    def trial(self, now: float, avoid: Collection[Key]) -> Member | None:
        """An ejected member whose time is over; it becomes somebody's trial."""
        most = self._options.max_in_flight or inf
        for member in self._members.in_state(State.EJECTED):
            has_room = member.in_flight - member.penalty < most
            if not member.trial and now >= member.retry_at and member.key not in avoid and has_room:
                member.trial = True
                return member
        return None

    def next_trial_at(self) -> float:
        ejected = self._members.in_state(State.EJECTED)
        return min((member.retry_at for member in ejected if not member.trial), default=inf)

    def _redial_later(self, member: Member, now: float) -> None:
        wait = min(REDIAL_FIRST * 2.0 ** min(member.dial_failures, 20), REDIAL_MAX)
        member.dial_failures += 1
        self._probe_at(member, now + wait * (1.0 - 0.1 * self._random()))

    def _probe_at(self, member: Member, at: float) -> None:
        member.retry_at = at
        self._timer_count += 1
        heappush(self._timers, (at, self._timer_count, member))
