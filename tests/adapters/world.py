"""What the adapter tests share: a cluster on loopback, a client that looks at its DNS often, sessions over both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from headlessconn import Client, Service
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.core.snapshot import MemberView, Snapshot
from headlessconn.testing import EmbeddedCluster, EmbeddedService, Pod

#: Looks at DNS five times a second, so that a scenario takes as long as what it is about. And picks by the requests in
#: flight alone: a pause of a busy machine is a latency too, and would decide who is asked next.
OFTEN: dict[str, Any] = {"refresh_min": 0.1, "refresh_max": 0.2, "policy": "least_request"}


class Shop:
    """A cluster with the Service `orders.shop`, and a client of it."""

    def __init__(self, cluster: EmbeddedCluster, orders: EmbeddedService, client: Client) -> None:
        self.cluster = cluster
        self.orders = orders
        self.client = client
        self.url = orders.url
        # Where every pod has a port of its own, a URL can name none, and the target says which one is meant.
        self.targets = {} if orders.port else {"orders.shop": orders.target}

    def connector(self, **arguments: Any) -> HeadlessConnector:
        return HeadlessConnector(self.client, **{"targets": self.targets} | arguments)

    def session(self, **arguments: Any) -> aiohttp.ClientSession:
        """A session over a connector with default settings; `connector=` gives another one."""
        return aiohttp.ClientSession(connector=arguments.pop("connector", None) or self.connector(), **arguments)

    @property
    def service(self) -> Service:
        return self.client.service(self.orders.target)

    @property
    def view(self) -> Snapshot:
        return self.service.snapshot

    def member(self, pod: Pod) -> MemberView:
        """What the engine thinks of a pod."""
        [found] = [m for m in self.view.members if (m.endpoint.address, m.endpoint.port) == (pod.address, pod.port)]
        return found

    def state(self, pod: Pod) -> str:
        return self.member(pod).state.value

    @property
    def states(self) -> list[str]:
        """The states of all pods that the engine knows, sorted."""
        return sorted(member.state.value for member in self.view.members)

    @property
    def load(self) -> tuple[int, int]:
        """Requests in flight and long-lived connections, over all pods, as the engine counts them."""
        members = self.view.members
        return sum(m.in_flight for m in members), sum(m.connections for m in members)


@contextlib.asynccontextmanager
async def shop(pods: int = 3, *, options: dict[str, Any] | None = None, **service: Any) -> AsyncIterator[Shop]:
    """The cluster runs, `orders.shop` has its pods, and nothing has been looked up yet."""
    async with EmbeddedCluster(ttl=1) as cluster:
        cluster.zone.serve(".")  # as a cluster's DNS knows the rest of the world from others
        orders = await cluster.service("orders", pods=pods, **service)
        async with Client(**{**cluster.resolver, **OFTEN, **(options or {})}) as client:
            yield Shop(cluster, orders, client)


async def get(session: aiohttp.ClientSession, url: str, **arguments: Any) -> str:
    """Which pod answered a GET that went well."""
    async with session.get(url, **arguments) as response:
        await response.read()
        assert response.status == 200, response.status
        return response.headers["X-Pod"]


async def until(condition: Callable[[], bool], within: float = 10.0) -> None:
    """Wait for something that no event tells; fails when it does not come."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


class PlainResolver(AbstractResolver):
    """aiohttp's own way to a name, as far as a test wants it to know any; it remembers what it was asked."""

    def __init__(self, **known: tuple[str, int]) -> None:
        self.known = {name.replace("_", "."): place for name, place in known.items()}
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if host not in self.known:
            raise OSError(None, f"the plain resolver does not know {host}")
        address, at = self.known[host]
        return [
            ResolveResult(hostname=host, host=address, port=at, family=socket.AF_INET, proto=0, flags=0),
        ]

    async def close(self) -> None: ...


@contextlib.asynccontextmanager
async def black_hole() -> AsyncIterator[tuple[str, int]]:
    """A port that neither accepts nor refuses: its queue is full, so the kernel drops every further SYN."""
    with socket.socket() as hole, contextlib.ExitStack() as stuck:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        loop = asyncio.get_running_loop()
        while True:
            filler = stuck.enter_context(socket.socket())
            filler.setblocking(False)
            try:
                async with asyncio.timeout(0.2):
                    await loop.sock_connect(filler, hole.getsockname())
            except TimeoutError:
                break
        yield hole.getsockname()
