"""aiomysql: its `create_pool`, over all pods of a headless Service.

    from headlessconn.adapters.aiomysql import create_pool

    async with create_pool(host="mysql-read.data", user="app", password=…, db="shop", maxsize=16) as pool:
        async with pool.acquire() as connection, connection.cursor() as cursor:
            await cursor.execute("SELECT …")

Only the import changes. Connections are aiomysql's own, each to one pod; the pool follows the pods as `Service.pool`
does. Used of aiomysql: `Connection(…)`, `ping`, `ensure_closed`, `close`, `closed`, `get_transaction_status`; and, as
its own pool does, the streams of a connection, to see whether it was closed and to bound the kernel's patience.
"""

from __future__ import annotations

import asyncio
from typing import Any

try:
    import aiomysql  # type: ignore[import-untyped]
except ImportError as missing:  # pragma: no cover
    raise ImportError("headlessconn.adapters.aiomysql needs aiomysql: pip install headlessconn[aiomysql]") from missing

from headlessconn import errors
from headlessconn.adapters._mysql import CANNOT_CONNECT
from headlessconn.adapters._mysql_hosts import OPTIONS
from headlessconn.adapters._mysql_opener import Library
from headlessconn.adapters._mysql_pool import Creating, FollowingPool, make_pool
from headlessconn.adapters._mysql_readwrite import ReadWriteBase
from headlessconn.client import Service
from headlessconn.core.target import Target
from headlessconn.options import Options


class _CannotConnect(errors.HeadlessError):
    """One of ours with the arguments that aiomysql's have: a number and a text."""

    def __init__(self, *facts: Any) -> None:
        super().__init__(*facts)
        self.args = (CANNOT_CONNECT, str(self))


class NoEndpoints(_CannotConnect, errors.NoEndpoints, aiomysql.OperationalError):  # type: ignore[misc]
    """Nobody behind the name: `headlessconn.NoEndpoints`, and aiomysql's `OperationalError` 2003."""


class NoPrimary(_CannotConnect, errors.NoPrimary, aiomysql.OperationalError):  # type: ignore[misc]
    """No pod takes writes: `headlessconn.errors.NoPrimary`, and aiomysql's `OperationalError` 2003. Try again."""


class PoolTimeout(_CannotConnect, errors.PoolTimeout, aiomysql.OperationalError):  # type: ignore[misc]
    """No connection came free in time: `headlessconn.errors.PoolTimeout`, and aiomysql's `OperationalError` 2003."""


def create_pool(
    minsize: int = 1,
    maxsize: int = 10,
    echo: bool = False,
    pool_recycle: int = -1,
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    service: str | Target | Service | None = None,
    server_hostname: str | None = None,
    options: Options | None = None,
    **settings: Any,
) -> Creating:
    """As `aiomysql.create_pool`; to be awaited, or used as `async with`.

    `host` and `port` (3306) name the Service. Addresses, localhost, names of /etc/hosts and Unix sockets go to
    aiomysql's own pool, as does everything with the environment's `HEADLESSCONN=off`.

    minsize          connections that are kept; the first is opened now, the others beside. Default 1
    maxsize          connections at most, over all pods; 0: no limit. Default 10
    pool_recycle     seconds without use after which a connection is closed; -1: never
    service          the Service, instead of `host` and `port`: `"mysql-read.data:3306"`, or one of your own client
    server_hostname  whom certificates must name with `ssl=`; default: the Service
    options          of the client that the pool makes; default `OPTIONS`

    Further settings are `PoolRules`' (`timeout`, `max_age`, `silent_after` … by name) and those of a connection.
    `connect_timeout` is 2.5 s unless given; aiomysql would wait without end.

    Raises what aiomysql raises when every pod says so (1045 for a wrong password); `NoEndpoints`, `PoolTimeout`, which
    are its `OperationalError` too; `TargetError`, `OptionError`.
    """
    if loop is not None:
        settings["loop"] = loop
    if options is not None:
        settings["options"] = options
    return Creating(
        lambda: make_pool(_AIOMYSQL, service, server_hostname, (minsize, maxsize), echo, pool_recycle, dict(settings))
    )


async def _connect(**arguments: Any) -> Any:
    """By `ping`, which connects: `aiomysql.connect` leaves its socket open when it is cancelled."""
    connection = aiomysql.Connection(**arguments)
    try:
        await connection.ping(reconnect=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _transport(connection: Any) -> asyncio.Transport | None:
    writer = connection._writer
    return None if writer is None else writer.transport


def _is_dead(connection: Any) -> bool:
    """What aiomysql's own pool looks at."""
    reader = connection._reader
    return reader is None or reader.eof_received or reader.exception() is not None


_OURS = {errors.NoEndpoints: NoEndpoints, errors.NoPrimary: NoPrimary, errors.PoolTimeout: PoolTimeout}


def _no_connection(error: errors.HeadlessError) -> Exception:
    facts = error.__reduce__()[1]
    assert isinstance(facts, tuple)  # ours say how they are made
    return _OURS[type(error)](*facts)


_AIOMYSQL = Library(
    name="aiomysql",
    connect=_connect,
    stock=aiomysql.create_pool,
    transport=_transport,
    is_dead=_is_dead,
    is_open=lambda connection: not connection.closed,
    error=aiomysql.OperationalError,
    no_connection=_no_connection,
)


class ReadWrite(ReadWriteBase):
    """Writes to the primary, reads from the replicas, said by the caller and never guessed from SQL.

        db = ReadWrite("mysql-primary.data", "mysql-read.data", user="app", password=…, db="shop")
        async with db:
            async with db.primary() as connection, connection.cursor() as cursor:
                await cursor.execute("INSERT …")
                await connection.commit()
            async with db.replica() as connection, connection.cursor() as cursor:
                await cursor.execute("SELECT …")

    Each new connection for writing is asked for the role of its pod. A primary that has been demoted gets no second
    write: the error of the first (1290, 1836, 1792) is raised as it is, with `error.retryable = True`, and its pool is
    left behind. Nothing is ever executed again by itself.

    primary        target of who takes writes, or of all pods
    replicas       target of the replicas; None: there is one name for all pods, and reads go to all of them
    probe_role     ask every pod whether it takes writes, do not wait for DNS to say so: after a fail-over, writes go on
                   as soon as one does. Needed where there is one name; every pod must let this user in
    on_no_replica  when no replica can be had: "primary" reads from there, "fail" raises
    after_write    whether a context (a task, and those it starts) reads what it has written. None: not always. "gtid":
                   replicas are waited for, at most `gtid_timeout` (0.5 s), else the primary serves. "sticky": the
                   primary serves for `sticky` (2 s). A `db.token()` carries it to other requests
    max_lag        seconds, 0.1 to 86400; replicas that are more behind, or have stopped, are not read from, all but the
                   best; nor is the primary, with one name. Default None: nobody is asked, and reads go to all. Costs
                   each pod a connection and a question every second, or `max_lag` / 2 if that is less
    minsize, maxsize   connections of each of the two pools, default 0 and 10; `pool_recycle` as in `create_pool`

    All else is `create_pool`'s. Raises `OptionError`, `TargetError`. Use it on one loop, as `async with`, or
    `await db.aclose()`.
    """

    _library = _AIOMYSQL


__all__ = ["OPTIONS", "FollowingPool", "NoEndpoints", "NoPrimary", "PoolTimeout", "ReadWrite", "create_pool"]
