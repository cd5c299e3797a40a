"""The pool of aiomysql and asyncmy, with their names, over ours: what the two adapters share.

Not one stock pool a pod: those dial and drain under one lock, so that a pod which hangs holds up check-ins too; they
cannot share a limit; and what befalls a pod (full, wrong password, silent, leaving) would have to be told to each.
Connections are the library's own, opened, pinged and closed by its public calls.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator, Mapping
from math import inf
from types import TracebackType
from typing import Any, Literal, Self

from headlessconn import errors
from headlessconn._runtime.pooling import Runner
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_hosts import OPTIONS, is_off, place_of, service_of
from headlessconn.adapters._mysql_opener import Failed, Greet, Library, Opener, split
from headlessconn.adapters._routes import PASS
from headlessconn.client import Client, Service
from headlessconn.core.endpoint import How
from headlessconn.core.pooling import Phase, Place, PoolSnapshot, Slot
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.pool import Acquiring
from headlessconn.pool import Pool as OurPool

UNLIMITED = 100_000
GONE = "closed by its server"


class FollowingPool:
    """A pool of connections to the pods of one service, with the names of the library's own pool. Made by
    `create_pool`; the public names are those of aiomysql's `Pool`."""

    def __init__(
        self,
        library: Library,
        service: Service,
        own: Client | None,
        server_hostname: str | None,
        echo: bool,
        settings: Mapping[str, Any],
        greet: Greet | None = None,
        failed: Failed | None = None,
    ) -> None:
        rules, arguments = split(settings)
        self.library = library
        self._own = own
        self._echo = echo
        self.cleans = arguments.get("autocommit") is not True
        self._opener = opener = Opener(library, service, server_hostname, arguments | {"echo": echo}, greet, failed)
        self._pool: OurPool[Any] = service.pool(
            open=opener.open,
            close=opener.close,
            check=opener.check,
            reset=opener.clean if self.cleans else None,
            on_silent=opener.cut,
            is_lost=_mysql.is_lost,
            is_full=_mysql.is_full,
            **{"check_timeout": 1.0, **rules},
        )
        self.taken: dict[int, Taking] = {}  # by `await`
        self._closing = False
        self._closed = False
        self.service = service

    # ---- taking and giving back --------------------------------------------------------------------------------

    def acquire(self, timeout: float | None = inf) -> Taking:
        """A connection, as `async with pool.acquire() as connection:`, or by `await`, to be given back by `release`.

        Raises, beside what the library raises when every pod says the same, `NoEndpoints` and `PoolTimeout`, which are
        its `OperationalError` too; `RuntimeError` once the pool closes.
        """
        if self._closing:
            raise errors.ClosedError(f"Cannot acquire connection after closing pool: that of {self.service.target}")
        frame = sys._getframe(1)
        return Taking(self, self._pool, timeout, (frame.f_code.co_filename, frame.f_lineno))

    def release(self, connection: Any) -> asyncio.Future[None]:
        """Give back what `await pool.acquire()` gave. One that is closed is not kept, nor one in a transaction; without
        `autocommit=True` each is rolled back instead."""
        taking = self.taken.pop(id(connection), None)
        if taking is None:
            raise errors.NotHeld(f"the pool of {self.service.target} has not handed out {connection!r} by `await`")
        taking.end(None)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    # ---- life --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open one connection, if any is to be kept: what is wrong with all pods is known now. The others follow."""
        if self._pool.rules.min_size:
            async with self.acquire():
                pass

    def close(self) -> None:
        """No new callers; connections that are out are closed as they come back. Then `await pool.wait_closed()`."""
        self._closing = True
        runner = self._pool._runner
        if runner is not None and not self._closed:
            runner.machine.close(runner.now())
            runner.obey()

    def terminate(self) -> None:
        """As `close`; those that are out are closed now."""
        self.close()
        runner = self._pool._runner
        if runner is not None and not self._closed:
            runner.machine.cut(runner.now())
            runner.obey()

    async def wait_closed(self) -> None:
        """Wait until every connection is back and closed; then the client ends, if it is its own."""
        if self._closed:
            return
        if not self._closing:
            raise RuntimeError(".wait_closed() should be called after .close()")
        await self._pool.aclose(inf)
        self._closed = True
        if self._own is not None:
            await self._own.aclose()

    async def clear(self) -> None:
        """Close all that nobody has in hand."""
        runner = self._pool._runner
        if runner is not None:
            for slot in list(runner.machine.slots):
                if slot.phase is Phase.IDLE:
                    runner.machine.retire(slot, "cleared", runner.now())
            runner.obey()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    # ---- seeing ------------------------------------------------------------------------------------------------

    @property
    def minsize(self) -> int:
        return self._pool.rules.min_size

    @property
    def maxsize(self) -> int | None:
        """None when there is no limit."""
        size = self._pool.rules.max_size
        return None if size == UNLIMITED else size

    @property
    def size(self) -> int:
        """Connections that are open, or being opened."""
        return self.snapshot.size

    @property
    def freesize(self) -> int:
        """Those that nobody has in hand."""
        return self.snapshot.idle

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def echo(self) -> bool:
        return self._echo

    @property
    def snapshot(self) -> PoolSnapshot:
        """Everything known about it now, by pod."""
        return self._pool.snapshot

    def __repr__(self) -> str:
        return f"<headlessconn {self.library.name} pool: {self._pool!r}>"


class Taking(Acquiring[Any]):
    """The `async with`, or the `await`, of `FollowingPool.acquire`."""

    __slots__ = ("_owner",)

    def __init__(self, owner: FollowingPool, pool: OurPool[Any], timeout: float | None, place: Place) -> None:
        super().__init__(pool, timeout, place)
        self._owner = owner

    async def __aenter__(self) -> Any:
        pool, library = self._pool, self._owner.library
        runner = pool._begun()
        while True:
            slot = runner.take(self._place)
            if slot is None:
                slot = await self._waited(runner)
            connection = slot.connection
            if not library.is_dead(connection):
                self._slot = slot
                return connection
            runner.machine.broke(slot, GONE, How.RESET_REUSED, runner.now())  # its pod went while it was idle
            runner.obey()

    async def _waited(self, runner: Runner) -> Slot:
        try:
            return await self._pool._wait(runner, self._place, self._timeout)
        except (errors.NoEndpoints, errors.PoolTimeout) as error:
            raise self._owner.library.no_connection(error) from error

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(error)

    def __await__(self) -> Generator[Any, Any, Any]:
        connection = yield from self.__aenter__().__await__()
        self._owner.taken[id(connection)] = self
        return connection

    def end(self, error: BaseException | None) -> None:
        """Give it back. One that is closed is not kept, nor one in a transaction that was begun: neither library's own
        pool does. Without autocommit each is rolled back."""
        slot, runner = self._slot, self._pool._runner
        assert slot is not None
        assert runner is not None
        if slot.phase is not Phase.BUSY:
            return  # the pool was terminated meanwhile
        connection = slot.connection
        is_fit = self._owner.library.is_open(connection) and (
            self._owner.cleans or (connection.get_autocommit() and not connection.get_transaction_status())
        )
        if is_fit or (error is not None and _mysql.is_lost(error)):
            runner.give_back(slot, error)
        else:
            runner.discard(slot)


class Creating:
    """What `create_pool` gives: to be awaited, or an `async with` whose end closes the pool."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        self._make = make
        self._pool: Any = None

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._make().__await__()

    async def __aenter__(self) -> Any:
        self._pool = await self._make()
        return self._pool

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()
        await self._pool.wait_closed()


async def make_pool(
    library: Library,
    service: str | Target | Service | None,
    server_hostname: str | None,
    sizes: tuple[int, int],
    echo: bool,
    recycle: int,
    settings: dict[str, Any],
) -> Any:
    """A pool that follows the service; the library's own when host and port name none."""
    minsize, maxsize = sizes
    if minsize < 0:
        raise ValueError("minsize should be zero or greater")
    if maxsize < minsize and maxsize != 0:
        raise ValueError("maxsize should be not less than minsize")
    named: dict[str, Any] = {name: settings.pop(name) for name in ("host", "port") if name in settings}
    if service is not None and is_off() and (place := place_of(service)):
        named, service = place, None
    options: Options | None = settings.pop("options", None)
    client = Client(options or OPTIONS)  # opens nothing before its first use
    try:
        found = await _found(service, named, settings, client)
        if found != PASS:
            idle = recycle if recycle > -1 else None
            rules = {"min_size": minsize, "max_size": maxsize or UNLIMITED, "idle_timeout": idle}
            pool = FollowingPool(library, found, client, server_hostname, echo, rules | settings)
            try:
                await pool.start()
            except BaseException:
                pool.terminate()
                await pool.wait_closed()
                raise
            return pool
    except BaseException:
        await client.aclose()
        raise
    await client.aclose()
    _, arguments = split(settings)
    return await library.stock(minsize=minsize, maxsize=maxsize, echo=echo, pool_recycle=recycle, **named, **arguments)


async def _found(
    service: str | Target | Service | None, named: Mapping[str, Any], settings: dict[str, Any], client: Client
) -> Service | Literal["pass"]:
    if service is None and settings.get("unix_socket"):
        return PASS
    return await service_of(service, named.get("host"), named.get("port"), client)
