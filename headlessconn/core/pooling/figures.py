"""What a pool counts, and the frozen picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headlessconn.core.endpoint import Endpoint


class Figures:
    """Counters since the pool was made."""

    __slots__ = (
        "abandoned",
        "closed",
        "failed",
        "gave_up",
        "last_endpoint",
        "last_error",
        "last_failed_at",
        "longest_wait",
        "moves",
        "opened",
        "turned_away",
        "waited",
        "waits",
    )

    def __init__(self) -> None:
        self.opened = 0
        self.failed = 0
        self.closed: dict[str, int] = {}  # by reason
        self.moves = 0
        self.abandoned = 0
        self.waits = 0  # callers who had to wait and were served
        self.waited = 0.0  # seconds, all of them together
        self.longest_wait = 0.0
        self.gave_up = 0
        self.turned_away = 0
        self.last_endpoint: Endpoint | None = None
        self.last_error: BaseException | None = None
        self.last_failed_at = 0.0

    def end(self, reason: str) -> None:
        self.closed[reason] = self.closed.get(reason, 0) + 1

    def served(self, seconds: float) -> None:
        self.waits += 1
        self.waited += seconds
        self.longest_wait = max(self.longest_wait, seconds)

    def failure(self, endpoint: Endpoint | None, error: BaseException, now: float) -> None:
        self.failed += 1
        self.last_endpoint, self.last_error, self.last_failed_at = endpoint, error, now


@dataclass(frozen=True, slots=True)
class Holder:
    """One connection that is handed out: where in the application it was taken (`orders/db.py:42`), which pod it leads
    to, and for how many seconds it has been away."""

    place: str
    endpoint: Endpoint
    seconds: float

    def __str__(self) -> str:
        return f"{self.place} for {self.seconds:.1f} s (to {self.endpoint})"


@dataclass(frozen=True, slots=True)
class PodView:
    """The connections of a pool to one endpoint; `trouble` is what the last dial failed with, or ""; `held_for` the
    seconds for which it gets no dial because of that."""

    endpoint: Endpoint
    idle: int
    busy: int
    opening: int
    trouble: str
    held_for: float


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment. Spans are seconds.

    size         connections that are open or being dialled, out of `min_size` to `max_size`
    idle, busy   free, and handed out; `opening`, `checking`, `resetting`, `closing` are steps under way
    waiting      callers in the queue
    pods         the same by endpoint
    holders      who holds what since when, the longest first
    opened       dials that succeeded, `failed` those that did not, `moves` those that replaced a connection elsewhere
    closed       connections that ended, by reason
    abandoned    connections whose `close` did not end within `close_timeout`
    waits        callers who had to wait and were served: `waited` seconds in all, `longest_wait` at most
    gave_up      callers who stopped waiting (time-out, cancelled); `turned_away` those who got an error
    last_failure what the last failed dial failed with, or ""; `last_failure_age` ago
    """

    min_size: int
    max_size: int
    size: int
    idle: int
    busy: int
    opening: int
    checking: int
    resetting: int
    closing: int
    waiting: int
    pods: tuple[PodView, ...]
    holders: tuple[Holder, ...]
    opened: int
    failed: int
    moves: int
    closed: Mapping[str, int]
    abandoned: int
    waits: int
    waited: float
    longest_wait: float
    gave_up: int
    turned_away: int
    last_failure: str
    last_failure_age: float | None

    def __str__(self) -> str:
        return f"{self.busy} busy, {self.idle} idle, {self.opening} opening of {self.max_size}, {self.waiting} waiting"
