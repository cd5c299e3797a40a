"""PyMySQL's connection, to one pod. (No function named `connect` here: DBUtils looks for the library by that.)"""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pymysql.connections
import pymysql.cursors
from pymysql.constants import SERVER_STATUS

from headlessconn.adapters._mysql_hosts import CONNECT_TIMEOUT
from headlessconn.adapters._mysql_wire import Wire, dial, within
from headlessconn.adapters._tls import PinnedContext, context_of
from headlessconn.core.endpoint import Endpoint

if TYPE_CHECKING:
    _Base = pymysql.connections.Connection[pymysql.cursors.Cursor]
else:
    _Base = pymysql.connections.Connection

LOGIN_TIMEOUT = 10.0  # seconds for TLS and login; what MySQL's own `connect_timeout` gives a client


class Connection(_Base):
    """One to one pod, whose socket is ours. Where PyMySQL would connect again by itself, it is to the same pod.

    endpoint   the pod
    wire       its socket, as long as it is open
    """

    wire: Wire | None = None

    def __init__(
        self,
        endpoint: Endpoint,
        server_hostname: str,
        arguments: dict[str, Any],
        login_timeout: float = LOGIN_TIMEOUT,
    ) -> None:
        given = dict(arguments)
        self._login_timeout = login_timeout
        context = context_of(given.pop("ssl", None))
        self._tls = None if context is None else _Noting(context, server_hostname)
        if self._tls is not None:
            given["ssl"] = self._tls
        self.endpoint = endpoint
        self._patience = given.setdefault("connect_timeout", CONNECT_TIMEOUT)
        self._source = (given["bind_address"], 0) if given.get("bind_address") else None
        self._sends_files = bool(given.get("local_infile"))
        given |= {"host": server_hostname or endpoint.address, "port": endpoint.port, "defer_connect": True}
        super().__init__(**given)
        self.connect()

    def connect(self, sock: socket.socket | None = None) -> None:
        self._let_go()
        if sock is None:
            try:
                sock = dial(self.endpoint, self._patience, self._source, sends_files=self._sends_files)
            except OSError as error:
                text = f"Can't connect to MySQL server on '{self.endpoint}' ({error})"
                raise pymysql.err.OperationalError(2003, text) from error
        self.wire = Wire(sock)
        if self._tls is not None:
            self._tls.was_used = False
        try:
            with within(self.endpoint, self.wire, self._login_timeout):
                super().connect(sock)
            if self._tls is not None and not self._tls.was_used:  # up to 1.1 it goes on without
                self.close()
                raise pymysql.err.OperationalError(2026, f"{self.endpoint} offers no TLS, though ssl= asks for it")
        except BaseException as error:
            self._let_go()
            sock.close()
            if isinstance(error, TimeoutError):
                raise pymysql.err.OperationalError(2003, str(error)) from error
            raise

    def close(self) -> None:
        """Once: PyMySQL's own complains the second time, and pools close what broke."""
        try:
            if self.open:
                super().close()
        finally:
            self._let_go()

    @property
    def is_alive(self) -> bool:
        """Whether an idle one has not been closed, as far as the socket tells."""
        return self.open and self.wire is not None and self.wire.is_silent

    @property
    def in_transaction(self) -> bool:
        status: int = self.server_status  # type: ignore[attr-defined]  # not in its stubs
        return bool(self.open and status & SERVER_STATUS.SERVER_STATUS_IN_TRANS)

    def clean(self) -> bool:
        """Roll back what is open; False when it cannot go to another user."""
        if not self.open:
            return False
        # Without autocommit a mere SELECT begins a transaction, of which the status that PyMySQL knows says nothing:
        # the next reader would see what the last one saw.
        if self.in_transaction or not self.get_autocommit():
            with contextlib.suppress(Exception):
                self.rollback()
                return True
            return False
        return True

    def cut(self) -> None:
        """A thread that waits on it goes on with 2013."""
        if self.wire is not None:
            self.wire.cut()

    def _let_go(self) -> None:
        wire, self.wire = self.wire, None
        if wire is not None:
            wire.close()


class _Noting(PinnedContext):
    """One connection's, which can tell whether it was used."""

    was_used = False

    def wrap_socket(self, sock: Any, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        self.was_used = True
        return super().wrap_socket(sock, *arguments, **named)
