"""Steps under way on connections: dials, checks, resets, closings, each with a time-out that the machine keeps."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from headlessconn.core.pooling.slot import Phase, Slot

# Seconds after which a step that has not ended is joined by another one for the same caller, to another pod. A dial
# takes TCP, TLS and a login; a check is one round trip.
OVERDUE = {Phase.OPENING: 1.0, Phase.CHECKING: 0.25}


class Steps:
    """Each connection has at most one step under way."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Slot, float] = {}

    def begin(self, slot: Slot, phase: Phase, now: float, seconds: float, overdue: float | None = None) -> None:
        slot.phase = phase
        slot.since = now
        slot.overdue_at = now + (OVERDUE.get(phase, inf) if overdue is None else overdue)
        self._deadlines[slot] = now + seconds

    def end(self, slot: Slot) -> bool:
        """Whether there was one."""
        return self._deadlines.pop(slot, None) is not None

    def overran(self, now: float) -> list[Slot]:
        return [slot for slot, deadline in self._deadlines.items() if now >= deadline]

    def dials(self) -> Iterator[Slot]:
        return (slot for slot in self._deadlines if slot.phase is Phase.OPENING)

    def moves(self) -> int:
        """Dials that replace another connection."""
        return sum(1 for slot in self.dials() if slot.replaces is not None)

    def coming(self, now: float) -> int:
        """How many of them will give a caller a connection soon."""
        return sum(
            1
            for slot in self._deadlines
            if slot.phase is not Phase.CLOSING and slot.replaces is None and not slot.leaving and now < slot.overdue_at
        )

    def next_at(self, waited_for: bool, now: float) -> float:
        """When one of them is out of time; `waited_for`: or overdue, for then another one may be begun."""
        at = min(self._deadlines.values(), default=inf)
        if waited_for:
            at = min(at, min((slot.overdue_at for slot in self._deadlines if slot.overdue_at > now), default=inf))
        return at
