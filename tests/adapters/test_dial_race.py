"""Dials beside a silent one: within the caller's time, within the pool's limit, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.testing import EmbeddedCluster, EmbeddedService
from tests.adapters.sweep import sweep
from tests.adapters.test_cancellation import Caller, small_get
from tests.adapters.world import OFTEN, Shop, black_hole, get, shop, until

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux drops a SYN when the queue is full"
)

URL = "http://holed.example"


def target(*places: tuple[str, int]) -> dict[str, str]:
    return {"holed.example": "static:///" + ",".join(f"{host}:{port}" for host, port in places)}


@contextlib.asynccontextmanager
async def holed(pods: int = 1, holes: int = 1, **options: Any) -> AsyncIterator[Shop]:
    """Pods, and addresses that swallow every SYN, behind one name."""
    async with shop(pods, options={"policy": "round_robin"} | options) as world, contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(black_hole()) for _ in range(holes)]
        world.targets = target(*[(pod.address, pod.port) for pod in world.orders.pods], *silent)
        yield world


async def test_cancelled_anywhere_while_a_second_dial_runs_beside_a_silent_one() -> None:
    async with EmbeddedCluster(ttl=1) as cluster, black_hole() as hole:
        orders = await cluster.service("orders", pods=2)

        @contextlib.asynccontextmanager
        async def stage() -> AsyncIterator[Caller]:
            async with racing(cluster, orders, hole) as caller:
                yield caller

        async def act(caller: Caller) -> None:
            for _ in range(3):  # one after the other: one of them begins with the silent one
                await small_get(caller)
            [driver] = caller.client.hub().drivers()
            assert driver.engine.budget.spent

        assert await sweep(stage, act, client=lambda caller: caller.client) >= 6


@contextlib.asynccontextmanager
async def racing(cluster: EmbeddedCluster, orders: EmbeddedService, hole: tuple[str, int]) -> AsyncIterator[Caller]:
    """No connection is kept, so that each request dials."""
    options = {**OFTEN, "policy": "round_robin", "race_after": 0.02}
    async with Client(**{**cluster.resolver, **options}) as client:
        targets = target(hole, *[(pod.address, pod.port) for pod in orders.pods])
        connector = HeadlessConnector(client, targets=targets, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            caller = Caller(client, session, orders)
            caller.url = URL
            yield caller


async def test_all_dials_together_keep_to_the_callers_limit() -> None:
    """Each of eight silent addresses could be dialled for 0.3 s; the caller allowed 0.6 s for all of it."""
    dials: list[float] = []

    def make(info: tuple[Any, ...]) -> socket.socket:
        dials.append(time.monotonic())
        return socket.socket(*info[:3])

    async with holed(0, 8, connect_timeout=0.3, race_after=0.1) as world:
        connector = world.connector(socket_factory=make)
        async with world.session(connector=connector, timeout=aiohttp.ClientTimeout(connect=0.6)) as session:
            with pytest.raises(aiohttp.ConnectionTimeoutError):
                await session.get(URL)
            assert 2 <= len(dials) <= 5, "three within 0.3 s, and one after each that timed out by then"
            await until(lambda: not connector._kept)
            assert not connector._acquired


async def test_in_a_full_pool_no_dial_waits_for_the_place_of_the_silent_one() -> None:
    async with holed(connect_timeout=0.4, race_after=0.05) as world:
        connector = world.connector(limit=1, force_close=True)
        async with world.session(connector=connector) as session:
            for _ in range(2):
                await get(session, URL)
            [driver] = world.client.hub().drivers()
            assert driver.engine.budget.spent == 0


async def test_the_session_is_closed_while_dials_race() -> None:
    async with holed(0, 3, connect_timeout=30, race_after=0.02) as world:
        connector = world.connector()
        session = world.session(connector=connector, timeout=aiohttp.ClientTimeout(connect=1.0))
        request = asyncio.create_task(session.get(URL))
        await until(lambda: len(connector._kept) == 2)
        await session.close()
        assert not connector._kept
        with pytest.raises(aiohttp.ClientError):
            await request
        [driver] = world.client.hub().drivers()
        await until(lambda: not any(member.in_flight for member in driver.snapshot().members))


async def test_the_connection_of_a_dial_that_came_too_late_is_kept_for_later() -> None:
    """Two connections come of one request, both to pods that are well: the second to come is not thrown away."""
    async with holed(2, 1, connect_timeout=5, race_after=0.01) as world:
        connector = world.connector()
        async with world.session(connector=connector) as session:
            for _ in range(9):
                await get(session, URL)
            [driver] = world.client.hub().drivers()
            await until(lambda: not connector._kept)
            assert sum(member.in_flight for member in driver.snapshot().members) == 0
            assert not connector._acquired
            assert sum(pod.connections for pod in world.orders.pods) == sum(map(len, connector._conns.values()))
