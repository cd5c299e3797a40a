"""`simulate`: one scenario, from a script of events to what the world's log says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headlessconn.options import Options
from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.events import Event, Stage
from headlessconn.testing.sim.traffic import Request, Traffic
from headlessconn.testing.sim.world import World
from headlessconn.testing.sim.zone import Zone


@dataclass(eq=False)
class Run:
    """What happened, by the world's log. Two runs are equal when every request fared alike, to the microsecond."""

    world: World
    zone: Zone
    clients: Sequence[SimClient]
    again: Callable[[], Run]

    @property
    def requests(self) -> list[Request]:
        return [request for client in self.clients for request in client.requests]

    @property
    def failed(self) -> int:
        """Requests that ended otherwise than well."""
        return sum(request.outcome not in ("ok", "") for request in self.requests)

    @property
    def outcomes(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for request in self.requests:
            counts[request.outcome] = counts.get(request.outcome, 0) + 1
        return counts

    def received(self, pod: str, since: float = 0.0, until: float = float("inf")) -> int:
        """How many requests reached a pod."""
        return sum(since <= at < until for at, _, _ in self.world.pods[pod].received)

    def first(self, pod: str) -> float | None:
        """When the first request reached it."""
        received = self.world.pods[pod].received
        return received[0][0] if received else None

    def attempts(self, pod: str) -> list[float]:
        """When it was dialled or sent a request."""
        found = self.world.pods[pod]
        return sorted([at for at, _ in found.dialled] + [at for at, _, _ in found.received])

    def share(self, pod: str, since: float, until: float) -> float:
        """Its part of all requests in a span, 1.0 being a fair one among the pods that got any."""
        counts = {name: self.received(name, since, until) for name in self.world.pods}
        serving = sum(count > 0 for count in counts.values())
        return counts[pod] * serving / max(1, sum(counts.values()))

    @property
    def trace(self) -> list[tuple[Any, ...]]:
        return [
            (client.number, request.id, request.at, request.ended_at, request.outcome, request.pod)
            for client in self.clients
            for request in client.requests
        ]

    def take_apart(self) -> None:
        """Break what holds its objects together in circles, so that they go at once; nothing can be read any more."""
        for part in (*self.clients, self.zone, *self.world.pods.values(), self.world):
            if hasattr(part, "__dict__"):
                part.__dict__.clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.trace == other.trace

    __hash__ = None  # type: ignore[assignment]


def simulate(
    pods: Iterable[str] = "abc",
    *,
    script: Iterable[tuple[float, Event]] = (),
    seconds: float = 30.0,
    rate: float = 100.0,
    clients: int = 1,
    ttl: float = 5.0,
    cache: float = 0.0,
    replicas: int = 1,
    latency: float = 0.002,
    patience: float = 5.0,
    jitter: bool = False,
    seed: int = 1,
    options: Options | None = None,
    traffic: Traffic | None = None,
) -> Run:
    """Run a scenario.

    pods, latency   names of the pods at the start, and seconds that each takes for a request
    script          `(at, event)`: events by the second they happen
    rate, patience  requests a second and client, and seconds after which the application gives one up
    ttl, cache      the zone's TTL, and seconds that a cache in between keeps an answer
    replicas        so many caches, asked in turn, each filled at a time of its own
    traffic         what the clients send, where `rate`, `patience` and `jitter` do not say it all
    """
    sent = traffic or Traffic(rate, patience, jitter)

    def play() -> Run:
        world = World(seed)
        zone = Zone(world, ttl, cache, replicas)
        zone.list(*(world.pod(name, latency) for name in pods))
        stage = Stage(world, zone)
        for at, event in script:
            world.at(at, lambda event: event(stage), event)
        for number in range(clients):
            client = SimClient(world, zone, options or Options(), number, sent)
            stage.clients.append(client)
            client.start(seconds)
        last = 2.0 * (options or Options()).connect_timeout if sent.holds else 0.0  # a dial, and a login
        world.run(seconds + sent.patience + last + 1.0)
        return Run(world, zone, stage.clients, play)

    return play()
