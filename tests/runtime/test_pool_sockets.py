"""The pool with real sockets on loopback: streams, dead peers, a server that says nothing, and the client around it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headlessconn import Client, Endpoint
from headlessconn._runtime.sockets import abort, close_any, sockets_of
from headlessconn.errors import ClosedError, OptionError, PoolTimeout
from headlessconn.pool import Pool
from tests.runtime.shop import until
from tests.runtime.silent import accepting_port, refusing_port

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that says back each line; `drop` closes what it has."""

    def __init__(self) -> None:
        self.writers: list[asyncio.StreamWriter] = []
        self.answers = True
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if self.answers:
                    writer.write(line)
                    await writer.drain()
        writer.close()

    def drop(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    @property
    def connected(self) -> int:
        return sum(not writer.is_closing() for writer in self.writers)


@contextlib.asynccontextmanager
async def echoes(count: int = 2) -> AsyncIterator[list[Echo]]:
    servers, made = [], []
    for _ in range(count):
        echo = Echo()
        server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
        echo.port = server.sockets[0].getsockname()[1]
        servers.append(server)
        made.append(echo)
    try:
        yield made
    finally:
        for server, echo in zip(servers, made, strict=True):
            server.close()
            echo.drop()
            await server.wait_closed()


def target(*ports: int) -> str:
    return "static:///" + ",".join(f"127.0.0.1:{port}" for port in ports)


async def dial(endpoint: Endpoint) -> Streams:
    return await asyncio.open_connection(endpoint.address, endpoint.port)


@contextlib.asynccontextmanager
async def pooled(*ports: int, **settings: Any) -> AsyncIterator[Pool[Streams]]:
    async with Client() as client, client.service(target(*ports)).pool(open=dial, **settings) as pool:
        yield pool


async def say(pool: Pool[Streams], word: bytes = b"hello\n") -> bytes:
    async with pool.acquire() as (reader, writer):
        writer.write(word)
        return await reader.readuntil(b"\n")


async def test_streams_are_kept_spread_and_closed() -> None:
    async with echoes() as (one, two), Client() as client:
        async with client.service(target(one.port, two.port)).pool(open=dial, max_size=4) as pool:
            assert await asyncio.gather(*[say(pool) for _ in range(20)]) == [b"hello\n"] * 20
            assert abs(one.connected - two.connected) <= 1
            assert one.connected + two.connected <= 4
        await until(lambda: one.connected + two.connected == 0)


async def test_a_connection_that_the_server_closed_is_replaced() -> None:
    async def alive(streams: Streams) -> bool:
        return not streams[0].at_eof() and not streams[1].is_closing()

    async with echoes(1) as (echo,), Client() as client:
        service = client.service(target(echo.port))
        async with service.pool(open=dial, check=alive, check_after=0) as pool:
            await say(pool)
            echo.drop()
            await until(lambda: any(slot.connection[0].at_eof() for slot in pool._runner.machine.slots))  # type: ignore[union-attr]
            assert await say(pool) == b"hello\n"
            assert pool.snapshot.closed == {"failed its check": 1}


async def test_a_connection_that_breaks_in_use_is_not_used_again() -> None:
    async with echoes(1) as (echo,), pooled(echo.port) as pool:
        await say(pool)
        echo.drop()
        with pytest.raises((ConnectionError, EOFError)):
            await say(pool)
        assert await say(pool) == b"hello\n"
        assert pool.snapshot.closed == {"broken": 1}


async def test_the_kernel_watches_over_sockets_that_can_be_seen() -> None:
    async with echoes(1) as (echo,), pooled(echo.port) as pool, pool.acquire() as (_, writer):
        sock = writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if sys.platform == "linux":
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0, "it kills slow readers"


async def test_a_server_that_accepts_and_says_nothing_does_not_keep_the_others_from_serving() -> None:
    async def login(endpoint: Endpoint) -> Streams:
        reader, writer = await dial(endpoint)
        try:
            writer.write(b"login\n")
            await reader.readuntil(b"\n")
        except BaseException:
            writer.close()
            raise
        return reader, writer

    with accepting_port() as silent:
        async with echoes(1) as (echo,), Client() as client:
            service = client.service(target(silent, echo.port))
            async with service.pool(open=login, open_timeout=0.5, max_size=4) as pool:
                assert await asyncio.gather(*[say(pool) for _ in range(8)]) == [b"hello\n"] * 8
                await until(lambda: not pool.snapshot.opening)
                assert any("open_timeout" in pod.trouble for pod in pool.snapshot.pods)


async def test_a_pod_that_refuses_is_left_alone() -> None:
    with refusing_port() as refusing:
        async with echoes(1) as (echo,), pooled(refusing, echo.port, max_size=4) as pool:
            assert await asyncio.gather(*[say(pool) for _ in range(8)]) == [b"hello\n"] * 8


async def test_a_silent_peer_is_cut_off_so_that_its_holder_can_go_on() -> None:
    """What is done with the connections of a pod that gives no TCP connection any more: whoever reads gets an error."""
    async with echoes(1) as (echo,):
        echo.answers = False
        streams = await asyncio.open_connection("127.0.0.1", echo.port)
        reading = asyncio.ensure_future(streams[0].readexactly(1))
        await asyncio.sleep(0)
        assert abort(streams)
        with pytest.raises((ConnectionError, EOFError)):
            await reading
        assert not abort(object()), "nothing can be seen in it"


async def test_what_can_be_seen_in_a_connection() -> None:
    async with echoes(1) as (echo,):
        reader, writer = await asyncio.open_connection("127.0.0.1", echo.port)
        with socket.socket() as plain:
            assert list(sockets_of(plain)) == [plain]
        assert len(list(sockets_of((reader, writer)))) == 1
        assert len(list(sockets_of(writer.transport))) == 1
        assert list(sockets_of("a library's own")) == []
        await close_any((reader, writer))
        assert writer.is_closing()


async def test_what_is_closed_without_a_close_hook() -> None:
    done: list[str] = []

    class Async:
        async def aclose(self) -> None:
            done.append("aclose")

        def close(self) -> None:
            raise AssertionError("aclose comes first")

    class Plain:
        def close(self) -> None:
            done.append("close")

    class Waits(Plain):
        async def wait_closed(self) -> None:
            done.append("wait_closed")

    for one in (Async(), Plain(), Waits()):
        await close_any(one)
    assert done == ["aclose", "close", "close", "wait_closed"]


async def test_closing_the_client_closes_its_pools() -> None:
    async with echoes(1) as (echo,):
        client = Client()
        pool = client.service(target(echo.port)).pool(open=dial)
        await say(pool)
        waiting = [await pool.acquire() for _ in range(10)]
        queued = asyncio.ensure_future(say(pool))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ClosedError):
            await queued
        with pytest.raises(ClosedError):
            await say(pool)
        await until(lambda: not echo.connected)
        del waiting


async def test_a_pool_of_a_closed_client_says_so() -> None:
    client = Client()
    pool = client.service(target(1)).pool(open=dial)
    await client.aclose()
    with pytest.raises(ClosedError):
        await say(pool)


async def test_its_settings_are_checked_when_it_is_made() -> None:
    async with Client() as client:
        service = client.service(target(1))
        with pytest.raises(OptionError, match="option max_size: 0 is not between"):
            service.pool(open=dial, max_size=0)
        with pytest.raises(OptionError, match="option max_sise: a pool has no such setting"):
            service.pool(open=dial, max_sise=3)


async def test_ready_waits_for_min_size() -> None:
    async with echoes() as (one, two), pooled(one.port, two.port, min_size=4) as pool:
        await pool.ready()
        assert pool.snapshot.idle == 4
    with refusing_port() as refusing:
        async with pooled(refusing, min_size=1) as pool:
            with pytest.raises(PoolTimeout):
                await pool.ready(timeout=0.2)
