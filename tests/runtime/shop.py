"""A cluster on loopback with the Service `orders.shop`, and the settings of a client that looks at its DNS often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from headlessconn import Client
from headlessconn.testing import EmbeddedCluster, EmbeddedService

OFTEN: dict[str, Any] = {"refresh_min": 0.05, "refresh_max": 0.1}


class Shop:
    def __init__(self, cluster: EmbeddedCluster, orders: EmbeddedService) -> None:
        self.cluster = cluster
        self.orders = orders

    def client(self, **settings: Any) -> Client:
        resolver: dict[str, Any] = self.cluster.resolver
        return Client(**{**resolver, **OFTEN, **settings})

    @property
    def places(self) -> set[tuple[str, int]]:
        return {(pod.address, pod.port) for pod in self.orders.pods}

    @property
    def questions(self) -> int:
        """How many look-ups of the Service came in: each begins with the same name."""
        own = {self.orders.fqdn, f"_{self.orders.port_name}._tcp.{self.orders.fqdn}"}
        return sum(query.name in own for query in self.cluster.zone.queries)


@contextlib.asynccontextmanager
async def shop(pods: int = 3, **service: Any) -> AsyncIterator[Shop]:
    """It ends with nothing left: no task, whatever the test did."""
    before = asyncio.all_tasks()
    async with EmbeddedCluster(ttl=1) as cluster:
        yield Shop(cluster, await cluster.service("orders", pods=pods, **service))
    assert asyncio.all_tasks() <= before


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it; the test's own limit is the only one."""
    while not condition():  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.005)
