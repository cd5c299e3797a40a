"""How evenly requests spread: Finagle's bound for two choices (P2CLeastLoadedTest), at N = 100 and R = 100 000."""

import pytest

from headlessconn.options import Options
from headlessconn.testing.sim import Run, simulate

PODS = [f"pod-{number}" for number in range(100)]
EACH = 1000


def load(policy: str, latency: float, requests: int) -> list[int]:
    seconds = 20.0
    run: Run = simulate(
        PODS,
        rate=requests / seconds,
        seconds=seconds,
        latency=latency,
        patience=seconds + 1.0,
        options=Options(policy=policy),  # type: ignore[arg-type]
    )
    return [len(run.world.pods[name].received) for name in PODS]


def test_held_requests_lie_evenly() -> None:
    """Nothing is answered meanwhile, so what a pod received is its load."""
    loads = load("peak_ewma", latency=1e6, requests=EACH * len(PODS))
    mean = sum(loads) / len(loads)
    assert mean == pytest.approx(EACH, abs=1)
    assert all(abs(found - mean) < 10 for found in loads)


@pytest.mark.parametrize("policy", ["peak_ewma", "least_request", "round_robin"])
def test_answered_requests_are_dealt_evenly(policy: str) -> None:
    """One request in flight on each pod on average: most pairs are ties, and those go to the one picked longer ago."""
    loads = load(policy, latency=0.02, requests=200 * len(PODS))
    mean = sum(loads) / len(loads)
    spread = (sum((found - mean) ** 2 for found in loads) / len(loads)) ** 0.5
    assert spread < 0.8 * mean**0.5, "clearly evener than dice, whose spread is the root of the mean"
    assert 0.8 * mean < min(loads) <= max(loads) < 1.2 * mean
