"""The other side of a benchmark, in processes of its own: pods and DNS must not be paid from the client's CPU time."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

from headlessconn.testing.zone import Listed, Port, Zone

_spawn = multiprocessing.get_context("spawn")

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


@contextmanager
def pods(count: int) -> Iterator[tuple[list[str], int]]:
    """`count` pods on 127.0.0.2 and up, each in its process, all on one port: their addresses, and the port."""
    addresses = [f"127.0.0.{last}" for last in range(2, 2 + count)]
    with ExitStack() as stack:
        listeners = _listen(addresses)
        for listener in listeners:
            stack.enter_context(listener)
            stack.enter_context(_process(_serve_pod, listener))
        yield addresses, listeners[0].getsockname()[1]


class Dns:
    """A `Zone` in another process. Its methods wait until the server has done as told."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.nameserver: str = pipe.recv()

    def headless(self, service: str, addresses: Sequence[str], port: int = 80, ttl: float = 5) -> None:
        """Publish a Service whose pods have one port, called `http`."""
        self._call("headless", service, [Listed(address, (Port("http", port),)) for address in addresses], ttl)

    def query_times(self) -> list[float]:
        """When each query so far arrived, by `time.monotonic()`."""
        times: list[float] = self._call("query_times")
        return times

    @property
    def options(self) -> dict[str, Any]:
        """For `headlessconn.Client`: this server, as a pod of the namespace `shop` would have it in its resolv.conf."""
        search = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
        return {"nameservers": (self.nameserver,), "search": search, "ndots": 5}

    def _call(self, *order: Any) -> Any:
        self._pipe.send(order)
        return self._pipe.recv()


@contextmanager
def dns() -> Iterator[Dns]:
    """A DNS server of the zone cluster.local, which has the namespace `shop`."""
    ours, theirs = _spawn.Pipe()
    with _process(_serve_dns, theirs):
        theirs.close()
        with ours:
            yield Dns(ours)


@contextmanager
def _process(work: Any, *arguments: Any) -> Iterator[None]:
    process = _spawn.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _listen(addresses: Sequence[str]) -> list[socket.socket]:
    """Sockets on one port that is free on all the addresses."""
    while True:
        listeners = [socket.socket() for _ in addresses]
        port = 0
        try:
            for address, listener in zip(addresses, listeners, strict=True):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen(256)
                port = listener.getsockname()[1]
            return listeners
        except OSError:
            for listener in listeners:
                listener.close()
            if not port:
                raise


class _Pod(asyncio.Protocol):
    """As little HTTP as a client believes: every header's end is a request, and every request gets the same answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        requests = data.count(b"\r\n\r\n")
        self._rest = data[data.rindex(b"\r\n\r\n") + 4 :] if requests else data
        if requests:
            self._transport.write(ANSWER * requests)


def _serve_pod(listener: socket.socket) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Pod, sock=listener)
        await server.serve_forever()

    asyncio.run(serve())


def _serve_dns(pipe: Connection) -> None:
    async def serve() -> None:
        async with Zone() as zone:
            zone.namespace("shop")
            over = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(pipe.fileno(), obey, zone, over)
            pipe.send(zone.nameserver)
            await over

    def obey(zone: Zone, over: asyncio.Future[None]) -> None:
        try:
            order = pipe.recv()
        except EOFError:  # the benchmark is over, or died
            asyncio.get_running_loop().remove_reader(pipe.fileno())
            return over.set_result(None)
        match order:
            case ["headless", service, listed, ttl]:
                zone.headless(service, listed, ttl=ttl)
                pipe.send(None)
            case ["query_times"]:
                pipe.send([query.at for query in zone.queries])

    asyncio.run(serve())
