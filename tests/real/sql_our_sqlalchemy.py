"""headlessconn on SQLAlchemy, as it is compared with the stock pools, with the options that its adapters give clients.

Where a Service has a name its certificates are verified.
"""

from __future__ import annotations

import ssl
from typing import Any

from headlessconn.adapters._mysql_hosts import OPTIONS
from headlessconn.options import Options
from tests.real.sql_setup import AsyncSetUp, BlockingSetUp, Where
from tests.real.sql_stock import SQLAlchemyAsync, SQLAlchemySync


def options(where: Where) -> Options:
    return Options.of(OPTIONS, dict(where.resolver))


def is_named(where: Where) -> bool:
    return any(character.isalpha() for character in where.host)


def target(where: Where, role: str = "") -> str:
    """`role`: that of another Service beside the one that is named."""
    if not is_named(where):
        return f"static:///{where.host}:{where.port}"
    host = where.host if not role else where.host.replace("mysql-read", role).replace("mysql-primary", role)
    return f"{host}:{where.port}"


def arguments(where: Where) -> dict[str, Any]:
    found: dict[str, Any] = {"pool_size": where.size, "max_overflow": 0}
    if where.ca and is_named(where):
        found["connect_args"] = {"ssl": ssl.create_default_context(cafile=where.ca)}
    return found


def url(where: Where, driver: str) -> Any:
    from sqlalchemy import URL

    return URL.create(f"mysql+{driver}", where.user, where.password, where.host, where.port, where.database)


class Attached(SQLAlchemyAsync):
    async def open(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        from headlessconn import Client
        from headlessconn.adapters.sqlalchemy import attach

        self._client = Client(options(self.where))
        self._engine = create_async_engine(url(self.where, self.driver), **arguments(self.where))
        attach(self._engine, self._client.service(target(self.where)))

    async def close(self) -> None:
        await super().close()
        await self._client.aclose()


class AttachedAsyncmy(Attached):
    driver = "asyncmy"


class AttachedPyMySQL(SQLAlchemySync):
    def open(self) -> None:
        from sqlalchemy import create_engine

        from headlessconn.adapters.sqlalchemy import attach
        from headlessconn.sync import Client

        self._client = Client(options(self.where))
        self._engine = create_engine(url(self.where, "pymysql"), **arguments(self.where))
        attach(self._engine, self._client.service(target(self.where)))

    def close(self) -> None:
        super().close()
        self._client.close()


def split(where: Where, probes: bool) -> dict[str, Any]:
    """The names of both roles; one address has only one, and is asked for it."""
    if not is_named(where):
        return {"primary": target(where), "probe_role": True, "options": options(where)}
    names = {"primary": target(where, "mysql-primary"), "replicas": target(where, "mysql-read")}
    return {**names, "probe_role": probes, "options": options(where)}


class ReadWriteAsync(AsyncSetUp):
    driver = "aiomysql"
    probes = False

    async def open(self) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        from headlessconn.adapters.sqlalchemy import ReadWrite

        where = self.where
        self._db = ReadWrite(
            lambda: create_async_engine(url(where, self.driver), **arguments(where)), **split(where, self.probes)
        )

    async def query(self, statement: str) -> int:
        from sqlalchemy import text

        if statement.startswith("INSERT"):
            async with self._db.primary() as connection, connection.begin():
                return int((await connection.execute(text(statement))).one()[0])
        async with self._db.replica() as connection:
            return int((await connection.execute(text(statement))).one()[0])

    async def close(self) -> None:
        await self._db.aclose()


class ReadWriteAsyncProbing(ReadWriteAsync):
    probes = True


class ReadWriteBlocking(BlockingSetUp):
    probes = False

    def open(self) -> None:
        from sqlalchemy import create_engine

        from headlessconn.adapters.sqlalchemy import BlockingReadWrite

        where = self.where
        self._db = BlockingReadWrite(
            lambda: create_engine(url(where, "pymysql"), **arguments(where)), **split(where, self.probes)
        )

    def query(self, statement: str) -> int:
        from sqlalchemy import text

        if statement.startswith("INSERT"):
            with self._db.primary() as connection, connection.begin():
                return int(connection.execute(text(statement)).one()[0])
        with self._db.replica() as connection:
            return int(connection.execute(text(statement)).one()[0])

    def close(self) -> None:
        self._db.close()


class ReadWriteBlockingProbing(ReadWriteBlocking):
    probes = True
