"""What application and pod see of a request is the Service's: its name, URL and cookies, never the pod's address."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from headlessconn.testing import Pod
from tests.adapters.world import PlainResolver, get, shop, until


async def test_host_header_and_urls_name_the_service() -> None:
    async with shop() as world, world.session() as session:
        url = URL(f"{world.url}/v1/orders?page=2#top")
        async with session.get(url) as response:
            said = await response.json()
            assert said["host"] == url.authority
            assert (said["path"], said["query"]) == ("/v1/orders", {"page": "2"})
            assert response.url == url.with_fragment(None)
            assert response.real_url == url
            assert response.host == "orders.shop"
            assert response.request_info.url == url.with_fragment(None)
            assert response.request_info.real_url == url
            assert response.request_info.headers["Host"] == url.authority
            assert response.history == ()


async def test_a_host_header_of_the_callers_own_is_kept() -> None:
    async with shop() as world, world.session(headers={"Host": "tenant-7.example"}) as session:
        await get(session, world.url)
        assert [request.host for pod in world.orders.pods for request in pod.requests] == ["tenant-7.example"]


async def test_cookies_belong_to_the_service_and_reach_whichever_pod_comes_next() -> None:
    async with shop() as world, world.session() as session:
        async with session.get(f"{world.url}/set-cookie?basket=7"):
            pass
        assert {cookie["domain"] for cookie in session.cookie_jar} == {"orders.shop"}
        assert len({await get(session, world.url) for _ in range(30)}) == 3
        sent = [request.headers.get("Cookie") for pod in world.orders.pods for request in pod.requests]
        assert (sent.count(None), sent.count("basket=7")) == (1, 30)


async def test_a_redirect_within_the_service_is_balanced_again() -> None:
    async with shop() as world, world.session() as session:
        for _ in range(20):
            async with session.get(f"{world.url}/redirect?to=/there") as response:
                assert response.url == URL(f"{world.url}/there")
                [first] = response.history
                assert (first.status, first.url) == (302, URL(f"{world.url}/redirect?to=/there"))
        pairs = sum(pod.served for pod in world.orders.pods)
        assert pairs == 40
        assert min(world.orders.served.values()) >= 5
        assert world.load == (0, 0)


async def test_a_redirect_to_a_foreign_host_goes_the_plain_way_and_one_back_is_balanced() -> None:
    async with shop() as world, Pod("foreign") as foreign:
        resolver = PlainResolver(abroad_example=(foreign.address, foreign.port))
        connector = world.connector(resolver=resolver)
        async with world.session(connector=connector) as session:
            back = f"{world.url}/home"
            abroad = URL("http://abroad.example/redirect").with_query(to=back)
            async with session.get(URL(f"{world.url}/redirect").with_query(to=str(abroad))) as response:
                assert response.url == URL(back)
                assert [step.url.host for step in response.history] == ["orders.shop", "abroad.example"]
            assert resolver.asked == ["abroad.example"]
            assert [request.host for request in foreign.requests] == ["abroad.example"]
            assert foreign.accepted == 1


async def test_a_redirect_that_never_ends_leaves_nothing_behind() -> None:
    async with shop() as world, world.session() as session:
        with pytest.raises(aiohttp.TooManyRedirects) as raised:
            await session.get(f"{world.url}/redirect?to=/redirect?to=/redirect", max_redirects=2)
        assert raised.value.request_info.url.host == "orders.shop"
        assert world.load == (0, 0)


async def test_raise_for_status_names_the_service() -> None:
    async with shop() as world, world.session(raise_for_status=True) as session:
        with pytest.raises(aiohttp.ClientResponseError) as raised:
            await session.get(f"{world.url}/status/418")
        assert raised.value.status == 418
        assert raised.value.request_info.url == URL(f"{world.url}/status/418")
        assert world.load == (0, 0)


class Orders(aiohttp.ClientResponse):
    """An application's own response class."""

    async def names(self) -> list[str]:
        return [line.split()[0] for line in (await self.text()).splitlines()]


async def test_the_applications_own_response_class_is_used() -> None:
    async with shop() as world, world.session(response_class=Orders) as session:
        async with session.get(f"{world.url}/stream?chunks=2&seconds=0") as response:
            assert isinstance(response, Orders)
            assert type(response).__name__ == "Orders"
            names = await response.names()
            assert names == [response.headers["X-Pod"]] * 2
        assert world.load == (0, 0)


async def test_middlewares_see_the_service_and_may_try_again() -> None:
    seen: list[str] = []

    async def again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(str(request.url))
        first = await handler(request)
        second = await handler(request)
        first.release()
        return second

    async with shop() as world, world.session(middlewares=(again,)) as session:
        for _ in range(10):
            assert await get(session, f"{world.url}/v1")
        assert seen == [f"{world.url}/v1"] * 10
        assert sum(world.orders.served.values()) == 20
        assert world.load == (0, 0)


async def test_a_middleware_that_names_another_host_is_followed() -> None:
    async def elsewhere(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.url = request.url.with_host("orders.shop.svc.cluster.local")
        return await handler(request)

    async with shop() as world, world.session(middlewares=(elsewhere,)) as session:
        if not world.orders.port:
            pytest.skip("the long name has no target of its own where pods have ports of their own")
        await get(session, world.url.replace("orders.shop", "nobody.shop"))
        assert sum(world.orders.served.values()) == 1


# ---- proxies ---------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def proxy() -> AsyncIterator[Pod]:
    """A forwarding proxy, as far as its client can tell: it answers what it was asked for."""

    async def forward(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"for": request.raw_path}, headers={"X-Pod": "proxy"})

    async with Pod("proxy", handler=forward) as pod:
        yield pod


async def test_a_proxied_request_passes_untouched() -> None:
    async with shop() as world, proxy() as through, world.session() as session:
        for _ in range(3):
            async with session.get(f"{world.url}/v1", proxy=through.url) as response:
                assert (await response.json())["for"] == f"{world.url}/v1", "the proxy resolves the name, not we"
                assert response.url == URL(f"{world.url}/v1")
        assert through.accepted == 1
        assert sum(world.orders.served.values()) == 0
        assert world.view.picks == 0


async def test_a_proxy_from_the_environment_passes_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    async with shop() as world, proxy() as through:
        monkeypatch.setenv("http_proxy", through.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with world.session(trust_env=True) as session:
            await get(session, world.url)
        assert (through.served, sum(world.orders.served.values())) == (1, 0)


# ---- tracing ---------------------------------------------------------------------------------------------------------


def recorder(events: list[str]) -> aiohttp.TraceConfig:
    """Writes down every event that concerns connections and the exchange; DNS is not aiohttp's business here."""
    config = aiohttp.TraceConfig()
    for name in (
        *("request_start", "request_headers_sent", "request_end", "request_exception", "request_redirect"),
        *("connection_create_start", "connection_create_end", "connection_reuseconn"),
        *("connection_queued_start", "connection_queued_end", "response_chunk_received"),
    ):

        async def record(_: aiohttp.ClientSession, context: SimpleNamespace, params: Any, name: str = name) -> None:
            events.append(name)

        getattr(config, f"on_{name}").append(record)
    return config


async def test_tracing_sees_what_it_sees_of_a_plain_connector() -> None:
    async with shop(pods=1) as world:
        [pod] = world.orders.pods
        balanced: list[str] = []
        plain: list[str] = []
        async with (
            world.session(trace_configs=[recorder(balanced)], connector=world.connector(limit=1)) as ours,
            aiohttp.ClientSession(
                trace_configs=[recorder(plain)], connector=aiohttp.TCPConnector(limit=1)
            ) as theirs,
        ):
            for session, url in ((ours, world.url), (theirs, pod.url)):
                await get(session, url)
                await get(session, url)
                await get(session, f"{url}/redirect?to=/there")
                both = [asyncio.create_task(get(session, f"{url}/slow?seconds=0.01")) for _ in range(2)]
                await asyncio.gather(*both)
        assert balanced == plain
        assert balanced.count("connection_create_end") == 1
        assert balanced.count("connection_reuseconn") == 5
        assert balanced.count("connection_queued_end") == 1


async def test_tracing_sees_a_failed_dial_and_the_one_that_follows() -> None:
    async with shop(pods=2) as world:
        events: list[str] = []
        async with world.session(trace_configs=[recorder(events)]) as session:
            await world.service.ready(2)
            world.orders.crash(world.orders.pods[0])
            for _ in range(10):
                await get(session, world.url)
        started, ended = events.count("connection_create_start"), events.count("connection_create_end")
        assert (started, ended) == (2, 1)
        assert "request_exception" not in events
        await until(lambda: world.load == (0, 0))
