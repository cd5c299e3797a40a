"""Pods that swallow what they are sent: connections to them are out, and do not come back.

For pools that a library owns. Measured on three MariaDB servers of which one was black-holed: with every pool as it
comes all eight workers were stuck for 54 s; no driver has a time-out for reading, and TCP gives up after fifteen
minutes.
"""

from __future__ import annotations

from collections.abc import Iterable

from headlessconn.core.endpoint import Key
from headlessconn.core.probing import AGAIN_MAX, TIMES_USUAL, WEIGHT, Probing


class Overdue:
    """Watches connections that are out; told the time.

    `after` seconds, and three times as long as usual, is how long one may be out before its pod is asked.
    """

    __slots__ = ("_after", "_asked", "usual")

    def __init__(self, after: float) -> None:
        self._after = after
        self._asked: dict[Key, Probing] = {}
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
            if asked is None or asked.is_due(now):
                found.append(key)
                self.asking(key, now)
        for key in [key for key, asked in self._asked.items() if asked.is_due(now - AGAIN_MAX)]:
            del self._asked[key]
        return found

    def asking(self, key: Key, now: float) -> bool:
        """A probe of this pod begins, for whatever reason; False when one is under way."""
        return self._asked.setdefault(key, Probing()).begin(now)

    def probed(self, key: Key, passed: bool, now: float) -> float | None:
        """It ended; what follows is as `Probing.ended` says."""
        return self._asked[key].ended(passed, now)
