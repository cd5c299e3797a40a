"""aiohttp: a connector that balances every request over the pods of headless Services.

    async with aiohttp.ClientSession(connector=HeadlessConnector()) as session:
        async with session.get("http://orders.shop:8080/v1/orders") as response: ...

It overrides the documented `connect()`: for the time of that call the request's URL names a pod, so aiohttp's own pool
keeps connections by pod. Host header, TLS server name, cookies, `response.url`, redirects stay the Service's. The
answer's head is seen by a response class that adds one step to `start()`; the end by `Connection.add_callback`.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, cast
from weakref import WeakKeyDictionary

try:
    import aiohttp
    from aiohttp.client_reqrep import ClientRequest, ClientResponse, ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.hdrs import CONTENT_TYPE
except ImportError as missing:  # pragma: no cover
    raise ImportError("headlessconn.adapters.aiohttp needs aiohttp: pip install aiohttp") from missing

from yarl import URL

from headlessconn import errors
from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn._runtime.race import DIALS
from headlessconn.adapters._routes import PASS, Routes
from headlessconn.client import Client, Service
from headlessconn.core.endpoint import NO_DIAL, How, Key, address_of, port_of
from headlessconn.core.member import Member
from headlessconn.core.pick import CONNECTED, ENDED, Pick

ANOTHER = 1.5  # seconds to wait for another set when every pod of this one refused: refresh_min, and the look-up
NOT_BAD = (501, 505)  # of those from 500 on: a method or version the application does not speak; the pod is well
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # which aiohttp sends a second time itself

_OK = How.OK
_NONE: frozenset[Key] = frozenset()


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
        self._dialling: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()  # since when, by caller
        self._caller_factory = arguments.pop("socket_factory", None)
        self._timeout: aiohttp.ClientTimeout | None = None
        self._limits = aiohttp.ClientTimeout()  # what `_timeout` becomes for a pod
        super().__init__(socket_factory=self._make_socket, **arguments)

    async def connect(self, req: ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout) -> Connection:
        """A connection to one of the pods; for hosts that are not ours, what `TCPConnector` gives."""
        url = req.url
        if req.proxy is not None:
            return await super().connect(req, traces, timeout)
        route = self._known.get((url.raw_host, url.port, url.scheme))
        if route is None or route.driver.closed:
            async with asyncio.timeout(timeout.connect or None):
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
        limits = self._limits
        avoid = _NONE
        while True:
            member = pick.member
            pod = route.pods.get(member.key)
            if pod is None:  # asked so, since a URL's truth costs 0.1 µs
                pod = self._add_pod(route, member)
            named = req.server_hostname
            req.url = pod
            if route.tls_name is not None and named is None:
                req.server_hostname = route.tls_name
            try:
                connection = await super().connect(req, traces, limits)
            except BaseException as error:
                avoid = avoid | {member.key}
                left = self._dial_failed(driver, pick, error, limits)
                if left is None or len(avoid) == DIALS:
                    raise
                other = await driver.another(avoid, min(ANOTHER, left.connect or ANOTHER))
                if other is None:
                    raise
                pick, limits = other, left
                continue
            finally:
                req.url = url
                req.server_hostname = named
            if req.method not in IDEMPOTENT and _has_hung_up(connection.protocol):
                connection.close()
                continue
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
            if (task := asyncio.current_task()) is not None:
                self._dialling[task] = self._loop.time()
        return sock

    # ---- evidence ----------------------------------------------------------------------------------------------

    def _adopt(self, timeout: aiohttp.ClientTimeout) -> None:
        """The session's time-outs, with TCP's own bounded for a pod, since there are others. Kept for the next request:
        a session has one."""
        ours, theirs = self._client.options.connect_timeout, timeout.sock_connect
        self._timeout = timeout
        self._limits = _limited(timeout, timeout.connect, min(theirs, ours) if theirs else ours)

    async def _wait_for_pick(self, driver: Driver, req: ClientRequest, timeout: aiohttp.ClientTimeout) -> Pick:
        wait = driver.engine.options.wait_for_endpoints
        try:
            pick = await driver.acquire(wait=min(wait, timeout.connect) if timeout.connect else wait)
        except errors.NoEndpoints as nobody:
            raise NoEndpoints(nobody, req.connection_key) from nobody
        assert isinstance(pick, Pick)  # nothing was avoided
        return pick

    def _dial_failed(
        self, driver: Driver, pick: Pick, error: BaseException, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientTimeout | None:
        """Tell the engine. When another pod may be tried, what is left of the time-outs."""
        since = self._dialling.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
        how = dial.how_dial_failed(error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error)
        if isinstance(error, aiohttp.ClientSSLError):
            how = How.LOCAL
        elif how is How.CANCELLED or how is How.DIAL_TIMEOUT:
            if since is None:
                how = How.LOCAL  # no dial had begun: the caller waited for a place in the pool
            elif limits.connect and pick.started_at + limits.connect < since + (limits.sock_connect or inf):
                how = How.CANCELLED  # by `connect`, of which the wait for a place may have left little
        if how in NO_DIAL:
            driver.dialled(pick, how)
        driver.ended(pick, how)
        if how not in NO_DIAL:
            return None
        if not limits.connect:
            return limits
        left = pick.started_at + limits.connect - self._loop.time()
        return _limited(limits, left, limits.sock_connect) if left > 0 else None

    def _watch(self, connection: Connection, driver: Driver, pick: Pick, req: ClientRequest) -> Connection:
        protocol = cast(Any, connection.protocol)
        reused = hasattr(protocol, "headlessconn_used")
        if reused:
            pick.flags |= CONNECTED
        else:
            protocol.headlessconn_used = True
            self._dialling.pop(asyncio.current_task(), None)  # type: ignore[arg-type]
            driver.dialled(pick, _OK)
        exchange = _Exchange(self, driver, pick, req, protocol, reused)
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

    __slots__ = ("connector", "done", "driver", "outer", "pick", "protocol", "req", "response", "reused")

    def __init__(
        self, connector: HeadlessConnector, driver: Driver, pick: Pick, req: ClientRequest, protocol: Any, reused: bool
    ) -> None:
        self.connector = connector
        self.driver = driver
        self.pick = pick
        self.req = req
        self.protocol = protocol
        self.reused = reused
        self.outer = sys.exception()  # of a caller who is inside an `except` of his own
        self.response: ClientResponse | None = None  # once its head has come
        self.done = False  # the connection was given back

    def head(self, response: ClientResponse) -> None:
        """The head of the answer has come."""
        self.response = response
        status = response.status
        bad = status >= 500 and status not in NOT_BAD
        if self.done:
            self.driver.answered(self.pick, bad)
            return
        self.driver.responded(self.pick, bad)
        if status == 101 or response.headers.get(CONTENT_TYPE, "").startswith("text/event-stream"):
            self.driver.streams(self.pick)
            _let_it_be_slow(self.protocol)

    def released(self) -> None:
        """aiohttp gives the connection back, or closes it."""
        self.done = True
        if not self.pick.is_listed:
            self.protocol.force_close()  # before it returns to the pool: nobody will ask for that pod again
        if self.response is not None:
            # Whatever exception is in the air may be the caller's own; what befell the body is kept with the body.
            error = self.response.content.exception()
            self.end(_OK if error is None else self.blame(error))
            return
        # aiohttp closes it in its own `except`. A caller may be inside one of his own, but that one is older.
        error = sys.exception()
        if error is not None and error is not self.outer:
            self.end(self.blame(error))
        elif self.req.response is None:
            self.end(How.CALLER)
        # Else a small answer was whole before its head was looked at: `head` is about to come, and ends it.

    def failed(self, error: BaseException) -> None:
        """The head could not be read although the connection was given back."""
        if self.done:
            self.end(self.blame(error))

    def blame(self, error: BaseException) -> How:
        """What an exception of aiohttp's says about the pod."""
        answered = self.response is not None
        match error:
            case _ if self.connector.closed:
                return How.CALLER  # it was we who cut it
            case asyncio.CancelledError() | GeneratorExit():
                return How.CANCELLED
            case aiohttp.ServerTimeoutError():
                return How.TIMEOUT
            case aiohttp.ClientPayloadError():
                return How.RESET
            case aiohttp.ServerDisconnectedError() | ConnectionError() | aiohttp.ClientOSError():
                if self.protocol.is_connected():
                    return How.CALLER  # the connection stands: what failed is the body that he sends
                return How.RESET_REUSED if self.reused and not answered else How.RESET
            case aiohttp.ClientResponseError() if not answered:
                return How.BAD_STATUS  # what came is not HTTP
            case TimeoutError() if not answered:
                return How.TIMEOUT
        return How.CALLER

    def end(self, how: How) -> None:
        if not self.pick.flags & ENDED:
            self.driver.ended(self.pick, how)


def _limited(
    timeout: aiohttp.ClientTimeout, connect: float | None, sock_connect: float | None
) -> aiohttp.ClientTimeout:
    """The same time-outs with other ones for connecting."""
    return aiohttp.ClientTimeout(timeout.total, connect, timeout.sock_read, sock_connect, timeout.ceil_threshold)


def _has_hung_up(protocol: Any) -> bool:
    """Whether the pod has closed a kept connection and the loop has not got round to noticing.

    A pod that closes its idle connections at SIGTERM would lose each request that is sent in that gap; those that may
    not be sent twice are worth a system call.
    """
    if not hasattr(protocol, "headlessconn_used") or not hasattr(select, "poll"):
        return False
    waiting = select.poll()
    waiting.register(protocol.transport.get_extra_info("socket"), getattr(select, "POLLRDHUP", select.POLLIN))
    return bool(waiting.poll(0))


def _let_it_be_slow(protocol: Any) -> None:
    """A stream's peer may read slowly: lift the kernel's limit for unacknowledged bytes; keep-alive stays on."""
    sock = protocol.transport and protocol.transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


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
