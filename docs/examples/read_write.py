"""Writes to the primary, reads from the replicas."""

from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy.exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from headlessconn.adapters.sqlalchemy import ReadWrite


def database(make_engine: Callable[[], AsyncEngine], **settings: Any) -> ReadWrite:
    """`primary="mysql-primary.data:3306", replicas="mysql-read.data:3306"`"""
    return ReadWrite(make_engine, after_write="gtid", max_lag=10.0, **settings)


async def order(db: ReadWrite, note: str) -> str:
    """Returns what a later request needs to see it: for a cookie, or a header."""
    async with db.primary() as connection, connection.begin():
        await connection.execute(text("INSERT INTO orders (note, made_on) VALUES (:note, 0)"), {"note": note})
    return db.token()


async def orders(db: ReadWrite, token: str | None = None) -> int:
    async with db.replica(after=token) as connection:
        return int((await connection.execute(text("SELECT COUNT(*) FROM orders"))).scalar_one())


async def with_the_orm(db: ReadWrite) -> int:
    async with db.replica() as connection, AsyncSession(bind=connection) as session:
        return int((await session.execute(text("SELECT COUNT(*) FROM orders"))).scalar_one())


async def again(work: Callable[[], Awaitable[Any]]) -> Any:
    """Once more, where it is certain that nothing was done: your transaction is whole inside of `work`."""
    try:
        return await work()
    except sqlalchemy.exc.OperationalError as error:
        if not getattr(error, "retryable", False):
            raise
        return await work()
