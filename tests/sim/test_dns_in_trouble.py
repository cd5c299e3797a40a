"""DNS that fails, falls silent, lies, or cuts: what becomes of the traffic, and when a new pod is seen after it."""

import itertools

import pytest

from headlessconn.options import Options
from headlessconn.testing.sim import add, crash, dns, drain, simulate
from headlessconn.testing.sim.zone import Trouble

SEEDS = range(1, 6)
NO_NEWS: list[Trouble] = ["servfail", "refused", "silent", "truncated", "stale"]
SLACK = 0.1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("trouble", NO_NEWS)
def test_no_news_fails_nothing_and_a_new_pod_is_seen_after_it(trouble: Trouble, seed: int) -> None:
    script = [(12.0, dns(trouble)), (14.0, add("d")), (32.0, dns(""))]
    run = simulate("abc", seconds=60.0, script=script, seed=seed)
    assert run.failed == 0
    assert run.received("d", 0.0, 32.0) == 0
    first = run.first("d")
    assert first is not None
    lookup = Options().lookup_timeout if trouble == "silent" else 0.0  # one that began in the trouble ends in it
    assert first <= 32.0 + lookup + 5.0 + SLACK
    assert run.share("d", first, first + 10.0) >= 0.9


@pytest.mark.parametrize("trouble", NO_NEWS)
def test_an_hour_without_news_fails_nothing(trouble: Trouble) -> None:
    run = simulate("abc", rate=2.0, seconds=3600.0, script=[(12.0, dns(trouble))])
    assert run.failed == 0
    asked = [at for at, _ in run.zone.asked]
    last_look_ups = [at for at in asked if at > 3500.0]
    assert 10 <= len(last_look_ups) <= 100, "it never stops asking, nor storms"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pod_that_dies_while_dns_is_silent_is_not_missed(seed: int) -> None:
    script = [(12.0, dns("silent")), (20.0, drain("b", grace=1.0, listens=False))]
    run = simulate("abc", seconds=120.0, script=script, seed=seed)
    assert run.failed == 0
    assert run.received("b", since=20.2) == 0
    assert run.attempts("b")[-1] <= 90.0, "failing for a minute of silence: not even re-dialled any more"


def test_short_nxdomain_is_held() -> None:
    """A restart of CoreDNS, a moment without a ready pod: the pods are still there, and serve."""
    run = simulate("abc", seconds=60.0, script=[(12.0, dns("nxdomain")), (20.0, dns(""))])
    assert run.failed == 0


def test_long_nxdomain_is_believed() -> None:
    run = simulate("abc", seconds=60.0, script=[(12.0, dns("nxdomain")), (40.0, dns(""))])
    assert set(run.outcomes) == {"ok", "no endpoints"}
    failed = [request.at for request in run.requests if request.outcome == "no endpoints"]
    assert min(failed) >= 12.0 + 10.0, "held for ten seconds after it was first heard"
    assert min(failed) <= 12.0 + 5.0 + 10.0 + SLACK
    assert max(failed) <= 41.1 - 5.0


def test_nxdomain_and_a_refusal_are_believed_at_once() -> None:
    run = simulate("abc", seconds=40.0, script=[(12.0, dns("nxdomain")), (18.0, crash("b"))])
    assert run.received("b", since=18.0) == 0
    dialled = [at for at, _ in run.world.pods["b"].dialled if at >= 18.0]
    assert len(dialled) == 1, "one refusal, and nobody comes back"


@pytest.mark.parametrize("trouble", ["servfail", "silent", "nxdomain"])
def test_dns_that_comes_late_serves_whoever_still_waits(trouble: Trouble) -> None:
    run = simulate("abc", seconds=20.0, script=[(0.0, dns(trouble)), (3.2, dns(""))], patience=10.0)
    first = min(request.ended_at for request in run.requests if request.outcome == "ok")
    lookup = Options().lookup_timeout if trouble == "silent" else 0.0  # one that began in the trouble ends in it
    assert first <= 3.2 + lookup + 1.0 + SLACK
    assert all(request.outcome == "ok" for request in run.requests if request.at > first - 5.0)
    assert trouble == "silent" or run.failed == 0


def test_dns_that_never_comes_is_told_after_five_seconds() -> None:
    run = simulate("abc", rate=10.0, seconds=10.0, script=[(0.0, dns("silent"))], patience=10.0)
    assert run.outcomes == {"no endpoints": len(run.requests)}
    assert {round(request.ended_at - request.at, 6) for request in run.requests} == {5.0}


def test_how_often_dns_is_asked() -> None:
    """Whatever happens to the pods: at most once a second and target, and mostly once a TTL."""
    calm = simulate("abc", seconds=300.0, rate=10.0)
    assert 60 <= len(calm.zone.asked) <= 70
    script = [(10.0 + step, crash("b") if step % 2 else add(f"pod-{step}")) for step in range(60)]
    busy = simulate("abc", seconds=300.0, rate=10.0, script=script)
    asked = [at for at, _ in busy.zone.asked][1:]  # the very first look-up asks twice: it walks the search list
    assert min(later - earlier for earlier, later in itertools.pairwise(asked)) >= 1.0 - 1e-6


def test_a_fleet_that_was_started_together_spreads_its_questions() -> None:
    run = simulate("abc", clients=20, rate=2.0, seconds=120.0)
    asked = [at for at, _ in run.zone.asked if at > 100.0]
    busiest = max(sum(start <= at < start + 0.25 for at in asked) for start in [100 + 0.25 * n for n in range(76)])
    assert busiest <= 8, "of 20 in a quarter of a second; in step it would be all of them"
