"""Scale-out, scale-in, rolling restarts, the way from and to zero: when the traffic follows, to the second."""

import pytest

from headlessconn.options import Options
from headlessconn.testing.sim import add, drain, recover, relist, replace, simulate, unlist

SEEDS = range(1, 6)
SLACK = 0.1  # seconds for the look-up itself and for a request that is dealt to the new pod among the others


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("ttl", "refresh_max", "within"),
    [(5.0, 5.0, 5.0), (30.0, 5.0, 5.0), (2.0, 5.0, 2.0), (5.0, 1.0, 1.0), (0.0, 5.0, 1.0)],
)
def test_a_new_pod_gets_requests_within_a_ttl(ttl: float, refresh_max: float, within: float, seed: int) -> None:
    run = simulate("ab", ttl=ttl, script=[(12.3, add("c"))], options=Options(refresh_max=refresh_max), seed=seed)
    first = run.first("c")
    assert first is not None
    assert 12.3 <= first <= 12.3 + within + SLACK
    assert run.share("c", first, first + 5.0) >= 0.9, "and its fair share at once"
    assert run.failed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_behind_a_cache_it_takes_the_caches_time_more(seed: int) -> None:
    run = simulate("ab", ttl=5.0, cache=10.0, seconds=60.0, script=[(22.0, add("c"))], seed=seed)
    first = run.first("c")
    assert first is not None
    assert first <= 22.0 + 10.0 + 5.0 + SLACK
    assert run.failed == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_quiet_client_gives_a_new_pod_its_share_too(seed: int) -> None:
    """20 requests a second, nothing in flight to compare: ties go to the least recently picked."""
    run = simulate("abcd", rate=20.0, seconds=60.0, script=[(10.0, add("e"))], seed=seed)
    first = run.first("e")
    assert first is not None
    assert run.share("e", first, first + 20.0) >= 0.85


@pytest.mark.parametrize("policy", ["peak_ewma", "least_request", "round_robin"])
def test_all_pods_get_the_same_when_all_are_alike(policy: str) -> None:
    run = simulate("abcde", seconds=60.0, options=Options(policy=policy))  # type: ignore[arg-type]
    assert all(0.9 <= run.share(pod, 10.0, 60.0) <= 1.1 for pod in "abcde")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("listens", [True, False], ids=["grace", "closed at SIGTERM"])
def test_scale_in_fails_nothing(listens: bool, seed: int) -> None:
    run = simulate("abc", latency=0.05, script=[(12.3, drain("c", grace=8.0, listens=listens))], seed=seed)
    assert run.failed == 0
    assert run.received("c", since=12.3 + 5.0 + SLACK) == 0
    if not listens:
        first_refusal = min(at for at, _ in run.world.pods["c"].dialled if at >= 12.3)
        assert run.received("c", since=first_refusal) == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("listens", [True, False], ids=["grace", "closed at SIGTERM"])
@pytest.mark.parametrize("latency", [0.002, 0.1])
def test_a_rolling_restart_fails_nothing(latency: float, listens: bool, seed: int) -> None:
    """As a Deployment does it: each new pod up and listed, then an old one out. A pod that closes at SIGTERM while the
    client's set is old refuses dials, and nothing of those was sent."""
    script = []
    for step, (old, new) in enumerate(zip("abc", "xyz", strict=True)):
        script += [(10.0 + 8 * step, add(new, latency)), (12.0 + 8 * step, drain(old, grace=7.0, listens=listens))]
    run = simulate("abc", seconds=50.0, latency=latency, script=script, seed=seed)
    assert run.failed == 0
    assert all(run.share(pod, 40.0, 50.0) >= 0.9 for pod in "xyz")
    assert not any(run.received(pod, since=40.0) for pod in "abc")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_whole_set_is_another_one_at_once(seed: int) -> None:
    run = simulate("abc", script=[(12.3, replace(tuple("xyz"), grace=7.0))], seed=seed)
    assert run.failed == 0
    first = run.first("x")
    assert first is not None
    assert first <= 12.3 + 5.0 + SLACK


@pytest.mark.parametrize("seed", SEEDS)
def test_a_readiness_flap_fails_nothing(seed: int) -> None:
    run = simulate("abc", seconds=40.0, script=[(12.3, unlist("b")), (20.0, relist("b"))], seed=seed)
    assert run.failed == 0
    assert run.received("b", 12.3 + 5.0 + SLACK, 20.0) == 0
    assert run.share("b", 25.1, 30.1) >= 0.9


def test_when_all_are_unready_for_a_moment_the_old_ones_serve() -> None:
    """Kubernetes says NXDOMAIN then. The pods still answer, and are held for ten seconds."""
    script = [(12.0, unlist(pod)) for pod in "abc"] + [(20.0, relist(pod)) for pod in "abc"]
    run = simulate("abc", seconds=40.0, script=script)
    assert run.failed == 0
    assert sum(run.received(pod, 12.0, 20.0) for pod in "abc") >= 795


def test_from_zero_callers_wait_for_the_first_pod() -> None:
    """With callers waiting DNS is asked every second, so the wait is one second at most."""
    run = simulate("", seconds=20.0, script=[(3.4, add("a"))])
    assert run.failed == 0
    first = run.first("a")
    assert first is not None
    assert 3.4 <= first <= 4.4 + SLACK
    assert {request.pod for request in run.requests} == {"a"}
    order = [request.id for request in sorted(run.requests, key=lambda request: request.ended_at) if request.at < 3.0]
    late = [run.world.pods["a"].received[number][2] for number in range(len(order))]
    assert late == sorted(late), "first come, first served"


def test_from_zero_too_late_is_told_after_five_seconds() -> None:
    run = simulate("", seconds=20.0, script=[(8.0, add("a"))], patience=60.0)
    assert set(run.outcomes) == {"ok", "no endpoints"}
    for request in run.requests:
        if request.outcome == "no endpoints":
            assert request.ended_at - request.at == pytest.approx(5.0)
        else:
            assert request.at >= 8.0 - 5.0
    first = run.first("a")
    assert first is not None
    assert first <= 9.0 + SLACK


def test_to_zero_is_told_after_the_hold_and_the_wait() -> None:
    script = [(12.0, drain(pod, grace=2.0)) for pod in "abc"] + [(30.0, add("d"))]
    run = simulate("abc", seconds=45.0, script=script)
    assert set(run.outcomes) <= {"ok", "no endpoints", "no pod accepts", "reset"}
    assert {request.ended_at for request in run.requests if request.outcome == "reset"} <= {14.0}, "cut at their end"
    failed = [request for request in run.requests if request.outcome == "no endpoints"]
    assert min(request.at for request in failed) >= 13.99, "the grace is used"
    assert max(request.at for request in failed) <= 31.1 - 5.0, "younger ones were still waiting when one came"
    assert run.received("d", 30.0, 31.2) >= 500, "and were all let in"


def test_a_pod_that_comes_back_on_the_same_address_is_known_again() -> None:
    script = [(12.0, drain("b", grace=1.0, listens=False)), (25.0, recover("b"))]
    run = simulate("abc", seconds=60.0, script=script)
    assert run.failed == 0
    assert run.received("b", 13.0, 25.0) == 0
    assert run.share("b", 35.0, 60.0) >= 0.9


def test_several_clients_follow_each_on_its_own() -> None:
    run = simulate("ab", clients=5, rate=40.0, script=[(12.3, add("c"))])
    assert run.failed == 0
    firsts: dict[int, float] = {}
    for at, client, _ in run.world.pods["c"].received:
        firsts.setdefault(client, at)
    assert len(firsts) == 5
    assert max(firsts.values()) <= 12.3 + 5.0 + 3 * SLACK
    assert max(firsts.values()) - min(firsts.values()) > 0.05, "they do not march in step"
