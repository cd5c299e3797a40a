"""What the adapter hangs on in aiohttp. A release that changes one of these fails here, and says which and what for."""

from __future__ import annotations

import asyncio
import copy
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import client_reqrep, connector
from aiohttp.client import IDEMPOTENT_METHODS
from aiohttp.client_proto import ResponseHandler
from aiohttp.payload import BytesPayload
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from yarl import URL

from headlessconn.adapters._aiohttp_exchange import IDEMPOTENT
from headlessconn.testing import Pod


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("function", "expected", "what_for"),
    [
        (aiohttp.BaseConnector.connect, ["self", "req", "traces", "timeout"], "the override that balances"),
        (aiohttp.TCPConnector.close, ["self", "abort_ssl"], "the override that closes the client"),
        (aiohttp.ClientResponse.start, ["self", "connection"], "the step that sees the head of the answer"),
        (connector.Connection.add_callback, ["self", "callback"], "the step that sees the end of the exchange"),
        (ResponseHandler.force_close, ["self"], "keeping a connection to a removed pod out of the pool"),
        (ResponseHandler.is_connected, ["self"], "telling a reset from a body that broke"),
        (ResponseHandler.close, ["self"], "closing idle connections"),
        (StreamReader.exception, ["self"], "what befell the body"),
        (type(EMPTY_PAYLOAD).exception, ["self"], "what befell the body"),
    ],
    ids=lambda value: getattr(value, "__qualname__", None),
)
def test_a_method_has_the_shape_that_is_relied_on(
    function: Callable[..., Any], expected: list[str], what_for: str
) -> None:
    assert parameters(function) == expected, f"{function.__qualname__} changed: it is {what_for}"


def test_coroutines_are_coroutines() -> None:
    for function in (aiohttp.BaseConnector.connect, aiohttp.TCPConnector.close, aiohttp.ClientResponse.start):
        assert inspect.iscoroutinefunction(function), f"{function.__qualname__} is no coroutine any more"


def test_the_key_of_the_pool_has_what_tells_pods_and_services_apart() -> None:
    fields = client_reqrep.ConnectionKey._fields
    for name in ("host", "port", "is_ssl", "server_hostname"):
        assert name in fields, f"ConnectionKey has no {name}: two Services of one pod could share a TLS connection"


def test_the_time_outs_are_made_of_five() -> None:
    made = aiohttp.ClientTimeout(1, 2, 3, 4, 5)
    assert (made.total, made.connect, made.sock_read, made.sock_connect, made.ceil_threshold) == (1, 2, 3, 4, 5)


def test_the_connector_takes_a_socket_factory() -> None:
    assert "socket_factory" in parameters(aiohttp.TCPConnector.__init__)


async def test_the_requests_attributes_decide_where_it_goes() -> None:
    """`url` and `server_hostname` may be set for the time of `connect()`, and are all that the pool looks at."""
    async with aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        request = aiohttp.ClientRequest("GET", URL("https://orders.shop/v1"), loop=loop, session=session)
        assert (request.proxy, request.server_hostname, request.method) == (None, None, "GET")
        assert request.response is None
        before = request.connection_key
        request.url = URL("https://127.0.0.2:8443")
        request.server_hostname = "orders.shop"
        key = request.connection_key
        assert (key.host, key.port, key.is_ssl, key.server_hostname) == ("127.0.0.2", 8443, True, "orders.shop")
        request.url, request.server_hostname = URL("https://orders.shop/v1"), None
        assert request.connection_key == before
        assert request.headers["Host"] == "orders.shop", "set once, when the request is made"


async def test_the_response_class_may_be_chosen_in_connect_and_its_start_is_awaited() -> None:
    order: list[str] = []

    class Watched(aiohttp.ClientResponse):
        async def start(self, connection: connector.Connection) -> aiohttp.ClientResponse:
            order.append("start")
            assert getattr(connection, "mark", None) == 7, "the connection that connect() gave is the one that starts"
            return await super().start(connection)

    class Connector(aiohttp.TCPConnector):
        async def connect(
            self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
        ) -> connector.Connection:
            connection = await super().connect(req, traces, timeout)
            req.response_class = Watched
            connection.mark = 7  # type: ignore[attr-defined]
            connection.add_callback(lambda: order.append("released"))
            order.append("connected")
            return connection

    async with Pod() as pod, aiohttp.ClientSession(connector=Connector()) as session:
        async with session.get(pod.url) as response:
            assert type(response) is Watched
            await response.read()
        assert order == ["connected", "start", "released"]


async def test_the_callback_runs_before_the_connection_returns_to_the_pool() -> None:
    async with Pod() as pod, aiohttp.ClientSession() as session:
        request = aiohttp.ClientRequest("GET", URL(pod.url), loop=asyncio.get_running_loop(), session=session)
        pool = session.connector
        assert pool is not None
        connection = await pool.connect(request, [], aiohttp.ClientTimeout())
        seen: list[int] = []
        protocol = connection.protocol
        assert protocol is not None
        protocol.headlessconn_used = True  # type: ignore[attr-defined]  # a mark can be left on it

        def released() -> None:
            seen.append(len(pool._conns))
            protocol.force_close()

        connection.add_callback(released)
        connection.release()
        assert seen == [0]
        assert not pool._conns, "force_close() in the callback keeps it out"


async def test_idle_connections_lie_in_conns_by_key() -> None:
    """The one private attribute: a mapping of ConnectionKey to a queue of (protocol, time it was put there)."""
    async with Pod() as pod, aiohttp.ClientSession() as session:
        async with session.get(pod.url) as response:
            await response.read()
        assert session.connector is not None
        [(key, kept)] = session.connector._conns.items()
        assert isinstance(key, client_reqrep.ConnectionKey)
        assert (key.host, key.port) == (pod.address, pod.port)
        [(protocol, since)] = kept
        assert isinstance(protocol, ResponseHandler)
        assert abs(time.monotonic() - since) < 60
        assert protocol.transport is not None
        assert protocol.transport.get_extra_info("socket").fileno() > 0


async def test_the_socket_factory_is_called_in_the_callers_task_when_a_dial_begins() -> None:
    calls: list[tuple[asyncio.Task[Any] | None, tuple[Any, ...]]] = []

    def make(info: tuple[Any, ...]) -> socket.socket:
        calls.append((asyncio.current_task(), info[4]))
        return socket.socket(*info[:3])

    async with Pod() as pod:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=make)) as session:
            for _ in range(2):
                async with session.get(pod.url) as response:
                    await response.read()
        assert calls == [(asyncio.current_task(), (pod.address, pod.port))], "once: the second found a kept connection"


# ---- what copies hang on ---------------------------------------------------------------------------------------------


def test_how_an_answer_is_read_is_said_by_name_alone() -> None:
    """A copy's answer is read as the first one's: by the same words, all of them by name."""
    given = list(inspect.signature(ResponseHandler.set_response_params).parameters.values())[1:]
    assert given
    assert {parameter.kind for parameter in given} == {inspect.Parameter.KEYWORD_ONLY}
    assert {"timer", "skip_payload", "auto_decompress", "read_timeout"} <= {parameter.name for parameter in given}


async def test_a_protocol_may_become_one_of_a_subclass() -> None:
    class Mine(ResponseHandler):
        def set_response_params(self, **params: Any) -> None:
            self.told = params
            super().set_response_params(**params)

    class Connector(aiohttp.TCPConnector):
        async def connect(
            self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
        ) -> connector.Connection:
            connection = await super().connect(req, traces, timeout)
            assert type(connection.protocol) is ResponseHandler, "another one is not taken for aiohttp's own"
            connection.protocol.__class__ = Mine
            self.made: Any = connection.protocol
            return connection

    async with Pod() as pod:
        pool = Connector()
        async with aiohttp.ClientSession(connector=pool) as session, session.head(pod.url) as response:
            assert response.status == 200
        assert pool.made.told["skip_payload"] is True


async def test_an_exception_set_on_the_protocol_wakes_the_reading_of_the_head() -> None:
    """How a caller whose pod is silent comes to the answer of another one."""

    class Overtaken(Exception):
        pass

    protocol = ResponseHandler(asyncio.get_running_loop())
    reading = asyncio.ensure_future(protocol.read())
    await asyncio.sleep(0)
    protocol.set_exception(Overtaken())
    with pytest.raises(Overtaken):
        await reading
    assert protocol.should_close, "its connection is of no use any more"
    with pytest.raises(Overtaken):
        await protocol.read()


async def test_a_request_may_be_copied_and_sent_while_the_first_is_under_way() -> None:
    """The copy gets a writer, a timer and traces of its own; what else is in the request is only read."""
    async with aiohttp.ClientSession() as session:
        loop = asyncio.get_running_loop()
        timer = aiohttp.helpers.TimerNoop()
        url = URL("http://orders.shop/")
        request = aiohttp.ClientRequest("PUT", url, data=b"body", loop=loop, session=session, timer=timer)
        writer = asyncio.ensure_future(asyncio.sleep(0))
        request._writer = writer
        assert vars(request)["_ClientRequest__writer"] is writer, "where the writer is kept"
        assert vars(request)["_timer"] is timer
        assert vars(request)["_traces"] == []
        assert request._continue is None
        twin = copy.copy(request)
        del vars(twin)["_ClientRequest__writer"]
        assert twin._writer is None
        assert request._writer is writer
        assert (twin.url, twin.method, twin.body) == (request.url, request.method, request.body)
        assert isinstance(request.body, BytesPayload)
        await writer
        if hasattr(request, "_upload_tracker"):  # of aiohttp >= 3.14.4
            assert request._upload_tracker is None


async def test_all_the_state_of_a_response_is_in_its_dictionary() -> None:
    """The caller's response becomes another one by taking over its dictionary."""
    slots = {name for cls in aiohttp.ClientResponse.__mro__ for name in vars(cls).get("__slots__", ())}
    assert not slots, "these would stay those of the loser"
    assert {"_timer", "_traces"} <= set(aiohttp.ClientResponse.__init__.__code__.co_names)
    async with Pod() as pod, aiohttp.ClientSession() as session:
        first, second = await session.get(f"{pod.url}/stream?chunks=2"), await session.get(f"{pod.url}/stream?chunks=3")
        assert not second.closed
        first.close()
        vars(first).clear()
        first.__dict__ = second.__dict__
        assert (await first.read()).count(b"\n") == 3
        assert second.closed, "the end of the body is told to both"


async def test_acquired_is_what_limit_counts() -> None:
    async with Pod() as pod:
        pool = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=pool) as session:
            assert not pool._acquired
            async with session.get(f"{pod.url}/stream?chunks=2"):
                assert len(pool._acquired) == 1
                assert pool._available_connections(session_key(pod, session)) <= 0
            assert not pool._acquired


def session_key(pod: Pod, session: aiohttp.ClientSession) -> client_reqrep.ConnectionKey:
    loop = asyncio.get_running_loop()
    return aiohttp.ClientRequest("GET", URL(pod.url), loop=loop, session=session).connection_key


def test_idempotent_methods_are_those_that_aiohttp_sends_again() -> None:
    assert IDEMPOTENT == IDEMPOTENT_METHODS
