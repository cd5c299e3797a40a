"""Active checks: which quiet member to ask next, and what its answer says.

A check sees less than a request does, so it may say less. What it may:

    a passed check              Tcp                  Http
    FAILING                     lifts                lifts: it connected, too
    EJECTED, silent             nothing: a frozen    lifts: silence is what an answer refutes
                                process accepts
    EJECTED, bad answers        nothing              lifts, once the sentence is over; the bad answers that *requests*
                                                     saw stay counted, so that one more ejects it again. A health page
                                                     that works beside broken pages then costs one request a sentence,
                                                     as a trial does; and where no request may serve as a trial (only
                                                     POSTs, say) there is a way back
    READY                       nothing              takes back the bad answers that checks saw, and only those

    a failed check
    no connection               as a failed dial     the same; one bad answer, if it asked another port than requests do
    bad status, silence, reset                       READY: one bad answer. EJECTED: its trial, if one was due, ended
                                                     badly, which spares a request to find that out
    our own trouble             nothing              nothing

What is newer wins: a passed check that began before the last failure lifts nothing, and a failed one that began before
the last connection or answer proves nothing.
"""

from __future__ import annotations

import random
from math import inf

from headlessconn.checks import Http
from headlessconn.core.agenda import Agenda
from headlessconn.core.effects import Change, Probe
from headlessconn.core.endpoint import NO_DIAL, How
from headlessconn.core.health import PROBE_GUARD, Health
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.options import Options

GRAINS = 50  # looks in an interval: every 0.1 s at 5 s, a tenth of the jitter below
JITTER = 0.1  # of the interval, early: clients that start together part within ten checks

_CHECKED = frozenset({State.READY, State.EJECTED})  # FAILING is re-dialled anyway; who left the set is left alone
_BAD_ANSWERS = frozenset({How.BAD_STATUS, How.TIMEOUT, How.RESET})


class Checking:
    """Checks the members of one target that nothing was heard from for `check_interval`. Idle when `check` is None."""

    __slots__ = ("_agenda", "_check", "_health", "_interval", "_is_elsewhere", "_members", "_options", "_random")

    def __init__(self, members: Membership, health: Health, options: Options, rng: random.Random) -> None:
        self._members = members
        self._health = health
        self._options = options
        self._check = check = options.check
        self._interval = options.check_interval
        self._is_elsewhere = isinstance(check, Http) and check.port is not None
        self._random = rng.random
        self._agenda = Agenda(self._interval / GRAINS, -1)

    def follow(self, change: Change, now: float) -> None:
        """Somebody moved: who is new in the round gets a place in it, anywhere in an interval; who was ejected is asked
        when the sentence is over."""
        if self._check is not None:
            for member, _, after in change.steps:
                if not self._is_checked(member):
                    continue
                if after is State.EJECTED and self._waits_for_its_sentence(member, now):
                    self._agenda.plan(member, member.retry_at)
                elif member not in self._agenda:
                    self._agenda.plan(member, now + self._interval * self._random())

    def hurry(self, member: Member, now: float) -> None:
        """It fell silent (`core/silence.py`): one question by HTTP tells sooner, and cheaper, than a request that would
        have to be its trial."""
        if isinstance(self._check, Http):
            self._agenda.plan_now(member, now)

    def due(self, now: float) -> list[Probe]:
        """The checks to send now."""
        if self._check is None:
            return []
        for number in self._agenda.overdue(now):
            self.ended(number, False, How.LOCAL, "", inf, now)  # the driver never told, which says nothing of the pod
        probes = []
        for member in self._agenda.due(now):
            if not self._is_checked(member):
                continue
            quiet_at = self._quiet_at(member)
            if now < quiet_at:
                self._agenda.plan(member, quiet_at)
            else:
                probes.append(self._send(member, now))
        return probes

    def ended(self, probe: int, passed: bool, how: How, why: str, void_until: float, now: float) -> bool:
        """A check ended; whether it was evidence against the pod. `void_until`: until when our own loop stood still."""
        found = self._agenda.ended(probe)
        if found is None:
            return False
        member, began = found
        against = False
        if not passed:
            is_void = how is not How.REFUSED and began <= void_until
            against = not is_void and self._failed(member, began, how, why, now)
        elif member.failed_at <= began:
            self._passed(member, began, now)
        if self._is_checked(member):
            if member.suspected and member.failed_at > began:
                self.hurry(member, now)  # it fell silent after this one began
            elif self._waits_for_its_sentence(member, now):
                self._agenda.plan(member, member.retry_at)
            else:
                self._agenda.plan(member, now + self._interval * (1.0 - JITTER * self._random()))
        return against

    @property
    def next_at(self) -> float:
        """When `due` wants to be called."""
        return inf if self._check is None else self._agenda.next_at

    def _send(self, member: Member, now: float) -> Probe:
        check, wait = self._check, self._options.connect_timeout
        assert check is not None
        answer = check.timeout if isinstance(check, Http) else 0.0
        # Its turn among all checks of the loop, the connection, the answer.
        number = self._agenda.sent(member, now, now + 2.0 * wait + answer + PROBE_GUARD)
        return Probe(number, member.endpoint, wait, check)

    def _is_checked(self, member: Member) -> bool:
        return member.state in _CHECKED and not member.foreign

    def _waits_for_its_sentence(self, member: Member, now: float) -> bool:
        """Whether a passed check would lift nothing yet."""
        is_heard = isinstance(self._check, Http) and not member.suspected
        return is_heard and member.state is State.EJECTED and member.retry_at >= now

    def _quiet_at(self, member: Member) -> float:
        """From when on a check of it tells anything new."""
        if member.suspected:
            return -inf
        if not isinstance(self._check, Http):
            return max(member.heard_at, member.connected_at) + self._interval
        if member.state is State.EJECTED:
            return member.retry_at
        return member.heard_at + self._interval

    def _passed(self, member: Member, began: float, now: float) -> None:
        if not self._is_elsewhere:
            member.connected_at = max(member.connected_at, began)
            self._health.connected(member, now)
        if not isinstance(self._check, Http):
            return
        member.bad_in_a_row = max(0, member.bad_in_a_row - member.bad_checks)
        member.bad_checks = 0
        if member.suspected:
            self._health.heard(member, now)
        if member.state is State.EJECTED and now >= member.retry_at:
            member.readmitted_at = now
            self._members.move(member, "readmit", "its check passed", now)

    def _failed(self, member: Member, began: float, how: How, why: str, now: float) -> bool:
        if how in NO_DIAL and not self._is_elsewhere:
            if member.connected_at > began:
                return False
            self._health.refused(member, f"its check: {why or how.value}", now)
            return True
        if how not in _BAD_ANSWERS and how not in NO_DIAL:
            return False
        if member.heard_at > began:
            return False
        why = f"its check: {why or how.value}"
        if member.state is State.READY:
            member.bad_checks += 1
            self._health.answered_badly(member, False, why, now)
        elif member.state is State.EJECTED and now >= member.retry_at:
            member.bad_checks += 1
            self._health.answered_badly(member, True, why, now)
        return True
