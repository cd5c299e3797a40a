"""What `attach` costs SQLAlchemy's pool: check-out and check-in, beside the same engine without it.

The reset on return is off: a rollback is a round trip to the server, and would hide what is measured. So nothing is
sent; the server is only there to be connected to.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import nan
from typing import Any

from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Client, sync
from headlessconn.adapters.sqlalchemy import attach
from tests.real import loopback, mariadb
from tests.real.mysql_cluster import MySQLCluster, on_loopback

SIZE = 4
LIMIT = 10  # µs


def _url(cluster: MySQLCluster, driver: str, host: str) -> str:
    login = cluster.login
    return f"mysql+{driver}://{login['user']}:{login['password']}@{host}:{cluster.port}/{login['database']}"


def _figure(what: str, pairs: list[tuple[float, float]]) -> Figure:
    """`pairs` of CPU seconds a check-out and check-in, with us and without."""
    extra = [(ours - plain) * 1e6 for ours, plain in pairs]
    base = median([plain for _, plain in pairs]) * 1e6
    note = f"plain takes {base:.1f} µs; {spread(extra, 'µs')}"
    return Figure(f"extra CPU of check-out and check-in, {what}", median(extra), "µs", LIMIT, note=note)


def _blocking(cluster: MySQLCluster, count: int, turns: int) -> Figure:
    from sqlalchemy import create_engine

    settings: dict[str, Any] = {"pool_size": SIZE, "pool_reset_on_return": None}
    plain = create_engine(_url(cluster, "pymysql", cluster.replicas[0].address), **settings)
    ours = create_engine(_url(cluster, "pymysql", "mysql-read.data"), **settings)

    def stretch(connect: Callable[[], Any]) -> float:
        began = time.process_time()
        for _ in range(count):
            connect().close()
        return (time.process_time() - began) / count

    with sync.Client(**cluster.resolver) as client:
        attached = attach(ours, client.service(cluster.read))
        for engine in (plain, ours):
            for connection in [engine.raw_connection() for _ in range(SIZE)]:
                connection.close()
        pairs = [(stretch(ours.raw_connection), stretch(plain.raw_connection)) for _ in range(turns)]
        plain.dispose()
        ours.dispose()
        attached.detach()
    return _figure("PyMySQL", pairs)


async def _async(cluster: MySQLCluster, count: int, turns: int) -> Figure:
    from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

    settings: dict[str, Any] = {"pool_size": SIZE, "pool_reset_on_return": None}
    plain = create_async_engine(_url(cluster, "aiomysql", cluster.replicas[0].address), **settings)
    ours = create_async_engine(_url(cluster, "aiomysql", "mysql-read.data"), **settings)

    async def stretch(engine: AsyncEngine) -> float:
        began = time.process_time()
        for _ in range(count):
            connection = await engine.connect()
            await connection.close()
        return (time.process_time() - began) / count

    async with Client(**cluster.resolver) as client:
        attached = attach(ours, client.service(cluster.read))
        for engine in (plain, ours):
            for connection in [await engine.connect() for _ in range(SIZE)]:
                await connection.close()
        pairs = [(await stretch(ours), await stretch(plain)) for _ in range(turns)]
        await plain.dispose()
        await ours.dispose()
        attached.detach()
    return _figure("aiomysql", pairs)


def run(quick: bool) -> list[Figure]:
    if lacking := mariadb.missing() or loopback.missing():
        return [Figure("extra CPU of check-out and check-in", nan, "µs", LIMIT, note=lacking)]
    count, turns = (500, 6) if quick else (2000, 20)
    with on_loopback(replicas=2) as cluster, no_collector():
        return [_blocking(cluster, count, turns), asyncio.run(_async(cluster, count, turns))]
