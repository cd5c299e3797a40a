"""Trials of ejected pods: one request at a time, and what its end says."""

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pick import TRIAL, Nobody
from headlessconn.options import Options
from tests.core.play import Play, key


def test_when_its_time_is_over_one_request_tries_it() -> None:
    play = Play()
    play.until(2.0)
    play.sour("b")
    play.until(2.99)
    assert play.picked() == {"a", "c"}
    assert not play.pick().flags & TRIAL
    play.until(3.0)
    trial = play.pick()
    assert (play.state("b"), trial.flags & TRIAL, trial.endpoint.address) == (State.EJECTED, TRIAL, "10.0.0.2")
    assert not any(play.pick().flags & TRIAL for _ in range(20)), "one at a time"
    play.responded(trial)
    assert play.state("b") is State.READY
    assert play.moves[-1] == "3 b: ejected -> ready (its trial went well)"
    play.ended(trial)


def test_a_bad_trial_doubles_the_sentence() -> None:
    play = Play()
    play.until(2.0)
    play.sour("b")
    trials = []
    for _ in range(8):
        play.until(play.now + (play.view("b").retry_in or 0.0))  # type: ignore[union-attr]
        trials.append(play.now)
        pick = play.pick()
        assert pick.flags & TRIAL
        play.responded(pick, bad=True)
        play.ended(pick)
    spans = [later - earlier for earlier, later in zip([2.0, *trials], trials, strict=False)]
    assert spans == [1, 2, 4, 8, 16, 32, 60, 60]


def test_good_service_undoes_one_doubling_every_ten_seconds() -> None:
    play = Play()
    play.until(2.0)
    play.sour("b")
    for _ in range(2):  # 1 s, and 2 s
        play.until(play.now + (play.view("b").retry_in or 0.0))  # type: ignore[union-attr]
        play.request("b", bad=True)
    play.until(play.now + 4.0)
    play.request("b")
    assert play.state("b") is State.READY
    play.until(play.now + 10.0)
    play.sour("b")
    assert play.view("b").retry_in == 4.0, "8 without forgiveness"  # type: ignore[union-attr]


@pytest.mark.parametrize("how", [How.CALLER, How.RESET_REUSED])
def test_a_trial_that_proves_nothing_makes_room_for_the_next(how: How) -> None:
    play = Play()
    play.sour("b")
    play.until(1.0)
    trial = play.pick()
    assert trial.flags & TRIAL
    play.ended(trial, how)
    assert play.state("b") is State.EJECTED
    assert play.pick().flags & TRIAL


@pytest.mark.parametrize("how", [How.LOCAL, How.CANCELLED])
def test_a_trial_that_our_own_trouble_or_a_quicker_copy_ended_is_not_repeated_at_once(how: How) -> None:
    """Without descriptors each would fail, where the other pods have kept connections that need none."""
    play = Play()
    play.sour("b")
    play.until(1.0)
    play.ended(play.pick(), how)
    assert not play.pick().flags & TRIAL
    play.until(play.now + 1.0)
    assert play.pick().flags & TRIAL


def test_a_trial_that_was_overtaken_after_its_usual_time_has_failed() -> None:
    play = Play()
    play.sour("b")
    play.until(1.0)
    trial = play.pick()
    play.dialled(trial, How.OK)
    play.until(play.now + 0.3)
    play.ended(trial, How.CANCELLED)
    assert not play.pick().flags & TRIAL
    assert play.state("b") is State.EJECTED


def test_where_one_more_may_not_be_ejected_those_that_are_out_are_tried_early() -> None:
    """One of three is out for long and well again; another fails now, and the rule of a half keeps it in."""
    play = Play(options=Options(eject_base=1.0, eject_max=60.0))
    member = play.engine._set.members[key("b")]
    member.ejections = 5
    play.sour("b")
    assert play.state("b") is State.EJECTED
    assert member.retry_at > play.now + 20.0
    play.until(3.0)
    play.sour("c")
    assert play.state("c") is State.READY, "no more than one of three"
    trial = play.pick()
    assert trial.flags & TRIAL
    play.responded(trial)
    play.ended(trial)
    play.sour("c", times=1)
    assert (play.state("b"), play.state("c")) == (State.READY, State.EJECTED)


def test_only_a_request_that_may_be_repeated_serves_as_a_trial() -> None:
    play = Play()
    play.sour("b")
    play.until(5.0)
    assert play.picked() == {"a", "c"}
    assert play.pick(safe=True).flags & TRIAL


def test_who_has_tried_it_is_not_its_trial() -> None:
    play = Play()
    play.sour("b")
    play.until(5.0)
    found = play.try_to_pick(avoid="b")
    assert not isinstance(found, Nobody)
    assert not found.flags & TRIAL


def test_a_trial_that_is_refused_makes_it_failing_and_a_connect_leads_back_to_a_trial() -> None:
    """A frozen process still accepts: a connect lifts FAILING, never EJECTED."""
    play = Play("abcd")
    play.refusing = {"b"}
    play.sour("b")
    play.until(1.0)
    trial = play.pick()
    play.dialled(trial, How.REFUSED)
    play.ended(trial, How.REFUSED)
    assert play.state("b") is State.FAILING
    play.refusing = set()
    play.until(1.5)
    assert play.state("b") is State.EJECTED
    assert play.moves[-1] == "1.5 b: failing -> ejected (connects again, but had answered badly)"
    again = play.pick()
    assert again.flags & TRIAL
    play.responded(again)
    assert play.state("b") is State.READY
    play.ended(again)


def test_zero_means_that_nobody_is_ejected() -> None:
    play = Play(options=Options(consecutive_failures=0))
    play.sour("b", times=100)
    assert play.state("b") is State.READY


def test_a_trial_judged_at_its_head_does_not_make_room_twice() -> None:
    """Its body may go on for minutes; the next trial is under way by then, and stays the only one."""
    play = Play()
    play.sour("b")
    play.until(1.0)
    long_body = play.pick()
    play.responded(long_body, bad=True)
    play.until(3.0)
    second = play.pick()
    assert second.flags & TRIAL
    play.ended(long_body)
    assert not any(play.pick().flags & TRIAL for _ in range(5))
    play.responded(second)
    assert play.state("b") is State.READY


def test_of_two_pods_too_a_connect_does_not_readmit_one_that_answered_badly() -> None:
    play = Play("ab")
    play.refusing = {"b"}
    play.sour("b")
    play.until(1.0)
    trial = play.pick()
    play.dialled(trial, How.REFUSED)
    play.ended(trial, How.REFUSED)
    assert play.state("b") is State.FAILING
    play.refusing = set()
    play.until(1.5)
    assert play.states == {"a": "ready", "b": "ejected"}
