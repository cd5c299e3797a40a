"""Who is in the set: whole answers, flaps, drains, "nobody" and silence; with exact times."""

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pick import NOBODY, Nobody
from headlessconn.options import Options
from tests.core.play import Play, no_news, nobody, records


def test_the_first_answer_fills_the_set() -> None:
    play = Play("ab")
    assert play.states == {"a": "ready", "b": "ready"}
    assert sorted(play.moves) == ["0 a: new -> ready (listed)", "0 b: new -> ready (listed)"]


def test_an_unchanged_answer_changes_nothing() -> None:
    play = Play()
    said = len(play.log)
    play.until(20.0)
    assert play.asked == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert len(play.log) == said + 4, "four questions, and nothing else"


def test_an_added_pod_serves_at_once() -> None:
    play = Play("ab")
    play.says = records("abc")
    play.until(4.999)
    assert play.picked() == {"a", "b"}
    play.until(5.0)
    assert play.picked() == {"a", "b", "c"}


def test_a_removed_pod_with_nothing_open_is_gone_at_once() -> None:
    play = Play("abc")
    play.says = records("ac")
    play.until(5.0)
    assert play.states == {"a": "ready", "c": "ready"}
    assert play.moves[-2:] == ["5 b: ready -> draining (no longer listed)", "5 b: draining -> gone (nothing left open)"]
    assert play.forgotten == [(5.0, "b")]


def test_a_removed_pod_gets_no_new_work_and_its_open_work_finishes() -> None:
    play = Play("abc")
    request, stream = play.pick("b"), play.pick("b")
    play.engine.streams(stream)
    play.says = records("ac")
    play.until(5.0)
    view = play.view("b")
    assert view is not None
    assert (view.state, view.in_flight, view.connections) == (State.DRAINING, 1, 1)
    assert play.picked() == {"a", "c"}
    assert (request.is_listed, stream.is_listed) == (False, False), "their connections are not worth keeping"
    play.ended(request)
    play.until(300.0)
    assert play.state("b") is State.DRAINING, "busy work is never cut"
    play.ended(stream)
    assert play.state("b") is State.GONE
    assert play.forgotten == [(5.0, "b")], "told once"


def test_a_flap_returns_with_its_history() -> None:
    play = Play("ab")
    for _ in range(4):
        play.request("b", bad=True)
    pick = play.pick("b")
    play.until(1.0)
    play.responded(pick)
    latency = play.view("b").latency  # type: ignore[union-attr]
    stays = play.pick("b")
    play.says = records("a")
    play.until(5.0)
    assert play.state("b") is State.DRAINING
    play.says = records("ab")
    play.until(10.0)
    view = play.view("b")
    assert view is not None
    assert (view.state, view.why, view.in_flight) == (State.READY, "listed again", 2)
    assert latency is not None
    assert view.latency == pytest.approx(latency * 2.718281828**-0.9)
    play.ended(pick)
    play.ended(stays)
    assert play.picked() == {"a", "b"}
    assert play.forgotten == [(5.0, "b")]


def test_whoever_comes_back_after_being_gone_is_new() -> None:
    play = Play("ab")
    play.sour("b", times=4)
    play.says = records("a")
    play.until(5.0)
    play.says = records("ab")
    play.until(10.0)
    play.sour("b", times=4)
    assert play.state("b") is State.READY, "its four bad answers of before are forgotten"
    assert "10 b: new -> ready (listed)" in play.moves


def test_an_old_pick_of_a_pod_that_is_gone_does_not_touch_its_successor() -> None:
    """The same address, listed again while a request to the old process hangs on."""
    play = Play("ab")
    old, dial = play.pick("b"), play.pick("b")
    play.says = records("a")
    play.until(5.0)
    play.dialled(dial, How.REFUSED)
    assert play.state("b") is State.GONE
    play.says = records("ab")
    play.until(10.0)
    new = play.pick("b")
    play.ended(old, How.TIMEOUT)
    play.ended(dial, How.REFUSED)
    view = play.view("b")
    assert view is not None
    assert (view.state, view.in_flight) == (State.READY, 1)
    play.ended(new)


def test_all_pods_change_at_once() -> None:
    play = Play("abc")
    play.says = records("xyz")
    play.until(5.0)
    assert play.picked() == {"x", "y", "z"}
    assert sorted(play.forgotten) == [(5.0, "a"), (5.0, "b"), (5.0, "c")]


# ---- "nobody": no ready pod, or no such Service -----------------------------------------------------------------


@pytest.mark.parametrize("why", ["NXDOMAIN", "NODATA"])
def test_nobody_is_held_for_ten_seconds_and_then_believed(why: str) -> None:
    play = Play("ab")
    play.says = nobody(why)
    play.until(14.99)
    assert play.picked() == {"a", "b"}
    assert play.engine.snapshot(play.now).held_for == pytest.approx(0.01)
    play.until(15.0)
    assert play.states == {}
    assert play.try_to_pick() is NOBODY
    assert play.forgotten == [(15.0, "a"), (15.0, "b")] or play.forgotten == [(15.0, "b"), (15.0, "a")]


def test_the_hold_counts_from_the_first_nobody() -> None:
    play = Play("ab")
    play.says = nobody()
    play.until(5.0)
    assert play.engine.snapshot(play.now).held_for == 10.0
    play.until(14.0)
    assert len(play.asked) > 5, "asked again and again meanwhile"
    assert play.engine.snapshot(play.now).held_for == pytest.approx(1.0)


def test_a_set_comes_back_during_the_hold() -> None:
    play = Play("ab")
    play.says = nobody()
    play.until(8.0)
    play.says = records("ab")
    play.until(60.0)
    assert play.states == {"a": "ready", "b": "ready"}
    assert play.forgotten == []
    play.says = nobody()
    play.until(65.0)
    held_since = 65.0
    play.until(held_since + 9.9)
    assert play.states == {"a": "ready", "b": "ready"}, "a new hold, and a whole one"


def test_pods_that_already_refuse_are_not_held() -> None:
    play = Play("abc")
    play.refusing = {"b"}
    play.until(4.0)
    play.refuse("b")
    play.says = nobody()
    play.until(5.0)
    assert play.states == {"a": "ready", "c": "ready"}


def test_a_pod_that_answers_badly_is_held_like_others() -> None:
    play = Play("abc")
    play.sour("b")
    play.says = nobody()
    play.until(5.0)
    assert play.states == {"a": "ready", "b": "ejected", "c": "ready"}


def test_when_all_held_pods_refuse_the_set_is_empty() -> None:
    play = Play("ab")
    play.says = nobody()
    play.until(5.0)
    play.refuse("a")
    play.refuse("b")
    assert play.states == {}
    assert play.engine.snapshot(play.now).held_for is None
    play.until(60.0)
    assert play.try_to_pick() is NOBODY


def test_open_work_on_held_pods_finishes_after_the_hold() -> None:
    play = Play("ab")
    pick = play.pick("b")
    play.says = nobody()
    play.until(20.0)
    assert play.states == {"b": "draining"}
    assert play.try_to_pick() is NOBODY
    play.ended(pick)
    assert play.states == {}


def test_zero_believes_nobody_at_once() -> None:
    play = Play("ab", options=Options(hold_nx=0))
    play.says = nobody()
    play.until(5.0)
    assert play.states == {}


# ---- silence of DNS ---------------------------------------------------------------------------------------------


def test_no_news_never_empties_a_set() -> None:
    play = Play("ab")
    play.says = no_news("SERVFAIL")
    play.until(3600.0)
    assert play.states == {"a": "ready", "b": "ready"}
    assert play.engine.snapshot(play.now).trouble == "SERVFAIL"


def test_while_dns_is_silent_a_pod_that_fails_for_a_minute_is_gone() -> None:
    play = Play("abc")
    play.refusing = {"b"}
    play.says = no_news()
    play.until(10.0)
    play.pick("a")  # in use all the while, or nobody would ask
    play.refuse("b")
    play.until(69.0)
    assert play.state("b") is State.FAILING
    play.until(76.0)
    assert play.states == {"a": "ready", "c": "ready"}
    assert play.moves[-1].endswith("b: failing -> gone (failing for as long as DNS is silent)")
    play.says = records("abc")
    play.until(85.0)
    assert play.state("b") is State.READY, "an answer lists it: it is in again"


def test_it_is_not_gone_while_dns_answers() -> None:
    play = Play("abc")
    play.refusing = {"b"}
    play.until(10.0)
    play.pick("a")
    play.refuse("b")
    play.until(200.0)
    assert play.state("b") is State.FAILING, "DNS lists it, and says so every few seconds"


def test_the_last_one_is_kept() -> None:
    play = Play("ab")
    play.refusing = {"a", "b"}
    play.says = no_news()
    for at in range(1, 600, 30):  # in use all the while, or nobody would ask
        play.until(float(at))
        for name in play.listed:
            play.refuse(name)
    assert list(play.states.values()) == ["failing"]
    assert not isinstance(play.try_to_pick(), Nobody), "better a pod that failed than none"


def test_a_restart_of_the_failure_restarts_its_minute() -> None:
    play = Play("abc")
    play.says = no_news()
    play.refusing = {"b"}
    play.until(5.0)
    play.pick("a")
    play.refuse("b")
    play.until(50.0)
    play.refusing = set()
    play.until(57.0)
    assert play.state("b") is State.READY
    play.refusing = {"b"}
    play.refuse("b")
    play.until(115.0)
    assert play.state("b") is State.FAILING
    play.until(125.0)
    assert play.state("b") is State.GONE


# ---- avoiding ---------------------------------------------------------------------------------------------------


def test_what_was_tried_is_avoided_tier_by_tier() -> None:
    play = Play("abcd")
    play.refusing = {"d"}
    play.refuse("d")
    play.sour("c")
    order = []
    tried = ""
    while not isinstance(found := play.try_to_pick(avoid=tried, safe=False), Nobody):
        name = chr(found.key[3] + 96)
        order.append(name)
        tried += name
    assert sorted(order[:2]) == ["a", "b"], "the ready ones first"
    assert order[2:] == ["c", "d"], "then who answers badly, then who refuses"
    assert found.all_avoided
    assert not NOBODY.all_avoided
