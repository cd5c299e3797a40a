"""Connecting to one pod by TCP: time-outs, keep-alive, and what a failure says about whom."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from headlessconn.core.endpoint import Endpoint, How

KEEPALIVE_IDLE = 15  # seconds of silence before the first probe (the kernel's default is 7200: the "two hours")
KEEPALIVE_INTERVAL = 5  # seconds between probes
KEEPALIVE_PROBES = 3  # unanswered ones until the connection is dead: 30 s in all
USER_TIMEOUT = 30  # seconds that sent bytes may stay unacknowledged; for HTTP requests only (it kills slow readers too)

# What our own machine, or the way out of it, is to blame for.
_LOCAL = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
        errno.EAFNOSUPPORT,
        errno.EINVAL,
    }
)
_UNREACHABLE = frozenset({errno.EHOSTUNREACH, getattr(errno, "EHOSTDOWN", errno.EHOSTUNREACH)})


def keep_alive(sock: socket.socket, *, user_timeout: bool = False) -> None:
    """Let the kernel notice a peer that vanished. `user_timeout` also bounds unacknowledged data, where it exists."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS has the second name
    for option, value in (
        (idle, KEEPALIVE_IDLE),
        (getattr(socket, "TCP_KEEPINTVL", None), KEEPALIVE_INTERVAL),
        (getattr(socket, "TCP_KEEPCNT", None), KEEPALIVE_PROBES),
        (getattr(socket, "TCP_USER_TIMEOUT", None) if user_timeout else None, USER_TIMEOUT * 1000),
    ):
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def how_dial_failed(error: BaseException) -> How:
    """What a failed dial says: evidence against the pod, our own trouble, or the caller's giving up."""
    match error:
        case asyncio.CancelledError():
            return How.CANCELLED
        case TimeoutError():
            return How.DIAL_TIMEOUT
        case ConnectionRefusedError():
            return How.REFUSED
        case ssl.SSLError():
            return How.LOCAL  # a certificate that we do not trust: our CA file as likely as the pod
        case ConnectionError():
            return How.REFUSED  # reset or closed before anything was said
        case OSError(errno=number) if number in _UNREACHABLE:
            return How.UNREACHABLE
        case OSError(errno=errno.ETIMEDOUT):
            return How.DIAL_TIMEOUT
        case OSError():
            return How.LOCAL
    return How.CALLER


def how_request_failed(error: BaseException) -> How:
    """What an exception in the middle of an exchange says, when nobody who knows the protocol has judged it."""
    match error:
        case asyncio.CancelledError():
            return How.CANCELLED
        case ConnectionRefusedError():
            return How.REFUSED
        case ConnectionError() | EOFError():  # asyncio's IncompleteReadError is an EOFError
            return How.RESET
        case TimeoutError():
            return How.TIMEOUT
        case OSError(errno=number) if number in _UNREACHABLE:
            return How.UNREACHABLE
        case OSError(errno=number) if number in _LOCAL:
            return How.LOCAL
    return How.CALLER


async def connect(endpoint: Endpoint, seconds: float) -> socket.socket:
    """A connected, non-blocking socket with keep-alive. Raises `OSError`; after `seconds`, `TimeoutError`."""
    sock = socket.socket(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        keep_alive(sock)
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_connect(sock, (endpoint.address, endpoint.port))
    except BaseException:
        sock.close()
        raise
    return sock


async def answers(endpoint: Endpoint, seconds: float) -> bool:
    """Whether it accepts a connection: the check behind a probe. Our own trouble counts as a no: it is tried again."""
    try:
        (await connect(endpoint, seconds)).close()
    except OSError:
        return False
    return True
