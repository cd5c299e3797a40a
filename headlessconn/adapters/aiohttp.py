"""aiohttp: a connector that balances every request over the pods of headless Services.

    async with aiohttp.ClientSession(connector=HeadlessConnector()) as session:
        async with session.get("http://orders.shop:8080/v1/orders") as response: ...

It overrides the documented `connect()`: for the time of that call the request's URL names a pod, so aiohttp's own pool
keeps connections by pod. Host header, TLS server name, cookies, `response.url`, redirects stay the Service's. The
answer's head is seen by a response class that adds one step to `start()`; the end by `Connection.add_callback`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from typing import Any, Literal, cast

try:
    import aiohttp
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import Connection
except ImportError as missing:  # pragma: no cover
    raise ImportError("headlessconn.adapters.aiohttp needs aiohttp: pip install aiohttp") from missing

from yarl import URL

from headlessconn import errors
from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.adapters._aiohttp_classes import Handler, has_hung_up, now_used, watched
from headlessconn.adapters._aiohttp_dials import Dials, limited
from headlessconn.adapters._aiohttp_exchange import IDEMPOTENT, Copy, Exchange
from headlessconn.adapters._routes import PASS, Routes
from headlessconn.client import Client, Service
from headlessconn.core.attempts import ONCE, Attempts
from headlessconn.core.endpoint import NO_DIAL, How, Key, address_of, port_of
from headlessconn.core.lane import Lane
from headlessconn.core.member import Member
from headlessconn.core.pick import CONNECTED, Pick

ANOTHER = 1.5  # seconds to wait for another set when every pod of this one refused: refresh_min, and the look-up
PATHS = 1024  # paths whose lane is remembered for a host; beyond, all are read anew

_OK = How.OK
_VARYING = re.compile(r"(?<=/)(?=[^/]*\d)[^/]+|(?<=/)[^/]{33,}")  # a segment with a digit, or a long one: an id


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


class Overloaded(errors.Overloaded, aiohttp.ClientConnectionError):
    """`headlessconn.errors.Overloaded`, and aiohttp's own `ClientConnectionError`."""


class HeadlessConnector(aiohttp.TCPConnector):
    """A `TCPConnector` whose requests to headless Services are spread over their pods, each request anew.

    client       the `headlessconn.Client` to use; by default one of its own, with default options, closed with it
    targets      names to balance beside those inside the cluster's zone: `["orders.shop:8080"]`; or a mapping from the
                 host (and port) in URLs to a target: `{"orders": "static:///10.0.0.1:80,10.0.0.2:80"}`
    hedge_after  seconds of silence, or "p95", after which a copy of an idempotent request goes to another pod; default
                 None: only when its own pod is silent while others answer
    lane         names the kind of a request, `lane(method, url)`, so that its silence is judged by what its kind takes;
                 by default the method and the path, with `*` for segments that look like an id

    All further arguments are `TCPConnector`'s, with their meaning: `limit` counts all connections, `limit_per_host` is
    per pod. Hosts that are not the cluster's, IP literals, proxied requests pass untouched, and with the environment's
    `HEADLESSCONN=off` all do. Raises `TargetError`, `OptionError`.

    A dial that fails moves on to another pod within the request; one that is silent for `race_after` gets a second
    beside it. An idempotent request (by its method, or an `Idempotency-Key`) whose exchange breaks before the answer
    begins, or is answered 502, 503 or 504, is sent once more, to another pod, as long as the budget allows: 20 % of
    the requests and one a second. Nobody there: `NoEndpoints`, which is a `ClientConnectorError` too.
    """

    def __init__(
        self,
        client: Client | None = None,
        *,
        targets: Iterable[str] | Mapping[str, str] = (),
        hedge_after: float | Literal["p95"] | None = None,
        lane: Callable[[str, URL], str] | None = None,
        **arguments: Any,
    ) -> None:
        if hedge_after not in (None, "p95") and not (isinstance(hedge_after, int | float) and hedge_after > 0):
            raise errors.OptionError("hedge_after", f"{hedge_after!r} is not a time", 'hedge_after=0.05 or "p95"')
        self._client = client or Client()
        self._owns_client = client is None
        self._routes = Routes(self._client, targets)
        self._known: dict[tuple[str | None, int | None, str], Route] = {}
        self._pods: set[tuple[str, int]] = set()  # addresses dialled on behalf of a Service
        self._watched: set[Driver] = set()
        self._connecting: dict[asyncio.Task[Any], Exchange] = {}  # by the caller's task
        self._kept: set[asyncio.Task[Any]] = set()  # dials and copies under way
        self._caller_factory = arguments.pop("socket_factory", None)
        self._timeout: aiohttp.ClientTimeout | None = None
        self._limits = aiohttp.ClientTimeout()  # what `_timeout` becomes for a pod
        self._hedge_after = hedge_after
        self._lane_of = lane
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
        lane = self._lane(route, req)  # first: it may be the caller's own, and may raise
        pick = driver.pick()
        if type(pick) is not Pick:
            pick = await self._wait_for_pick(driver, req, timeout)
        if timeout is not self._timeout:
            self._adopt(timeout)
        exchange = Exchange(self, route, pick, req, lane, self._limits)
        # As `dial` and `_reach` do, written out: most requests get a kept connection, and a call more is felt.
        connecting = self._connecting
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]
        named = req.server_hostname
        pod = route.pods.get(pick.member.key)
        req.url = self._add_pod(route, pick.member) if pod is None else pod  # asked so: a URL's truth costs 0.1 µs
        if route.tls_name is not None and named is None:
            req.server_hostname = route.tls_name
        connecting[task] = exchange
        try:
            connection = await super().connect(req, traces, exchange.limits)
        except BaseException as error:
            req.url, req.server_hostname = url, named
            connection = await self._reach(exchange, traces, error)
        finally:
            req.url = url
            req.server_hostname = named
            connecting.pop(task, None)
            if exchange.dials is not None:
                exchange.end_dials()
        while req.method not in IDEMPOTENT and has_hung_up(connection.protocol):
            connection.close()
            connection = await self._reach(exchange, traces)
        self._watch(exchange, connection)
        if self._hedge_after is not None:
            self._hedge(exchange)
        return connection

    async def connect_copy(self, copy: Copy, attempts: Attempts) -> Connection:
        """A connection for a copy of a request whose first attempt is in trouble."""
        copy.attempts = attempts
        try:
            connection = await self._reach(copy, [])
        except BaseException:
            attempts.open.pop(copy.pick, None)  # nobody waits for this one any more
            raise
        attempts.went(copy.pick)
        self._watch(copy, connection)
        return connection

    @property
    def is_full(self) -> bool:
        """Whether another dial would have to wait for a place."""
        return 0 < self.limit <= len(self._acquired)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """`close` waits for its end."""
        self._kept.add(task)
        task.add_done_callback(self._kept.discard)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and the client when it is its own."""
        for driver in self._watched:
            driver.on_forget.discard(self._forget)
        self._watched.clear()
        self._known.clear()
        kept = tuple(self._kept)
        for task in kept:
            task.cancel()
        try:
            await super().close(abort_ssl=abort_ssl)  # which has closed all before it waits for the first time
        finally:
            await asyncio.gather(*kept, return_exceptions=True)
            if self._owns_client:
                await self._client.aclose()

    # ---- dialling ----------------------------------------------------------------------------------------------

    async def _reach(
        self,
        exchange: Exchange,
        traces: list[Any],
        error: BaseException | None = None,
    ) -> Connection:
        """A connection to the pod of this exchange's pick, or to another when it refuses or is silent. Picks that
        failed are ended. `error`: how its first dial ended already."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        while True:
            if error is None:
                self._connecting[task], exchange.dials = exchange, None
                try:
                    connection = await self.dial(exchange.req, exchange.route, exchange.pick, exchange.limits, traces)
                except BaseException as failed:
                    error = failed
                else:
                    exchange.end_dials()
                    return connection
                finally:
                    self._connecting.pop(task, None)
            else:
                self._connecting.pop(task, None)
            dials, exchange.dials = exchange.dials, None
            try:
                found = await self._after(exchange, dials, error)
            finally:
                if dials is not None:
                    dials.end()
            if found is not None:
                return found
            error = None

    async def _after(self, exchange: Exchange, dials: Dials | None, error: BaseException) -> Connection | None:
        """What comes after a dial that failed: the connection of one beside it, or none: then the exchange's pick and
        its time-outs are those for one more dial. Raises the error when there is nothing more to try."""
        driver, pick, limits = exchange.route.driver, exchange.pick, exchange.limits
        if dials is not None and dials.overtook(error):
            driver.ended(pick, How.CANCELLED)
            dials.attempts.open.pop(pick, None)
            won = await dials.result()
            assert won is not None
            connection, exchange.pick = won
            return connection
        left = self.dial_failed(driver, pick, error, limits, None if dials is None else dials.since)
        if left is None or self.closed:
            raise error
        if dials is not None:
            if (won := await dials.result()) is not None:
                dials.attempts.open.pop(pick, None)
                connection, exchange.pick = won
                return connection
            left = self._left(pick, limits)
            if left is None or self.closed:
                raise error
        if exchange.attempts is None:
            exchange.attempts = Attempts(driver.engine, ONCE, pick)
        other = driver.further(partial(exchange.attempts.after_dial, pick))
        if other is None:
            other = await driver.another(exchange.attempts, min(ANOTHER, left.connect or ANOTHER))
        if other is None:
            raise error
        exchange.pick, exchange.limits = other, left
        return None

    async def dial(
        self, req: ClientRequest, route: Route, pick: Pick, limits: aiohttp.ClientTimeout, traces: list[Any]
    ) -> Connection:
        """What `TCPConnector.connect` gives while the request's URL names this pod."""
        member = pick.member
        pod = route.pods.get(member.key)
        if pod is None:
            pod = self._add_pod(route, member)
        url, named = req.url, req.server_hostname
        req.url = pod
        if route.tls_name is not None and named is None:
            req.server_hostname = route.tls_name
        try:
            return await super().connect(req, traces, limits)
        finally:
            req.url = url
            req.server_hostname = named

    # ---- routes and pods ---------------------------------------------------------------------------------------

    async def _find_route(self, url: URL) -> Route | None:
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
        route = self._known[host, port, url.scheme] = Route(driver, url.scheme, tls_name)
        return route

    def _add_pod(self, route: Route, member: Member) -> URL:
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
            exchange = self._connecting.get(asyncio.current_task())  # type: ignore[arg-type]
            if exchange is not None and exchange.dials is None:
                if exchange.attempts is None:
                    exchange.attempts = Attempts(exchange.route.driver.engine, ONCE, exchange.pick)
                exchange.dials = Dials(self, exchange, sock)
        return sock

    # ---- evidence ----------------------------------------------------------------------------------------------

    def _adopt(self, timeout: aiohttp.ClientTimeout) -> None:
        """The session's time-outs, with TCP's own bounded for a pod, since there are others. Kept for the next request:
        a session has one."""
        ours, theirs = self._client.options.connect_timeout, timeout.sock_connect
        self._timeout = timeout
        self._limits = limited(timeout, timeout.connect, min(theirs, ours) if theirs else ours)

    async def _wait_for_pick(self, driver: Driver, req: ClientRequest, timeout: aiohttp.ClientTimeout) -> Pick:
        wait = driver.engine.options.wait_for_endpoints
        try:
            pick = await driver.acquire(wait=min(wait, timeout.connect) if timeout.connect else wait)
        except errors.NoEndpoints as nobody:
            raise NoEndpoints(nobody, req.connection_key) from nobody
        except errors.Overloaded as overloaded:
            raise Overloaded(*overloaded.__reduce__()[1]) from overloaded  # type: ignore[misc]
        assert isinstance(pick, Pick)  # nothing was avoided
        return pick

    def dial_failed(
        self, driver: Driver, pick: Pick, error: BaseException, limits: aiohttp.ClientTimeout, since: float | None
    ) -> aiohttp.ClientTimeout | None:
        """Tell the engine. When another pod may be tried, what is left of the time-outs. `since`: when a dial began."""
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
        return self._left(pick, limits)

    def _left(self, pick: Pick, limits: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout | None:
        """What is left of the time-outs of a dial for this pick; None when it is nothing."""
        if not limits.connect:
            return limits
        left = pick.started_at + limits.connect - self._loop.time()
        return limited(limits, left, limits.sock_connect) if left > 0 else None

    def _watch(self, exchange: Exchange, connection: Connection) -> None:
        """It has its connection: what is sent on it, and what becomes of that, is the exchange's."""
        req, pick = exchange.req, exchange.pick
        protocol: Any = connection.protocol
        exchange.protocol = protocol
        exchange.reused = reused = type(protocol) is Handler or now_used(protocol)
        if reused:
            pick.flags |= CONNECTED
        else:
            exchange.route.driver.dialled(pick, _OK)
        pick.lane = exchange.lane
        pick.holder = exchange
        connection.add_callback(exchange.released)
        connection.headlessconn_exchange = exchange  # type: ignore[attr-defined]
        req.response_class = watched(req.response_class)

    def _lane(self, route: Route, req: ClientRequest) -> Lane:
        method = req.method
        if self._lane_of is not None:
            return route.driver.engine.lane(self._lane_of(method, req.url))
        path = req.url.raw_path
        kind = path if method == "GET" else f"{method} {path}"
        lane = route.lanes.get(kind)
        if lane is None:
            if len(route.lanes) >= PATHS:
                route.lanes.clear()
            lane = route.lanes[kind] = route.driver.engine.lane(f"{method} {_VARYING.sub('*', path)}")
        return lane

    def _hedge(self, exchange: Exchange) -> None:
        after = self._hedge_after
        if after == "p95":
            lane = exchange.pick.lane
            after = None if lane is None else lane.quantile(0.95)
        if isinstance(after, int | float):
            exchange.hurry_after(after)


class Route:
    """A host of the application: its driver, and a ready URL for each pod (building one costs 6 µs)."""

    __slots__ = ("driver", "lanes", "pods", "scheme", "tls_name")

    def __init__(self, driver: Driver, scheme: str, tls_name: str | None) -> None:
        self.driver = driver
        self.scheme = scheme
        self.tls_name = tls_name
        self.pods: dict[Key, URL] = {}
        self.lanes: dict[str, Lane] = {}


__all__ = ["HeadlessConnector", "NoEndpoints", "Overloaded"]
