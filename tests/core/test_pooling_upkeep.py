"""A pool's machine: checks, resets, age, idleness, silent pods, and its end. Times are exact."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.pooling import Phase, Slot, Waiter, holders, lifecycle
from headlessconn.core.pooling.slot import MOVES
from headlessconn.core.probing import PROBE_TIMEOUT, SILENT_AFTER
from headlessconn.errors import ClosedError
from tests.core.pool_world import World, name

# ---- checks ------------------------------------------------------------------------------------------------------


def test_a_connection_is_checked_only_after_it_was_idle_for_some_time() -> None:
    world = World("a", checked=True)
    [slot] = world.fill(1)
    world.give_back(slot)
    world.run(6.0)
    assert world.take() is slot
    world.give_back(slot)
    world.run(11.1)
    waiter = world.take()
    world.run(11.2)
    assert world.what(6.0) == ["check a"]
    assert world.taken(waiter) == [slot]
    assert world.served[waiter] == pytest.approx(11.101)


def test_without_a_check_nothing_is_checked() -> None:
    world = World("a")
    [slot] = world.fill(1)
    world.give_back(slot)
    world.run(500.0)
    assert world.take() is slot


def test_a_dead_connection_is_replaced_before_its_caller_sees_it() -> None:
    world = World("ab", checked=True, max_size=2)
    world.give_back(*world.fill(2))
    world.checks["a"] = "dead"
    world.run(60.0)
    waiters = [world.take(), world.take()]
    world.run(61.0)
    slots = world.taken(*waiters)
    assert all(slot.phase is Phase.BUSY for slot in slots)
    assert world.view.closed == {"failed its check": 1}
    assert [how for _, how in world.said] == [How.RESET_REUSED]


def test_a_silent_check_is_joined_by_that_of_another_pods_connection() -> None:
    world = World("ab", checked=True)
    world.give_back(*world.fill(2))
    world.checks["a"] = "hangs"
    world.run(60.0)
    waiter = world.take()
    world.run(70.0)
    assert world.log[2:4] == [(60.0, "check a"), (60.25, "check b")]
    assert world.served[waiter] == pytest.approx(60.251)
    assert (62.0, "close a: check timed out") in world.log
    assert How.TIMEOUT in [how for _, how in world.said]


def test_a_caller_who_gives_up_leaves_the_check_to_the_next() -> None:
    world = World("a", checked=True, max_size=1)
    world.give_back(*world.fill(1))
    world.run(60.0)
    first, second = world.take(), world.take()
    world.leave(first)
    world.run(61.0)
    assert world.taken(second)
    assert world.what(60.0) == ["check a"]


def test_one_that_should_go_while_it_is_checked_is_not_handed_out() -> None:
    world = World("ab", checked=True, max_size=1)
    [slot] = world.fill(1)
    world.give_back(slot)
    world.run(60.0)
    waiter = world.take()
    world.tell(world.pool.retire, slot, "its pod left the set")
    del world.pods[name(slot)]
    world.run(61.0)
    assert [name(found) for found in world.taken(waiter)] == ["b"]


# ---- resets ------------------------------------------------------------------------------------------------------


def test_a_connection_is_reset_before_its_next_caller() -> None:
    world = World("a", reset=True, max_size=1)
    [slot] = world.fill(1)
    waiter = world.take()
    world.give_back(slot)
    assert waiter not in world.served
    world.run(2.0)
    assert world.what(1.0) == ["reset a"]
    assert world.taken(waiter) == [slot]


@pytest.mark.parametrize(("how", "reason", "at"), [("dead", "reset failed", 1.001), ("hangs", "reset timed out", 6.0)])
def test_one_that_cannot_be_reset_is_closed_and_replaced(how: str, reason: str, at: float) -> None:
    world = World("a", reset=True, max_size=1)
    [slot] = world.fill(1)
    world.resets["a"] = how
    waiter = world.take()
    world.give_back(slot)
    world.run(10.0)
    assert (at, f"close a: {reason}") in world.log
    assert world.served[waiter] == pytest.approx(at + 0.05)


def test_no_second_connection_is_opened_for_one_that_is_being_reset() -> None:
    world = World("a", reset=True)
    [slot] = world.fill(1)
    world.give_back(slot)
    waiter = world.take()
    world.run(2.0)
    assert world.taken(waiter) == [slot]
    assert world.view.opened == 1


# ---- closing -----------------------------------------------------------------------------------------------------


def test_a_close_that_hangs_is_given_up_and_counted() -> None:
    world = World("a", max_size=1)
    world.closes["a"] = "hangs"
    [slot] = world.fill(1)
    world.tell(world.pool.broke, slot, "broken", How.RESET)
    waiter = world.take()
    world.run(1.2)
    assert world.taken(waiter), "nobody waits for it"
    world.run(5.9)
    assert (world.view.closing, world.view.abandoned) == (1, 0)
    world.run(6.1)
    assert (world.view.closing, world.view.abandoned) == (0, 1)
    assert slot in world.cancelled
    assert slot.phase is Phase.CLOSED


def test_a_broken_connection_is_closed_once() -> None:
    world = World("a")
    [slot] = world.fill(1)
    world.tell(world.pool.broke, slot, "broken", How.RESET)
    world.tell(world.pool.broke, slot, "broken", How.RESET)
    world.tell(world.pool.retire, slot, "its pod left the set")
    world.run(2.0)
    world.tell(world.pool.broke, slot, "broken", How.RESET)
    assert world.what(1.0) == ["close a: broken"]
    assert world.view.size == 0


# ---- age and idleness --------------------------------------------------------------------------------------------


def test_what_nobody_needs_is_closed_down_to_min_size() -> None:
    world = World(min_size=2, idle_timeout=60.0)
    slots = world.fill(6)
    world.give_back(*slots)
    world.run(60.9)
    assert world.view.size == 6
    world.run(61.1)
    assert world.view.size == 2
    assert world.view.closed == {"idle_timeout": 4}
    world.run(1000.0)
    assert world.view.size == 2
    assert world.view.opened == 6, "and those two are not replaced"


def test_what_is_used_now_and_then_stays() -> None:
    world = World("a", idle_timeout=60.0)
    one, two = world.fill(2)
    world.give_back(one, two)
    for at in range(2, 302, 30):
        world.run(float(at))
        [slot] = world.taken(world.take())
        world.give_back(slot)
    assert world.view.closed == {"idle_timeout": 1}
    assert world.view.idle == 1


def test_connections_of_one_age_do_not_end_together() -> None:
    world = World(max_age=1000.0, idle_timeout=None, max_size=100)
    world.give_back(*world.fill(100, 5.0))
    world.run(2000.0)
    ends = [at for at, what in world.log if "max_age" in what]
    assert len(ends) == 100
    assert 900.0 <= min(ends) < 920.0
    assert 1080.0 < max(ends) <= 1101.0
    slices = [sum(start <= at < start + 10.0 for at in ends) for start in range(900, 1100, 10)]
    assert max(slices) <= 15


def test_an_old_connection_of_min_size_is_replaced_before_it_ends() -> None:
    world = World("a", min_size=1, max_age=100.0)
    world.run(85.0)
    assert world.what() == ["open a"]
    world.run(115.0)
    assert world.what() == ["open a", "open a", "close a: max_age"]
    assert world.view.moves == 0
    assert world.view.idle == 1


def test_an_old_busy_connection_ends_when_it_comes_back() -> None:
    world = World("a", max_age=100.0)
    [slot] = world.fill(1)
    world.run(500.0)
    assert world.what() == ["open a"]
    world.give_back(slot)
    assert world.what()[-1] == "close a: max_age"


# ---- pods that fall silent ---------------------------------------------------------------------------------------


def served_elsewhere(world: World, until: float) -> None:
    """Connections of `b` and `c` go out and come back, ten times a second."""
    while world.now < until:
        slots = [slot for slot in world.pool.slots if slot.phase is Phase.IDLE and name(slot) in "bc"]
        for _ in slots:
            found = world.pool.acquire(("shop/other.py", 1), world.now)
            if found is not None and name(found) in "bc":
                world.run(world.now + 0.1 / len(slots))
                world.give_back(found)
        if not slots:
            world.run(world.now + 0.1)


def silent(world: World) -> list[Slot]:
    """All connections are open, and those to `a` stay out."""
    slots = world.fill(9)
    world.give_back(*[slot for slot in slots if name(slot) != "a"])
    return [slot for slot in slots if name(slot) == "a"]


def test_a_pod_that_swallows_connections_is_asked_and_when_it_twice_does_not_answer_let_go() -> None:
    world = World()
    world.probes["a"] = False
    one, two, three = silent(world)
    world.give_back(three)
    served_elsewhere(world, 20.0)
    told = [(at, what) for at, what in world.log if what.endswith(" a") or " a:" in what][3:]
    assert [what for _, what in told] == ["probe a", "probe a", "silent a", "silent a", "close a: silent pod"]
    assert SILENT_AFTER <= told[0][0] < SILENT_AFTER + 1.0
    assert told[2][0] == pytest.approx(told[0][0] + 2 * PROBE_TIMEOUT)
    assert (three, How.DIAL_TIMEOUT) in world.said
    assert one.phase is Phase.BUSY, "its holder gives it back, with whatever error he got"
    [view] = [pod for pod in world.view.pods if pod.endpoint.address == "10.0.0.1"]
    assert "silent" in view.trouble
    assert two.phase is Phase.BUSY


def test_a_pod_whose_connections_are_only_used_for_long_is_asked_less_and_less_often() -> None:
    world = World()
    held = silent(world)
    served_elsewhere(world, 100.0)
    asked = [at for at, what in world.log if what == "probe a"]
    gaps = [after - before for before, after in pairwise(asked)]
    assert [round(gap / 5) for gap in gaps] == [1, 2, 4, 8]
    assert all(slot.phase is Phase.BUSY for slot in held)
    assert world.what().count("silent a") == 0


def test_when_all_are_slow_nobody_is_asked() -> None:
    world = World()
    world.fill(9)
    world.run(100.0)
    assert not [what for what in world.what() if what.startswith("probe")]


def test_one_that_is_out_for_as_long_as_usual_is_not_silent() -> None:
    """All hold theirs for 4 s, so 10 s is nothing special."""
    world = World(max_size=9, silent_after=3.0)
    slots = world.fill(9)
    for _ in range(10):
        world.run(world.now + 4.0)
        world.give_back(*[slot for slot in slots if name(slot) != "a"])
        slots = world.taken(*[world.take() for _ in range(6)]) + [slot for slot in slots if name(slot) == "a"]
        if world.now < 33.0:
            world.give_back(*[slot for slot in slots if name(slot) == "a"])
            slots = [slot for slot in slots if name(slot) != "a"] + world.taken(*[world.take() for _ in range(3)])
    assert not [what for what in world.what() if what.startswith("probe")]


def test_nobody_looks_while_nothing_is_out() -> None:
    world = World("a", idle_timeout=None)
    [slot] = world.fill(1)
    world.give_back(slot)
    world.run(10.0)
    assert world.pool.wakeup_at == float("inf")


# ---- its end -----------------------------------------------------------------------------------------------------


def test_closing_sends_callers_away_ends_dials_and_waits_for_what_is_out() -> None:
    world = World(max_size=3)
    idle, busy = world.fill(2)
    world.give_back(idle)
    world.pods = dict.fromkeys("abc", "hangs")
    world.take()
    waiting = [world.take() for _ in range(2)]
    world.tell(world.pool.close)
    assert [type(waiter.error) for waiter in waiting if isinstance(waiter, Waiter)] == [ClosedError, ClosedError]
    assert world.view.opening == 0
    world.run(2.0)
    assert next(iter(world.pool.slots)).phase is Phase.BUSY
    for slot in list(world.pool.slots):
        world.give_back(slot)
    world.run(3.0)
    assert not world.pool.slots
    assert busy.phase is Phase.CLOSED
    assert world.pool.wakeup_at == float("inf")


def test_what_stays_out_is_cut_and_named() -> None:
    world = World("a")
    [slot] = world.fill(1)
    world.run(31.05)
    [holder] = holders(world.pool, world.now)
    assert str(holder) == "shop/orders.py:7 for 31.0 s (to 10.0.0.1:3306)"
    world.tell(world.pool.close)
    world.tell(world.pool.cut)
    world.run(32.0)
    assert not world.pool.slots
    assert slot.phase is Phase.CLOSED


def test_closing_in_the_middle_of_steps_leaves_nothing() -> None:
    world = World("ab", checked=True, reset=True, max_size=6)
    slots = world.fill(6)
    world.give_back(*slots)
    world.run(20.0)
    taken = [world.take() for _ in range(2)]
    world.checks = dict.fromkeys("ab", "hangs")
    [world.take() for _ in range(2)]
    world.run(20.1)
    world.resets = dict.fromkeys("ab", "hangs")
    world.give_back(*world.taken(*taken))
    world.tell(world.pool.close)
    world.run(40.0)
    assert not world.pool.slots
    assert world.pool.size == 0


class Followed(Slot):
    """Writes down each way that a connection goes."""

    __slots__ = ()
    ways: ClassVar[Counter[tuple[Phase, Phase]]] = Counter()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "phase" and getattr(self, name, value) is not value:
            self.ways[self.phase, value] += 1
        super().__setattr__(name, value)


def test_connections_go_every_way_of_the_table_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "Slot", Followed)
    monkeypatch.setattr(Followed, "ways", Counter())
    for seed in range(40):
        test_whatever_happens_the_counts_are_right_and_everybody_is_served(seed)
    assert Followed.ways.keys() == MOVES.keys()


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_the_counts_are_right_and_everybody_is_served(seed: int) -> None:
    dice = random.Random(seed)
    world = World("abcd", checked=True, reset=seed % 2 == 0, min_size=dice.randrange(3), max_size=6, max_age=30.0)
    out: list[Slot] = []
    waiting: list[Slot | Waiter] = []
    for _ in range(400):
        match dice.randrange(10):
            case 0 | 1 | 2:
                waiting.append(world.take())
            case 3 | 4 | 5 if out:
                world.give_back(out.pop(dice.randrange(len(out))))
            case 6 if out:
                world.tell(world.pool.broke, out.pop(), "broken", How.RESET)
            case 7 if waiting:
                world.leave_any(waiting.pop(dice.randrange(len(waiting))))
            case 8:
                pod = dice.choice("abcd")
                world.pods[pod] = dice.choice(["ok", "ok", "late", "refuses", "hangs", "wrong password", "full"])
                world.checks[pod] = dice.choice(["ok", "ok", "dead", "hangs"])
                world.resets[pod] = dice.choice(["ok", "ok", "dead", "hangs"])
                world.closes[pod] = dice.choice(["ok", "ok", "hangs"])
            case 9 if world.pool.slots:
                world.tell(world.pool.retire, dice.choice(list(world.pool.slots)), "its pod left the set")
        world.run(world.now + dice.choice([0.0, 0.01, 0.1, 1.0, 5.0]))
        for one in [one for one in waiting if isinstance(one, Slot) or one in world.served]:
            waiting.remove(one)
            if isinstance(one, Slot) or one.slot is not None:
                out += world.taken(one)
    for steps in (world.pods, world.checks, world.resets, world.closes):
        steps.update(dict.fromkeys("abcd", "ok"))
    world.run(world.now + 40.0)
    for _ in range(len(waiting) + 1):
        world.give_back(*out)
        world.run(world.now + 1.0)
        served = [one for one in waiting if isinstance(one, Waiter) and one in world.served]
        out = [one.slot for one in served if one.slot is not None]
        waiting = [one for one in waiting if one not in served]
    assert not waiting, "somebody was forgotten"
    assert world.view.size >= world.pool.rules.min_size
    world.tell(world.pool.close)
    world.run(world.now + 20.0)
    assert not world.pool.slots
