"""Asking DNS in the one thread of a blocking client, and the sources that do."""

from __future__ import annotations

import socket
import time

from headlessconn._runtime.asking import LARGEST, TRY_TIMEOUT, Asking, is_forgery, socket_for
from headlessconn._runtime.poll import Overdue, Poll
from headlessconn._runtime.resolvconf import Server
from headlessconn._runtime.source import Source, StaticSource
from headlessconn.core.endpoint import Answer
from headlessconn.core.lookup import Lookup, Memory
from headlessconn.core.target import Target
from headlessconn.options import Options


class BlockingResolver(Asking):
    """Asks the servers of one client, in its thread."""

    def __init__(self, options: Options, poll: Poll) -> None:
        super().__init__(options)
        self._poll = poll

    async def _udp(self, server: Server, query: bytes, asked: bytes) -> bytes:
        until = self._until()
        with self._poll.open(socket_for(server, socket.SOCK_DGRAM)) as sock:
            sock.connect((server.address, server.port))
            self.queries += 1
            sock.send(query)
            while True:
                await self._poll.readable(sock, until)
                try:
                    data = sock.recv(LARGEST)
                except BlockingIOError:
                    continue  # the kernel dropped it after all: a wrong checksum
                if not is_forgery(data, query, asked):
                    return data

    async def _tcp(self, server: Server, query: bytes) -> bytes:
        until = self._until()
        with self._poll.open(socket_for(server, socket.SOCK_STREAM)) as sock:
            await self._poll.connect(sock, (server.address, server.port), until)
            self.queries += 1
            sock.send(len(query).to_bytes(2, "big") + query)  # some fifty bytes into an empty buffer: whole
            size = int.from_bytes(await self._exactly(sock, 2, until), "big")
            return await self._exactly(sock, size, until)

    async def _exactly(self, sock: socket.socket, size: int, until: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            await self._poll.readable(sock, until)
            part = sock.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return bytes(data)

    def _until(self) -> float:
        return time.monotonic() + min(TRY_TIMEOUT, self._options.lookup_timeout)

    async def _sleep(self, seconds: float) -> None:
        await self._poll.sleep(seconds)

    async def _turn(self) -> None:
        await self._poll.sleep(0)


class BlockingDnsSource:
    def __init__(self, target: Target, options: Options, resolver: BlockingResolver) -> None:
        self.memory = Memory()
        self._target = target
        self._options = options
        self._resolver = resolver

    async def look_up(self) -> Answer:
        """One look-up, with all its questions and tries. The questions come one after the other: there are several only
        where a server leaves out the addresses of SRV targets, and nobody waits for this thread."""
        search = self._resolver.conf.setting().search
        lookup = Lookup(self._target, search, self._options, self.memory, time.monotonic())
        try:
            while lookup.answer is None:
                lookup.told([await self._resolver.ask(question) for question in lookup.questions])
        except Overdue:
            return Answer("dns", "no_news", why="timeout", name=lookup.questions[0].name)
        return lookup.answer


def blocking_source_of(target: Target, options: Options, resolver: BlockingResolver) -> Source:
    """What is asked for a target; its coroutines run in a `Poll`, within `lookup_timeout`."""
    match target.kind:
        case "static":
            return StaticSource(target)
        case "dns":
            return BlockingDnsSource(target, options, resolver)
