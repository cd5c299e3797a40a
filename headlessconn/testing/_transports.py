"""The two ways into a DNS server. Queries go to `receive`, which may send its reply at once, later or never."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

Receive = Callable[[bytes, str, tuple[str, int], Callable[[bytes], None]], None]  # query, transport, client, send


class Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receive: Receive, closed: asyncio.Future[None]) -> None:
        self._receive = receive
        self._closed = closed
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        self._receive(data, "udp", addr, lambda reply: self._send(reply, addr))

    def _send(self, reply: bytes, addr: tuple[str | Any, int]) -> None:
        if self._transport is not None:
            self._transport.sendto(reply, addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self._closed.done():
            self._closed.set_result(None)


class Stream(asyncio.Protocol):
    def __init__(self, receive: Receive, open_streams: set[asyncio.Transport]) -> None:
        self._receive = receive
        self._open_streams = open_streams
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._client: tuple[str, int] = transport.get_extra_info("peername")
        self._open_streams.add(transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 2 and len(self._buffer) >= (end := 2 + int.from_bytes(self._buffer[:2])):
            query = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._receive(query, "tcp", self._client, self._send)

    def _send(self, reply: bytes) -> None:
        if self._transport is not None:
            self._transport.write(len(reply).to_bytes(2) + reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._open_streams.discard(self._transport)
            self._transport = None
