"""A pod serves, ails and dies; a client sees over real sockets what a pod's client sees."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import trustme
from aiohttp import web

from headlessconn.testing import Pod


@contextlib.asynccontextmanager
async def client_of(pod: Pod, *, keep_alive: bool = True) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=not keep_alive)
    async with aiohttp.ClientSession(pod.url, connector=connector) as session:
        yield session


async def status(session: aiohttp.ClientSession, path: str = "/", method: str = "GET") -> int:
    async with session.request(method, path) as response:
        await response.read()
        return response.status


async def until_in_flight(pod: Pod, count: int = 1) -> None:
    await pod.until(lambda: pod.in_flight == count)


async def is_refused(pod: Pod) -> bool:
    try:
        _, writer = await asyncio.open_connection(pod.address, pod.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    await writer.wait_closed()
    return False


async def test_it_says_who_it_is_and_what_it_was_asked() -> None:
    async with Pod("orders-1") as pod, client_of(pod) as session:
        async with session.get("/v1/orders?page=2", headers={"Host": "orders.shop", "X-Trace": "7"}) as response:
            said = await response.json()
            assert response.headers["X-Pod"] == "orders-1"
        assert (said["pod"], said["port"], said["host"]) == ("orders-1", pod.port, "orders.shop")
        assert (said["method"], said["path"], said["query"]) == ("GET", "/v1/orders", {"page": "2"})
        assert said["headers"]["X-Trace"] == "7"
        [request] = pod.requests
        assert (request.method, request.path, request.host) == ("GET", "/v1/orders", "orders.shop")
        assert (pod.served, pod.in_flight, pod.accepted, pod.connections) == (1, 0, 1, 1)
        assert await status(session) == 200
        assert (pod.served, pod.accepted) == (2, 1), "the connection was used again"


async def test_what_it_can_do() -> None:
    async with Pod("a") as pod, client_of(pod) as session:
        assert await status(session, "/status/418") == 418
        assert await status(session, "/slow?seconds=0.01") == 200
        async with session.post("/echo", data=b"x" * 300_000, headers={"Content-Type": "text/x"}) as response:
            assert (await response.read(), response.content_type) == (b"x" * 300_000, "text/x")
        async with session.get("/redirect?to=/status/204") as response:
            assert (response.status, response.url.path) == (204, "/status/204")
        async with session.get("/set-cookie?session=abc") as response:
            assert response.cookies["session"].value == "abc"
        async with session.get("/stream?chunks=3&seconds=0") as response:
            assert await response.text() == "a 0\na 1\na 2\n"
        async with session.ws_connect("/ws") as ws:
            await ws.send_str("text")
            await ws.send_bytes(b"bytes")
            assert [await ws.receive_str(), await ws.receive_bytes()] == ["text", b"bytes"]
        assert await status(session, "/ws") == 400
        assert pod.served == 9, "a redirect is two requests"


async def test_a_killed_pod_breaks_everything_at_once_and_can_start_again() -> None:
    async with Pod() as pod, client_of(pod) as session:
        port = pod.port
        open_request = asyncio.create_task(status(session, "/slow?seconds=3600"))
        await until_in_flight(pod)
        pod.kill()
        pod.kill()
        assert await is_refused(pod)
        with pytest.raises(aiohttp.ClientError):
            await open_request
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(session)
        assert (pod.is_running, pod.served) == (False, 0)
        await pod.start()
        await pod.start()
        assert (pod.port, pod.in_flight, pod.connections) == (port, 0, 0)
        assert await status(session) == 200


async def test_nothing_is_left_of_it() -> None:
    before = asyncio.all_tasks()
    async with Pod() as pod, client_of(pod) as session:
        idle = await session.get("/")
        await idle.read()
        open_requests = [asyncio.create_task(status(session, "/slow?seconds=3600")) for _ in range(3)]
        open_requests.append(asyncio.create_task(status(session, "/stream?chunks=9&seconds=3600")))
        ws = await session.ws_connect("/ws")
        await until_in_flight(pod, 5)
        await pod.stop()
        assert (pod.connections, pod.in_flight) == (0, 0)
        ended = await asyncio.gather(*open_requests, return_exceptions=True)
        assert all(isinstance(error, aiohttp.ClientError) for error in ended)
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSED
        await ws.close()
    assert asyncio.all_tasks() == before


async def test_a_draining_pod_serves_for_its_grace_and_is_then_gone() -> None:
    async with Pod() as pod, client_of(pod, keep_alive=False) as session:
        draining = asyncio.create_task(pod.drain(grace=0.3))
        await pod.until(lambda: pod.is_draining)
        assert await status(session) == 200, "it accepts new connections as well"
        await pod.drain(grace=0)
        await draining
        assert (pod.is_running, pod.is_draining) == (False, False)
        assert await is_refused(pod)
        await pod.drain()


async def test_a_pod_that_closes_its_port_at_once_finishes_what_is_open() -> None:
    async with Pod() as pod, client_of(pod) as session:
        idle = await session.get("/")
        await idle.read()
        open_request = asyncio.create_task(status(session, "/slow?seconds=0.3"))
        ws = await session.ws_connect("/ws")
        await until_in_flight(pod, 2)
        draining = asyncio.create_task(pod.drain(close_listener_at_once=True))
        await pod.until(lambda: pod.is_draining)
        assert await is_refused(pod)
        assert pod.is_running
        assert (await ws.receive()).data == aiohttp.WSCloseCode.GOING_AWAY
        assert await open_request == 200
        await draining
        assert (pod.is_running, pod.connections, pod.served) == (False, 0, 3)


async def test_what_takes_longer_than_it_may_is_cut() -> None:
    async with Pod() as pod, client_of(pod) as session:
        open_request = asyncio.create_task(status(session, "/slow?seconds=3600"))
        await until_in_flight(pod)
        await pod.drain(grace=0, finish=0.1)
        with pytest.raises(aiohttp.ClientError):
            await open_request


async def test_a_cancelled_drain_is_a_kill() -> None:
    async with Pod() as pod:
        draining = asyncio.create_task(pod.drain(grace=3600))
        await pod.until(lambda: pod.is_draining)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert (pod.is_running, pod.is_draining) == (False, False)


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize("keep_alive", [False, True])
async def test_a_pod_that_closes_under_load_loses_no_request_that_it_let_in(
    keep_alive: bool, with_tls: bool, certificates: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    """What fails was refused, so it was not sent; or it went down a kept connection that was closed meanwhile, which
    is a race that HTTP has and no pod can avoid."""
    server_side, client_side = certificates
    races: list[BaseException] = []
    async with (
        Pod(ssl_context=server_side if with_tls else None) as pod,
        client_of(pod, keep_alive=keep_alive) as session,
    ):

        async def work() -> None:
            while True:
                try:
                    async with session.post("/echo", data=b"order", ssl=client_side) as response:
                        assert await response.read() == b"order"
                except aiohttp.ClientConnectorError:
                    return
                except aiohttp.ClientError as error:
                    races.append(error)

        async with asyncio.TaskGroup() as workers:
            for _ in range(16):
                workers.create_task(work())
            await pod.until(lambda: pod.served >= 100)
            await pod.drain(close_listener_at_once=True)
        assert keep_alive or races == []
        assert len(races) <= 16


async def test_a_frozen_pod_is_connected_to_and_says_nothing() -> None:
    async with Pod() as pod, client_of(pod) as session:
        open_request = asyncio.create_task(status(session, "/slow?seconds=0.01"))
        await until_in_flight(pod)
        pod.freeze()
        pod.freeze()
        assert pod.is_frozen
        assert not await is_refused(pod), "the kernel accepts"
        new_request = asyncio.create_task(status(session))
        pending = (await asyncio.wait({open_request, new_request}, timeout=0.3))[1]
        assert pending == {open_request, new_request}
        assert pod.served == 1, "its handler had ended; the answer did not come out"
        assert pod.accepted == 1
        pod.thaw()
        pod.thaw()
        assert await open_request == 200
        assert await new_request == 200


async def test_a_frozen_pod_keeps_a_stream_and_a_web_socket_still() -> None:
    async with Pod("a") as pod, client_of(pod) as session:
        ws = await session.ws_connect("/ws")
        stream = await session.get("/stream?chunks=4&seconds=0.02")
        assert await stream.content.readline() == b"a 0\n"
        pod.freeze()
        await ws.send_str("anybody there?")
        await pod.until(lambda: pod.in_flight == 1)  # the stream's handler comes to its end, unheard
        assert stream.content.total_bytes <= len("a 0\na 1\na 2\n")
        pod.thaw()
        assert await stream.content.read() == b"a 1\na 2\na 3\n"
        assert await ws.receive_str() == "anybody there?"
        await ws.close()


async def test_a_frozen_pod_can_be_killed_and_starts_thawed() -> None:
    async with Pod() as pod, client_of(pod) as session:
        open_request = asyncio.create_task(status(session, "/slow?seconds=0"))
        await until_in_flight(pod)
        pod.freeze()
        pod.kill()
        with pytest.raises(aiohttp.ClientError):
            await open_request
        await pod.start()
        assert not pod.is_frozen
        assert await status(session) == 200


async def test_slow_failing_refusing_and_well_again() -> None:
    async with Pod() as pod, client_of(pod, keep_alive=False) as session:
        pod.fail(503)
        assert await status(session) == 503
        pod.slow(3600)
        assert await status(session) == 503, "a pod that fails fast does not wait"
        pod.recover()
        assert await status(session) == 200
        pod.slow(3600)
        slow_request = asyncio.create_task(status(session))
        await until_in_flight(pod)
        assert pod.served == 3
        slow_request.cancel()
        pod.recover()
        async with client_of(pod) as patient:
            assert await status(patient) == 200
            pod.refuse()
            pod.refuse()
            assert await is_refused(pod)
            assert await status(patient) == 200, "open connections go on"
            pod.recover()
        assert await status(session) == 200


@pytest.fixture
def certificates() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "orders.shop").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    return server_side, client_side


async def test_tls(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server_side, client_side = certificates
    before = asyncio.all_tasks()
    async with Pod(ssl_context=server_side) as pod, client_of(pod) as session:
        assert pod.url.startswith("https://")
        async with session.get("/", ssl=client_side, server_hostname="orders.shop") as response:
            assert response.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get("/", ssl=client_side, server_hostname="other.shop")
        # Somebody who connects and never begins his handshake must not outlive the pod either.
        _, silent = await asyncio.open_connection(pod.address, pod.port)
        pod.freeze()
        open_request = asyncio.create_task(session.get("/", ssl=client_side))
        assert (await asyncio.wait({open_request}, timeout=0.2))[1] == {open_request}
        pod.thaw()
        assert (await open_request).status == 200
        pod.kill()
        silent.close()
        with contextlib.suppress(ConnectionError):
            await silent.wait_closed()
    assert asyncio.all_tasks() == before


async def test_own_handler_or_application() -> None:
    async def teapot(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=418)

    async with Pod(handler=teapot) as pod, client_of(pod) as session:
        assert await status(session) == 418
        assert pod.served == 1

    ended: list[str] = []

    def application(pod: Pod) -> web.Application:
        async def name(request: web.Request) -> web.Response:
            return web.Response(text=pod.name)

        async def cleanup(app: web.Application) -> None:
            ended.append(pod.name)

        app = web.Application()
        app.router.add_get("/name", name)
        app.on_cleanup.append(cleanup)
        return app

    async with Pod("mine", app=application) as pod, client_of(pod) as session:
        async with session.get("/name") as response:
            assert await response.text() == "mine"
        assert await status(session, "/other") == 404
        assert [request.path for request in pod.requests] == ["/name", "/other"]
        assert pod.served == 2
        pod.kill()
        await pod.start()
        assert await status(session, "/name") == 200
    assert ended == ["mine", "mine"]

    with pytest.raises(ValueError, match="not both"):
        Pod(handler=teapot, app=application)


async def test_a_port_that_is_taken_says_so() -> None:
    async with Pod("first") as first:
        second = Pod("second", first.address, first.port)
        with pytest.raises(OSError, match=f"pod second cannot listen on 127.0.0.1:{first.port}"):
            await second.start()
        assert not second.is_running
        await second.stop()


async def test_idle_connections_end_after_the_keepalive_timeout() -> None:
    async with Pod(keepalive_timeout=0.05) as pod, client_of(pod) as session:
        assert await status(session) == 200
        await pod.until(lambda: pod.connections == 0)
        assert await status(session) == 200
        assert pod.accepted == 2
