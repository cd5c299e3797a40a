"""Connections are placed: where each long-lived one goes, and what its end says about the pod.

The second part of an engine, after `core/requests.py` and before `core/engine.py`. Where connections go is decided in
`core/placement.py`; here are the rules that touch health and look-ups too.
"""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from headlessconn.core.claim import KEEP, Claim, ConnId, Keep, Retire
from headlessconn.core.endpoint import NO_DIAL, How, Key
from headlessconn.core.member import Member, State
from headlessconn.core.pick import ALL_AVOIDED, NOBODY, Nobody
from headlessconn.core.placement import Placement
from headlessconn.core.requests import Requests

TRY_OUT = 1.0  # seconds between looks for a connection by which an ejected member could be tried

_BAD_END = frozenset({How.RESET, How.TIMEOUT, How.BAD_STATUS})


class Connections(Requests):
    """What an engine is told and asked about long-lived connections. The attributes are the engine's."""

    __slots__ = ("_placement", "_try_out_at", "used_at")

    _placement: Placement
    _try_out_at: float
    used_at: float

    def place(self, now: float, avoid: Collection[Key] = ()) -> Claim | Nobody:
        """A member for one new connection, counted from now on. `avoid`: endpoints that were tried for it.

        The claim ends exactly once, by `opened` or `failed`.
        """
        self.used_at = now
        self._turn = False  # if it was the caller's, who has waited: he takes no room of requests
        if self.idle:
            self._wake_from_idleness(now)
        if now < self._fresh_until:
            return NOBODY
        trial = self._health.trial(now, avoid) if self._set.counts()[1] else None
        if trial is not None:
            claim: Claim | None = self._placement.claim(trial, now)
            assert claim is not None
            claim.trial = True
            self._care_at = self._next_care()
        else:
            claim = self._placement.place(now, avoid)
        self._rearm(now)
        if claim is None:
            return ALL_AVOIDED if avoid and self._set.listed else NOBODY
        return claim

    def opened(self, claim: Claim, now: float, pushes: bool = False, warms: bool = False) -> ConnId:
        """It is open, its login included; it counts as checked out. Its number is how the engine calls it.

        pushes   its holder never checks it in (a subscription, a binlog reader), so it is told by `Retire`
        warms    its holder opens a replacement when `Warm` asks for one, before this one goes
        """
        member = claim.member
        conn = self._placement.opened(claim, pushes, warms, now)
        member.connected_at = now
        self._verifying.reached(member, now)
        if member.state is State.FAILING:
            self._health.connected(member, now)
        # Who lets us log in answers well: it is the application that says so, not the kernel. A holder that dials TCP
        # alone says less, and a pod that then hangs is ejected again by how its connections end: of one that breaks
        # them in use only a use that went well says something.
        if claim.trial or not member.broke:
            self._health.answered_well(member, claim.trial, now)
        self._trial_over(claim)
        self._settle(now)
        return conn

    def failed(self, claim: Claim, how: How, now: float) -> None:
        """The dial or the login came to nothing. Our own trouble and a caller's change of mind are no evidence."""
        member = claim.member
        self._placement.failed(claim, now)
        if how is How.REFUSED or claim.started_at > self._overslept_at:  # else it may be our own stall that was seen
            if how in NO_DIAL:
                if claim.started_at >= member.connected_at:  # else a later dial has already succeeded
                    self._health.refused(member, how.value, now)
                self.refresh.hint(now)
            elif how in _BAD_END:
                self._health.answered_badly(member, claim.trial, how.value, now)
                self.refresh.hint(now)
        self._trial_over(claim)
        self._let_go(member, now)

    def verdict(self, conn: ConnId, now: float) -> Keep | Retire:
        """Whether it may stay: for holders that do not say when it is idle. Asked only where it may be moved, so not in
        a transaction."""
        found = self._placement.verdict(conn, now)
        if found is not KEEP or self._placement.wishes or self._placement.expiry_at < self.wakeup_at:
            self._rearm(now)
        return found

    def checked_out(self, conn: ConnId, now: float) -> Keep | Retire:
        """Somebody wants to take it from the pool. `Retire`: give him another one."""
        found = self._placement.checked_out(conn, now)
        if self._placement.wishes:
            self._rearm(now)
        return found

    def checked_in(self, conn: ConnId, now: float) -> Keep | Retire:
        """It came back. `Retire`: close it, it is not idle. Said too of one that was opened for nobody yet."""
        member = self._placement.member_of(conn)
        if member.broke:
            member.broke = False
            self._health.answered_well(member, False, now)
        found = self._placement.checked_in(conn, now)
        if found is not KEEP or self._placement.wishes or self._placement.expiry_at < self.wakeup_at:
            self._rearm(now)
        return found

    def closed(self, conn: ConnId, now: float, how: How = How.OK) -> None:
        """It is closed. `how`, if it broke: a busy one is evidence against its pod, and any is a hint to look it up.

        Saying so again is harmless: whoever sees it break says how, and its owner closes it.
        """
        busy = how in _BAD_END and self._placement.is_in_hand(conn)
        member = self._placement.closed(conn, now)
        if member is None:
            return
        if how in _BAD_END or how in NO_DIAL:
            self.refresh.hint(now)
            if busy and now > self._overslept_at:
                member.broke = True
                self._health.answered_badly(member, False, f"a connection ended: {how.value}", now)
        self._let_go(member, now)

    # ---- rules that touch two parts ----------------------------------------------------------------------------

    def _let_go(self, member: Member, now: float) -> None:
        if member.state is State.DRAINING:
            self._set.close_if_drained(member, now)
        self._settle(now)

    def _trial_over(self, claim: Claim) -> None:
        if claim.trial:
            claim.member.trial = False  # however it ended the next trial is possible
            self._care_at = self._next_care()

    def _place_by_time(self, now: float) -> None:
        """What of this waits for a time, not for a fact."""
        self._placement.wake(now)
        if now < self._next_try_out():
            return
        self._try_out_at = now + TRY_OUT
        tried: list[Key] = []
        while (member := self._health.trial(now, tried)) is not None:
            member.trial = self._placement.try_out(member, now)
            tried.append(member.key)
        self._care_at = self._next_care()

    def _next_try_out(self) -> float:
        if not self._placement.in_use or not self._set.counts()[1]:
            return inf
        return max(self._health.next_trial_at(), self._try_out_at)
