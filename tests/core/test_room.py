"""`max_in_flight` and `max_waiting` in virtual time: who is picked, who waits, who comes next, and that nobody is
forgotten."""

import random
from collections import Counter, deque

import pytest

from headlessconn.core.effects import Admit, Ask
from headlessconn.core.endpoint import How
from headlessconn.core.engine import Engine
from headlessconn.core.pick import ALL_AVOIDED, FULL, NOBODY, Nobody, Pick
from headlessconn.options import Options
from tests.core.play import TARGET, Play, nobody, records


def limited(pods: str = "ab", most: int = 2, **settings: object) -> Play:
    return Play(pods, options=Options(max_in_flight=most, **settings))  # type: ignore[arg-type]


def fill(play: Play, count: int) -> list[Pick]:
    return [play.pick() for _ in range(count)]


def test_each_endpoint_gets_its_limit_and_the_next_caller_waits() -> None:
    play = limited("abc", 4)
    picks = fill(play, 12)
    assert {pick.member.in_flight for pick in picks} == {4}
    assert play.try_to_pick() is FULL
    play.ended(picks[5])
    assert play.pick().key == picks[5].key


@pytest.mark.parametrize("policy", ["peak_ewma", "least_request", "round_robin"])
def test_the_last_place_is_found_whatever_the_dice_say(policy: str) -> None:
    for throw in (0.0, 0.3, 0.6, 0.99):
        play = limited("abcde", 3, policy=policy)
        play._dice.value = throw
        fill(play, 14)
        assert play.pick().member.in_flight == 3
        assert play.try_to_pick() is FULL


def test_without_a_limit_nothing_is_ever_full() -> None:
    play = Play("a")
    assert len(fill(play, 5000)) == 5000


def test_a_place_that_is_free_admits_one() -> None:
    play = limited("a", 2)
    first, second = fill(play, 2)
    for _ in range(3):
        assert play.try_to_pick() is FULL
        play.engine.queued(play.now)
    assert play.admitted == []
    play.ended(first)
    assert play.admitted == [(0.0, 1)]
    play.engine.streams(second)
    play.obey()
    assert play.admitted == [(0.0, 1), (0.0, 1)], "a stream is no request in flight"


def test_who_waits_comes_before_who_comes() -> None:
    """A caller that ends one request and begins the next would else starve those who wait."""
    play = limited("a", 1)
    first = play.pick()
    assert play.try_to_pick() is FULL
    play.engine.queued(play.now)
    play.ended(first)
    assert play.try_to_pick() is FULL, "there is a place, and it is promised"
    play.engine.left(play.now)
    assert isinstance(play.try_to_pick(), Pick)


def test_a_further_attempt_does_not_queue_again() -> None:
    play = limited("ab", 2)
    fill(play, 3)
    play.engine.queued(play.now)
    assert isinstance(play.engine.pick(play.now, again=True), Pick)


def test_a_full_pod_is_waited_for_and_not_replaced_by_a_bad_one() -> None:
    play = limited("ab", 2)
    play.sour("b")
    fill(play, 2)
    assert play.try_to_pick() is FULL
    assert play.states == {"a": "ready", "b": "ejected"}


def test_nobody_all_avoided_and_full_are_told_apart() -> None:
    play = limited("ab", 1)
    assert play.try_to_pick(avoid="ab") is ALL_AVOIDED
    only = play.pick("a")
    assert play.try_to_pick(avoid="b") is FULL
    play.ended(only)
    play.says = nobody()
    play.until(40.0)
    assert play.try_to_pick() is NOBODY
    play.engine.queued(play.now)
    assert play.try_to_pick() is NOBODY, "others who wait are no reason when there is nobody"


def test_a_new_pod_admits_as_many_as_it_has_room_for() -> None:
    play = limited("a", 2)
    fill(play, 2)
    for _ in range(5):
        play.engine.queued(play.now)
    play.says = records("ab")
    play.until(6.0)
    assert {count for _, count in play.admitted} == {2}, "again at each look, while nobody takes them"


def test_a_trial_keeps_the_limit_too() -> None:
    play = limited("ab", 1)
    hanging = play.pick("b")
    play.until(1.0)
    for _ in range(5):
        play.engine._health.answered_badly(hanging.member, False, "bad status", play.now)
    play.until(9.0)
    play.pick()
    assert play.try_to_pick() is FULL, "b's time is over, and its one place is taken"
    play.ended(hanging, How.CANCELLED)
    assert play.pick().key == hanging.key


def test_a_penalty_takes_no_place() -> None:
    play = limited("ab", 2, policy="least_request", consecutive_failures=0)
    play.request("b", bad=True)
    assert len(fill(play, 4)) == 4
    assert play.try_to_pick() is FULL


def test_the_error_says_who_how_many_and_what_to_do() -> None:
    play = limited("ab", 3, max_waiting=7)
    fill(play, 6)
    full = []
    for _ in range(7):
        full.append(play.engine.is_queue_full)
        play.engine.queued(play.now)
    assert [*full, play.engine.is_queue_full] == [False] * 7 + [True]
    error = play.engine.overloaded(1.5)
    assert (error.target, error.endpoints, error.in_flight, error.max_in_flight) == ("web.shop:80", 2, 6, 3)
    assert (error.waiting, error.max_waiting, error.waited) == (7, 7, 1.5)


# ---- nobody is forgotten ----------------------------------------------------------------------------------------


class Crowd:
    """Callers of one engine, each served after `takes` seconds, some of whom go away while they wait or just after they
    were let in. A driver in ten lines: woken callers act in the next step, as tasks of an event loop do."""

    def __init__(self, engine: Engine, rng: random.Random) -> None:
        self.engine, self.rng, self.now = engine, rng, 0.0
        self.queue: deque[int] = deque()
        self.woken: list[int] = []
        self.open: list[tuple[float, Pick]] = []
        self.done: Counter[str] = Counter()
        self.served: list[int] = []
        self.obey()

    def obey(self) -> None:
        while self.engine.outbox:
            for effect in self.engine.take():
                if isinstance(effect, Admit):
                    for _ in range(min(effect.count, len(self.queue))):
                        self.woken.append(self.queue.popleft())
                elif isinstance(effect, Ask):
                    self.engine.answered(records("abc"), self.now, effect.id)

    def come(self, caller: int, again: bool = False) -> None:
        found = self.engine.pick(self.now)
        if isinstance(found, Nobody):
            (self.queue.appendleft if again else self.queue.append)(caller)
            self.engine.queued(self.now)
        else:
            self.open.append((self.now + self.rng.uniform(0.01, 0.1), found))
            self.served.append(caller)
        self.obey()

    def step(self) -> None:
        self.now += 0.01
        if self.now >= self.engine.wakeup_at:
            self.engine.wake(self.now)
            self.obey()
        over = [(at, pick) for at, pick in self.open if at <= self.now]
        self.open = [(at, pick) for at, pick in self.open if at > self.now]
        for _, pick in over:
            self.engine.ended(pick, How.OK, self.now)
            self.obey()
        woken, self.woken = self.woken, []
        for caller in woken:
            self.engine.left(self.now)
            self.obey()
            if self.rng.random() < 0.2:
                self.done["gone when let in"] += 1
            else:
                self.come(caller, again=True)
        if self.queue and self.rng.random() < 0.1:
            self.queue.remove(self.rng.choice(list(self.queue)))
            self.engine.left(self.now)
            self.obey()
            self.done["gave up"] += 1


@pytest.mark.parametrize("seed", range(20))
def test_nobody_waits_while_there_is_room(seed: int) -> None:
    rng = random.Random(seed)
    engine = Engine(TARGET, Options(max_in_flight=2), random.Random(seed), 0.0)
    engine.wake(0.0)
    crowd = Crowd(engine, rng)
    for caller in range(300):
        if rng.random() < 0.7:
            crowd.come(caller)
        crowd.step()
        assert all(pick.member.in_flight <= 2 for _, pick in crowd.open)
        if len(crowd.open) < 6 and not crowd.woken:
            assert not crowd.queue, (
                f"{len(crowd.queue)} wait at {crowd.now:.2f} s though only {len(crowd.open)} are open"
            )
    for _ in range(100):
        crowd.step()
    assert not crowd.queue
    assert not crowd.woken
    assert engine.waiting == 0
    waited = [earlier - later for earlier, later in zip(crowd.served, crowd.served[1:], strict=False)]
    assert max(waited) <= 12, "first come first served, but for those woken in the same step"
