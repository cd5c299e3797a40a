"""Virtual time, and pods that live in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

from headlessconn.core.endpoint import Key, pack

if TYPE_CHECKING:
    from headlessconn.testing.sim.client import Exchange

CONNECT = 0.0002  # seconds a TCP handshake takes inside a cluster
REFUSE = 0.0001


class World:
    """A clock, and what is to happen: `at(when, act, argument)` in the order of time, then of asking.

    Pods are added with `pod(name)`. Everything random is drawn from `rng`, so a seed is a history.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.pods: dict[str, Pod] = {}
        self.by_key: dict[Key, Pod] = {}
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._sequence = 0

    def at(self, when: float, act: Callable[[Any], None], argument: Any = None) -> None:
        self._sequence = sequence = self._sequence + 1
        heappush(self._heap, (when, sequence, act, argument))

    def run(self, until: float) -> None:
        """Let time pass until `until` seconds."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, act, argument = heappop(heap)
            act(argument)
        self.now = until

    def pod(self, name: str, latency: float = 0.002, address: str | None = None) -> Pod:
        """A new pod on an address of its own, or on one that another pod had before it."""
        number = len(self.pods) + 1
        key = pack(address or f"10.244.{number >> 8}.{number & 255}", 8080)
        pod = Pod(self, name, key, latency)
        self.pods[name] = self.by_key[key] = pod
        return pod


class Pod:
    """A server with an address. Its faults are what a client would see of them.

    dials      "accept", "refuse" (nobody listens), or "drop" (no answer at all)
    serves     "well", "badly" (a 503 at once), or "never" (accepted, and then silence)
    received   every request that reached it: (time, client, request)
    dialled    every dial that was aimed at it: (time, client)
    """

    __slots__ = (
        "dialled",
        "dials",
        "error_rate",
        "generation",
        "key",
        "latency",
        "name",
        "open",
        "received",
        "serves",
        "world",
    )

    def __init__(self, world: World, name: str, key: Key, latency: float) -> None:
        self.world = world
        self.name = name
        self.key = key
        self.latency = latency
        self.dials: Literal["accept", "refuse", "drop"] = "accept"
        self.serves: Literal["well", "badly", "never"] = "well"
        self.error_rate = 0.0
        self.generation = 0  # connections of an older one are dead
        self.open: set[Exchange] = set()
        self.received: list[tuple[float, int, int]] = []
        self.dialled: list[tuple[float, int]] = []

    def crash(self) -> None:
        """The process dies: open requests are reset, connections are gone, dials are refused."""
        self.dials = "refuse"
        self._cut()

    def stop_listening(self) -> None:
        """What many servers do at SIGTERM: no new connections, idle ones closed, open requests finish."""
        self.dials = "refuse"
        self.generation += 1

    def vanish(self) -> None:
        """The node is gone: nothing answers, nothing is reset."""
        self.dials = "drop"
        self.serves = "never"

    def freeze(self) -> None:
        """The process stands still; the kernel still accepts for it."""
        self.serves = "never"

    def recover(self) -> None:
        """Well again, as a new process on the same address."""
        if self.dials != "accept" or self.serves == "never":
            self._cut()
        self.dials = "accept"
        self.serves = "well"
        self.error_rate = 0.0

    def _cut(self) -> None:
        self.generation += 1
        for exchange in sorted(self.open, key=lambda e: e.request.id):
            exchange.client.was_reset(exchange)
        self.open.clear()
