"""Places on loopback that are hard to connect to: one that never answers, and one that refuses."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator

import pytest

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other kernels answer although their queue is full")


@contextlib.contextmanager
def silent_port(address: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """Nobody accepts here and the queue is full, so that the kernel drops each SYN: to a client, a black hole."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(0)
        place = listener.getsockname()
        for _ in range(20):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(place)
            if not select.select([], [filler], [], 0.1)[1]:
                break
        else:
            raise OSError(f"the queue of {place} does not fill up")
        yield place[1]


@contextlib.contextmanager
def refusing_port(address: str = "127.0.0.1") -> Iterator[int]:
    """Taken, and nobody listens: refused, and given to no one else meanwhile."""
    with socket.socket() as taken:
        taken.bind((address, 0))
        yield taken.getsockname()[1]


@contextlib.contextmanager
def accepting_port(address: str = "127.0.0.1") -> Iterator[int]:
    """The kernel accepts, and nobody will ever say a word."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        listener.listen(64)
        yield listener.getsockname()[1]
