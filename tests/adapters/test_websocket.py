"""A WebSocket is a connection, not a request: it counts as one for as long as it is open."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest
from yarl import URL

from tests.adapters.world import get, shop, until


async def test_it_counts_as_a_connection_until_it_is_closed() -> None:
    async with shop() as world, world.session() as session:
        async with session.ws_connect(f"{world.url}/ws") as web_socket:
            assert world.load == (0, 1)
            for number in range(20):
                await web_socket.send_str(str(number))
                assert (await web_socket.receive()).data == str(number)
            await web_socket.send_bytes(b"\0" * 100_000)
            assert len((await web_socket.receive()).data) == 100_000
            assert world.load == (0, 1)
        assert world.load == (0, 0)


async def test_the_scheme_may_be_ws_and_the_handshake_names_the_service() -> None:
    async with shop() as world, world.session() as session:
        url = URL(f"{world.url}/ws").with_scheme("ws")
        async with session.ws_connect(url) as web_socket:
            assert web_socket.get_extra_info("peername")[:2] in [(pod.address, pod.port) for pod in world.orders.pods]
        assert {r.host for pod in world.orders.pods for r in pod.requests} == {url.authority}


async def test_many_spread_over_the_pods() -> None:
    async with shop(3) as world, world.session() as session:
        opened = [await session.ws_connect(f"{world.url}/ws") for _ in range(12)]
        assert world.load == (0, 12)
        assert min(pod.connections for pod in world.orders.pods) >= 1
        for web_socket in opened:
            await web_socket.close()
        assert world.load == (0, 0)


async def test_a_pod_that_dies_under_it_ends_it() -> None:
    async with shop(1) as world, world.session() as session:
        async with session.ws_connect(f"{world.url}/ws") as web_socket:
            world.orders.crash(world.orders.pods[0])
            message = await web_socket.receive()
            assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
        assert world.load == (0, 0)


async def test_a_pod_that_says_good_bye_ends_it() -> None:
    async with shop(2) as world, world.session() as session:
        async with session.ws_connect(f"{world.url}/ws") as web_socket:
            [pod] = [pod for pod in world.orders.pods if pod.in_flight]
            leaving = asyncio.create_task(world.orders.remove(pod, grace=0.05))
            message = await web_socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, aiohttp.WSCloseCode.GOING_AWAY)
        await leaving
        await until(lambda: len(world.view.members) == 1)
        assert world.load == (0, 0)


async def test_a_handshake_that_is_refused_gives_its_pod_back() -> None:
    async with shop(2) as world, world.session() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            await session.ws_connect(f"{world.url}/status/403")
        assert raised.value.request_info.url.host == "orders.shop"
        await get(session, world.url)
        assert world.load == (0, 0)


async def test_one_that_was_dropped_unclosed_gives_its_pod_back() -> None:
    async with shop(1) as world:
        async with world.session() as session:
            web_socket = await session.ws_connect(f"{world.url}/ws")
            assert world.load == (0, 1)
        assert web_socket.closed or (await web_socket.receive()).type in (
            aiohttp.WSMsgType.CLOSED,
            aiohttp.WSMsgType.ERROR,
        )
        await web_socket.close()
        assert world.load == (0, 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
async def test_the_kernel_bounds_the_silence_of_requests_but_not_of_streams() -> None:
    async with shop(1) as world, world.session() as session:

        def limits(transport: asyncio.BaseTransport | None) -> tuple[int, int, int]:
            assert transport is not None
            sock = transport.get_extra_info("socket")
            alive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
            return alive, idle, sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

        async with session.get(f"{world.url}/stream?chunks=3") as response:
            assert response.connection is not None
            assert limits(response.connection.transport) == (1, 15, 30_000)
        async with session.ws_connect(f"{world.url}/ws") as web_socket:
            transport = web_socket._response.connection and web_socket._response.connection.transport
            assert limits(transport) == (1, 15, 0)
