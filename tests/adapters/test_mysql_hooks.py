"""What the MySQL adapters rely on in their libraries. Fails, and says so, when a library changes it."""

import asyncio
import inspect
import ssl
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import asyncmy
import asyncmy.connection
import mysql.connector.connection
import mysql.connector.network
import pymysql
import pymysql.connections
import pytest
from dbutils.pooled_db import PooledDB  # type: ignore[import-untyped]

from headlessconn.adapters._mysql import code_of, is_full, is_lost
from headlessconn.adapters._tls import PinnedContext
from headlessconn.adapters.dbutils import Creator
from tests.adapters.conftest import Authority


def takes(function: object, *names: str) -> bool:
    return set(names) <= set(inspect.signature(function).parameters)  # type: ignore[arg-type]


async def test_aiomysql() -> None:
    assert takes(aiomysql.Connection, "host", "port", "ssl", "connect_timeout", "local_infile", "echo")
    assert takes(aiomysql.Connection.ping, "reconnect")
    assert inspect.iscoroutinefunction(aiomysql.Connection.ensure_closed)
    assert isinstance(aiomysql.Connection.closed, property)
    assert takes(aiomysql.create_pool, "minsize", "maxsize", "echo", "pool_recycle")
    # Its own pool looks at the same: there is no public way to see whether an idle connection was closed.
    source = inspect.getsource(aiomysql.Pool)
    assert "conn._reader.eof_received" in source
    assert "conn._reader.exception()" in source
    made = aiomysql.Connection()
    assert (made._reader, made._writer) == (None, None)


def test_aiomysql_connects_by_ping() -> None:
    source = inspect.getsource(aiomysql.Connection.ping)
    assert "await self._connect()" in source


async def test_asyncmy() -> None:
    public = {"ping", "ensure_closed", "close", "connected", "get_transaction_status"}
    assert public <= set(dir(asyncmy.connection.Connection))
    # As its own pool: there is no public way to see whether an idle connection was closed. Up to 0.2.11 it looks at the
    # reader and the writer of each connection.
    if "_transport" in dir(asyncmy.connection.Connection):
        assert "_stream_broken" in dir(asyncmy.connection.Connection)
    else:
        made: Any = asyncmy.connection.Connection()  # type: ignore[no-untyped-call]
        assert (made._reader, made._writer) == (None, None)
    assert takes(asyncmy.create_pool, "minsize", "maxsize", "echo", "pool_recycle")


def test_pymysql_connects_by_a_socket_that_it_is_given() -> None:
    assert takes(pymysql.connections.Connection, "defer_connect", "host", "port", "ssl", "connect_timeout")
    assert takes(pymysql.connections.Connection.connect, "sock")
    made = pymysql.connections.Connection(host="mysql-read.data", defer_connect=True)
    assert not made.open
    assert made.host == "mysql-read.data"
    # The TLS name is the host's, and a socket that is given is never dialled again.
    assert "server_hostname=self.host" in inspect.getsource(pymysql.connections.Connection._request_authentication)  # type: ignore[attr-defined]


def test_mysql_connector_gets_its_socket_from_one_method() -> None:
    connection = mysql.connector.connection.MySQLConnection
    assert "self._socket = self._get_connection()" in inspect.getsource(connection._open_connection)
    assert "self._socket.open_connection()" in inspect.getsource(connection._open_connection)
    assert takes(mysql.connector.network.MySQLTCPSocket, "host", "port")
    assert takes(mysql.connector.network.MySQLTCPSocket.switch_to_ssl, "ssl_context", "host")
    # The TLS name is the host that the socket was told, and the socket below is called `sock`.
    assert "server_hostname=host" in inspect.getsource(mysql.connector.network.MySQLSocket.switch_to_ssl)
    assert mysql.connector.network.MySQLTCPSocket("mysql-read.data", 3306).server_host == "mysql-read.data"


def test_pymysql_waits_for_answers_in_two_methods() -> None:
    connection: Any = pymysql.connections.Connection
    assert takes(connection._read_query_result, "unbuffered")
    assert "self._read_query_result(unbuffered=unbuffered)" in inspect.getsource(connection.query)
    for asks in (connection.ping, connection.commit, connection.rollback):
        assert "self._read_ok_packet()" in inspect.getsource(asks)


def test_dbutils_takes_a_creator_and_asks_by_a_function() -> None:
    """Played with connections of nobody: what DBUtils does with an answer of `ping`."""

    class Raw:
        closed = False
        OperationalError = pymysql.OperationalError
        InterfaceError = pymysql.InterfaceError
        InternalError = pymysql.InternalError

        def close(self) -> None:
            self.closed = True

        def rollback(self) -> None: ...

    made: list[Raw] = []
    stays = True

    class Make:
        dbapi = pymysql
        threadsafety = pymysql.threadsafety

        def __call__(self) -> Raw:
            made.append(Raw())
            return made[-1]

    asked: list[object] = []

    def ping(raw: object) -> bool:
        asked.append(raw)
        return stays

    pool = PooledDB(Make(), ping=ping, maxconnections=1, blocking=True)
    pool.connection().close()
    pool.connection().close()
    assert asked == [made[0]]
    assert len(made) == 1
    stays = False
    held = pool.connection()
    assert len(made) == 2
    assert made[0].closed
    assert held.dbapi_connection is made[1]
    assert held.dbapi() is pymysql
    held.close()
    pool.close()
    assert Creator.dbapi is pymysql
    assert Creator.threadsafety == pymysql.threadsafety
    assert not hasattr(Creator, "connect")  # DBUtils would take that for the function that connects


async def test_asyncio_wraps_by_the_contexts_own_method(authority: Authority) -> None:
    """Which is how the name of a Service is verified where a library passes an address."""
    serving = authority.serving("mysql-read.data")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        right = PinnedContext(authority.trusting, "mysql-read.data")
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=right)
        writer.close()
        wrong = PinnedContext(authority.trusting, "mysql-read.elsewhere")
        with pytest.raises(ssl.SSLCertVerificationError, match=r"mysql-read\.elsewhere"):
            await asyncio.open_connection("127.0.0.1", port, ssl=wrong)


@pytest.mark.parametrize("library", [pymysql.err, asyncmy.errors, mysql.connector.errors], ids=lambda one: one.__name__)
def test_errors_begin_with_their_number(library: object) -> None:
    kind = library.OperationalError  # type: ignore[attr-defined]
    lost = kind(errno=2013, msg="gone") if library is mysql.connector.errors else kind(2013, "gone")
    full = kind(errno=1040, msg="full") if library is mysql.connector.errors else kind(1040, "full")
    assert (code_of(lost), is_lost(lost), is_full(lost)) == (2013, True, False)
    assert (code_of(full), is_lost(full), is_full(full)) == (1040, None, True)
    lost.retryable = True  # as errors of a demoted primary are marked
