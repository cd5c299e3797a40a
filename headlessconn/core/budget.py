"""What retries, hedges and dial races may spend, so that help never becomes an attack."""

from __future__ import annotations

RATIO = 0.2  # 20 % of requests: Finagle's, linkerd's and Envoy's number
PER_SECOND = 1.0  # so that a quiet client may still retry (Finagle 10/s: too much for a fleet of small clients)
BURST = 10.0  # what a quiet client may save up
# What a busy one may: as much as this many seconds of its requests earn (Finagle keeps deposits for 10 s). A pod that
# dies takes along all that is in flight on it, at once: a cap of ten would repeat ten of sixty and lose the others.
SAVED = 10.0


class Budget:
    """A token bucket fed by requests and by time.

    It is filled when it is asked, from the engine's own count of requests, so a request that needs nothing extra costs
    nothing here.
    """

    __slots__ = ("_at", "_cap", "_rated_at", "_rated_from", "_requests", "_tokens", "refused", "spent")

    def __init__(self, now: float) -> None:
        self._tokens = self._cap = BURST
        self._at = self._rated_at = now
        self._requests = self._rated_from = 0
        self.spent = 0
        self.refused = 0

    def allows(self, requests: int, now: float) -> bool:
        """Whether there is a token. `requests` is how many there have been in all, attempts beyond the first not
        counted: else a retry would earn a part of the next one."""
        since = now - self._rated_at
        saved = RATIO * SAVED * (requests - self._rated_from) / max(since, 1.0)
        if since >= 1.0:
            self._cap = max(BURST, saved)
            self._rated_at, self._rated_from = now, requests
        elif saved > self._cap:
            self._cap = saved
        earned = RATIO * (requests - self._requests) + PER_SECOND * (now - self._at)
        self._tokens = min(self._cap, self._tokens + earned)
        self._requests, self._at = requests, now
        return self._tokens >= 1.0

    def spend(self, requests: int, now: float) -> bool:
        """Take one token; False, and counted as refused, when there is none."""
        if not self.allows(requests, now):
            self.refused += 1
            return False
        self._tokens -= 1.0
        self.spent += 1
        return True
