"""A seed is a history: in this process, in any other, and another seed is another one."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headlessconn.testing.sim import Run, add, black_hole, crash, dns, drain, freeze, recover, simulate, slow, sour

ROOT = Path(__file__).parent.parent.parent

SCRIPT = [
    (5.0, slow("a", 0.02)),
    (10.0, add("e")),
    (12.0, crash("b")),
    (16.0, freeze("c")),
    (20.0, recover("b")),
    (22.0, dns("silent")),
    (26.0, sour("d", 0.5)),
    (28.0, black_hole("a")),
    (30.0, dns("")),
    (34.0, drain("e")),
    (38.0, recover("c")),
]


def history(seed: int = 1) -> Run:
    return simulate("abcd", rate=40.0, seconds=60.0, script=SCRIPT, jitter=True, clients=2, patience=2.0, seed=seed)


def digest(run: Run) -> str:
    return hashlib.sha256(repr(run.trace).encode()).hexdigest()


def test_the_same_seed_is_the_same_trace() -> None:
    run = history()
    assert run == run.again() == history()
    assert digest(run) == digest(run.again())
    assert len(run.trace) > 4000


def test_another_seed_is_another_trace() -> None:
    assert len({digest(history(seed)) for seed in range(1, 6)}) == 5
    assert history(1) != history(2)
    assert history(1) != "something else"


def test_another_process_plays_the_same_trace() -> None:
    """A seed that failed on one machine is replayed on another. Sets of keys have an order of their own there."""
    program = "from tests.sim.test_determinism import digest, history; print(digest(history()))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert runs == [digest(history())] * 2


@pytest.mark.parametrize("rate", [1.0, 7.0, 500.0])
def test_every_request_ends(rate: float) -> None:
    run = simulate("abcd", rate=rate, seconds=60.0, script=SCRIPT, patience=2.0)
    assert all(request.outcome for request in run.requests)
    assert all(request.at <= request.ended_at <= request.at + 2.0 + 2.6 for request in run.requests)
    assert len(run.requests) == pytest.approx(60.0 * rate, abs=2)
