"""The read/write split on an event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self

import sqlalchemy.exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from headlessconn._runtime.driver import Driver
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_replication import PACE, ROUND, Apart, questions
from headlessconn.adapters._sqlalchemy_async import AsyncHooks, AsyncOpener
from headlessconn.adapters._sqlalchemy_dial import Dialling, Line
from headlessconn.adapters._sqlalchemy_roles import TICK
from headlessconn.adapters._sqlalchemy_sides import Sides
from headlessconn.adapters._sqlalchemy_split import Split, is_mariadb
from headlessconn.client import Client, Service
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.writes import Token

log = logging.getLogger("headlessconn")


class ReadWrite(Sides[AsyncEngine, Driver, AsyncHooks]):
    """Writes to the primary, reads from the replicas, said by the caller and never guessed from SQL.

        db = ReadWrite(
            lambda: create_async_engine("mysql+aiomysql://app:secret@/shop", pool_size=10),
            primary="mysql-primary.data:3306",
            replicas="mysql-read.data:3306",
        )
        async with db:
            async with db.primary() as connection, connection.begin():
                await connection.execute(insert(orders).values(note="new"))
            async with db.replica() as connection:
                rows = await connection.execute(select(orders))

    Each new connection is asked for the role of its pod. A primary that has been demoted gets no second write: the
    error of the first (1290, 1836, 1792) is raised as it is, with `error.retryable = True`, and that connection and
    those beside it are replaced. Nothing is ever executed again by itself.

    make_engine      makes an `AsyncEngine` with aiomysql or asyncmy; called twice, for a pool of each role
    primary          target of who takes writes, or of all pods
    replicas         target of the replicas; None: there is one name for all pods, `primary`
    probe_role       ask every pod whether it takes writes, do not wait for DNS to say so: after a fail-over, writes go
                     on as soon as one does. Needed where there is one name; every pod must let this user in
    options          of the clients that it makes; default `Options(refresh_max=1, rebalance_over=3)`.
                     `wait_for_endpoints` (5 s) is also how long a caller waits for a primary until `NoPrimary`
    on_no_replica    when no replica can be had: "primary" reads from there, "fail" raises
    after_write      whether a context reads what it has written. None: not always. "gtid": replicas are waited for,
                     at most `gtid_timeout`, else the primary serves. "sticky": the primary serves for `sticky` seconds
    max_lag          seconds; replicas that are more behind, or have stopped, are not read from, all but the best.
                     Costs each pod a connection and a question every second, or `max_lag` / 2 if that is less
    server_hostname  the name that certificates must be for; default: that of each Service
    silent_after, open_timeout   as those of `attach`

    Raises `OptionError`, `TargetError`. Use it on one loop, as `async with`, or `await db.aclose()`.
    """

    def _open_clients(self, split: Split) -> tuple[Service, Service]:
        self._clients = Client(split.options), Apart(split.options)
        return self._clients[0].service(split.primary_target), self._clients[1].service(split.replica_target)

    def _prepare(self) -> None:
        self._finding: asyncio.Task[None] | None = None
        self._asked_at = -PACE
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._keeper: asyncio.Task[None] | None = None

    def _hooked(
        self,
        engine: AsyncEngine,
        side: int,
        dials: Callable[[Line], Dialling],
        server_hostname: str | None,
        silent_after: float,
        open_timeout: float,
    ) -> AsyncHooks:
        core, service = engine.sync_engine, self._services[side]
        line = Line(str(service.target), self._driver if side else service.driver, _operational(engine))
        name = server_hostname or service.target.host
        opener = AsyncOpener(core.driver, line.error, name, open_timeout, self._split.options.connect_timeout)
        return AsyncHooks(
            core,
            line,
            opener,
            lambda: dials(line),
            roles=self._replicas if side else self._replication,
            find=self._find,
            silent_after=silent_after,
        )

    # ---- use ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def primary(self) -> AsyncIterator[AsyncConnection]:
        """A connection to the pod that takes writes, as `async with db.primary() as connection:`. Commit what you
        write: the end of the block rolls back what is not, as SQLAlchemy has it.

        Raises `NoPrimary` (retryable) when no pod takes writes for `wait_for_endpoints` seconds.
        """
        self._begin()
        async with self.primary_engine.connect() as connection:
            written = self._split.unknown_write() if self._split.after_write else Token()
            try:
                yield connection
            except Exception:
                written = await self._written_on(connection)
                raise
            else:
                written = await self._written_on(connection)
            finally:
                self._split.wrote(written)

    @asynccontextmanager
    async def replica(self, after: str | Token | None = None) -> AsyncIterator[AsyncConnection]:
        """A connection to read by, as `async with db.replica() as connection:`.

        after   a token of `db.token()`, from another request maybe: what this reader must see, beside what this context
                has written

        Raises what the driver does when no replica can be had, `NoEndpoints` when there is none, both only with
        `on_no_replica="fail"`; `OptionError` for a token that is none.
        """
        self._begin()
        needed = self._split.needed(after)
        connection = None if self._split.only_primary(needed) else await self._reading(needed)
        if connection is None:
            connection = await self.primary_engine.connect()
        try:
            yield connection
        finally:
            await asyncio.shield(asyncio.ensure_future(connection.close()))

    async def _reading(self, needed: Token) -> AsyncConnection | None:
        """A connection to a replica that has all this; None: the primary is to serve."""
        if self._split.on_no_replica == "primary" and self._has_none():
            return None
        try:
            connection = await self.replica_engine.connect()
        except sqlalchemy.exc.DBAPIError as error:
            if self._split.on_no_replica == "fail":
                raise
            log.debug("%s: no replica (%s), the primary serves", self._replication.name, error)
            return None
        try:
            if await connection.run_sync(self._split.has_seen, needed):
                return connection
        except BaseException:
            await connection.close()
            raise
        await connection.close()
        return None

    async def _written_on(self, connection: AsyncConnection) -> Token:
        if self._split.after_write is None:
            return Token()
        if connection.closed:
            return self._split.unknown_write()
        return await connection.run_sync(self._split.written_on)

    # ---- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the pools, as far as their connections are not out, and the clients."""
        keeper, self._keeper = self._keeper, None
        tasks = [*self._tasks, *([keeper] if keeper is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for engine in (self.primary_engine, self.replica_engine):
            await engine.dispose()
        for hooks in self._hooks:
            hooks.unhook()
        for client in self._clients:
            await client.aclose()

    def _begin(self) -> None:
        if self._keeper is None:
            self._services[0].driver()  # raises for a client that is closed, or another loop's
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    # ---- who is who --------------------------------------------------------------------------------------------

    async def _look(self) -> bool:
        """Tell what DNS lists; whether somebody should be asked for his role."""
        found: list[tuple[Endpoint, ...]] = []
        for driver in (self._services[0].driver(), self._driver()):
            if driver.engine.answer is None:
                async with asyncio.timeout(self._replication.wait + 1.0):
                    await driver.first_word()
            driver._tell(driver.engine.needed)
            found.append(driver.snapshot().endpoints)
        return self._replication.listed(found[0], found[0] if self._replication.is_one else self._all_replicas())

    async def _find(self) -> None:
        """One round of asking at a time, for all who wait for it."""
        if self._finding is None or self._finding.done():
            self._finding = self._spawn(self._ask_all())
        await asyncio.shield(self._finding)

    async def _ask_all(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._asked_at + PACE - loop.time()))
        self._asked_at = loop.time()
        try:
            await self._look()
        except TimeoutError:
            return  # DNS is silent: there is nobody to ask
        for endpoint in self._replication.to_ask():
            if endpoint.key not in self._asking:
                self._asking[endpoint.key] = self._spawn(self._ask(endpoint))
        # A pod that is silent is waited for in the rounds after this one; others may have been promoted meanwhile.
        ends_at = self._asked_at + ROUND
        while self._asking and self._replication.primary is None and (left := ends_at - loop.time()) > 0:
            await asyncio.wait(self._asking.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _ask(self, endpoint: Endpoint) -> None:
        try:
            [row] = await self._hooks[0].ask(endpoint, _mysql.ROLE)
        except Exception as error:
            self._replication.silent(endpoint, error)
        else:
            self._replication.answered(endpoint, row)
        finally:
            self._asking.pop(endpoint.key, None)

    # ---- the keeper --------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Follow what DNS says of roles, and how far replicas are."""
        max_lag = self._replication.max_lag
        every = 0.0 if max_lag is None else self._replication.sample_every
        sampled_at = 0.0
        while True:
            await asyncio.sleep(TICK)
            try:
                if await self._look() and self._hooks[0].has_dialled:
                    await self._find()
                if max_lag is not None and time.monotonic() >= sampled_at + every:
                    sampled_at = time.monotonic()
                    await self._sample()
            except TimeoutError:
                pass  # DNS is silent, which its engine says
            except Exception:
                log.exception("%s: looking after its roles stumbled, and goes on", self._replication.name)

    async def _sample(self) -> None:
        of_primary, of_replicas = self._asking_by(0), self._asking_by(1)
        if of_primary is None or of_replicas is None:
            return
        asked = questions(is_mariadb(of_primary.engine))
        replication, primary, replicas = self._replication, self._replication.primary, self._all_replicas()
        if primary is not None and (rows := await self._rows(of_primary, primary, asked[:1])):
            replication.came_to(primary, rows, time.monotonic())
        others = [endpoint for endpoint in replicas if endpoint != primary]
        answers = await asyncio.gather(*(self._rows(of_replicas, endpoint, asked) for endpoint in others))
        for endpoint, rows in zip(others, answers, strict=True):
            if rows:
                replication.came_to(endpoint, rows, time.monotonic())
        replication.sampled([endpoint.key for endpoint in replicas], time.monotonic())
        asked_of = [endpoint.key for endpoint in (*others, *([] if primary is None else [primary]))]
        of_primary.keep_only(asked_of)
        of_replicas.keep_only(asked_of)

    async def _rows(self, hooks: AsyncHooks, endpoint: Endpoint, statements: tuple[str, ...]) -> list[Any]:
        try:
            return await hooks.ask(endpoint, *statements, keep=True)
        except Exception as error:
            log.debug("%s: %s does not say how far it is: %s", self._replication.name, endpoint, _mysql.said(error))
            return []

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _operational(engine: AsyncEngine) -> Callable[[int, str], Exception]:
    made: Callable[[int, str], Exception] = engine.dialect.loaded_dbapi.OperationalError
    return made
