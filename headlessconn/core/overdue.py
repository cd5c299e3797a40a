"""Pods that swallow what they are sent: connections to them are out, and do not come back.

For pools that a library owns. Whoever takes a connection from one may keep it for long, so silence proves nothing; it
is a reason to ask the pod for a TCP connection, which costs both sides next to nothing. A pod that twice gives none is
dead, and those who wait on it are cut off. (Measured on three MariaDB servers of which one was black-holed: with every
pool as it comes all eight workers were stuck for 54 s; no driver has a time-out for reading, and TCP gives up after
fifteen minutes.)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from headlessconn.core.endpoint import Key

LOOK_EVERY = 0.5  # seconds between two looks, while connections are out
TIMES_USUAL = 4.0  # as the silence of requests is judged
PROBE_TIMEOUT = 1.5  # seconds: two SYNs, at 0 and at 1 s
PROBES = 2  # failed ones in a row
AGAIN_FIRST = 5.0  # seconds after a passed probe until the next one, doubled each time: MySQL counts bare connects
AGAIN_MAX = 60.0  # (`max_connect_errors`)
WEIGHT = 0.1  # of one connection's time away in what is usual


class _Asked:
    """What is known of one pod."""

    __slots__ = ("after", "failures", "probing", "since", "wait")

    def __init__(self) -> None:
        self.probing = False
        self.failures = 0
        self.since = inf  # when the first of these was begun
        self.after = -inf  # no probe before
        self.wait = 0.0


class Overdue:
    """Watches connections that are out; told the time.

    `after` seconds, and four times as long as usual, is how long one may be out before its pod is asked.
    """

    __slots__ = ("_after", "_asked", "usual")

    def __init__(self, after: float) -> None:
        self._after = after
        self._asked: dict[Key, _Asked] = {}
        self.usual = 0.0  # seconds that a connection is out, as a moving average

    def returned(self, seconds: float) -> None:
        self.usual += (seconds - self.usual) * WEIGHT

    def look(self, out: Iterable[tuple[Key, float]], now: float) -> list[Key]:
        """The pods to ask now, of those whose connections are out since when."""
        limit = now - max(self._after, TIMES_USUAL * self.usual)
        late = {key: None for key, since in out if since <= limit}
        found = []
        for key in late:
            asked = self._asked.get(key)
            if asked is None or (not asked.probing and now >= asked.after):
                found.append(key)
                self.asking(key, now)
        for key in [key for key, asked in self._asked.items() if not asked.probing and now > asked.after + AGAIN_MAX]:
            del self._asked[key]
        return found

    def asking(self, key: Key, now: float) -> bool:
        """A probe of this pod begins, for whatever reason; False when one is under way."""
        asked = self._asked.setdefault(key, _Asked())
        if asked.probing:
            return False
        asked.probing = True
        if not asked.failures:
            asked.since = now
        return True

    def probed(self, key: Key, passed: bool, now: float) -> float | None:
        """It ended. None: no more to be done; `inf`: ask again at once; else the pod is dead, and whoever has had a
        connection to it out since before the time that is returned waits for nothing."""
        asked = self._asked[key]
        asked.probing = False
        if passed:
            asked.failures = 0
            asked.wait = min(2.0 * asked.wait or AGAIN_FIRST, AGAIN_MAX)
            asked.after = now + asked.wait
            return None
        asked.failures += 1
        if asked.failures < PROBES:
            return inf
        since = asked.since
        asked.failures, asked.wait, asked.after = 0, 0.0, now + AGAIN_FIRST
        return since
