"""The public API: a client, its services, and picks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from weakref import WeakSet

from headlessconn._runtime.driver import Driver
from headlessconn._runtime.hub import Hub
from headlessconn._runtime.lease import Lease
from headlessconn._runtime.pooling import Hooks
from headlessconn._runtime.race import open_connection
from headlessconn._runtime.resolvconf import ResolvConf
from headlessconn._runtime.running import Run, hedging, name_of
from headlessconn._runtime.sending import Connecting, Sending
from headlessconn._runtime.sockets import close_any
from headlessconn.core import pick as core
from headlessconn.core.claim import Claim
from headlessconn.core.effects import Change
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.explain import explain
from headlessconn.core.pooling import PoolRules
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.target import Target
from headlessconn.errors import ClosedError, NoEndpoints, OptionError
from headlessconn.options import Options
from headlessconn.pool import Pool

C = TypeVar("C")
Answered = TypeVar("Answered")


class Client:
    """Follows the pods of any number of services, on one event loop.

    Clients with the same options on the same loop share their knowledge; the last one to close ends it. Nothing is
    opened before the first use, so a client may be built before a fork, or outside of any loop.

        async with headlessconn.Client() as client:
            service = client.service("orders.shop:8080")
            async with service.pick() as pick:
                reader, writer = await asyncio.open_connection(pick.host, pick.port)

    Settings are those of `Options`, as one object or by name: `Client(refresh_max=1.0)`. Raises `OptionError`.
    """

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        self.options = Options.of(options, settings)
        ResolvConf(self.options)  # what it says about nameservers is wrong now or never
        self._hub: Hub | None = None
        self._closed = False
        self._pools: WeakSet[Pool[Any]] = WeakSet()

    def service(self, target: str | Target) -> Service:
        """The service behind a target, such as `orders.shop:8080`. Raises `TargetError` when it cannot be read."""
        return Service(self, Target.parse(target))

    def hub(self) -> Hub:
        """The engines of this loop, opened on first use. For adapters. Raises `ClosedError`, `WrongLoop`."""
        if self._closed:
            raise ClosedError("this client was closed: make a new one")
        if self._hub is None:
            self._hub = Hub.open(self.options)
        self._hub.check()
        return self._hub

    async def __aenter__(self) -> Self:
        self.hub()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close it. Waiting callers get `ClosedError`; closing twice is right. Raises `WrongLoop` on another loop, as
        long as its own lives: what runs there is not ours to end."""
        hub = self._hub
        if hub is None or hub.forked or hub.loop.is_closed():
            self._closed, self._hub = True, None  # nothing of it runs here
            return
        hub.check()
        for pool in tuple(self._pools):
            await pool.aclose(0.0)  # its users had their time: they leave a pool before the client
        self._closed, self._hub = True, None
        await hub.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._hub else "not opened yet"
        return f"<headlessconn.Client {state}>"


class Service:
    """One service: its pods, kept fresh while it is used. Made by `Client.service`."""

    def __init__(self, client: Client, target: Target) -> None:
        self.target = target
        self._client = client
        self._driver: Driver | None = None

    def driver(self) -> Driver:
        """What runs it on this loop. For adapters. Raises `ClosedError`, `WrongLoop`."""
        hub = self._client.hub()
        driver = self._driver
        if driver is None or driver.closed:  # forgotten after a long idleness
            driver = self._driver = hub.driver(self.target)
        return driver

    def pick(self, *, wait: float | None = None, safe: bool = True) -> Picking:
        """One pod for one request, as `async with service.pick() as pick:`.

        How the block ends is what the engine learns: an exception of a connection is evidence against the pod, the
        caller's own is not. Latency is taken at `pick.responded()`, or at the end of the block.

        wait   seconds to wait for an endpoint; default `wait_for_endpoints`; 0 fails at once
        safe   whether this request may be the trial of a pod that answered badly before

        Raises `NoEndpoints`, `ClosedError`, `WrongLoop`.
        """
        return Picking(self, wait, safe)

    async def place(self, *, avoid: Collection[Endpoint] = (), wait: float | None = None) -> Lease:
        """A pod for one long-lived connection, counted among all that this process has: for pools that libraries own.
        The lease is told what becomes of the connection, and says whether it may stay.

        avoid   endpoints that were tried for this connection; when these are all there are, one of them is taken again
        wait    seconds to wait for an endpoint; default `wait_for_endpoints`; 0 fails at once

        Raises `NoEndpoints`, `ClosedError`, `WrongLoop`.
        """
        driver = self.driver()
        found = await driver.claim([endpoint.key for endpoint in avoid], wait)
        if not isinstance(found, Claim):
            found = await driver.claim((), wait)
            assert isinstance(found, Claim)  # nothing was avoided
        return Lease(driver, found)

    def pool(
        self,
        *,
        open: Callable[[Endpoint], Awaitable[C]],  # noqa: A002 - read as `pool(open=…, close=…)`
        close: Callable[[C], Any] = close_any,
        check: Callable[[C], Any] | None = None,
        reset: Callable[[C], Any] | None = None,
        on_silent: Callable[[C], object] | None = None,
        is_lost: Callable[[BaseException], bool | None] | None = None,
        is_full: Callable[[BaseException], bool] | None = None,
        **rules: Any,
    ) -> Pool[C]:
        """A pool of long-lived connections which follows the pods: new ones get their share, old ones are let go.

        `close`, `check` and `reset` may be functions or coroutine functions:

        open       `await open(endpoint)` connects to `endpoint.address`, `endpoint.port`, logs in, and returns what the
                   callers get. With TLS, verify the *Service's* name (`service.target.host`), not the address
        close      `close(connection)`; by default its `aclose()` or `close()`, for a pair of streams the writer's
        check      `check(connection)` before it is handed out after `check_after` (5 s) without use: False, or an
                   exception, says that it is dead
        reset      `reset(connection)` when it came back, before its next caller: a rollback, for instance
        on_silent  `on_silent(connection)` when its pod answers nothing any more and somebody may wait on it: cut it
                   off. By default sockets and streams are; nothing can be seen in other connections
        is_lost    `is_lost(error)`: whether an exception of your library says that the connection is lost; None = as
                   if there were no `is_lost`, which knows the built-in exceptions and looks at causes too
        is_full    `is_full(error)`: whether `open` failed because this pod has too many connections

        Further settings, by name, are those of `PoolRules`: `min_size`, `max_size` (10), `timeout` (30 s),
        `idle_timeout` (600 s), `max_age`, `open_timeout` (10 s), `check_after`, `check_timeout`, `reset_timeout`,
        `close_timeout`, `silent_after`. Raises `OptionError` for one that is unknown or out of range.

            async with service.pool(open=open_connection, max_size=20) as pool:
                async with pool.acquire() as connection: ...
        """
        hooks = Hooks(open, close, check, reset, on_silent, is_lost, is_full)
        pool: Pool[C] = Pool(self.driver, str(self.target), hooks, PoolRules.of(rules))
        self._client._pools.add(pool)
        return pool

    async def run(
        self,
        fn: Callable[[Pick], Awaitable[Answered]],
        *,
        repeatable: bool = False,
        deadline: float | None = None,
        hedge_after: float | Literal["p95"] | None = None,
        lane: str = "",
    ) -> Answered:
        """One exchange with one of the pods; with another one when that pod fails before anything was sent, and, if it
        is `repeatable`, also after it.

            async def ask(pick):
                async with pick.connecting():
                    reader, writer = await asyncio.open_connection(pick.host, pick.port)
                ...

            answer = await service.run(ask, repeatable=True, deadline=2.0)

        `fn` does the whole exchange with the pod that it is given, from connecting to the last byte, and cleans up when
        it is cancelled; it may be called several times, also at once. What it returns is the answer. What it raises is
        raised here, unless a pod is to blame: for a connection that could not be had, lost or timed out, and after
        `pick.responded(bad=True)`.

        repeatable   sending it twice does no harm. Then it is sent to up to three pods, and beside a pod that falls
                     silent while others answer; each beyond the first is paid from the budget (20 % of all requests)
        deadline     seconds until `DeadlineExceeded`; nothing is begun after it. Without one an exchange takes as long
                     as it takes, and pods are looked for as long as `wait_for_endpoints`
        hedge_after  seconds without an answer after which a copy goes to another pod; `"p95"`: after what 95 of 100
                     requests of this lane take. Only if `repeatable`. The first answer wins, the loser is cancelled
        lane         the kind of request, since what is silence for one is haste for another; default: one for each `fn`
                     by its name

        Raises what `fn` raised, as it was raised, with a note of the attempts before; `NoEndpoints`; `DialFailed`, when
        nothing was sent; `DeadlineExceeded`; `OptionError`, `ClosedError`, `WrongLoop`.
        """
        driver = self.driver()
        kind = driver.engine.lane(lane or name_of(fn))
        after = hedging(hedge_after, repeatable, deadline, kind)
        hold = partial(Pick, driver)
        run = Run(driver, hold, fn, kind, repeatable=repeatable, deadline=deadline, hedge_after=after)
        return await run.answer()

    async def ready(self, min_endpoints: int = 1, timeout: float | None = None) -> None:
        """Wait until so many endpoints are READY: for a readiness probe, or before the first request.

        `timeout` in seconds, default `wait_for_endpoints`. Raises `NoEndpoints` when it passes.
        """
        driver = self.driver()
        limit = self._client.options.wait_for_endpoints if timeout is None else timeout
        waited = await driver.ready(min_endpoints, limit)
        if waited is not None:
            raise waited

    async def open_connection(self, **arguments: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `asyncio.open_connection`, to one of the pods.

        A pod that refuses is replaced by another at once; one that is silent gets a second one beside it after
        `race_after` (0.25 s), up to three. TCP keep-alive is on. Further arguments (`ssl`, `server_hostname`, `limit`)
        go to `asyncio.open_connection`; with `ssl` the certificate is verified for the *Service's* name.

        Raises `NoEndpoints`, or `DialFailed` with every pod that was tried; `OptionError` for `ssl` without a name to
        verify: a static target has none, so give `server_hostname`.
        """
        if arguments.get("ssl") and "server_hostname" not in arguments:
            if not self.target.host:
                raise OptionError(
                    "server_hostname", f"{self.target} has no name to verify", 'server_hostname="orders.shop"'
                )
            arguments["server_hostname"] = self.target.host
        return await open_connection(self.driver(), arguments)

    @property
    def snapshot(self) -> Snapshot:
        """Everything known about it now, frozen."""
        return self.driver().snapshot()

    def explain(self) -> str:
        """The snapshot in sentences: what is known, since when, and what happens next."""
        return explain(self.snapshot)

    async def changes(self) -> AsyncIterator[Change]:
        """Each change of the set from now on: `async for change in service.changes()`. Ends when the client closes."""
        async for change in self.driver().changes():
            yield change

    def __repr__(self) -> str:
        return f"<headlessconn.Service {self.target}>"


class Picking:
    """The `async with` of `Service.pick`."""

    __slots__ = ("_pick", "_safe", "_service", "_wait")

    def __init__(self, service: Service, wait: float | None, safe: bool) -> None:
        self._service = service
        self._wait = wait
        self._safe = safe
        self._pick: Pick | None = None

    async def __aenter__(self) -> Pick:
        driver = self._service.driver()
        found = await driver.acquire((), self._safe, self._wait)
        assert isinstance(found, core.Pick)  # nothing was avoided
        self._pick = Pick(driver, found)
        return self._pick

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pick is not None
        self._pick.finish(error)


class Pick:
    """One pod, taken for one request.

    host, port   where to connect
    endpoint     the same, with the pod's hostname when DNS knows it
    """

    __slots__ = ("_driver", "_pick", "_sending", "endpoint", "host", "port")

    def __init__(self, driver: Driver, pick: core.Pick) -> None:
        self._driver = driver
        self._pick = pick
        self._sending = Sending(driver, pick)
        self.endpoint: Endpoint = pick.endpoint
        self.host = self.endpoint.address
        self.port = self.endpoint.port

    def connecting(self, timeout: float | None = None) -> Connecting:
        """Put around what makes the connection, as `async with pick.connecting():`.

        Whatever fails in the block was not sent, so `service.run` may go to another pod with it, and the pod is taken
        for one that cannot be connected to. The end of the block says `sent()`. `timeout` in seconds, default
        `connect_timeout` (2.5).
        """
        options = self._driver.engine.options
        return Connecting(self._sending, options.connect_timeout if timeout is None else timeout)

    def sent(self) -> None:
        """From here on the pod may have seen the request: its latency, and its silence, count from now.

        Only needed without `connecting()`, as on a connection that was kept.
        """
        self._sending.sent()

    @property
    def is_sent(self) -> bool:
        """Whether `sent()` was said."""
        return self._sending.is_sent

    @property
    def is_bad(self) -> bool:
        """Whether the answer was said to be bad."""
        return self._sending.is_bad

    def responded(self, bad: bool = False) -> None:
        """The answer has begun: its latency is taken now. `bad`: it says that the pod is in trouble (a 5xx)."""
        self._sending.is_bad = self._sending.is_bad or bad
        self._driver.responded(self._pick, bad)

    def streams(self) -> None:
        """It became a long-lived exchange (a WebSocket, a subscription): no longer a request in flight."""
        self._driver.streams(self._pick)

    def finish(self, error: BaseException | None) -> How:
        """The end of the block."""
        return self._sending.finish(error)

    def __repr__(self) -> str:
        return f"<headlessconn.Pick {self.endpoint}>"


__all__ = ["Client", "NoEndpoints", "Pick", "Service"]
