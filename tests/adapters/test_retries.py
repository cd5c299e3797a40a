"""A request in trouble: sent once more to another pod where that is safe, and never where it is not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from headlessconn.errors import OptionError
from headlessconn.testing import EmbeddedCluster, EmbeddedService, Pod
from tests.adapters.sweep import sweep
from tests.adapters.test_cancellation import Caller, calling
from tests.adapters.world import Shop, get, shop, until

#: In turn, so that it is known which pod is asked next; and nobody is ejected for what a test makes them do.
IN_TURN: dict[str, Any] = {"policy": "round_robin", "consecutive_failures": 0, "success_rate_minimum_hosts": 1000}
BODY = b"x" * 300_000


def asked(world: Shop) -> int:
    return sum(len(pod.requests) for pod in world.orders.pods)


async def lazily(request: web.BaseRequest) -> web.StreamResponse:
    """Answers `/die` by hanging up, and echoes the rest."""
    body = await request.read()
    if request.path == "/die":
        assert request.transport is not None
        request.transport.abort()
    return web.Response(body=body or b"well", headers={"X-Length": str(len(body))})


@contextlib.asynccontextmanager
async def one_of_two_fails(status: int = 503) -> AsyncIterator[tuple[Shop, aiohttp.ClientSession, Pod, Pod]]:
    async with shop(2, options=IN_TURN) as world, world.session() as session:
        await world.service.ready(2)
        failing, well = world.orders.pods
        failing.fail(status)
        yield world, session, failing, well


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_an_idempotent_request_that_one_pod_answers_badly_is_answered_by_another(status: int) -> None:
    async with one_of_two_fails(status) as (world, session, failing, well):
        for _ in range(6):
            assert await get(session, world.url) == well.name
        assert failing.requests


async def test_a_status_that_is_the_applications_own_is_not_repeated() -> None:
    async with one_of_two_fails(500) as (world, session, failing, well):
        statuses = []
        for _ in range(6):
            async with session.get(world.url) as response:
                statuses.append(response.status)
        assert sorted(statuses) == [200] * 3 + [500] * 3
        assert len(failing.requests) == len(well.requests) == 3


async def test_a_post_is_sent_once_and_its_answer_is_the_callers() -> None:
    async with one_of_two_fails() as (world, session, _, _):
        statuses = []
        for _ in range(6):
            async with session.post(f"{world.url}/echo", data=b"once") as response:
                statuses.append(response.status)
        assert sorted(statuses) == [200] * 3 + [503] * 3
        assert asked(world) == 6


async def test_a_post_with_an_idempotency_key_is_repeated_with_its_body_and_headers() -> None:
    async with one_of_two_fails() as (world, session, failing, well):
        headers = {"Idempotency-Key": "8e03978e-40d5-43e8-bc93-6894a57f9324", "X-Mine": "1"}
        for _ in range(4):
            async with session.post(f"{world.url}/echo", data=BODY, headers=headers) as response:
                assert response.status == 200
                assert await response.read() == BODY
        sent = [request.headers for request in (*failing.requests, *well.requests)]
        assert len(failing.requests) == 2
        for header in ("Idempotency-Key", "X-Mine", "Content-Length", "Host"):
            assert len({request[header] for request in sent}) == 1, header


async def test_a_body_that_can_be_read_only_once_is_not_sent_twice() -> None:
    async with one_of_two_fails() as (world, session, _, _):

        async def chunks() -> AsyncIterator[bytes]:
            yield b"one"
            yield b"two"

        statuses = []
        for body in (chunks(), io.BytesIO(b"file"), chunks(), io.BytesIO(b"file")):
            async with session.put(f"{world.url}/echo", data=body) as response:
                statuses.append(response.status)
        assert sorted(statuses) == [200, 200, 503, 503]
        assert asked(world) == 4


async def test_all_bad_the_callers_answer_is_a_bad_one_and_the_budget_is_kept() -> None:
    async with shop(3, options=IN_TURN) as world, world.session() as session:
        await world.service.ready(3)
        for pod in world.orders.pods:
            pod.fail(503)
        for _ in range(100):
            async with session.get(world.url) as response:
                assert response.status == 503
                assert json.loads(await response.read())["failing"]
        budget = world.service.driver().engine.budget
        assert asked(world) == 100 + budget.spent
        assert 10 <= budget.spent <= 10 + 20 + 5  # the burst, 20 %, and one for each second that this took
        assert budget.refused


async def test_a_pod_that_dies_with_requests_loses_none_that_may_be_repeated() -> None:
    async with shop(3, handler=lazily_slow, options=IN_TURN) as world, world.session() as session:
        await world.service.ready(3)
        for _ in range(30):
            await plain(session, world.url)
        requests = [asyncio.create_task(plain(session, world.url)) for _ in range(30)]
        victim = world.orders.pods[0]
        await until(lambda: victim.in_flight >= 8)
        victim.kill()
        assert await asyncio.gather(*requests) == [b"well"] * 30


async def lazily_slow(request: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(0.05)
    return await lazily(request)


async def plain(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url) as response:
        assert response.status == 200
        return await response.read()


async def test_when_every_pod_hangs_up_aiohttps_own_error_comes_through() -> None:
    async with shop(2, handler=lazily, options=IN_TURN) as world, world.session() as session:
        with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await session.get(f"{world.url}/die")
        assert world.load == (0, 0)
        assert await plain(session, world.url) == b"well"


async def test_a_frozen_pods_requests_are_answered_by_others_and_it_gets_no_more() -> None:
    async with shop(3, options={"policy": "round_robin"}) as world, world.session() as session:
        await world.service.ready(3)
        for _ in range(90):
            await get(session, world.url)
        frozen = world.orders.pods[0]
        frozen.freeze()
        try:
            async with asyncio.timeout(10):
                names = await asyncio.gather(*(get(session, world.url) for _ in range(60)))
                while world.state(frozen) != "ejected":
                    names += await asyncio.gather(*(get(session, world.url) for _ in range(12)))
            assert frozen.name not in names
            assert "silent for" in world.member(frozen).why
            assert await get(session, world.url) != frozen.name
        finally:
            frozen.thaw()
        assert world.load == (0, 0)
        async with asyncio.timeout(10):
            while world.state(frozen) != "ready":
                await get(session, world.url)
                await asyncio.sleep(0.01)


async def test_a_post_on_a_frozen_pod_is_not_sent_twice() -> None:
    async with shop(3, options={"policy": "round_robin"}) as world, world.session() as session:
        for _ in range(90):
            await get(session, world.url)
        frozen = world.orders.pods[0]
        frozen.freeze()
        posts = [asyncio.create_task(echoed(session, world.url, str(i))) for i in range(6)]
        async with asyncio.timeout(10):
            while world.state(frozen) != "ejected":  # several at once: silence is judged while others answer
                await asyncio.gather(*(get(session, world.url) for _ in range(12)))
        frozen.thaw()
        assert await asyncio.gather(*posts) == [str(i) for i in range(6)]
        assert sum(request.method == "POST" for pod in world.orders.pods for request in pod.requests) == 6


async def echoed(session: aiohttp.ClientSession, url: str, text: str) -> str:
    async with session.post(f"{url}/echo", data=text) as response:
        return await response.text()


@pytest.mark.parametrize("path", ["/", "/stream?chunks=50&seconds=0.001"])
async def test_hedged_the_slow_pod_is_not_waited_for_and_the_answer_is_whole(path: str) -> None:
    async with shop(2, options=IN_TURN) as world:
        slow, quick = world.orders.pods
        async with world.session(connector=world.connector(hedge_after=0.05)) as session:
            await world.service.ready(2)
            slow.slow(20.0)
            async with asyncio.timeout(10):
                for _ in range(6):
                    async with session.get(f"{world.url}{path}") as response:
                        body = await response.read()
                        assert response.headers["X-Pod"] == quick.name
                        assert response.url.host == "orders.shop"
                        assert body.count(b"\n") in (0, 50)
                        assert response.closed
            assert slow.requests
            await until(lambda: world.load == (0, 0))


async def test_hedged_by_what_the_route_usually_takes() -> None:
    async with shop(2, options=IN_TURN) as world:
        slow, quick = world.orders.pods
        async with world.session(connector=world.connector(hedge_after="p95")) as session:
            for _ in range(40):
                await get(session, world.url)
            slow.slow(20.0)
            async with asyncio.timeout(10):
                assert {await get(session, world.url) for _ in range(4)} == {quick.name}


async def test_a_hedge_is_not_sent_for_what_may_not_be_repeated() -> None:
    async with shop(2, options=IN_TURN) as world:
        async with world.session(connector=world.connector(hedge_after=0.01)) as session:
            for _ in range(4):
                async with session.post(f"{world.url}/slow?seconds=0.1") as response:
                    assert response.status == 200
        assert asked(world) == 4


async def test_a_full_pool_of_silent_connections_makes_room_for_copies() -> None:
    """Each copy needs a connection, and the silent attempts hold them all."""
    async with shop(2, options=IN_TURN) as world:
        slow, quick = world.orders.pods
        connector = world.connector(hedge_after=0.05, limit=2)
        async with world.session(connector=connector) as session:
            await world.service.ready(2)
            for _ in range(20):
                await get(session, world.url)
            slow.slow(20.0)
            async with asyncio.timeout(10):
                assert set(await asyncio.gather(*(get(session, world.url) for _ in range(4)))) == {quick.name}


@pytest.mark.parametrize("bad", [0, -1, "p99"])
def test_a_time_to_hedge_that_is_none_is_refused(bad: object) -> None:
    from headlessconn.adapters.aiohttp import HeadlessConnector

    async def build() -> None:
        with pytest.raises(OptionError, match="hedge_after"):
            HeadlessConnector(hedge_after=bad)  # type: ignore[arg-type]

    asyncio.run(build())


@contextlib.asynccontextmanager
async def hedging(cluster: EmbeddedCluster, orders: EmbeddedService) -> AsyncIterator[Caller]:
    async with calling(cluster, orders, warm=True, **IN_TURN) as caller:
        connector = caller.session.connector
        connector._hedge_after = 0.005  # type: ignore[union-attr]
        yield caller


async def test_cancelled_anywhere_while_a_copy_runs_beside_it() -> None:
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=2)

        async def act(caller: Caller) -> None:
            async with caller.session.get(f"{caller.url}/slow?seconds=0.02") as response:
                await response.read()

        assert await sweep(lambda: hedging(cluster, orders), act, client=lambda caller: caller.client) >= 1


async def test_cancelled_anywhere_while_another_pod_is_tried_after_a_bad_answer() -> None:
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=2)

        @contextlib.asynccontextmanager
        async def stage() -> AsyncIterator[Caller]:
            for pod in orders.pods:
                pod.recover()
            async with calling(cluster, orders, warm=True, **IN_TURN) as caller:
                orders.pods[0].fail(503)
                yield caller

        async def act(caller: Caller) -> None:
            for _ in range(2):
                assert await get(caller.session, caller.url) == orders.pods[1].name

        assert await sweep(stage, act, client=lambda caller: caller.client) >= 2
