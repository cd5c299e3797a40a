"""What the engine wants done. Each wish is a small value; the drivers carry it out without opinions of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from headlessconn.checks import Check, Tcp
from headlessconn.core.claim import Claim, ConnId, Retire
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.member import Member, State
from headlessconn.core.pick import Pick

CONNECT = Tcp()


@dataclass(frozen=True, slots=True)
class Ask:
    """One look-up: ask the source, then tell `Engine.answered(answer, now, ask=id)`."""

    id: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Ask this endpoint what `check` says, and tell `Engine.probed(id, passed, now, how, why)`. Connecting may take
    `timeout` seconds; an answer, what its check allows beyond."""

    id: int
    endpoint: Endpoint
    timeout: float
    check: Check = CONNECT

    @property
    def is_redial(self) -> bool:
        """Whether it asks about a member that failed or may be dead, rather than being the check of a quiet one."""
        return self.id > 0


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask `Options.verify` within `timeout` seconds whether this endpoint is the pod that is meant, and tell
    `Engine.verified(id, meant, now)`: True, False, or None when it could not say."""

    id: int
    endpoint: Endpoint
    timeout: float


@dataclass(frozen=True, slots=True)
class Forget:
    """The endpoint left the set: close idle connections to it."""

    key: Key


@dataclass(frozen=True, slots=True)
class Hurry:
    """The pod of this pick fell silent: its holder may send a copy to another one now."""

    pick: Pick


@dataclass(frozen=True, slots=True)
class Warm:
    """Open a connection for this claim; once `Engine.opened` hears of it, the connection `replaces` is told to go."""

    claim: Claim
    replaces: ConnId


@dataclass(frozen=True, slots=True)
class Admit:
    """Wake this many waiting callers, first come first served."""

    count: int


@dataclass(frozen=True, slots=True)
class Move:
    """One endpoint changed its state. `before` is None for an endpoint that is new."""

    endpoint: Endpoint
    before: State | None
    after: State
    why: str


class Change:
    """What changed in one moment: who was added, who was removed, and every move of state.

    at        the engine's time (seconds, monotonic)
    added     endpoints that DNS lists now and did not before
    removed   endpoints that left the set
    moves     all moves of state, in order, those of `added` and `removed` included
    size      how many endpoints the set has now
    """

    __slots__ = ("_added", "_moves", "_removed", "at", "size")

    def __init__(
        self,
        at: float,
        added: Sequence[Member],
        removed: Sequence[Member],
        moves: Sequence[tuple[Member, State | None, State, str]],
        size: int,
    ) -> None:
        self.at = at
        self.size = size
        self._added, self._removed, self._moves = added, removed, moves  # spelled out only when somebody looks

    @property
    def added(self) -> tuple[Endpoint, ...]:
        return tuple(member.endpoint for member in self._added)

    @property
    def removed(self) -> tuple[Endpoint, ...]:
        return tuple(member.endpoint for member in self._removed)

    def first_added(self, count: int) -> tuple[Endpoint, ...]:
        """The first of `added`: spelling out ten thousand takes 15 ms."""
        return tuple(member.endpoint for member in self._added[:count])

    def first_removed(self, count: int) -> tuple[Endpoint, ...]:
        return tuple(member.endpoint for member in self._removed[:count])

    @property
    def count(self) -> int:
        """How many were added and removed."""
        return len(self._added) + len(self._removed)

    @property
    def moves(self) -> tuple[Move, ...]:
        return tuple(Move(member.endpoint, before, after, why) for member, before, after, why in self._moves)

    @property
    def steps(self) -> Iterable[tuple[Member, State | None, State]]:
        """The moves as the core sees them."""
        return ((member, before, after) for member, before, after, _ in self._moves)

    @property
    def is_membership(self) -> bool:
        """Whether somebody was added or removed, rather than only judged differently."""
        return bool(self._added or self._removed)

    def counts(self) -> str:
        """`+2 -1 =7`"""
        return f"+{len(self._added)} -{len(self._removed)} ={self.size}"

    def __repr__(self) -> str:
        return f"<Change {self.counts()}>"


@dataclass(frozen=True, slots=True)
class Changed:
    """For the log, `service.changes()` and metrics."""

    change: Change


Effect: TypeAlias = Ask | Hurry | Probe | Forget | Admit | Changed | Verify | Retire | Warm
