"""The pools of the libraries themselves, with their defaults: what headlessconn is compared with.

Each gets the Service's name, one pool size, and autocommit or a commit a query; all else is what its users get too.
"""

from __future__ import annotations

from typing import Any

from tests.real.sql_setup import AsyncSetUp, BlockingSetUp


class Aiomysql(AsyncSetUp):
    async def open(self) -> None:
        import aiomysql  # type: ignore[import-untyped]

        size, database = self.where.size, self.where.database
        self._pool = await aiomysql.create_pool(
            **self.where.login, db=database, minsize=size, maxsize=size, autocommit=True
        )

    async def query(self, statement: str) -> int:
        async with self._pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute(statement)
            return int((await cursor.fetchone())[0])

    async def close(self) -> None:
        self._pool.close()
        await self._pool.wait_closed()


class Asyncmy(Aiomysql):
    async def open(self) -> None:
        import asyncmy

        size, database = self.where.size, self.where.database
        self._pool = await asyncmy.create_pool(
            **self.where.login, db=database, minsize=size, maxsize=size, autocommit=True
        )

class SQLAlchemyAsync(AsyncSetUp):
    driver = "aiomysql"
    pre_ping = False

    async def open(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        self._engine = create_async_engine(
            _url(self, self.driver), pool_size=self.where.size, max_overflow=0, pool_pre_ping=self.pre_ping
        )

    async def query(self, statement: str) -> int:
        from sqlalchemy import text

        async with self._engine.begin() as connection:
            return int((await connection.execute(text(statement))).one()[0])

    async def close(self) -> None:
        await self._engine.dispose()


class SQLAlchemyAsyncPrePing(SQLAlchemyAsync):
    pre_ping = True


class SQLAlchemySync(BlockingSetUp):
    pre_ping = False

    def open(self) -> None:
        from sqlalchemy import create_engine

        self._engine = create_engine(
            _url(self, "pymysql"), pool_size=self.where.size, max_overflow=0, pool_pre_ping=self.pre_ping
        )

    def query(self, statement: str) -> int:
        from sqlalchemy import text

        with self._engine.begin() as connection:
            return int(connection.execute(text(statement)).one()[0])

    def close(self) -> None:
        self._engine.dispose()


class SQLAlchemySyncPrePing(SQLAlchemySync):
    pre_ping = True


class MySQLConnector(BlockingSetUp):
    def open(self) -> None:
        from mysql.connector.pooling import MySQLConnectionPool

        self._pool = MySQLConnectionPool(
            pool_size=self.where.size, **self.where.login, database=self.where.database, autocommit=True
        )

    def query(self, statement: str) -> int:
        connection = self._pool.get_connection()
        try:
            cursor = connection.cursor()
            try:
                cursor.execute(statement)
                row: Any = cursor.fetchone()
                return int(row[0])
            finally:
                cursor.close()
        finally:
            connection.close()

    def close(self) -> None:
        self._pool._remove_connections()  # there is no public way


class DBUtilsPyMySQL(BlockingSetUp):
    def open(self) -> None:
        import pymysql
        from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]

        self._pool = PooledDB(
            pymysql,
            maxconnections=self.where.size,
            maxcached=self.where.size,
            blocking=True,
            **self.where.login,
            database=self.where.database,
            autocommit=True,
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


def _url(setup: AsyncSetUp | BlockingSetUp, driver: str) -> Any:
    from sqlalchemy import URL

    where = setup.where
    return URL.create(f"mysql+{driver}", where.user, where.password, where.host, where.port, where.database)
