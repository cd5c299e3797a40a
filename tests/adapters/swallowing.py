"""A TCP proxy before a server that can vanish: what is under way is swallowed, and nobody gets a connection any more.

As a pod on a dead node, but for the kernel's acknowledgements, which a process cannot hold back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """On the server's port, at an address of its own."""

    def __init__(self, address: str, port: int, to: str) -> None:
        self.address, self.port = address, port
        self._to = to
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._swallows = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    async def vanish(self) -> None:
        self._swallows = True
        assert self._server is not None
        self._server.close()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._pumps):
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection(self._to, self.port)
            try:
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._pumps.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not self._swallows:
                    writer.write(data)
                    await writer.drain()
        if not self._swallows:
            writer.transport.abort()


@asynccontextmanager
async def proxies(*addresses: str, port: int, to: str) -> AsyncIterator[list[Proxy]]:
    made = [Proxy(address, port, to) for address in addresses]
    try:
        for one in made:
            await one.start()
        yield made
    finally:
        for one in made:
            await one.stop()
