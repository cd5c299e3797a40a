"""The sockets that can be seen in a connection of an unknown kind, and what can be done with those."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

from headlessconn._runtime.dial import keep_alive
from headlessconn.core.endpoint import Endpoint

log = logging.getLogger("headlessconn")


def sockets_of(connection: Any) -> Iterator[Any]:
    """Those of a socket, of asyncio's streams and transports, and of a pair of them."""
    for part in _parts(connection):
        if isinstance(part, socket.socket):
            yield part
        elif isinstance(part, asyncio.StreamWriter | asyncio.BaseTransport):
            sock = part.get_extra_info("socket")
            if sock is not None:
                yield sock


def keep_seen_alive(connection: Any) -> None:
    """Let the kernel notice within 30 s when the peer of any of them has vanished."""
    for sock in sockets_of(connection):
        if sock.family in (socket.AF_INET, getattr(socket, "AF_INET6", None)):
            with contextlib.suppress(OSError):  # closed already: its user will see
                keep_alive(sock)


def abort(connection: Any) -> bool:
    """Cut whoever waits on it: what is read or written next ends with an error. False when nothing can be seen."""
    seen = False
    for part in _parts(connection):
        transport = part.transport if isinstance(part, asyncio.StreamWriter) else part
        if isinstance(transport, asyncio.WriteTransport):
            transport.abort()  # no TLS goodbye, for which a peer that is gone would be waited
            seen = True
        elif isinstance(transport, socket.socket):
            with contextlib.suppress(OSError):
                transport.shutdown(socket.SHUT_RDWR)
            seen = True
    return seen


def cut_off(pool: str, endpoint: Endpoint | None, connection: Any, on_silent: Callable[[Any], object] | None) -> None:
    """End the waiting on a connection of a pool whose pod is silent, by `on_silent` where its owner gave one."""
    log.warning(
        "pool of %s: %s fell silent and gives no TCP connection; whoever waits on a connection to it is cut off",
        pool,
        endpoint,
    )
    if on_silent is None:
        abort(connection)
        return
    try:
        on_silent(connection)
    except Exception:
        log.exception("pool of %s: on_silent failed", pool)


async def close_any(connection: Any) -> None:
    """Close what has `aclose`, or `close` with or without something to wait for; of a pair of streams, the writer."""
    for part in _parts(connection):
        if isinstance(part, asyncio.StreamReader):
            continue
        closing = (getattr(part, "aclose", None) or part.close)()
        if inspect.isawaitable(closing):
            await closing
        elif inspect.iscoroutinefunction(getattr(part, "wait_closed", None)):
            await part.wait_closed()


def _parts(connection: Any) -> tuple[Any, ...]:
    return connection if isinstance(connection, tuple) else (connection,)
