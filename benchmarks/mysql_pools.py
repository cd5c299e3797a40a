"""What the pools of the MySQL adapters cost a caller: check-out and check-in, beside the libraries' own pools.

Nothing is sent by either; the servers are only there to be connected to. CPU time, for neighbours disturb it least.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import nan
from typing import Any

from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Client, sync
from headlessconn.adapters import aiomysql as over_aiomysql
from headlessconn.adapters import asyncmy as over_asyncmy
from headlessconn.adapters import pymysql as over_pymysql
from tests.real import loopback, mariadb
from tests.real.mysql_cluster import MySQLCluster, on_loopback

SIZE = 4
LIMIT = 10  # µs beyond what the library's own pool takes
WHAT = "extra time of check-out and check-in"


def _figure(what: str, pairs: list[tuple[float, float]]) -> Figure:
    extra = [ours - plain for ours, plain in pairs]
    ours, plain = median([one for one, _ in pairs]), median([one for _, one in pairs])
    note = f"ours takes {ours:.1f} µs, {what}'s own {plain:.1f}; {spread(extra, 'µs')}"
    return Figure(f"{WHAT}, {what}", median(extra), "µs", LIMIT, note=note)


async def _stretch(pool: Any, count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        async with pool.acquire():
            pass
    return (time.process_time() - began) / count * 1e6


async def _beside(cluster: MySQLCluster, what: str, ours: Any, plain: Any, count: int, turns: int) -> Figure:
    given = cluster.login
    login = {"user": given["user"], "password": given["password"], "db": given["database"], "autocommit": True}
    sizes = {"minsize": SIZE, "maxsize": SIZE}
    async with (
        Client(**cluster.resolver) as client,
        ours(service=client.service(cluster.read), **login, **sizes) as following,
        plain(host=cluster.replicas[0].address, port=cluster.port, **login, **sizes) as stock,
    ):
        for pool in (following, stock):
            for connection in [await pool.acquire() for _ in range(SIZE)]:
                await pool.release(connection)
        pairs = [(await _stretch(following, count), await _stretch(stock, count)) for _ in range(turns)]
    return _figure(what, pairs)


def _threads(cluster: MySQLCluster, count: int, turns: int) -> Figure:
    """PyMySQL has no pool of its own to be compared with."""

    def stretch(acquire: Callable[[], Any]) -> float:
        began = time.process_time()
        for _ in range(count):
            with acquire():
                pass
        return (time.process_time() - began) / count * 1e6

    with sync.Client(**cluster.resolver) as client:
        service = client.service(cluster.read)
        with over_pymysql.open_pool(service, max_size=SIZE, min_size=SIZE, autocommit=True, **cluster.login) as pool:
            pool.ready()
            taken = [stretch(pool.acquire) for _ in range(turns)]
    return Figure("check-out and check-in, PyMySQL in a thread", median(taken), "µs", note=spread(taken, "µs"))


def run(quick: bool) -> list[Figure]:
    if lacking := mariadb.missing() or loopback.missing():
        return [Figure(WHAT, nan, "µs", LIMIT, note=lacking)]
    import aiomysql  # type: ignore[import-untyped]
    import asyncmy

    count, turns = (500, 6) if quick else (2000, 20)
    with on_loopback(replicas=2) as cluster, no_collector():
        return [
            asyncio.run(_beside(cluster, "aiomysql", over_aiomysql.create_pool, aiomysql.create_pool, count, turns)),
            asyncio.run(_beside(cluster, "asyncmy", over_asyncmy.create_pool, asyncmy.create_pool, count, turns)),
            _threads(cluster, count, turns),
        ]
