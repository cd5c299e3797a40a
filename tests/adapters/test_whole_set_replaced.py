"""Every pod that is known refuses: the next look-up may bring others, and nothing was sent yet."""

import aiohttp
import pytest

from tests.adapters.world import get, shop


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_finds_only_dead_pods_waits_for_the_next_look_up(method: str) -> None:
    async with shop(2) as world, world.session() as session:
        await world.service.ready(2)
        old = list(world.orders.pods)
        await world.orders.add(2)
        for pod in old:
            world.orders.unlist(pod)
            pod.kill()
        async with session.request(method, world.url) as response:
            assert response.status == 200
        assert await get(session, world.url) not in {pod.name for pod in old}
        assert world.load == (0, 0)


async def test_when_nobody_else_comes_the_error_is_that_of_the_dial() -> None:
    async with shop(2) as world, world.session() as session:
        await world.service.ready(2)
        for pod in world.orders.pods:
            pod.kill()
        with pytest.raises(aiohttp.ClientConnectorError) as refused:
            await session.get(world.url)
        assert isinstance(refused.value.os_error, ConnectionRefusedError)
        assert world.load == (0, 0)
