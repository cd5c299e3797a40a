"""The conformance cases that take time: the engine in virtual time, under the law of drivers, requests coming steadily.

The judge is the world: which pod was alive and what DNS said when a request went where, never the engine's own picture.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf

import pytest

from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Probe
from headlessconn.core.endpoint import Answer, How, Key, address_of, pack
from headlessconn.core.engine import Engine
from headlessconn.core.member import State
from headlessconn.core.pick import Nobody, Pick
from headlessconn.core.target import Target
from headlessconn.options import Options
from tests.runtime.dns_cases import STEPS, Case, listed, name_of, target_of

LOOK_UP = 0.002  # seconds that DNS takes when it answers
EVERY = 0.05  # seconds between two requests
GRACE = 30.0  # seconds a deleted pod still serves: terminationGracePeriodSeconds
SERVING = 0.01  # seconds a request takes

Answering = Callable[[float], Answer | None]  # what DNS says at an instant; None is silence


@dataclass
class Request:
    """One request of the application: when, to which pods in turn, and whether one of them served it."""

    at: float
    tried: list[str] = field(default_factory=list)
    served_by: str | None = None


class World:
    """One engine, its driver, DNS, the pods, and an application. Time is a number, and events are a heap."""

    def __init__(self, target: str, dns: Answering, is_alive: Callable[[Key, float], bool], seed: int = 1) -> None:
        self.now = 0.0
        self.options = Options()
        self.engine = Engine(Target.parse(target), self.options, random.Random(seed), 0.0)
        self.requests: list[Request] = []
        self.asked_at: list[float] = []
        self.forgotten: list[tuple[float, str]] = []
        self.added_at: dict[str, float] = {}
        self.in_flight = 0  # look-ups
        self._dns, self._is_alive = dns, is_alive
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._armed_at = inf
        self._obey()

    # the law of drivers: after every call, first the outbox, then the timer

    def _tell(self, fact: Callable[[float], object]) -> None:
        fact(self.now)
        self._obey()

    def _obey(self) -> None:
        while self.engine.outbox:
            for effect in self.engine.take():
                self._carry_out(effect)
        assert self.engine.wakeup_at < inf, "a timer is always armed"
        if self.engine.wakeup_at < self._armed_at:
            self._armed_at = self.engine.wakeup_at
            self._at(self._armed_at, self._on_timer)

    def _on_timer(self) -> None:
        if self.now >= self._armed_at:  # else it was re-armed to fire earlier, and has fired
            self._armed_at = inf
            self._tell(self.engine.wake)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Ask(id=ask):
                assert not self.in_flight, "one look-up at a time"
                self.in_flight += 1
                self.asked_at.append(self.now)
                answer = self._dns(self.now)
                took = LOOK_UP if answer is not None else self.options.lookup_timeout
                said = answer or Answer("dns", "no_news", why="timeout")
                self._at(self.now + took, lambda: self._heard(ask, said))
            case Probe(id=probe, endpoint=endpoint):
                passed = self._is_alive(endpoint.key, self.now)
                self._at(self.now + LOOK_UP, lambda: self._tell(lambda now: self.engine.probed(probe, passed, now)))
            case Forget(key=key):
                self.forgotten.append((self.now, address_of(key)))
            case Changed(change=change):
                for endpoint in change.added:
                    self.added_at.setdefault(endpoint.address, self.now)
            case Admit():
                pass

    def _heard(self, ask: int, answer: Answer) -> None:
        self.in_flight -= 1
        self._tell(lambda now: self.engine.answered(answer, now, ask))

    # the application

    def run(self, until: float) -> "World":
        """Let time pass, with a request every EVERY seconds from the first answer on."""
        self._at(self.now + 2 * LOOK_UP, self._request)
        self.wait(until)
        return self

    def wait(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heappop(self._events)
            event()
        self.now = until

    def _request(self) -> None:
        self._at(self.now + EVERY, self._request)
        request = Request(self.now)
        self.requests.append(request)
        avoid: list[Key] = []
        while True:
            pick = self.engine.pick(self.now, avoid)
            self._obey()
            if isinstance(pick, Nobody):
                return
            address = address_of(pick.key)
            request.tried.append(address)
            if self._is_alive(pick.key, self.now):
                request.served_by = address
                self._serve(pick)
                return
            # Nothing was sent, so it may go to another pod.
            self._tell(lambda now, pick=pick: self.engine.dialled(pick, How.UNREACHABLE, now))  # type: ignore[misc]
            self._tell(lambda now, pick=pick: self.engine.ended(pick, How.UNREACHABLE, now))  # type: ignore[misc]
            avoid.append(pick.key)

    def _serve(self, pick: Pick) -> None:
        self._tell(lambda now: self.engine.dialled(pick, How.OK, now))
        self._at(self.now + SERVING, lambda: self._tell(lambda now: self.engine.ended(pick, How.OK, now)))

    def _at(self, at: float, event: Callable[[], None]) -> None:
        self._order += 1
        heappush(self._events, (at, self._order, event))

    # what the world saw

    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.served_by is None]

    def first_served_by(self, address: str) -> float:
        return next((request.at for request in self.requests if request.served_by == address), inf)

    def last_tried(self, address: str) -> float:
        return max((request.at for request in self.requests if address in request.tried), default=-inf)

    def endpoints(self) -> set[str]:
        return {endpoint.address for endpoint in self.engine.snapshot(self.now).endpoints}


# ---- DNS and pods as the case's steps have them ------------------------------------------------------------------


def keys_of(step: Case) -> frozenset[Key]:
    return frozenset(pack(address, port) for address, port in listed(step["endpoints"]))


def dns_of(case: Case, ttl: float | None = None) -> Answering:
    """The last step that says something about endpoints rules: a set, none at all (NXDOMAIN), or null: no answer."""
    steps = [step for step in case["steps"] if "endpoints" in step]
    constant = case.get("dns_server", {}).get("kubernetes_ttl", 5) if ttl is None else ttl

    def answer(now: float) -> Answer | None:
        step = [step for step in steps if step["t"] <= now][-1]
        if step["endpoints"] is None:
            return Answer("dns", "no_news", why="REFUSED") if step["observe"] == "REFUSED" else None
        if not step["endpoints"]:
            return Answer("dns", "nobody", ttl=constant, why="NXDOMAIN")
        return Answer("dns", "records", keys_of(step), ttl=constant, why="NOERROR")

    return answer


def pods_of(case: Case) -> Callable[[Key, float], bool]:
    """A pod that DNS lists is alive, and one that left it serves for its grace period."""
    steps = [step for step in case["steps"] if step.get("endpoints") is not None]

    def is_alive(key: Key, now: float) -> bool:
        ends = [later["t"] for later in steps[1:]] + [inf]
        return any(
            key in keys_of(step) and step["t"] <= now < end + GRACE for step, end in zip(steps, ends, strict=True)
        )

    return is_alive


def case_of(name: str) -> Case:
    return next(case for case in STEPS if case["id"] == name)


def addresses_of(endpoints: Case) -> set[str]:
    return {address for address, _ in listed(endpoints["endpoints"])}


# ---- the cases ---------------------------------------------------------------------------------------------------


def ttl_09(case: Case) -> None:
    """The server's cache holds NXDOMAIN for the whole of its TTL, counting down: the pod that became ready after two
    seconds cannot be seen before, and is seen `refresh_min` after. (The case's 30.1 is when it was looked at.)"""
    found = keys_of(case["steps"][-1])

    def dns(now: float) -> Answer:
        if now < 30:
            return Answer("dns", "nobody", ttl=max(1.0, 30.0 - now), why="NXDOMAIN")
        return Answer("dns", "records", found, ttl=30, why="NOERROR")

    for seed in range(20):
        world = World(target_of(case), dns, lambda key, now: now >= 2, seed).run(40)
        seen = world.added_at["10.244.1.31"]
        assert case["expect"]["visible_not_before"] <= seen <= case["expect"]["visible_not_after"] + LOOK_UP
        assert all((request.served_by is not None) == (request.at >= seen) for request in world.requests)
        assert world.endpoints() == addresses_of(case["expect"])


def ttl_11(case: Case) -> None:
    """Two replicas answer in turn: whoever is missing in every other answer drains, and comes back with its history."""
    flapping = pack("10.244.2.33", 8080)
    world = World(target_of(case), dns_of(case), pods_of(case))
    world.run(1.2)
    world._tell(world.engine.hint)  # whatever made it ask then: it hears replica A
    world.wait(2.1)
    world._tell(world.engine.wake)
    held: Pick | None = None
    while held is None:  # a request that is under way for as long as the replicas disagree
        pick = world.engine.pick(world.now)
        assert isinstance(pick, Pick)
        if pick.key == flapping:
            held = pick
        else:
            world._tell(lambda now, pick=pick: world.engine.ended(pick, How.OK, now))  # type: ignore[misc]
    member = held.member
    world.wait(30)
    assert held.member is member
    assert member.in_flight >= 1, "nobody ended it"
    assert member.state is State.READY, "the same member, with all it had"
    world._tell(lambda now: world.engine.ended(held, How.OK, now))
    asked = [at for at in world.asked_at if at <= 6]
    gone = [at for at, address in world.forgotten if address == "10.244.2.33"]
    assert len(gone) <= len(asked) // 2, "its idle connections are closed when it leaves, not at every refresh"
    assert not [at for at in gone if at > 7], "and no more once both replicas agree"
    assert not world.failed()


def chg_01(case: Case) -> None:
    world = World(target_of(case), dns_of(case), pods_of(case)).run(40)
    for new in ("10.244.2.34", "10.244.2.35"):
        assert 10 <= world.first_served_by(new) <= 10 + case["expect"]["visible_within_s"]
    assert world.endpoints() == addresses_of(case["expect"])
    assert not world.failed()


def chg_03(case: Case) -> None:
    """The typed error after the wait is in `test_cases.py`; here: nobody is dialled for ever."""
    world = World(target_of(case), dns_of(case), pods_of(case)).run(60)
    assert world.endpoints() == set()
    heard_by = 10 + world.options.refresh_max + LOOK_UP
    for address in ("10.244.1.31", "10.244.1.32", "10.244.2.33"):
        assert 10 < world.last_tried(address) <= heard_by + world.options.hold_nx
    assert isinstance(world.engine.pick(world.now), Nobody)
    assert world.engine.snapshot(world.now).answer == Answer("dns", "nobody", ttl=5, why="NXDOMAIN")


def chg_05(case: Case) -> None:
    world = World(target_of(case), dns_of(case), pods_of(case)).run(40)
    assert len(world.failed()) == case["expect"]["failed_requests"]
    assert world.endpoints() == addresses_of(case["expect"])
    for old, left_at in (("10.244.1.31", 5), ("10.244.1.32", 10), ("10.244.2.33", 15)):
        assert world.last_tried(old) <= left_at + world.options.refresh_max + LOOK_UP


def chg_07(case: Case) -> None:
    world = World(target_of(case), dns_of(case), pods_of(case)).run(40)
    assert len(world.failed()) == case["expect"]["failed_requests"]
    assert world.endpoints() == addresses_of(case["expect"])
    silent = [at for at in world.asked_at if 10 <= at < 18]
    assert 1 <= len(silent) <= 3, "3 s a look-up, and a back-off between them"
    assert not world.forgotten


def chg_09(case: Case) -> None:
    world = World(target_of(case), dns_of(case), lambda key, now: True).run(300)
    assert world.endpoints() == addresses_of(case["expect"])
    assert not world.failed()
    assert not world.forgotten
    waits = [b - a for a, b in zip(world.asked_at, world.asked_at[1:], strict=False) if a > 30]
    assert max(waits) <= world.options.refresh_max * 1.1, "it goes on asking"
    assert world.engine.snapshot(world.now).trouble == "REFUSED"


def chg_11(case: Case) -> None:
    world = World(target_of(case), dns_of(case), pods_of(case)).run(40)
    assert world.endpoints() == addresses_of(case["expect"])
    assert not world.failed(), "the pods were alive throughout, and were held for hold_nx"
    assert not world.forgotten


def chg_13(case: Case) -> None:
    dead, new = pack("10.244.2.33", 8080), "10.244.9.9"

    def is_alive(key: Key, now: float) -> bool:
        return key != dead or now < 25

    world = World(target_of(case), dns_of(case), is_alive).run(120)
    assert len(world.failed()) == case["expect"]["failed_requests"]
    tried = [request.at for request in world.requests if "10.244.2.33" in request.tried and request.at >= 25]
    assert len(tried) == 1, "one request finds out; the rest of the minute is for probes"
    assert 89 <= world.first_served_by(new) <= 89 + world.options.refresh_max + 1
    assert world.endpoints() == addresses_of(case["expect"])


@pytest.mark.parametrize("case", STEPS, ids=name_of)
def test_a_case_that_takes_time(case: Case) -> None:
    globals()[case["id"].replace("-", "_")](case)


def test_the_same_seed_gives_the_same_trace() -> None:
    case = case_of("chg-05")
    runs = [World(target_of(case), dns_of(case), pods_of(case), seed=5).run(30) for _ in range(2)]
    assert runs[0].requests == runs[1].requests
    assert runs[0].asked_at == runs[1].asked_at
