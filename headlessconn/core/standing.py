"""Who may get connections, and whom connections may be moved to: READY members, and of those that left before only who
has been back for a while.

A connection that is wanted now may go to whoever is there; one that works where it is need not. Without this a pod
whose readiness flaps would draw its share over from the others every time it is back, and drop it every time it is not.
One that nobody has seen before is given credit: most pods that are added stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from headlessconn.core.endpoint import Key
from headlessconn.core.member import Member, State
from headlessconn.core.quota import rank
from headlessconn.options import Options

FORGOTTEN = 600.0  # seconds in the set, or out of it, after which a departure is no longer held against a member
LONGEST = 600.0  # seconds a flapping one must stay READY at most: an hour of flaps must not shut it out for hours


@dataclass(slots=True)
class _Past:
    """How long a member must be READY before it counts, how often it left, when it came and when it left last."""

    need: float
    came_at: float
    departures: int = 0
    left_at: float = inf


class Standing:
    """The members in this process's order. Their past is remembered by address, so that a pod which was gone and comes
    back is known.

    order      who may get new connections: READY members; if there is none, those that answer badly; then those that
               refuse
    places     READY members that count for moves, with their place in the order
    ready      whether `order` is of READY members
    next_at    when another member will count
    """

    __slots__ = ("_need", "_past", "_ranks", "_ready", "next_at", "order", "places", "seed")

    def __init__(self, options: Options) -> None:
        self.seed = b""
        self.order: Sequence[Member] = ()
        self.places: dict[Member, int] = {}
        self.next_at = inf
        self._need = max(options.refresh_max, options.rebalance_over)
        self._past: dict[Key, _Past] = {}
        self._ready: dict[Key, None] = {}
        self._ranks: dict[Key, bytes] = {}

    def arrange(self, members: Iterable[Member], now: float) -> bool:
        """Look at all members again. True when others than before count for moves."""
        tiers: dict[State, list[Member]] = {state: [] for state in State}
        for member in members:
            if not member.foreign:
                tiers[member.state].append(member)
        ready = tiers[State.READY]
        self._remember(ready, now)
        self.order = sorted(ready or tiers[State.EJECTED] or tiers[State.FAILING], key=self.rank)
        self._ranks = {member.key: self.rank(member) for member in self.order}
        settled = []
        self.next_at = inf
        for member in self.order if ready else ():
            at = member.moved_at + self._past[member.key].need
            if at <= now:
                settled.append(member)
            else:
                self.next_at = min(self.next_at, at)
        before = self.places
        self.places = {member: place for place, member in enumerate(settled or (self.order if ready else ()))}
        return self.places.keys() != before.keys()

    @property
    def ready(self) -> bool:
        return bool(self._ready)

    def rank(self, member: Member) -> bytes:
        return self._ranks.get(member.key) or rank(self.seed, member.key)

    def _remember(self, ready: Sequence[Member], now: float) -> None:
        before = self._ready
        self._ready = {member.key: None for member in ready}
        for key in before:
            if key not in self._ready:
                self._departed(self._past[key], now)
        for key in self._ready:
            if key not in self._past:
                self._past[key] = _Past(0.0, now)
            elif key not in before:
                self._past[key].came_at = now
        for key in [key for key, past in self._past.items() if key not in self._ready]:
            if now - self._past[key].left_at > FORGOTTEN:
                del self._past[key]

    def _departed(self, past: _Past, now: float) -> None:
        past.departures = past.departures + 1 if now - past.came_at <= FORGOTTEN else 1
        past.left_at = now
        past.need = min(self._need * 2.0 ** min(past.departures - 1, 20), max(LONGEST, self._need))
