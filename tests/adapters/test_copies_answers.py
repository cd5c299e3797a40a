"""The answer of a copy is the caller's in every respect; and which requests have a copy at all.

Of two pods one is silent, so every second request is answered by a copy. Each scenario runs twice and meets it once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.adapters.conftest import Authority
from tests.adapters.test_retries import IN_TURN, asked
from tests.adapters.world import Shop, shop, until

PIECES = 1000  # more than the socket buffers of both sides hold
PLAIN = b"the answer, as it was before anybody packed it" * 100


async def kinds(request: web.BaseRequest) -> web.StreamResponse:
    """An answer of each kind that aiohttp reads in a way of its own."""
    kind = request.path.strip("/")
    if "Expect" in request.headers:
        assert request.transport is not None
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await request.read()
    if request.method == "HEAD":
        return web.Response(headers={"Content-Length": str(len(PLAIN))})
    if kind == "nothing":
        return web.Response(status=204)
    if kind == "unchanged":
        return web.Response(status=304, headers={"ETag": '"1"'})
    if kind == "packed":
        return web.Response(body=gzip.compress(PLAIN), headers={"Content-Encoding": "gzip"})
    if kind == "missing":
        return web.Response(status=404, text="not here")
    if kind == "moved":
        return web.Response(status=302, headers={"Location": "/whole"})
    if kind in ("chunked", "unbounded"):
        response = web.StreamResponse()
        if kind == "chunked":
            response.enable_chunked_encoding()
        else:
            response.force_close()  # its end is the end of the connection
            response.headers["Connection"] = "close"
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PLAIN)
        return response
    if kind == "cookies":
        whole = web.Response(text="with cookies")
        whole.set_cookie("one", "1")
        whole.set_cookie("two", "2", path="/")
        return whole
    return web.Response(body=body or PLAIN)


@contextlib.asynccontextmanager
async def one_is_silent(
    handler: Any = kinds, connector: dict[str, Any] | None = None, **arguments: Any
) -> AsyncIterator[tuple[Shop, aiohttp.ClientSession]]:
    service = {"ssl_context": arguments.pop("ssl_context")} if "ssl_context" in arguments else {}
    async with shop(2, options=IN_TURN, handler=handler, **service) as world:
        given = world.connector(**{"hedge_after": 0.03, **(connector or {})})
        async with world.session(connector=given, **arguments) as session:
            await world.service.ready(2)
            world.orders.pods[0].slow(30.0)
            async with asyncio.timeout(20):
                yield world, session
            await until(lambda: world.load == (0, 0))
            assert not given._kept


def met(world: Shop) -> None:
    """Both pods were asked for the same: the scenario met the silent one."""
    silent, well = world.orders.pods
    assert silent.requests
    assert len(well.requests) > len(silent.requests)


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "whole", 200, PLAIN),
        ("HEAD", "whole", 200, b""),
        ("GET", "nothing", 204, b""),
        ("GET", "unchanged", 304, b""),
        ("GET", "packed", 200, PLAIN),
        ("GET", "chunked", 200, PLAIN * PIECES),
        ("GET", "unbounded", 200, PLAIN * PIECES),
        ("GET", "missing", 404, b"not here"),
    ],
)
async def test_a_copys_answer_is_read_as_the_callers_own(method: str, path: str, status: int, body: bytes) -> None:
    async with one_is_silent() as (world, session):
        for _ in range(2):
            async with session.request(method, f"{world.url}/{path}") as response:
                assert (response.status, await response.read()) == (status, body)
                assert str(response.url) == str(response.real_url) == f"{world.url}/{path}"
                assert str(response.request_info.url) == f"{world.url}/{path}"
                assert response.method == method
                assert response.connection is None, "it was given back, or closed"
                assert response.closed
            with pytest.raises(aiohttp.ClientConnectionError):
                await response.read()
        met(world)


async def test_a_body_is_left_packed_where_the_session_wants_it_so() -> None:
    async with one_is_silent(auto_decompress=False) as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/packed") as response:
                assert gzip.decompress(await response.read()) == PLAIN
        met(world)


async def test_cookies_history_and_redirects_are_those_of_the_service() -> None:
    async with one_is_silent() as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/cookies") as response:
                assert {name: morsel.value for name, morsel in response.cookies.items()} == {"one": "1", "two": "2"}
        assert {cookie.key for cookie in session.cookie_jar} == {"one", "two"}
        for _ in range(2):
            async with session.get(f"{world.url}/moved") as response:
                assert await response.read() == PLAIN
                assert [step.status for step in response.history] == [302]
                assert response.url.path == "/whole"
        met(world)


async def test_a_session_that_raises_for_status_raises_for_a_copys() -> None:
    async with one_is_silent(raise_for_status=True) as (world, session):
        for _ in range(2):
            with pytest.raises(aiohttp.ClientResponseError) as raised:
                await session.get(f"{world.url}/missing")
            assert (raised.value.status, raised.value.request_info.url.path) == (404, "/missing")
        met(world)


async def test_a_response_left_unread_gives_its_connection_back_at_the_end_of_the_block() -> None:
    async with one_is_silent() as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/unbounded") as response:
                assert response.connection is not None
            assert response.closed
        met(world)


async def test_a_class_of_responses_whose_truth_is_that_of_its_status() -> None:
    class Truthful(aiohttp.ClientResponse):
        def __bool__(self) -> bool:
            return self.ok

    async with one_is_silent(response_class=Truthful) as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/missing") as response:
                assert isinstance(response, Truthful)
                assert response.status == 404
                assert response.method == "GET"
        met(world)
        assert len(world.orders.pods[1].requests) == 2, "its own, and the copy: none was thrown away"


async def test_over_tls_a_copy_asks_for_the_services_certificate(authority: Authority) -> None:
    served = authority.serving("orders.shop")
    async with one_is_silent(ssl_context=served, connector={"ssl": authority.trusting}) as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/chunked") as response:
                assert await response.read() == PLAIN * PIECES
        met(world)
        assert len({request.host for pod in world.orders.pods for request in pod.requests}) == 1


async def test_a_middleware_sees_one_answer_and_may_ask_again() -> None:
    seen: list[int] = []

    async def twice(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        first: aiohttp.ClientResponse = await handler(request)
        await first.read()
        second: aiohttp.ClientResponse = await handler(request)
        seen.extend((first.status, second.status))
        return second

    async with one_is_silent(middlewares=(twice,)) as (world, session):
        for _ in range(2):
            async with session.get(f"{world.url}/whole") as response:
                assert await response.read() == PLAIN
        assert seen == [200] * 4
        met(world)


async def test_traces_are_told_of_the_callers_request_and_of_no_copy() -> None:
    told: list[str] = []
    tracing = aiohttp.TraceConfig()
    for name in ("request_start", "request_headers_sent", "request_chunk_sent", "request_end", "request_exception"):
        getattr(tracing, f"on_{name}").append(_teller(told, name))
    tracing.on_response_chunk_received.append(_teller(told, "response_chunk_received"))

    async with one_is_silent(trace_configs=[tracing]) as (world, session):
        for _ in range(2):
            told.clear()
            async with session.put(f"{world.url}/whole", data=b"body") as response:
                assert await response.read() == b"body"
            assert sorted(told) == [
                "request_chunk_sent",
                "request_end",
                "request_headers_sent",
                "request_start",
                "response_chunk_received",
            ]
        met(world)


def _teller(told: list[str], name: str) -> Callable[..., Awaitable[None]]:
    async def tell(*_: object) -> None:
        told.append(name)

    return tell


async def test_a_trace_that_takes_its_time_and_fails_leaves_no_copy_behind() -> None:
    async def slowly(*_: object) -> None:
        await asyncio.sleep(0.1)
        raise LookupError("the trace's own")

    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(slowly)
    async with one_is_silent(trace_configs=[tracing]) as (world, session):
        for _ in range(4):
            with pytest.raises(LookupError):
                await session.get(f"{world.url}/whole")


# ---- which requests have a copy --------------------------------------------------------------------------------------


def _urlencoded() -> aiohttp.FormData:
    return aiohttp.FormData({"a": "1"})


def _multipart() -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", b"content", filename="a.txt")
    return form


@pytest.mark.parametrize(
    ("method", "arguments", "sent"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("TRACE", {}, 2),
        ("DELETE", {}, 2),
        ("DELETE", {"data": b"bytes"}, 2),
        ("PUT", {"data": b"bytes"}, 2),
        ("PUT", {"data": bytearray(b"bytes")}, 2),
        ("PUT", {"data": "text"}, 2),
        ("PUT", {"json": {"a": 1}}, 2),
        ("PUT", {"data": b"bytes" * 1000, "compress": "gzip"}, 2),
        ("PUT", {"data": _urlencoded}, 2),
        ("PUT", {"data": _multipart}, 1),
        ("PUT", {"data": lambda: io.BytesIO(b"file")}, 1),
        ("PUT", {"data": b"bytes", "expect100": True}, 1),
        ("POST", {"data": b"bytes"}, 1),
        ("PATCH", {"data": b"bytes"}, 1),
        ("PATCH", {"data": b"bytes", "headers": {"idempotency-key": "k"}}, 2),
        ("POST", {"data": _multipart, "headers": {"Idempotency-Key": "k"}}, 1),
        ("GET", {"headers": {"Connection": "Upgrade", "Upgrade": "example/1"}}, 1),
    ],
    ids=lambda value: None if isinstance(value, int) else str(value)[:40],
)
async def test_which_requests_are_sent_once_more(method: str, arguments: dict[str, Any], sent: int) -> None:
    """Answered badly by both: what may be sent again was sent to both."""
    bodies: list[bytes] = []

    async def unwell(request: web.BaseRequest) -> web.Response:
        await kinds(request)
        bodies.append(await request.read())
        return web.Response(status=503)

    given = {name: value() if callable(value) else value for name, value in arguments.items()}
    async with shop(2, options=IN_TURN, handler=unwell) as world, world.session() as session:
        await world.service.ready(2)
        async with session.request(method, world.url, **given) as response:
            assert response.status == 503
        assert len(bodies) == sent
        assert len(set(bodies)) == 1, "and whole"
        assert world.load == (0, 0)


async def test_the_handshake_of_a_web_socket_is_made_once() -> None:
    """Two of them would be two subscriptions, and the one that is dropped may be the one that was acted on."""
    begun: list[web.WebSocketResponse] = []

    async def hesitates(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        begun.append(socket)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async with shop(2, options=IN_TURN, handler=hesitates) as world:
        connector = world.connector(hedge_after=0.02)
        async with world.session(connector=connector) as session:
            await world.service.ready(2)
            for number in range(2):
                async with session.ws_connect(f"{world.url}/ws") as socket:
                    for text in ("a", "b"):
                        await socket.send_str(text)
                        assert (await socket.receive()).data == text
                assert len(begun) == number + 1
        assert asked(world) == 2
