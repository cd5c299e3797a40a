"""Asking one pod whether it is there at all, when connections to it do not come back.

A pool does not see requests, only how long connections are out, and a long transaction looks like a dead node. So
silence alone proves nothing; it is a reason to ask the pod for a TCP connection, which costs both sides next to
nothing. Only a pod that twice does not give one is let go, and one that gives it is asked less and less often.
"""

from __future__ import annotations

from math import inf

from headlessconn.core.endpoint import How

LOOK_EVERY = 0.2  # seconds between two looks, while connections are out
# Seconds out, and three times as long as usual. Somebody's long query then costs a TCP connect, and a pod that vanished
# is let go after 2 s: this, a look, and two probes.
SILENT_AFTER = 1.0
TIMES_USUAL = 3.0
WEIGHT = 0.1  # of one connection's time out in what is usual
PROBE_TIMEOUT = 0.4  # seconds: a kernel answers within milliseconds, whatever its processes do
PROBES = 2  # failed ones in a row: a single SYN may be lost
AGAIN_FIRST = 5.0  # seconds after a passed probe until the next one, doubled each time: bare connects are counted by
AGAIN_MAX = 60.0  # some servers (MySQL: `max_connect_errors`)


def has_passed(how: How) -> bool:
    """Whether a probe that ended so says nothing against its pod: a connection to close, or our own trouble."""
    return how in (How.CALLER, How.LOCAL, How.CANCELLED)


class Probing:
    """The probes of one pod.

    under_way   whether one is out
    after       none for long use before this time
    """

    __slots__ = ("_failures", "_since", "_wait", "after", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        self.after = -inf
        self._failures = 0
        self._since = inf  # when the first of these was begun
        self._wait = 0.0

    def is_due(self, now: float) -> bool:
        return not self.under_way and now >= self.after

    def begin(self, now: float) -> bool:
        """A probe begins, for whatever reason; False when one is under way."""
        if self.under_way:
            return False
        self.under_way = True
        if not self._failures:
            self._since = now
        return True

    def ended(self, passed: bool, now: float) -> float | None:
        """None: no more to be done; `inf`: ask again at once; else the pod is dead, and whoever has had a connection
        to it out since before the time that is returned waits for nothing."""
        self.under_way = False
        if passed:
            self._failures = 0
            self._wait = min(2.0 * self._wait or AGAIN_FIRST, AGAIN_MAX)
            self.after = now + self._wait
            return None
        self._failures += 1
        if self._failures < PROBES:
            return inf
        self._failures, self._wait, self.after = 0, 0.0, now + AGAIN_FIRST
        return self._since
