"""Connections for a pool that exist only here, and those to the pods of a shop."""

from __future__ import annotations

import socket
import threading
from typing import Any

from headlessconn import Endpoint
from headlessconn.sync import Client, Pool
from tests.runtime.threaded_shop import LIMIT

STATIC = "static:///127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"


def dial(endpoint: Endpoint) -> socket.socket:
    return socket.create_connection((endpoint.address, endpoint.port), LIMIT)


def where(sock: socket.socket) -> tuple[str, int]:
    address, port = sock.getpeername()[:2]
    return address, port


def request(sock: socket.socket) -> None:
    """One request on a connection that is kept."""
    sock.sendall(b"GET / HTTP/1.1\r\nHost: orders.shop\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(65536)
        if not part:
            raise EOFError
        data += part
    assert data.startswith(b"HTTP/1.1 200")


class Made:
    """Connections that exist only here: who made them, and what became of them."""

    def __init__(self) -> None:
        self.opened: list[Fake] = []
        self.closed: list[Fake] = []
        self.lock = threading.Lock()

    def open(self, endpoint: Endpoint) -> Fake:
        with self.lock:
            fake = Fake(endpoint)
            self.opened.append(fake)
        return fake

    def close(self, fake: Fake) -> None:
        with self.lock:
            self.closed.append(fake)


class Fake:
    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.users = 0
        self.cleaned = 0


def pool_of(client: Client, made: Made, **settings: Any) -> Pool[Fake]:
    return client.service(STATIC).pool(**{"open": made.open, "close": made.close, **settings})
