"""Each program in examples/ runs as a reader would run it, in a process of its own, against the embedded cluster.

What they have in common is said here: they serve on PORT, `GET /` asks a pod, `/ready` and `/explain` are there, and
SIGTERM ends them with exit code 0, as a rolling restart of theirs would.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from headlessconn.testing import EmbeddedCluster, EmbeddedService

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@asynccontextmanager
async def running(
    example: Path, cluster: EmbeddedCluster, orders: EmbeddedService
) -> AsyncIterator[tuple[aiohttp.ClientSession, asyncio.subprocess.Process]]:
    """The program, and a session whose base is its address. It must not have ended before the block does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-u", str(example)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ORDERS": orders.target,
            "ORDERS_URL": orders.url,
            "NAMESERVERS": cluster.nameserver,
            "SEARCH": ",".join(cluster.search),
            "HOST": "127.0.0.1",
            "PORT": "0",
        },
    )
    assert process.stdout is not None
    try:
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = await process.stdout.readline()
            assert line, f"{example.name} ended before it served:\n{said}"
            said += line.decode()
        async with aiohttp.ClientSession(found[0]) as session:
            yield session, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def pod_behind(session: aiohttp.ClientSession) -> str:
    async with session.get("/") as response:
        assert response.status == 200, await response.text()
        name: str = (await response.json())["pod"]
        return name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_serves_follows_the_pods_and_ends_cleanly(example: Path) -> None:
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=2)
        async with running(example, cluster, orders) as (session, process):
            async with session.get("/ready") as response:
                assert response.status == 200
            assert {await pod_behind(session) for _ in range(40)} == {"orders-0", "orders-1"}

            await orders.add()
            while await pod_behind(session) != "orders-2":
                pass
            async with session.get("/explain") as response:
                assert "3 endpoints: 3 ready" in await response.text()

            await asyncio.gather(*(orders.remove(pod, grace=0) for pod in orders.pods[:2]))
            assert {await pod_behind(session) for _ in range(20)} == {"orders-2"}

            process.terminate()
            rest, _ = await process.communicate()
            assert process.returncode == 0, rest.decode()
            assert b"Traceback" not in rest


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
async def test_an_example_without_a_pod_is_not_ready_and_says_why(example: Path) -> None:
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=0)
        async with running(example, cluster, orders) as (session, _), session.get("/ready") as response:
            assert response.status == 503
            assert "NXDOMAIN" in await response.text()


def test_there_are_examples() -> None:
    assert EXAMPLES
