"""How far replicas are behind, seen from outside: by the positions of the primary, and when each of them was seen.

A replica that has not applied what the primary had written at some moment is at least that old. This needs no
privilege, and no clock of a server; `Seconds_Behind_Master` needs one, and says 0 where the stream has stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from math import inf

from headlessconn.core.endpoint import Key
from headlessconn.core.gtid import Position

REMEMBERED = 1000  # positions of the primary


class Lag:
    """The replicas of one primary. Told the time."""

    __slots__ = ("_at", "_stopped", "_written")

    def __init__(self) -> None:
        self._written: deque[tuple[Position, float]] = deque(maxlen=REMEMBERED)
        self._at: dict[Key, Position] = {}
        self._stopped: set[Key] = set()

    def wrote(self, position: Position, now: float) -> None:
        """The primary has come so far."""
        if not self._written or self._written[-1][0] != position:
            self._written.append((position, now))

    def applied(self, key: Key, position: Position, running: bool | None) -> None:
        """A replica has come so far. `running`: whether it still replicates; None when it does not say."""
        self._at[key] = position
        (self._stopped.discard if running is not False else self._stopped.add)(key)

    def keep(self, keys: Collection[Key]) -> None:
        """There are no others any more."""
        for key in [key for key in self._at if key not in keys]:
            del self._at[key]
            self._stopped.discard(key)
        while len(self._written) > 1 and all(at.covers(self._written[1][0]) for at in self._at.values()):
            self._written.popleft()

    def behind(self, key: Key, now: float) -> float:
        """Seconds, at least; 0 when it has all, or has not been asked yet; infinite when it has stopped."""
        if key in self._stopped:
            return inf
        position = self._at.get(key)
        if position is None:
            return 0.0
        return next((now - at for written, at in self._written if not position.covers(written)), 0.0)

    def left_out(self, keys: Collection[Key], limit: float, now: float) -> dict[Key, float]:
        """Those that are behind by more than `limit`, and by how much. Never all: when all are, those that are least so
        stay, since a stale answer is what a replica may give, and none is not."""
        behind = {key: self.behind(key, now) for key in keys}
        least = min(behind.values(), default=0.0)
        return {key: seconds for key, seconds in behind.items() if seconds > limit and seconds > least}
