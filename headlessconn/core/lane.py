"""Requests of one kind, whose latencies are alike: a route, or whatever class the caller names.

A pod's silence is judged by what the request on it usually takes, not by what that pod's requests take on average: the
heaviest report of an application is silent for long on every pod, and must not be sent twice.
"""

from __future__ import annotations

from collections import OrderedDict, deque

KEPT = 256  # latencies remembered
ENOUGH = 20  # latencies without which nothing can be said about the slowest of a hundred
FRESH = 64  # new ones after which a quantile is worked out again
LANES = 256  # kinds remembered for one target; beyond, the one unused for longest is forgotten


class Lane:
    """The latencies of one kind of request, and their quantiles."""

    __slots__ = ("_latencies", "_sorted", "_sorted_at", "count", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.count = 0
        self._latencies: deque[float] = deque(maxlen=KEPT)
        self._sorted: list[float] = []
        self._sorted_at = -FRESH

    def observe(self, latency: float) -> None:
        """A latency in seconds; in the hot path, so two stores."""
        self.count += 1
        self._latencies.append(latency)

    def quantile(self, part: float, latest: bool = False) -> float | None:
        """`0.99`: what all but one in a hundred take at most, in seconds; None while too few are known.

        `latest`: with every latency until now, which costs 10 µs; else it may be as old as `FRESH` of them.
        """
        if self.count < ENOUGH:
            return None
        if self.count - self._sorted_at >= (1 if latest else min(FRESH, self._sorted_at)):
            self._sorted_at = self.count
            self._sorted = sorted(self._latencies)
        return self._sorted[min(len(self._sorted) - 1, int(part * len(self._sorted)))]


class Lanes:
    """The lanes of one target, by name; made on first use."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, Lane] = OrderedDict()

    def named(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name)
            if len(self._lanes) > LANES:
                self._lanes.popitem(last=False)
        else:
            self._lanes.move_to_end(name)
        return lane
