"""What a bad answer weighs for a policy that does not look at latencies: requests in flight that nobody sent.

`LeastRequest` sees a pod that fails in a millisecond as an idle one, and sends it everything. Counting a few requests
more on it for a while costs picking nothing; whoever shows or limits what is in flight takes `Member.penalty` off.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf, log

from headlessconn.core.latency import CLEARLY, DECAY, PENALTY, RETRY_AFTER_MAX
from headlessconn.core.member import Member

EXTRA = int(PENALTY)  # on a pod with one request that is what eight times its latency are with peak EWMA
SPAN = DECAY * log(PENALTY / CLEARLY)  # seconds, 13.9: as long as the other policy keeps off


class Penalties:
    """The penalties of one target's members, and when each is over."""

    __slots__ = ("_count", "_timers")

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, Member]] = []
        self._count = 0

    def add(self, member: Member, retry_after: float, now: float) -> None:
        until = now + max(SPAN, min(retry_after, RETRY_AFTER_MAX))
        if until <= member.penalty_until:
            return
        if not member.penalty:
            member.penalty = EXTRA
            member.in_flight += EXTRA
        member.penalty_until = until
        self._count += 1
        heappush(self._timers, (until, self._count, member))

    def lift(self, member: Member) -> None:
        member.in_flight -= member.penalty
        member.penalty = 0
        member.penalty_until = -inf

    def due(self, now: float) -> None:
        """Lift those that are over."""
        while self._timers and self._timers[0][0] <= now:
            until, _, member = heappop(self._timers)
            if until == member.penalty_until:  # else it was extended, or lifted before
                self.lift(member)

    @property
    def next_at(self) -> float:
        """When `due` wants to be called."""
        return self._timers[0][0] if self._timers else inf
