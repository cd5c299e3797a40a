"""One endpoint's life: five states, the legal moves between them as a table, and the counts that picking reads."""

from __future__ import annotations

from enum import Enum
from math import inf

from headlessconn.core.endpoint import Endpoint, Facts, Key


class State(Enum):
    READY = "ready"  # gets requests
    FAILING = "failing"  # the last dial failed; re-dialled in the background, used when nothing else is left
    EJECTED = "ejected"  # answers badly; one request tries it when its time is over
    DRAINING = "draining"  # left the set; open work finishes, no new work
    GONE = "gone"  # left the set with nothing open, or left it and refuses

    __hash__ = object.__hash__


_READY, _EJECTED = State.READY, State.EJECTED

MOVES: dict[tuple[State, str], State] = {
    (State.READY, "refuse"): State.FAILING,
    (State.READY, "eject"): State.EJECTED,
    (State.READY, "leave"): State.DRAINING,
    (State.FAILING, "connect"): State.READY,
    (State.FAILING, "reconnect"): State.EJECTED,  # connects again, but had answered badly before
    (State.FAILING, "leave"): State.GONE,  # removed *and* refusing
    (State.FAILING, "expire"): State.GONE,  # failing for as long as DNS has been silent
    (State.EJECTED, "readmit"): State.READY,
    (State.EJECTED, "refuse"): State.FAILING,
    (State.EJECTED, "leave"): State.DRAINING,
    (State.DRAINING, "return"): State.READY,  # a flap: it comes back with its history
    (State.DRAINING, "refuse"): State.GONE,
    (State.DRAINING, "drained"): State.GONE,
}
"""Every legal move. The documentation draws this table; anything else raises `KeyError`."""


class Member:
    """An endpoint of one target: its state, what it carries, how fast it answers. Only the engine changes it."""

    # A thousand are made in one go when a set is read, so what is seldom touched is written only when it is: these are
    # the values until then.
    why = "listed"
    connections = 0  # long-lived ones: upgraded, streaming, placed
    connected_at = -inf  # when a dial last succeeded
    dial_failures = 0  # in a row
    ejections = 0
    readmitted_at = inf  # since when it has served without an ejection
    retry_at = inf  # FAILING: next probe; EJECTED: next trial
    probing = False
    trial = False
    silent_since = inf
    answers = 0  # in the interval of core/interval.py
    bad = 0  # of those
    penalty = 0  # of `in_flight`, requests that nobody sent (core/penalty.py)
    penalty_until = -inf
    heard_at = -inf  # when an answer of its began last
    broke = False  # a connection in use broke, and none has come back from use since
    suspected = False  # of being silent: its next answer lifts that
    ejected_for_silence = False  # and nothing else: its next answer readmits it
    failed_at = -inf  # when evidence against it was seen last
    check_at = inf  # when it wants to be checked; `inf` = not scheduled
    bad_checks = 0  # how many of `bad_in_a_row` are failed checks
    foreign = False  # `verify` said that it is not the pod that is meant

    def __init__(self, key: Key, facts: Facts | None, now: float) -> None:
        self.key = key
        self.facts = facts
        self.state = _READY
        self.moved_at = now
        self.in_flight = 0  # requests picked and not yet ended
        self.picked = 0  # the engine's count of picks when it was picked last
        self.grown = 0.0  # its latency as core/latency.py keeps it; 0 = never measured
        self.growth = 1.0
        self.bad_in_a_row = 0
        self.silent = 0  # cancelled attempts in a row without a byte

    def move(self, cause: str, why: str, now: float) -> State:
        """Make a move of the table; the state it left is returned. An illegal one raises `KeyError`."""
        before = self.state
        self.state = MOVES[before, cause]
        self.why = why
        self.moved_at = now
        if before is _EJECTED:
            self.answers = self.bad = 0  # what it did before is settled
            self.ejected_for_silence = False
        if self.state is _READY and self.ejections and self.readmitted_at == inf:
            self.readmitted_at = now  # however it came back, from now on it serves
        return before

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint.of(self.key, self.facts)

    @property
    def is_open(self) -> bool:
        """Whether work is under way on it."""
        return self.in_flight > self.penalty or self.connections > 0

    def __repr__(self) -> str:
        return f"<{self.endpoint} {self.state.value}: {self.why}; {self.in_flight - self.penalty} in flight>"
