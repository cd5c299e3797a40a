"""Copies among other requests: nothing of theirs gets mixed up, nothing waits for ever, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.testing import EmbeddedCluster, Pod
from tests.adapters.conftest import Authority
from tests.adapters.sweep import sweep
from tests.adapters.test_cancellation import Caller, calling
from tests.adapters.test_copies_answers import PIECES, PLAIN, kinds, one_is_silent
from tests.adapters.test_retries import IN_TURN, plain
from tests.adapters.world import Shop, get, shop, until

BODY = b"0123456789abcdef" * 262_144  # 4 MiB: more than the socket buffers of both sides hold


async def next_is(world: Shop, pod: Pod) -> None:
    """Turn the wheel until the next pick is this pod's."""
    turns = -1
    while turns != 0:
        async with world.service.pick() as pick:
            turns -= 1
            if turns < 0 and (pick.host, pick.port) == (pod.address, pod.port):
                turns = len(world.orders.pods) - 1


async def test_a_copy_is_bounded_by_the_time_outs_of_its_own_request() -> None:
    """Another request of the same session, with a short one, begins while it waits."""
    async with one_is_silent(connector={"hedge_after": 0.3}) as (world, session):
        waiting = [asyncio.create_task(plain(session, world.url)) for _ in range(2)]
        silent = world.orders.pods[0]
        await silent.until(lambda: len(silent.requests) == 1)
        with contextlib.suppress(TimeoutError):
            await session.get(world.url, timeout=aiohttp.ClientTimeout(total=0.01))
        assert await asyncio.gather(*waiting) == [PLAIN] * 2


async def test_a_dial_that_goes_on_keeps_the_time_outs_of_its_own_request() -> None:
    """The first is refused while another request, which may take next to no time, begins."""
    async with shop(2, options=IN_TURN) as world, world.session() as session:
        await world.service.ready(2)
        refusing, well = world.orders.pods
        refusing.refuse()
        await next_is(world, refusing)
        going_on = asyncio.create_task(get(session, world.url))
        await asyncio.sleep(0)  # it has begun its dial
        with contextlib.suppress(aiohttp.ClientConnectionError):
            await get(session, world.url, timeout=aiohttp.ClientTimeout(connect=1e-9))
        assert await going_on == well.name


async def test_an_answer_is_read_as_its_own_request_wants_it_though_the_connection_serves_another_by_then() -> None:
    """The bad answer's connection is taken by a HEAD while the copy still dials; a HEAD's answers have no body."""
    async with shop(2, options=IN_TURN, handler=kinds) as world:
        failing, _ = world.orders.pods
        async with world.session(connector=world.connector(limit_per_host=1)) as session:
            await world.service.ready(2)
            failing.fail(503)
            await next_is(world, failing)
            whole = asyncio.create_task(plain(session, f"{world.url}/whole"))
            await asyncio.sleep(0)  # it has its pick
            async with world.service.pick():  # the other pod's turn
                pass
            async with session.head(f"{world.url}/whole") as response:
                assert response.status == 200
            assert await whole == PLAIN
            assert [request.method for request in failing.requests] == ["GET", "HEAD"]


async def test_a_lane_that_raises_takes_nothing_with_it() -> None:
    def lane(method: str, url: object) -> str:
        raise LookupError("the caller's own")

    async with shop(2) as world, world.session(connector=world.connector(lane=lane)) as session:
        with pytest.raises(LookupError):
            await session.get(world.url)
        assert world.load == (0, 0)
        connector = session.connector
        assert connector is not None
        assert not connector._acquired


@pytest.mark.parametrize("limit", [1, 2])
async def test_a_bad_answer_that_holds_the_last_place_is_not_waited_with(limit: int) -> None:
    """Its body is not whole yet, so its connection is not free, and a copy would wait for just that place."""

    async def long_apology(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        for _ in range(PIECES):
            await response.write(PLAIN)
        return response

    async with shop(3, options=IN_TURN, handler=long_apology) as world:
        connector = world.connector(limit=limit)
        async with world.session(connector=connector) as session:
            await world.service.ready(3)

            async def sorry() -> bytes:
                async with session.get(world.url) as response:
                    assert response.status == 503
                    return await response.read()

            async with asyncio.timeout(10):
                assert await asyncio.gather(*(sorry() for _ in range(3))) == [PLAIN * PIECES] * 3
            await until(lambda: world.load == (0, 0))


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_body_under_way_is_not_shared_with_the_copy() -> None:
    """The silent pod reads nothing, so the first attempt's writer stands still with megabytes in hand."""

    async def weighs(request: web.BaseRequest) -> web.Response:
        digest = hashlib.sha256()
        async for piece in request.content.iter_any():
            digest.update(piece)
        return web.Response(text=digest.hexdigest())

    async with shop(2, options=IN_TURN, handler=weighs) as world:
        connector = world.connector(hedge_after=0.05)
        async with world.session(connector=connector) as session, asyncio.timeout(20):
            await world.service.ready(2)
            frozen, well = world.orders.pods
            frozen.freeze()
            for _ in range(2):
                async with session.put(world.url, data=BODY) as response:
                    assert await response.text() == hashlib.sha256(BODY).hexdigest()
            await until(lambda: world.load == (0, 0))
            await until(lambda: not [task for task in asyncio.all_tasks() if "write_bytes" in repr(task)])
            assert well.served == 2
            frozen.thaw()


async def test_a_copy_whose_body_breaks_is_one_error_and_no_warning() -> None:
    """In the loop's debug mode aiohttp tells of each response that was dropped unclosed."""
    pods: list[Pod] = []

    async def breaks(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"half")
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    loop = asyncio.get_running_loop()
    unseen: list[str] = []
    handler = loop.get_exception_handler()
    async with one_is_silent(breaks) as (world, session):
        pods.extend(world.orders.pods)
        loop.set_debug(True)
        loop.set_exception_handler(lambda _, context: unseen.append(context["message"]))
        try:
            for _ in range(2):
                response = await session.get(world.url)
                with pytest.raises(aiohttp.ClientPayloadError):
                    await response.read()
                assert response.closed
                del response
                gc.collect()
        finally:
            loop.set_debug(False)
            loop.set_exception_handler(handler)
    assert not [message for message in unseen if "nclosed" in message]


async def test_the_connector_is_closed_while_copies_run() -> None:
    async with shop(2, options=IN_TURN) as world:
        connector = world.connector(hedge_after=0.02)
        session = world.session(connector=connector)
        await world.service.ready(2)
        for pod in world.orders.pods:
            pod.slow(30.0)
        requests = [asyncio.create_task(get(session, world.url)) for _ in range(4)]
        await until(lambda: sum(pod.in_flight for pod in world.orders.pods) >= 6)
        await session.close()
        for error in await asyncio.gather(*requests, return_exceptions=True):
            assert isinstance(error, aiohttp.ClientError), error
        await until(lambda: world.load == (0, 0))
        assert not connector._kept
        assert {member.state.value for member in world.view.members} == {"ready"}, "it was we who hung up"


async def test_a_close_that_is_cancelled_has_closed_all_the_same() -> None:
    async with shop(2, options=IN_TURN) as world:
        connector = world.connector(hedge_after=0.02)
        session = world.session(connector=connector)
        await world.service.ready(2)
        for pod in world.orders.pods:
            pod.slow(30.0)
        request = asyncio.create_task(get(session, world.url))
        await until(lambda: sum(pod.in_flight for pod in world.orders.pods) >= 2)
        closing = asyncio.create_task(connector.close())
        await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        assert connector.closed
        with pytest.raises(aiohttp.ClientError):
            await request
        await session.close()
        await until(lambda: world.load == (0, 0) and not connector._kept)


async def test_cancelled_anywhere_while_a_copy_dials_over_tls(authority: Authority) -> None:
    """Nothing is connected yet: the copy has its own dial and handshake, and the answer is long."""
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=2, ssl_context=authority.serving("orders.shop"))

        @contextlib.asynccontextmanager
        async def stage() -> AsyncIterator[Caller]:
            async with calling(cluster, orders, ssl=authority.trusting, **IN_TURN) as caller:
                connector = caller.session.connector
                assert isinstance(connector, HeadlessConnector)
                connector._hedge_after = 0.01
                yield caller

        async def act(caller: Caller) -> None:
            async with caller.session.get(f"{caller.url}/slow?seconds=0.03") as response:
                await response.read()
            [driver] = caller.client.hub().drivers()
            assert driver.engine.budget.spent, "the copy was sent"

        assert await sweep(stage, act, client=lambda caller: caller.client) >= 3
