"""What deciding costs: pick, head and end of one request under the driver's lock, and taking in an answer of DNS."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Client, Options, Target
from headlessconn._runtime.driver import Driver
from headlessconn.core.endpoint import Answer, How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Pick

MEMBERS = (3, 1000, 10_000)
BATCH = 1000  # requests between two looks at the clock
ENDPOINTS = 10_000


def keys(first: int, count: int) -> frozenset[Key]:
    """Packed keys of 10.x.y.z:8080, made anew: an answer from the wire shares no objects with the one before."""
    port = (8080).to_bytes(2, "big")
    return frozenset([(10 << 24 | number).to_bytes(4, "big") + port for number in range(first, first + count)])


async def _requests(repeats: int) -> list[Figure]:
    async with Client() as client:
        drivers = [await _driver(client, members) for members in MEMBERS]
        costs: list[list[float]] = [[] for _ in MEMBERS]
        for repeat in range(repeats + 3):
            for driver, into in zip(drivers, costs, strict=True):
                cost = _batch(driver)
                if repeat >= 3:
                    into.append(cost)
    few, *more = costs
    what = "pick + head + end, with the driver's lock"
    figures = [Figure(f"{what}, {MEMBERS[0]} members", min(few), "µs", 2.5, note=spread(few, "µs"))]
    for members, limit, many in zip(MEMBERS[1:], (1.25, 2), more, strict=True):
        ratio = median([large / small for large, small in zip(many, few, strict=True)])
        figures.append(Figure(f"{what}, {members} members over 3", ratio, "×", limit, note=spread(many, "µs")))
    return figures


async def _driver(client: Client, members: int) -> Driver:
    text = ",".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8080" for n in range(1, members + 1))
    service = client.service(f"static:///{text}")
    await service.ready(members)
    return service.driver()


def _batch(driver: Driver) -> float:
    """µs of CPU a request. Eight requests are in flight at any time, so that loads differ."""
    ok = How.OK
    open_picks = [driver.pick() for _ in range(8)]
    began = time.process_time()
    for number in range(BATCH):
        pick = driver.pick()
        now, open_picks[number & 7] = open_picks[number & 7], pick
        driver.responded(now, False)  # type: ignore[arg-type]
        driver.ended(now, ok)  # type: ignore[arg-type]
    took = time.process_time() - began
    for pick in open_picks:
        assert isinstance(pick, Pick)
        driver.ended(pick, ok)
    return took / BATCH * 1e6


def _answers(repeats: int) -> list[Figure]:
    """Each answer with the first pick after it, which builds the picker if it must be built."""
    limits = {"an unchanged": (0, 1.5), "a 10 % new": (ENDPOINTS // 10, 8.0), "an all new": (ENDPOINTS, 30.0)}
    costs: dict[str, list[float]] = {name: [] for name in limits}
    now, first = 0.0, 0
    engine = Engine(Target.parse("orders.shop:8080"), Options(), random.Random(1), now)
    _told(engine, keys(first, ENDPOINTS), now)
    for _ in range(repeats):
        for name, (moved, _) in limits.items():
            first += moved
            fresh = keys(first, ENDPOINTS)
            now += 5.0
            costs[name].append(_clocked(lambda new=fresh, at=now: _told(engine, new, at)))  # type: ignore[misc]
    return [
        Figure(
            f"{name} answer of {ENDPOINTS} endpoints into the engine", min(cost), "ms", limit, note=spread(cost, "ms")
        )
        for (name, (_, limit)), cost in zip(limits.items(), costs.values(), strict=True)
    ]


def _told(engine: Engine, fresh: frozenset[Key], now: float) -> None:
    engine.wake(now)
    engine.take()
    engine.answered(Answer("dns", "records", fresh, ttl=5.0, why="NOERROR"), now, engine.refresh.asking)
    engine.take()
    pick = engine.pick(now)
    assert isinstance(pick, Pick)
    assert engine.size == ENDPOINTS
    engine.ended(pick, How.CALLER, now)


def _clocked(work: Callable[[], None]) -> float:
    """ms of CPU."""
    with no_collector():
        began = time.process_time()
        work()
        return (time.process_time() - began) * 1000


def run(quick: bool) -> list[Figure]:
    with no_collector():
        figures = asyncio.run(_requests(100 if quick else 400))
    return figures + _answers(7 if quick else 25)
