"""What the kernel is told of a MySQL connection's socket, so that it notices a pod that has vanished."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

VANISHED_AFTER = 2.5
"""Seconds that what was sent may stay unacknowledged (`TCP_USER_TIMEOUT`). A kernel acknowledges whatever its processes
do: only a machine, a path or a pod that is gone is silent for so long. A lost segment is repeated after 0.2, 0.6 and
1.4 s. Linux's default is 15 minutes."""

KEEPALIVE = 1, 1
"""Seconds of quiet before the kernel asks whether the peer is there, and between questions. A query that is waited for
was acknowledged long ago, so nothing else would be sent. With the above such a connection ends after 3 s, when two
questions in a row were lost. It costs an idle connection a packet of 52 bytes a second each way."""


def notice_vanished(sock: Any, *, sends_files: bool = False) -> None:
    """Let the kernel end this connection when its peer has vanished.

    sends_files   LOAD DATA LOCAL is allowed: a living server that does not read for a while must not be cut off
    """
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS has the second name
    settings = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, idle, KEEPALIVE[0]),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), KEEPALIVE[1]),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), 2),
    ]
    if not sends_files:
        settings.append((socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", None), int(VANISHED_AFTER * 1000)))
    with contextlib.suppress(OSError):  # closed already: its user will see
        for level, option, value in settings:
            if option is not None:
                sock.setsockopt(level, option, value)
