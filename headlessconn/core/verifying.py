"""Is this still the pod that is meant? When to ask `Options.verify`, and what its word does.

An address outlives its pod: the next pod to get it may be another Service's, which listens on the same port. Neither
DNS nor a check can tell, so whoever can (a name in the answer, a certificate, a server's id) is asked.
"""

from __future__ import annotations

import random
from math import inf

from headlessconn.core.agenda import Agenda
from headlessconn.core.effects import Change, Verify
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.options import Options

VERIFY_TIMEOUT = 5.0  # seconds: a connection (2.5), and as long again for an answer
# Seconds without a connection or an answer after which an address may have changed hands unseen. Networks give a freed
# address out again after anything from nothing (the next pod, when the range is full) to minutes; a pod needs longer
# than this to be deleted, which takes a grace period of 30 s unless it crashes, and a crash breaks its connections.
ABSENT = 30.0
AGAIN_MIN = 1.0  # seconds between two questions about one member, however often its connections break
AGAIN_MAX = 60.0  # seconds: the doubling of the wait after a no ends here (as that of an ejection does)
JITTER = 0.1
GRAIN = 0.01  # seconds

_REACHABLE = frozenset({State.READY, State.EJECTED})

WHY = "verify: not the pod that is meant"


class Verifying:
    """Asks about the members of one target. Idle when `verify` is None.

    A no is certain knowledge, not a suspicion: there is no cap on how many may be left out, and who is left out serves
    as nobody's last resort either. Until the first word a new member serves: else nobody could be reached while the
    function is slow, or fails.
    """

    __slots__ = ("_agenda", "_asked_at", "_is_wanted", "_members", "_noes", "_random")

    def __init__(self, members: Membership, options: Options, rng: random.Random) -> None:
        self._members = members
        self._random = rng.random
        self._is_wanted = options.verify is not None
        self._agenda = Agenda(GRAIN)
        self._asked_at: dict[Member, float] = {}
        self._noes: dict[Member, int] = {}  # in a row, words that said nothing included

    def follow(self, change: Change, now: float) -> None:
        """Who is new, who connects again, and who came back into the set may be somebody else."""
        if self._is_wanted:
            for member, before, after in change.steps:
                if after is State.GONE:
                    self._asked_at.pop(member, None)
                    self._noes.pop(member, None)
                elif after in _REACHABLE and before not in _REACHABLE:
                    self._ask(member, now)
                    if member.foreign:
                        member.retry_at = inf  # until it is known better, no request tries it

    def reached(self, member: Member, now: float) -> bool:
        """A dial succeeded; whether it leads to a question. To be told before the dial is written down."""
        if not self._is_wanted:
            return False
        seen_at = max(member.connected_at, member.heard_at)
        if seen_at == -inf or (member.failed_at <= seen_at and now - seen_at <= ABSENT):
            return False
        self._ask(member, now)
        return True

    def due(self, now: float) -> list[Verify]:
        """The questions to ask now."""
        if not self._is_wanted:
            return []
        for number in self._agenda.overdue(now):
            self.told(number, None, now)
        wishes = []
        for member in self._agenda.due(now):
            if member.state not in (State.DRAINING, State.GONE):
                self._asked_at[member] = now
                number = self._agenda.sent(member, now, now + 2.0 * VERIFY_TIMEOUT)
                wishes.append(Verify(number, member.endpoint, VERIFY_TIMEOUT))
        return wishes

    def told(self, number: int, meant: bool | None, now: float) -> None:
        """The word came: yes, no, or None, which is no evidence."""
        found = self._agenda.ended(number)
        if found is None:
            return
        member, _ = found
        if member.state in (State.DRAINING, State.GONE):
            return
        if meant:
            self._noes.pop(member, None)
            if member.foreign:
                self._let_in(member, now)
            return
        if meant is False and not (member.foreign and member.state is State.EJECTED):
            self._leave_out(member, now)
        noes = self._noes[member] = self._noes.get(member, 0) + 1
        wait = min(AGAIN_MIN * 2.0 ** min(noes - 1, 20), AGAIN_MAX)
        self._agenda.plan(member, now + wait * (1.0 - JITTER * self._random()))

    @property
    def next_at(self) -> float:
        """When `due` wants to be called."""
        return self._agenda.next_at if self._is_wanted else inf

    def _ask(self, member: Member, now: float) -> None:
        at = max(now, self._asked_at.get(member, -inf) + AGAIN_MIN)
        if at == now:
            self._agenda.plan_now(member, now)
        else:
            self._agenda.plan(member, at)

    def _leave_out(self, member: Member, now: float) -> None:
        member.foreign = True
        if member.state is State.READY:
            self._members.move(member, "eject", WHY, now)
        elif member.state is State.EJECTED:
            member.why = WHY
            member.retry_at = inf  # no request tries it
        self._members.picker = None
        self._members.forgotten.append(member.key)  # idle connections to it are not ours

    def _let_in(self, member: Member, now: float) -> None:
        member.foreign = False
        if member.state is State.EJECTED:
            member.readmitted_at = now
            self._members.move(member, "readmit", "verify: it is the pod that is meant", now)
        self._members.picker = None
