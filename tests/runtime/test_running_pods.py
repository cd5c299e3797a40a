"""`service.run` against real pods on loopback: no call fails that another pod can answer; nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headlessconn import Client, Pick
from headlessconn.core.member import State
from tests.adapters.sweep import sweep
from tests.runtime.shop import Shop, shop


class InTrouble(Exception):
    pass


async def get(pick: Pick) -> str:
    """GET /, and which pod answered."""
    async with pick.connecting():
        reader, writer = await asyncio.open_connection(pick.host, pick.port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        bad = head.startswith("HTTP/1.1 5")
        pick.responded(bad=bad)
        if bad:
            raise InTrouble(head)
        await reader.read()
        return f"{pick.host}:{pick.port}"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_crash_a_drain_and_a_restart_fail_no_call() -> None:
    async with shop(pods=3) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(3)
        done = False

        async def caller() -> int:
            count = 0
            while not done:
                await service.run(get, repeatable=True, deadline=30.0)
                count += 1
            return count

        callers = [asyncio.create_task(caller()) for _ in range(4)]
        world.orders.crash(world.orders.pods[0])
        await asyncio.sleep(0.2)
        await world.orders.add()
        await world.orders.remove(world.orders.pods[0], grace=0.1)
        await asyncio.sleep(0.2)
        done = True
        assert sum(await asyncio.gather(*callers)) >= len(callers)
        assert all(view.in_flight == 0 for view in service.snapshot.members)


async def test_a_pod_in_trouble_is_left_for_another() -> None:
    async with shop(pods=3) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(3)
        world.orders.pods[0].fail(503)
        sick = f"{world.orders.pods[0].address}:{world.orders.pods[0].port}"
        answered = {await service.run(get, repeatable=True) for _ in range(20)}
        assert sick not in answered
        assert len(answered) == 2
        failed = 0
        while not service.snapshot.of(State.EJECTED):
            try:
                await service.run(get)
            except InTrouble:
                failed += 1
        assert failed >= 1, "what may not be repeated fails there"


async def test_a_frozen_pod_is_passed_by_with_copies() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        frozen, well = world.orders.pods
        frozen.freeze()
        try:
            for _ in range(4):
                assert await service.run(get, repeatable=True, hedge_after=0.1) == f"{well.address}:{well.port}"
        finally:
            frozen.thaw()


@contextlib.asynccontextmanager
async def calling(world: Shop, **options: Any) -> AsyncIterator[Client]:
    async with world.client(**options) as client:
        yield client


@pytest.mark.parametrize("dead", [0, 1])
async def test_cancelled_anywhere(dead: int) -> None:
    """At each of its waits: before the first answer of DNS, while dialling, while the pod says nothing yet."""
    async with shop(pods=2) as world:
        for pod in world.orders.pods[:dead]:
            world.orders.crash(pod)

        async def act(client: Client) -> None:
            for _ in range(2):
                await client.service(world.orders.target).run(get, repeatable=True)

        assert await sweep(lambda: calling(world), act, client=lambda client: client) >= 3


async def test_cancelled_anywhere_while_copies_race() -> None:
    async with shop(pods=2) as world:
        for pod in world.orders.pods:
            pod.slow(0.03)

        async def act(client: Client) -> None:
            await client.service(world.orders.target).run(get, repeatable=True, hedge_after=0.005)

        assert await sweep(lambda: calling(world), act, client=lambda client: client) >= 3


async def test_cancelled_anywhere_between_rounds() -> None:
    async with shop(pods=1) as world:
        world.orders.crash(world.orders.pods[0])

        async def act(client: Client) -> None:
            with contextlib.suppress(ConnectionError):
                await client.service(world.orders.target).run(get, deadline=0.4)

        assert await sweep(lambda: calling(world), act, client=lambda client: client) >= 3
