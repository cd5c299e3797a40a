"""What retries, hedges and dial races may spend, so that help never becomes an attack."""

from __future__ import annotations

RATIO = 0.2  # 20 % of requests: Finagle's, linkerd's and Envoy's number
PER_SECOND = 1.0  # so that a quiet client may still retry (Finagle 10/s: too much for a fleet of small clients)
BURST = 10.0


class Budget:
    """A token bucket fed by requests and by time.

    It is filled when it is asked, from the engine's own count of picks, so a request that needs nothing extra costs
    nothing here.
    """

    __slots__ = ("_at", "_picks", "_tokens", "refused", "spent")

    def __init__(self, now: float) -> None:
        self._tokens = BURST
        self._at = now
        self._picks = 0
        self.spent = 0
        self.refused = 0

    def spend(self, picks: int, now: float) -> bool:
        """Take one token; False when there is none. `picks` is how many picks there have been in all."""
        earned = RATIO * (picks - self._picks) + PER_SECOND * (now - self._at)
        self._tokens = min(BURST, self._tokens + earned)
        self._picks, self._at = picks, now
        if self._tokens < 1.0:
            self.refused += 1
            return False
        self._tokens -= 1.0
        self.spent += 1
        return True
