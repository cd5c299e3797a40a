"""A pool's machine: who gets a connection, and when one is opened for him. Times are exact."""

from itertools import pairwise

import pytest

from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.pooling import Phase, PoolRules, Slot, Waiter, spelled
from headlessconn.errors import ClosedError, OptionError
from tests.core.pool_world import World, WrongPassword, key, name

# ---- who gets one ------------------------------------------------------------------------------------------------


def test_a_free_connection_is_handed_out_at_once_and_nothing_else_happens() -> None:
    world = World()
    [slot] = world.fill(1)
    world.give_back(slot)
    assert world.take() is slot
    assert world.what() == ["open a"]
    assert slot.taken_by == ("shop/orders.py", 7)


def test_callers_are_served_in_the_order_in_which_they_came() -> None:
    world = World(max_size=1)
    [slot] = world.fill(1)
    first, second, third = world.take(), world.take(), world.take()
    assert not world.served.keys() & {first, second, third}
    for waiter in (first, second, third):
        world.give_back(slot)
        assert list(world.served)[-1] is waiter
    assert world.view.waits == 4
    assert world.view.longest_wait == pytest.approx(0.05)


def test_a_newcomer_does_not_overtake_those_who_wait() -> None:
    world = World(max_size=1)
    [slot] = world.fill(1)
    waiter = world.take()
    world.pool.released(slot, world.now)  # the hand-over is in the outbox, not yet carried out
    newcomer = world.pool.acquire(("late.py", 1), world.now)
    assert newcomer is None
    world.obey()
    assert world.taken(waiter) == [slot]


def test_one_caller_after_the_other_uses_all_pods() -> None:
    world = World()
    world.give_back(*world.fill(6))
    seen = []
    for _ in range(6):
        [slot] = world.taken(world.take())
        seen.append(name(slot))
        world.give_back(slot)
    assert seen[:3] == seen[3:]
    assert sorted(seen[:3]) == ["a", "b", "c"]


def test_a_pod_that_hangs_does_not_collect_the_callers() -> None:
    """Eight callers, three pods with six connections each, and what leads to `a` never comes back. A queue over all
    connections would have all eight stuck in it soon."""
    world = World(max_size=18)
    world.give_back(*world.fill(18, 3.0))
    stuck: list[Slot] = []
    for _ in range(200):
        slots = world.taken(*[world.take() for _ in range(8 - len(stuck))])
        stuck += [slot for slot in slots if name(slot) == "a"]
        world.give_back(*[slot for slot in slots if name(slot) != "a"])
        world.run(world.now + 0.01)
    assert len(stuck) <= 4


def test_of_one_pods_connections_the_one_used_last_goes_out() -> None:
    world = World("a")
    first, second = world.fill(2)
    world.give_back(first)
    world.run(2.0)
    world.give_back(second)
    assert world.take() is second


# ---- who gives up ------------------------------------------------------------------------------------------------


def test_a_dial_that_nobody_waits_for_any_more_still_joins_the_pool() -> None:
    world = World()
    waiter = world.take()
    world.leave(waiter)
    world.run(0.2)
    assert world.view.idle == 1
    assert isinstance(world.take(), Slot)
    assert world.view.gave_up == 1


def test_what_was_begun_for_one_who_gave_up_goes_to_the_next() -> None:
    world = World()
    first, second = world.take(), world.take()
    world.leave(first)
    world.run(0.2)
    assert world.taken(second)
    assert world.view.idle == 1
    assert world.what() == ["open a", "open b"]


def test_one_who_gives_up_in_the_moment_of_his_turn_passes_it_on() -> None:
    world = World(max_size=1)
    [slot] = world.fill(1)
    first, second = world.take(), world.take()
    world.give_back(slot)
    assert world.taken(first) == [slot]
    world.leave(first)
    assert world.taken(second) == [slot]


def test_giving_up_twice_counts_once() -> None:
    world = World()
    waiter = world.take()
    world.leave(waiter)
    world.leave(waiter)
    assert world.view.gave_up == 1
    assert world.view.waiting == 0


# ---- how it grows ------------------------------------------------------------------------------------------------


def test_it_opens_what_callers_lack_and_spreads_it() -> None:
    world = World(max_size=6)
    waiters = [world.take() for _ in range(9)]
    assert world.view.opening == 6
    world.run(0.05)
    assert world.spread == {"a": 2, "b": 2, "c": 2}
    assert [waiter in world.served for waiter in waiters] == [True] * 6 + [False] * 3


def test_never_more_than_ten_dials_at_once() -> None:
    world = World(max_size=30)
    [world.take() for _ in range(30)]
    assert world.view.opening == 10
    world.run(0.06)
    assert (world.view.busy, world.view.opening) == (10, 10)
    world.run(0.2)
    assert world.view.busy == 30


def test_min_size_is_opened_without_callers_and_kept() -> None:
    world = World(min_size=3)
    world.run(0.1)
    assert world.spread == {"a": 1, "b": 1, "c": 1}
    [slot] = world.taken(world.take())
    world.tell(lambda now: world.pool.broke(slot, "broken", How.RESET, now))
    world.run(0.2)
    assert world.view.idle == 3


def test_a_silent_dial_is_joined_by_one_to_another_pod() -> None:
    world = World("ab")
    world.pods["a"] = "hangs"
    waiter = world.take()
    world.run(0.99)
    assert world.what() == ["open a"]
    world.run(1.06)
    assert world.log == [(0.0, "open a"), (1.0, "open b")]
    assert world.served[waiter] == pytest.approx(1.05)


def test_a_dial_that_says_nothing_ends_and_its_pod_is_left_alone() -> None:
    world = World("ab", open_timeout=3.0)
    world.pods["a"] = "hangs"
    world.take()
    world.run(3.0)
    assert [slot.phase for slot in world.cancelled] == [Phase.CLOSED]
    assert "TimeoutError" in world.view.last_failure
    held = {pod.endpoint.address: pod.held_for for pod in world.view.pods}
    assert 0.4 < held["10.0.0.1"] <= 0.5
    assert held["10.0.0.2"] == 0.0


def test_a_connection_that_comes_too_late_is_closed() -> None:
    world = World("a", open_timeout=1.0)
    world.pods["a"] = "hangs"
    world.take()
    world.run(1.0)
    [late] = world.cancelled
    world.tell(world.pool.opened, late, "connection")
    assert "close a: came too late" in world.what()
    world.run(1.2)
    assert world.view.closed == {"came too late": 1}
    assert late not in world.pool.slots


# ---- dials that fail ---------------------------------------------------------------------------------------------


def test_a_dial_that_fails_goes_to_another_pod_at_once() -> None:
    world = World()
    world.pods["a"] = "refuses"
    waiter = world.take()
    world.run(0.1)
    assert world.log == [(0.0, "open a"), (0.001, "open b")]
    assert world.served[waiter] == pytest.approx(0.051)


def test_when_all_fail_it_tries_again_less_and_less_often_and_never_gives_up() -> None:
    world = World("a")
    world.pods["a"] = "refuses"
    waiter = world.take()
    world.run(60.0)
    times = [at for at, what in world.log if what == "open a"]
    gaps = [after - before for before, after in pairwise(times)]
    assert 0.4 < gaps[0] <= 0.51
    assert 0.8 < gaps[1] <= 1.01
    assert all(4.4 < gap <= 5.01 for gap in gaps[5:])
    assert waiter not in world.served
    world.pods["a"] = "ok"
    world.run(70.0)
    assert waiter in world.served


def test_a_wrong_password_on_one_pod_leaves_that_pod_out() -> None:
    world = World(max_size=6)
    world.pods["b"] = "wrong password"
    world.fill(6)
    assert world.spread == {"a": 3, "c": 3}
    [trouble] = [pod.trouble for pod in world.view.pods if pod.trouble]
    assert trouble == "WrongPassword: b"
    assert len([what for what in world.what() if what == "open b"]) <= 2


def test_what_every_pod_says_is_raised() -> None:
    world = World("ab")
    world.pods = dict.fromkeys("ab", "wrong password")
    first, second = world.take(), world.take()
    world.run(0.3)
    for waiter in (first, second):
        assert isinstance(waiter, Waiter)
        assert isinstance(waiter.error, WrongPassword)
    assert world.view.turned_away == 2
    late = world.take()
    assert isinstance(late, Waiter)
    assert isinstance(late.error, WrongPassword), "known already: nobody need wait for it"
    opens = len(world.what())
    world.pods = dict.fromkeys("ab", "ok")
    world.run(1.0)
    assert len(world.what()) == opens, "and nobody asks"
    world.fill(1)


def test_what_every_pod_says_is_not_raised_while_a_connection_may_come_back() -> None:
    world = World("a")
    [slot] = world.fill(1)
    world.pods["a"] = "wrong password"
    waiter = world.take()
    world.run(5.0)
    assert waiter not in world.served
    world.give_back(slot)
    assert world.taken(waiter) == [slot]


def test_a_pod_that_is_down_is_waited_for_though_the_other_one_refuses() -> None:
    world = World("ab")
    world.pods = {"a": "wrong password", "b": "refuses"}
    waiter = world.take()
    world.run(20.0)
    assert waiter not in world.served
    world.pods["b"] = "ok"
    world.run(26.0)
    assert [name(slot) for slot in world.taken(waiter)] == ["b"]


def test_a_full_pod_gets_no_more_for_a_while_and_is_nobodys_error() -> None:
    world = World("ab", max_size=4)
    world.pods["a"] = "full"
    assert {name(slot) for slot in world.fill(4)} == {"b"}
    waiter = world.take()
    world.run(100.0)
    assert isinstance(waiter, Waiter)
    assert waiter.error is None


def test_our_own_trouble_is_no_pods_fault() -> None:
    world = World("a")
    world.pods["a"] = "no descriptors"
    waiter = world.take()
    world.run(3.5)
    assert [at for at, _ in world.log] == [0.0, 1.0, 2.0, 3.0]
    assert all(pod.held_for == 0 and not pod.trouble for pod in world.view.pods)
    world.pods["a"] = "ok"
    world.run(4.1)
    assert waiter in world.served


def test_an_empty_set_is_said_to_who_waited_for_it() -> None:
    world = World("")
    waiter = world.take()
    assert isinstance(waiter, Waiter)
    assert isinstance(waiter.error, ConnectionError)
    world.pods = {"a": "ok"}
    world.run(2.0)
    world.fill(1)


def test_a_pod_that_comes_while_all_others_are_held_back_is_found() -> None:
    world = World("a")
    world.pods["a"] = "wrong password"
    [world.take() for _ in range(1)]
    world.run(8.0)
    world.pods["b"] = "ok"
    world.fill(1, 1.1)


# ---- moves -------------------------------------------------------------------------------------------------------


def replace(world: World, slot: Slot, pod: str) -> Slot | None:
    dial: Slot | None = world.tell(world.pool.replace, slot, key(pod), Endpoint.of(key(pod)), "moved")
    return dial


def test_a_move_opens_the_replacement_first() -> None:
    world = World("abc", max_size=2)
    one, two = world.fill(2)
    world.give_back(one, two)
    assert replace(world, one, "c")
    assert world.view.size == 2
    assert world.view.idle == 2
    world.run(1.2)
    assert world.log[-2:] == [(1.0, "open c"), (1.05, "close a: moved")]
    assert world.spread == {"b": 1, "c": 1}
    assert world.view.moves == 1


def test_one_that_is_gone_before_its_replacement_came_is_not_filled_up_for_twice() -> None:
    world = World("ab", min_size=2)
    world.run(1.0)
    slot = next(iter(world.pool.slots))
    assert replace(world, slot, "b")
    world.tell(world.pool.retire, slot, "moved")
    world.run(5.0)
    assert world.view.size == 2
    assert world.view.opened == 3
    assert world.view.moves == 1


def test_a_busy_connection_moves_when_it_comes_back() -> None:
    world = World("ab", max_size=1)
    [slot] = world.fill(1)
    assert replace(world, slot, "b")
    world.run(2.0)
    assert world.spread == {"a": 1, "b": 1}
    world.give_back(slot)
    assert world.what(2.0) == ["close a: moved"]
    assert world.view.idle == 1


def test_a_replacement_that_cannot_be_opened_leaves_the_old_one_in_place() -> None:
    world = World("ab", max_size=1)
    world.give_back(*world.fill(1))
    [slot] = world.pool.slots
    world.pods["b"] = "refuses"
    assert replace(world, slot, "b")
    world.run(2.0)
    assert world.spread == {"a": 1}
    assert world.take() is slot


def test_few_move_at_once() -> None:
    world = World("ab", max_size=5)
    slots = world.fill(5)
    world.give_back(*slots)
    assert replace(world, slots[0], "b") is not None
    assert replace(world, slots[1], "b") is None


def test_what_should_go_goes_at_once_when_idle_and_at_its_return_when_busy() -> None:
    world = World("ab")
    idle, busy = world.fill(2)
    world.give_back(idle)
    world.tell(world.pool.retire, idle, "its pod left the set")
    world.tell(world.pool.retire, busy, "its pod left the set")
    assert world.what(1.0) == ["close a: its pod left the set"]
    world.give_back(busy)
    assert world.what(1.0)[1:] == ["close b: its pod left the set"]


# ---- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_size": 0}, "option max_size: 0 is not between 1 and 100,000; a right one looks like max_size=10"),
        ({"max_size": 2.5}, "option max_size: 2.5 is not a whole number; a right one looks like max_size=10"),
        (
            {"min_size": 11},
            "option min_size: 11 is more than max_size=10; a right one looks like min_size=2, max_size=10",
        ),
        (
            {"max_age": 0},
            "option max_age: 0 is not between 0.05 and 31,536,000 or None; a right one looks like max_age=1800.0",
        ),
        ({"open_timeout": None}, "option open_timeout: None is not between 0.01 and 3,600"),
        ({"timeout": float("nan")}, "option timeout: nan is not between 0 and 86,400 or None"),
        ({"max_sise": 3}, "option max_sise: a pool has no such setting; a right one looks like one of min_size"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError) as raised:
        PoolRules.of(settings)
    assert str(raised.value).startswith(said)


def test_a_place_is_spelled_with_its_folder() -> None:
    assert spelled(("/srv/app/shop/orders.py", 42)) == "shop/orders.py:42"
    assert spelled(("C:\\app\\shop\\orders.py", 42)) == "shop/orders.py:42"
    assert spelled(("orders.py", 42)) == "orders.py:42"
    assert spelled(None) == "an unknown place"


def test_who_comes_after_the_end_is_told() -> None:
    world = World()
    world.tell(world.pool.close)
    waiter = world.take()
    assert isinstance(waiter, Waiter)
    assert isinstance(waiter.error, ClosedError)
