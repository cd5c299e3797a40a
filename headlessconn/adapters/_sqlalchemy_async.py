"""The hooks of an `AsyncEngine` with aiomysql or asyncmy, on its event loop.

The library dials the pod's address itself; there is no public way to its socket under TLS, so a pod that falls silent
is noticed by the watch alone.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from sqlalchemy import Engine

from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.adapters._sqlalchemy_dial import Dialled, Dialling, Drop, Find, Line, Open, Pause, Place, Step
from headlessconn.adapters._sqlalchemy_hooks import Held, Hooks, Roles
from headlessconn.adapters._tls import PinnedContext, context_of
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.overdue import LOOK_EVERY, PROBE_TIMEOUT

Creator = Callable[..., Awaitable[Any]]


class AsyncOpener:
    """Opens the library's connections to pods: `await opener(endpoint, greeting, arguments, named)`.

    server_hostname   the name that certificates must be for
    timeout           seconds for TCP, TLS, login and greeting together
    """

    def __init__(self, driver: str, server_hostname: str, timeout: float, connect_timeout: float) -> None:
        self._creator: Creator = importlib.import_module(driver).connect
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
            if greeting is None:
                return raw, None
            try:
                return raw, await row_of(raw, greeting)
            except BaseException:
                raw.close()
                raise

    def _context(self, given: Any) -> PinnedContext | None:
        for one, made in self._pinned:
            if one is given or (isinstance(given, dict) and one == given):
                return made
        context = context_of(given)
        pinned = None if context is None else PinnedContext(context, self._name)
        self._pinned.append((given, pinned))
        return pinned


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

    def _do_connect(self, dialect: Any, record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        given = named.get("async_creator_fn")
        rest = {name: value for name, value in named.items() if name != "async_creator_fn"}
        return dialect.connect(*arguments, **rest, async_creator_fn=partial(self._connect, record, given))

    async def _connect(self, record: Any, given: Creator | None, *arguments: Any, **named: Any) -> Any:
        if given is not None:
            named["async_creator_fn"] = given
        dialled = await self._carry_out(self._dials(), arguments, named)
        self.keep(dialled, None, record)
        return dialled.raw

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
                raw.close()
            case Find():
                assert self._find is not None
                await self._find()
            case Pause(seconds=seconds):
                await asyncio.sleep(seconds)

    # ---- the watch ---------------------------------------------------------------------------------------------

    def is_alive(self, held: Held) -> bool:
        # aiomysql's pool asks its reader the same before it hands a connection out, asyncmy's pool its connection.
        reader = getattr(held.raw, "_reader", None)
        if reader is not None:
            return not (reader.at_eof() or reader.exception() is not None)
        return not getattr(held.raw, "_stream_broken", False)

    def cut(self, held: Held) -> None:
        held.raw.close()

    def start_ticking(self) -> None:
        asyncio.get_running_loop().call_later(LOOK_EVERY, self._on_tick)

    def _on_tick(self) -> None:
        if not self.closed:
            self.is_ticking = self.tick()
            if self.is_ticking:
                self.start_ticking()

    def probe(self, endpoint: Endpoint) -> None:
        self._spawn(self._probe(endpoint, self.place_probe(endpoint)))

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
