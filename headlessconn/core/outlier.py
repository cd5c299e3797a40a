"""When a member's bad answers take it out of the set, and for how long.

Consecutive failures: always on, and right for two to four pods, where deviation rules are blind (with one of three pods
dead, mean minus 1.9 deviations is below zero). The rules over an interval are in `core/rates.py`.
"""

from __future__ import annotations

from math import inf

from headlessconn.core.member import Member
from headlessconn.options import Options

FORGIVEN_EVERY = 10.0  # seconds of good service that undo one ejection's doubling (gRFC A50: one interval)


def may_eject(ready: int, ejected: int) -> bool:
    """Whether one more may go: at most max(1, half of the members), and never the last READY.

    Counted afresh each time; a running tally drifts when an ejected member leaves the set (grpc-go's gate stayed shut
    after rolling restarts).
    """
    return ready > 1 and ejected < max(1, (ready + ejected) // 2)


def is_outlier(member: Member, options: Options) -> bool:
    limit = options.consecutive_failures
    return limit > 0 and member.bad_in_a_row >= limit


def owes_trial(member: Member) -> bool:
    """Whether it was ejected and has not served since: whatever else happened to it, a request must try it first."""
    return member.ejections > 0 and member.readmitted_at == inf


def sentence(member: Member, options: Options, now: float) -> float:
    """Until when the member stays out: base, doubled for each ejection not yet forgiven, to a maximum.

    Only time served since its readmission forgives: not the sentence, nor the wait for a request that tries it.
    """
    forgiven = int(max(0.0, now - member.readmitted_at) / FORGIVEN_EVERY)
    member.ejections = max(0, member.ejections - forgiven) + 1
    member.readmitted_at = inf
    return now + min(options.eject_base * 2.0 ** (min(member.ejections, 30) - 1), options.eject_max)
