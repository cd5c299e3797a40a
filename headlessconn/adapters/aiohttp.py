"""aiohttp: a connector that balances every request over the pods of headless Services.

    async with aiohttp.ClientSession(connector=HeadlessConnector()) as session:
        async with session.get("http://orders.shop:8080/v1/orders") as response: ...

It overrides the documented `connect()`: for the time of that call the request's URL names a pod, so aiohttp's own pool
keeps connections by pod. Host header, TLS server name, cookies, `response.url`, redirects stay the Service's. The
answer's head is seen by a response class that adds one step to `start()`; the end by `Connection.add_callback`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

try:
    import aiohttp
    from aiohttp.client_reqrep import ClientRequest, ClientResponse, ConnectionKey
    from aiohttp.connector import Connection
except ImportError as missing:  # pragma: no cover
    raise ImportError("headlessconn.adapters.aiohttp needs aiohttp: pip install aiohttp") from missing

from yarl import URL

from headlessconn import errors
from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.adapters._routes import PASS, Routes
from headlessconn.client import Client, Service
from headlessconn.core.endpoint import NO_DIAL, How, Key, address_of, port_of
from headlessconn.core.member import Member
from headlessconn.core.pick import ANSWERED, CONNECTED, Pick

DIALS = 8  # pods tried for one request: with one READY left among many dead, the dead are FAILING after one refusal
BAD = range(500, 600)
NOT_BAD = (501, 505)  # a method or version the application does not speak: the pod is well

_OK = How.OK


class NoEndpoints(errors.NoEndpoints, aiohttp.ClientConnectorError):
    """Nobody behind the host of a request: `headlessconn.NoEndpoints`, and aiohttp's own `ClientConnectorError`."""

    def __init__(self, cause: errors.NoEndpoints, key: ConnectionKey) -> None:
        errors.NoEndpoints.__init__(self, cause.target, cause.waited, cause.said, cause.age, cause.advice)
        self._cause = cause
        self._conn_key = key
        self._os_error = OSError(None, str(cause))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._cause, self._conn_key)

    __str__ = errors.NoEndpoints.__str__


class HeadlessConnector(aiohttp.TCPConnector):
    """A `TCPConnector` whose requests to headless Services are spread over their pods, each request anew.

    client    the `headlessconn.Client` to use; by default one of its own, with default options, closed with it
    targets   names to balance beside those inside the cluster's zone: `["orders.shop:8080"]`; or a mapping from the
              host (and port) in URLs to a target: `{"orders": "static:///10.0.0.1:80,10.0.0.2:80"}`

    All further arguments are `TCPConnector`'s, with their meaning: `limit` counts all connections, `limit_per_host` is
    per pod. Hosts that are not the cluster's, IP literals, proxied requests pass untouched, and with the environment's
    `HEADLESSCONN=off` all do. Raises `TargetError`, `OptionError`.

    A dial that fails moves on to another pod within the request. Nobody there: `NoEndpoints`, which is a
    `ClientConnectorError` too.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        targets: Iterable[str] | Mapping[str, str] = (),
        **arguments: Any,
    ) -> None:
        self._client = client or Client()
        self._owns_client = client is None
        self._routes = Routes(self._client, targets)
        self._known: dict[tuple[str | None, int | None, str], _Route] = {}
        self._pods: set[tuple[str, int]] = set()  # addresses dialled on behalf of a Service
        self._watched: set[Driver] = set()
        self._caller_factory = arguments.pop("socket_factory", None)
        self._timeout: aiohttp.ClientTimeout | None = None
        self._dial_timeout: aiohttp.ClientTimeout | None = None
        super().__init__(socket_factory=self._make_socket, **arguments)

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:
        """A connection to one of the pods; for hosts that are not ours, what `TCPConnector` gives."""
        url = req.url
        if req.proxy is not None:
            return await super().connect(req, traces, timeout)
        route = self._known.get((url.raw_host, url.port, url.scheme))
        if route is None or route.driver.closed:
            found = await self._find_route(url)
            if found is None:
                return await super().connect(req, traces, timeout)
            route = found
        driver = route.driver
        pick = driver.pick()
        if type(pick) is not Pick:
            pick = await self._wait_for_pick(driver, req, timeout)
        if timeout is not self._timeout:
            self._adopt(timeout)
        avoid: set[Key] | None = None
        while True:
            member = pick.member
            pod = route.pods.get(member.key) or self._add_pod(route, member)
            named = req.server_hostname
            began = self._loop.time()
            req.url = pod
            if route.tls_name is not None and named is None:
                req.server_hostname = route.tls_name
            try:
                connection = await super().connect(req, traces, self._dial_timeout)  # type: ignore[arg-type]
            except BaseException as error:
                avoid = avoid or set()
                if not self._dial_failed(driver, pick, error, began, timeout) or len(avoid) >= DIALS - 1:
                    raise
                avoid.add(member.key)
                other = driver.pick(avoid)
                if type(other) is not Pick:
                    raise
                pick = other
                continue
            finally:
                req.url = url
                req.server_hostname = named
            return self._watch(connection, driver, pick, req)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and the client when it is its own."""
        for driver in self._watched:
            driver.on_forget.discard(self._forget)
        self._watched.clear()
        self._known.clear()
        await super().close(abort_ssl=abort_ssl)
        if self._owns_client:
            await self._client.aclose()

    # ---- routes and pods ---------------------------------------------------------------------------------------

    async def _find_route(self, url: URL) -> _Route | None:
        host, port = url.raw_host, url.port
        if not host or port is None:
            return None
        service = await self._routes.decide(host, port)
        if service is PASS:
            return None
        assert isinstance(service, Service)
        driver = service.driver()
        if driver not in self._watched:
            self._watched.add(driver)
            driver.on_forget.add(self._forget)
        tls_name = host if url.scheme in ("https", "wss") else None
        route = self._known[host, port, url.scheme] = _Route(driver, url.scheme, tls_name)
        return route

    def _add_pod(self, route: _Route, member: Member) -> URL:
        address, port = address_of(member.key), port_of(member.key)
        self._pods.add((address, port))
        pod = route.pods[member.key] = URL.build(scheme=route.scheme, host=address, port=port)
        return pod

    def _forget(self, key: Key) -> None:
        """The pod left the set: close its idle connections now. Busy ones are closed at their end."""
        address, port = address_of(key), port_of(key)
        for route in self._known.values():
            route.pods.pop(key, None)
        self._pods.discard((address, port))
        for pool_key in [k for k in self._conns if k.host == address and k.port == port]:
            for protocol, _ in self._conns.pop(pool_key):
                protocol.close()

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """aiohttp's `socket_factory`: called only when a dial really starts."""
        family, kind, protocol = info[:3]
        if self._caller_factory is not None:
            sock = cast(socket.socket, self._caller_factory(info))
        else:
            sock = socket.socket(family=family, type=kind, proto=protocol)
        if info[4][:2] in self._pods:
            dial.keep_alive(sock, user_timeout=True)
        return sock

    # ---- evidence ----------------------------------------------------------------------------------------------

    def _adopt(self, timeout: aiohttp.ClientTimeout) -> None:
        """The session's time-outs, with TCP's own bounded for a pod, since there are others. Kept for the next request:
        a session has one."""
        ours = self._client.options.connect_timeout
        theirs = timeout.sock_connect
        self._timeout = timeout
        self._dial_timeout = aiohttp.ClientTimeout(
            total=timeout.total,
            connect=timeout.connect,
            sock_read=timeout.sock_read,
            sock_connect=min(theirs, ours) if theirs else ours,
            ceil_threshold=timeout.ceil_threshold,
        )

    async def _wait_for_pick(self, driver: Driver, req: ClientRequest, timeout: aiohttp.ClientTimeout) -> Pick:
        wait = driver.engine.options.wait_for_endpoints
        try:
            pick = await driver.acquire(wait=min(wait, timeout.connect) if timeout.connect else wait)
        except errors.NoEndpoints as nobody:
            raise NoEndpoints(nobody, req.connection_key) from nobody
        assert isinstance(pick, Pick)  # nothing was avoided
        return pick

    def _dial_failed(
        self, driver: Driver, pick: Pick, error: BaseException, began: float, timeout: aiohttp.ClientTimeout
    ) -> bool:
        """Tell the engine; whether another pod may be tried."""
        cause: BaseException = error
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
        how = dial.how_dial_failed(cause)
        if how is How.DIAL_TIMEOUT and timeout.connect and self._loop.time() - began >= timeout.connect:
            how = How.LOCAL  # the caller's `connect` also covers waiting for a place in the pool: it may be that
        if isinstance(error, aiohttp.ClientSSLError):
            how = How.LOCAL
        if how in NO_DIAL:
            driver.dialled(pick, how)
        driver.ended(pick, how)
        return how in NO_DIAL

    def _watch(self, connection: Connection, driver: Driver, pick: Pick, req: ClientRequest) -> Connection:
        protocol = cast(Any, connection.protocol)
        reused = hasattr(protocol, "headlessconn_used")
        if reused:
            pick.flags |= CONNECTED
        else:
            protocol.headlessconn_used = True
            driver.dialled(pick, _OK)
        exchange = _Exchange(driver, pick, req, protocol, reused)
        connection.add_callback(exchange.released)
        connection.headlessconn_exchange = exchange  # type: ignore[attr-defined]
        req.response_class = _watched(req.response_class)
        return connection


class _Route:
    """A host of the application: its driver, and a ready URL for each pod (building one costs 6 µs)."""

    __slots__ = ("driver", "pods", "scheme", "tls_name")

    def __init__(self, driver: Driver, scheme: str, tls_name: str | None) -> None:
        self.driver = driver
        self.scheme = scheme
        self.tls_name = tls_name
        self.pods: dict[Key, URL] = {}


class _Exchange:
    """One request on its connection, from `connect()` to the connection's release."""

    __slots__ = ("done", "driver", "ended", "outer", "pick", "protocol", "req", "reused")

    def __init__(self, driver: Driver, pick: Pick, req: ClientRequest, protocol: Any, reused: bool) -> None:
        self.driver = driver
        self.pick = pick
        self.req = req
        self.protocol = protocol
        self.reused = reused
        self.outer = sys.exception()  # of a caller who is inside an `except` of his own
        self.done = False  # the connection was given back
        self.ended = False

    def head(self, response: ClientResponse) -> None:
        """The head of the answer has come."""
        status = response.status
        self.driver.responded(self.pick, status in BAD and status not in NOT_BAD)
        if status == 101 or response.headers.get("Content-Type", "").startswith("text/event-stream"):
            self.driver.streams(self.pick)
        if self.done:
            self.end(_OK)

    def released(self) -> None:
        """aiohttp gives the connection back, or closes it. In an `except` of aiohttp's the exception says why."""
        self.done = True
        pick = self.pick
        if not pick.is_listed:
            self.protocol.force_close()  # before it returns to the pool: nobody will ask for that pod again
        error = sys.exception()
        if error is not None and error is not self.outer:
            self.end(_how(error, self.reused, bool(pick.flags & ANSWERED)))
        elif pick.flags & ANSWERED or self.req.response is None:
            self.end(_OK if pick.flags & ANSWERED else How.CALLER)
        # Else a small answer was whole before its head was looked at: `head` is about to come, and ends it.

    def failed(self, error: BaseException) -> None:
        """The head could not be read although the connection was given back."""
        if self.done:
            self.end(_how(error, self.reused, False))

    def end(self, how: How) -> None:
        if not self.ended:
            self.ended = True
            self.driver.ended(self.pick, how)


def _how(error: BaseException, reused: bool, answered: bool) -> How:
    """What an exception of aiohttp's says about the pod. After the head, only the connection's own."""
    match error:
        case asyncio.CancelledError() | GeneratorExit():
            return How.CANCELLED
        case aiohttp.ServerTimeoutError():
            return How.TIMEOUT
        case aiohttp.ClientPayloadError():
            return How.RESET
        case aiohttp.ServerDisconnectedError() | ConnectionError() | aiohttp.ClientOSError():
            return How.RESET_REUSED if reused and not answered else How.RESET
        case aiohttp.ClientResponseError():
            return How.BAD_STATUS if not answered else How.CALLER
        case TimeoutError() if not answered:
            return How.TIMEOUT
    return How.CALLER


class _Watching:
    """What a watched response class adds to the one it derives from."""

    async def start(self, connection: Connection) -> ClientResponse:
        exchange: _Exchange | None = getattr(connection, "headlessconn_exchange", None)
        if exchange is None:
            return await super().start(connection)  # type: ignore[misc, no-any-return]
        try:
            response: ClientResponse = await super().start(connection)  # type: ignore[misc]
        except BaseException as error:
            exchange.failed(error)
            raise
        exchange.head(response)
        return response


_classes: dict[type[ClientResponse], type[ClientResponse]] = {}


def _watched(cls: type[ClientResponse]) -> type[ClientResponse]:
    """The session's response class with our step in `start()`; made once for each."""
    found = _classes.get(cls)
    if found is None:
        if issubclass(cls, _Watching):
            return cls
        found = type(cls.__name__, (_Watching, cls), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
        _classes[cls] = found
    return found


__all__ = ["HeadlessConnector", "NoEndpoints"]
