"""PyMySQL, for threads: connections to the pods of a headless Service.

    with headlessconn.sync.Client() as client:
        service = client.service("mysql-read.data:3306")
        with open_pool(service, max_size=16, user="app", password=…, database="shop") as pool:
            with pool.acquire() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT …")

Used of PyMySQL: its `Connection` with `defer_connect=True` and `connect(sock)`, which are documented for this.
"""

from __future__ import annotations

from typing import Any

try:
    import pymysql  # noqa: F401
except ImportError as missing:  # pragma: no cover
    raise ImportError("headlessconn.adapters.pymysql needs PyMySQL: pip install headlessconn[pymysql]") from missing

from headlessconn.adapters._mysql_hosts import name_to_verify
from headlessconn.adapters._mysql_opener import split
from headlessconn.adapters._mysql_threads import MySQLPool
from headlessconn.adapters._pymysql_connection import Connection
from headlessconn.core.endpoint import Endpoint
from headlessconn.sync import Service


def connect(endpoint: Endpoint, *, server_hostname: str = "", **arguments: Any) -> Connection:
    """A connection to this pod and no other: the `open=` of a pool of your own.

        service.pool(open=partial(connect, server_hostname="mysql-read.data", user="app", password=…))

    server_hostname   whom the certificate must name, with `ssl=` (a context, or a dict as PyMySQL reads it)

    All else is `pymysql.connect`'s. `connect_timeout` is 2.5 s unless given; a server that accepts and says nothing is
    left after 10 s. The kernel notices a pod that has vanished within 3 s. Raises `pymysql.err.OperationalError`.
    """
    return Connection(endpoint, server_hostname, arguments)


def open_pool(service: Service, *, server_hostname: str | None = None, **settings: Any) -> MySQLPool[Connection]:
    """A pool of PyMySQL's connections over the pods of a service, for any number of threads.

    `settings` are `PoolRules`' (`max_size`, `timeout`, `max_age` …) and those of
    `pymysql.connect`. `server_hostname`: whom certificates must name with `ssl=`; default: the Service.

    Connections that come back in a transaction are rolled back, those that their server has closed are not handed out.
    Raises what `Service.pool` and `pool.acquire` raise; `OptionError` for `ssl=` without a name to verify.
    """
    rules, arguments = split(settings)
    name = name_to_verify(service.target, server_hostname, bool(arguments.get("ssl")))
    return MySQLPool(service, lambda endpoint: Connection(endpoint, name, arguments), rules)


__all__ = ["Connection", "connect", "open_pool"]
