"""Engines of SQLAlchemy whose connections follow the replicas, on a loop and in threads."""

import ssl
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import headlessconn
from headlessconn import sync
from headlessconn.adapters.sqlalchemy import attach


async def on_a_loop(url: str, target: str, tls: ssl.SSLContext, **options: Any) -> str:
    async with headlessconn.Client(**options) as client:
        engine = create_async_engine(url, pool_size=10, max_overflow=0, connect_args={"ssl": tls})
        attach(engine, client.service(target))  # "mysql-read.data:3306"
        async with engine.connect() as connection:
            row = await connection.execute(text("SELECT @@report_host"))
            pod: str = row.scalar_one()
        await engine.dispose()
        return pod


def in_threads(url: str, target: str, tls: ssl.SSLContext, **options: Any) -> str:
    with sync.Client(**options) as client:
        engine = create_engine(url, pool_size=10, max_overflow=0, connect_args={"ssl": tls})
        attached = attach(engine, client.service(target))
        with engine.connect() as connection:
            pod: str = connection.execute(text("SELECT @@report_host")).scalar_one()
            assert sum(attached.connections.values()) == 1
        engine.dispose()
        return pod
