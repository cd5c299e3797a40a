"""Which connections move when the set has changed, in which order, and when; and which do not."""

from __future__ import annotations

import itertools
import random

import pytest

from headlessconn.core.claim import KEEP, Reason, Retire
from headlessconn.core.endpoint import How
from headlessconn.core.engine import Engine
from headlessconn.core.placement import AGAIN, EXPECTED, YOUNG
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.holder import Holder, is_told, order
from tests.core.play import TARGET, name_of, records

OUT = 100.0  # when the pods become more


def scaled_out(count: int = 4, before: str = "ab", after: str = "abc", **how: bool) -> tuple[Holder, list[int]]:
    """Connections that have been there for long, and a pod that is new."""
    holder = Holder(before)
    conns = holder.open(count, **how)
    holder.until(OUT)
    holder.scale(after)
    return holder, conns


# ---- how a move goes -----------------------------------------------------------------------------------------------


def test_a_new_pod_gets_its_share() -> None:
    holder, _ = scaled_out(6)
    holder.calm(OUT)
    assert holder.held == {"a": 3, "b": 2, "c": 1}, "one that nobody has seen before need not prove itself"
    holder.calm(OUT + 30.0)
    assert holder.held == {"a": 2, "b": 2, "c": 2}
    assert [at for at, _, _ in holder.warmed] == [OUT, OUT + 15.0]


def test_the_replacement_is_opened_first() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, to)] = holder.warmed
    assert (to, holder.retired) == ("b", [])
    assert holder.held == {"a": 2, "b": 1}, "counted while it is dialled"
    assert holder.check_in(old) is KEEP
    holder.until(OUT + 2.0)
    new = holder.opened(holder.pending())
    assert holder.retired == [(OUT + 2.0, old, Reason.SURPLUS)]
    assert new != old
    holder.close(old)
    assert holder.held == {"a": 1, "b": 1}


def test_one_that_is_taken_meanwhile_goes_at_its_check_in() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, _)] = holder.warmed
    assert holder.check_out(old) is KEEP
    holder.opened(holder.pending())
    assert holder.retired == []
    holder.until(OUT + 50.0)
    assert holder.check_in(old) == Retire(old, Reason.SURPLUS, OUT + 30.0)
    assert holder.retired == []


def test_idle_ones_go_first_then_those_that_never_check_in_and_the_oldest_of_each() -> None:
    holder = Holder("a")
    pushing = [holder.opened(holder.claim(), pushes=True) for _ in range(2)]
    busy = [holder.opened(holder.claim(), idle=False) for _ in range(2)]
    idle = [holder.opened(holder.claim()) for _ in range(2)]
    for conn in reversed(idle):
        holder.check_out(conn)
        holder.check_in(conn)
    holder.until(OUT)
    holder.scale("abc")
    holder.until(OUT + 30.0)
    assert [old for _, old, _ in holder.warmed] == [*idle, *pushing]
    assert busy


def test_busy_ones_move_when_they_are_checked_in_and_not_when_they_are_taken() -> None:
    holder, conns = scaled_out(4, "a", "ab", idle=False)
    holder.until(OUT + 60.0)
    assert holder.warmed == []
    assert holder.check_out(conns[0]) is KEEP
    assert holder.warmed == []
    assert holder.check_in(conns[2]) is KEEP, "it is idle until its replacement is there"
    assert holder.check_in(conns[1]) is KEEP
    assert holder.check_in(conns[3]) is KEEP
    assert [old for _, old, _ in holder.warmed] == [conns[2], conns[1]]
    holder.comply()
    assert holder.held == {"a": 2, "b": 2}
    assert holder.check_in(conns[0]) is KEEP


def test_a_verdict_moves_where_nothing_is_said_of_idleness() -> None:
    holder, conns = scaled_out(4, "a", "ab", idle=False, warms=False)
    holder.until(OUT + 60.0)
    assert [is_told(holder.verdict(conn), Reason.SURPLUS) for conn in conns] == [True, True, False, False]
    assert is_told(holder.verdict(conns[0]), Reason.SURPLUS)


def test_a_holder_that_cannot_open_a_replacement_is_told_at_once() -> None:
    holder, conns = scaled_out(2, "a", "ab", warms=False)
    holder.until(OUT)
    assert holder.warmed == []
    assert holder.retired == [(OUT, conns[0], Reason.SURPLUS)]
    assert holder.held == {"a": 2, "b": 0}
    assert holder.where[holder.open(1)[0]] == "b"
    holder.close(conns[0])
    assert holder.held == {"a": 1, "b": 1}


@pytest.mark.parametrize("warms", [True, False])
def test_who_has_moved_stays_for_a_while(warms: bool) -> None:
    """Two rollouts in a row must not drive the same connections before them; but who has nowhere to stay goes."""
    holder, _ = scaled_out(2, "a", "ab", warms=warms)
    holder.until(OUT)
    moved = holder.opened(holder.pending() if warms else holder.claim(), warms=warms)
    assert holder.where[moved] == "b"
    for conn in [conn for conn in holder.where if conn != moved]:
        holder.close(conn)
    holder.until(OUT + 1.0)
    late = [holder.open_at("b", warms=warms) for _ in range(2)]
    holder.until(OUT + 1.9)
    holder.says = records("abc")  # so that "b" holds three where one is its share
    holder.engine.answered(holder.says, holder.now)
    holder.obey()
    holder.until(OUT + 29.0)
    gone = {conn for _, conn, _ in holder.warmed[1:]} | {conn for _, conn, _ in holder.retired if conn not in (1, 2)}
    assert gone == set(late)
    holder.scale("a")
    assert is_told(holder.check_in(moved), Reason.LEFT)


def test_a_young_one_is_not_moved() -> None:
    holder = Holder("ab")
    holder.until(10.0)
    conns = [holder.open_at("a") for _ in range(4)]
    holder.until(10.0 + YOUNG - 0.001)
    assert holder.warmed == []
    holder.until(10.0 + YOUNG)
    assert [(at, conn) for at, conn, _ in holder.warmed] == [(10.0 + YOUNG, conns[0]), (10.0 + YOUNG, conns[1])]


def test_the_place_of_one_that_was_sent_away_is_kept_for_a_while() -> None:
    """Its holder dials when it needs one; until then what is left must not look like another surplus."""
    holder, conns = scaled_out(2, "a", "ab", warms=False)
    holder.until(OUT)
    holder.close(conns[0])
    assert (holder.held, holder.engine.snapshot(holder.now).surplus) == ({"a": 1, "b": 0}, 0)
    holder.until(OUT + EXPECTED - 0.1)
    in_time = holder.claim()
    assert (name_of(in_time.key), in_time.moved) == ("b", True)
    holder.failed(in_time, How.CANCELLED)
    assert not holder.claim().moved, "only one was sent away"

    holder, conns = scaled_out(2, "a", "ab", warms=False)
    holder.until(OUT)
    holder.close(conns[0])
    holder.until(OUT + EXPECTED)
    assert len(holder.retired) == 1
    assert not holder.claim().moved


# ---- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_replacement_that_fails_is_tried_again_and_the_old_one_stays() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, _)] = holder.warmed
    holder.failed(holder.pending(), How.CANCELLED)
    assert holder.held == {"a": 2, "b": 0}
    assert holder.retired == []
    assert holder.check_out(old) is KEEP
    assert holder.check_in(old) is KEEP
    holder.calm(OUT + AGAIN - 0.001)
    assert len(holder.warmed) == 1
    holder.calm(OUT + AGAIN)
    assert holder.held == {"a": 1, "b": 1}


def test_a_new_pod_that_refuses_gets_nothing() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    holder.refusing = {"b"}
    holder.failed(holder.pending(), How.REFUSED)
    holder.calm(OUT + 200.0)
    assert len(holder.warmed) == 1
    assert holder.held == {"a": 2, "b": 0}
    holder.refusing = set()
    holder.calm(OUT + 300.0)
    assert holder.held == {"a": 1, "b": 1}


def test_a_pod_that_leaves_while_the_replacement_is_dialled() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, _)] = holder.warmed
    holder.scale("a")
    new = holder.opened(holder.pending(), idle=False)
    assert holder.retired == []
    assert holder.check_in(old) is KEEP
    assert is_told(holder.check_in(new), Reason.LEFT)


def test_one_that_is_closed_while_its_replacement_is_dialled() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, _)] = holder.warmed
    claim = holder.pending()
    holder.close(old)
    assert claim.replaces is None
    holder.opened(claim)
    assert holder.retired == []
    assert holder.held == {"a": 1, "b": 1}


def test_one_whose_pod_leaves_while_its_replacement_is_dialled() -> None:
    holder, _ = scaled_out(2, "a", "ab")
    holder.until(OUT)
    [(_, old, _)] = holder.warmed
    holder.scale("b")
    assert (OUT, old, Reason.LEFT) in holder.retired
    told = len(holder.retired)
    holder.opened(holder.pending())
    assert len(holder.retired) == told, "once is enough"


# ---- when ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.25, 0.999])
def test_moves_are_spread_over_a_time(value: float) -> None:
    dice = Loaded()
    holder = Holder("a", dice=dice, options=Options(rebalance_over=40.0))
    holder.open(2)
    holder.until(OUT)
    dice.value = value
    holder.scale("ab")
    if value:
        view = holder.engine.snapshot(holder.now)
        assert (view.surplus, view.moving) == (1, 0)
        assert view.next_move_in == pytest.approx(40.0 * value)
    holder.until(OUT + 40.0 * value)
    assert [at for at, _, _ in holder.warmed] == [pytest.approx(OUT + 40.0 * value)]
    view = holder.engine.snapshot(holder.now)
    assert (view.surplus, view.moving, view.next_move_in) == (0, 1, None)


def test_each_move_has_a_time_of_its_own() -> None:
    holder = Holder("a")
    holder.engine = engine = Engine(TARGET, Options(), random.Random(5), 0.0)
    holder.until(0.0)
    holder.open(200)
    holder.until(OUT)
    holder.scale("ab")
    holder.calm(OUT + 60.0)
    at = [at - OUT for at, _, _ in holder.warmed]
    assert len(at) == 100
    assert 0.0 <= min(at) < 2.0
    assert 28.0 < max(at) <= 30.0
    by_second = [sum(second <= moved < second + 1.0 for moved in at) for second in range(30)]
    assert max(by_second) <= 10, "a tenth of what comes, in any second"
    assert engine.snapshot(holder.now).surplus == 0


def test_those_of_one_process_come_at_even_distances() -> None:
    """A new pod is seen to work soon, and to have its share late."""
    dice = Loaded(0.0)
    holder = Holder("a", dice=dice)
    holder.open(10)
    holder.until(OUT)
    dice.value = 0.5
    holder.scale("ab")
    holder.calm(OUT + 30.0)
    assert [at - OUT for at, _, _ in holder.warmed] == [3.0, 9.0, 15.0, 21.0, 27.0]


def test_without_a_time_all_move_at_once() -> None:
    holder = Holder("a", options=Options(rebalance_over=0.0))
    holder.open(10)
    holder.until(OUT)
    holder.scale("ab")
    holder.calm(OUT)
    assert holder.held == {"a": 5, "b": 5}


# ---- whether -------------------------------------------------------------------------------------------------------


def test_of_processes_with_one_connection_half_move_when_the_pods_double() -> None:
    """Each has nothing above any ceiling. Its own order decides."""
    moved = 0
    for seed in range(200):
        holder = Holder("abc")
        holder.engine = Engine(TARGET, Options(), random.Random(seed), 0.0)
        holder.log.clear()
        holder.until(0.0)
        holder.open(1)
        holder.until(OUT)
        holder.scale("abcdef")
        holder.calm(OUT + 60.0)
        assert sum(holder.held.values()) == 1
        for _, old, to in holder.warmed:
            assert to in "def"
            assert old == 1
        moved += len(holder.warmed)
    assert moved == pytest.approx(100, abs=20)


@pytest.mark.parametrize(("before", "after"), [*itertools.permutations(["ab", "abc", "abcdef", "defghi", "bdf"], 2)])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 16])
def test_no_more_than_had_to(before: str, after: str, count: int) -> None:
    """Who moves, moves to a pod that is new, and only from where there is too much; then all is even."""
    holder = Holder(before)
    holder.open(count)
    holder.until(OUT)
    holder.scale(after)
    lost = 0
    while count > sum(holder.held.get(name, 0) for name in after):  # the pool fills up what it lost
        for _, conn, reason in holder.retired:
            if conn in holder.where:
                assert (reason, holder.where[conn] in after) == (Reason.LEFT, False)
                holder.close(conn)
        holder.open(1)
        lost += 1
    holder.calm(OUT + 60.0)
    held = [holder.held[name] for name in after]
    assert sum(held) == count
    assert max(held) - min(held) <= 1
    if set(after) < set(before):
        assert holder.warmed == [], "what is left was even"
    else:
        new = set(after) - set(before)
        assert all(to in new for _, _, to in holder.warmed)
        assert lost + len(holder.warmed) >= sum(holder.held[name] for name in new)
        if set(after) > set(before):
            assert len(holder.warmed) == sum(holder.held[name] for name in new)


def test_a_spread_of_one_by_mere_closings_moves_nothing() -> None:
    """A pool that grows and shrinks with its load must not redial for it."""
    holder = Holder("abc")
    conns = holder.open(6)
    holder.until(10.0)
    first = order("abc")[0]
    for conn in conns:
        if holder.where[conn] == first:
            holder.close(conn)
            break
    holder.calm(200.0)
    assert holder.held[first] == 1
    assert holder.warmed == []


def test_more_than_that_is_made_even_in_time() -> None:
    dice = Loaded(0.5)
    holder = Holder("ab", dice=dice)
    conns = [holder.open_at("a") for _ in range(4)] + [holder.open_at("b") for _ in range(4)]
    holder.until(10.0)
    for conn in conns[4:]:
        holder.close(conn)
    holder.until(20.0)
    assert holder.warmed == []
    assert holder.engine.snapshot(20.0).surplus == 2
    holder.open(1)
    assert holder.engine.snapshot(20.0).surplus == 1, "a new one that goes there makes a move needless"
    holder.calm(26.0)
    assert holder.held == {"a": 3, "b": 2}
    assert len(holder.warmed) == 1
