"""Virtual time, and pods that live in it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from headlessconn.core.endpoint import Key, address_of, pack

if TYPE_CHECKING:
    from headlessconn.testing.sim.holding import Link
    from headlessconn.testing.sim.traffic import Exchange

CONNECT = 0.0002  # seconds a TCP handshake takes inside a cluster
REFUSE = 0.0001
SYN_AGAIN = 1.0  # seconds after which the kernel repeats a SYN that was lost
PORT = 8080
LAST = 1 << 62  # after all that happens at the same moment


def _end(_: Any) -> None:
    """Stands in the calendar where a run ends."""


class World:
    """A clock, and what is to happen: `at(when, act, argument)` in the order of time, then of asking.

    Pods are added with `pod(name)`. Everything random is drawn from `rng`, so a seed is a history.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.wall = 0.0  # what a wall clock shows beyond `now`; nobody may look at it
        self.pods: dict[str, Pod] = {}
        self.by_key: dict[Key, Pod] = {}
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._sequence = 0

    def at(self, when: float, act: Callable[[Any], None], argument: Any = None) -> None:
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (when, sequence, act, argument))

    def run(self, until: float) -> None:
        """Let time pass until `until` seconds."""
        heap, pop = self._heap, heappop
        collects = gc.isenabled()
        gc.disable()  # a world makes no garbage in cycles, and looking for some takes a quarter of the time
        try:
            heappush(heap, (until, LAST, _end, None))
            while True:
                self.now, _, act, argument = pop(heap)
                if act is _end:
                    break
                act(argument)
        finally:
            if collects:
                gc.enable()
        self.now = until

    def postpone(self, owners: tuple[object, ...], until: float, first: frozenset[str] = frozenset()) -> None:
        """Whatever `owners` were to do before `until` they do then, in the same order: their loop stands still. What is
        named in `first` comes before all else."""
        late = [entry for entry in self._heap if entry[0] < until and getattr(entry[2], "__self__", None) in owners]
        if not late:
            return
        gone = set(map(id, late))
        self._heap[:] = [entry for entry in self._heap if id(entry) not in gone]
        late.sort(key=lambda entry: (entry[2].__name__ not in first, entry[0], entry[1]))
        for _, _, act, argument in late:
            self._sequence += 1
            self._heap.append((until, self._sequence, act, argument))
        heapify(self._heap)

    def pod(self, name: str, latency: float = 0.002, address: str | None = None) -> Pod:
        """A new pod on an address of its own, or on one that another pod had before it."""
        number = len(self.pods) + 1
        key = pack(address or f"10.244.{number >> 8}.{number & 255}", PORT)
        pod = Pod(self, name, key, latency)
        before = self.by_key.get(key)
        if before is not None:
            pod.generation = before.generation + 1
            pod.quiet = before.quiet | ({before.generation} if before.dials == "drop" else set())
        self.pods[name] = self.by_key[key] = pod
        return pod


class Health(NamedTuple):
    """What a client would find at a pod from `at` on."""

    at: float
    well: bool
    accepts: bool
    generation: int


class Pod:
    """A server with an address. Its faults are what a client would see of them.

    dials      "accept", "refuse" (nobody listens), or "drop" (no answer at all)
    serves     "well", "badly" (a 503 at once), or "never" (accepted, and then silence)
    loss       the part of SYNs that are lost on the way; the kernel repeats each after a second
    ours       False for a pod of another Service, on an address that one of ours had
    received   every request that reached it: (time, client, request)
    dialled    every dial that was aimed at it: (time, client)
    history    what it was like, change by change
    """

    __slots__ = (
        "dialled",
        "dials",
        "error_rate",
        "generation",
        "held",
        "history",
        "key",
        "latency",
        "links",
        "loss",
        "name",
        "open",
        "ours",
        "quiet",
        "received",
        "serves",
        "usual",
        "world",
    )

    def __init__(self, world: World, name: str, key: Key, latency: float) -> None:
        self.world = world
        self.name = name
        self.key = key
        self.latency = self.usual = latency
        self.dials: Literal["accept", "refuse", "drop"] = "accept"
        self.serves: Literal["well", "badly", "never"] = "well"
        self.error_rate = 0.0
        self.loss = 0.0
        self.ours = True
        self.generation = 0  # connections of an older one are dead
        self.quiet: set[int] = set()  # generations whose end no FIN told: the other side finds out by writing
        self.open: dict[Exchange, bool] = {}  # in the order of their coming
        self.links: dict[Link, None] = {}  # long-lived connections
        self.held: list[Exchange] = []  # whose answers a standing process owes
        self.received: list[tuple[float, int, int]] = []
        self.dialled: list[tuple[float, int]] = []
        self.history: list[Health] = []
        self.note()

    @property
    def address(self) -> str:
        return address_of(self.key)

    @property
    def is_well(self) -> bool:
        """Whether a request that comes now is answered as it should be."""
        return (
            self.dials == "accept"
            and self.serves == "well"
            and not self.error_rate
            and not self.loss
            and self.latency <= self.usual
            and self.ours
        )

    def note(self) -> None:
        """Write down what it is like from now on."""
        self.history.append(Health(self.world.now, self.is_well, self.dials == "accept", self.generation))

    def crash(self) -> None:
        """The process dies: open requests are reset, connections are gone, dials are refused."""
        self.dials = "refuse"
        self._cut()
        self.note()

    def stop_listening(self) -> None:
        """What many servers do at SIGTERM: no new connections, idle ones closed, open requests finish."""
        self.dials = "refuse"
        self.generation += 1
        self.note()

    def vanish(self) -> None:
        """The node is gone: nothing answers, nothing is reset."""
        self.dials = "drop"
        self.serves = "never"
        self.note()

    def freeze(self) -> None:
        """The process stands still; the kernel still accepts for it."""
        self.serves = "never"
        self.note()

    def sour(self, rate: float) -> None:
        """It answers 503, at once, to this part of its requests."""
        self.serves = "badly" if rate >= 1.0 else "well"
        self.error_rate = rate
        self.note()

    def slow(self, latency: float) -> None:
        """Answers take this many seconds from now on."""
        self.latency = latency
        self.note()

    def lose(self, rate: float) -> None:
        """This part of the SYNs is lost from now on."""
        self.loss = rate
        self.note()

    def thaw(self) -> None:
        """The process goes on where it stood, and answers what it owes."""
        if self.serves != "never" or self.dials != "accept":
            return
        self.serves = "well"
        held, self.held = self.held, []
        for exchange in held:
            exchange.client.will_answer(exchange)
        self.note()

    def be_foreign(self) -> None:
        """It belongs to another Service."""
        self.ours = False
        self.note()

    def recover(self) -> None:
        """Well again, as a new process on the same address."""
        if self.dials == "drop":
            self.quiet.add(self.generation)
        if self.dials != "accept" or self.serves == "never":
            self._cut()
        self.dials = "accept"
        self.serves = "well"
        self.error_rate = self.loss = 0.0
        self.note()

    def _cut(self) -> None:
        self.generation += 1
        cut = list(self.open)
        self.open.clear()
        self.held.clear()
        for exchange in cut:
            exchange.client.was_reset(exchange)
        links, self.links = list(self.links), {}
        for link in links:
            link.holder.broke(link)
