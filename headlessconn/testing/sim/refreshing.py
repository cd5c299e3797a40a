"""Seeds of trouble for the refresh side: how DNS goes wrong and how the set changes, and a judge that reads the world's
log afterwards."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

from headlessconn.options import Options
from headlessconn.testing.sim import events as happen
from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.events import Event
from headlessconn.testing.sim.run import Run, simulate
from headlessconn.testing.sim.zone import Trouble

SECONDS = 120.0
QUIET = 25.0  # seconds at the end without trouble, so that every seed also shows the way back
RATE = 8.0
SLACK = 0.05  # seconds for the look-up's own latency and what is under way at a boundary
UNPICKED = 12.0  # seconds of traffic in which a new pod is picked but for a chance of about 1e-9

TROUBLES: tuple[Trouble, ...] = ("nxdomain", "servfail", "refused", "silent", "stale", "truncated")


@dataclass(frozen=True)
class Plan:
    """One seed's history: settings, and what happens when. `play` runs it, with another schedule if need be."""

    seed: int
    ttl: float
    cache: float
    replicas: int
    pods: int
    clients: int
    schedule: tuple[tuple[float, Event], ...]

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        ttl = rng.choice((0.0, 1.0, 5.0, 5.0, 30.0))
        cached = rng.random() < 0.3
        pods = rng.randint(1, 8)
        return cls(
            seed=seed,
            ttl=ttl,
            cache=min(max(ttl, 5.0), 30.0) if cached else 0.0,
            replicas=rng.choice((1, 2)) if cached else 1,
            pods=pods,
            clients=rng.choice((1, 1, 2)),
            schedule=tuple(sorted(_schedule(rng, pods), key=lambda entry: entry[0])),
        )

    def play(self, schedule: tuple[tuple[float, Event], ...] | None = None) -> Run:
        return simulate(
            [f"pod-{number}" for number in range(self.pods)],
            script=self.schedule if schedule is None else schedule,
            seconds=SECONDS,
            rate=RATE,
            clients=self.clients,
            ttl=self.ttl,
            cache=self.cache,
            replicas=self.replicas,
            jitter=True,
            seed=self.seed,
            options=Options(),
        )

    def __str__(self) -> str:
        lines = "\n".join(f"    ({at:7.3f}, {event!r})," for at, event in self.schedule)
        return (
            f"seed {self.seed}: {self.pods} pods, {self.clients} clients, TTL {self.ttl:g}, cache {self.cache:g} s "
            f"× {self.replicas}\n{lines}"
        )


def _schedule(rng: random.Random, pods: int) -> Iterator[tuple[float, Event]]:
    """Changes of the set, and one or two troubles of DNS, the long stale one (an API outage: 64 s) among them."""
    listed = [f"pod-{number}" for number in range(pods)]
    made = 0
    last = SECONDS - QUIET
    for at in sorted(rng.uniform(3.0, last) for _ in range(rng.randint(2, 8))):
        kind = rng.choice(("add", "add", "drain", "flap", "replace", "zero", "sigterm"))
        if kind == "add" or not listed:
            name, made = f"new-{made}", made + 1
            listed.append(name)
            yield at, happen.add(name)
        elif kind in ("drain", "sigterm"):
            name = listed.pop(rng.randrange(len(listed)))
            yield at, happen.drain(name, grace=rng.uniform(1.0, 30.0), listens=kind == "drain")
        elif kind == "flap":
            name = rng.choice(listed)
            yield at, happen.unlist(name)
            back = at + rng.uniform(0.5, 20.0)
            if back < last:
                yield back, _if_alive(name)
            else:
                listed.remove(name)
        elif kind == "replace":
            new = tuple(f"new-{made + i}" for i in range(rng.randint(1, 6)))
            made += len(new)
            listed[:] = new
            yield at, happen.replace(new, grace=rng.uniform(1.0, 30.0))
        else:
            for name in listed:
                yield at, happen.drain(name, grace=rng.uniform(0.5, 15.0))
            listed.clear()
    for _ in range(rng.randint(1, 2)):
        trouble = rng.choice(TROUBLES)
        begins = rng.uniform(2.0, last - 10.0)
        lasts = rng.choice((rng.uniform(0.5, 4.0), rng.uniform(4.0, 20.0), 64.0))
        yield begins, happen.dns(trouble)
        yield min(begins + lasts, last), happen.dns("")


def _if_alive(name: str) -> Event:
    """Back in DNS, unless it was deleted meanwhile."""

    def act(stage: happen.Stage) -> None:
        if stage.world.pods[name].dials == "accept":
            stage.zone.list(stage.world.pods[name])

    return Event("relist", act, (name,))


def judge(plan: Plan, run: Run) -> list[str]:
    """What is wrong with a run, by the world's log; nothing when all is well."""
    faults: list[str] = []
    for client in run.clients:
        faults += [f"client {client.number}: {fault}" for fault in _judge_client(plan, run, client)]
    return faults


def _judge_client(plan: Plan, run: Run, client: SimClient) -> Iterator[str]:
    if client.unarmed:
        yield f"no wake-up was armed after {client.unarmed} calls"
    if client.overlapping:
        yield f"{client.overlapping} look-ups began while another was under way"
    yield from _spacing(client)
    yield from _freshness(plan, run, client)
    yield from _truthful(run, client)
    for request in client.requests:
        if not request.outcome:
            yield f"request {request.id} of {request.at:.3f} was never answered"
        elif request.ended_at > request.at + client.patience + SLACK:
            yield f"request {request.id} of {request.at:.3f} waited until {request.ended_at:.3f}"


def _spacing(client: SimClient) -> Iterator[str]:
    """Look-ups come neither closer than refresh_min nor, while the target is used, further apart than refresh_max."""
    options = Options()
    asked, told = client.asked, client.told
    for before, after in itertools.pairwise(asked):
        if after - before < options.refresh_min - 1e-6:
            yield f"look-ups at {before:.3f} and {after:.3f}: closer than refresh_min"
    for (ended, _), after in zip(told, asked[1:], strict=False):
        if after - ended > options.refresh_max + SLACK:
            yield f"a look-up ended at {ended:.3f}, the next began at {after:.3f}: further than refresh_max"
    if asked and SECONDS - asked[-1] > options.refresh_max + options.lookup_timeout + SLACK:
        yield f"no look-up after {asked[-1]:.3f}"


def _freshness(plan: Plan, run: Run, client: SimClient) -> Iterator[str]:
    """Once DNS has been well for the bound, the set is what DNS holds: by what was announced, and by where requests
    went."""
    options = Options()
    bound = min(max(plan.ttl, options.refresh_min), options.refresh_max) * 1.1 + options.lookup_timeout + SLACK
    if plan.cache:
        bound = options.refresh_max * 1.1 + options.lookup_timeout + SLACK + plan.cache
    for begins, ends, names in _calm(run):
        settled = begins + bound + (options.hold_nx if not names else 0.0)
        if settled >= ends:
            continue
        keys = frozenset(run.world.pods[name].key for name in names)
        for at, believed in _over(client.believed, settled, ends):
            if believed != keys:
                yield f"from {begins:.3f} on DNS held {sorted(names)}, and at {at:.3f} the set was another one"
                break
        for name, pod in run.world.pods.items():
            if name not in names:
                late = [at for at, number, _ in pod.received if number == client.number and settled <= at < ends]
                if late:
                    yield f"{name} got a request at {late[0]:.3f}, {late[0] - begins:.1f} s after it had left"
            elif ends - settled > UNPICKED and ends <= SECONDS and pod.dials == "accept":
                if not any(settled <= at < ends and n == client.number for at, n, _ in pod.received):
                    yield f"{name} is listed since {begins:.3f} and got nothing until {ends:.3f}"


def _truthful(run: Run, client: SimClient) -> Iterator[str]:
    """Nobody joins whom DNS never held; nobody leaves who never left DNS, for no news never empties a set."""
    joined: dict[str, float] = {}
    left: dict[str, float] = {}  # when DNS last did not hold it although it had before
    spans = run.zone.truth
    for (_, before), (at, after) in itertools.pairwise(spans):
        for name in before - after:
            left.setdefault(name, at)
    for at, names in spans:
        for name in names:
            joined.setdefault(name, at)
    nobody = [at for at, trouble in run.zone.troubles if trouble == "nxdomain"]
    nobody += [at for at, names in spans if not names]
    known: frozenset[bytes] = frozenset()
    for at, believed in client.believed:
        for key in believed - known:
            pod = run.world.by_key[key]
            if joined.get(pod.name, at + 1.0) > at:
                yield f"{pod.name} joined at {at:.3f}, before DNS held it"
        for key in known - believed:
            pod = run.world.by_key[key]
            if left.get(pod.name, at + 1.0) > at and pod.dials == "accept" and not any(t <= at for t in nobody):
                yield f"{pod.name} was dropped at {at:.3f}, and DNS had never dropped it"
        known = believed


def _calm(run: Run) -> Iterator[tuple[float, float, frozenset[str]]]:
    """Spans in which DNS was well and the set did not change, with the set."""
    changes: list[tuple[float, str, object]] = [(at, "set", names) for at, names in run.zone.truth]
    changes += [(at, "trouble", trouble) for at, trouble in run.zone.troubles]
    changes.sort(key=lambda change: change[0])
    names: frozenset[str] = frozenset()
    trouble = ""
    for index, (at, kind, value) in enumerate(changes):
        if kind == "set":
            assert isinstance(value, frozenset)
            names = value
        else:
            trouble = str(value)
        ends = changes[index + 1][0] if index + 1 < len(changes) else SECONDS
        if not trouble:
            yield at, ends, names


def _over(
    log: list[tuple[float, frozenset[bytes]]], begins: float, ends: float
) -> Iterator[tuple[float, frozenset[bytes]]]:
    """What held at `begins`, and each change until `ends`."""
    current: frozenset[bytes] = frozenset()
    for at, value in log:
        if at <= begins:
            current = value
    yield begins, current
    for at, value in log:
        if begins < at < ends:
            yield at, value
