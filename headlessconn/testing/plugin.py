"""The pytest plugin: the fixture `headless_cluster`.

The fixture is an ordinary one and gives a cluster that is not started yet; the test enters it in whatever runs its
coroutines. So it needs no asyncio plugin and gets on with each:

    async def test_my_app_survives_a_rollout(headless_cluster):      # pytest-asyncio, anyio, aiohttp …
        async with headless_cluster as cluster:
            orders = await cluster.service("orders", pods=3)
            async with serve_my_app(**cluster.resolver) as app:
                await orders.roll(surge=1, grace=0.2)
                assert app.failed_requests == 0

    def test_the_same_without_any_plugin(headless_cluster):
        async def scenario():
            async with headless_cluster as cluster:
                ...
        asyncio.run(scenario())

A test that leaves the cluster running fails at its teardown.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from headlessconn.testing.cluster import EmbeddedCluster

# No aiohttp and no dnspython up here: pytest imports this file in every project that has headlessconn installed.


@pytest.fixture
def headless_cluster() -> Iterator[EmbeddedCluster]:
    """A cluster with real DNS and real pods on loopback: `async with headless_cluster as cluster:` starts it."""
    from headlessconn.testing.cluster import EmbeddedCluster

    cluster = EmbeddedCluster()
    yield cluster
    if cluster.is_running:
        left = repr(cluster)
        cluster.kill()
        pytest.fail(f"the test left {left} running: use `async with headless_cluster as cluster:`", pytrace=False)
