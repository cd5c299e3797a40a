"""The hooks of an `AsyncEngine` with aiomysql or asyncmy, on its event loop.

The library dials the pod's address itself, and verifies the Service's name. asyncio gives it a transport, by which a
connection can be looked at, and cut off from a pod that has vanished.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from functools import partial
from typing import Any

from sqlalchemy import Engine

from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.adapters._mysql_sockets import notice_vanished
from headlessconn.adapters._sqlalchemy_dial import Dialled, Dialling, Drop, Find, Line, Open, Pause, Place, Step
from headlessconn.adapters._sqlalchemy_hooks import Held, Hooks, Roles
from headlessconn.adapters._tls import PinnedContext, context_of
from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.probing import LOOK_EVERY, PROBE_TIMEOUT

Creator = Callable[..., Awaitable[Any]]

ASK_TIMEOUT = 2.0  # seconds for questions that a server answers from memory


class AsyncOpener:
    """Opens the library's connections to pods: `await opener(endpoint, greeting, arguments, named)`.

    server_hostname   the name that certificates must be for
    error             the library's class for errors of connections
    timeout           seconds for TCP, TLS, login and greeting together
    """

    def __init__(
        self,
        driver: str,
        error: Callable[[int, str], Exception],
        server_hostname: str,
        timeout: float,
        connect_timeout: float,
    ) -> None:
        library = importlib.import_module(driver)
        self._creator: Creator = partial(_by_ping, library.Connection) if driver == "aiomysql" else library.connect
        self._error = error
        self._name = server_hostname
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._pinned: list[tuple[Any, PinnedContext | None]] = []  # by what was given: a context costs milliseconds

    async def __call__(
        self, endpoint: Endpoint, greeting: str | None, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, Any]:
        named = dict(named)
        creator: Creator = named.pop("async_creator_fn", None) or self._creator
        named |= {"host": endpoint.address, "port": endpoint.port}
        if named.get("ssl"):
            named["ssl"] = self._context(named["ssl"])
        # Of TCP alone, in both libraries; theirs are None and 10 s.
        named["connect_timeout"] = min(named.get("connect_timeout") or self._connect_timeout, self._connect_timeout)
        async with asyncio.timeout(self._timeout):
            raw = await creator(*arguments, **named)
            try:
                self._look_at(raw, endpoint, named)
                return raw, None if greeting is None else await row_of(raw, greeting)
            except BaseException:
                abort(raw)
                raise

    def _look_at(self, raw: Any, endpoint: Endpoint, named: dict[str, Any]) -> None:
        transport = transport_of(raw)
        if transport is None:
            return
        if named.get("ssl") and transport.get_extra_info("ssl_object") is None:
            raise self._error(2026, f"{endpoint} offers no TLS, though ssl= asks for it")  # aiomysql goes on without
        sock = transport.get_extra_info("socket")
        if sock is not None:
            notice_vanished(sock, sends_files=bool(named.get("local_infile")))

    def _context(self, given: Any) -> PinnedContext | None:
        for one, made in self._pinned:
            if one is given or (isinstance(given, dict) and one == given):
                return made
        context = context_of(given)
        pinned = None if context is None else PinnedContext(context, self._name)
        self._pinned.append((given, pinned))
        return pinned


async def _by_ping(connection_class: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """`ping` connects too; `aiomysql.connect` would leave its socket open when it is cancelled."""
    connection = connection_class(*arguments, **named)
    try:
        await connection.ping(reconnect=True)
    except BaseException:
        connection.close()
        raise
    return connection


def transport_of(raw: Any) -> Any:
    """The transport under a connection of aiomysql or of asyncmy; None when it is closed, or is not where it was."""
    writer = getattr(raw, "_writer", None)
    return getattr(raw, "_transport", None) if writer is None else writer.transport


def is_alive(raw: Any) -> bool:
    """Whether nothing says that it has ended. aiomysql's own pool asks the reader the same before it hands a connection
    out, asyncmy's its connection."""
    reader = getattr(raw, "_reader", None)
    if reader is not None:
        return not (reader.at_eof() or reader.exception() is not None)
    return not getattr(raw, "_stream_broken", False)


def abort(raw: Any) -> None:
    """Close it now. Whoever waits on it is woken; nothing is waited for."""
    transport = transport_of(raw)
    if transport is not None:
        transport.abort()
    raw.close()


async def row_of(raw: Any, statement: str) -> Any:
    """The first row of an answer, by the driver's own connection."""
    async with raw.cursor() as cursor:
        await cursor.execute(statement)
        return await cursor.fetchone()


class AsyncHooks(Hooks):
    """`dials` makes the plan of one dial; `find` asks pods for their role, where that matters."""

    def __init__(
        self,
        engine: Engine,
        line: Line,
        opener: AsyncOpener,
        dials: Callable[[], Dialling],
        *,
        roles: Roles | None = None,
        find: Callable[[], Awaitable[None]] | None = None,
        silent_after: float,
    ) -> None:
        super().__init__(engine, line, roles, silent_after)
        self._opener = opener
        self._dials = dials
        self._find = find
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: dict[Key, Any] = {}  # connections for questions, by pod

    def _do_connect(self, dialect: Any, record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        given = named.get("async_creator_fn")
        rest = {name: value for name, value in named.items() if name != "async_creator_fn"}
        return dialect.connect(*arguments, **rest, async_creator_fn=partial(self._connect, record, given))

    async def _connect(self, record: Any, given: Creator | None, *arguments: Any, **named: Any) -> Any:
        if given is not None:
            named["async_creator_fn"] = given
        self._login = arguments, named
        dialled = await self._carry_out(self._dials(), arguments, named)
        self.keep(dialled, None, record)
        return dialled.raw

    async def ask(self, endpoint: Endpoint, *statements: str, keep: bool = False) -> list[Any]:
        """The first row of each answer, by a connection beside the pool, `keep` it for the next question. The engine
        must have dialled before."""
        raw = self._kept.pop(endpoint.key, None)
        if raw is None or not is_alive(raw):
            assert self._login is not None
            raw, _ = await self._opener(endpoint, None, *self._login)
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                rows = [await row_of(raw, statement) for statement in statements]
        except BaseException:
            abort(raw)
            raise
        if keep and not self.closed and endpoint.key not in self._kept:
            self._kept[endpoint.key] = raw
        else:
            abort(raw)
        return rows

    def unhook(self) -> None:
        super().unhook()
        self.keep_only(())

    def keep_only(self, keys: Collection[Key]) -> None:
        for key in self._kept.keys() - keys:
            abort(self._kept.pop(key))

    async def _carry_out(self, plan: Dialling, arguments: tuple[Any, ...], named: dict[str, Any]) -> Dialled:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = plan.send(answer) if error is None else plan.throw(error)
            except StopIteration as end:
                dialled: Dialled = end.value
                return dialled
            answer = error = None
            try:
                answer = await self._do(step, arguments, named)
            except BaseException as raised:
                error = raised

    async def _do(self, step: Step, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        match step:
            case Place(driver=driver, avoid=avoid, wait=wait):
                assert isinstance(driver, Driver)
                return await driver.claim(avoid, wait)
            case Open(endpoint=endpoint, greeting=greeting):
                return await self._opener(endpoint, greeting, arguments, named)
            case Drop(raw=raw):
                abort(raw)
            case Find():
                assert self._find is not None
                await self._find()
            case Pause(seconds=seconds):
                await asyncio.sleep(seconds)

    # ---- the watch ---------------------------------------------------------------------------------------------

    def is_alive(self, held: Held) -> bool:
        return is_alive(held.raw)

    def drop(self, held: Held) -> None:
        abort(held.raw)

    cut = drop

    def start_ticking(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_EVERY, self._on_tick)

    def _on_tick(self) -> None:
        if not self.closed:
            self.is_ticking = self.tick()
            if self.is_ticking:
                self.start_ticking()

    def probe(self, endpoint: Endpoint) -> None:
        self._spawn(self._probe(endpoint, self.line.driver().place_probe(endpoint.key)))

    async def _probe(self, endpoint: Endpoint, tell: Callable[[How], None]) -> None:
        how = How.CANCELLED
        try:
            (await dial.connect(endpoint, PROBE_TIMEOUT)).close()
            how = How.CALLER  # it was no connection to keep
        except OSError as error:
            how = dial.how_dial_failed(error)
        finally:
            tell(how)
            self.probed(endpoint, how)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


__all__ = ["AsyncHooks", "AsyncOpener", "row_of"]
