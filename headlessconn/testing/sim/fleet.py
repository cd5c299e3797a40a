"""A fleet of processes with a few long-lived connections each, in virtual time: where they are, and which ones move.

    from headlessconn.testing.sim.fleet import Fleet

    fleet = Fleet(processes=1000, connections=2, pods=3)
    fleet.run(30.0)
    fleet.scale(6)
    fleet.run(100.0)
    assert fleet.moved(since=30.0) <= 1.05 * fleet.least_moves(at=30.0)

Each process has an engine, as it runs in production, and a pool as small as can be: so many connections, each used now
and then, and opened again when it was closed. What happened is read from the fleet's own log of openings and closings.
A thousand processes and a minute take a second or two.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from math import inf
from typing import Literal, NamedTuple

from headlessconn.core.claim import KEEP, Claim, ConnId, Retire
from headlessconn.core.effects import Ask, Probe, Warm
from headlessconn.core.endpoint import Answer, How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.testing.sim.world import CONNECT, REFUSE, Pod, World

TARGET = Target.parse("db.shop:3306")
LOOKUP = 0.001  # seconds that DNS takes
LOGIN = 0.002  # seconds from a TCP connection to one that is ready
BACK_OFF = 0.5  # seconds after a failed dial
TTL = 5.0

What = Literal["dial", "open", "close", "break"]


class Fact(NamedTuple):
    """One line of the log."""

    at: float
    what: What
    process: int
    pod: str


class Link:
    """A connection as a pool holds it."""

    __slots__ = ("busy", "conn", "generation", "over", "pod")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.generation = pod.generation
        self.conn: ConnId = 0
        self.busy = False
        self.over = False


class Process:
    """One pool of `size` connections over one engine; it obeys the law of drivers."""

    def __init__(self, fleet: Fleet, number: int, options: Options) -> None:
        self.fleet = fleet
        self.number = number
        self.links: dict[ConnId, Link] = {}
        self.dialling = 0
        self.hears_after = fleet.lag * fleet.world.rng.random()  # how old what its DNS says is
        self._options = options
        self._rng = random.Random(fleet.world.rng.getrandbits(64))
        self._waits = False
        self._armed_at = inf

    def start(self, _: None = None) -> None:
        world = self.fleet.world
        self.engine = Engine(TARGET, self._options, random.Random(self._rng.getrandbits(64)), world.now)
        self._obey()
        self._fill()

    # ---- the pool ----------------------------------------------------------------------------------------------

    def _fill(self, _: None = None) -> None:
        """Dial as many as are lacking. A replacement is dialled beside the one that it replaces."""
        self._waits = False
        now = self.fleet.world.now
        while len(self.links) + self.dialling < self.fleet.connections:
            claim = self.engine.place(now)
            self._obey()
            if not isinstance(claim, Claim):
                self._fill_later()
                return
            self.dialling += 1
            self._dial(claim)

    def _fill_later(self) -> None:
        if not self._waits:
            self._waits = True
            self.fleet.world.at(self.fleet.world.now + BACK_OFF, self._fill)

    def _dial(self, claim: Claim) -> None:
        world = self.fleet.world
        pod = world.by_key[claim.key]
        self.fleet.note("dial", self.number, pod)
        if pod.dials == "accept":
            world.at(world.now + CONNECT + LOGIN, self._dialled, claim)
        elif pod.dials == "refuse":
            world.at(world.now + REFUSE, self._dialled, claim)
        else:
            world.at(world.now + self._options.connect_timeout, self._dialled, claim)

    def _dialled(self, claim: Claim) -> None:
        world, engine = self.fleet.world, self.engine
        pod = world.by_key[claim.key]
        replaces = claim.replaces is not None
        if pod.dials != "accept":
            engine.failed(claim, How.REFUSED if pod.dials == "refuse" else How.DIAL_TIMEOUT, world.now)
            self._obey()
            if not replaces:
                self.dialling -= 1
                self._fill_later()
            return
        link = Link(pod)
        if not replaces:
            self.dialling -= 1
        link.conn = engine.opened(claim, world.now, pushes=self.fleet.pushes, warms=self.fleet.warms)
        self.links[link.conn] = link
        self.fleet.links[pod].add(link)
        self.fleet.note("open", self.number, pod)
        self._obey()
        if not self.fleet.pushes:
            self._back(link)
            if not link.over:
                world.at(world.now + self.fleet.pause * 2.0 * self._rng.random(), self._use, link)

    def _use(self, link: Link) -> None:
        """Somebody takes it for a while, unless it should go."""
        if link.over:
            return
        world = self.fleet.world
        said = self.engine.checked_out(link.conn, world.now)
        if self.engine.outbox:
            self._obey()
        if link.conn not in self.links:
            return
        if said is not KEEP:
            self._close(link)
            return
        link.busy = True
        world.at(world.now + self.fleet.work * 2.0 * self._rng.random(), self._used, link)

    def _used(self, link: Link) -> None:
        if link.over:
            return
        link.busy = False
        self._back(link)
        if not link.over:
            world = self.fleet.world
            world.at(world.now + self.fleet.pause * 2.0 * self._rng.random(), self._use, link)

    def _back(self, link: Link) -> None:
        said = self.engine.checked_in(link.conn, self.fleet.world.now)
        if self.engine.outbox or self.engine.wakeup_at < self._armed_at:
            self._obey()
        if said is not KEEP and not link.over:
            self._close(link)

    def _close(self, link: Link, how: How = How.OK) -> None:
        link.over = True
        del self.links[link.conn]
        self.fleet.links[link.pod].discard(link)
        self.fleet.note("close" if how is How.OK else "break", self.number, link.pod)
        self.engine.closed(link.conn, self.fleet.world.now, how)
        self._obey()
        self._fill()

    def broke(self, link: Link) -> None:
        """The pod died under it."""
        if not link.over:
            self._close(link, How.RESET if link.busy or self.fleet.pushes else How.RESET_REUSED)

    # ---- the law -----------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        engine, world = self.engine, self.fleet.world
        while engine.outbox:
            for effect in engine.take():
                match effect:
                    case Ask(id=ask):
                        world.at(world.now + LOOKUP, self._answer, ask)
                    case Probe():
                        pod = world.by_key[effect.endpoint.key]
                        wait = {"accept": CONNECT, "refuse": REFUSE, "drop": effect.timeout}[pod.dials]
                        world.at(world.now + wait, self._probed, (effect.id, pod))
                    case Retire(conn=conn):
                        if conn in self.links:
                            world.at(world.now, self._retired, self.links[conn])
                    case Warm(claim=claim):
                        self._dial(claim)
        if engine.wakeup_at < self._armed_at:
            self._armed_at = engine.wakeup_at
            world.at(self._armed_at, self._wake, self._armed_at)

    def _wake(self, armed_at: float) -> None:
        if armed_at == self._armed_at:
            self._armed_at = inf
            self.engine.wake(self.fleet.world.now)
            self._obey()

    def _retired(self, link: Link) -> None:
        """Closed at once if it is idle still; else its check-in says so again."""
        if not link.over and not link.busy:
            self._close(link)

    def _answer(self, ask: int) -> None:
        now = self.fleet.world.now
        keys = self.fleet.said(now - self.hears_after)
        if keys:
            answer = Answer("dns", "records", keys, ttl=TTL, why="NOERROR")
        else:
            answer = Answer("dns", "nobody", ttl=TTL, why="NXDOMAIN")
        self.engine.answered(answer, now, ask)
        self._obey()

    def _probed(self, argument: tuple[int, Pod]) -> None:
        probe, pod = argument
        self.engine.probed(probe, pod.dials == "accept", self.fleet.world.now)
        self._obey()


class Fleet:
    """`processes` pools of `connections` each.

    pods           how many there are at first: named "1", "2" …
    warms, pushes  whether holders open replacements first, and whether they never check in
    work, pause    mean seconds a connection is in use, and is not
    lag            the oldest that what a process hears from DNS may be: each has an age of its own
    """

    def __init__(
        self,
        processes: int = 1000,
        connections: int = 1,
        pods: int = 3,
        *,
        warms: bool = True,
        pushes: bool = False,
        work: float = 0.5,
        pause: float = 10.0,
        lag: float = 0.0,
        seed: int = 1,
        options: Options | None = None,
    ) -> None:
        self.world = World(seed)
        self.connections = connections
        self.warms, self.pushes, self.work, self.pause, self.lag = warms, pushes, work, pause, lag
        self.log: list[Fact] = []
        self.links: dict[Pod, set[Link]] = {}
        self.listed: dict[str, Pod] = {}
        self._truth: list[tuple[float, frozenset[Key]]] = []
        self.scale(pods)
        self.processes = [Process(self, number, options or Options()) for number in range(processes)]
        for process in self.processes:
            self.world.at(TTL * self.world.rng.random(), process.start)

    # ---- what happens ------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Let time pass until `until` seconds."""
        self.world.run(until)

    def scale(self, pods: int) -> None:
        """So many are listed now. The newest leave first; what left serves on, and ends when it is empty."""
        while len(self.listed) > pods:
            del self.listed[next(reversed(self.listed))]
        while len(self.listed) < pods:
            name = str(len(self.world.pods) + 1)
            pod = self.listed[name] = self.world.pod(name)
            self.links[pod] = set()
        self._note_truth()

    def unlist(self, pod: str) -> None:
        """Out of DNS, and otherwise well."""
        del self.listed[pod]
        self._note_truth()

    def relist(self, pod: str) -> None:
        self.listed[pod] = self.world.pods[pod]
        self._note_truth()

    def crash(self, pod: str) -> None:
        """The process dies: its connections break, dials are refused."""
        dead = self.world.pods[pod]
        dead.crash()
        for process in self.processes:
            for link in list(process.links.values()):
                if link.pod is dead:
                    process.broke(link)

    def recover(self, pod: str) -> None:
        self.world.pods[pod].recover()

    # ---- what happened -----------------------------------------------------------------------------------------

    def note(self, what: What, process: int, pod: Pod) -> None:
        self.log.append(Fact(self.world.now, what, process, pod.name))

    def said(self, at: float) -> frozenset[Key]:
        """What was listed then."""
        return next((keys for since, keys in reversed(self._truth) if since <= at), self._truth[0][1])

    def held(self, at: float = inf, process: int | None = None) -> Counter[str]:
        """How many connections each pod held at a time: by all processes, or by one."""
        counts: Counter[str] = Counter()
        for fact in self.log:
            if fact.at <= at and fact.what != "dial" and process in (None, fact.process):
                counts[fact.pod] += 1 if fact.what == "open" else -1
        return counts

    def facts(self, what: What, since: float = 0.0, until: float = inf, pod: str | None = None) -> Iterator[Fact]:
        """The lines of one kind, of one pod or of all."""
        return (f for f in self.log if f.what == what and since <= f.at < until and pod in (None, f.pod))

    def moved(self, since: float = 0.0, until: float = inf) -> int:
        """How many connections were closed that worked."""
        return sum(1 for _ in self.facts("close", since, until))

    def least_moves(self, at: float) -> float:
        """How many connections would have to go elsewhere so that the pods listed now hold the same, if one hand could
        move those that were held at a time."""
        before = self.held(at)
        fair = sum(before.values()) / len(self.listed)
        return sum(max(0.0, fair - before[pod]) for pod in self.listed)

    def busiest_to_idlest(self, at: float = inf) -> float:
        """Of the pods that were listed then."""
        held = self.held(at)
        counts = [held[self.world.by_key[key].name] for key in self.said(at)]
        return max(counts) / max(1, min(counts))

    def worst_second(self, pod: str, since: float) -> float:
        """The most dials within any second at a pod, as a part of what it holds in the end."""
        dials = [fact.at for fact in self.facts("dial", since, pod=pod)]
        most = first = 0
        for last, at in enumerate(dials):
            while dials[first] <= at - 1.0:
                first += 1
            most = max(most, last - first + 1)
        return most / max(1, self.held()[pod])

    def _note_truth(self) -> None:
        self._truth.append((self.world.now, frozenset(pod.key for pod in self.listed.values())))
