"""Probing a pod: in the one thread of a blocking client, or in a thread that may block."""

from __future__ import annotations

import socket

from headlessconn._runtime import dial
from headlessconn._runtime.poll import Poll
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.probing import PROBE_TIMEOUT


async def accepts(poll: Poll, endpoint: Endpoint, until: float) -> bool:
    """Whether it accepts a connection. Our own trouble counts as a no: it is tried again."""
    try:
        with poll.open(socket_to(endpoint)) as sock:
            await poll.connect(sock, (endpoint.address, endpoint.port), until)
    except OSError:
        return False
    return True


def knock(endpoint: Endpoint) -> How:
    """How a bare TCP connect ends that is closed at once: CALLER, since it was none to keep, or what went wrong."""
    try:
        with socket_to(endpoint) as sock:
            sock.settimeout(PROBE_TIMEOUT)
            sock.connect((endpoint.address, endpoint.port))
    except OSError as error:
        return dial.how_dial_failed(error)
    return How.CALLER


def socket_to(endpoint: Endpoint) -> socket.socket:
    """A non-blocking socket of the pod's family, with keep-alive; not connected yet."""
    sock = socket.socket(socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        dial.keep_alive(sock)
    except BaseException:
        sock.close()
        raise
    return sock
