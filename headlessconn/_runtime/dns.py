"""Asking DNS on an event loop."""

from __future__ import annotations

import asyncio
import socket

from headlessconn._runtime.asking import LARGEST, TRY_TIMEOUT, Asking, is_forgery, socket_for
from headlessconn._runtime.resolvconf import Server
from headlessconn.core.lookup import Question, Reply
from headlessconn.options import Options

__all__ = ["TRY_TIMEOUT", "Resolver"]


class Resolver(Asking):
    """Asks the servers of one client, on its loop."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._in_flight: dict[Question, asyncio.Future[Reply | None]] = {}

    async def ask(self, question: Question) -> Reply:
        """The reply of the first server that gives one; after all tries a `Reply` whose rcode says what went wrong.

        A question is never in flight twice: two targets that differ by their port share its reply.
        """
        while (asked := self._in_flight.get(question)) is not None:
            reply = await asyncio.shield(asked)
            if reply is not None:
                return reply  # else whoever asked was cancelled meanwhile: it is on us now
        asked = self._in_flight[question] = asyncio.get_running_loop().create_future()
        reply = None
        try:
            reply = await super().ask(question)
            return reply
        finally:
            del self._in_flight[question]
            asked.set_result(reply)

    async def _udp(self, server: Server, query: bytes, asked: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._limit():
            with socket_for(server, socket.SOCK_DGRAM) as sock:
                sock.connect((server.address, server.port))
                self.queries += 1
                sock.send(query)
                while True:
                    data = await loop.sock_recv(sock, LARGEST)
                    if not is_forgery(data, query, asked):
                        return data
                    # `sock_recv` does not wait while there is something to read, so that a flood of them would hold
                    # the loop, and our own time-out with it.
                    await self._turn()

    async def _tcp(self, server: Server, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._limit():
            with socket_for(server, socket.SOCK_STREAM) as sock:
                await loop.sock_connect(sock, (server.address, server.port))
                self.queries += 1
                await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
                size = int.from_bytes(await _exactly(loop, sock, 2), "big")
                return await _exactly(loop, sock, size)

    def _limit(self) -> asyncio.Timeout:
        return asyncio.timeout(min(TRY_TIMEOUT, self._options.lookup_timeout))

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _turn(self) -> None:
        await asyncio.sleep(0)


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)
