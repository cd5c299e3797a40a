"""A simulated application: it sends requests through a real engine, as the adapters do.

Keep-alive connections by pod; what happens after a failed dial, a broken exchange or a bad answer, and beside a silent
one, is for `core/attempts.py` to say.
"""

from __future__ import annotations

import random
from collections import defaultdict
from math import inf

from headlessconn.core.endpoint import How
from headlessconn.core.pick import CONNECTED, HURRIED, TRIAL, Nobody, Pick
from headlessconn.options import Options
from headlessconn.testing.sim.driving import Driving
from headlessconn.testing.sim.holding import Holder
from headlessconn.testing.sim.traffic import Exchange, Request, Traffic
from headlessconn.testing.sim.world import CONNECT, REFUSE, SYN_AGAIN, Pod, World
from headlessconn.testing.sim.zone import Zone

ANOTHER = 1.5  # seconds that a request waits for another set when all pods of this one refused it, as the adapters do
AGAIN = 0.25  # seconds after which a silent request is looked at again, when nothing could be done for it
STREAM = 20.0  # seconds a stream lasts at most

_OK = How.OK


class SimClient(Driving):
    """One process of the application.

    finished   exchanges that ended
    picked     when each exchange with a pod began
    """

    def __init__(
        self, world: World, zone: Zone, options: Options, number: int = 0, traffic: Traffic | None = None
    ) -> None:
        super().__init__(world, zone, options, number)
        traffic = traffic or Traffic()
        self.traffic = traffic
        self.patience = traffic.patience
        self.requests: list[Request] = []
        self.finished = 0
        self.picked: defaultdict[Pod, list[float]] = defaultdict(list)
        self._listening: dict[Request, Exchange] = {}
        self._random = world.rng.random
        self._jitter = random.Random(world.rng.getrandbits(64)).random if traffic.jitter else None
        lanes = [self.engine.lane(f"{times:g}") for times in traffic.lanes]
        self._kinds = traffic.deal(lanes, random.Random(world.rng.getrandbits(64)))
        self._gap = 1.0 / traffic.rate
        self._cancelled = traffic.cancelled
        self._hedge_after = traffic.hedge_after
        self._until = -1.0
        if traffic.holds:
            self.holder = Holder(self, traffic.holds)
        self.obey()

    # ---- arriving ----------------------------------------------------------------------------------------------

    def start(self, until: float) -> None:
        """Send requests from now on until `until`."""
        self._until = until
        if self.holder is not None:
            self.holder.fill()
            self.world.at(until, self.holder.close)
        self.world.at(self.world.now + self._gap * self._random(), self._arrive)

    def _arrive(self, _: None) -> None:
        world = self.world
        now = world.now
        if now > self._until:
            return
        gap = self._gap if self._jitter is None else self._gap * 2.0 * self._jitter()
        world.at(now + gap, self._arrive)
        request = Request(len(self.requests), now, now + self.patience, next(self._kinds))
        self.requests.append(request)
        if self._cancelled and self._random() < self._cancelled:
            after = self._random() * 4.0 * request.kind.times * 0.002 if self._random() < 0.7 else self._random()
            world.at(now + after, self._called_off, request)
        self.begin(request)

    def begin(self, request: Request) -> None:
        if request.at != self.world.now:
            self._watch(request)  # it has waited, so its deadline may be near
        engine, now = self.engine, self.world.now
        pick = engine.pick(now)
        if isinstance(pick, Nobody):
            if engine.waiting >= self.options.max_waiting:
                self._end(request, "overloaded")
                return
            self._queue(request)
            self.world.at(min(now + self.options.wait_for_endpoints, request.deadline), self._gave_up, request)
        else:
            self.firsts.append(now)
            if pick.flags & TRIAL:
                self.trials.append((now, pick.member.key))
            self._go(request, pick)
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self.obey()

    def _gave_up(self, request: Request) -> None:
        if self._unqueue(request):
            self._end(request, "no endpoints")

    def _called_off(self, request: Request) -> None:
        """Its caller goes away."""
        self._cut(request, How.CANCELLED, "called off")

    def hang_up(self, part: float) -> None:
        """This part of the callers that wait for anything go away at once."""
        for request in self.requests[-200:]:
            if not request.outcome and self._random() < part:
                self._called_off(request)

    # ---- dialling ----------------------------------------------------------------------------------------------

    def _go(self, request: Request, pick: Pick, instead: bool = False) -> None:
        """Use a connection to the picked pod, or dial one. `instead` of an attempt that was not sent."""
        if request.attempts is not None and not instead:
            self.extras.append(self.world.now)
        key = pick.member.key
        pod = self.world.by_key[key]
        exchange = Exchange(self, request, pick, pod, self.world.now)
        pick.holder = exchange
        pick.lane = request.kind.lane
        request.open += (exchange,)
        self.picked[pod].append(exchange.began_at)
        idle = self._idle.get(key)
        while idle:
            generation = idle.pop()
            pick.flags |= CONNECTED
            if generation == pod.generation:
                self._send(exchange)
                return
            if generation in pod.quiet:
                exchange.generation = generation
                self.world.at(self.world.now + CONNECT, self._broken_at_once, exchange)
                return
            pick.flags &= ~CONNECTED  # the other end has closed it, which is seen before anything is sent
        self._dial(exchange)

    def _dial(self, exchange: Exchange) -> None:
        world, pod, request = self.world, exchange.pod, exchange.request
        now = world.now
        if self.no_sockets:
            world.at(now, self._no_socket, exchange)
            return
        pod.dialled.append((now, self.number))
        if pod.dials == "refuse":
            world.at(now + REFUSE, self._refused, exchange)
            return
        if pod.dials == "accept" and not (pod.loss and self._random() < pod.loss):
            world.at(now + CONNECT, self._connected, exchange)
            return
        if pod.dials == "accept":
            world.at(now + SYN_AGAIN + CONNECT, self._connected, exchange)
        world.at(now + self.options.connect_timeout, self._unanswered, exchange)
        world.at(now + self.options.race_after, self._dial_silent, exchange)
        self._watch(request)

    def _connected(self, exchange: Exchange) -> None:
        pod, now = exchange.pod, self.world.now
        if exchange.over:
            return
        if pod.dials != "accept":  # it went away during the handshake
            self._refused(exchange)
            return
        exchange.generation = pod.generation
        self.contact(pod, exchange.began_at, _OK)
        self.engine.dialled(exchange.pick, _OK, now)
        self._send(exchange)
        self.obey()

    def _refused(self, exchange: Exchange) -> None:
        self._dial_failed(exchange, How.REFUSED)

    def _unanswered(self, exchange: Exchange) -> None:
        if exchange.sent_at == inf:
            self._dial_failed(exchange, How.DIAL_TIMEOUT)

    def _dial_failed(self, exchange: Exchange, how: How) -> None:
        if exchange.over:
            return
        request, now = exchange.request, self.world.now
        self.contact(exchange.pod, exchange.began_at, how)
        self.engine.dialled(exchange.pick, how, now)
        self._finish(exchange, how)
        attempts = request.company(exchange, self._hedge_after)
        found = attempts.after_dial(exchange.pick, now)
        if found is None and request.open:
            found = attempts.beside_dial(now)  # those under way may be silent ones
            if found is not None:
                self._go(request, found)
            self.obey()
            return
        if found is None and now < request.deadline:
            self._listening[request] = exchange  # all have just failed, which has hinted a look-up: hear its end
            self._watch(request)
            self.world.at(now + ANOTHER, self._unheard, request)
            self.obey()
            return
        self._next(request, found, "no pod accepts", instead=True)

    def heard_word(self) -> None:
        """A look-up has ended: the set may be another one."""
        listening, self._listening = self._listening, {}
        for request, exchange in listening.items():
            if not request.outcome:
                attempts = request.company(exchange, self._hedge_after)
                self._next(request, attempts.another(self.world.now), "no pod accepts", instead=True)

    def _unheard(self, request: Request) -> None:
        if self._listening.pop(request, None) is not None and not request.outcome:
            self._end(request, "no pod accepts")

    def _dial_silent(self, exchange: Exchange) -> None:
        """Nothing was heard of a dial for a while: another beside it."""
        request, now = exchange.request, self.world.now
        if exchange.over or exchange.sent_at != inf:
            return
        self.world.at(now + self.options.race_after, self._dial_silent, exchange)
        if exchange is request.open[-1]:
            found = request.company(exchange, self._hedge_after).beside_dial(now)
            if found is not None:
                self._go(request, found)
            self.obey()

    def _no_socket(self, exchange: Exchange) -> None:
        """EMFILE: our own trouble, and the same with any other pod."""
        if not exchange.over:
            self._finish(exchange, How.LOCAL)
            if exchange.request.attempts is not None:
                exchange.request.attempts.after_dial(exchange.pick, inf)
            self._next(exchange.request, None, "no sockets left")

    # ---- sent --------------------------------------------------------------------------------------------------

    def _send(self, exchange: Exchange) -> None:
        pod, world, request = exchange.pod, self.world, exchange.request
        exchange.sent_at = now = world.now
        if request.attempts is not None:
            self._first_to_connect(exchange)
            request.attempts.went(exchange.pick)
        pod.received.append((now, self.number, request.id))
        request.pod = pod.name
        pod.open[exchange] = True
        if pod.serves == "never":
            self._hold(exchange)
            return
        at = now + pod.latency * request.kind.times * (0.75 + 0.5 * self._random())
        if self._hedge_after is not None and at > now + self._hedge_after:
            world.at(now + self._hedge_after, self._hedge, exchange)
        if at >= request.deadline:
            self._watch(request)
        world.at(at, self._answered, exchange)

    def _first_to_connect(self, exchange: Exchange) -> None:
        """It has a connection, so dials that race with it are given up; copies of what was sent go on."""
        request, now = exchange.request, self.world.now
        if request.attempts is not None and all(
            other.sent_at == inf for other in request.open if other is not exchange
        ):
            for loser in [other for other in request.open if other is not exchange]:
                self._finish(loser, How.CANCELLED)
                request.attempts.after_dial(loser.pick, now)

    def _hold(self, exchange: Exchange) -> None:
        """Its pod stands still, and owes the answer."""
        exchange.pod.held.append(exchange)
        self._watch(exchange.request)
        if self._hedge_after is not None:
            self.world.at(max(self.world.now, exchange.sent_at + self._hedge_after), self._hedge, exchange)

    def will_answer(self, exchange: Exchange) -> None:
        """A pod that stood still goes on."""
        if exchange in exchange.pod.open:
            at = self.world.now + exchange.pod.latency * self._random()
            self.world.at(max(at, self.stalled_until), self._answered, exchange)

    def _answered(self, exchange: Exchange) -> None:
        pod, request = exchange.pod, exchange.request
        if not pod.open.pop(exchange, False):
            return  # reset or given up meanwhile
        if pod.serves == "never":
            pod.open[exchange] = True
            self._hold(exchange)
            return
        bad = pod.serves == "badly" or (pod.error_rate > 0.0 and self._random() < pod.error_rate)
        engine, pick, now = self.engine, exchange.pick, self.world.now
        engine.responded(pick, bad, now)
        if request.kind.streams and not bad:
            engine.streams(pick)
            exchange.streaming = True
            pod.open[exchange] = True
            self.world.at(min(now + STREAM * self._random(), self._until), self._stream_over, exchange)
        else:
            engine.ended(pick, _OK, now)
            pick.holder = None
            exchange.over = True
            self.finished += 1
            if exchange.generation == pod.generation and pick.is_listed:
                key = pick.member.key
                if key in self._idle:
                    self._idle[key].append(exchange.generation)
                else:
                    self._idle[key] = [exchange.generation]
        if bad or request.attempts is not None:
            request.open = tuple(other for other in request.open if other is not exchange)
            self._answered_in_company(exchange, bad)
        else:
            request.open = ()
            request.outcome = "ok"
            request.ended_at = now
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self.obey()

    def _answered_in_company(self, exchange: Exchange, bad: bool) -> None:
        request, now = exchange.request, self.world.now
        attempts = request.company(exchange, self._hedge_after)
        if bad:
            request.troubles += (exchange.trouble(How.BAD_STATUS),)
            self._next(request, attempts.after_bad(exchange.pick, now), "bad status")
            return
        attempts.won(exchange.pick)
        for loser in request.open:
            self._finish(loser, How.CANCELLED)
        request.pod = exchange.pod.name
        self._end(request, "ok")

    def _stream_over(self, exchange: Exchange) -> None:
        if exchange in exchange.pod.open:
            self._finish(exchange, _OK)
            self.obey()

    def was_reset(self, exchange: Exchange) -> None:
        """The pod died under it."""
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, self._broken, exchange)
        else:
            self._broken(exchange)

    def _broken(self, exchange: Exchange) -> None:
        self._broke(exchange, How.RESET)

    def _broken_at_once(self, exchange: Exchange) -> None:
        """A kept connection whose other end vanished without a word: the first byte that is written tells."""
        if not exchange.over:
            trial = (exchange.began_at, exchange.pick.member.key)
            if trial in self.trials:
                self.trials.remove(trial)  # it proved nothing
            self._broke(exchange, How.RESET_REUSED)

    def _broke(self, exchange: Exchange, how: How) -> None:
        if exchange.over:
            return
        request = exchange.request
        self._finish(exchange, how)
        if not exchange.streaming:
            attempts = request.company(exchange, self._hedge_after)
            self._next(request, attempts.after_break(exchange.pick, self.world.now), "reset")
        self.obey()

    def hurried(self, exchange: Exchange) -> None:
        """Its pod is silent, says the engine."""
        self._copy(exchange)

    def _hedge(self, exchange: Exchange) -> None:
        if not exchange.over and not exchange.streaming:
            exchange.pick.flags |= HURRIED
            self._copy(exchange)
            self.obey()

    def _copy(self, exchange: Exchange) -> None:
        request = exchange.request
        if exchange.over or request.outcome:
            return
        found = request.company(exchange, self._hedge_after).beside(self.world.now)
        if found is not None:
            self._watch(request)
            self._go(request, found)
        elif request.kind.repeatable and len(request.open) == 1:  # nobody else, or nothing left in the budget
            self.world.at(self.world.now + AGAIN, self._hedge, exchange)

    # ---- ends --------------------------------------------------------------------------------------------------

    def _next(self, request: Request, found: Pick | None, otherwise: str, instead: bool = False) -> None:
        """Another attempt; else the request ends so, unless one is still under way."""
        if found is not None:
            self._watch(request)
            self._go(request, found, instead)
        elif not request.open and not request.outcome:
            self._end(request, "timed out" if self.world.now >= request.deadline else otherwise)
        self.obey()

    def _watch(self, request: Request) -> None:
        """It may last until its deadline."""
        if not request.timed:
            request.timed = True
            self.world.at(max(self.world.now, request.deadline), self._timed_out, request)

    def _timed_out(self, request: Request) -> None:
        self._cut(request, self.traffic.gives_up, "timed out")

    def _cut(self, request: Request, how: How, outcome: str) -> None:
        """The request is over, whatever is under way for it."""
        if request.outcome:
            return
        self._unqueue(request)
        self._listening.pop(request, None)
        for exchange in request.open:
            self._finish(exchange, how if exchange.sent_at != inf else How.CANCELLED)
        self._end(request, outcome)
        self.obey()

    def _finish(self, exchange: Exchange, how: How) -> None:
        now, request = self.world.now, exchange.request
        exchange.over = True
        exchange.pod.open.pop(exchange, None)
        self.finished += 1
        if exchange in request.open:
            request.open = tuple(other for other in request.open if other is not exchange)
            request.troubles += (exchange.trouble(how),)
        exchange.pick.holder = None
        self.engine.ended(exchange.pick, how, now)

    def _end(self, request: Request, outcome: str) -> None:
        request.outcome = outcome
        request.ended_at = self.world.now
