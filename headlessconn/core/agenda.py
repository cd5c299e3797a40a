"""When each member is to be asked something next: by a check, or by `verify`. A few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from math import inf

from headlessconn.core.member import Member

# Under way at once, for one target: a thousand pods that are due together, say after a target was idle, are asked one
# after the other. An answer takes milliseconds, so even these 16 get through ten thousand pods in an interval of 5 s.
ABREAST = 16
_UNDER_WAY = -inf


class Agenda:
    """Ids count upwards by `step`, so that two agendas may share one kind of fact.

    grain  seconds: how finely `next_at` tells, or a timer would fire for every member by itself
    """

    __slots__ = ("_at", "_count", "_grain", "_ids", "_looked_at", "_sent", "_timers")

    def __init__(self, grain: float, step: int = 1) -> None:
        self._at: dict[Member, float] = {}
        self._timers: list[tuple[float, int, Member]] = []  # entries that were overtaken are dropped when they surface
        self._sent: dict[int, tuple[Member, float, float]] = {}  # id: whom, since when, until when at the latest
        self._grain = grain
        self._looked_at = -inf
        self._count = count()
        self._ids = count(step, step)

    def __contains__(self, member: Member) -> bool:
        """Whether it is planned or under way."""
        return member in self._at

    def is_under_way(self, member: Member) -> bool:
        return self._at.get(member) == _UNDER_WAY

    def plan(self, member: Member, at: float) -> None:
        """Ask it then, whatever was planned before. What is under way is left to end first."""
        if not self.is_under_way(member):
            self._at[member] = at
            heappush(self._timers, (at, next(self._count), member))

    def plan_now(self, member: Member, now: float) -> None:
        """Ask it with the next look, which is due at once."""
        self.plan(member, now)
        self._looked_at = -inf

    def due(self, now: float) -> Iterator[Member]:
        """Whose time has come; each is then either `sent`, or planned again, or it drops out."""
        self._looked_at = now
        while len(self._sent) < ABREAST and self._timers and self._timers[0][0] <= now:
            at, _, member = heappop(self._timers)
            if self._at.get(member) == at:
                del self._at[member]
                yield member
        if len(self._sent) >= ABREAST:
            self._looked_at = -inf  # whose time has come goes next, as soon as one of these ends

    def sent(self, member: Member, now: float, until: float) -> int:
        """It is asked now; the id of that."""
        number = next(self._ids)
        self._at[member] = _UNDER_WAY
        self._sent[number] = member, now, until
        return number

    def ended(self, number: int) -> tuple[Member, float] | None:
        """Who was asked and when; None when nothing is known of such an id, because it was given up."""
        member, began, _ = self._sent.pop(number, (None, 0.0, 0.0))
        if member is None:
            return None
        del self._at[member]
        return member, began

    def overdue(self, now: float) -> list[int]:
        """What a driver never told of."""
        return [number for number, (_, _, until) in self._sent.items() if now >= until]

    @property
    def next_at(self) -> float:
        """When `due` or `overdue` wants to be called."""
        at = inf
        if self._timers and len(self._sent) < ABREAST:
            at = max(self._timers[0][0], self._looked_at + self._grain)
        return min(at, min(until for _, _, until in self._sent.values())) if self._sent else at
