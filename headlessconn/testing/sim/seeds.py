"""Many seeds, on several cores: what fails, and how often what they are for has occurred."""

from __future__ import annotations

import gc
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headlessconn.core.member import MOVES
from headlessconn.testing.sim import crowds, judging, refreshing, troubles
from headlessconn.testing.sim.run import Run
from headlessconn.testing.sim.shrinking import Judge, faults
from headlessconn.testing.sim.tallies import Tally, counting, name

BATCH = 25  # seeds that one process plays before it reports


@dataclass(frozen=True)
class Family:
    """Plans of one kind with their judge, and what has to occur in them."""

    plan: Callable[[int], Any]
    judge: Judge
    wanted: tuple[str, ...] = ()


FAMILIES = {
    "crowd": Family(crowds.Plan.of, crowds.judge, crowds.KINDS),
    "refresh": Family(refreshing.Plan.of, refreshing.judge),
    "trouble": Family(troubles.Plan.of, judging.judge, (*troubles.KINDS, *map(name, MOVES))),
}


@dataclass
class Batch:
    """What some seeds of a family came to."""

    tally: Tally = field(default_factory=Tally)
    failed: list[tuple[int, list[str]]] = field(default_factory=list)


def play(family: str, seeds: Sequence[int]) -> Batch:
    """Play seeds one after the other, in this process."""
    collects = gc.isenabled()
    gc.disable()  # worlds are taken apart by hand, and looking for garbage in them takes a quarter of the time
    try:
        return _play_all(family, seeds)
    finally:
        if collects:
            gc.enable()
            gc.collect()


def _play_all(family: str, seeds: Sequence[int]) -> Batch:
    batch = Batch()
    kind = FAMILIES[family]
    for seed in seeds:
        plan = kind.plan(seed)
        seen: list[Run] = []

        def judge(plan: Any, run: Run, seen: list[Run] = seen) -> list[str]:
            seen.append(run)
            if family == "trouble":
                return judging.judge(plan, run, batch.tally.excused)
            return kind.judge(plan, run)

        with counting() as moves:
            wrong = faults(plan, judge)
        if wrong:
            batch.failed.append((seed, wrong))
        requests = 0
        if seen:
            requests = len(seen[0].requests)
            batch.tally.outcomes.update(seen[0].outcomes)
        batch.tally.seed(requests, moves + Counter(getattr(plan, "faults", ())))
        for run in seen:
            run.take_apart()
    return batch


def _play(argument: tuple[str, Sequence[int]]) -> Batch:
    return play(*argument)


def play_all(family: str, seeds: Sequence[int], jobs: int) -> Iterator[Batch]:
    """Play seeds in `jobs` processes; batches come in the order of seeds."""
    batches = [(family, seeds[start : start + BATCH]) for start in range(0, len(seeds), BATCH)]
    if jobs < 2 or len(batches) < 2:
        yield from map(_play, batches)
        return
    # Spawned, not forked: the same everywhere, and nothing of this process is inherited.
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(_play, batches)
