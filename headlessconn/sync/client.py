"""The public API for threads: the same client, services and picks, without an event loop."""

from __future__ import annotations

import socket
import ssl
import weakref
from collections.abc import Callable, Collection
from typing import Any, Self, TypeVar

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_hub import BlockingHub, opening
from headlessconn._runtime.blocking_race import open_connection
from headlessconn._runtime.blocking_steps import Hooks
from headlessconn._runtime.lease import Lease
from headlessconn._runtime.reading import Changes
from headlessconn._runtime.resolvconf import ResolvConf
from headlessconn.core.claim import Claim
from headlessconn.core.endpoint import Endpoint
from headlessconn.core.explain import explain
from headlessconn.core.pooling import PoolRules
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.target import Target
from headlessconn.errors import ClosedError, OptionError
from headlessconn.options import Options
from headlessconn.sync.pick import Picking
from headlessconn.sync.pool import Pool

C = TypeVar("C")
Result = TypeVar("Result")


def _close(connection: Any) -> None:
    connection.close()


class Client:
    """Follows the pods of any number of services, for any number of threads.

    A request picks in its own thread; one thread of the client's asks DNS, probes, and keeps the time. It is started by
    the first use, so a client may be built before a fork. One that was used before starts afresh in the child: it
    shares no socket with its parent, and waits for no thread that stayed there.

        with headlessconn.sync.Client() as client:
            service = client.service("orders.shop:8080")
            with service.pick() as pick:
                sock = socket.create_connection((pick.host, pick.port))

    Settings are those of `Options`, as one object or by name: `Client(refresh_max=1.0)`. Raises `OptionError`.
    """

    def __init__(self, options: Options | None = None, **settings: Any) -> None:
        self.options = Options.of(options, settings)
        ResolvConf(self.options)  # what it says about nameservers is wrong now or never
        self._hub: BlockingHub | None = None
        self._closed = False
        self._pools: weakref.WeakSet[Pool[Any]] = weakref.WeakSet()

    def service(self, target: str | Target) -> Service:
        """The service behind a target, such as `orders.shop:8080`. Raises `TargetError` when it cannot be read."""
        return Service(self, Target.parse(target))

    def hub(self) -> BlockingHub:
        """What runs it, opened on first use. For adapters. Raises `ClosedError`."""
        hub = self._hub
        if hub is None or hub.closed:
            with opening():
                hub = self._hub
                if self._closed or (hub is not None and hub.closed and not hub.lost):
                    raise ClosedError("this client was closed: make a new one")
                if hub is None or hub.lost:
                    hub = self._hub = BlockingHub(self.options)
                    weakref.finalize(self, hub.abandon).atexit = False
        return hub

    def close(self) -> None:
        """Close it, and the pools that are still open; from any thread. Waiting callers get `ClosedError`. Closing
        twice is right, and a pick that is open may end after the end."""
        for pool in tuple(self._pools):
            pool.close(0.0)  # its users had their time: they leave a pool before the client
        with opening():
            self._closed, hub = True, self._hub
        if hub is not None and not hub.lost:
            hub.close()

    def __enter__(self) -> Self:
        self.hub()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        hub = self._hub
        state = "closed" if self._closed else "not opened yet" if hub is None or hub.lost else "open"
        return f"<headlessconn.sync.Client {state}>"


class Service:
    """One service: its pods, kept fresh while it is used. Made by `Client.service`; any thread may use it."""

    def __init__(self, client: Client, target: Target) -> None:
        self.target = target
        self._client = client
        self._driver: BlockingDriver | None = None

    def driver(self) -> BlockingDriver:
        """What runs it. For adapters. Raises `ClosedError`."""
        driver = self._driver
        if driver is None or driver.closed:  # forgotten after a long idleness, or left to the parent by a fork
            driver = self._driver = self._client.hub().driver(self.target)
        return driver

    def pick(self, *, wait: float | None = None, safe: bool = True) -> Picking:
        """One pod for one request, as `with service.pick() as pick:`.

        How the block ends is what the engine learns: an exception of a connection is evidence against the pod, the
        caller's own is not. Latency is taken at `pick.responded()`, or at the end of the block.

        wait   seconds to wait for an endpoint; default `wait_for_endpoints`; 0 fails at once. Who waits is served in
               the order of coming
        safe   whether this request may be the trial of a pod that answered badly before

        Raises `NoEndpoints`, `ClosedError`.
        """
        return Picking(self, wait, safe)

    def place(self, *, avoid: Collection[Endpoint] = (), wait: float | None = None) -> Lease:
        """A pod for one long-lived connection, counted among all that this client has: for pools that libraries own.
        The lease is told what becomes of the connection, and says whether it may stay. What it is given to call is
        called in the client's thread, and must not block.

        avoid   endpoints that were tried for this connection; when these are all there are, one of them is taken again
        wait    seconds to wait for an endpoint; default `wait_for_endpoints`; 0 fails at once

        Raises `NoEndpoints`, `ClosedError`.
        """

        def place(driver: BlockingDriver) -> Lease:
            found = driver.place_within(wait, [endpoint.key for endpoint in avoid])
            if not isinstance(found, Claim):
                found = driver.place_within(wait)
                assert isinstance(found, Claim)  # nothing was avoided
            return Lease(driver, found)

        return self.use(place)

    def ready(self, min_endpoints: int = 1, timeout: float | None = None) -> None:
        """Wait until so many endpoints are READY: for a readiness probe, or before the first request.

        `timeout` in seconds, default `wait_for_endpoints`. Raises `NoEndpoints` when it passes.
        """
        limit = self._client.options.wait_for_endpoints if timeout is None else timeout
        lacking = self.use(lambda driver: driver.ready(min_endpoints, limit))
        if lacking is not None:
            raise lacking

    def open_connection(
        self,
        *,
        ssl: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> socket.socket:
        """A socket that is connected to one of the pods, blocking unless `timeout` says otherwise.

        A pod that refuses is replaced by another at once; one that is silent gets a second one beside it after
        `race_after` (0.25 s), up to three. TCP keep-alive is on.

        ssl              a context, for TLS: the certificate is verified for the *Service's* name, though an address is
                         dialled
        server_hostname  another name to verify
        timeout          seconds, of the socket: for its handshake, and for whatever is done with it. Dialling has its
                         own, `connect_timeout`

        Raises `NoEndpoints`, or `DialFailed` with every pod that was tried; `OptionError` for `ssl` without a name to
        verify: a static target has none, so give `server_hostname`.
        """
        if ssl is not None and server_hostname is None:
            if not self.target.host:
                raise OptionError(
                    "server_hostname", f"{self.target} has no name to verify", 'server_hostname="orders.shop"'
                )
            server_hostname = self.target.host
        return self.use(lambda driver: open_connection(driver, ssl, server_hostname, timeout))

    @property
    def snapshot(self) -> Snapshot:
        """Everything known about it now, frozen."""
        return self.driver().snapshot()

    def explain(self) -> str:
        """The snapshot in sentences: what is known, since when, and what happens next."""
        return explain(self.snapshot)

    def changes(self) -> Changes:
        """Each change of the set from now on: `for change in service.changes():`. Ends when the client closes."""
        changes = self.use(BlockingDriver.changes)
        changes.keeps = self
        return changes

    def pool(
        self,
        *,
        open: Callable[[Endpoint], C],  # noqa: A002 - read as `pool(open=…, close=…)`
        close: Callable[[C], object] = _close,
        check: Callable[[C], object] | None = None,
        reset: Callable[[C], object] | None = None,
        on_silent: Callable[[C], object] | None = None,
        is_lost: Callable[[BaseException], bool | None] | None = None,
        is_full: Callable[[BaseException], bool] | None = None,
        **rules: Any,
    ) -> Pool[C]:
        """A pool of long-lived connections which follows the pods: new ones get their share, old ones are let go.

        The functions are called in threads of the pool's, never in a caller's, and should have time-outs of their own:
        a thread that hangs is left to itself, and another one stands in for it.

        open       `open(endpoint)` connects to `endpoint.address`, `endpoint.port`, logs in, and returns what callers
                   get. With TLS, verify the *Service's* name (`service.target.host`), not the address
        close      `close(connection)`; by default its `close()`
        check      `check(connection)` before it is handed out after `check_after` (5 s) without use: False, or an
                   exception, says that it is dead
        reset      `reset(connection)` when it came back, before its next caller: a rollback, for instance
        on_silent  `on_silent(connection)` when its pod answers nothing any more and somebody may wait on it: cut it
                   off. By default sockets are; nothing can be seen in other connections
        is_lost    `is_lost(error)`: whether an exception of your library says that the connection is lost; None = as
                   if there were no `is_lost`, which knows the built-in exceptions and looks at causes too
        is_full    `is_full(error)`: whether `open` failed because this pod has too many connections

        Further settings, by name, are those of `PoolRules`: `min_size`, `max_size` (10), `timeout` (30 s),
        `idle_timeout` (600 s), `max_age`, `open_timeout` (10 s), `check_after`, `check_timeout`, `reset_timeout`,
        `close_timeout`, `silent_after`. Raises `OptionError` for one that is unknown or out of range, and for a
        coroutine function.

            with service.pool(open=open_connection, max_size=20) as pool:
                with pool.acquire() as connection: ...
        """
        hooks = Hooks(open, close, check, reset, on_silent, is_lost, is_full)
        pool: Pool[C] = Pool(self.driver, str(self.target), hooks, PoolRules.of(rules))
        self._client._pools.add(pool)
        return pool

    def use(self, call: Callable[[BlockingDriver], Result]) -> Result:
        """For adapters: call a driver that is open. A target may be forgotten, after a long idleness, in the moment of
        its next use; then it has a new one."""
        while True:
            driver = self.driver()
            try:
                return call(driver)
            except ClosedError:
                if not driver.closed or self._client.hub().closed:
                    raise

    def __repr__(self) -> str:
        return f"<headlessconn.sync.Service {self.target}>"


__all__ = ["Client", "Service"]
