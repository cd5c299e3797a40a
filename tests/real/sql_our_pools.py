"""headlessconn's pools with the libraries' names, and its own blocking pool over the libraries' connections.

They are given the Service's name as the stock ones are, and TLS, which makes it harder to leave a pod that vanished.
"""

from __future__ import annotations

import importlib
import ssl
from typing import Any

from headlessconn import sync
from headlessconn.adapters._mysql_hosts import OPTIONS
from headlessconn.options import Options
from tests.real.mysql_cluster import PRIMARY, READ, ZONE
from tests.real.sql_setup import AsyncSetUp, BlockingSetUp, Where
from tests.real.sql_stock import Aiomysql, Asyncmy


def options_of(where: Where) -> Options:
    return Options.of(OPTIONS, dict(where.resolver))


def context_of(where: Where) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=where.ca) if where.ca else None


class OursAiomysql(Aiomysql):
    async def open(self) -> None:
        from headlessconn.adapters.aiomysql import create_pool

        size, database = self.where.size, self.where.database
        self._pool = await create_pool(
            **self.where.login,
            db=database,
            minsize=size,
            maxsize=size,
            autocommit=True,
            ssl=context_of(self.where),
            options=options_of(self.where),
        )


class OursAsyncmy(Asyncmy):
    async def open(self) -> None:
        from headlessconn.adapters.asyncmy import create_pool

        size, database = self.where.size, self.where.database
        self._pool: Any = await create_pool(
            **self.where.login,
            database=database,
            minsize=size,
            maxsize=size,
            autocommit=True,
            ssl=context_of(self.where),
            options=options_of(self.where),
        )


class _Split(AsyncSetUp):
    """The read/write split of `module`; `database` is what the library calls the database."""

    module = ""
    database = "database"

    async def open(self) -> None:
        adapter = importlib.import_module(f"headlessconn.adapters.{self.module}")
        where = self.where
        self._db = adapter.ReadWrite(
            f"{PRIMARY}.{ZONE}:{where.port}",
            f"{READ}.{ZONE}:{where.port}",
            probe_role=True,
            user=where.user,
            password=where.password,
            maxsize=where.size,
            autocommit=True,
            ssl=context_of(where),
            options=options_of(where),
            **{self.database: where.database},
        )

    async def query(self, statement: str) -> int:
        taking = self._db.primary() if statement.startswith("INSERT") else self._db.replica()
        async with taking as connection, connection.cursor() as cursor:
            await cursor.execute(statement)
            return int((await cursor.fetchone())[0])

    async def close(self) -> None:
        await self._db.aclose()


class OursAiomysqlSplit(_Split):
    module = "aiomysql"
    database = "db"


class OursAsyncmySplit(_Split):
    module = "asyncmy"


class _OverPods(BlockingSetUp):
    """A pool of ours for threads, over connections of `module`."""

    module = ""

    def open(self) -> None:
        adapter = importlib.import_module(f"headlessconn.adapters.{self.module}")
        where = self.where
        self._client = sync.Client(options_of(where))
        self._pool = adapter.open_pool(
            self._client.service(f"{where.host}:{where.port}"),
            max_size=where.size,
            min_size=where.size,
            user=where.user,
            password=where.password,
            database=where.database,
            autocommit=True,
            **self.tls(),
        )

    def tls(self) -> dict[str, Any]:
        return {"ssl": context_of(self.where)}

    def query(self, statement: str) -> int:
        with self._pool.acquire() as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(statement)
                return int(cursor.fetchone()[0])
            finally:
                cursor.close()

    def close(self) -> None:
        self._pool.close()
        self._client.close()


class OursPyMySQL(_OverPods):
    module = "pymysql"


class OursMySQLConnector(_OverPods):
    module = "mysql_connector"

    def tls(self) -> dict[str, Any]:
        return {"ssl_ca": self.where.ca or None}


class OursDBUtils(BlockingSetUp):
    def open(self) -> None:
        from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]

        from headlessconn.adapters.dbutils import Creator

        where = self.where
        self._client = sync.Client(options_of(where))
        creator = Creator(
            self._client.service(f"{where.host}:{where.port}"),
            user=where.user,
            password=where.password,
            database=where.database,
            autocommit=True,
            ssl=context_of(where),
        )
        self._pool = PooledDB(
            creator, ping=creator.ping, maxconnections=where.size, maxcached=where.size, blocking=True
        )

    def query(self, statement: str) -> int:
        connection = self._pool.connection()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return int(cursor.fetchone()[0])
        finally:
            connection.close()

    def close(self) -> None:
        self._pool.close()
        self._client.close()
