"""Where connections go, who counts them, and what becomes of those whose pod leaves or is in doubt."""

from __future__ import annotations

import pytest

from headlessconn.core.claim import KEEP, Reason, Retire
from headlessconn.core.endpoint import How
from headlessconn.core.pick import ALL_AVOIDED, NOBODY
from headlessconn.core.placement import GRACE
from headlessconn.core.quota import quotas, roomiest, surplus
from headlessconn.errors import PickEnded
from headlessconn.options import Options
from tests.core.holder import Holder, is_told, order
from tests.core.play import nobody, records


def spread(holder: Holder) -> int:
    return max(holder.held.values()) - min(holder.held.values())


# ---- where new ones go -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pods", ["a", "ab", "abc", "abcdefg"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 20])
def test_dials_at_once_spread(pods: str, count: int) -> None:
    """Not one of them is open yet when the next is placed."""
    holder = Holder(pods)
    claims = [holder.claim() for _ in range(count)]
    assert sum(holder.held.values()) == count
    assert spread(holder) <= 1
    for claim in claims:
        holder.opened(claim)
    assert sum(holder.held.values()) == count
    assert spread(holder) <= 1


def test_a_dial_that_failed_makes_room_again() -> None:
    holder = Holder("ab")
    first, second = holder.claim(), holder.claim()
    holder.failed(first, How.CANCELLED)
    assert sum(holder.held.values()) == 1
    third = holder.claim()
    assert third.key == first.key
    assert third.key != second.key


def test_one_that_is_lost_is_opened_where_it_lacks() -> None:
    holder = Holder("abc")
    conns = holder.open(9)
    lost = [conn for conn in conns if holder.where[conn] == "b"]
    for conn in lost:
        holder.close(conn)
    assert {holder.where[conn] for conn in holder.open(3)} == {"b"}


def test_all_holders_are_counted_together() -> None:
    """Two pools of one process: each alone would put its only connection on the first in rank."""
    holder = Holder("ab")
    pool, reader = holder.open(1), holder.open(1, pushes=True)
    assert holder.where[pool[0]] != holder.where[reader[0]]


def test_streams_of_requests_decide_between_equals() -> None:
    """Between equals only: the share of placed ones does not shrink by what nobody can move."""
    first, second, third = [*order("abc")]
    holder = Holder("abc")
    for _ in range(2):
        holder.open_at(first)
    holder.engine.streams(holder.pick(second))
    assert [holder.where[conn] for conn in holder.open(2)] == [third, second]
    assert holder.where[holder.open(1)[0]] == second, "the fifth of three is the second's"


def test_avoided_ones_are_not_given_again() -> None:
    holder = Holder("abc")
    assert {holder.claim("ab").endpoint.address for _ in range(5)} == {"10.0.0.3"}
    assert holder.place("abc") is ALL_AVOIDED


def test_when_there_is_nobody_the_caller_waits_for_the_next_answer() -> None:
    holder = Holder(says=nobody())
    assert holder.place() is NOBODY
    assert holder.place("a") is NOBODY
    holder.engine.queued(holder.now)
    holder.says = records("a")
    holder.until(2.0)
    assert [count for _, count in holder.admitted][-1] == 1
    assert holder.claim().endpoint.address == "10.0.0.1"


def test_those_in_doubt_get_none_while_others_are_well() -> None:
    holder = Holder("abc")
    holder.refusing = {"b"}
    holder.refuse("b")
    holder.sour("c")
    assert holder.states == {"a": "ready", "b": "failing", "c": "ejected"}
    assert {holder.where[conn] for conn in holder.open(3)} == {"a"}


def test_who_answers_badly_comes_before_who_refuses() -> None:
    holder = Holder("abc")
    holder.refusing = {"b", "a"}
    holder.refuse("b")
    holder.sour("c")
    holder.refuse("a")
    assert holder.states == {"a": "failing", "b": "failing", "c": "ejected"}
    assert {holder.where[conn] for conn in holder.open(3)} == {"c"}
    assert holder.claim("c").endpoint.address in ("10.0.0.1", "10.0.0.2")


def test_a_target_with_connections_is_never_idle() -> None:
    holder = Holder("ab", options=Options(idle_after=10.0))
    [conn] = holder.open(1)
    holder.until(300.0)
    assert not holder.engine.idle
    assert holder.asked[-1] > 290.0
    holder.close(conn)
    holder.until(330.0)
    assert holder.engine.idle


def test_an_idle_target_asks_first() -> None:
    holder = Holder("ab", options=Options(idle_after=10.0))
    holder.until(60.0)
    assert holder.engine.idle
    holder.says = None
    assert holder.place() is NOBODY
    assert holder.asked[-1] == 60.0
    holder.until(60.11)
    assert holder.claim().endpoint.address


# ---- what a dial says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [How.REFUSED, How.UNREACHABLE, How.DIAL_TIMEOUT])
def test_no_connection_is_evidence_and_a_hint(how: How) -> None:
    holder = Holder("abc")
    holder.mute = set("abc")
    holder.until(3.0)
    claim = holder.claim()
    holder.failed(claim, how)
    assert holder.state(holder_name(claim.endpoint.address)).value == "failing"
    holder.until(3.01)
    assert holder.asked[-1] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("how", [How.CANCELLED, How.LOCAL, How.CALLER])
def test_our_own_trouble_is_none(how: How) -> None:
    holder = Holder("abc")
    holder.until(3.0)
    for _ in range(9):
        holder.failed(holder.claim(), how)
    holder.until(3.5)
    assert set(holder.states.values()) == {"ready"}
    assert holder.asked[-1] < 3.0
    assert sum(holder.held.values()) == 0


@pytest.mark.parametrize("how", [How.RESET, How.TIMEOUT, How.BAD_STATUS])
def test_logins_that_end_badly_eject(how: How) -> None:
    """The pod accepts, and then says nothing: a frozen process does."""
    holder = Holder("ab")
    for _ in range(5):
        claim = holder.claim("a")
        holder.until(holder.now + 0.01)
        holder.failed(claim, how)
    assert holder.states == {"a": "ready", "b": "ejected"}


def test_a_login_ends_the_row() -> None:
    holder = Holder("ab")
    for _ in range(3):
        for _ in range(4):
            holder.failed(holder.claim("a"), How.RESET)
        holder.open_at("b")
    assert holder.states == {"a": "ready", "b": "ready"}


def test_a_pod_that_lets_us_log_in_and_breaks_every_connection_in_use_is_ejected() -> None:
    holder = Holder("ab")
    for _ in range(5):
        holder.close(holder.open_at("b", idle=False), How.RESET)
    assert holder.states == {"a": "ready", "b": "ejected"}


def test_a_use_that_went_well_ends_the_row() -> None:
    holder = Holder("ab")
    good = holder.open_at("b")
    for _ in range(12):
        holder.close(holder.open_at("b", idle=False), How.RESET)
        holder.check_out(good)
        holder.check_in(good)
    assert holder.states == {"a": "ready", "b": "ready"}


def test_a_dial_that_is_older_than_a_success_says_nothing() -> None:
    holder = Holder("a")
    old = holder.claim()
    holder.until(1.0)
    holder.open(1)
    holder.failed(old, How.DIAL_TIMEOUT)
    assert holder.states == {"a": "ready"}


def test_what_our_own_stall_shows_says_nothing() -> None:
    holder = Holder("ab")
    claim, other = holder.claim("a"), holder.claim("a")
    holder.until(2.0)
    holder.engine.overslept(1.0, holder.now)
    holder.failed(claim, How.DIAL_TIMEOUT)
    assert holder.state("b").value == "ready"
    holder.failed(other, How.REFUSED)
    assert holder.state("b").value == "failing", "a refusal is the kernel's word"


def test_a_connection_lifts_failing() -> None:
    holder = Holder("a")
    holder.mute = {"a"}
    holder.refuse("a")
    assert holder.states == {"a": "failing"}
    holder.open(1)
    assert holder.states == {"a": "ready"}


def test_a_claim_ends_once() -> None:
    holder = Holder("a")
    claim = holder.claim()
    holder.opened(claim)
    with pytest.raises(PickEnded, match=r"10\.0\.0\.1:80 was ended twice"):
        holder.failed(claim, How.REFUSED)
    with pytest.raises(PickEnded):
        holder.opened(claim)
    assert holder.held == {"a": 1}


# ---- how connections end -------------------------------------------------------------------------------------------


def test_closing_twice_is_harmless_and_anything_else_is_not() -> None:
    holder = Holder("a")
    [conn] = holder.open(1)
    holder.close(conn, How.RESET)
    holder.close(conn)
    assert holder.held == {"a": 0}
    for question in (holder.verdict, holder.check_in, holder.check_out):
        with pytest.raises(PickEnded, match="was closed before"):
            question(conn)


@pytest.mark.parametrize(("busy", "how", "state"), [(True, How.RESET, "ejected"), (True, How.TIMEOUT, "ejected"),
                                                    (False, How.RESET, "ready"), (True, How.RESET_REUSED, "ready"),
                                                    (True, How.OK, "ready"), (True, How.CALLER, "ready")])  # fmt: skip
def test_busy_ones_that_break_are_evidence(busy: bool, how: How, state: str) -> None:
    """An idle one may have been closed for being idle."""
    holder = Holder("ab")
    conns = [holder.open_at("b", idle=not busy) for _ in range(5)]
    holder.until(3.0)
    for conn in conns:
        holder.close(conn, how)
    assert holder.state("b").value == state
    holder.until(3.1)
    hinted = how in (How.RESET, How.TIMEOUT)
    assert (holder.asked[-1] >= 3.0) == hinted


def test_broken_ones_during_our_stall_are_none() -> None:
    holder = Holder("ab")
    conns = [holder.open_at("b", idle=False) for _ in range(5)]
    holder.until(3.0)
    holder.engine.overslept(1.0, holder.now)
    for conn in conns:
        holder.close(conn, How.TIMEOUT)
    assert holder.state("b").value == "ready"


# ---- pods that leave -----------------------------------------------------------------------------------------------


def test_when_a_pod_leaves_idle_ones_go_at_once_and_busy_ones_at_check_in() -> None:
    holder = Holder("ab")
    idle, busy = holder.open_at("b"), holder.open_at("b", idle=False)
    pushing = holder.open_at("b", pushes=True)
    kept = [holder.open_at("a") for _ in range(3)]
    holder.until(7.0)
    holder.scale("a")
    assert holder.retired == [(7.0, idle, Reason.LEFT), (7.0, pushing, Reason.LEFT)]
    holder.until(20.0)
    assert all(holder.check_in(conn) is KEEP for conn in kept)
    assert holder.check_in(busy) == Retire(busy, Reason.LEFT, 7.0 + GRACE)
    assert len(holder.retired) == 2, "who asks is not told besides"
    assert holder.check_out(idle) == Retire(idle, Reason.LEFT, 7.0 + GRACE), "it stays said"
    assert holder.state("b").value == "draining"
    for conn in (idle, busy, pushing):
        holder.close(conn)
    assert holder.state("b").value == "gone"
    assert holder.held == {"a": 3}


def test_who_checks_out_is_told_too() -> None:
    holder = Holder("ab")
    conn = holder.open_at("b", idle=False)
    holder.scale("a")
    assert is_told(holder.check_out(conn), Reason.LEFT)


def test_a_pod_that_is_back_in_time_keeps_its_busy_ones() -> None:
    holder = Holder("ab")
    busy = holder.open_at("b", idle=False)
    holder.scale("a")
    holder.until(3.0)
    holder.scale("ab")
    assert holder.check_in(busy) is KEEP


def test_one_that_was_dialled_while_its_pod_left_is_told_at_once() -> None:
    holder = Holder("ab")
    quiet, pushing = holder.claim("a"), holder.claim("a")
    holder.scale("a")
    conn = holder.opened(pushing, pushes=True)
    assert holder.retired == [(0.0, conn, Reason.LEFT)]
    assert is_told(holder.check_in(holder.opened(quiet, idle=False)), Reason.LEFT)


def test_a_pod_that_left_and_refuses_is_gone_and_its_connections_may_still_end() -> None:
    holder = Holder("ab")
    busy = holder.open_at("b", idle=False)
    claim = holder.claim("a")
    holder.scale("a")
    holder.failed(claim, How.REFUSED)
    assert holder.states == {"a": "ready"}
    assert is_told(holder.check_in(busy), Reason.LEFT)
    holder.close(busy)
    assert holder.held == {"a": 0}


# ---- pods in doubt -------------------------------------------------------------------------------------------------


def test_those_on_a_pod_in_doubt_go_when_they_are_asked_for() -> None:
    """Not before: the doubt may be over by then, and sixteen dials for one refusal are a storm."""
    holder = Holder("ab")
    conns = [holder.open_at("b"), holder.open_at("b")]
    holder.mute = {"b"}
    holder.refuse("b")
    assert holder.state("b").value == "failing"
    assert holder.retired == []
    assert is_told(holder.check_out(conns[0]), Reason.SUSPECT)
    holder.open_at("b")  # it connects again
    assert holder.check_out(conns[1]) is KEEP


def test_they_stay_where_there_is_no_better_pod() -> None:
    """A database has one primary; replacing its connections by others to the same address helps nobody."""
    holder = Holder("a")
    conns = holder.open(16)
    holder.mute = {"a"}
    holder.refuse("a")
    assert holder.states == {"a": "failing"}
    assert all(holder.check_out(conn) is KEEP for conn in conns)
    assert all(holder.check_in(conn) is KEEP for conn in conns)


# ---- the arithmetic ------------------------------------------------------------------------------------------------


class _Held:
    def __init__(self, live: int) -> None:
        self.live = live


def test_quotas_add_up() -> None:
    for total in range(40):
        for members in range(1, 9):
            each, more = quotas(total, members)
            assert each * members + more == total
            assert 0 <= more < members


def test_filling_by_room_never_leaves_a_surplus() -> None:
    """By either way of reckoning: what was placed need not be moved."""
    holder = Holder("abcdefg")
    order = list(holder.engine._set.members.values())
    places = {member: place for place, member in enumerate(order)}
    held = {member: _Held(0) for member in order}
    for _ in range(40):
        found = roomiest(held, order)
        assert found is not None
        held[found].live += 1
        assert surplus(held, places, by_rank=True) == []
        assert surplus(held, places, by_rank=False) == []


def test_surplus_is_the_least_that_must_move() -> None:
    members = list(Holder("abc").engine._set.members.values())
    places = {member: place for place, member in enumerate(members)}

    def over(*live: int, by_rank: bool) -> list[int]:
        held = {member: _Held(count) for member, count in zip(members, live, strict=True) if count}
        found = dict(surplus(held, places, by_rank))
        return [found.get(member, 0) for member in members]

    assert over(1, 1, 2, by_rank=False) == [0, 0, 0], "a spread of one is none"
    assert over(1, 1, 2, by_rank=True) == [0, 0, 1], "but the remainder is the first one's"
    assert over(4, 0, 0, by_rank=False) == [2, 0, 0]
    assert over(0, 0, 1, by_rank=True) == [0, 0, 1]
    assert over(0, 3, 3, by_rank=False) == [0, 1, 1]
    assert over(0, 0, 0, by_rank=True) == [0, 0, 0]


def holder_name(address: str) -> str:
    return chr(int(address.rpartition(".")[2]) + 96)
