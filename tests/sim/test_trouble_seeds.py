"""Histories of pods, fleets, DNS and processes in trouble; the world's log judges each (`judging.py` has the rules).

A failing one prints its schedule, shrunk. To replay it alone: `python -m headlessconn.testing.sim trouble --seed N`;
`make sim` plays ten thousand.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headlessconn.core.member import MOVES
from headlessconn.testing.sim import crowds
from headlessconn.testing.sim.judging import judge
from headlessconn.testing.sim.run import Run
from headlessconn.testing.sim.seeds import Batch, play
from headlessconn.testing.sim.shrinking import shrink
from headlessconn.testing.sim.tallies import name
from headlessconn.testing.sim.troubles import KINDS, REQUESTS, SECONDS, Plan

ROOT = Path(__file__).parent.parent.parent
SEEDS = 500
BATCH = 50
CROWDS = 12

_played: dict[int, Batch] = {}


def batch(first: int) -> Batch:
    """Each is played once, whichever test asks first."""
    if first not in _played:
        _played[first] = play("trouble", range(first, first + BATCH))
    return _played[first]


def digest(run: Run) -> str:
    return hashlib.sha256(repr(run.trace).encode()).hexdigest()


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_request_fails_without_a_reason(first: int) -> None:
    for seed, wrong in batch(first).failed:
        plan = Plan.of(seed)
        schedule = "\n".join(f"    ({at:.3f}, {event!r})," for at, event in shrink(plan, judge))
        pytest.fail(f"{plan}\nwrong:\n  " + "\n  ".join(wrong[:5]) + f"\nshrunk to\n{schedule}", pytrace=False)


@pytest.mark.parametrize("what", [*KINDS, *map(name, MOVES)])
def test_it_occurs(what: str) -> None:
    """What the seeds never try they cannot judge."""
    batches = [batch(first) for first in range(0, SEEDS, BATCH)]
    seeds = sum(one.tally.in_seeds[what] for one in batches)
    assert seeds >= 0.01 * SEEDS, f"{what!r} occurs in {seeds} of {SEEDS} seeds"


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_is_large_enough(seed: int) -> None:
    plan = Plan.of(seed)
    run = plan.play()
    assert SECONDS >= 60.0
    assert len(run.clients) >= 2
    assert len(run.requests) >= 2000
    assert len(run.requests) <= 1.5 * REQUESTS
    assert len(plan.faults) >= 4


def test_a_seed_is_a_history() -> None:
    plan = Plan.of(7)
    assert plan.play() == plan.play()
    assert plan.play() != Plan.of(8).play()


def test_another_process_plays_the_same_histories() -> None:
    """Sets of keys and of exchanges have an order of their own in each process."""
    seeds = (3, 5, 11, 37)
    program = f"""
from headlessconn.testing.sim.troubles import Plan
from tests.sim.test_trouble_seeds import digest
print([digest(Plan.of(seed).play()) for seed in {seeds}])
"""
    here = str([digest(Plan.of(seed).play()) for seed in seeds])
    for order in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": order},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == here


@pytest.fixture
def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A wall clock that is another one at each look."""
    looks: list[int] = []

    def look(unit: float) -> float:
        looks.append(len(looks))
        return unit * 86400.0 * (len(looks) if len(looks) % 2 else -len(looks))

    monkeypatch.setattr(time, "time", lambda: look(1.0))
    monkeypatch.setattr(time, "time_ns", lambda: int(look(1e9)))
    return looks


@pytest.mark.parametrize("seed", [2, 9])
def test_a_wall_clock_that_jumps_changes_nothing(seed: int, jumping_clock: list[int]) -> None:
    plan = Plan.of(seed)
    without = tuple((at, event) for at, event in plan.schedule if event.name != "set_clock")
    assert plan.play() == plan.play(without)
    assert not jumping_clock, "nobody may look at a wall clock"


@pytest.mark.parametrize("seed", range(CROWDS))
def test_a_hundred_clients_do_not_become_an_attack(seed: int) -> None:
    plan = crowds.Plan.of(seed)
    wrong = crowds.judge(plan, plan.play())
    assert not wrong, f"{plan}\n" + "\n".join(wrong[:5])
