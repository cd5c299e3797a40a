"""The frozen picture of one target, behind `repr`, the CLI, metrics and tests. Built when somebody looks."""

from __future__ import annotations

from dataclasses import dataclass

from headlessconn.core.endpoint import Answer, Endpoint
from headlessconn.core.member import State


@dataclass(frozen=True, slots=True)
class MemberView:
    """One endpoint: its state and why, for how long (seconds), what it carries, and its latency (seconds, peak EWMA;
    None when nothing was measured)."""

    endpoint: Endpoint
    state: State
    why: str
    since: float
    in_flight: int
    connections: int
    latency: float | None
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A target at one moment.

    members         every endpoint, those that drain included
    answer          the last answer that said something, `answer_age` seconds old; None before the first
    trouble         what the last look-up failed with, or "" when it did not
    next_look_in    seconds to the next look-up; None while one is under way or while the target is idle
    held_for        seconds that the members will outlive the answer "nobody"; None when they are not held
    surplus         long-lived connections on members that hold more than their share: so many are to move
    moving          how many of them are being replaced now
    next_move_in    seconds until the next one moves; None when none is planned
    ejections       how many there have been
    unenforced      how many more were found right and not made: at most half may be out, never the last one, and a rule
                    may be watched only (`success_rate_enforcement`, `failure_percentage_enforcement`)
    """

    target: str
    members: tuple[MemberView, ...]
    answer: Answer | None
    answer_age: float | None
    trouble: str
    asking: bool
    idle: bool
    next_look_in: float | None
    held_for: float | None
    waiting: int
    picks: int
    surplus: int = 0
    moving: int = 0
    next_move_in: float | None = None
    ejections: int = 0
    unenforced: int = 0

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that are in the set now."""
        return tuple(m.endpoint for m in self.members if m.state not in (State.DRAINING, State.GONE))

    def of(self, state: State) -> tuple[MemberView, ...]:
        return tuple(m for m in self.members if m.state is state)

    @property
    def ready(self) -> tuple[MemberView, ...]:
        return self.of(State.READY)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(found)} {state.value}" for state in State if (found := self.of(state)))
        return f"{self.target}: {counts or 'no endpoints'}"
