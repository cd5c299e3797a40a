"""The end: what was opened is closed, what was shared is left to its other users, and too late is a clear error."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import pytest

from headlessconn import Client
from headlessconn._runtime import hub
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.errors import ClosedError, WrongLoop
from headlessconn.testing import Pod
from tests.adapters.sweep import Books
from tests.adapters.world import PlainResolver, get, shop, until


def static(*pods: Pod) -> dict[str, str]:
    return {"orders.example": "static:///" + ",".join(f"{pod.address}:{pod.port}" for pod in pods)}


async def test_closing_the_session_leaves_no_task_no_socket_and_no_pick() -> None:
    async with shop(3) as world:
        await world.service.ready()
        books = Books.open()
        async with world.session() as session:
            await asyncio.gather(*(get(session, world.url) for _ in range(20)))
            async with session.ws_connect(f"{world.url}/ws"):
                pass
        await books.no_load(world.client)
        await world.client.aclose()
        await books.balanced()


async def test_a_connector_of_its_own_client_closes_it() -> None:
    async with Pod("a") as a, Pod("b") as b:
        books = Books.open()
        connector = HeadlessConnector(targets=static(a, b))
        async with aiohttp.ClientSession(connector=connector) as session:
            assert len({await get(session, "http://orders.example") for _ in range(20)}) == 2
            assert len(hub._hubs[asyncio.get_running_loop()]) == 1
        assert connector.closed
        assert not hub._hubs[asyncio.get_running_loop()]
        await books.balanced()


async def test_closing_twice_is_right() -> None:
    async with Pod() as pod:
        connector = HeadlessConnector(targets=static(pod))
        session = aiohttp.ClientSession(connector=connector)
        await get(session, "http://orders.example")
        for _ in range(2):
            await session.close()
            await connector.close()


async def test_a_connector_that_was_never_used_closes_too() -> None:
    books = Books.open()
    async with HeadlessConnector() as connector:
        assert not connector.closed
    await books.balanced()


async def test_a_shared_client_stays_open_for_the_other_connector() -> None:
    async with shop(2) as world:
        async with world.session() as one:
            await get(one, world.url)
        async with world.session() as other:
            await get(other, world.url)
        assert len(world.view.members) == 2


async def test_a_closed_connector_says_so() -> None:
    async with shop(1) as world:
        session = world.session()
        await get(session, world.url)
        await session.close()
        with pytest.raises(RuntimeError, match="Session is closed"):
            await session.get(world.url)


async def test_a_client_closed_under_a_live_connector_says_so() -> None:
    async with shop(1) as world, world.session() as session:
        await get(session, world.url)
        await world.client.aclose()
        for _ in range(2):
            with pytest.raises(ClosedError, match="this client was closed"):
                await session.get(world.url)
        await get(session, world.orders.pods[0].url)


async def test_a_client_closed_under_a_request_that_waits_says_so() -> None:
    async with shop(0, options={"wait_for_endpoints": 60}) as world, world.session() as session:
        waiting = asyncio.create_task(get(session, world.url))
        await until(lambda: world.view.waiting == 1)
        await world.client.aclose()
        with pytest.raises(ClosedError):
            await waiting


async def test_a_request_under_way_survives_the_clients_end() -> None:
    async with shop(1) as world, world.session() as session:
        [pod] = world.orders.pods
        slow = asyncio.create_task(get(session, f"{world.url}/slow?seconds=0.2"))
        await pod.until(lambda: pod.in_flight == 1)
        await world.client.aclose()
        assert await slow == pod.name


def in_another_loop(work: Any) -> BaseException | None:
    """Run a coroutine in a loop of another thread; what it raised."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return raised[0] if raised else None


async def test_a_client_of_one_loop_in_a_connector_of_another_is_the_wrong_loop() -> None:
    async with shop(1) as world:
        await world.service.ready()

        async def elsewhere() -> None:
            async with world.session() as session:
                await session.get(world.url)

        error = await asyncio.to_thread(in_another_loop, elsewhere)
        assert isinstance(error, WrongLoop)
        assert "another event loop" in str(error)


def test_a_client_built_outside_of_any_loop_serves_in_the_one_that_comes() -> None:
    client = Client()

    async def main() -> None:
        async with Pod() as pod:
            connector = HeadlessConnector(client, targets=static(pod))
            async with aiohttp.ClientSession(connector=connector) as session:
                await get(session, "http://orders.example")
        await client.aclose()

    asyncio.run(main())


async def test_the_plain_resolver_is_closed_with_the_connector_as_ever() -> None:
    closed = []

    class Resolver(PlainResolver):
        async def close(self) -> None:
            closed.append(True)

    resolver = Resolver()
    async with HeadlessConnector(resolver=resolver):
        pass
    assert closed == [], "a resolver that was given is the caller's, as aiohttp has it"
