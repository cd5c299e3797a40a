"""mysql-connector-python, for threads: connections to the pods of a headless Service.

    with headlessconn.sync.Client() as client:
        service = client.service("mysql-read.data:3306")
        with open_pool(service, max_size=16, user="app", password=…, database="shop") as pool:
            with pool.acquire() as connection, connection.cursor() as cursor:
                cursor.execute("SELECT …")

Its own pool has one list of hosts and reopens all connections when that changes, so the pool is ours. Used of it: the
pure Python `MySQLConnection`, whose `_get_connection` gives the socket: the only hook, and not a documented one.
"""

from __future__ import annotations

import contextlib
from typing import Any

try:
    from mysql.connector import errors as library
    from mysql.connector.connection import MySQLConnection
    from mysql.connector.network import MySQLSocket, MySQLTCPSocket
except ImportError as missing:  # pragma: no cover
    raise ImportError(
        "headlessconn.adapters.mysql_connector needs mysql-connector-python: pip install headlessconn[mysql-connector]"
    ) from missing

from headlessconn.adapters._mysql_hosts import CONNECT_TIMEOUT, name_to_verify
from headlessconn.adapters._mysql_opener import split
from headlessconn.adapters._mysql_threads import MySQLPool
from headlessconn.adapters._mysql_wire import Wire, dial
from headlessconn.core.endpoint import Endpoint
from headlessconn.sync import Service


class Connection(MySQLConnection):
    """One to one pod. Where the library would connect again by itself, it is to the same pod.

    endpoint   the pod
    wire       its socket, as long as it is open
    """

    wire: Wire | None = None

    def __init__(self, endpoint: Endpoint, server_hostname: str, arguments: dict[str, Any]) -> None:
        given = dict(arguments)
        self.endpoint = endpoint
        self._patience = min(CONNECT_TIMEOUT, given.get("connection_timeout") or CONNECT_TIMEOUT)
        if any(given.get(name) for name in ("ssl_ca", "ssl_verify_cert", "ssl_verify_identity")):
            given = {"ssl_verify_cert": True, "ssl_verify_identity": True} | given
        # The name is verified by TLS and told in errors; the pod is dialled by its socket.
        super().__init__(**given | {"host": server_hostname or endpoint.address, "port": endpoint.port})

    def _get_connection(self) -> MySQLSocket:
        made = _Socket(self)
        made.set_connection_timeout(self._connection_timeout)
        return made

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.let_go()

    @property
    def is_alive(self) -> bool:
        """Whether an idle one has not been closed, as far as the socket tells."""
        return self.wire is not None and self.wire.is_silent

    def clean(self) -> bool:
        """Roll back what is open; False when it cannot go to another user: an answer of which rows were not read yet is
        on its way."""
        if self.wire is None or self.unread_result:
            return False
        if self.in_transaction:
            with contextlib.suppress(library.Error, OSError):
                self.rollback()
                return True
            return False
        return True

    def cut(self) -> None:
        """A thread that waits on it goes on with 2013."""
        if self.wire is not None:
            self.wire.cut()

    def let_go(self, wire: Wire | None = None) -> None:
        before, self.wire = self.wire, wire
        if before is not None:
            before.close()


class _Socket(MySQLTCPSocket):
    """Leads to the pod, whatever the host is called."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(host=connection.server_host, port=connection.server_port)
        self._connection = connection

    def open_connection(self) -> None:
        endpoint = self._connection.endpoint
        try:
            self.sock = dial(endpoint, self._connection._patience)
        except OSError as error:
            raise library.InterfaceError(errno=2003, values=(endpoint.address, endpoint.port, str(error))) from error
        self.sock.settimeout(self._connection_timeout)  # for TLS and login: 10 s unless given
        self._connection.let_go(Wire(self.sock))


def connect(endpoint: Endpoint, *, server_hostname: str = "", **arguments: Any) -> Connection:
    """A connection to this pod and no other: the `open=` of a pool of your own.

    server_hostname   whom the certificate must name; verified when `ssl_ca` is given, unless `ssl_verify_identity`
                      says no (by itself the library verifies no name)

    All else is `mysql.connector.connect`'s, without what chooses hosts or makes pools. `connection_timeout` (10 s) is
    for TLS and login; TCP has 2.5 s of it. The kernel notices a pod that has vanished within 3 s. Raises
    `mysql.connector.Error`.
    """
    return Connection(endpoint, server_hostname, arguments)


def open_pool(service: Service, *, server_hostname: str | None = None, **settings: Any) -> MySQLPool[Connection]:
    """A pool of mysql-connector's connections over the pods of a service, for any number of threads.

    `settings` are `PoolRules`' (`max_size`, `timeout`, `max_age` …) and those of
    `mysql.connector.connect`. `server_hostname`: whom certificates must name; default: the Service.

    Connections that come back in a transaction are rolled back, those that their server has closed are not handed out.
    Raises what `Service.pool` and `pool.acquire` raise; `OptionError` for `ssl_ca=` without a name to verify.
    """
    rules, arguments = split(settings)
    name = name_to_verify(service.target, server_hostname, bool(arguments.get("ssl_ca")))
    return MySQLPool(service, lambda endpoint: Connection(endpoint, name, arguments), rules)


__all__ = ["Connection", "connect", "open_pool"]
