"""What following costs in memory, counted by tracemalloc: an endpoint of a large set, a target that nobody uses now."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc

from benchmarks import processes
from benchmarks.engine import ENDPOINTS, keys
from benchmarks.figure import Figure
from headlessconn import Client, Options, Target
from headlessconn.core.endpoint import Answer
from headlessconn.core.engine import Engine

PODS = 3  # of an idle target


def _endpoint() -> Figure:
    """The engine with its answer, members and picker, after the effects were carried out."""
    engine = Engine(Target.parse("orders.shop:8080"), Options(), random.Random(1), 0.0)
    engine.wake(0.0)
    engine.take()
    before = _bytes()
    engine.answered(Answer("dns", "records", keys(0, ENDPOINTS), ttl=5.0), 0.1, engine.refresh.asking)
    engine.take()
    engine.pick(0.2)
    each = (_bytes() - before) / ENDPOINTS
    return Figure(f"memory of an endpoint, in a set of {ENDPOINTS}", each / 1024, "KiB", 1)


async def _idle_target(dns: processes.Dns, count: int) -> Figure:
    """All there is of a target: engine, driver, source, what the resolver remembers, and three pods."""
    names = [f"service-{number}.shop" for number in range(count + 1)]
    for name in names:
        dns.headless(name, [f"10.0.0.{pod}" for pod in range(1, PODS + 1)])
    async with Client(refresh_min=0.05, refresh_max=1.0, idle_after=1.0, **dns.options) as client:
        await client.service(f"{names[0]}:80").ready(PODS)
        before = _bytes()
        for name in names[1:]:
            service = client.service(f"{name}:80")
            await service.ready(PODS)
            async with service.pick():
                pass
        watched = [client.service(f"{name}:80") for name in names[1:]]
        while not all(service.snapshot.idle for service in watched):  # noqa: ASYNC110  falling idle is no event
            await asyncio.sleep(0.2)
        del watched
        await asyncio.sleep(0)
        each = (_bytes() - before) / count
    return Figure(f"memory of an idle target of {PODS} pods", each / 1024, "KiB", 16)


def _bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def run(quick: bool) -> list[Figure]:
    with processes.dns() as dns:
        tracemalloc.start()
        return [_endpoint(), asyncio.run(_idle_target(dns, 30 if quick else 300))]
