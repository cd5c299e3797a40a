"""Pods that fall silent under traffic, seconds to a minute of it in virtual time: who is hurried, who is left alone.

Every request says its kind, and may be repeated unless it is said otherwise.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from headlessconn.core.member import State
from tests.core.traffic import Traffic

SEEDS = range(5)


def test_a_black_hole_at_400_a_second_costs_a_quarter_of_a_second_once() -> None:
    traffic = Traffic()
    traffic.send(400, 0.0, 40.0)
    traffic.silence("b", 20.0)
    traffic.until(45.0)
    at, state, why = traffic.moves("b")[0]
    assert state == "ejected"
    assert why.startswith("silent for 0.2")
    assert "s, owing " in why
    assert 20.2 < at < 20.3
    struck = traffic.received("b", 19.95, at)
    assert struck
    assert all(request.took < 0.3 for request in struck), "each was copied at once when its pod was suspected"
    assert {pod for _, pod in traffic.hurried} == {"b"}
    assert traffic.slowest(until=39.0) < 0.3
    assert not [request for request in traffic.received("b", at, 39.0) if not request.trial]


def test_a_black_hole_at_5_a_second_is_noticed_after_a_second() -> None:
    """It owes a single answer, so it gets four times the patience: one slow request is no rare thing."""
    traffic = Traffic()
    traffic.send(5, 0.0, 60.0)
    traffic.silence("b", 20.0)
    traffic.until(65.0)
    at, state, why = traffic.moves("b")[0]
    assert state == "ejected"
    assert why.startswith("silent for 1.")
    assert "owing 1 answer," in why
    assert 21.0 <= at <= 22.0
    assert traffic.slowest(until=22.0) < 1.3
    assert traffic.received("b", 20.0)[0].hurried_at == [at]


@pytest.mark.parametrize("rate", [5, 400])
def test_a_pod_that_stays_silent_is_tried_ever_more_seldom(rate: int) -> None:
    """After 1, 2, 4, 8, 16 s: each trial costs its request a quarter of a second, and the budget a copy."""
    traffic = Traffic()
    traffic.send(rate, 0.0, 60.0)
    traffic.silence("b", 20.0)
    traffic.until(61.0)
    trials = [request.at for request in traffic.requests if request.trial]
    assert 4 <= len(trials) <= 6
    gaps = [later - earlier for earlier, later in pairwise(trials)]
    assert all(later > 1.7 * earlier for earlier, later in pairwise(gaps)), gaps
    assert traffic.slowest(22.0, 59.0) < 0.3


def test_what_may_not_be_repeated_waits_and_goes_elsewhere_from_then_on() -> None:
    traffic = Traffic(patience=5.0)
    traffic.send(50, 0.0, 40.0, repeatable=False)
    traffic.silence("b", 20.0)
    traffic.until(46.0)
    assert traffic.copies == 0
    at = traffic.moves("b")[0][0]
    assert traffic.hurried, "they are told, and do nothing"
    assert not traffic.received("b", at), "and they are no trials either"
    assert traffic.slowest(at) < 0.02


def test_a_frozen_pod_comes_back_by_its_late_answer() -> None:
    """A collector's pause, a suspended container: it goes on where it stood."""
    traffic = Traffic(patience=60.0)
    traffic.send(100, 0.0, 30.0, repeatable=False)
    traffic.silence("b", 10.0)
    traffic.thaw("b", 14.0)
    traffic.until(31.0)
    moves = traffic.moves("b")
    assert [state for _, state, _ in moves] == ["ejected", "ready"]
    back, _, why = moves[1]
    assert 14.0 < back < 14.05
    assert why == "it answers again"
    assert len(traffic.received("b", 15.0)) > 200, "and has its share again"


def test_a_frozen_pod_comes_back_by_its_trial() -> None:
    """All that it owed were copied and cancelled, so nothing is left to be answered late."""
    traffic = Traffic()
    traffic.send(100, 0.0, 60.0)
    traffic.silence("b", 10.0)
    traffic.at(14.0, lambda: traffic.latency.update(b=0.01))
    traffic.until(61.0)
    moves = traffic.moves("b")
    assert [state for _, state, _ in moves] == ["ejected", "ready"]
    [back] = [request for request in traffic.requests if request.trial and request.pods == ["b"]]
    assert 14.0 < back.at < moves[1][0] < 23.0
    assert len(traffic.received("b", 40.0)) > 500, "and has its share again, once its slowness has faded"


@pytest.mark.parametrize("rate", [5, 400])
def test_when_all_pods_are_slow_at_once_nobody_is_suspected(rate: int) -> None:
    """A database that they share: copies would be the last thing it needs."""
    for slow in (0.5, 3.0):
        for seed in SEEDS if rate < 400 else SEEDS[:2]:
            traffic = Traffic(seed=seed, spread=(0.5, 2.0))
            traffic.send(rate, 0.0, 20.0)
            traffic.slow(slow, 8.0)
            traffic.until(30.0)
            assert traffic.hurried == []
            assert [traffic.moves(pod) for pod in "abc"] == [[], [], []]


def test_what_was_under_way_when_all_became_slow_is_no_comparison() -> None:
    """With this seed the last answer of one pod came before the last five fast ones of the others."""
    traffic = Traffic(seed=4, spread=(0.5, 2.0))
    traffic.send(400, 0.0, 20.0)
    traffic.slow(0.5, 8.0)
    traffic.until(30.0)
    assert traffic.hurried == []


def test_the_heaviest_report_on_a_healthy_pod_is_not_duplicated() -> None:
    """It takes 20 s on every pod, where others take 10 ms: its own kind is silent for long everywhere."""
    traffic = Traffic()
    traffic.send(1, 0.0, 30.0, lane="/report", work=2000.0)
    traffic.until(60.0)
    assert traffic.copies == 0, "while too few of them are known"
    traffic.send(5, 60.0, 160.0)
    traffic.send(0.1, 60.0, 160.0, lane="/report", work=2000.0)
    traffic.until(200.0)
    assert traffic.copies == 0
    assert traffic.hurried == []
    assert [traffic.moves(pod) for pod in "abc"] == [[], [], []]
    assert all(request.took < 26.0 for request in traffic.requests)


def test_a_pod_held_up_by_a_report_is_left_alone_and_the_report_is_not_copied() -> None:
    traffic = Traffic()
    traffic.send(50, 0.0, 60.0)
    traffic.send(5, 0.0, 10.0, lane="/report", work=100.0)
    traffic.silence("b", 20.0)
    traffic.send(5, 20.0, 20.2, lane="/report", work=100.0)
    traffic.send(5, 20.2, 20.4, lane="/report", work=100.0)
    traffic.thaw("b", 23.0)
    traffic.until(61.0)
    assert [state for _, state, _ in traffic.moves("b")] == ["ejected", "ready"]
    reports = [request for request in traffic.requests if request.lane == "/report" and request.at >= 20.0]
    assert [len(request.pods) for request in reports] == [1, 1]
    assert any(request.pods == ["b"] for request in reports), "else it shows nothing"


@pytest.mark.parametrize("told", [True, False])
def test_our_own_loop_overslept_and_nobody_is_suspected(told: bool) -> None:
    """All answers lie in our sockets. The first look after it must not take that for silence of the pods, though our
    own late alarm may come before the driver's word of it (seed 7699 of ten thousand)."""
    traffic = Traffic()
    traffic.send(400, 0.0, 10.0)
    traffic.until(10.0)
    play = traffic.play
    picks = [traffic.owed(pod) for pod in "aabbcc"]
    traffic.owed("a", answered=5)
    play.now = 13.0
    if told:
        play.engine.overslept(3.0, play.now)
    play.engine.wake(play.now)
    play.obey()
    assert traffic.hurried == []
    for pick in picks:
        play.responded(pick)
        play.ended(pick)
    play.until(20.0)
    assert traffic.hurried == []
    assert [traffic.moves(pod) for pod in "abc"] == [[], [], []]


def test_who_is_silent_after_our_own_stall_too_is_suspected_a_little_later() -> None:
    traffic = Traffic()
    traffic.send(400, 0.0, 10.0)
    traffic.until(10.0)
    play = traffic.play
    silent = [traffic.owed("b"), traffic.owed("b")]
    play.now = 13.0
    play.engine.overslept(3.0, play.now)
    play.engine.wake(play.now)
    traffic.owed("a", answered=5)
    play.until(13.24)
    assert traffic.moves("b") == []
    play.until(13.6)
    assert [state for _, state, _ in traffic.moves("b")] == ["ejected"]
    assert len(silent) == 2


def test_half_of_the_pods_and_no_more_are_ejected_for_silence() -> None:
    traffic = Traffic("abcdef")
    traffic.send(400, 0.0, 30.0)
    for pod in "abcd":
        traffic.silence(pod, 10.0)
    traffic.until(12.0)
    ejected = [name for name, state in traffic.play.states.items() if state == "ejected"]
    assert len(ejected) == 3
    assert set(ejected) < set("abcd")


def test_of_two_pods_the_last_ready_one_stays() -> None:
    traffic = Traffic("ab")
    traffic.send(100, 0.0, 30.0)
    traffic.silence("a", 10.0)
    traffic.until(12.0)
    assert traffic.play.states == {"a": "ejected", "b": "ready"}
    traffic.silence("b", 12.0)
    traffic.until(20.0)
    assert traffic.play.state("b") is State.READY


def test_streams_are_exempt() -> None:
    """A WebSocket owes no answer, however long it is silent."""
    traffic = Traffic()
    traffic.send(50, 0.0, 40.0)
    traffic.until(10.0)
    for _ in range(3):
        traffic.play.engine.streams(traffic.owed("b"))
    traffic.until(41.0)
    assert traffic.hurried == []
    assert traffic.moves("b") == []


def test_what_hurries_is_bounded_by_the_budget() -> None:
    """A pod that others find silent, and nobody else to eject: each request there may be copied, a fifth of all are."""
    traffic = Traffic("ab", patience=2.0)
    traffic.send(100, 0.0, 60.0)
    traffic.silence("a", 20.0)
    traffic.silence("b", 20.0)
    traffic.until(61.0)
    assert traffic.copies <= 0.2 * 4000 + 40 + 200
