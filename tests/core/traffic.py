"""Traffic over an engine in virtual time: requests of some kinds, at a rate, to pods that are fast, slow or silent.

Each request holds its picks as an adapter does: on a kept connection, with a lane; it may be repeated unless a test
says otherwise, so it hedges when it is told to hurry. `Traffic` is the judge: it writes down what pods and callers saw.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from math import inf

from headlessconn.core.attempts import Attempts, Rules
from headlessconn.core.effects import Changed, Hurry
from headlessconn.core.endpoint import How
from headlessconn.core.pick import CONNECTED, TRIAL, Nobody, Pick
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, key, name_of


class Fair(Loaded):
    """Dice of their own seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def random(self) -> float:
        return self._random.random()


@dataclass(eq=False)
class Request:
    at: float
    lane: str
    repeatable: bool
    work: float  # how much more than the usual it asks for
    attempts: Attempts | None = None
    open: list[Pick] = field(default_factory=list)
    pods: list[str] = field(default_factory=list)
    trial: bool = False
    hurried_at: list[float] = field(default_factory=list)
    took: float = inf


class Traffic:
    """`latency` is what a pod takes for a request of `work` 1, more or less by `spread`; `inf`: it says nothing."""

    def __init__(
        self,
        pods: str = "abc",
        *,
        latency: float = 0.01,
        spread: tuple[float, float] = (0.75, 1.25),
        patience: float = inf,
        seed: int = 1,
        options: Options | None = None,
    ) -> None:
        self.play = Play(pods, dice=Fair(seed), options=options)
        self.latency = dict.fromkeys(pods, latency)
        self.spread = spread
        self.patience = patience
        self.requests: list[Request] = []
        self._random = random.Random(seed)
        self._holders: dict[Pick, Request] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._effects = 0
        self._mute: dict[str, list[tuple[Request, Pick]]] = {}

    # ---- time

    def at(self, at: float, happens: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._events, (at, self._count, happens))

    def until(self, at: float) -> None:
        """Events and alarms, one by one in their order."""
        play = self.play
        while True:
            alarm, event = play.engine.wakeup_at, self._events[0][0] if self._events else inf
            if min(alarm, event) > at:
                break
            if alarm <= event:
                play.until(max(play.now, alarm))
            else:
                play.until(event)
                heappop(self._events)[2]()
            self._obey()
        play.until(at)

    def _obey(self) -> None:
        self.play.obey()
        while self._effects < len(self.play.log):
            _, effect = self.play.log[self._effects]
            self._effects += 1
            if isinstance(effect, Hurry) and (request := self._holders.get(effect.pick)):
                self._hurry(request, effect.pick)

    # ---- requests

    def send(
        self, rate: float, since: float, until: float, *, lane: str = "/", repeatable: bool = True, work: float = 1.0
    ) -> None:
        """So many a second, evenly."""
        for number in range(round((until - since) * rate)):
            at = since + number / rate
            self.at(at, partial(self._begin, Request(at, lane, repeatable, work)))

    def _begin(self, request: Request) -> None:
        self.requests.append(request)
        found = self.play.engine.pick(self.play.now, (), request.repeatable)
        assert not isinstance(found, Nobody)
        request.trial = bool(found.flags & TRIAL)
        self._go(request, found)
        if self.patience < inf:
            self.at(request.at + self.patience, partial(self._give_up, request))

    def _go(self, request: Request, pick: Pick) -> None:
        pod = name_of(pick.key)
        pick.flags |= CONNECTED
        pick.lane = self.play.engine.lane(request.lane)
        request.pods.append(pod)
        request.open.append(pick)
        self._holders[pick] = request
        if self.latency[pod] == inf:
            self._mute.setdefault(pod, []).append((request, pick))
        else:
            takes = self.latency[pod] * request.work * self._random.uniform(*self.spread)
            self.at(self.play.now + takes, partial(self._answer, request, pick, takes))

    def _answer(self, request: Request, pick: Pick, takes: float) -> None:
        if pick not in request.open:
            return  # cancelled
        if self.latency[name_of(pick.key)] == inf:  # it fell silent in the middle of it
            self._mute.setdefault(name_of(pick.key), []).append((request, pick))
            return
        request.open.remove(pick)
        request.took = self.play.now - request.at
        self.play.responded(pick)
        self.play.ended(pick)
        self._cancel(request)

    def _cancel(self, request: Request) -> None:
        for other in request.open:
            self.play.ended(other, How.CANCELLED)
        request.open.clear()

    def _give_up(self, request: Request) -> None:
        if request.took == inf:
            self._cancel(request)

    def _hurry(self, request: Request, pick: Pick) -> None:
        request.hurried_at.append(self.play.now)
        if pick not in request.open:
            return
        if request.attempts is None:
            request.attempts = Attempts(self.play.engine, Rules(request.repeatable), pick)
            request.attempts.went(pick)
        copy = request.attempts.beside(self.play.now)
        if copy is not None:
            self._go(request, copy)
            request.attempts.went(copy)

    def owed(self, pod: str, *, answered: int = 0) -> Pick:
        """A request at this moment which nobody answers, after so many that were."""
        for _ in range(answered):
            self.play.request(pod)
        pick = self.play.pick(pod)
        pick.flags |= CONNECTED
        pick.lane = self.play.engine.lane("/")
        return pick

    # ---- what befalls pods

    def silence(self, pod: str, at: float) -> None:
        """From then on it takes requests and says nothing."""
        self.at(at, lambda: self.latency.update({pod: inf}))

    def thaw(self, pod: str, at: float, latency: float = 0.01) -> None:
        """It goes on where it stood: what it owes is answered now."""

        def go_on() -> None:
            self.latency[pod] = latency
            for request, pick in self._mute.pop(pod, []):
                self.at(self.play.now + latency, partial(self._answer, request, pick, latency))

        self.at(at, go_on)

    def slow(self, latency: float, at: float) -> None:
        """All of them are as slow as this from then on."""
        self.at(at, lambda: self.latency.update(dict.fromkeys(self.latency, latency)))

    # ---- what was seen

    @property
    def hurried(self) -> list[tuple[float, str]]:
        return [(at, name_of(effect.pick.key)) for at, effect in self.play.log if isinstance(effect, Hurry)]

    def moves(self, pod: str) -> list[tuple[float, str, str]]:
        return [
            (at, move.after.value, move.why)
            for at, effect in self.play.log
            if isinstance(effect, Changed)
            for move in effect.change.moves
            if move.endpoint.key == key(pod)
        ][1:]  # but its coming

    def received(self, pod: str, since: float, until: float = inf) -> list[Request]:
        return [request for request in self.requests if pod in request.pods and since <= request.at < until]

    @property
    def copies(self) -> int:
        return sum(len(request.pods) - 1 for request in self.requests)

    def slowest(self, since: float = 0.0, until: float = inf) -> float:
        return max(request.took for request in self.requests if since <= request.at < until)
