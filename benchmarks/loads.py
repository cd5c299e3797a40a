"""`python -m benchmarks.loads [--quick]`: which load to balance by, in virtual time, one odd thing at a time.

The engine that runs in production picks for pods that are made up: each has workers and a queue, so that too much
work shows as waiting. Requests come at random (Poisson), and none is repeated. The columns: what half of the requests
and all but one in a hundred take, the latter over the same without the odd thing, the odd pod's part of a fair share,
the largest part that any pod got, and the requests that failed.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import get_args

from benchmarks.figure import Figure, median
from headlessconn import Options, Target
from headlessconn.core.effects import Ask
from headlessconn.core.endpoint import Answer, How, Key, pack
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Pick
from headlessconn.options import Policy

POLICIES: tuple[Policy, ...] = get_args(Policy)
USUAL = 0.005  # seconds a request takes, a quarter more or less
WORKERS = 8  # requests that a pod works on at once
WARM_UP = 20.0  # seconds that are not measured
SEEDS = (1, 2, 3, 4, 5)

Size = Callable[[random.Random], float]


def usual(rng: random.Random) -> float:
    return USUAL * (0.75 + 0.5 * rng.random())


def uneven(rng: random.Random) -> float:
    """One in ten is twenty times the others."""
    return usual(rng) * (0.4 if rng.random() < 0.9 else 8.0)


@dataclass
class Pod:
    """`times` slower than usual, failing this part of its requests, at once. `warms` seconds it begins ten times as
    slow, from `joins` on."""

    times: float = 1.0
    fails: float = 0.0
    joins: float = 0.0
    warms: float = 0.0
    free_at: list[float] = field(default_factory=lambda: [0.0] * WORKERS, init=False)
    received: int = field(default=0, init=False)

    def answer(self, size: float, now: float, rng: random.Random) -> tuple[float, bool]:
        """When it answers, and whether badly."""
        if self.fails and rng.random() < self.fails:
            return now + 0.0005, True
        cold = 1.0 + 9.0 * max(0.0, 1.0 - (now - self.joins) / self.warms) if self.warms else 1.0
        worker = min(range(WORKERS), key=self.free_at.__getitem__)
        begins = max(now, self.free_at[worker])
        self.free_at[worker] = begins + size * self.times * cold
        return self.free_at[worker], False


@dataclass(frozen=True)
class Case:
    """A scenario; `like` names the one it is compared with. The odd pod is the last one."""

    name: str
    pods: Callable[[], list[Pod]]
    rate: float = 400.0
    like: str = "five equal pods"
    size: Size = usual


def _pods(count: int, times: float = 1.0, fails: float = 0.0, cold: bool = False) -> Callable[[], list[Pod]]:
    joins, warms = (WARM_UP, 10.0) if cold else (0.0, 0.0)
    return lambda: [Pod() for _ in range(count - 1)] + [Pod(times, fails, joins, warms)]


CASES = (
    Case("five equal pods", _pods(5)),
    Case("one of five is 20 times slower", _pods(5, times=20.0)),
    Case("one of five fails always, at once", _pods(5, fails=1.0)),
    Case("one of five fails half, at once", _pods(5, fails=0.5)),
    Case("one of five fails one in twenty", _pods(5, fails=0.05)),
    Case("all five fail one in a thousand", lambda: [Pod(fails=0.001) for _ in range(5)]),
    Case("all five fail one in a hundred", lambda: [Pod(fails=0.01) for _ in range(5)]),
    Case("a sixth comes, and is cold for 10 s", _pods(6, cold=True)),
    Case("two equal pods", _pods(2), rate=160.0, like="two equal pods"),
    Case("one of two is 20 times slower", _pods(2, times=20.0), rate=160.0, like="two equal pods"),
    Case("one of two fails half, at once", _pods(2, fails=0.5), rate=160.0, like="two equal pods"),
    Case("uneven requests", _pods(5), size=uneven, like="uneven requests"),
    Case("uneven requests, one 20 times slower", _pods(5, times=20.0), size=uneven, like="uneven requests"),
    Case("five equal pods, three quarters busy", _pods(5), rate=6000.0, like="five equal pods, three quarters busy"),
)


@dataclass(frozen=True)
class Row:
    p50: float  # seconds
    p99: float
    odd: float  # 1.0 is a fair share
    most: float
    failed: int
    sent: int


def play(case: Case, policy: Policy, seed: int, seconds: float) -> Row:
    """One scenario under one policy."""
    rng = random.Random(seed)
    pods = case.pods()
    keys = [pack(f"10.0.0.{number + 1}", 80) for number in range(len(pods))]
    by_key: dict[Key, Pod] = dict(zip(keys, pods, strict=True))
    engine = Engine(Target.parse("web.shop:80"), Options(policy=policy), random.Random(seed), 0.0)
    under_way: list[tuple[float, int, float, Pick, bool]] = []
    took: list[float] = []
    failed = count = 0
    now = 0.0

    def obey() -> None:
        for effect in engine.take():
            if isinstance(effect, Ask):
                listed = frozenset(key for key, pod in by_key.items() if pod.joins <= now)
                engine.answered(Answer("dns", "records", listed, ttl=1.0), now, effect.id)
        if engine.outbox:
            obey()

    until = WARM_UP + seconds
    comes_at = 0.0
    while now < until:
        ends_at = under_way[0][0] if under_way else until
        now = min(comes_at, ends_at, engine.wakeup_at)
        if now == engine.wakeup_at:
            engine.wake(now)
        elif now == ends_at:
            if not under_way:
                break
            _, _, began, pick, bad = heappop(under_way)
            engine.responded(pick, bad, now)
            engine.ended(pick, How.OK, now)
            if began >= WARM_UP:
                took.append(now - began)
                failed += bad
        else:
            comes_at = now + rng.expovariate(case.rate)
            picked = engine.pick(now)
            assert isinstance(picked, Pick)
            pod = by_key[picked.key]
            pod.received += now >= WARM_UP
            answered_at, bad = pod.answer(case.size(rng), now, rng)
            count += 1
            heappush(under_way, (answered_at, count, now, picked, bad))
        if engine.outbox:
            obey()
    took.sort()
    fair = sum(pod.received for pod in pods) / len(pods)
    return Row(
        took[len(took) // 2],
        took[int(0.99 * len(took))],
        pods[-1].received / fair,
        max(pod.received for pod in pods) / fair,
        failed,
        len(took),
    )


def rows(quick: bool) -> Iterator[tuple[Case, Policy, Row, float]]:
    """Each scenario and policy: the median seed's figures, and p99 over that of the scenario it is compared with."""
    seconds, seeds = (20.0, SEEDS[:1]) if quick else (60.0, SEEDS[:3])
    found: dict[tuple[str, Policy], Row] = {}
    for case in CASES:
        span = seconds * min(1.0, 400.0 / case.rate)  # as many requests each
        for policy in POLICIES:
            runs = [play(case, policy, seed, span) for seed in seeds]
            row = Row(*(median([float(getattr(run, name)) for run in runs]) for name in Row.__dataclass_fields__))  # type: ignore[arg-type]
            found[case.name, policy] = row
            yield case, policy, row, row.p99 / found[case.like, policy].p99


def run(quick: bool) -> list[Figure]:
    """The two figures that a default must reach, for `python -m benchmarks`."""
    figures = []
    for case, policy, row, ratio in rows(quick):
        if policy == "peak_ewma" and case.name == "one of five is 20 times slower":
            figures.append(Figure(f"{case.name}: p99 over p99 without it", ratio, "×", 1.2))
            figures.append(Figure(f"{case.name}: its share of all", row.odd / 5 * 100, "%", 6.0))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loads", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one seed, and a third of the time")
    heads = ("", "", "p50 ms", "p99 ms", "p99 ×", "odd pod", "most", "failed")
    print("{:38}{:15}{:>8}{:>9}{:>8}{:>9}{:>7}{:>9}".format(*heads))
    for case, policy, row, ratio in rows(parser.parse_args().quick):
        name = case.name if policy == POLICIES[0] else ""
        print(
            f"{name:38}{policy:15}{row.p50 * 1e3:8.2f}{row.p99 * 1e3:9.2f}{ratio:8.2f}{row.odd:9.2f}{row.most:7.2f}"
            f"{row.failed / row.sent:9.2%}"
        )


if __name__ == "__main__":
    main()
