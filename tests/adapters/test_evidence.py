"""How a request ended is evidence about its pod, or about nobody. Errors and retries are aiohttp's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from headlessconn.testing import Pod
from tests.adapters.world import get, shop, until

# ---- resets, and aiohttp's one retry ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def hanging_up(keeps: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers `keeps` requests of each connection and closes it when the next one has come."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            for _ in range(keeps):
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nX-Pod: raw\r\nContent-Length: 0\r\n\r\n")
            asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"static:///127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def test_an_idempotent_request_on_a_connection_that_the_pod_has_just_closed_is_repeated() -> None:
    async with shop(0) as world, hanging_up(keeps=1) as (target, asked):
        async with world.session(connector=world.connector(targets={"raw.example": target})) as session:
            for _ in range(3):
                await get(session, "http://raw.example")
        assert len(asked) == 5, "two were sent again, on a new connection"
        [member] = world.client.service(target).snapshot.members
        assert (member.state.value, member.in_flight) == ("ready", 0), "a keep-alive race is no evidence"


async def test_a_post_on_a_connection_that_the_pod_has_just_closed_is_not_repeated() -> None:
    async with shop(0, options={"consecutive_failures": 1}) as world, hanging_up(keeps=1) as (target, asked):
        async with world.session(connector=world.connector(targets={"raw.example": target})) as session:
            await get(session, "http://raw.example")
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post("http://raw.example")
        assert [line.partition(b" ")[0] for line in asked] == [b"GET", b"POST"]


async def test_without_the_retry_of_the_session_it_is_the_callers_to_see() -> None:
    async with shop(0) as world, hanging_up(keeps=0) as (target, asked):
        session = world.session(connector=world.connector(targets={"raw.example": target}))
        async with session:
            with pytest.raises(aiohttp.ServerDisconnectedError):
                await session.post("http://raw.example")
        assert len(asked) == 1


async def test_a_post_does_not_go_into_a_kept_connection_that_is_closed_already() -> None:
    """The pod has hung up, and our loop is too busy to have noticed."""
    hang_up, hung_up = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        for number in range(2):
            connection, _ = listener.accept()
            with connection:
                received = b""
                while not received.endswith(b"once"):
                    received += connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
                hang_up.wait(10)
            hung_up.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        pod = threading.Thread(target=serve, args=(listener,))
        pod.start()
        target = f"static:///127.0.0.1:{listener.getsockname()[1]}"
        async with shop(0) as world:
            session = world.session(connector=world.connector(targets={"raw.example": target}))
            async with session:
                async with session.post("http://raw.example", data=b"once") as response:
                    assert await response.text() == "0"
                hang_up.set()
                assert hung_up.wait(10)  # and the loop stands still
                async with session.post("http://raw.example", data=b"once") as response:
                    assert await response.text() == "1"
        pod.join()


async def test_a_pod_that_breaks_new_connections_is_ejected() -> None:
    options = {"consecutive_failures": 3, "eject_base": 60}
    async with shop(1, options=options) as world, hanging_up(keeps=0) as (bad, _):
        [pod] = world.orders.pods
        target = f"{bad},{pod.address}:{pod.port}"
        async with world.session(connector=world.connector(targets={"mixed.example": target})) as session:
            for _ in range(12):
                with contextlib.suppress(aiohttp.ServerDisconnectedError):
                    await session.post("http://mixed.example")
            members = world.client.service(target).snapshot.members
        assert sorted((m.state.value, m.why) for m in members) == [
            ("ejected", "3 bad answers in a row, the last: reset"),
            ("ready", "listed"),
        ]


async def test_a_body_cut_short_is_a_reset_and_raises_what_aiohttp_raises() -> None:
    async with shop(2, options={"consecutive_failures": 1, "eject_base": 60}) as world, world.session() as session:
        async with session.get(f"{world.url}/stream?chunks=1000") as response:
            await response.content.readline()
            world.orders.crash(world.orders.pod(response.headers["X-Pod"]))
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert world.states == ["ejected", "ready"]
        assert world.load == (0, 0)


async def test_what_is_not_http_is_a_bad_answer() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with shop(1, options={"consecutive_failures": 1, "eject_base": 60}) as world, server:
        [pod] = world.orders.pods
        target = f"static:///127.0.0.1:{server.sockets[0].getsockname()[1]},{pod.address}:{pod.port}"
        async with world.session(connector=world.connector(targets={"mixed.example": target})) as session:
            failed = 0
            for _ in range(10):
                try:
                    await get(session, "http://mixed.example")
                except aiohttp.ClientResponseError:
                    failed += 1
            assert failed == 1
        assert sorted(m.state.value for m in world.client.service(target).snapshot.members) == ["ejected", "ready"]


# ---- not the pod's doing ---------------------------------------------------------------------------------------------


STRICT = {"consecutive_failures": 1, "eject_base": 60}


@pytest.mark.parametrize(
    "error",
    [
        *(ConnectionResetError("of a database"), ValueError(), TimeoutError()),
        *(aiohttp.ServerDisconnectedError(), aiohttp.SocketTimeoutError(), aiohttp.ClientPayloadError()),  # of others
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_exception_of_the_callers_own_while_he_reads(error: Exception) -> None:
    async with shop(2, options=STRICT) as world, world.session() as session:

        async def read() -> None:
            async with session.get(f"{world.url}/stream?chunks=1000") as response:
                await response.content.readline()
                raise error

        with pytest.raises(type(error)):
            await read()
        assert world.states == ["ready", "ready"]
        assert world.load == (0, 0)


@pytest.mark.parametrize("error", [ConnectionResetError(errno.ECONNRESET, "upstream"), ValueError("no more rows")])
async def test_a_body_of_the_callers_that_breaks_while_it_is_sent(error: Exception) -> None:
    async def rows() -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.sleep(0)
        raise error

    async with shop(2, options=STRICT) as world, world.session() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"{world.url}/echo", data=rows())
        await until(lambda: world.load == (0, 0))
        assert world.states == ["ready", "ready"]


async def test_a_request_made_inside_the_callers_own_except() -> None:
    async with shop(2, options=STRICT) as world, world.session() as session:
        try:
            raise ConnectionResetError("the reason for the request below")
        except ConnectionResetError:
            for _ in range(6):
                await get(session, world.url)
        assert world.states == ["ready", "ready"]
        assert world.load == (0, 0)


async def test_closing_the_session_under_a_request() -> None:
    async with shop(2, options=STRICT) as world:
        async with world.session() as session, world.session() as other:
            held = asyncio.create_task(get(session, f"{world.url}/slow?seconds=30"))
            await until(lambda: sum(pod.in_flight for pod in world.orders.pods) == 1)
            await session.close()
            with pytest.raises(aiohttp.ClientError):
                await held
            await get(other, world.url)
            assert world.states == ["ready", "ready"]
        assert world.load == (0, 0)


async def test_our_own_lack_of_sockets() -> None:
    def none_left(_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async with shop(2) as world:
        async with world.session(connector=world.connector(socket_factory=none_left)) as session:
            with pytest.raises(aiohttp.ClientConnectorError, match="Too many open files"):
                await get(session, world.url)
        assert world.states == ["ready", "ready"]
        assert world.load == (0, 0)


async def test_the_callers_own_socket_factory_makes_the_sockets() -> None:
    made: list[socket.socket] = []

    def make(info: tuple[Any, ...]) -> socket.socket:
        made.append(socket.socket(*info[:3]))
        return made[-1]

    async with shop(2) as world, world.session(connector=world.connector(socket_factory=make)) as session:
        assert len({await get(session, world.url) for _ in range(10)}) == 2
        assert len(made) == 2
        assert all(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for sock in made)


# ---- bad answers -----------------------------------------------------------------------------------------------------


async def test_a_pod_that_answers_503_is_ejected_after_five_and_readmitted_by_one_trial() -> None:
    # In turn: by load it would get too little for five in a row, since what fails fast does not look fast.
    async with shop(3, options={"eject_base": 0.3, "policy": "round_robin"}) as world, world.session() as session:
        await world.service.ready(3)
        failing: Pod = world.orders.pods[0]
        failing.fail(503)

        async def burst(count: int) -> None:
            for _ in range(count):
                async with session.get(world.url) as response:
                    await response.read()

        await burst(60)
        assert world.state(failing) == "ejected"
        assert 5 <= len(failing.requests) <= 7, "five, and a trial or two on a slow machine"
        failing.recover()
        seen = len(failing.requests)
        await until(lambda: (world.member(failing).retry_in or 0) <= 0)
        await burst(1)
        assert len(failing.requests) == seen + 1, "the first request after its time is the trial"
        assert world.state(failing) == "ready"
        assert world.load == (0, 0)


@pytest.mark.parametrize("status", [400, 404, 429, 501, 505])
async def test_answers_that_are_not_the_pods_fault(status: int) -> None:
    async with shop(2, options=STRICT) as world, world.session() as session:
        for _ in range(4):
            async with session.get(f"{world.url}/status/{status}") as response:
                assert response.status == status
        assert world.states == ["ready", "ready"]


async def test_a_frozen_pod_keeps_only_what_it_has() -> None:
    """Its callers wait, as they would anywhere; nobody else does, since it looks loaded."""
    async with shop(3) as world, world.session() as session:
        await world.service.ready(3)
        frozen = world.orders.pods[0]
        frozen.freeze()
        held: list[asyncio.Task[str]] = []
        while not world.member(frozen).in_flight:
            held.append(asyncio.create_task(get(session, world.url)))
            await until(lambda: sum(task.done() for task in held) + world.member(frozen).in_flight == len(held))
        assert frozen.name not in [await get(session, world.url) for _ in range(60)]
        frozen.thaw()
        assert await held[-1] == frozen.name
        assert world.load == (0, 0)
