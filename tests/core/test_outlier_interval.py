"""Intervals: when one begins and ends, what it counts, who goes, and what is only counted."""

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, records

RATES = Options(consecutive_failures=0)  # the rules over an interval alone


def answers(play: Play, name: str, good: int, bad: int) -> None:
    for count in range(good + bad):
        play.request(name, bad=count < bad)


def test_the_first_bad_answer_begins_an_interval_and_its_end_ejects() -> None:
    play = Play("ab", options=RATES)
    play.until(3.0)
    answers(play, "b", 0, 60)
    answers(play, "a", 60, 0)
    play.until(12.99)
    assert play.state("b") is State.READY
    play.until(13.0)
    assert play.states == {"a": "ready", "b": "ejected"}
    assert play.moves[-1] == (
        "13 b: ready -> ejected (none of 60 answers was good; of the others' 100.0% were, within 10 s)"
    )
    snapshot = play.engine.snapshot(play.now)
    assert (snapshot.ejections, snapshot.unenforced) == (1, 0)


def test_a_healthy_target_has_no_timer_for_it() -> None:
    quiet, busy = Play("ab", options=RATES), Play("ab", options=RATES)
    for play in (quiet, busy):
        play.until(1.0)
    answers(busy, "a", 200, 0)
    busy.until(2.0)
    quiet.until(2.0)
    for name in "ab":
        assert quiet.view(name) is not None
    assert quiet.engine._health.next_at == busy.engine._health.next_at == float("inf")
    answers(busy, "a", 0, 1)
    assert busy.engine._health.next_at == 12.0


def test_what_was_answered_before_is_not_counted() -> None:
    """A long time of good service must not dilute the first bad minutes."""
    play = Play("ab", options=RATES)
    answers(play, "a", 500, 0)
    answers(play, "b", 5000, 0)
    answers(play, "a", 0, 1)
    answers(play, "b", 0, 60)
    answers(play, "a", 60, 0)
    play.until(10.0)
    assert play.state("b") is State.EJECTED


def test_each_interval_is_counted_anew() -> None:
    play = Play("ab", options=RATES)
    for _ in range(3):  # 40 bad ones an interval, and 50 are needed
        answers(play, "b", 0, 40)
        answers(play, "a", 40, 0)
        play.until(play.now + 10.0)
    assert play.state("b") is State.READY
    answers(play, "b", 0, 50)
    answers(play, "a", 50, 0)
    play.until(play.now + 10.0)
    assert play.state("b") is State.EJECTED


@pytest.mark.parametrize("how", [How.RESET, How.TIMEOUT, How.BAD_STATUS])
def test_requests_that_fail_otherwise_count_as_bad(how: How) -> None:
    play = Play("ab", options=RATES)
    for _ in range(60):
        play.until(play.now + 0.01)
        play.request("b", how)
        play.request("a")
    play.until(11.0)
    assert play.state("b") is State.EJECTED


def test_an_answer_that_broke_off_counts_once_and_as_bad() -> None:
    """A good head and then a reset: 60 requests, all bad; a bad head and then a reset: the same."""
    for bad in (False, True):
        play = Play("ab", options=RATES)
        for _ in range(60):
            play.until(play.now + 0.01)
            pick = play.pick("b")
            play.responded(pick, bad)
            play.ended(pick, How.RESET)
            play.request("a")
        play.until(11.0)
        assert play.state("b") is State.EJECTED
        assert "none of 60 answers" in play.moves[-1]


@pytest.mark.parametrize("how", [How.CANCELLED, How.LOCAL, How.CALLER, How.RESET_REUSED])
def test_what_is_no_evidence_is_not_counted(how: How) -> None:
    play = Play("ab", options=RATES)
    play.request("b", bad=True)
    for _ in range(200):
        play.request("b", how)
        play.request("a")
    play.until(11.0)
    assert play.state("b") is State.READY


def test_at_most_half_go_the_worst_first_and_the_rest_is_counted() -> None:
    options = Options(consecutive_failures=0, failure_percentage_threshold=60, failure_percentage_minimum_hosts=3)
    play = Play("abcde", options=options)
    for name, bad in zip("abcde", (85, 100, 88, 0, 90), strict=True):
        answers(play, name, 100 - bad, bad)
    play.until(10.0)
    assert {name for name in "abcde" if play.state(name) is State.EJECTED} == {"b", "e"}
    snapshot = play.engine.snapshot(play.now)
    assert (snapshot.ejections, snapshot.unenforced) == (2, 2)


def test_never_the_last_one() -> None:
    """b is ejected for good reason; then a turns bad too."""
    play = Play("ab", options=RATES)
    answers(play, "b", 0, 60)
    answers(play, "a", 60, 0)
    play.until(10.0)
    play.says = records("ab")
    answers(play, "a", 0, 60)
    play.until(20.0)
    assert play.state("a") is State.READY


def test_ejected_members_are_counted_afresh_when_one_leaves_the_set() -> None:
    """grpc-go keeps a tally, and an ejected endpoint that leaves is never taken off it: the gate then stays shut."""
    play = Play("abcd", options=RATES)
    for gone, new in (("b", "e"), ("c", "f"), ("e", "g")):
        answers(play, gone, 0, 60)
        for name in play.listed - {gone}:
            answers(play, name, 60, 0)
        play.until(play.now + 10.0)
        assert play.state(gone) is State.EJECTED
        play.says = records(play.listed - {gone} | {new})
        play.until(play.now + 6.0)
        assert gone not in play.listed


@pytest.mark.parametrize(("enforcement", "thrown", "out"), [(0, 0.0, False), (40, 0.39, True), (40, 0.40, False)])
def test_enforcement_is_a_throw_of_the_dice(enforcement: int, thrown: float, out: bool) -> None:
    options = Options(consecutive_failures=0, failure_percentage_enforcement=enforcement)
    dice = Loaded(0.0)
    play = Play("ab", options=options, dice=dice)
    answers(play, "b", 0, 60)
    answers(play, "a", 60, 0)
    dice.value = thrown
    play.until(10.0)
    assert (play.state("b") is State.EJECTED) is out
    snapshot = play.engine.snapshot(play.now)
    assert (snapshot.ejections, snapshot.unenforced) == (int(out), int(not out))


def test_a_readmitted_member_begins_with_clean_counts() -> None:
    play = Play("ab", options=Options(failure_percentage_minimum_hosts=2))
    play.sour("b", times=60)  # five are enough, and the others were under way
    answers(play, "a", 60, 0)
    assert play.state("b") is State.EJECTED
    play.until(1.0)
    play.request("b")
    assert play.state("b") is State.READY
    play.until(10.0)
    assert play.state("b") is State.READY, "the interval knows of one good answer"


def test_a_bad_answer_that_also_breaks_off_is_one() -> None:
    """50 of 60 requests are bad, 83 %: not more than 85."""
    play = Play("ab", options=Options(consecutive_failures=0, failure_percentage_minimum_hosts=2))
    for number in range(60):
        play.until(play.now + 0.01)
        pick = play.pick("b")
        play.responded(pick, bad=number < 50)
        play.ended(pick, How.RESET if number < 50 else How.OK)
        play.request("a")
    play.until(11.0)
    assert play.state("b") is State.READY


def test_an_ejection_that_is_not_made_is_counted_once_a_row() -> None:
    play = Play("abc")
    for name in "abc":
        play.sour(name, times=30)
    snapshot = play.engine.snapshot(play.now)
    assert [play.state(name) for name in "abc"] == [State.EJECTED, State.READY, State.READY]
    assert (snapshot.ejections, snapshot.unenforced) == (1, 2)


def test_who_was_ejected_by_rate_and_refuses_its_trial_is_tried_again_after_a_connect() -> None:
    """A connect lifts FAILING and nothing else, also when no row of bad answers is left to tell."""
    play = Play("ab", options=RATES)
    answers(play, "b", 0, 60)
    answers(play, "a", 60, 0)
    play.until(10.0)
    play.refusing = {"b"}
    play.until(11.0)
    trial = play.pick()
    play.dialled(trial, How.REFUSED)
    play.ended(trial, How.REFUSED)
    assert play.state("b") is State.FAILING
    play.refusing = set()
    play.until(12.0)
    assert play.state("b") is State.EJECTED
    play.request("b")
    assert play.state("b") is State.READY


def test_good_service_after_a_connect_is_forgiving_too() -> None:
    """Ejected, then refusing, then connected while the one place among the ejected is taken: it serves from then on."""
    play = Play("abc")
    play.refusing = {"b"}
    play.sour("b")
    play.until(1.0)
    trial = play.pick("b")
    play.dialled(trial, How.REFUSED)
    play.ended(trial, How.REFUSED)
    play.sour("c")
    play.refusing = set()
    play.until(1.5)
    assert play.states == {"a": "ready", "b": "ready", "c": "ejected"}
    play.request("b")
    play.until(11.6)
    play.request("c")
    play.sour("b")
    assert play.state("b") is State.EJECTED
    assert play.view("b").retry_in == 1.0, "it would be 2 s without forgiveness"  # type: ignore[union-attr]
