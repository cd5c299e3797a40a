"""Time-outs raise what aiohttp raises, and count against the pod only as far as the pod had the time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.adapters.world import Shop, black_hole, get, shop


@pytest.mark.parametrize(
    ("timeout", "raises"),
    [
        (aiohttp.ClientTimeout(total=0.4), TimeoutError),
        (aiohttp.ClientTimeout(sock_read=0.4), aiohttp.SocketTimeoutError),
    ],
    ids=["total", "sock_read"],
)
async def test_a_pod_that_does_not_answer_in_time(timeout: aiohttp.ClientTimeout, raises: type[Exception]) -> None:
    """What aiohttp raises is raised, and counts: two such answers in a row take the pod out of the set."""
    options = {"consecutive_failures": 2, "eject_base": 60, "policy": "round_robin"}  # which comes back to the slow one
    # No connection is kept, so that each request waits for a pod's answer and for nothing that came before it.
    async with shop(2, options=options) as world, world.session(connector=world.connector(force_close=True)) as session:
        await world.service.ready(2)
        frozen, well = world.orders.pods
        frozen.freeze()
        failed: list[BaseException] = []
        for _ in range(20):
            try:
                assert await get(session, world.url, timeout=timeout) == well.name
            except raises as error:
                failed.append(error)
            if world.state(frozen) == "ejected":
                break
        assert {type(error) for error in failed} == {raises}
        assert len(failed) >= 2, "more only where this process stood still, which is nobody's fault"
        assert {await get(session, world.url) for _ in range(10)} == {well.name}
        assert world.member(frozen).why == "2 bad answers in a row, the last: timed out"
        assert world.load == (0, 0)


async def test_a_body_that_stops_in_the_middle_is_a_time_out_of_its_pod() -> None:
    async def stops(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        await asyncio.sleep(30)
        return response

    async with shop(2, handler=stops, options={"consecutive_failures": 1, "eject_base": 60}) as world:
        session = world.session(timeout=aiohttp.ClientTimeout(sock_read=0.5))
        async with session, session.get(world.url) as response:
            with pytest.raises(aiohttp.SocketTimeoutError):
                await response.read()
        assert world.states == ["ejected", "ready"]
        assert world.load == (0, 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux drops a SYN when the queue is full")
class TestADialWithoutAnAnswer:
    """An address that is silent, as a dead node's is: neither accepted nor refused."""

    @contextlib.asynccontextmanager
    async def holed(self, **options: Any) -> AsyncIterator[tuple[Shop, str]]:
        """One pod, and one address that swallows every SYN; the URL of both."""
        async with shop(1, options=options) as world, black_hole() as (address, port):
            [pod] = world.orders.pods
            world.targets = {"holed.example": f"static:///{pod.address}:{pod.port},{address}:{port}"}
            yield world, "http://holed.example"

    def member(self, world: Shop) -> tuple[str, str]:
        [found] = [
            m
            for m in world.client.service(world.targets["holed.example"]).snapshot.members
            if m.endpoint.address == "127.0.0.1"
        ]
        return found.state.value, found.why

    async def test_it_goes_on_to_another_pod_within_the_request(self) -> None:
        async with self.holed(connect_timeout=0.5) as (world, url), world.session() as session:
            for _ in range(6):
                async with session.post(f"{url}/echo", data=b"once") as response:
                    assert await response.read() == b"once"
            assert world.orders.pods[0].served == 6
            await self.failing(world)

    async def test_sock_connect_bounds_each_dial(self) -> None:
        timeout = aiohttp.ClientTimeout(sock_connect=0.5)
        holed = self.holed(connect_timeout=60, race_after=1.0)
        async with holed as (world, url), world.session(timeout=timeout) as session:
            for _ in range(6):
                await get(session, url)
            assert self.member(world) == ("failing", "dial timed out")

    async def failing(self, world: Shop) -> None:
        """Wait until nobody is sent there any more."""
        async with asyncio.timeout(10):
            while self.member(world)[0] != "failing":  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.01)

    async def test_one_that_is_silent_for_a_quarter_of_a_second_gets_another_beside_it(self) -> None:
        """The dial goes on for a minute; no request waits for that, and a probe finds out what is the matter."""
        async with self.holed(connect_timeout=1.0) as (world, url), world.session() as session:
            for _ in range(6):
                async with session.post(f"{url}/echo", data=b"once") as response:
                    assert await response.read() == b"once"
            assert world.orders.pods[0].served == 6
            await self.failing(world)

    async def test_when_every_dial_times_out_aiohttps_error_says_so(self) -> None:
        async with shop(0, options={"connect_timeout": 0.2}) as world, black_hole() as (address, port):
            targets = {"holed.example": f"static:///{address}:{port}"}
            async with world.session(connector=world.connector(targets=targets)) as session:
                with pytest.raises(aiohttp.ConnectionTimeoutError, match=r"Connection timeout to host http://holed"):
                    await session.get("http://holed.example")

    async def test_connect_bounds_all_dials_together(self) -> None:
        """Four silent pods could be tried for 0.4 s each; the caller allowed 0.6 s for all of it."""
        alone = {"connect_timeout": 0.4, "race_after": 1.0}
        async with shop(0, options=alone) as world, contextlib.AsyncExitStack() as holes:
            places = [await holes.enter_async_context(black_hole()) for _ in range(4)]
            targets = {"holed.example": "static:///" + ",".join(f"{host}:{port}" for host, port in places)}
            timeout = aiohttp.ClientTimeout(connect=0.6)
            async with world.session(connector=world.connector(targets=targets), timeout=timeout) as session:
                with pytest.raises(aiohttp.ConnectionTimeoutError):
                    await session.get("http://holed.example")
                members = world.client.service(targets["holed.example"]).snapshot.members
                assert [m.state.value for m in members].count("failing") <= 1, "the second had no time of its own"

    async def test_a_connect_limit_shorter_than_a_dial_is_weak_evidence_until_it_repeats(self) -> None:
        timeout = aiohttp.ClientTimeout(connect=0.3)
        holed = self.holed(policy="round_robin", race_after=1.0)
        async with holed as (world, url), world.session(timeout=timeout) as session:
            failed = 0
            for _ in range(30):
                with contextlib.suppress(aiohttp.ConnectionTimeoutError):
                    await get(session, url)
                    continue
                failed += 1
                if self.member(world)[0] == "failing":
                    break
            assert failed >= 3
            assert self.member(world) == ("failing", "no connection until its callers gave up")


async def test_waiting_for_a_place_in_the_pool_is_no_evidence() -> None:
    async with shop(2, options={"consecutive_failures": 1}) as world:
        session = world.session(connector=world.connector(limit=1))
        async with session, session.get(f"{world.url}/stream?chunks=1000"):
            for timeout in [aiohttp.ClientTimeout(connect=0.02), aiohttp.ClientTimeout(total=0.02)] * 5:
                with pytest.raises(TimeoutError):
                    await get(session, world.url, timeout=timeout)
        assert world.states == ["ready", "ready"]
        assert world.load == (0, 0)


async def test_connect_bounds_the_first_look_up_too() -> None:
    async with shop(1) as world, world.session(timeout=aiohttp.ClientTimeout(connect=0.1)) as session:
        with world.cluster.zone.trouble(silent=True):
            began = asyncio.get_running_loop().time()
            with pytest.raises(aiohttp.ClientConnectionError):
                await get(session, world.url)
            assert asyncio.get_running_loop().time() - began < 2.5, "a look-up may take 3 s"


