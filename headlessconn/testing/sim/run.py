"""`simulate`: one scenario, from a script of events to what the world's log says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headlessconn.options import Options
from headlessconn.testing.sim.client import Request, SimClient
from headlessconn.testing.sim.world import World
from headlessconn.testing.sim.zone import Trouble, Zone


@dataclass
class Stage:
    """What events act on."""

    world: World
    zone: Zone
    clients: list[SimClient] = field(default_factory=list)


Event: TypeAlias = Callable[[Stage], None]


def add(name: str, latency: float = 0.002) -> Event:
    """A new pod, ready and listed."""
    return lambda stage: stage.zone.list(stage.world.pod(name, latency))


def drain(name: str, grace: float = 5.0, listens: bool = True) -> Event:
    """As Kubernetes deletes a pod: out of DNS and SIGTERM at once, and the end after `grace` seconds.

    `listens`: False for a server that closes its listener at SIGTERM.
    """

    def event(stage: Stage) -> None:
        pod = stage.world.pods[name]
        stage.zone.unlist(pod)
        if not listens:
            pod.stop_listening()
        stage.world.at(stage.world.now + grace, lambda _: pod.crash())

    return event


def unlist(name: str) -> Event:
    """Out of DNS, and otherwise well: a readiness flap."""
    return lambda stage: stage.zone.unlist(stage.world.pods[name])


def crash(name: str) -> Event:
    """The process dies; DNS goes on listing it."""
    return lambda stage: stage.world.pods[name].crash()


def black_hole(name: str) -> Event:
    """The node is gone: no answer to anything; DNS goes on listing it."""
    return lambda stage: stage.world.pods[name].vanish()


def freeze(name: str) -> Event:
    """The process stands still: it accepts, and no byte follows."""
    return lambda stage: stage.world.pods[name].freeze()


def sour(name: str, rate: float = 1.0) -> Event:
    """It answers 503, at once, to this part of its requests."""

    def event(stage: Stage) -> None:
        pod = stage.world.pods[name]
        pod.serves = "badly" if rate >= 1.0 else "well"
        pod.error_rate = rate

    return event


def slow(name: str, latency: float) -> Event:
    """Its answers take this many seconds from now on."""
    return lambda stage: setattr(stage.world.pods[name], "latency", latency)


def recover(name: str) -> Event:
    """Well again, and listed."""

    def event(stage: Stage) -> None:
        pod = stage.world.pods[name]
        pod.recover()
        stage.zone.list(pod)

    return event


def dns(trouble: Trouble) -> Event:
    """DNS goes wrong in this way from now on; "" ends it."""
    return lambda stage: stage.zone.go_wrong(trouble)


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
    latency: float = 0.002,
    patience: float = 5.0,
    jitter: bool = False,
    seed: int = 1,
    options: Options | None = None,
) -> Run:
    """Run a scenario.

    pods, latency   names of the pods at the start, and seconds that each takes for a request
    script          `(at, event)`: events by the second they happen
    rate, patience  requests a second and client, and seconds after which the application gives one up
    ttl, cache      the zone's TTL, and seconds that a cache in between keeps an answer
    """

    def play() -> Run:
        world = World(seed)
        zone = Zone(world, ttl, cache)
        zone.list(*(world.pod(name, latency) for name in pods))
        stage = Stage(world, zone)
        for at, event in script:
            world.at(at, lambda event: event(stage), event)
        for number in range(clients):
            client = SimClient(world, zone, options or Options(), number, rate, patience, jitter)
            stage.clients.append(client)
            client.start(seconds)
        world.run(seconds + patience + 1.0)
        return Run(world, zone, stage.clients, play)

    return play()
