"""Pods that leave and come back: when connections may go there again, and how an ejected pod is tried."""

from __future__ import annotations

from headlessconn.core.claim import Reason
from headlessconn.core.endpoint import How
from tests.core.holder import SHUN, Holder, is_told
from tests.core.play import name_of

LONG = 100.0  # seconds after which all is settled


# ---- pods that come and go -----------------------------------------------------------------------------------------


def flapped(holder: Holder, away: float = 2.0) -> None:
    """ "b" leaves for a moment; its connections are opened again elsewhere."""
    holder.scale("a")
    holder.comply()
    while sum(holder.held.values()) < 4:
        holder.open(1)
    holder.calm(holder.now + away)
    holder.scale("ab")


def test_a_pod_that_left_must_stand_longer_each_time() -> None:
    holder = Holder("ab")
    holder.open(4)
    holder.calm(LONG)
    for times in range(6):
        flapped(holder)
        back, need = holder.now, min(SHUN * 2**times, 600.0)
        seen = len(holder.warmed)
        holder.calm(back + need - 0.01)
        assert holder.held == {"a": 4, "b": 0}
        assert len(holder.warmed) == seen
        holder.calm(back + need)
        assert holder.held == {"a": 3, "b": 1}
        holder.calm(back + need + 15.0)
        assert holder.held == {"a": 2, "b": 2}
        holder.calm(holder.now + 10.0)


def test_what_is_long_ago_is_forgiven() -> None:
    holder = Holder("ab")
    holder.open(4)
    for _ in range(4):
        flapped(holder)
        holder.calm(holder.now + 1.0)
    holder.calm(holder.now + 1300.0)
    assert holder.held == {"a": 2, "b": 2}
    flapped(holder)
    back = holder.now
    holder.calm(back + SHUN + 15.0)
    assert holder.held == {"a": 2, "b": 2}


def test_one_that_is_new_and_flaps_draws_over_once() -> None:
    """Credit is given once. `calm` keeps what it drew over then, as a pool does, until the pod leaves."""
    holder = Holder("a")
    holder.open(4)
    holder.calm(LONG)
    holder.scale("ab")
    holder.calm(holder.now + 10.0)
    assert holder.held == {"a": 3, "b": 1}
    for _ in range(20):
        flapped(holder, away=4.0)
        holder.calm(holder.now + 10.0)
    assert len(holder.warmed) == 1


def test_a_pod_that_flaps_draws_nothing_over() -> None:
    holder = Holder("ab")
    holder.open(4)
    holder.calm(LONG)
    for _ in range(60):
        flapped(holder, away=4.0)
        holder.calm(holder.now + 10.0)
    assert holder.warmed == []
    assert sum(reason is Reason.LEFT for _, _, reason in holder.retired) == 2


def test_a_refusal_is_a_departure_too() -> None:
    holder = Holder("ab")
    holder.open(4)
    holder.calm(LONG)
    holder.refuse("b")
    for conn in [conn for conn, name in holder.where.items() if name == "b"]:
        assert is_told(holder.check_out(conn), Reason.SUSPECT)
        holder.close(conn)
        holder.open(1)
    assert holder.held == {"a": 4, "b": 0}
    holder.calm(LONG + 0.6)
    assert holder.states == {"a": "ready", "b": "ready"}, "its probe passed"
    holder.calm(LONG + SHUN)
    assert holder.held == {"a": 4, "b": 0}
    holder.calm(LONG + SHUN + 0.6)
    assert holder.held == {"a": 3, "b": 1}


def test_when_all_pods_are_others_the_new_ones_need_not_wait() -> None:
    holder = Holder("ab")
    holder.open(4)
    holder.calm(LONG)
    holder.scale("cd")
    holder.comply()
    holder.open_at("c")
    holder.open_at("c")
    holder.open_at("c")
    holder.calm(LONG + 2.0)
    assert holder.held == {"c": 2, "d": 1}


# ---- an ejected pod ------------------------------------------------------------------------------------------------


def test_an_ejected_pod_is_tried_by_moving_one_connection_there() -> None:
    """A process that holds what it needs dials nobody, and would never learn that the pod is well again."""
    holder = Holder("ab")
    holder.open(4)
    holder.calm(LONG)
    holder.sour("b")
    for conn in [conn for conn, name in holder.where.items() if name == "b"]:
        holder.close(conn)
        holder.open(1)
    assert holder.held == {"a": 4, "b": 0}
    holder.until(LONG + 1.5)
    [(_, old, to)] = holder.warmed
    assert to == "b"
    holder.failed(holder.pending(), How.RESET)
    assert holder.state("b").value == "ejected"
    assert holder.held == {"a": 4, "b": 0}
    holder.calm(LONG + 20.0)
    assert holder.state("b").value == "ready"
    assert holder.held == {"a": 3, "b": 1}
    assert old not in holder.where
    holder.calm(LONG + 60.0)
    assert holder.held == {"a": 2, "b": 2}


def test_without_a_holder_who_can_the_next_dial_is_the_trial() -> None:
    holder = Holder("ab")
    holder.open(2, warms=False)
    holder.until(LONG)
    holder.sour("b")
    for conn in [conn for conn, name in holder.where.items() if name == "b"]:
        holder.close(conn)
        holder.open(1, warms=False)
    holder.until(LONG + 5.0)
    [(_, sent, reason)] = holder.retired
    assert reason is Reason.SURPLUS
    holder.close(sent)
    trial = holder.claim()
    assert (trial.trial, name_of(trial.key)) == (True, "b")
    holder.opened(trial)
    assert holder.states == {"a": "ready", "b": "ready"}


def test_a_dial_that_is_given_up_was_no_trial() -> None:
    holder = Holder("ab")
    holder.sour("b")
    holder.until(3.0)
    holder.failed(holder.claim(), How.CANCELLED)
    assert holder.state("b").value == "ejected"
    again = holder.claim()
    assert (again.trial, name_of(again.key)) == (True, "b")
