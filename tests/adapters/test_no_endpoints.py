"""Nobody behind the name: aiohttp's own error, with everything that is known about why."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import aiohttp
import pytest

import headlessconn
from headlessconn.adapters.aiohttp import NoEndpoints
from tests.adapters.world import Shop, get, shop, until

WAIT = {"wait_for_endpoints": 0.5}


async def refused(world: Shop, session: aiohttp.ClientSession, **arguments: Any) -> NoEndpoints:
    """The error of a request that finds nobody."""
    with pytest.raises(NoEndpoints) as raised:
        await session.get(world.url, **arguments)
    return raised.value


async def test_it_is_aiohttps_connector_error_and_ours_and_a_builtin_one() -> None:
    async with shop(0, options=WAIT) as world, world.session() as session:
        error = await refused(world, session)
        assert isinstance(error, aiohttp.ClientConnectorError)
        assert isinstance(error, headlessconn.NoEndpoints)
        assert isinstance(error, ConnectionError)
        assert (error.host, error.ssl) == ("orders.shop", True)
        assert error.port == (world.orders.port or 80)
        assert isinstance(error.os_error, OSError)


async def test_its_message_says_what_dns_said_when_and_what_to_check() -> None:
    async with shop(0, options=WAIT) as world, world.session() as session:
        error = await refused(world, session)
        assert (error.target, error.said) == (world.orders.target, "NXDOMAIN")
        assert error.waited >= 0.5
        assert error.age is not None
        assert 0 <= error.age < 30
        text = str(error)
        assert text.startswith(f"no endpoints behind {world.orders.target} after waiting {error.waited:.1f} s")
        assert f"the last answer was NXDOMAIN, {error.age:.1f} s ago" in text
        assert "kubectl get service,endpointslices" in text


@pytest.mark.parametrize(
    ("trouble", "said", "advises"),
    [
        ({"rcode": "SERVFAIL"}, "SERVFAIL", "DNS has never answered for it"),
        ({"silent": True}, "timeout", "port 53"),
        ({"rcode": "REFUSED"}, "REFUSED", "nameservers in resolv.conf"),
    ],
)
async def test_it_names_the_trouble_when_dns_has_never_answered(
    trouble: dict[str, Any], said: str, advises: str
) -> None:
    async with shop(1, options={**WAIT, "lookup_timeout": 0.3}) as world, world.session() as session:
        with world.cluster.zone.trouble(**trouble):
            error = await refused(world, session)
        assert (error.said, error.age) == (said, None)
        assert advises in str(error)


async def test_it_survives_pickling() -> None:
    async with shop(0, options={"wait_for_endpoints": 0}) as world, world.session() as session:
        error = await refused(world, session)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is NoEndpoints
        assert str(again) == str(error)
        for name in ("target", "waited", "said", "age", "advice", "host", "port", "ssl"):
            assert getattr(again, name) == getattr(error, name), name


async def test_with_nothing_to_wait_for_it_fails_at_once() -> None:
    async with shop(0, options={"wait_for_endpoints": 0}) as world, world.session() as session:
        error = await refused(world, session)
        assert error.waited < 0.5
        assert error.said == "NXDOMAIN"


async def test_the_callers_connect_limit_shortens_the_wait() -> None:
    async with shop(0, options={"wait_for_endpoints": 60}) as world, world.session() as session:
        error = await refused(world, session, timeout=aiohttp.ClientTimeout(connect=0.2))
        assert 0.2 <= error.waited < 20


async def test_the_callers_total_limit_ends_the_wait_as_ever() -> None:
    async with shop(0, options={"wait_for_endpoints": 60}) as world, world.session() as session:
        with pytest.raises(TimeoutError):
            await session.get(world.url, timeout=aiohttp.ClientTimeout(total=0.2))
        assert world.view.waiting == 0


async def test_an_except_that_stands_today_goes_on_working() -> None:
    async with shop(0, options={"wait_for_endpoints": 0}) as world, world.session() as session:
        for kind in (aiohttp.ClientConnectorError, aiohttp.ClientConnectionError, aiohttp.ClientError, OSError):
            with pytest.raises(kind):
                await session.get(world.url)


async def test_it_is_not_sent_again_by_the_session() -> None:
    async with shop(0, options={"wait_for_endpoints": 0}) as world, world.session() as session:
        await refused(world, session)
        assert world.view.picks == 0


async def test_callers_that_wait_are_served_when_the_first_pod_comes() -> None:
    async with shop(0, options={"wait_for_endpoints": 30}) as world, world.session() as session:
        waiting = [asyncio.create_task(get(session, world.url)) for _ in range(5)]
        await until(lambda: world.view.waiting == 5)
        [pod] = await world.orders.add()
        assert await asyncio.gather(*waiting) == [pod.name] * 5
        assert (world.view.waiting, world.load) == (0, (0, 0))


async def test_healthy_pods_outlive_an_answer_that_says_nobody_for_a_while() -> None:
    async with shop(2, options={"hold_nx": 1.0, "wait_for_endpoints": 0}) as world, world.session() as session:
        await get(session, world.url)
        for pod in world.orders.pods:
            world.orders.unlist(pod)
        await until(lambda: world.view.held_for is not None)
        await get(session, world.url)
        await until(lambda: not world.view.endpoints)
        error = await refused(world, session)
        assert error.said == "NXDOMAIN"


async def test_when_the_last_pod_leaves_its_idle_connections_are_closed() -> None:
    async with shop(1, options={"hold_nx": 0, "wait_for_endpoints": 0}) as world, world.session() as session:
        await get(session, world.url)
        [pod] = world.orders.pods
        world.orders.unlist(pod)
        await until(lambda: not world.view.members)
        async with asyncio.timeout(5):
            await pod.until(lambda: pod.connections == 0)
        await refused(world, session)
