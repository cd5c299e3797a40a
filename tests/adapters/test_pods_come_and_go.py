"""Pods are added, removed, restarted and killed under a client that never stops asking."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from headlessconn.testing import Pod
from tests.adapters.world import Shop, get, shop, until

WITHIN = 1.0  # seconds in which a removed pod's idle connections are closed, by the design


class Traffic:
    """Workers that ask without a pause, and what became of it."""

    def __init__(self, url: str, method: str) -> None:
        self.answers: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.dials: Counter[str] = Counter()  # started, ended well
        self._url, self._method = url, method

    def trace(self) -> aiohttp.TraceConfig:
        async def started(*_: object) -> None:
            self.dials["started"] += 1

        async def ended(*_: object) -> None:
            self.dials["well"] += 1

        config = aiohttp.TraceConfig()
        config.on_connection_create_start.append(started)
        config.on_connection_create_end.append(ended)
        return config

    async def work(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.request(self._method, f"{self._url}/echo", data=b"once") as response:
                    assert await response.read() == b"once"
                    self.answers[response.headers["X-Pod"]] += 1
            except (aiohttp.ClientError, TimeoutError) as error:
                self.failures.append(error)
            await asyncio.sleep(0.002)

    @property
    def total(self) -> int:
        return self.answers.total()

    async def more(self, count: int = 60) -> None:
        """Wait until so many more were answered."""
        wanted = self.total + count
        await until(lambda: self.total >= wanted)


@contextlib.asynccontextmanager
async def traffic(
    world: Shop, method: str = "GET", *, keep_alive: bool = True, workers: int = 4
) -> AsyncIterator[Traffic]:
    flow = Traffic(world.url, method)
    connector = world.connector(force_close=not keep_alive)
    async with world.session(connector=connector, trace_configs=[flow.trace()]) as session:
        tasks = [asyncio.create_task(flow.work(session)) for _ in range(workers)]
        try:
            await flow.more(1)
            yield flow
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    assert world.load == (0, 0)


# ---- added -----------------------------------------------------------------------------------------------------------


async def test_a_new_pod_gets_its_share_while_every_connection_is_busy() -> None:
    async with shop(2) as world, traffic(world) as flow:
        [new] = await world.orders.add()
        await until(lambda: new.served > 0, within=5.0)
        before = Counter(flow.answers)
        await flow.more(150)
        since = flow.answers - before
        assert since[new.name] >= since.total() / 3 / 2, since
        assert not flow.failures


# ---- removed ---------------------------------------------------------------------------------------------------------


async def test_idle_connections_to_a_removed_pod_are_closed_within_a_second() -> None:
    async with shop(3) as world, world.session() as session:
        while min(pod.accepted for pod in world.orders.pods) == 0:
            await get(session, world.url)
        gone, *rest = world.orders.pods
        world.orders.unlist(gone)  # it stays up, and would keep its connections for ever
        await until(lambda: len(world.view.members) == 2)
        async with asyncio.timeout(WITHIN):
            await gone.until(lambda: gone.connections == 0)
        assert [pod.connections for pod in rest] == [1, 1]


async def test_a_busy_connection_to_a_removed_pod_finishes_and_is_then_closed() -> None:
    async with shop(2) as world, world.session() as session:
        slow = asyncio.create_task(get(session, f"{world.url}/slow?seconds=0.8"))
        await until(lambda: sum(pod.in_flight for pod in world.orders.pods) == 1)
        [busy] = [pod for pod in world.orders.pods if pod.in_flight]
        world.orders.unlist(busy)
        await until(lambda: world.state(busy) == "draining")
        assert busy.in_flight == 1
        assert await get(session, world.url) != busy.name
        assert await slow == busy.name
        async with asyncio.timeout(WITHIN):
            await busy.until(lambda: busy.connections == 0)
        assert world.load == (0, 0)
        assert len(world.view.members) == 1


async def test_a_web_socket_on_a_removed_pod_lives_on() -> None:
    async with shop(2) as world, world.session() as session:
        async with session.ws_connect(f"{world.url}/ws") as web_socket:
            [pod] = [pod for pod in world.orders.pods if pod.connections]
            world.orders.unlist(pod)
            await until(lambda: world.state(pod) == "draining")
            await web_socket.send_str("still here")
            assert (await web_socket.receive()).data == "still here"
            assert world.load == (0, 1)
        await until(lambda: len(world.view.members) == 1)


async def test_a_pod_that_returns_is_used_again() -> None:
    async with shop(2) as world, traffic(world) as flow:
        flapping = world.orders.pods[0]
        world.orders.unlist(flapping)
        await until(lambda: len(world.view.endpoints) == 1)
        await flow.more(10)
        seen = flapping.served
        await flow.more(30)
        assert flapping.served == seen
        world.orders.list(flapping)
        await until(lambda: flapping.served > seen)
        assert not flow.failures


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_graceful_scale_in_fails_nothing(method: str) -> None:
    async with shop(3) as world, traffic(world, method) as flow:
        await world.orders.scale(1, grace=1.0)
        await flow.more()
        assert not flow.failures
        assert len(world.view.endpoints) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_rolling_restart_with_grace_fails_nothing(method: str) -> None:
    async with shop(3) as world, traffic(world, method) as flow:
        await world.orders.roll(surge=3, grace=1.0)
        await flow.more()
        assert not flow.failures
        assert {pod.name for pod in world.orders.pods} <= set(flow.answers)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_pods_that_close_their_port_at_sigterm_while_dns_lags_fail_nothing(method: str) -> None:
    """Nothing was sent when a dial is refused, so another pod is tried, whatever the method."""
    async with shop(3) as world, traffic(world, method, keep_alive=False) as flow:
        await world.orders.roll(close_listener_at_once=True, dns_lag=0.6)
        await flow.more()
        assert not flow.failures
        assert {pod.name for pod in world.orders.pods} <= set(flow.answers)


async def test_the_same_over_kept_connections_with_gets() -> None:
    async with shop(3) as world, traffic(world) as flow:
        await world.orders.roll(close_listener_at_once=True, dns_lag=0.6)
        await flow.more()
        assert not flow.failures


# ---- crashed ---------------------------------------------------------------------------------------------------------


async def test_after_a_crash_the_first_refusal_is_the_last_request_to_the_corpse() -> None:
    async with shop(3) as world, traffic(world, "POST", workers=6) as flow:
        corpse: Pod = world.orders.pods[0]
        world.orders.crash(corpse)
        await until(lambda: world.state(corpse) == "failing")
        assert world.member(corpse).why == "refused"
        assert len(flow.failures) <= 6, "only what was in flight"
        await flow.more(10)  # dials that were under way have ended
        refused = flow.dials["started"] - flow.dials["well"]
        await flow.more()
        assert flow.dials["started"] - flow.dials["well"] == refused
        assert world.member(corpse).in_flight == 0

        await corpse.start()  # the container is restarted in place: a probe finds out, no request has to
        failures = len(flow.failures)
        seen = corpse.served
        await until(lambda: world.state(corpse) == "ready")
        await until(lambda: corpse.served > seen)
        assert len(flow.failures) == failures


async def test_idempotent_requests_survive_a_crash_by_aiohttps_own_retry() -> None:
    async with shop(3) as world, world.session() as session:
        held = [asyncio.create_task(get(session, f"{world.url}/slow?seconds=0.3")) for _ in range(9)]
        await until(lambda: sum(pod.in_flight for pod in world.orders.pods) == 9)
        corpse = world.orders.pods[0]
        assert corpse.in_flight
        world.orders.crash(corpse)
        assert corpse.name not in await asyncio.gather(*held)
        assert world.load == (0, 0)


async def test_with_all_but_one_dead_the_one_serves() -> None:
    async with shop(5) as world, traffic(world, "POST", keep_alive=False) as flow:
        *dead, alive = world.orders.pods
        for pod in dead:
            world.orders.crash(pod)
        await until(lambda: [world.state(pod) for pod in dead] == ["failing"] * 4)
        before, failures = Counter(flow.answers), len(flow.failures)
        await flow.more()
        assert set(flow.answers - before) == {alive.name}
        assert len(flow.failures) == failures


async def test_when_all_are_dead_the_error_is_aiohttps_own() -> None:
    async with shop(2) as world, world.session() as session:
        await world.service.ready(2)
        for pod in world.orders.pods:
            world.orders.crash(pod)
        for _ in range(3):
            with pytest.raises(aiohttp.ClientConnectorError) as raised:
                await session.post(world.url)
            assert isinstance(raised.value.os_error, ConnectionRefusedError)
        assert world.load == (0, 0)
