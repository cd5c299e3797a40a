"""That part, tested against a cluster in the test's own process: real DNS, real servers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from orders_client import Orders

import headlessconn
from headlessconn.testing import EmbeddedCluster, EmbeddedService


@asynccontextmanager
async def calling(
    cluster: EmbeddedCluster, service: EmbeddedService, **settings: Any
) -> AsyncIterator[Orders]:
    """Our part of the application, pointed to the cluster's DNS as resolv.conf does in a pod."""
    async with headlessconn.Client(**cluster.resolver, **settings) as client:
        async with Orders(service.url, client) as orders:
            yield orders


def test_a_rolling_restart_is_not_noticed(headless_cluster: EmbeddedCluster) -> None:
    async def scenario() -> None:
        async with headless_cluster as cluster:
            service = await cluster.service("orders", pods=3, ttl=1)
            async with calling(cluster, service) as orders:
                restart = asyncio.create_task(service.roll(surge=1, grace=0.5))
                while not restart.done():
                    await orders.get(7)  # any failure fails the test
                await restart

    asyncio.run(scenario())


def test_a_crashed_pod_costs_nothing(headless_cluster: EmbeddedCluster) -> None:
    async def scenario() -> None:
        async with headless_cluster as cluster:
            service = await cluster.service("orders", pods=3)
            async with calling(cluster, service) as orders:
                await orders.get(1)
                dead = service.pods[0]
                service.crash(dead)  # and DNS goes on listing it, until a probe would notice
                names = {(await orders.get(number))["pod"] for number in range(50)}
                assert names == {pod.name for pod in service.pods}

    asyncio.run(scenario())


def test_dns_may_fail_for_a_while(headless_cluster: EmbeddedCluster) -> None:
    async def scenario() -> None:
        async with headless_cluster as cluster:
            service = await cluster.service("orders", pods=2)
            async with calling(cluster, service, refresh_min=0.05, refresh_max=0.05) as orders:
                await orders.get(1)
                with cluster.zone.trouble(rcode="SERVFAIL"):
                    asked = len(cluster.zone.queries)
                    while len(cluster.zone.queries) < asked + 3:  # three questions have failed
                        await orders.get(2)

    asyncio.run(scenario())


def test_nobody_there_is_said_clearly(headless_cluster: EmbeddedCluster) -> None:
    async def scenario() -> None:
        async with headless_cluster as cluster:
            service = await cluster.service("orders", pods=0)
            async with calling(cluster, service, wait_for_endpoints=0) as orders:
                with pytest.raises(headlessconn.NoEndpoints, match="NXDOMAIN"):
                    await orders.get(1)

    asyncio.run(scenario())
