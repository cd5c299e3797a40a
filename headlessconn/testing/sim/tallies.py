"""How often what the seeds are for has occurred: each kind of fault, and each move of the state table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from headlessconn.core import member
from headlessconn.core.member import MOVES, State

LEAST = 0.01  # part of the seeds in which each fault and each move must occur: what seeds never try they cannot judge

Move = tuple[State, str]


class Counted(dict[Move, State]):
    """The state table, with a count of the moves that are looked up in it."""

    def __init__(self) -> None:
        super().__init__(MOVES)
        self.counts: Counter[str] = Counter()

    def __getitem__(self, move: Move) -> State:
        after = super().__getitem__(move)
        self.counts[name(move)] += 1
        return after


def name(move: Move) -> str:
    """`ready refuse -> failing`"""
    before, cause = move
    return f"{before.value} {cause} -> {MOVES[move].value}"


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Count the moves that all engines make meanwhile."""
    counted = Counted()
    member.MOVES = counted
    try:
        yield counted.counts
    finally:
        member.MOVES = MOVES


@dataclass
class Tally:
    """What occurred in many seeds. `in_seeds` counts seeds, `times` occurrences."""

    seeds: int = 0
    requests: int = 0
    in_seeds: Counter[str] = field(default_factory=Counter)
    times: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)

    def seed(self, requests: int, occurred: Counter[str]) -> None:
        self.seeds += 1
        self.requests += requests
        self.times += occurred
        self.in_seeds.update(occurred.keys())

    def add(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.requests += other.requests
        self.in_seeds += other.in_seeds
        self.times += other.times
        self.outcomes += other.outcomes
        self.excused += other.excused

    def rare(self, wanted: tuple[str, ...]) -> list[str]:
        """What of `wanted` occurred in too few seeds."""
        return [what for what in wanted if self.in_seeds[what] < LEAST * self.seeds]

    def lines(self, wanted: tuple[str, ...]) -> Iterator[str]:
        for what in wanted:
            yield f"  {self.in_seeds[what] / max(1, self.seeds):7.1%} of seeds {self.times[what]:9d} times  {what}"
