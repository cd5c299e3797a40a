"""The public API: a client, its services, and picks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

from headlessconn._runtime.dial import how_request_failed
from headlessconn._runtime.driver import Driver
from headlessconn._runtime.hub import Hub
from headlessconn._runtime.race import open_connection
from headlessconn._runtime.resolvconf import ResolvConf
from headlessconn.core import pick as core
from headlessconn.core.effects import Change
from headlessconn.core.endpoint import NO_DIAL, Endpoint, How
from headlessconn.core.explain import explain
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.target import Target
from headlessconn.errors import ClosedError, NoEndpoints, OptionError
from headlessconn.options import Options


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

    __slots__ = ("_driver", "_pick", "endpoint", "host", "port")

    def __init__(self, driver: Driver, pick: core.Pick) -> None:
        self._driver = driver
        self._pick = pick
        self.endpoint: Endpoint = pick.endpoint
        self.host = self.endpoint.address
        self.port = self.endpoint.port

    def responded(self, bad: bool = False) -> None:
        """The answer has begun: its latency is taken now. `bad`: it says that the pod is in trouble (a 5xx)."""
        self._driver.responded(self._pick, bad)

    def streams(self) -> None:
        """It became a long-lived exchange (a WebSocket, a subscription): no longer a request in flight."""
        self._driver.streams(self._pick)

    def finish(self, error: BaseException | None) -> None:
        """The end of the block."""
        how = How.OK if error is None else how_request_failed(error)
        if how in NO_DIAL:
            self._driver.dialled(self._pick, how)
        self._driver.ended(self._pick, how)

    def __repr__(self) -> str:
        return f"<headlessconn.Pick {self.endpoint}>"


__all__ = ["Client", "NoEndpoints", "Pick", "Service"]
