"""A hundred clients at once: what each may spend is little, and all of them together must not become an attack.

python -m headlessconn.testing.sim crowd --seeds 100
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from headlessconn.options import Options
from headlessconn.testing.sim import events as happen
from headlessconn.testing.sim.events import Event
from headlessconn.testing.sim.judging import asked_in_time, told_the_law, within_budget
from headlessconn.testing.sim.promises import BURST, PER_SECOND, RATIO, SAVED
from headlessconn.testing.sim.run import Run, simulate
from headlessconn.testing.sim.traffic import Traffic

CLIENTS = 100
SECONDS = 30.0
KINDS = ("crash", "hang", "black hole", "fail fast", "error rate", "slow")

Schedule = tuple[tuple[float, Event], ...]


@dataclass(frozen=True)
class Plan:
    """One seed's history: some of the pods fail, one after the other or all at once, and stay so."""

    seed: int
    pods: int
    traffic: Traffic
    faults: tuple[str, ...]
    schedule: Schedule

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = random.Random(seed)
        pods = rng.choice((2, 3, 5, 10))
        faults: list[str] = []
        schedule: list[tuple[float, Event]] = []
        at = rng.uniform(8.0, 12.0)
        for number in range(rng.randint(1, pods)):
            kind = rng.choice(KINDS)
            faults.append(kind)
            schedule.append((at, _begin(kind, f"pod-{number}", rng)))
            at += rng.choice((0.0, 0.0, rng.uniform(0.0, 5.0)))
        return cls(
            seed=seed,
            pods=pods,
            traffic=Traffic(
                rate=rng.choice((0.5, 2.0, 5.0)),
                jitter=True,
                repeatable=1.0,
                lanes=(1.0, 10.0),
                hedge_after=rng.choice((None, None, 0.05)),
            ),
            faults=tuple(faults),
            schedule=tuple(schedule),
        )

    def play(self, schedule: Schedule | None = None) -> Run:
        return simulate(
            [f"pod-{number}" for number in range(self.pods)],
            script=self.schedule if schedule is None else schedule,
            seconds=SECONDS,
            clients=CLIENTS,
            seed=self.seed,
            options=Options(),
            traffic=self.traffic,
        )

    def __str__(self) -> str:
        lines = "\n".join(f"    ({at:7.3f}, {event!r})," for at, event in self.schedule)
        return f"seed {self.seed}: {self.pods} pods, {CLIENTS} clients\n  {self.traffic}\n{lines}"


def _begin(kind: str, name: str, rng: random.Random) -> Event:
    match kind:
        case "crash":
            return happen.crash(name)
        case "hang":
            return happen.freeze(name)
        case "black hole":
            return happen.black_hole(name)
        case "fail fast":
            return happen.sour(name)
        case "error rate":
            return happen.sour(name, rng.choice((0.1, 0.5)))
        case _:
            return happen.slow(name, rng.choice((0.1, 6.0)))


def judge(plan: Plan, run: Run) -> list[str]:
    """What is wrong with a run; nothing when all is well."""
    wrong: list[str] = []
    for client in run.clients:
        for rule in (told_the_law(client), asked_in_time(client, SECONDS), within_budget(client)):
            wrong += [f"client {client.number}: {fault}" for fault in rule]
    return [*wrong, *_together(plan, run)]


def _together(plan: Plan, run: Run) -> Iterator[str]:
    """What the pods receive beyond what the application asked for."""
    asked = len(run.requests)
    received = sum(len(pod.received) for pod in run.world.pods.values())
    saved = max(BURST, RATIO * SAVED * plan.traffic.rate)
    allowed = asked * (1.0 + RATIO) + CLIENTS * (PER_SECOND * (SECONDS + plan.traffic.patience) + 2.0 * saved)
    if received > allowed:
        yield f"{asked} requests of the application became {received} at the pods, more than {allowed:.0f}"
