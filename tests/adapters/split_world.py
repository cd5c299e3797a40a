"""The read/write split in both its forms, with one face, so that each test is written once."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from headlessconn.adapters.sqlalchemy import BlockingReadWrite, ReadWrite
from headlessconn.options import Options
from tests.adapters.sql_world import QUICK, trusting
from tests.real.mysql_cluster import PODS, MySQLCluster

INSERT = "INSERT INTO orders (note, made_on) VALUES ('test', @@server_id) RETURNING @@server_id"
COUNT = "SELECT COUNT(*) FROM orders"
WHO = "SELECT @@server_id"


class Db:
    """One caller's face: what it writes is known to what it reads."""

    def __init__(self, db: ReadWrite | BlockingReadWrite) -> None:
        self.db = db
        self._context = contextvars.copy_context()

    def caller(self) -> Db:
        """Another one, who has written nothing."""
        return Db(self.db)

    async def write(self, statement: str = INSERT) -> Any:
        if isinstance(self.db, ReadWrite):
            async with self.db.primary() as connection, connection.begin():
                return (await connection.execute(text(statement))).scalar()
        return await self._in_a_thread(self._write, statement)

    def _write(self, statement: str) -> Any:
        assert isinstance(self.db, BlockingReadWrite)
        with self.db.primary() as connection, connection.begin():
            return connection.execute(text(statement)).scalar()

    async def read(self, statement: str = WHO, after: str | None = None) -> Any:
        if isinstance(self.db, ReadWrite):
            async with self.db.replica(after) as connection:
                return (await connection.execute(text(statement))).scalar()
        return await self._in_a_thread(self._read, statement, after)

    def _read(self, statement: str, after: str | None) -> Any:
        assert isinstance(self.db, BlockingReadWrite)
        with self.db.replica(after) as connection:
            return connection.execute(text(statement)).scalar()

    async def fill(self, count: int) -> list[Any]:
        """Have so many connections to replicas opened; who answers."""
        if isinstance(self.db, ReadWrite):
            taken = [await self.db.replica_engine.connect() for _ in range(count)]
            found = [(await one.execute(text(WHO))).scalar() for one in taken]
            for one in taken:
                await one.close()
            return found
        return await self._in_a_thread(self._fill, count)  # type: ignore[no-any-return]

    def _fill(self, count: int) -> list[Any]:
        assert isinstance(self.db, BlockingReadWrite)
        taken = [self.db.replica_engine.connect() for _ in range(count)]
        found = [one.execute(text(WHO)).scalar() for one in taken]
        for one in taken:
            one.close()
        return found

    async def readers(self, count: int) -> set[int]:
        return {await self.read() for _ in range(count)}

    def token(self) -> str:
        return self.db.token() if isinstance(self.db, ReadWrite) else self._context.run(self.db.token)

    def primary_pods(self) -> set[str]:
        """Addresses that the primary's pool is connected to."""
        return {held.endpoint.address for held in self.db._hooks[0].all_held()}

    def replica_pods(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for held in self.db._hooks[1].all_held():
            found[held.endpoint.address] = found.get(held.endpoint.address, 0) + 1
        return found

    async def _in_a_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, self._context.run, function, *arguments)


@asynccontextmanager
async def split(
    cluster: MySQLCluster,
    driver: str,
    *,
    size: int = 4,
    one_name: bool = False,
    options: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Db]:
    """`one_name`: one Service for all pods; then they are asked for their roles."""
    login = cluster.login
    address = URL.create(f"mysql+{driver}", login["user"], login["password"], "", None, login["database"])
    arguments: dict[str, Any] = {"pool_size": size, "max_overflow": 0, "pool_timeout": 20}
    arguments["connect_args"] = {"ssl": trusting(cluster)}
    settings["options"] = Options(**(cluster.resolver | QUICK | (options or {})))
    if one_name:
        settings |= {"primary": f"{PODS}:{cluster.port}", "probe_role": True}
    else:
        settings = {"primary": cluster.write, "replicas": cluster.read} | settings
    if driver == "pymysql":
        blocking = BlockingReadWrite(lambda: create_engine(address, **arguments), **settings)
        try:
            yield Db(blocking)
        finally:
            await asyncio.to_thread(blocking.close)
    else:
        async with ReadWrite(lambda: create_async_engine(address, **arguments), **settings) as db:
            yield Db(db)
