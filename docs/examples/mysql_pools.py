"""Pools of MySQL drivers over the pods of Services."""

import ssl
from typing import Any

import headlessconn
from headlessconn import sync
from headlessconn.adapters import aiomysql, asyncmy, pymysql


async def one_service(host: str, port: int, **settings: Any) -> str:
    """`host="mysql-read.data", port=3306`. Only the import of `create_pool` differs from plain aiomysql."""
    async with aiomysql.create_pool(host=host, port=port, db="shop", maxsize=16, **settings) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT @@report_host")
            (pod,) = await cursor.fetchone()
            return str(pod)


async def two_servers(writer: str, servers: str, **settings: Any) -> list[str]:
    """Two MySQL servers, and you know which one takes writes: a target for each purpose.

    `writer="mysql-0.mysql.data:3306"`, `servers="mysql.data:3306"`, the headless Service of both. Without Kubernetes:
    `servers="static:///10.0.0.1:3306,10.0.0.2:3306"`.
    """
    async with headlessconn.Client(**settings.pop("resolver", {})) as client:
        shared = {"db": "shop", "maxsize": 8, **settings}
        async with (
            aiomysql.create_pool(service=client.service(writer), **shared) as writes,
            aiomysql.create_pool(service=client.service(servers), **shared) as reads,
        ):
            async with writes.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("INSERT INTO orders (note, made_on) VALUES ('new', 0)")
                await connection.commit()
            pods = []
            for _ in range(2):
                async with reads.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute("SELECT @@report_host")
                    pods += [row[0] for row in await cursor.fetchall()]
            return pods


async def primary_and_read(primary: str, replicas: str, **settings: Any) -> int:
    """A StatefulSet whose operator keeps two Services: `"mysql-primary.data"` and `"mysql-read.data"`.

    With `probe_role=True` writes go on as soon as a pod takes them, seconds before DNS says so.
    """
    async with asyncmy.ReadWrite(primary, replicas, probe_role=True, database="shop", **settings) as db:
        async with db.primary() as connection, connection.cursor() as cursor:
            await cursor.execute("INSERT INTO orders (note, made_on) VALUES ('new', 0)")
            await connection.commit()
        async with db.replica() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT COUNT(*) FROM orders")
            (count,) = await cursor.fetchone()
            return int(count)


def in_threads(target: str, tls: ssl.SSLContext, **settings: Any) -> str:
    """`target="mysql-read.data:3306"`. The certificate is verified for `mysql-read.data`, though a pod is dialled."""
    with sync.Client(**settings.pop("resolver", {})) as client:
        pool = pymysql.open_pool(client.service(target), max_size=16, database="shop", ssl=tls, **settings)
        with pool, pool.acquire() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@report_host")
            row = cursor.fetchone()
            assert row is not None
            return str(row[0])


def with_dbutils(target: str, **settings: Any) -> str:
    from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]

    from headlessconn.adapters.dbutils import Creator

    with sync.Client(**settings.pop("resolver", {})) as client:
        creator = Creator(client.service(target), database="shop", autocommit=True, **settings)
        pool = PooledDB(creator, ping=creator.ping, maxconnections=16, blocking=True)
        with pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT @@report_host")
            pod = str(cursor.fetchone()[0])
        pool.close()
        return pod
