"""Every request gets a pod of its own choice, whatever it carries and however it ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from headlessconn.testing import Pod
from tests.adapters.world import Shop, get, shop, until


def is_even(served: dict[str, int], total: int, least: float = 0.6) -> bool:
    """Whether no pod has less than this part of a fair share. Two random choices keep the shares close together."""
    return sum(served.values()) == total and min(served.values()) >= least * total / len(served)


# With latencies in the scales, a pause of a busy machine keeps its pod waiting for a while.
POLICIES = pytest.mark.parametrize(
    ("policy", "least"), [("least_request", 0.6), ("peak_ewma", 0.1), ("round_robin", 0.9)]
)


@POLICIES
async def test_one_after_the_other_they_spread_evenly_over_kept_connections(policy: str, least: float) -> None:
    async with shop(pods=3, options={"policy": policy}) as world, world.session() as session:
        seen = Counter([await get(session, world.url) for _ in range(300)])
        assert is_even(seen, 300, least), seen
        assert world.orders.served == seen
        assert [pod.accepted for pod in world.orders.pods] == [1, 1, 1], "one connection a pod is enough for one caller"


@POLICIES
async def test_sixteen_at_a_time_they_spread_evenly(policy: str, least: float) -> None:
    async with shop(pods=4, options={"policy": policy}) as world, world.session() as session:

        async def worker() -> list[str]:
            return [await get(session, world.url) for _ in range(30)]

        async with asyncio.TaskGroup() as workers:
            tasks = [workers.create_task(worker()) for _ in range(16)]
        seen = Counter(name for task in tasks for name in task.result())
        assert is_even(seen, 480, least), seen
        assert world.load == (0, 0)


async def test_a_hundred_first_requests_ask_dns_once() -> None:
    seldom = {"refresh_min": 60.0, "refresh_max": 60.0}
    async with shop(pods=3, options=seldom) as world, world.session() as session:
        asked = len(world.cluster.zone.queries)
        await asyncio.gather(*(get(session, world.url) for _ in range(100)))
        about = [query for query in world.cluster.zone.queries[asked:] if query.name.startswith("orders.shop.svc.")]
        assert len(about) == len({(query.name, query.type) for query in about}), about
        assert is_even(world.orders.served, 100)


async def test_a_pod_that_is_slow_to_answer_gets_few_requests() -> None:
    async with shop(pods=2, options={"policy": "peak_ewma"}) as world, world.session() as session:
        slow, _ = world.orders.pods
        slow.slow(0.1)
        for _ in range(60):
            await get(session, world.url)
        assert slow.served <= 10, "its latency was seen: in half of all it would be 30"


async def test_while_a_pod_holds_a_request_the_idle_one_gets_the_next() -> None:
    async with shop(pods=2) as world, world.session() as session:
        slow, quick = world.orders.pods
        slow.slow(30)
        held: list[asyncio.Task[str]] = []
        while not slow.in_flight:
            held.append(asyncio.create_task(get(session, world.url)))
            await until(lambda: slow.in_flight + quick.served == len(held))
        assert {await get(session, world.url) for _ in range(30)} == {quick.name}
        held[-1].cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert world.load == (0, 0)


async def test_a_post_arrives_whole_with_its_body() -> None:
    async with shop(pods=3) as world, world.session() as session:
        sent = bytes(range(256)) * 2000
        for _ in range(9):
            async with session.post(f"{world.url}/echo", data=sent) as response:
                assert await response.read() == sent
        assert {request.method for pod in world.orders.pods for request in pod.requests} == {"POST"}
        assert len([pod for pod in world.orders.pods if pod.served]) >= 2


async def test_a_body_made_while_it_is_sent() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(50):
            yield f"{number}\n".encode()
            await asyncio.sleep(0)

    async with shop(pods=2) as world, world.session() as session:
        async with session.put(f"{world.url}/echo", data=lines()) as response:
            assert (await response.text()).split() == [str(number) for number in range(50)]
        assert world.load == (0, 0)


async def test_a_streamed_answer_is_in_flight_until_its_last_chunk() -> None:
    async with shop(pods=2) as world, world.session() as session:
        async with session.get(f"{world.url}/stream?chunks=5&seconds=0.01") as response:
            assert world.load == (1, 0)
            text = await response.text()
        assert len(text.splitlines()) == 5
        assert world.load == (0, 0)


async def test_an_answer_left_unread_gives_its_pod_back() -> None:
    async with shop(pods=2) as world, world.session() as session:
        async with session.get(f"{world.url}/stream?chunks=1000&seconds=0.01") as response:
            assert world.load == (1, 0)
            assert await response.content.readline()
        assert world.load == (0, 0)
        assert {member.state.value for member in world.view.members} == {"ready"}


async def test_an_event_stream_counts_as_a_connection_and_not_as_a_request() -> None:
    go_on = asyncio.Event()

    async def events(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await go_on.wait()
        await response.write(b"data: 2\n\n")
        return response

    async with shop(pods=2, handler=events) as world, world.session() as session:
        async with session.get(world.url) as response:
            assert await response.content.readline() == b"data: 1\n"
            assert world.load == (0, 1)
            go_on.set()
            assert (await response.read()).endswith(b"data: 2\n\n")
        assert world.load == (0, 0)


async def test_a_connector_serves_several_sessions() -> None:
    async with shop(pods=2) as world:
        connector = world.connector()
        for _ in range(3):
            async with aiohttp.ClientSession(connector=connector, connector_owner=False) as session:
                await get(session, world.url)
        assert sum(pod.accepted for pod in world.orders.pods) <= 2, "the connections outlive a session"
        await connector.close()


async def test_two_connectors_of_one_client_see_each_others_load() -> None:
    async with shop(pods=2) as world, world.session() as one, world.session() as other:
        held = [asyncio.create_task(get(one, f"{world.url}/slow?seconds=30")) for _ in range(10)]
        await until(lambda: sum(pod.in_flight for pod in world.orders.pods) == 10)
        assert world.load == (10, 0)
        first = in_flight(world)
        await get(other, world.url)
        assert abs(first[0] - first[1]) <= 2
        for task in held:
            task.cancel()
        await asyncio.gather(*held, return_exceptions=True)
        assert world.load == (0, 0)


async def test_limit_counts_all_pods_together_and_limit_per_host_each() -> None:
    async with shop(pods=2) as world:
        async with world.session(connector=world.connector(limit=3)) as session:
            held = [asyncio.create_task(get(session, f"{world.url}/slow?seconds=0.05")) for _ in range(6)]
            await until(lambda: sum(in_flight(world)) == 3)
            await asyncio.gather(*held)
        async with world.session(connector=world.connector(limit_per_host=1)) as session:
            held = [asyncio.create_task(get(session, f"{world.url}/slow?seconds=0.05")) for _ in range(6)]
            await until(lambda: in_flight(world) == [1, 1])
            await asyncio.gather(*held)
        assert world.load == (0, 0)


def in_flight(world: Shop) -> list[int]:
    pods: tuple[Pod, ...] = world.orders.pods
    return [pod.in_flight for pod in pods]
