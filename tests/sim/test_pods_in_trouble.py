"""Crashed, vanished, frozen, sour and slow pods: how many requests that costs, and when they are back."""

import itertools

import pytest

from headlessconn.options import Options
from headlessconn.testing.sim import Run, add, black_hole, crash, drain, freeze, recover, simulate, slow, sour, unlist

SEEDS = range(1, 6)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


def dials(run: Run, pod: str, since: float) -> list[float]:
    return [at for at, _ in run.world.pods[pod].dialled if at >= since]


# ---- crash: the process is gone, DNS goes on listing it -----------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("latency", [0.002, 0.2])
def test_a_crash_costs_what_was_in_flight_and_nothing_after(latency: float, seed: int) -> None:
    run = simulate("abc", latency=latency, seconds=50.0, script=[(12.0, crash("b"))], seed=seed)
    lost = [request for request in run.requests if request.outcome != "ok"]
    assert {(request.outcome, request.pod, request.ended_at) for request in lost} <= {("reset", "b", 12.0)}
    assert all(request.at <= 12.0 for request in lost)
    assert run.received("b", since=12.0) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_after_the_first_refusal_a_corpse_is_only_redialled_with_back_off(seed: int) -> None:
    run = simulate("abc", seconds=45.0, script=[(12.0, crash("b"))], seed=seed)
    redials = dials(run, "b", 12.0)
    assert redials[0] <= 12.2
    for gap, most in zip(gaps(redials), itertools.chain([0.5, 1.0, 2.0, 4.0], itertools.repeat(5.0)), strict=False):
        assert 0.9 * most - 0.001 <= gap <= most + 0.001
    assert run.attempts("b")[-len(redials) :] == redials, "dials alone: no request is sent to find out"


def test_a_corpse_that_leaves_dns_is_left_alone() -> None:
    run = simulate("abc", seconds=40.0, script=[(12.0, crash("b")), (20.0, unlist("b"))])
    assert run.attempts("b")[-1] <= 25.05


@pytest.mark.parametrize("seed", SEEDS)
def test_a_container_restarted_in_place_is_back_within_five_seconds(seed: int) -> None:
    run = simulate("abc", seconds=40.0, script=[(12.0, crash("b")), (20.0, recover("b"))], seed=seed)
    back = min(at for at, _, _ in run.world.pods["b"].received if at >= 20.0)
    assert back <= 25.1
    assert run.share("b", back, back + 5.0) >= 0.9


def test_with_two_of_three_dead_everything_goes_to_the_third() -> None:
    """A panic threshold of 50 % would send two thirds of all requests to corpses."""
    run = simulate("abc", seconds=40.0, script=[(12.0, crash("a")), (12.0, crash("b"))])
    assert run.failed <= 2
    assert run.received("c", 12.5, 40.0) >= 2745
    assert len(dials(run, "a", 12.0)) <= 12


def test_when_all_are_dead_they_are_still_tried_and_served_as_soon_as_one_lives() -> None:
    script = [(10.0, crash(pod)) for pod in "abc"] + [(15.0, recover("b"))]
    run = simulate("abc", seconds=30.0, script=script)
    assert set(run.outcomes) <= {"ok", "reset", "no pod accepts"}
    failed = [request.at for request in run.requests if request.outcome != "ok"]
    assert 450 <= len(failed) <= 502
    assert max(failed) <= 15.01


def test_one_pod_alone_is_never_given_up() -> None:
    run = simulate("a", seconds=30.0, script=[(10.0, crash("a")), (15.0, recover("a"))])
    assert max(request.at for request in run.requests if request.outcome != "ok") <= 15.01


def test_hints_of_a_crash_find_the_new_pod_sooner() -> None:
    """With a TTL of 30 s and refresh_max of 30 s the hint is all there is."""

    def seconds_to_new(options: Options) -> float:
        script = [(12.0, drain("b", grace=0.0)), (12.0, add("d"))]
        run = simulate("abc", ttl=30.0, seconds=60.0, script=script, options=options)
        first = run.first("d")
        assert first is not None
        return first - 12.0

    assert seconds_to_new(Options(refresh_max=30.0)) <= 1.2


# ---- black hole: the node is gone ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_vanished_node_costs_what_it_held_and_its_first_dials(seed: int) -> None:
    run = simulate("abc", seconds=60.0, script=[(12.0, black_hole("b"))], patience=1.0, seed=seed)
    assert run.failed <= 6
    assert all(12.0 - 1.0 <= request.at <= 16.0 for request in run.requests if request.outcome != "ok")
    assert run.received("b", since=16.0) == 0
    assert sum(at > 13.0 for at in run.attempts("b")) <= 14, "trials, and re-dials with back-off"


def test_a_dial_that_is_dropped_moves_on_within_the_request() -> None:
    """Nothing was sent, so a patient request loses time only."""
    script = [(12.0, black_hole("b"))]
    run = simulate("abc", seconds=40.0, latency=0.05, script=script, patience=8.0)
    silent = [request for request in run.requests if request.outcome == "timed out"]
    assert {request.pod for request in silent} <= {"b"}, "those that were sent before, or on an open connection"
    assert all(request.at <= 13.0 for request in silent)
    moved = [request for request in run.requests if request.outcome == "ok" and request.ended_at - request.at > 2.0]
    assert all(2.5 <= request.ended_at - request.at <= 2.8 for request in moved)


# ---- frozen: it accepts, and no byte follows ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_pod_is_ejected_and_tried_ever_more_seldom(seed: int) -> None:
    run = simulate("abc", seconds=60.0, script=[(12.0, freeze("b"))], patience=1.0, seed=seed)
    assert run.failed <= 12
    assert {request.pod for request in run.requests if request.outcome != "ok"} == {"b"}
    assert run.received("b", since=20.0) <= 6
    assert run.received("b", since=45.0) <= 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_pod_that_thaws_is_back(seed: int) -> None:
    run = simulate("abc", seconds=90.0, script=[(12.0, freeze("b")), (25.0, recover("b"))], patience=1.0, seed=seed)
    assert run.share("b", 60.0, 90.0) >= 0.9


# ---- sour: it answers 503, at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sour_pod_costs_one_answer_in_a_dozen_seconds(seed: int) -> None:
    """A bad answer counts as eight times the usual latency, which keeps the pod out until that has faded."""
    run = simulate("abc", seconds=60.0, script=[(12.0, sour("b"))], seed=seed)
    bad = [request.ended_at for request in run.requests if request.outcome == "bad status"]
    assert 1 <= len(bad) <= 6
    assert all(gap >= 10.0 for gap in gaps(bad)[:3])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sour_pod_is_ejected_where_latency_is_not_looked_at(seed: int) -> None:
    options = Options(policy="round_robin")
    run = simulate("abc", seconds=60.0, script=[(12.0, sour("b"))], seed=seed, options=options)
    bad = [request.ended_at for request in run.requests if request.outcome == "bad status"]
    assert len(bad) == 10
    assert bad[4] - bad[0] < 0.5
    for gap, sentence in zip(gaps(bad[4:]), [1.0, 2.0, 4.0, 8.0, 16.0], strict=True):
        assert sentence <= gap <= sentence + 0.05, "one request tries it when its time is over"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sour_pod_that_recovers_is_back_with_its_next_trial(seed: int) -> None:
    options = Options(policy="round_robin")
    run = simulate("abc", seconds=60.0, script=[(12.0, sour("b")), (18.0, recover("b"))], seed=seed, options=options)
    assert run.outcomes["bad status"] == 7, "five, and two trials"
    back = min(at for at, _, _ in run.world.pods["b"].received if at >= 18.0)
    assert back <= 19.35, "its sentences were 1, 2 and 4 s"
    assert run.share("b", back, 60.0) >= 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sour_pod_that_recovers_is_back_when_its_penalty_has_faded(seed: int) -> None:
    run = simulate("abc", seconds=60.0, script=[(12.0, sour("b")), (18.0, recover("b"))], seed=seed)
    assert run.outcomes["bad status"] == 1
    back = min(at for at, _, _ in run.world.pods["b"].received if at >= 18.0)
    assert back <= 28.0
    assert run.share("b", back, 60.0) >= 0.85


def test_when_all_are_sour_nobody_is_left_out_for_it() -> None:
    """It is not the pods then: at most half are ejected, and never the last."""
    run = simulate("abcd", seconds=40.0, script=[(12.0, sour(pod)) for pod in "abcd"] + [(25.0, recover("a"))])
    assert run.outcomes["ok"] >= 1195
    serving = {pod for pod in "abcd" if run.received(pod, 20.0, 25.0) > 100}
    assert len(serving) == 2


# ---- slow ---------------------------------------------------------------------------------------------------------


def p99(run: Run, since: float) -> float:
    took = sorted(request.ended_at - request.at for request in run.requests if request.at >= since)
    return took[int(0.99 * len(took))]


@pytest.mark.parametrize("seed", SEEDS)
def test_one_slow_pod_of_five_is_not_felt_with_peak_ewma(seed: int) -> None:
    script = [(5.0, slow("b", 0.04))]
    normal = p99(simulate("abcde", seed=seed), 10.0)
    assert p99(simulate("abcde", script=script, seed=seed), 10.0) <= 1.2 * normal
    least = simulate("abcde", script=script, seed=seed, options=Options(policy="least_request"))
    assert p99(least, 10.0) >= 10.0 * normal, "in flight alone does not show it"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pod_that_was_slow_once_is_not_shunned_for_long(seed: int) -> None:
    run = simulate("abcde", seconds=80.0, script=[(5.0, slow("b", 0.04)), (15.0, slow("b", 0.002))], seed=seed)
    assert run.share("b", 60.0, 80.0) >= 0.9
