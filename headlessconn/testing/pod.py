"""A pod: a real aiohttp server on its own loopback address, which starts, serves, ails and dies as pods do.

Everything a client can notice is real: the port listens or refuses, connections break, bytes stop coming. Left out is
the network in between: an address whose pod is gone refuses here, where a cluster's may be silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self, cast

from aiohttp import WSCloseCode, WSMsgType, web

from headlessconn.testing._connection import Connection

__all__ = ["Handler", "Pod", "Request"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# A client that connected just before the pod closed its port is about to write its request. A pod that hung up on it at
# once would lose a request which no client could have saved; a pod that behaves well waits this long.
FIRST_REQUEST_WITHIN = 0.1


class Request(NamedTuple):
    """A request as it came in. `at` is `time.monotonic()`; `path` is without the query; `host` is the Host header."""

    at: float
    method: str
    path: str
    host: str
    headers: dict[str, str]


class Pod:
    """A pod on `address:port`; port 0 is any free one, and stays the same when the pod is started again.

    handler: an aiohttp low-level handler.
    app: makes an `aiohttp.web.Application` for this pod, anew at each start. With neither, the pod answers in JSON who
        it is and what it was asked, and knows `/slow?seconds=1`, `/status/503`, `/stream?chunks=10&seconds=0.1`, `/ws`
        (echoes), `/echo` (gives the body back), `/redirect?to=URL` and `/set-cookie?name=value`.
    ssl_context: serve TLS.
    keepalive_timeout: seconds until the pod closes an idle connection.

    To be read: `requests` (all that came in), `served` (answered by the handler), `in_flight`, `connections` (open
    now), `accepted` (connections ever). Operations may be repeated; one that does not apply does nothing.

        async with Pod("orders-1", "127.0.0.2") as pod:
            pod.freeze()                    # accepts connections, sends nothing
            pod.thaw()
            pod.fail(503)                   # answers badly, and at once
            pod.recover()
            await pod.drain(grace=0.2)      # what a pod does from SIGTERM on
    """

    def __init__(
        self,
        name: str = "pod",
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        handler: Handler | None = None,
        app: Callable[[Pod], web.Application] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        keepalive_timeout: float = 75.0,
    ) -> None:
        if handler is not None and app is not None:
            raise ValueError(f"pod {name}: give handler= or app=, not both")
        self.name = name
        self.address = address
        self.port = port
        self.requests: list[Request] = []
        self.served = 0
        self.in_flight = 0
        self.accepted = 0
        self.is_running = False
        self.is_draining = False
        self.is_frozen = False
        self._handler = handler or self._answer
        self._app = app
        self._ssl = ssl_context
        self._keepalive_timeout = keepalive_timeout
        self._runner: web.AppRunner | web.ServerRunner | None = None
        self._listener: socket.socket | None = None
        self._wires: set[Connection] = set()
        self._arriving: set[asyncio.Task[None]] = set()
        self._working: set[asyncio.Task[object]] = set()
        self._web_sockets: set[web.WebSocketResponse] = set()
        self._delay = 0.0
        self._status: int | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        state = "draining" if self.is_draining else "running" if self.is_running else "stopped"
        frozen = ", frozen" if self.is_frozen else ""
        return f"<Pod {self.name} {self.address}:{self.port} {state}{frozen}, {self.served} served>"

    @property
    def connections(self) -> int:
        return len(self._wires)

    @property
    def url(self) -> str:
        """The way to this one pod, past its Service."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http{'s' if self._ssl else ''}://{host}:{self.port}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition()` is true: `await pod.until(lambda: pod.in_flight == 1)`.

        It is looked at whenever a request or a connection of this pod begins or ends, and when the pod drains or dies.
        """
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # --- life and death

    async def start(self) -> None:
        """Serve. After a crash or a drain this is the restarted container: same address and port, no ailment."""
        if self.is_running:
            return
        await self.stop()
        self._loop = asyncio.get_running_loop()
        self.recover()
        try:
            self._open_listener()
            self._runner = self._make_runner()
            await self._runner.setup()
        except BaseException:
            self._close_listener()
            raise
        self.is_running = True
        self._loop.add_reader(self._open_listener(), self._accept)

    def kill(self) -> None:
        """Crash: from this call on the port refuses, every connection is broken, every request is lost."""
        if not self.is_running:
            return
        self.is_running = self.is_draining = self.is_frozen = False
        self._close_listener()
        if self._loop.is_closed():
            return
        for task in self._arriving:
            task.cancel()
        if self._runner is not None and self._runner.server is not None:
            self._runner.server.handler_cancellation = True  # what a dead process was doing ends too
        for wire in list(self._wires):
            wire.cut()
        self._tell()

    async def drain(self, grace: float = 0.2, *, close_listener_at_once: bool = False, finish: float = 5.0) -> None:
        """What happens from SIGTERM on; returns when the pod is gone.

        It goes on serving, new connections included, for `grace` seconds, as with a preStop pause. Then its port
        closes, idle connections are closed, open requests end normally; what takes longer than `finish` seconds is cut.
        With `close_listener_at_once` the port closes without that pause, as many servers have it: DNS lags behind then.
        """
        if not self.is_running:
            return
        if self.is_draining:
            await self.until(lambda: not self.is_running)
            return
        self.is_draining = True
        self._tell()
        try:
            if not close_listener_at_once:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace):
                        await self.until(lambda: not self.is_running)
            await self._end_normally(finish)
        finally:
            self.kill()
        await self.stop()

    async def stop(self) -> None:
        """Crash, and wait until nothing is left: no task, no socket. The end of `async with`."""
        self.kill()
        runner, self._runner = self._runner, None
        for task in list(self._working):
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)
        await self.until(lambda: not self._wires and not self._arriving)
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def _end_normally(self, finish: float) -> None:
        if not self.is_running:
            return
        self._accept()  # the queue of the port: those clients believe they are connected
        self._close_listener()
        for wire in list(self._wires):
            wire.end_if_idle()
        hang_up = self._loop.call_later(FIRST_REQUEST_WITHIN, self._end_silent)
        try:
            async with asyncio.timeout(finish):
                closing = (ws.close(code=WSCloseCode.GOING_AWAY) for ws in list(self._web_sockets))
                await asyncio.gather(*closing, return_exceptions=True)
                await self.until(lambda: not self._wires and not self._arriving)
        except TimeoutError:
            pass
        finally:
            hang_up.cancel()

    def _end_silent(self) -> None:
        for wire in list(self._wires):
            wire.end_if_idle(even_fresh=True)

    # --- ailments

    def freeze(self) -> None:
        """Stop like a process under SIGSTOP: the kernel goes on accepting connections, no byte comes back."""
        if not self.is_running or self.is_frozen:
            return
        self.is_frozen = True
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
        for wire in self._wires:
            wire.freeze()

    def thaw(self) -> None:
        """Go on where `freeze` stopped: what was asked meanwhile is answered now."""
        if not self.is_frozen:
            return
        self.is_frozen = False
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)
        for wire in list(self._wires):
            wire.thaw()

    def slow(self, seconds: float) -> None:
        """Wait so long before each request is handled; 0 ends it."""
        self._delay = seconds

    def fail(self, status: int = 503) -> None:
        """Answer every request with `status`, at once: the pod that fails fast and so looks fast."""
        self._status = status

    def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        self._close_listener()

    def recover(self) -> None:
        """End `freeze`, `slow`, `fail` and `refuse`."""
        self.thaw()
        self._delay = 0.0
        self._status = None
        if self.is_running and not self.is_draining and self._listener is None:
            self._loop.add_reader(self._open_listener(), self._accept)

    # --- connections

    def _open_listener(self) -> socket.socket:
        if self._listener is not None:
            return self._listener
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.setblocking(False)
            self._listener.bind((self.address, self.port))
            self._listener.listen(128)
        except OSError as error:
            self._close_listener()
            raise OSError(
                error.errno, f"pod {self.name} cannot listen on {self.address}:{self.port}: {error}"
            ) from error
        self.port = self._listener.getsockname()[1]
        return self._listener

    def _close_listener(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(listener)
            listener.close()

    def _accept(self) -> None:
        while self._listener is not None and not self.is_frozen:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._welcome(sock))
            self._arriving.add(task)
            task.add_done_callback(functools.partial(self._arrived, sock))

    async def _welcome(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self), sock, ssl=self._ssl, ssl_handshake_timeout=5.0 if self._ssl else None
            )
        except OSError:  # a TLS handshake that failed or was given up
            sock.close()

    def _arrived(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        if task.cancelled():
            sock.close()
        self._tell()

    # --- requests

    def _make_runner(self) -> web.AppRunner | web.ServerRunner:
        # Nobody waits for a pod that was killed: `cleanup` comes when all is cut already.
        if self._app is None:

            async def observed(request: web.BaseRequest) -> web.StreamResponse:
                return await self._serve(request, self._handler)

            server = web.Server(observed, access_log=None, keepalive_timeout=self._keepalive_timeout)
            return web.ServerRunner(server, shutdown_timeout=0.1)

        @web.middleware
        async def observe(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            return await self._serve(request, cast(Handler, handler))

        app = self._app(self)
        app.middlewares.insert(0, observe)
        return web.AppRunner(app, access_log=None, keepalive_timeout=self._keepalive_timeout, shutdown_timeout=0.1)

    async def _serve(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        headers = dict(request.headers)
        self.requests.append(Request(time.monotonic(), request.method, request.path, headers.get("Host", ""), headers))
        task, wire = asyncio.current_task(), request.transport
        assert task is not None
        self._working.add(task)
        self.in_flight += 1
        self._tell()
        response: web.StreamResponse | None = None
        try:
            if self._status is not None:
                response = web.json_response({"pod": self.name, "failing": True}, status=self._status)
            else:
                if self._delay > 0:
                    await asyncio.sleep(self._delay)
                response = await handler(request)
            return response
        except web.HTTPException as error:
            response = error
            raise
        finally:
            self._working.discard(task)
            self.in_flight -= 1
            if response is not None:
                self.served += 1
                if self.is_draining and self._listener is None:
                    response.force_close()
            if isinstance(wire, Connection):
                self._loop.call_soon(wire.answered)  # aiohttp writes the response after the handler, before this
            self._tell()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        query, who = request.query, {"X-Pod": self.name}
        match request.path.strip("/").split("/"):
            case ["slow"]:
                await asyncio.sleep(float(query.get("seconds", "1")))
            case ["status", code]:
                return web.json_response({"pod": self.name, "status": int(code)}, status=int(code), headers=who)
            case ["echo"]:
                kind = request.headers.get("Content-Type", "application/octet-stream")
                return web.Response(body=await request.read(), headers={**who, "Content-Type": kind})
            case ["redirect"]:
                return web.Response(status=302, headers={**who, "Location": query.get("to", "/")})
            case ["set-cookie"]:
                response = web.json_response({"pod": self.name}, headers=who)
                for name, value in query.items():
                    response.set_cookie(name, value)
                return response
            case ["stream"]:
                return await self._stream(request, int(query.get("chunks", "10")), float(query.get("seconds", "0.1")))
            case ["ws"]:
                return await self._echo_messages(request)
        told = {"method": request.method, "path": request.path, "query": dict(query), "headers": dict(request.headers)}
        place = {"pod": self.name, "address": self.address, "port": self.port}
        return web.json_response({**place, "host": request.headers.get("Host"), **told}, headers=who)

    async def _stream(self, request: web.BaseRequest, chunks: int, seconds: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Pod": self.name})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for number in range(chunks):
            await response.write(f"{self.name} {number}\n".encode())
            await asyncio.sleep(seconds)
        return response

    async def _echo_messages(self, request: web.BaseRequest) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        ws.headers["X-Pod"] = self.name
        await ws.prepare(request)
        self._web_sockets.add(ws)
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    await ws.send_str(message.data)
                elif message.type is WSMsgType.BINARY:
                    await ws.send_bytes(message.data)
        finally:
            self._web_sockets.discard(ws)
        return ws
