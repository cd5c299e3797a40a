"""A pod's HTTP server as its own process: small, so that many fit beside what is measured, and honest about SIGTERM.

    python -m tests.real.http_pod NAME --address 10.244.1.10 --port 8080 --log FILE [--grace 8] [--service-time 0.005]

GET /whoami says NAME, /slow?seconds=1 says it late; a POST anywhere is read and answered. Every request is logged when
its last byte has come: `time.monotonic()`, its X-Request-Id, its method. What a client hears and what a pod received
are two things, and repeated requests show only here.

SIGTERM: serve on for `--grace` seconds, then end. SIGUSR1: every answer takes `--slow-factor` times longer from now on.
SIGUSR2: no grace, so that SIGTERM closes at once.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from urllib.parse import parse_qs, urlsplit

BACKLOG = 1024


class Server:
    """The pod's state: who is connected, how long an answer takes, whether it is closing."""

    def __init__(self, name: str, log: str, service_time: float, slow_factor: float) -> None:
        self.body = name.encode()
        self.service_time = service_time
        self.closing = False
        self.connections: set[Connection] = set()
        self.all_gone = asyncio.Event()
        self._slow_factor = slow_factor
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def received(self, ident: str, method: str) -> None:
        os.write(self._log, f"{time.monotonic():.6f} {ident} {method}\n".encode())  # at once: SIGKILL may be next

    def grow_slow(self) -> None:
        self.service_time *= self._slow_factor

    def close(self, listener: asyncio.Server) -> None:
        """As most servers end: no new connection, idle ones closed, what is being answered is answered, with a
        `Connection: close`."""
        self.closing = True
        listener.close()
        for connection in list(self.connections):
            connection.close_if_idle()
        self.check_gone()

    def check_gone(self) -> None:
        if self.closing and not self.connections:
            self.all_gone.set()


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; one request at a time, pipelined ones wait."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._rest = b""
        self._answering: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None:
            self._answering.cancel()
        self._server.connections.discard(self)
        self._server.check_gone()

    def close_if_idle(self) -> None:
        if self._answering is None and not self._rest:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._rest += data
        self._go_on()

    def _go_on(self) -> None:
        while self._answering is None and not self._transport.is_closing():
            head, found, rest = self._rest.partition(b"\r\n\r\n")
            if not found:
                return None
            request_line, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if "transfer-encoding" in headers:
                return self._answer(501, close=True)
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return None
            self._rest = rest[length:]
            method, target, _ = request_line.split(" ")
            self._server.received(headers.get("x-request-id", "-"), method)
            delay, close = self._server.service_time, headers.get("connection", "").lower() == "close"
            path = urlsplit(target)
            if path.path == "/slow":
                delay += float(parse_qs(path.query).get("seconds", ["1"])[0])
            if delay <= 0:
                self._answer(200, close)
            else:
                self._answering = asyncio.get_running_loop().call_later(delay, self._answer_late, close)

    def _answer_late(self, close: bool) -> None:
        self._answering = None
        self._answer(200, close)
        self._go_on()

    def _answer(self, status: int, close: bool) -> None:
        close = close or self._server.closing
        body = self._server.body
        self._transport.write(
            b"HTTP/1.1 %d .\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n%s\r\n%s"
            % (status, len(body), b"Connection: close\r\n" if close else b"", body)
        )
        if close:
            self._transport.close()


async def serve(arguments: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    server = Server(arguments.name, arguments.log, arguments.service_time, arguments.slow_factor)
    listener = await loop.create_server(
        lambda: Connection(server), arguments.address, arguments.port, backlog=BACKLOG
    )
    loop.add_signal_handler(signal.SIGTERM, lambda: loop.call_later(arguments.grace, server.close, listener))
    loop.add_signal_handler(signal.SIGUSR1, server.grow_slow)
    loop.add_signal_handler(signal.SIGUSR2, setattr, arguments, "grace", 0.0)
    await server.all_gone.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--address", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--log", default=os.devnull, help="where received requests are written down")
    parser.add_argument("--grace", type=float, default=0.0, help="seconds to serve on after SIGTERM; 0 closes at once")
    parser.add_argument("--service-time", type=float, default=0.0, help="seconds that every answer takes")
    parser.add_argument("--slow-factor", type=float, default=20.0, help="by which SIGUSR1 multiplies it")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
