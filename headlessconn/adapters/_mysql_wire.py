"""The socket under a blocking MySQL connection: dialled here, and held by a duplicate.

Libraries detach a socket when they wrap it for TLS. By the duplicate an idle connection can be looked at without asking
anybody, and a thread that waits on it can be cut off.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from headlessconn.adapters._mysql_sockets import notice_vanished
from headlessconn.core.endpoint import Endpoint


class Wire:
    """A duplicate of the socket under one connection. `close` may be called twice."""

    __slots__ = ("_poll", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock.dup()
        self._poll = select.poll()
        self._poll.register(self._sock.fileno(), select.POLLIN)

    @property
    def is_silent(self) -> bool:
        """Nothing to be read: on an idle connection anything else is its end, or an error on its way."""
        return self._sock.fileno() >= 0 and not self._poll.poll(0)

    def cut(self) -> None:
        """Whoever reads or writes on it goes on with an error."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


def dial(
    endpoint: Endpoint, seconds: float, source: tuple[str, int] | None = None, *, sends_files: bool = False
) -> socket.socket:
    """A blocking socket to this pod, which notices when it vanishes. Raises `OSError`."""
    sock = socket.create_connection((endpoint.address, endpoint.port), seconds, source)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        notice_vanished(sock, sends_files=sends_files)
    except BaseException:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def within(endpoint: Endpoint, wire: Wire, seconds: float) -> Iterator[None]:
    """Cut the wire when the block takes longer: a server that accepts and says nothing. Raises `TimeoutError` then.

    A thread each, since a read without a time-out cannot be ended otherwise; logins are rare, and take milliseconds.
    """
    late = threading.Event()

    def cut() -> None:
        late.set()
        wire.cut()

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError(f"{endpoint} accepted, and let nobody in for {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
