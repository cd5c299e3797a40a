"""The pools of five MySQL libraries over the pods of a Service, with one face, so that each test is written once."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]

import headlessconn
from headlessconn import sync
from headlessconn.adapters.dbutils import Creator
from tests.adapters.sql_world import QUICK, trusting
from tests.real.mysql_cluster import MySQLCluster

ASYNC = ("aiomysql", "asyncmy")
THREADS = ("pymysql", "mysql_connector")
KINDS = (*ASYNC, *THREADS, "dbutils")
PODS = (*ASYNC, *THREADS)
"""Those whose pool is ours, and can be asked how many connections each pod has."""

every_kind = pytest.mark.parametrize("kind", KINDS)
every_pool = pytest.mark.parametrize("kind", PODS)
every_async = pytest.mark.parametrize("kind", ASYNC)


def adapter(kind: str) -> Any:
    return importlib.import_module(f"headlessconn.adapters.{kind}")


def error_of(kind: str) -> type[Exception]:
    """What the library raises when a connection cannot be had, or is lost."""
    library = {"dbutils": "pymysql", "mysql_connector": "mysql.connector.errors"}.get(kind, kind)
    if kind == "asyncmy":
        library = "asyncmy.errors"
    found: type[Exception] = importlib.import_module(library).Error
    return found


def code_of(error: BaseException) -> object:
    return error.args[0] if error.args else None


class MySQLPool:
    """One of them. `pool` is what the adapter, or DBUtils, gave."""

    def __init__(self, kind: str, pool: Any, client: Any) -> None:
        self.kind = kind
        self.pool = pool
        self.client = client

    async def query(self, statement: str = "SELECT @@server_id") -> Any:
        """The first column of the answer."""
        if self.kind in ASYNC:
            async with self.pool.acquire() as connection:
                return await ask(connection, statement)
        return await asyncio.to_thread(self._query, statement)

    def _query(self, statement: str) -> Any:
        with self._taking() as connection:
            return ask_blocking(connection, statement)

    @contextlib.contextmanager
    def _taking(self) -> Iterator[Any]:
        if self.kind == "dbutils":
            connection = self.pool.connection()
            try:
                yield connection
            finally:
                connection.close()
        else:
            with self.pool.acquire() as connection:
                yield connection

    async def take(self) -> Taken:
        """A connection that stays out until `give_back`."""
        if self.kind in ASYNC:
            return Taken(self, await self.pool.acquire())
        if self.kind == "dbutils":
            return Taken(self, await asyncio.to_thread(self.pool.connection))
        return Taken(self, await asyncio.to_thread(self.pool.take))

    async def fill(self, count: int) -> list[Any]:
        """Have so many connections opened; the answers tell by whom."""
        taken = [await self.take() for _ in range(count)]
        servers = [await one.query() for one in taken]
        for one in taken:
            await one.give_back()
        return servers

    def shares(self) -> dict[str, int]:
        """Connections by address; of pools that are ours."""
        pods = self.pool.snapshot.pods
        return {pod.endpoint.address: pod.busy + pod.idle for pod in pods if pod.busy + pod.idle}


class Taken:
    """A connection that is out."""

    def __init__(self, owner: MySQLPool, connection: Any) -> None:
        self.owner = owner
        self.connection = connection

    async def query(self, statement: str = "SELECT @@server_id") -> Any:
        if self.owner.kind in ASYNC:
            return await ask(self.connection, statement)
        return await asyncio.to_thread(ask_blocking, self.connection, statement)

    async def give_back(self) -> None:
        if self.owner.kind in ASYNC:
            await self.owner.pool.release(self.connection)
        elif self.owner.kind == "dbutils":
            await asyncio.to_thread(self.connection.close)
        else:
            await asyncio.to_thread(self.owner.pool.release, self.connection)


async def ask(connection: Any, statement: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
        row = await cursor.fetchone()
        return None if row is None else row[0]


def ask_blocking(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]
    finally:
        cursor.close()


@asynccontextmanager
async def mysql_pool(
    cluster: MySQLCluster,
    kind: str,
    *,
    size: int = 8,
    target: str = "",
    options: dict[str, Any] | None = None,
    tls: bool = True,
    **settings: Any,
) -> AsyncIterator[MySQLPool]:
    """One over the replicas. `options` are the client's."""
    settings = {**cluster.login, "autocommit": True} | (tls_of(cluster, kind) if tls else {}) | settings
    knowing = cluster.resolver | QUICK | {"connect_timeout": 0.3} | (options or {})
    if kind in ASYNC:
        if kind == "aiomysql":
            settings["db"] = settings.pop("database")
        async with headlessconn.Client(**knowing) as client:
            service = client.service(target or cluster.read)
            async with adapter(kind).create_pool(maxsize=size, service=service, **{"minsize": 0, **settings}) as pool:
                yield MySQLPool(kind, pool, client)
        return
    with sync.Client(**knowing) as blocking:
        found = blocking.service(target or cluster.read)
        if kind == "dbutils":
            creator = Creator(found, **settings)
            pool = PooledDB(creator, ping=creator.ping, maxconnections=size, maxcached=size, blocking=True)
        else:
            pool = adapter(kind).open_pool(found, max_size=size, **settings)
        try:
            yield MySQLPool(kind, pool, blocking)
        finally:
            await asyncio.to_thread(pool.close)


def tls_of(cluster: MySQLCluster, kind: str) -> dict[str, Any]:
    return {"ssl_ca": str(cluster.ca)} if kind == "mysql_connector" else {"ssl": trusting(cluster)}
