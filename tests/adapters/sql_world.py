"""Engines of SQLAlchemy on MariaDB servers of this machine, and a load on them that says what became of it.

The three kinds of engine have one face here, so that each test is written once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import sqlalchemy
from sqlalchemy import URL, Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

import headlessconn
from headlessconn import sync
from headlessconn.adapters.sqlalchemy import Attached, attach
from tests.real import loopback, mariadb
from tests.real.mysql_cluster import MySQLCluster, on_loopback
from tests.tiers import require

DRIVERS = ("pymysql", "aiomysql", "asyncmy")
QUICK: dict[str, Any] = {"refresh_max": 1.0, "rebalance_over": 0.2}
"""A new pod is heard of within a second, and gets its share in two: nobody wants to watch the defaults, which are 5 s
and 30 s so that a thousand processes do not dial it together."""
WAITS = "SELECT @@server_id, MASTER_GTID_WAIT('9-99-999', 0.05)"
"""Holds its connection for 0.05 s, waiting for what never comes."""


@contextlib.contextmanager
def cluster_of(replicas: int) -> Iterator[MySQLCluster]:
    require("mariadb", not mariadb.missing(), mariadb.missing())
    require("mariadb", not loopback.missing(), loopback.missing())
    with on_loopback(replicas) as cluster:
        yield cluster


def url(cluster: MySQLCluster, driver: str, host: str = "mysql-read.data") -> URL:
    login = cluster.login
    return URL.create(f"mysql+{driver}", login["user"], login["password"], host, cluster.port, login["database"])


def trusting(cluster: MySQLCluster) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cluster.ca))


class Record(NamedTuple):
    at: float
    server: int
    error: str


class Pool:
    """One engine that is attached."""

    def __init__(self, engine: Engine | AsyncEngine, attached: Attached, client: Any) -> None:
        self.engine = engine
        self.attached = attached
        self.client = client

    async def query(self, statement: str = "SELECT @@server_id") -> Any:
        """The first column of the answer."""
        if isinstance(self.engine, AsyncEngine):
            async with self.engine.connect() as connection:
                return (await connection.execute(text(statement))).scalar()
        return await asyncio.to_thread(self._query, statement)

    def _query(self, statement: str) -> Any:
        assert isinstance(self.engine, Engine)
        with self.engine.connect() as connection:
            return connection.execute(text(statement)).scalar()

    async def take(self) -> Taken:
        """A connection that stays out until `give_back`."""
        if isinstance(self.engine, AsyncEngine):
            return Taken(await self.engine.connect())
        return Taken(await asyncio.to_thread(self.engine.connect))

    async def fill(self, count: int) -> list[Any]:
        """Have so many connections opened; the answers tell by whom."""
        taken = [await self.take() for _ in range(count)]
        servers = [await one.query() for one in taken]
        for one in taken:
            await one.give_back()
        return servers

    async def dispose(self) -> None:
        if isinstance(self.engine, AsyncEngine):
            await self.engine.dispose()
        else:
            await asyncio.to_thread(self.engine.dispose)

    def shares(self) -> dict[str, int]:
        return {endpoint.address: count for endpoint, count in self.attached.connections.items()}


class Taken:
    """A connection that is out."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def query(self, statement: str = "SELECT @@server_id") -> Any:
        if isinstance(self.connection, sqlalchemy.Connection):
            return await asyncio.to_thread(lambda: self.connection.execute(text(statement)).scalar())
        return (await self.connection.execute(text(statement))).scalar()

    async def give_back(self) -> None:
        if isinstance(self.connection, sqlalchemy.Connection):
            await asyncio.to_thread(self.connection.close)
        else:
            await self.connection.close()


@asynccontextmanager
async def pool(
    cluster: MySQLCluster,
    driver: str,
    *,
    size: int = 8,
    target: str = "",
    options: dict[str, Any] | None = None,
    engine: dict[str, Any] | None = None,
    tls: bool = True,
    **attaching: Any,
) -> AsyncIterator[Pool]:
    """An engine of this driver, attached to the replicas. `options` are the client's, `engine` the engine's."""
    settings = cluster.resolver | QUICK | (options or {})
    arguments: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": 20}
    if tls:
        arguments["connect_args"] = {"ssl": trusting(cluster)}
    arguments |= engine or {}
    if driver == "pymysql":
        with sync.Client(**settings) as client:
            made = create_engine(url(cluster, driver), **arguments)
            attached = attach(made, client.service(target or cluster.read), **attaching)
            try:
                yield Pool(made, attached, client)
            finally:
                await asyncio.to_thread(made.dispose)
                attached.detach()
    else:
        async with headlessconn.Client(**settings) as aclient:
            amade = create_async_engine(url(cluster, driver), **arguments)
            attached = attach(amade, aclient.service(target or cluster.read), **attaching)
            try:
                yield Pool(amade, attached, aclient)
            finally:
                await amade.dispose()
                attached.detach()


async def until(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for it. The limit is for a machine that stands still."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it never came"
        await asyncio.sleep(0.02)


class Load:
    """Workers, each one query after the other."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.under_way = 0

    @property
    def errors(self) -> list[str]:
        return [record.error for record in self.records if record.error]

    def servers(self, since: float = 0.0) -> Counter[int]:
        return Counter(record.server for record in self.records if not record.error and record.at >= since)

    async def until(self, is_so: Callable[[], object]) -> None:
        await until(is_so)

    async def more(self, count: int) -> float:
        """Wait for so many more answers; when it began."""
        began, before = time.monotonic(), len(self.records)
        await self.until(lambda: len(self.records) >= before + count)
        return began


@asynccontextmanager
async def load(query: Callable[[], Awaitable[Any]], workers: int = 4) -> AsyncIterator[Load]:
    found = Load()
    over = False

    async def work() -> None:
        while not over:
            found.under_way += 1
            try:
                server, error = await query(), ""
            except Exception as raised:
                server, error = 0, f"{type(raised).__name__}: {raised}"
            found.under_way -= 1
            found.records.append(Record(time.monotonic(), server, error))
            await asyncio.sleep(0.05 if error else 0.0)

    tasks = [asyncio.create_task(work()) for _ in range(workers)]
    try:
        yield found
    finally:
        over = True
        await asyncio.gather(*tasks)


every_driver = pytest.mark.parametrize("driver", DRIVERS)
