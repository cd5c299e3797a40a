"""What can happen to a simulated cluster. Each event prints as the call that makes it, so a failing seed's schedule can
be read, cut down and pasted into a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.world import World
from headlessconn.testing.sim.zone import Trouble, Zone

P = ParamSpec("P")


@dataclass
class Stage:
    """What events act on."""

    world: World
    zone: Zone
    clients: list[SimClient] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens to a `Stage`."""

    name: str
    act: Callable[[Stage], None] = field(compare=False)
    arguments: tuple[Any, ...] = ()

    def __call__(self, stage: Stage) -> None:
        self.act(stage)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.arguments))})"


def _event(act: Callable[Concatenate[Stage, P], None]) -> Callable[P, Event]:
    @wraps(act)
    def make(*args: P.args, **kwargs: P.kwargs) -> Event:
        return Event(act.__name__, lambda stage: act(stage, *args, **kwargs), (*args, *kwargs.values()))

    return make


@_event
def add(stage: Stage, name: str, latency: float = 0.002) -> None:
    """A new pod, ready and listed."""
    stage.zone.list(stage.world.pod(name, latency))


@_event
def drain(stage: Stage, name: str, grace: float = 5.0, listens: bool = True) -> None:
    """As Kubernetes deletes a pod: out of DNS and SIGTERM at once, and the end after `grace` seconds.

    `listens`: False for a server that closes its listener at SIGTERM.
    """
    pod = stage.world.pods[name]
    stage.zone.unlist(pod)
    if not listens:
        pod.stop_listening()
    stage.world.at(stage.world.now + grace, lambda _: None if pod.dials == "drop" else pod.crash())


@_event
def replace(stage: Stage, new: tuple[str, ...], grace: float = 5.0) -> None:
    """The whole set is another one at once: a namespace recreated, a StatefulSet moved to other nodes."""
    for old in list(stage.zone.listed):
        drain(old, grace)(stage)
    stage.zone.list(*(stage.world.pod(name) for name in new))


@_event
def unlist(stage: Stage, name: str) -> None:
    """Out of DNS, and otherwise well: a readiness flap."""
    stage.zone.unlist(stage.world.pods[name])


@_event
def relist(stage: Stage, name: str) -> None:
    """Back in DNS."""
    stage.zone.list(stage.world.pods[name])


@_event
def crash(stage: Stage, name: str) -> None:
    """The process dies; DNS goes on listing it."""
    stage.world.pods[name].crash()


@_event
def black_hole(stage: Stage, name: str) -> None:
    """The node is gone: no answer to anything; DNS goes on listing it."""
    stage.world.pods[name].vanish()


@_event
def freeze(stage: Stage, name: str) -> None:
    """The process stands still: it accepts, and no byte follows."""
    stage.world.pods[name].freeze()


@_event
def sour(stage: Stage, name: str, rate: float = 1.0) -> None:
    """It answers 503, at once, to this part of its requests."""
    stage.world.pods[name].sour(rate)


@_event
def slow(stage: Stage, name: str, latency: float) -> None:
    """Its answers take this many seconds from now on."""
    stage.world.pods[name].slow(latency)


@_event
def lose(stage: Stage, name: str, rate: float) -> None:
    """This part of the SYNs to it is lost; the kernel repeats each after a second."""
    stage.world.pods[name].lose(rate)


@_event
def thaw(stage: Stage, name: str) -> None:
    """A process that stood still goes on, and answers what it owes."""
    stage.world.pods[name].thaw()


@_event
def mend(stage: Stage, name: str) -> None:
    """Well again and as fast as ever, as a new process on the same address, unless it was deleted meanwhile."""
    pod = stage.world.pods[name]
    if name in stage.zone.listed:
        pod.recover()
        pod.slow(pod.usual)


@_event
def take_over(stage: Stage, name: str, new: str = "") -> None:
    """The address of a pod that is gone is given out again: to another Service's pod that listens on the same port, or
    to our own pod `new`. Where it lives, or has been given out already, `new` gets one of its own."""
    old = stage.world.pods[name]
    is_free = old.dials != "accept" and stage.world.by_key[old.key] is old
    if new:
        stage.zone.list(stage.world.pod(new, old.usual, old.address if is_free else None))
    elif is_free:
        stage.world.pod(f"foreign-{name}", old.usual, old.address).be_foreign()


@_event
def recover(stage: Stage, name: str) -> None:
    """Well again, and listed."""
    pod = stage.world.pods[name]
    pod.recover()
    stage.zone.list(pod)


@_event
def dns(stage: Stage, trouble: Trouble) -> None:
    """DNS goes wrong in this way from now on; "" ends it."""
    stage.zone.go_wrong(trouble)


@_event
def stall(stage: Stage, client: int, seconds: float) -> None:
    """The client's own loop stands still: what happens meanwhile is seen afterwards."""
    for one in stage.clients[client : client + 1]:
        one.stall(seconds)


@_event
def no_sockets(stage: Stage, client: int, lacking: bool = True) -> None:
    """The client has no file descriptor left (EMFILE); False ends it."""
    for one in stage.clients[client : client + 1]:
        one.no_sockets = lacking
        one.lacked_sockets = True


@_event
def hang_up(stage: Stage, client: int, part: float = 1.0) -> None:
    """This part of the client's callers goes away at once, whatever they wait for."""
    for one in stage.clients[client : client + 1]:
        one.hang_up(part)


@_event
def set_clock(stage: Stage, seconds: float) -> None:
    """The wall clock jumps, as NTP and people make it. Nobody may notice."""
    stage.world.wall += seconds
