"""The answers of an interval, counted by member, and who goes at its end.

gRPC and Envoy compare on a clock, every ten seconds, whether anything went wrong or not. Here the first bad answer
begins an interval, so a healthy target has no timer, and costs a request one increment; and a pod that turns bad is
compared by ten seconds that are all its own, not by whatever was left of a running interval.
"""

from __future__ import annotations

import random
from math import inf

from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.core.rates import Tally, outliers
from headlessconn.options import Options


class Interval:
    """Of one target. `Member.answers` and `Member.bad` are its counts; the request path adds to the first.

    ends_at  when `end` wants to be called; `inf` while nothing bad was answered
    """

    __slots__ = ("_members", "_options", "_random", "ends_at")

    def __init__(self, members: Membership, options: Options, rng: random.Random) -> None:
        self._members = members
        self._options = options
        self._random = rng.random
        self.ends_at = inf

    def bad(self, member: Member, now: float) -> None:
        """One of the answers counted was bad."""
        if self.ends_at == inf:
            for other in self._members.members.values():
                other.answers = other.bad = 0
            member.answers = 1
            self.ends_at = now + self._options.outlier_interval
        member.bad += 1

    def end(self) -> list[tuple[Member, str, bool]]:
        """It is over: the outliers, the worst first, why, and whether the options let them be ejected.

        READY members only: what an ejected one did before it was ejected is settled, and `Member.move` begins its
        counts anew when it returns.
        """
        self.ends_at = inf
        ready = [member for member in self._members.in_state(State.READY) if not member.foreign]
        found = outliers([Tally(member.answers, member.bad) for member in ready], self._options)
        span = f"within {self._options.outlier_interval:g} s"
        return [(ready[one.place], f"{one.why}, {span}", self._may(one.enforcement)) for one in found]

    def _may(self, enforcement: int) -> bool:
        return enforcement >= 100 or self._random() * 100.0 < enforcement
