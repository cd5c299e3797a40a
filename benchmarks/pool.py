"""What a pool costs a caller: taking a free connection and giving it back, and passing one on to a caller who waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from benchmarks.figure import Figure, no_collector, spread
from headlessconn import Client, Endpoint
from headlessconn.pool import Pool

BATCH = 1000  # turns between two looks at the clock
PODS = (3, 100)
CALLERS = 8  # for one connection each quarter of them


class Connection:
    """Nothing at all: what the connections themselves cost is not measured here."""

    async def close(self) -> None:
        pass


async def _open(endpoint: Endpoint) -> Connection:
    return Connection()


async def _pool(client: Client, pods: int, size: int) -> Pool[Any]:
    text = ",".join(f"10.0.{n >> 8}.{n & 255}:3306" for n in range(1, pods + 1))
    service = client.service(f"static:///{text}")
    await service.ready(pods)
    pool = service.pool(open=_open, min_size=size, max_size=size)
    await pool.ready()
    return pool


async def _free(pool: Pool[Any]) -> float:
    """µs of CPU a turn."""
    began = time.process_time()
    for _ in range(BATCH):
        async with pool.acquire():
            pass
    return (time.process_time() - began) / BATCH * 1e6


async def _queued(pool: Pool[Any]) -> float:
    """The same where each caller waits, is woken, and passes it on."""

    async def caller() -> None:
        for _ in range(BATCH // CALLERS):
            async with pool.acquire():
                await asyncio.sleep(0)

    began = time.process_time()
    await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return (time.process_time() - began) / BATCH * 1e6


async def _measured(repeats: int) -> list[Figure]:
    async with Client() as client:
        few, many = [await _pool(client, pods, 2 * pods) for pods in PODS]
        scarce = await _pool(client, 1, 2)
        costs: dict[str, list[float]] = {}
        for repeat in range(repeats + 3):
            taken = {
                f"acquire + release, {PODS[0]} pods": await _free(few),
                f"acquire + release, {PODS[1]} pods": await _free(many),
                f"acquire + release in a queue, {CALLERS} callers for 2 connections": await _queued(scarce),
            }
            for what, cost in taken.items() if repeat >= 3 else ():
                costs.setdefault(what, []).append(cost)
    limits = (15.0, 15.0, None)
    return [
        Figure(f"pool: {what}", min(cost), "µs", limit, note=spread(cost, "µs"))
        for (what, cost), limit in zip(costs.items(), limits, strict=True)
    ]


def run(quick: bool) -> list[Figure]:
    with no_collector():
        return asyncio.run(_measured(30 if quick else 200))
