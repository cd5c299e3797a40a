"""The engine's own rules: picks end once, late answers are dropped, callers wait in turn, an unused target sleeps."""

from math import inf

import pytest

from headlessconn.core.effects import Admit, Ask
from headlessconn.core.endpoint import How
from headlessconn.core.engine import FAR, FRESHEN
from headlessconn.core.pick import ALL_AVOIDED, NOBODY, Pick
from headlessconn.core.refresh import GUARD
from headlessconn.errors import PickEnded
from headlessconn.options import Options
from tests.core.play import Play, no_news, nobody, records

# ---- a pick ends exactly once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [How.OK, How.RESET, How.CANCELLED, How.REFUSED])
def test_a_pick_ends_exactly_once(first: How) -> None:
    play = Play()
    pick = play.pick("b")
    play.ended(pick, first)
    with pytest.raises(PickEnded, match=r"the pick of 10\.0\.0\.2:80 was ended twice, now as 'timed out'"):
        play.ended(pick, How.TIMEOUT)
    assert play.view("b").in_flight == 0  # type: ignore[union-attr]


def test_a_pick_counts_while_it_is_open() -> None:
    play = Play()
    picks = [play.pick("b") for _ in range(3)]
    assert play.view("b").in_flight == 3  # type: ignore[union-attr]
    assert play.engine.picks == 3
    for pick in picks:
        play.ended(pick)
    assert play.view("b").in_flight == 0  # type: ignore[union-attr]
    assert play.engine.picks == 3


def test_an_exchange_that_streams_is_a_connection_and_no_request() -> None:
    play = Play()
    pick = play.pick("b")
    play.responded(pick)
    play.engine.streams(pick)
    play.engine.streams(pick)
    view = play.view("b")
    assert view is not None
    assert (view.in_flight, view.connections) == (0, 1)
    play.ended(pick, How.CANCELLED)
    view = play.view("b")
    assert view is not None
    assert (view.in_flight, view.connections) == (0, 0)
    play.engine.streams(pick)
    assert play.view("b").connections == 0, "it is over"  # type: ignore[union-attr]


def test_latency_is_taken_at_the_head_and_without_the_dial() -> None:
    play = Play()
    pick = play.pick("b")
    play.until(0.8)
    play.dialled(pick, How.OK)
    play.until(0.9)
    play.responded(pick)
    play.until(4.0)
    play.ended(pick)
    play.responded(pick)
    play.until(0.9 + 4.0)
    assert play.view("b").latency == pytest.approx(0.1 * 2.718281828**-0.4)  # type: ignore[union-attr]


def test_a_pick_that_says_nothing_went_well_and_took_as_long_as_it_took() -> None:
    play = Play()
    pick = play.pick("b")
    play.until(0.5)
    play.ended(pick)
    assert play.view("b").latency == pytest.approx(0.5)  # type: ignore[union-attr]


def test_an_attempt_that_failed_late_is_at_least_as_slow_and_never_fast() -> None:
    """A pod that fails fast must not look fast."""
    play = Play()
    play.request("a")
    for name, how in (("b", How.TIMEOUT), ("c", How.CANCELLED)):
        began = play.now
        pick = play.pick(name)
        play.until(began + 1.0)
        play.ended(pick, how)
        assert play.view(name).latency == pytest.approx(1.0)  # type: ignore[union-attr]
    play.request("b", How.RESET)
    assert play.view("b").latency > 0.5  # type: ignore[union-attr, operator]


# ---- looking up -------------------------------------------------------------------------------------------------


def test_a_new_engine_asks_at_once() -> None:
    play = Play(silent=True)
    assert play.asked == [0.0]
    assert play.try_to_pick() is NOBODY


def test_an_answer_to_an_old_question_is_dropped() -> None:
    play = Play(silent=True)
    play.until(3.0 + GUARD)
    [(_, first)] = [(at, effect) for at, effect in play.log if isinstance(effect, Ask)]
    play.until(5.0)  # given up, and asked anew
    assert len(play.asked) == 2
    play.engine.answered(records("abc"), play.now, first.id)
    assert play.states == {}
    play.engine.answered(records("xy"), play.now, first.id + 1)
    assert play.states == {"x": "ready", "y": "ready"}
    play.engine.answered(records("z"), play.now, first.id + 1)
    assert play.states == {"x": "ready", "y": "ready"}, "it has been answered"


def test_a_question_that_is_never_answered_is_given_up_and_asked_again() -> None:
    play = Play(silent=True)
    play.until(4.0)
    view = play.engine.snapshot(play.now)
    assert (view.trouble, view.asking) == ("the look-up never ended", False)
    play.until(60.0)
    assert play.asked[:4] == [0.0, 5.0, 11.0, 19.0], "4 s until given up, then 1, 2, 4 s"


def test_a_source_that_pushes_is_heard_without_having_been_asked() -> None:
    play = Play("ab")
    play.until(1.0)
    play.engine.answered(records("abc"), play.now)
    play.obey()
    assert play.picked() == {"a", "b", "c"}


def test_a_static_set_is_never_asked_for_again() -> None:
    play = Play(says=records("ab", ttl=None))
    play.until(86400.0)
    assert play.asked == [0.0]
    assert play.picked() == {"a", "b"}


def test_who_knows_better_may_hint_from_outside() -> None:
    play = Play()
    play.until(2.0)
    play.engine.hint(play.now)
    play.obey()
    play.until(2.1)
    assert play.asked == [0.0, 2.0]
    play.engine.hint(play.now)
    play.obey()
    play.until(2.9)
    assert len(play.asked) == 2, "no sooner than refresh_min after the last"


def test_hints_of_a_dead_pod_ask_ever_more_seldom() -> None:
    """A dead node stays listed for 40-50 s, and here a pod flaps as long: each of its refused dials is a hint."""
    play = Play("abc", says=records("abc", ttl=60.0), options=Options(refresh_max=60.0))
    play.until(10.0)
    while play.now < 50.0:
        play.refuse("b")  # and its first probe, half a second later, finds it well again
        play.until(play.now + 0.75)
    gaps = [later - earlier for earlier, later in zip(play.asked[1:], play.asked[2:], strict=False)]
    assert play.asked[:2] == [0.0, 10.0]
    assert gaps == [2.0, 4.0, 8.0, 16.0]


# ---- waiting callers --------------------------------------------------------------------------------------------


def test_callers_that_wait_are_admitted_when_there_is_somebody() -> None:
    play = Play(says=nobody())
    assert play.try_to_pick() is NOBODY
    for _ in range(3):
        play.engine.queued(play.now)
        play.obey()
    play.until(1.5)
    assert play.admitted == []
    play.says = records("a")
    play.until(2.0)
    assert play.admitted == [(2.0, 3)]
    for _ in range(3):
        play.engine.left(play.now)
    assert isinstance(play.try_to_pick(), Pick)
    play.until(60.0)
    assert play.admitted == [(2.0, 3)]


def test_while_callers_wait_dns_is_asked_every_second() -> None:
    play = Play(says=nobody(ttl=30.0))
    play.until(100.0)
    play.engine.queued(play.now)
    asked = len(play.asked)
    play.obey()
    play.until(105.0)
    assert play.asked[asked:] == [at for at in play.asked if at >= 100.0]
    gaps = [later - earlier for earlier, later in zip(play.asked[asked:], play.asked[asked + 1 :], strict=False)]
    assert set(gaps) == {1.0}


def test_a_waiting_caller_keeps_a_target_awake() -> None:
    play = Play(says=nobody())
    play.engine.queued(play.now)
    play.until(1000.0)
    assert not play.engine.idle
    play.engine.left(play.now)
    play.until(1100.0)
    assert play.engine.idle


# ---- idleness ---------------------------------------------------------------------------------------------------


def idle_play(pods: str = "abc") -> Play:
    play = Play(pods)
    play.until(120.0)
    assert play.engine.idle
    assert play.asked[-1] == 60.0
    return play


def test_a_target_unused_for_a_minute_stops_asking() -> None:
    play = idle_play()
    play.until(86400.0)
    assert play.asked[-1] == 60.0
    view = play.engine.snapshot(play.now)
    assert (view.idle, view.next_look_in, view.asking) == (True, None, False)
    assert len(view.endpoints) == 3, "what was known is kept"


def test_the_minute_begins_with_the_last_use() -> None:
    play = Play()
    play.until(58.0)
    play.ended(play.pick())
    play.until(118.0)
    assert not play.engine.idle
    play.until(130.0)
    assert play.engine.idle


def test_open_work_keeps_a_target_awake() -> None:
    play = Play()
    pick = play.pick("b")
    play.engine.streams(pick)
    play.until(600.0)
    assert not play.engine.idle
    assert play.asked[-1] == 600.0
    play.ended(pick)
    play.until(700.0)
    assert play.engine.idle


def test_the_next_use_asks_first() -> None:
    play = idle_play()
    play.says = records("xyz")
    assert play.try_to_pick() is NOBODY, "the answer may come at once"
    assert play.asked[-1] == 120.0
    assert play.picked() == {"x", "y", "z"}


def test_the_next_use_waits_a_tenth_of_a_second_and_then_takes_the_old_set() -> None:
    play = idle_play()
    play.says = None
    assert play.try_to_pick() is NOBODY
    play.engine.queued(play.now)
    play.obey()
    play.until(120.0 + FRESHEN - 0.001)
    assert play.try_to_pick() is NOBODY
    assert play.admitted == []
    play.until(120.0 + FRESHEN)
    assert play.admitted == [(120.0 + FRESHEN, 1)]
    play.engine.left(play.now)
    assert play.picked() == {"a", "b", "c"}
    assert FRESHEN == 0.1


@pytest.mark.parametrize("says", [no_news(), nobody()])
def test_an_answer_without_a_set_ends_that_wait_as_well(says: object) -> None:
    play = idle_play()
    play.says = says  # type: ignore[assignment]
    assert play.try_to_pick() is NOBODY
    assert play.picked() == {"a", "b", "c"}


def test_an_idle_target_that_was_empty_just_waits() -> None:
    play = Play(says=nobody())
    play.until(120.0)
    assert play.engine.idle
    play.says = None
    assert play.try_to_pick() is NOBODY
    play.until(121.0)
    assert play.try_to_pick() is NOBODY


def test_whoever_only_looks_wakes_it_too() -> None:
    play = idle_play()
    play.engine.needed(play.now)
    play.obey()
    assert not play.engine.idle
    assert play.asked[-1] == 120.0
    play.until(170.0)
    assert not play.engine.idle


def test_while_idle_nobody_is_probed() -> None:
    play = Play("abc")
    play.refusing = {"b"}
    play.refuse("b")
    play.until(120.0)
    assert play.engine.idle
    probes = len(play.probes("b"))
    play.until(1000.0)
    assert len(play.probes("b")) == probes
    play.try_to_pick()
    play.until(1000.1)
    assert len(play.probes("b")) == probes + 1


# ---- the alarm --------------------------------------------------------------------------------------------------


def test_an_alarm_is_always_set() -> None:
    """So that "never armed" can be told from "nothing to do"."""
    play = idle_play()
    assert play.engine.wakeup_at <= play.now + FAR < inf
    assert Play(says=records("a", ttl=None)).engine.wakeup_at == FAR


def test_waking_it_too_often_does_no_harm() -> None:
    play = Play("abc")
    play.refusing = {"b"}
    play.refuse("b")
    for _ in range(200):
        play.until(play.now + 0.05)
        play.engine.wake(play.now)
        play.engine.wake(play.now)
        play.obey()
    assert play.asked == [0.0, 1.0, 6.0], "the hint, then the TTL"
    assert play.probes("b") == [0.5, 1.5, 3.5, 7.5]


def test_taking_effects_takes_them_all() -> None:
    play = Play(says=nobody())
    play.engine.queued(play.now)
    play.engine.answered(records("ab"), play.now)
    taken = play.engine.take()
    assert any(isinstance(effect, Admit) for effect in taken)
    assert play.engine.outbox == ()
    assert play.engine.take() == ()


def test_size_and_ready() -> None:
    play = Play("abc")
    play.sour("a")
    assert (play.engine.size, play.engine.ready) == (3, 2)
    play.says = nobody()
    play.until(60.0)
    assert (play.engine.size, play.engine.ready) == (0, 0)


def test_all_avoided_is_told_from_nobody() -> None:
    play = Play("ab")
    assert play.try_to_pick(avoid="ab") is ALL_AVOIDED
    play = Play(says=nobody())
    assert play.try_to_pick(avoid="ab") is NOBODY
