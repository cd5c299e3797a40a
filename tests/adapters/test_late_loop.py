"""Our own loop was busy while the answer came: that is no silence of the pod, and needs no copy."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp

from headlessconn import Client, Pick
from headlessconn.adapters.aiohttp import HeadlessConnector
from tests.adapters.world import until

HEDGE_AFTER = 0.4  # seconds: more than a busy machine takes to begin a request


class Told:
    """What two servers, in threads of their own, received; and when they may answer it."""

    def __init__(self) -> None:
        self.received = 0
        self._lock = threading.Lock()
        self._may_answer = threading.Semaphore(0)
        self._answered = threading.Semaphore(0)

    def serve(self, send: Callable[[bytes], object]) -> None:
        """One request, in its server's thread."""
        with self._lock:
            self.received += 1
        assert self._may_answer.acquire(timeout=10.0)
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self._answered.release()

    async def busy_while_answered(self, count: int) -> None:
        """Wait until so many requests were received in all, and keep the loop from everything else while the last one
        is answered and the time to hedge comes."""
        await until(lambda: self.received >= count)
        self._may_answer.release()
        assert self._answered.acquire(timeout=10.0)
        time.sleep(HEDGE_AFTER)  # noqa: ASYNC251 - the loop is to stand still


@contextlib.asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[Told, str]]:
    told = Told()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.serve(self.wfile.write)

        def log_message(self, *_: Any) -> None:
            pass

    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Answer))
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
            ports.append(server.server_address[1])
        yield told, f"static:///{','.join(f'127.0.0.1:{port}' for port in ports)}"


def spent(client: Client, target: str) -> int:
    """How many copies were paid for: one that is called off before it is sent has cost a dial all the same."""
    return client.service(target).driver().engine.budget.spent


async def test_an_answer_that_waited_for_our_loop_needs_no_copy() -> None:
    async with two_servers() as (told, target), Client() as client:
        connector = HeadlessConnector(client, targets={"orders": target}, hedge_after=HEDGE_AFTER)
        async with aiohttp.ClientSession(connector=connector) as session:
            for count in range(1, 4):
                asking = asyncio.create_task(session.get("http://orders/"))
                await told.busy_while_answered(count)
                async with await asking as response:
                    assert await response.text() == "ok"
            assert (told.received, spent(client, target)) == (3, 0)


async def test_nor_does_one_of_a_function_that_is_run() -> None:
    async def ask(pick: Pick) -> bytes:
        reader, writer = await asyncio.open_connection(pick.host, pick.port)
        with contextlib.closing(writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
            return await reader.readuntil(b"ok")

    async with two_servers() as (told, target), Client() as client:
        service = client.service(target)
        for count in range(1, 4):
            running = asyncio.create_task(service.run(ask, repeatable=True, hedge_after=HEDGE_AFTER))
            await told.busy_while_answered(count)
            assert (await running).endswith(b"ok")
        assert (told.received, spent(client, target)) == (3, 0)
