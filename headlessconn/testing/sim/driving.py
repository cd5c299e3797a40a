"""The law of drivers in virtual time: look-ups, probes and timers for one engine, and what the engine announced."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections import deque
from math import inf
from typing import NamedTuple

from headlessconn.checks import Http
from headlessconn.core.claim import Retire
from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Hurry, Move, Probe, Verify, Warm
from headlessconn.core.endpoint import NO_DIAL, Answer, How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.lookup import Lookup, Memory, Reply
from headlessconn.core.names import Search
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.testing.sim.holding import Holder
from headlessconn.testing.sim.traffic import Request
from headlessconn.testing.sim.world import CONNECT, REFUSE, SYN_AGAIN, Pod, World
from headlessconn.testing.sim.zone import Zone

TARGET = Target.parse("web.shop:8080")
SEARCH = Search.of(("shop.svc.cluster.local", "svc.cluster.local", "cluster.local"), 5)
BEAT = 0.25  # seconds between looks at our own clock, as the runtime's
STALL = 0.5  # seconds of standing still that the runtime calls a stall
SPINS = 100  # wake-ups at one instant

# What a loop that wakes up does by the clock. It reads its sockets first, but what was read wakes its task only in the
# next round, and a time-out in this one overtakes that: so either may come first.
TIMERS = frozenset(
    {
        "_arrive",
        "_lookup_over",
        "_timed_out",
        "_unanswered",
        "_wake",
        "_gave_up",
        "_overslept",
        "_dial_silent",
        "_unheard",
    }
)


class Contact(NamedTuple):
    """A dial or probe of `key` from `began_at` to `at`: OK when it came to a connection."""

    at: float
    key: Key
    began_at: float
    how: How


class Driving(ABC):
    """Obeys one engine, and keeps what a judge reads.

    asked       when each look-up began; told: when each ended, and whether it brought news
    heard       every answer as it was given to the engine: (time, answer)
    believed    the set as the engine announced it, change by change
    moves       every move of state that it announced: (time, move)
    unarmed     calls after which no wake-up was armed; wakes: how often its timer fired
    longest     the longest its queue of waiting callers was
    firsts      when each request's first attempt began
    trials      when each trial of an ejected member began, those on dead connections excepted
    contacts    every dial and probe that ended and said something of the pod
    checked_badly  when each check by HTTP began that failed
    verdicts    what `Options.verify` said: (time, of whom, whether it is the pod that is meant)
    overslept_at  when it last told the engine that its loop had stood still
    extras      when each attempt began that was more than its caller asked for: a dial beside another, a copy
    """

    def __init__(self, world: World, zone: Zone, options: Options, number: int) -> None:
        self.world = world
        self.zone = zone
        self.number = number
        self.options = options
        self.asked: list[float] = []
        self.told: list[tuple[float, bool]] = []
        self.heard: list[tuple[float, Answer]] = []
        self.overlapping = 0  # look-ups that began while another was under way
        self.believed: list[tuple[float, frozenset[Key]]] = []
        self.moves: list[tuple[float, Move]] = []
        self.unarmed = 0
        self.wakes = 0
        self.longest = 0
        self.firsts: list[float] = []
        self.trials: list[tuple[float, Key]] = []
        self.contacts: list[Contact] = []
        self.checked_badly: list[tuple[float, Key]] = []
        self.verdicts: list[tuple[float, Key, bool | None]] = []
        self.overslept_at = -inf
        self.extras: list[float] = []
        self.holder: Holder | None = None
        self.no_sockets = self.lacked_sockets = False
        self.stalled_until = -inf
        self.stalls: list[tuple[float, float]] = []
        self.engine = Engine(TARGET, options, random.Random(world.rng.getrandbits(64)), world.now)
        self._memory = Memory()
        self._idle: dict[Key, list[int]] = {}  # generations of idle connections, by pod
        self._waiting: deque[Request] = deque()
        self._armed_at = inf
        self._woken_at, self._spins = -inf, 0
        self._obeying = False

    @abstractmethod
    def begin(self, request: Request) -> None:
        """Take up a request: a new one, or one that waited."""

    @abstractmethod
    def heard_word(self) -> None:
        """A look-up has ended."""

    # ---- our own trouble ---------------------------------------------------------------------------------------

    def stall(self, seconds: float) -> None:
        """Its loop stands still: what happens meanwhile is seen afterwards, in the order of its happening or time-outs
        first."""
        world = self.world
        until = world.now + seconds
        self.stalls.append((world.now, until))
        if seconds > STALL:
            world.at(world.now + BEAT * world.rng.random(), self._overslept, seconds)
        self.stalled_until = max(self.stalled_until, until)
        owners = (self,) if self.holder is None else (self, self.holder)
        world.postpone(owners, until, TIMERS if world.rng.random() < 0.5 else frozenset())

    def _overslept(self, seconds: float) -> None:
        self.overslept_at = self.world.now
        self.engine.overslept(seconds, self.world.now)
        self.obey()

    def contact(self, pod: Pod, began_at: float, how: How) -> None:
        """A dial ended. What our own stall may have been seen as is not written down."""
        if how is How.OK or how is How.REFUSED or began_at > self.overslept_at:
            self.contacts.append(Contact(self.world.now, pod.key, began_at, how))

    # ---- the law -----------------------------------------------------------------------------------------------

    def obey(self) -> None:
        if self._obeying:
            return  # facts raised while effects are carried out wait for the loop below
        self._obeying = True
        engine = self.engine
        while engine.outbox:
            for effect in engine.take():
                self._carry_out(effect)
        self._obeying = False
        if engine.wakeup_at < self._armed_at:
            self._armed_at = engine.wakeup_at
            self.world.at(max(self._armed_at, self.stalled_until), self._wake, self._armed_at)
        self.unarmed += self._armed_at == inf

    def _wake(self, armed_at: float) -> None:
        if armed_at != self._armed_at:
            return  # re-armed earlier since
        self._armed_at = inf
        self.wakes += 1
        if self.world.now == self._woken_at:
            self._spins += 1
            if self._spins > SPINS:
                raise RuntimeError(f"client {self.number}: its engine wants to be woken again and again at {armed_at}")
        else:
            self._woken_at, self._spins = self.world.now, 0
        self.engine.wake(self.world.now)
        self.obey()

    def _carry_out(self, effect: Effect) -> None:
        world = self.world
        match effect:
            case Ask(id=ask):
                self.overlapping += len(self.asked) > len(self.told)
                self.asked.append(world.now)
                if self.no_sockets:
                    world.at(world.now, self._lookup_over, (ask, Answer("dns", "no_news", why="no sockets left")))
                    return
                lookup = Lookup(TARGET, SEARCH, self.options, self._memory, world.now)
                world.at(world.now + self.options.lookup_timeout, self._lookup_over, (ask, None))
                self._question((ask, lookup))
            case Probe():
                self._probe(effect)
            case Verify():
                self._verify(effect)
            case Forget(key=key):
                self._idle.pop(key, None)
            case Retire():
                if self.holder is not None:
                    self.holder.retire(effect)
            case Warm(claim=claim):
                if self.holder is not None:
                    self.holder.dial(claim)
            case Hurry(pick=pick):
                pick.holder.hurry()
            case Admit(count=count):
                for _ in range(min(count, len(self._waiting))):
                    request = self._waiting.popleft()
                    self.engine.left(world.now)
                    world.at(world.now, self._admitted, request)
            case Changed(change=change):
                self.moves += [(world.now, move) for move in change.moves]
                if change.is_membership:
                    before = self.believed[-1][1] if self.believed else frozenset()
                    gone = {endpoint.key for endpoint in change.removed}
                    self.believed.append((world.now, before - gone | {endpoint.key for endpoint in change.added}))

    def _admitted(self, request: Request) -> None:
        if not request.outcome:
            self.begin(request)

    def _queue(self, request: Request) -> None:
        self._waiting.append(request)
        self.longest = max(self.longest, len(self._waiting))
        self.engine.queued(self.world.now)
        self.obey()

    def _unqueue(self, request: Request) -> bool:
        """It waits no longer; False when it did not wait."""
        if request not in self._waiting:
            return False
        self._waiting.remove(request)
        self.engine.left(self.world.now)
        self.obey()
        return True

    # ---- probes and questions ----------------------------------------------------------------------------------

    def _probe(self, probe: Probe) -> None:
        """Connect, and for an HTTP check wait for an answer too."""
        world = self.world
        pod = world.by_key[probe.endpoint.key]
        if self.no_sockets:
            world.at(world.now, self._probed, (probe, pod, How.LOCAL, world.now))
            return
        pod.dialled.append((world.now, self.number))
        wait = {"accept": CONNECT, "refuse": REFUSE, "drop": probe.timeout}[pod.dials]
        if pod.loss and pod.dials == "accept" and world.rng.random() < pod.loss:
            wait += SYN_AGAIN
        how = {"accept": How.OK, "refuse": How.REFUSED, "drop": How.DIAL_TIMEOUT}[pod.dials]
        if isinstance(probe.check, Http) and how is How.OK:
            wait += min(pod.latency, probe.check.timeout)
            if pod.serves == "never":
                wait, how = wait + probe.check.timeout, How.TIMEOUT
            elif pod.serves == "badly" or world.rng.random() < pod.error_rate:
                how = How.BAD_STATUS
        world.at(world.now + wait, self._probed, (probe, pod, how, world.now))

    def _probed(self, argument: tuple[Probe, Pod, How, float]) -> None:
        probe, pod, how, began = argument
        if how is How.OK and pod.dials != "accept":
            how = How.REFUSED  # it went away meanwhile
        now = self.world.now
        self.contacts.append(Contact(now, pod.key, now, how if how in NO_DIAL else How.OK))
        if isinstance(probe.check, Http) and how is not How.OK:
            self.checked_badly.append((began, pod.key))
        self.engine.probed(probe.id, how is How.OK, now, how, how.value)
        self.obey()

    def _verify(self, wish: Verify) -> None:
        pod = self.world.by_key[wish.endpoint.key]
        meant = pod.ours if pod.dials == "accept" and pod.serves != "never" else None
        self.world.at(self.world.now + CONNECT, self._verified, (wish.id, pod, meant))

    def _verified(self, argument: tuple[int, Pod, bool | None]) -> None:
        question, pod, meant = argument
        self.verdicts.append((self.world.now, pod.key, meant))
        self.engine.verified(question, meant, self.world.now)
        self.obey()

    # ---- look-ups ----------------------------------------------------------------------------------------------

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
            now = self.world.now
            self.told.append((now, answer.kind != "no_news"))
            self.heard.append((now, answer))
            self.engine.answered(answer, now, ask)
            self.obey()
            self.heard_word()
