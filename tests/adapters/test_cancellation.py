"""A cancelled caller loses nothing: each scenario is cancelled at every place where it waits."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.testing import EmbeddedCluster, EmbeddedService
from tests.adapters.conftest import Authority
from tests.adapters.sweep import LeftBehind, sweep
from tests.adapters.world import OFTEN, get, until

LARGE = b"0123456789abcdef" * 65536  # 1 MiB: more than the socket buffers of both sides hold


class Caller:
    """What one performance has to itself: a client that knows nothing yet, and a session."""

    def __init__(self, client: Client, session: aiohttp.ClientSession, orders: EmbeddedService) -> None:
        self.client = client
        self.session = session
        self.orders = orders
        self.url = orders.url


Act = Callable[[Caller], Coroutine[Any, Any, object]]


@contextlib.asynccontextmanager
async def calling(
    cluster: EmbeddedCluster, orders: EmbeddedService, *, warm: bool = False, ssl: Any = True, **options: Any
) -> AsyncIterator[Caller]:
    """A client and a session. `warm`: DNS has answered, and a connection to every pod is kept."""
    async with Client(**{**cluster.resolver, **OFTEN, **options}) as client:
        targets = {} if orders.port else {"orders.shop": orders.target}
        connector = HeadlessConnector(client, targets=targets, ssl=ssl)
        async with aiohttp.ClientSession(connector=connector) as session:
            while warm and not all(pod.connections for pod in orders.pods):
                await get(session, orders.url)
            yield Caller(client, session, orders)


@contextlib.asynccontextmanager
async def serving(pods: int = 2, **service: Any) -> AsyncIterator[tuple[EmbeddedCluster, EmbeddedService]]:
    async with EmbeddedCluster(ttl=1) as cluster:
        yield cluster, await cluster.service("orders", pods=pods, **service)


async def small_get(caller: Caller) -> None:
    await get(caller.session, caller.url)


async def large_get(caller: Caller) -> None:
    async with caller.session.get(f"{caller.url}/large") as response:
        assert len(await response.read()) == len(LARGE)


async def streamed_get(caller: Caller) -> None:
    async with caller.session.get(f"{caller.url}/large") as response:
        size = 0
        async for chunk in response.content.iter_chunked(100_000):
            size += len(chunk)
        assert size == len(LARGE)


async def post(caller: Caller) -> None:
    async with caller.session.post(f"{caller.url}/echo", data=LARGE) as response:
        assert len(await response.read()) == len(LARGE)


async def redirected(caller: Caller) -> None:
    async with caller.session.get(f"{caller.url}/redirect?to=/there") as response:
        await response.read()


async def web_socket(caller: Caller) -> None:
    async with caller.session.ws_connect(f"{caller.url}/ws") as socket:
        for number in range(3):
            await socket.send_str(str(number))
            assert (await socket.receive()).data == str(number)


async def large_or_known(request: web.BaseRequest) -> web.StreamResponse:
    """The pods' own answers, and a large one."""
    if request.path == "/large":
        return web.Response(body=LARGE)
    return web.Response(body=await request.read(), headers={"X-Pod": "large"})


@pytest.mark.parametrize("act", [small_get, redirected, web_socket], ids=lambda act: act.__name__)
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_cancelled_anywhere(act: Act, warm: bool) -> None:
    """`cold` begins with the first look-up and a dial, `warm` with a kept connection."""
    async with serving() as (cluster, orders):
        waits = await sweep(lambda: calling(cluster, orders, warm=warm), act, client=lambda caller: caller.client)
        assert waits >= (1 if warm else 3)


@pytest.mark.parametrize("act", [large_get, streamed_get, post], ids=lambda act: act.__name__)
async def test_cancelled_anywhere_in_a_large_body(act: Act) -> None:
    async with serving(handler=large_or_known) as (cluster, orders):
        assert await sweep(lambda: calling(cluster, orders), act, client=lambda caller: caller.client) >= 4


async def test_cancelled_anywhere_in_tls(authority: Authority) -> None:
    async with serving(ssl_context=authority.serving("orders.shop")) as (cluster, orders):
        stage = lambda: calling(cluster, orders, ssl=authority.trusting)  # noqa: E731
        assert await sweep(stage, small_get, client=lambda caller: caller.client) >= 4


async def test_cancelled_anywhere_while_the_first_dial_is_refused() -> None:
    """Of two pods in DNS one is dead. The first or the second request meets it, and goes on to the other one."""
    async with serving(pods=2) as (cluster, orders):
        orders.crash(orders.pods[0])

        async def dial(caller: Caller) -> None:
            for _ in range(2):
                await small_get(caller)
            states = [member.state.value for member in caller.client.service(orders.target).snapshot.members]
            assert sorted(states) == ["failing", "ready"]

        assert await sweep(lambda: calling(cluster, orders), dial, client=lambda caller: caller.client) >= 4


async def test_cancelled_anywhere_while_dns_is_slow() -> None:
    async with serving() as (cluster, orders):
        with cluster.zone.trouble(delay=0.02):
            stage = lambda: calling(cluster, orders)  # noqa: E731
            assert await sweep(stage, small_get, client=lambda caller: caller.client) >= 3


async def test_cancelled_anywhere_while_waiting_for_an_endpoint_and_the_next_in_line_is_served() -> None:
    async with serving(pods=1) as (cluster, orders):
        [pod] = orders.pods

        async def wait(caller: Caller) -> None:
            orders.unlist(pod)
            service = caller.client.service(orders.target)
            other = asyncio.create_task(small_get(caller))
            try:
                await until(lambda: service.snapshot.waiting == 1)
                asyncio.get_running_loop().call_later(0.02, orders.list, pod)
                await small_get(caller)
            finally:
                orders.list(pod)
                await other

        stage = lambda: calling(cluster, orders, wait_for_endpoints=30)  # noqa: E731
        assert await sweep(stage, wait, client=lambda caller: caller.client) >= 3


async def test_cancelled_anywhere_while_waiting_for_a_place_in_the_pool() -> None:
    async with serving(pods=1) as (cluster, orders):

        @contextlib.asynccontextmanager
        async def crowded() -> AsyncIterator[Caller]:
            async with Client(**{**cluster.resolver, **OFTEN}) as client:
                targets = {} if orders.port else {"orders.shop": orders.target}
                connector = HeadlessConnector(client, targets=targets, limit=1)
                async with aiohttp.ClientSession(connector=connector) as session:
                    yield Caller(client, session, orders)

        async def queue(caller: Caller) -> None:
            async with caller.session.get(f"{caller.url}/stream?chunks=2&seconds=0.01") as before:
                behind = asyncio.create_task(small_get(caller))
                try:
                    await before.read()
                    await small_get(caller)
                finally:
                    before.close()
                    await behind

        assert await sweep(crowded, queue, client=lambda caller: caller.client) >= 4


# ---- the sweep itself ------------------------------------------------------------------------------------------------


async def test_a_sweep_names_the_wait_that_leaves_a_pick_behind() -> None:
    async with serving() as (cluster, orders):

        async def careless(caller: Caller) -> None:
            service = caller.client.service(orders.target)
            await service.ready()
            picking = service.pick()
            pick = await picking.__aenter__()
            await asyncio.sleep(0)
            pick.finish(None)  # not reached by a cancelled caller

        with pytest.raises(LeftBehind) as raised:
            await sweep(lambda: calling(cluster, orders), careless, client=lambda caller: caller.client, patience=0.3)
        assert re.search(r"at wait \d+, while it waited, in __sleep0 .* < .*careless .*py:\d+\),", str(raised.value))
        assert "left behind: 1 in flight and 0 connections on 127.0" in str(raised.value)


async def test_a_sweep_names_the_wait_that_leaves_a_task_or_a_socket_behind() -> None:
    async with serving() as (cluster, orders):
        kept: list[object] = []

        async def careless(caller: Caller) -> None:
            opened = asyncio.create_task(caller.client.service(orders.target).open_connection())
            _, writer = await asyncio.shield(opened)
            kept.append(writer)
            await asyncio.sleep(0)
            writer.close()

        with pytest.raises(LeftBehind, match=r"left behind: .*(Task|descriptors|unclosed)"):
            await sweep(lambda: calling(cluster, orders), careless, client=lambda caller: caller.client, patience=0.3)
