"""Seeds of trouble for requests: pods that fail in every way, fleets that change, DNS and the process in trouble.

`Plan.of(seed)` draws one history; `headlessconn.testing.sim.judging` reads the world's log of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from headlessconn.checks import Http, Tcp
from headlessconn.core.endpoint import How
from headlessconn.options import Options
from headlessconn.testing.sim import events as happen
from headlessconn.testing.sim.events import Event
from headlessconn.testing.sim.run import Run, simulate
from headlessconn.testing.sim.traffic import Traffic
from headlessconn.testing.sim.zone import Trouble

SECONDS = 61.0
CALM = 5.0  # seconds at the start: everybody has connections, and knows how long requests take
LAST = 51.0  # no fault begins later
REQUESTS = 2090  # a seed, about; 2 000 at the least

Schedule = tuple[tuple[float, Event], ...]


@dataclass(frozen=True)
class Plan:
    """One seed's history: settings, and what happens when. `play` runs it, with another schedule if need be.

    faults   the kinds of fault that were drawn
    """

    seed: int
    pods: int
    clients: int
    latency: float
    ttl: float
    cache: float
    replicas: int
    traffic: Traffic
    options: Options
    faults: tuple[str, ...]
    schedule: Schedule

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        pods = rng.choice((1, 2, 2, 3, 3, 3, 4, 5, 6, 8, 12))
        clients = rng.choice((2, 2, 2, 3, 4, 6))
        cached = rng.random() < 0.15
        ttl = rng.choice((1.0, 5.0, 5.0, 30.0))
        latency = rng.choice((0.002, 0.005, 0.02))
        lanes = rng.choice(((1.0,), (1.0, 8.0), (1.0, 5.0, 40.0)))
        patience = rng.choice((1.0, 2.0, 5.0, 5.0, 5.0, 5.0))
        traffic = Traffic(
            rate=REQUESTS / SECONDS / clients * rng.uniform(1.0, 1.05),
            patience=max(patience, 3.0 * latency * lanes[-1]),  # a healthy pod must be able to answer in time
            jitter=rng.random() < 0.8,
            repeatable=rng.choice((0.5, 0.8, 1.0)),
            lanes=lanes,
            streams=rng.choice((0.0, 0.0, 0.025, 0.05)),
            gives_up=rng.choice((How.TIMEOUT, How.TIMEOUT, How.CANCELLED)),
            cancelled=rng.choice((0.0, 0.0, 0.01, 0.05)),
            hedge_after=rng.choice((None, None, None, 0.05, 0.5)),
            holds=rng.choice((0, 0, 0, 0, 1, 3, 8)),
        )
        draw = _Draw(rng, pods, clients, latency)
        schedule = tuple(sorted(draw.schedule(), key=lambda entry: entry[0]))
        return cls(
            seed=seed,
            pods=pods,
            clients=clients,
            latency=latency,
            ttl=ttl,
            cache=min(ttl, 5.0) if cached else 0.0,
            replicas=rng.choice((1, 2)) if cached else 1,
            traffic=traffic,
            options=_options(rng),
            faults=tuple(draw.faults),
            schedule=schedule,
        )

    def play(self, schedule: Schedule | None = None) -> Run:
        return simulate(
            [f"pod-{number}" for number in range(self.pods)],
            script=self.schedule if schedule is None else schedule,
            seconds=SECONDS,
            clients=self.clients,
            ttl=self.ttl,
            cache=self.cache,
            replicas=self.replicas,
            latency=self.latency,
            seed=self.seed,
            options=self.options,
            traffic=self.traffic,
        )

    def __str__(self) -> str:
        lines = "\n".join(f"    ({at:7.3f}, {event!r})," for at, event in self.schedule)
        usual = Options()
        changed = ", ".join(
            f"{name}={getattr(self.options, name)!r}"
            for name in Options.__slots__
            if getattr(self.options, name) != getattr(usual, name)
        )
        return (
            f"seed {self.seed}: {self.pods} pods of {self.latency:g} s, {self.clients} clients, TTL {self.ttl:g}, "
            f"cache {self.cache:g} s × {self.replicas}\n  {self.traffic}\n  Options({changed})\n"
            f"  faults: {', '.join(self.faults)}\n{lines}"
        )


def _is_ours(endpoint: object, host: str) -> bool:
    """Stands for `Options.verify`; the simulated client answers by what the world knows."""
    raise AssertionError("the simulated client answers itself")


def _options(rng: random.Random) -> Options:
    """Mostly the defaults: they are what must be right."""
    changes: dict[str, object] = {}
    if rng.random() < 0.2:
        changes["policy"] = rng.choice(("least_request", "round_robin"))
    if rng.random() < 0.3:
        changes["stale_after"] = rng.choice((3.0, 10.0))
    if rng.random() < 0.1:
        changes["max_in_flight"] = rng.choice((2, 4, 10))
    if rng.random() < 0.1:
        changes["max_waiting"] = rng.choice((5, 50))
    if rng.random() < 0.1:
        changes["wait_for_endpoints"] = rng.choice((0.0, 1.0))
    if rng.random() < 0.15:
        changes["check"] = rng.choice((Tcp(), Http("/healthz")))
    if rng.random() < 0.1:
        changes["verify"] = _is_ours
    if rng.random() < 0.1:
        changes["outlier_interval"] = 2.0
        changes["failure_percentage_volume"] = 10
        changes["success_rate_volume"] = 10
    return Options.of(None, changes)


class _Draw:
    """Draws a schedule fault by fault, in the order of time, so that it knows who is listed."""

    def __init__(self, rng: random.Random, pods: int, clients: int, latency: float) -> None:
        self.rng = rng
        self.latency = latency
        self.clients = clients
        self.listed = [f"pod-{number}" for number in range(pods)]
        self.since: dict[str, float] = {}  # when those came that were not there from the start
        self.spared: set[str] = set()  # whom nothing happens to in this seed, so that somebody is always well
        self.made = 0
        self.faults: list[str] = []

    def schedule(self) -> Iterator[tuple[float, Event]]:
        rng = self.rng
        if len(self.listed) > 1 and rng.random() < 0.65:
            self.spared = set(rng.sample(self.listed, rng.randint(1, max(1, len(self.listed) // 2))))
        for at in sorted(self._times()):
            kind = rng.choice(KINDS)
            if kind in _WHOLE and self.spared:
                kind = rng.choice(_PARTIAL)
            self.faults.append(kind)
            yield from _FAULTS[kind](self, at)

    def _times(self) -> Iterator[float]:
        """Single faults, and some that come together."""
        rng = self.rng
        for _ in range(rng.randint(4, 7)):
            at = rng.uniform(CALM, LAST)
            yield at
            while rng.random() < 0.3:
                yield min(at + rng.expovariate(1.0), LAST)

    # ---- pods

    def present(self, at: float) -> list[str]:
        return [name for name in self.listed if self.since.get(name, 0.0) < at]

    def victim(self, at: float) -> str | None:
        left = [name for name in self.present(at) if name not in self.spared]
        return self.rng.choice(left) if left else None

    def lasting(self, at: float) -> float:
        """When a fault is over: soon, or late, or not before the end."""
        return at + self.rng.choice((self.rng.uniform(0.05, 1.0), self.rng.uniform(1.0, 8.0), 20.0, 80.0))

    def _to_one(self, at: float, begin: Callable[[str], Event]) -> Iterator[tuple[float, Event]]:
        name = self.victim(at)
        if name is not None:
            yield at, begin(name)
            yield self.lasting(at), happen.mend(name)

    def crash(self, at: float) -> Iterator[tuple[float, Event]]:
        yield from self._to_one(at, happen.crash)

    def hang(self, at: float) -> Iterator[tuple[float, Event]]:
        name = self.victim(at)
        if name is not None:
            yield at, happen.freeze(name)
            back = happen.thaw if self.rng.random() < 0.5 else happen.mend
            yield self.lasting(at), back(name)

    def black_hole(self, at: float) -> Iterator[tuple[float, Event]]:
        yield from self._to_one(at, happen.black_hole)

    def slow(self, at: float) -> Iterator[tuple[float, Event]]:
        latency = self.rng.choice((4.0 * self.latency, 20.0 * self.latency, 0.5, 6.0))
        yield from self._to_one(at, lambda name: happen.slow(name, latency))

    def fail_fast(self, at: float) -> Iterator[tuple[float, Event]]:
        yield from self._to_one(at, happen.sour)

    def error_rate(self, at: float) -> Iterator[tuple[float, Event]]:
        rate = self.rng.choice((0.05, 0.3, 0.7))
        yield from self._to_one(at, lambda name: happen.sour(name, rate))

    def lost_syns(self, at: float) -> Iterator[tuple[float, Event]]:
        rate = self.rng.choice((0.2, 0.6))
        yield from self._to_one(at, lambda name: happen.lose(name, rate))

    def listener_closed(self, at: float) -> Iterator[tuple[float, Event]]:
        name = self.victim(at)
        if name is not None:
            yield from self._replaced(name, at, grace=self.rng.uniform(1.0, 20.0), listens=False)

    def taken_over(self, at: float) -> Iterator[tuple[float, Event]]:
        name = self.victim(at)
        if name is not None:
            grace = self.rng.uniform(0.0, 2.0)
            yield from self._replaced(name, at, grace, listens=self.rng.random() < 0.5)
            after = at + grace + self.rng.choice((0.01, self.rng.uniform(0.0, 6.0)))
            if self.rng.random() < 0.3:
                again = self._name()
                self.listed.append(again)
                self.since[again] = after
                yield after, happen.take_over(name, again)
            else:
                yield after, happen.take_over(name)

    def node_lost(self, at: float) -> Iterator[tuple[float, Event]]:
        """A node is gone, and its pod's deletion follows sooner or later."""
        name = self.victim(at)
        if name is not None:
            yield at, happen.black_hole(name)
            yield from self._replaced(name, at + self.rng.uniform(0.3, 6.0), grace=0.1, listens=True)

    # ---- fleets

    def _name(self) -> str:
        self.made += 1
        return f"new-{self.made}"

    def _joins(self, at: float) -> tuple[float, Event]:
        name = self._name()
        self.listed.append(name)
        self.since[name] = at
        return at, happen.add(name, self.latency * self.rng.choice((0.8, 1.0, 1.3)))

    def _replaced(self, name: str, at: float, grace: float, listens: bool) -> Iterator[tuple[float, Event]]:
        self.listed.remove(name)
        yield at, happen.drain(name, grace, listens)
        if len(self.listed) < 2:
            yield self._joins(at + self.rng.uniform(0.0, 3.0))

    def scale_out(self, at: float) -> Iterator[tuple[float, Event]]:
        for _ in range(self.rng.choice((1, 1, 2, 6))):
            yield self._joins(at)

    def scale_in(self, at: float) -> Iterator[tuple[float, Event]]:
        for _ in range(self.rng.choice((1, 1, 3))):
            name = self.victim(at)
            if name is not None and len(self.present(at)) > 1:
                self.listed.remove(name)
                yield at, happen.drain(name, self.rng.uniform(0.5, 30.0), self.rng.random() < 0.6)

    def flap(self, at: float) -> Iterator[tuple[float, Event]]:
        name = self.victim(at)
        if name is not None:
            yield at, happen.unlist(name)
            yield at + self.rng.uniform(0.2, 12.0), happen.relist(name)

    def rolling_update(self, at: float) -> Iterator[tuple[float, Event]]:
        """As a Deployment does it: one more, ready and listed, then one less."""
        for old in [name for name in self.present(at) if name not in self.spared][:4]:
            yield self._joins(at)
            at += self.rng.uniform(0.1, 3.0)
            self.listed.remove(old)
            yield at, happen.drain(old, self.rng.uniform(0.5, 10.0), self.rng.random() < 0.6)
            at += self.rng.uniform(0.1, 3.0)

    def to_zero(self, at: float) -> Iterator[tuple[float, Event]]:
        for name in self.present(at):
            self.listed.remove(name)
            yield at, happen.drain(name, self.rng.uniform(0.2, 15.0), self.rng.random() < 0.6)
        back = at + self.rng.choice((self.rng.uniform(0.1, 4.0), self.rng.uniform(4.0, 20.0)))
        for _ in range(self.rng.randint(1, 4)):
            yield self._joins(back)

    def whole_set(self, at: float) -> Iterator[tuple[float, Event]]:
        new = tuple(self._name() for _ in range(self.rng.randint(1, 5)))
        self.listed[:] = [*(name for name in self.listed if self.since.get(name, 0.0) >= at), *new]
        self.since.update(dict.fromkeys(new, at))
        yield at, happen.replace(new, self.rng.uniform(0.0, 20.0))

    # ---- ourselves

    def _client(self) -> int:
        return self.rng.randrange(self.clients)

    def stall(self, at: float) -> Iterator[tuple[float, Event]]:
        yield at, happen.stall(self._client(), self.rng.choice((0.1, 0.4, 0.8, 2.0, 6.0)))

    def no_sockets(self, at: float) -> Iterator[tuple[float, Event]]:
        client = self._client()
        yield at, happen.no_sockets(client)
        yield at + self.rng.uniform(0.1, 5.0), happen.no_sockets(client, False)

    def callers_gone(self, at: float) -> Iterator[tuple[float, Event]]:
        client = self._client()
        for _ in range(self.rng.randint(1, 6)):
            yield at, happen.hang_up(client, self.rng.choice((0.5, 1.0)))
            at += self.rng.uniform(0.001, 1.0)

    def clock_jump(self, at: float) -> Iterator[tuple[float, Event]]:
        yield at, happen.set_clock(self.rng.choice((-86400.0, -1.0, 0.3, 7.0, 1e9)))

    def dns(self, at: float) -> Iterator[tuple[float, Event]]:
        trouble: Trouble = self.rng.choice(("nxdomain", "servfail", "refused", "silent", "stale", "truncated"))
        if trouble == "nxdomain" and self.spared:
            lasting = self.rng.uniform(0.1, 6.0)  # else the healthy ones are rightly given up
        else:
            lasting = self.rng.choice((self.rng.uniform(0.1, 4.0), self.rng.uniform(4.0, 20.0), 40.0))
        yield at, happen.dns(trouble)
        yield at + lasting, happen.dns("")


_FAULTS: dict[str, Callable[[_Draw, float], Iterator[tuple[float, Event]]]] = {
    "crash": _Draw.crash,
    "hang": _Draw.hang,
    "black hole": _Draw.black_hole,
    "node lost": _Draw.node_lost,
    "slow": _Draw.slow,
    "fail fast": _Draw.fail_fast,
    "error rate": _Draw.error_rate,
    "lost SYNs": _Draw.lost_syns,
    "listener closed at SIGTERM": _Draw.listener_closed,
    "address taken over": _Draw.taken_over,
    "scale out": _Draw.scale_out,
    "scale in": _Draw.scale_in,
    "readiness flap": _Draw.flap,
    "rolling update": _Draw.rolling_update,
    "to zero and back": _Draw.to_zero,
    "whole set replaced": _Draw.whole_set,
    "loop stands still": _Draw.stall,
    "no sockets left": _Draw.no_sockets,
    "callers gone": _Draw.callers_gone,
    "wall clock jumps": _Draw.clock_jump,
    "DNS in trouble": _Draw.dns,
}
KINDS = tuple(_FAULTS)
_WHOLE = frozenset({"to zero and back", "whole set replaced"})
_PARTIAL = tuple(kind for kind in KINDS if kind not in _WHOLE)
