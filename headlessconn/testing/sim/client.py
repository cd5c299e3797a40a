"""A simulated application: it sends requests through a real engine, and obeys the law of drivers.

It does what the adapters do: keep-alive connections by pod, a failed dial moves on to another pod, a sent request that
fails is a failed request.
"""

from __future__ import annotations

import random
from collections import deque
from math import inf

from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Probe
from headlessconn.core.endpoint import Answer, How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.lookup import Lookup, Memory, Reply
from headlessconn.core.names import Search
from headlessconn.core.pick import Nobody, Pick
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.testing.sim.world import CONNECT, REFUSE, Pod, World
from headlessconn.testing.sim.zone import Zone

TARGET = Target.parse("web.shop:8080")
SEARCH = Search.of(("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), 5)
DIALS = 8

_OK = How.OK


class Request:
    """One request of the application. `outcome`: "" while it is open, "ok", or what went wrong."""

    __slots__ = ("at", "avoid", "ended_at", "id", "outcome", "pod")

    def __init__(self, number: int, at: float) -> None:
        self.id = number
        self.at = at
        self.avoid: set[Key] | None = None
        self.outcome = ""
        self.ended_at = inf
        self.pod = ""


class Exchange:
    """A request on a pod, from its pick to its end."""

    __slots__ = ("client", "generation", "pick", "pod", "request", "reused")

    def __init__(self, client: SimClient, request: Request, pick: Pick, pod: Pod) -> None:
        self.client = client
        self.request = request
        self.pick = pick
        self.pod = pod
        self.generation = pod.generation
        self.reused = False


class SimClient:
    """`rate` requests a second, each with a deadline of `patience` seconds; `jitter` draws the gaps at random."""

    def __init__(
        self,
        world: World,
        zone: Zone,
        options: Options,
        number: int = 0,
        rate: float = 100.0,
        patience: float = 5.0,
        jitter: bool = False,
    ) -> None:
        self.world = world
        self.zone = zone
        self.number = number
        self.gap = 1.0 / rate
        self.patience = patience
        self.requests: list[Request] = []
        self.asked: list[float] = []  # when each look-up began
        self.told: list[tuple[float, bool]] = []  # when each ended, and whether it brought news
        self.overlapping = 0  # look-ups that began while another was under way
        self.believed: list[tuple[float, frozenset[Key]]] = []  # the set as the engine announced it, change by change
        self.unarmed = 0  # calls after which no wake-up was armed
        self._random = world.rng.random
        self.engine = Engine(TARGET, options, random.Random(world.rng.getrandbits(64)), world.now)
        self._jitter = random.Random(world.rng.getrandbits(64)) if jitter else None
        self._memory = Memory()
        self._options = options
        self._idle: dict[Key, list[int]] = {}  # generations of idle connections, by pod
        self._waiting: deque[Request] = deque()
        self._armed_at = inf
        self._until = -1.0
        self._obey()

    # ---- traffic -----------------------------------------------------------------------------------------------

    def start(self, until: float) -> None:
        """Send requests from now on until `until`."""
        self._until = until
        self.world.at(self.world.now + self.gap * self.world.rng.random(), self._arrive)

    def _arrive(self, _: None) -> None:
        world = self.world
        now = world.now
        if now > self._until:
            return
        gap = self.gap if self._jitter is None else self.gap * 2.0 * self._jitter.random()
        world.at(now + gap, self._arrive)
        request = Request(len(self.requests), now)
        self.requests.append(request)
        self._try(request)

    def _try(self, request: Request) -> None:
        world, engine = self.world, self.engine
        pick = engine.pick(world.now, request.avoid or ())
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()
        if isinstance(pick, Nobody):
            return self._nobody(request, pick.all_avoided)
        key = pick.member.key
        pod = world.by_key[key]
        exchange = Exchange(self, request, pick, pod)
        idle = self._idle.get(key)
        if idle:
            exchange.generation = idle.pop()
            exchange.reused = True
            self._send(exchange)
        else:
            pod.dialled.append((world.now, self.number))
            if pod.dials == "accept":
                world.at(world.now + CONNECT, self._connected, exchange)
            elif pod.dials == "refuse":
                world.at(world.now + REFUSE, self._refused, exchange)
            else:
                world.at(world.now + self._options.connect_timeout, self._unanswered, exchange)

    def _nobody(self, request: Request, all_avoided: bool) -> None:
        if all_avoided:
            return self._end(request, "no pod accepts")
        self._waiting.append(request)
        self.engine.queued(self.world.now)
        self._obey()
        wait = min(self._options.wait_for_endpoints, request.at + self.patience - self.world.now)
        self.world.at(self.world.now + wait, self._gave_up, request)

    def _gave_up(self, request: Request) -> None:
        if request in self._waiting:
            self._waiting.remove(request)
            self.engine.left(self.world.now)
            self._end(request, "no endpoints")

    def _connected(self, exchange: Exchange) -> None:
        if exchange.pod.dials != "accept":  # it went away during the handshake
            return self._refused(exchange)
        exchange.generation = exchange.pod.generation
        self.engine.dialled(exchange.pick, _OK, self.world.now)
        self._obey()
        self._send(exchange)

    def _refused(self, exchange: Exchange) -> None:
        self._dial_failed(exchange, How.REFUSED)

    def _unanswered(self, exchange: Exchange) -> None:
        self._dial_failed(exchange, How.DIAL_TIMEOUT)

    def _dial_failed(self, exchange: Exchange, how: How) -> None:
        """Nothing was sent, so it may always go elsewhere."""
        now = self.world.now
        self.engine.dialled(exchange.pick, how, now)
        self._obey()
        self._finish(exchange, how)
        request = exchange.request
        request.avoid = request.avoid or set()
        request.avoid.add(exchange.pick.member.key)
        if now >= request.at + self.patience:
            self._end(request, "timed out")
        elif len(request.avoid) >= DIALS:
            self._end(request, "no pod accepts")
        else:
            self._try(request)

    def _send(self, exchange: Exchange) -> None:
        pod, world, request = exchange.pod, self.world, exchange.request
        if exchange.generation != pod.generation:  # a connection whose other end is gone: known when it is written to
            self._finish(exchange, How.RESET_REUSED)
            # aiohttp repeats an idempotent request once, on a new connection; so does this client.
            return self._try(request)
        pod.received.append((world.now, self.number, request.id))
        request.pod = pod.name
        pod.open.add(exchange)
        if pod.serves == "never":
            world.at(max(world.now, request.at + self.patience), self._timed_out, exchange)
        else:
            world.at(world.now + pod.latency * (0.75 + 0.5 * self._random()), self._answered, exchange)

    def _answered(self, exchange: Exchange) -> None:
        pod, world = exchange.pod, self.world
        if exchange not in pod.open:
            return  # reset meanwhile
        if pod.serves == "never":
            world.at(max(world.now, exchange.request.at + self.patience), self._timed_out, exchange)
            return
        pod.open.discard(exchange)
        bad = pod.serves == "badly" or (pod.error_rate > 0.0 and world.rng.random() < pod.error_rate)
        engine, pick = self.engine, exchange.pick
        engine.responded(pick, bad, world.now)
        engine.ended(pick, _OK, world.now)
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()
        if pick.is_listed and exchange.generation == pod.generation:
            self._idle.setdefault(pick.member.key, []).append(exchange.generation)
        self._end(exchange.request, "bad status" if bad else "ok")

    def _timed_out(self, exchange: Exchange) -> None:
        if exchange in exchange.pod.open:
            exchange.pod.open.discard(exchange)
            self._finish(exchange, How.TIMEOUT)
            self._end(exchange.request, "timed out")

    def was_reset(self, exchange: Exchange) -> None:
        """The pod died under it."""
        self._finish(exchange, How.RESET)
        self._end(exchange.request, "reset")

    def _finish(self, exchange: Exchange, how: How) -> None:
        self.engine.ended(exchange.pick, how, self.world.now)
        self._obey()

    def _end(self, request: Request, outcome: str) -> None:
        request.outcome = outcome
        request.ended_at = self.world.now

    # ---- the law -----------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        engine = self.engine
        while engine.outbox:
            for effect in engine.take():
                self._carry_out(effect)
        if engine.wakeup_at < self._armed_at:
            self._armed_at = engine.wakeup_at
            self.world.at(self._armed_at, self._wake, self._armed_at)
        self.unarmed += self._armed_at == inf

    def _wake(self, armed_at: float) -> None:
        if armed_at != self._armed_at:
            return  # re-armed earlier since
        self._armed_at = inf
        self.engine.wake(self.world.now)
        self._obey()

    def _carry_out(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Ask(id=ask):
                self.overlapping += len(self.asked) > len(self.told)
                self.asked.append(world.now)
                lookup = Lookup(TARGET, SEARCH, self._options, self._memory, world.now)
                world.at(world.now + self._options.lookup_timeout, self._lookup_over, (ask, None))
                self._question((ask, lookup))
            case Probe():
                pod = world.by_key[effect.endpoint.key]
                pod.dialled.append((world.now, self.number))
                wait = {"accept": CONNECT, "refuse": REFUSE, "drop": effect.timeout}[pod.dials]
                world.at(world.now + wait, self._probed, (effect.id, pod))
            case Forget(key=key):
                self._idle.pop(key, None)
            case Admit(count=count):
                for _ in range(min(count, len(self._waiting))):
                    request = self._waiting.popleft()
                    self.engine.left(world.now)
                    world.at(world.now, self._try, request)
            case Changed(change=change):
                if change.is_membership:
                    before = self.believed[-1][1] if self.believed else frozenset()
                    gone = {endpoint.key for endpoint in change.removed}
                    self.believed.append((world.now, before - gone | {endpoint.key for endpoint in change.added}))

    def _probed(self, argument: tuple[int, Pod]) -> None:
        probe, pod = argument
        self.engine.probed(probe, pod.dials == "accept", self.world.now)
        self._obey()

    def _question(self, argument: tuple[int, Lookup]) -> None:
        ask, lookup = argument
        if lookup.answer is not None:
            self._lookup_over((ask, lookup.answer))
            return
        replies: list[Reply] = []
        latest = 0.0
        for question in lookup.questions:
            after, reply = self.zone.reply(question, self.number)
            if reply is None:
                return  # the look-up's own time-out will end it
            replies.append(reply)
            latest = max(latest, after)
        self.world.at(self.world.now + latest, self._replied, (ask, lookup, replies))

    def _replied(self, argument: tuple[int, Lookup, list[Reply]]) -> None:
        ask, lookup, replies = argument
        lookup.told(replies)
        self._question((ask, lookup))

    def _lookup_over(self, argument: tuple[int, Answer | None]) -> None:
        ask, answer = argument
        if len(self.told) < ask:  # a look-up ends once: with its answer, or with its time-out
            answer = answer or Answer("dns", "no_news", why="timeout")
            self.told.append((self.world.now, answer.kind != "no_news"))
            self.engine.answered(answer, self.world.now, ask)
            self._obey()
