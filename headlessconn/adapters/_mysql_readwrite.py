"""Writes to the primary, reads from the replicas, over the pools of aiomysql and asyncmy.

The primary's pool leads to one pod. Who that is decides `core.roles`, by what pods say of themselves; when it changes,
the pool is left behind, its connections end as they come back, and the next pod gets a new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Literal, Self

from headlessconn import errors
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_hosts import OPTIONS, with_port
from headlessconn.adapters._mysql_opener import Library, Opener, split
from headlessconn.adapters._mysql_pool import UNLIMITED, FollowingPool, Taking
from headlessconn.client import Client, Service
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.gtid import Position
from headlessconn.core.pooling import Fault
from headlessconn.core.roles import READ_ONLY, Roles
from headlessconn.core.target import Target
from headlessconn.core.writes import AfterWrite, Token
from headlessconn.options import Options

log = logging.getLogger("headlessconn")

PACE = 0.25  # seconds between rounds of asking, while somebody waits for a primary
STICKY = 2.0  # seconds
GTID_TIMEOUT = 0.5  # seconds; a replica that keeps up has it within a millisecond (measured: 0.3 ms, at most 1.2 ms)
ASK_TIMEOUT = 2.0  # seconds for a login and one question


class ReadWriteBase:
    """What `ReadWrite` of both adapters is. See there."""

    _library: Library

    def __init__(
        self,
        primary: str | Target,
        replicas: str | Target | None = None,
        *,
        probe_role: bool = False,
        on_no_replica: Literal["primary", "fail"] = "primary",
        after_write: AfterWrite | None = None,
        sticky: float = STICKY,
        gtid_timeout: float = GTID_TIMEOUT,
        minsize: int = 0,
        maxsize: int = 10,
        echo: bool = False,
        pool_recycle: int = -1,
        server_hostname: str | None = None,
        options: Options | None = None,
        **settings: Any,
    ) -> None:
        target = with_port(Target.parse(primary))
        if replicas is None and not probe_role:
            raise errors.OptionError(
                "probe_role",
                f"{target} is the only name, so only the pods can say which of them takes writes",
                'ReadWrite("mysql.data:3306", probe_role=True), or replicas="mysql-read.data:3306"',
            )
        for name, value, choices in (
            ("on_no_replica", on_no_replica, ("primary", "fail")),
            ("after_write", after_write, ("gtid", "sticky", None)),
        ):
            if value not in choices:
                raise errors.OptionError(name, f"{value!r} is not one of {choices}", f"{name}={choices[0]!r}")
        for name, seconds, longest in (("sticky", sticky, 3600.0), ("gtid_timeout", gtid_timeout, 60.0)):
            if not 0.0 <= seconds <= longest:
                raise errors.OptionError(name, f"{seconds!r} is not between 0 and {longest:g}", f"{name}=2.0")
        self._client = Client(options or OPTIONS)
        self._wait = self._client.options.wait_for_endpoints
        self._writes: Service = self._client.service(target)
        self._reads = self._writes if replicas is None else self._client.service(with_port(Target.parse(replicas)))
        self._probes = probe_role
        self._falls_back = on_no_replica == "primary"
        self._after_write = after_write
        self._sticky = sticky
        self._gtid_timeout = gtid_timeout
        self._token: ContextVar[Token | None] = ContextVar(f"what was written to {target}", default=None)
        self._is_mariadb = True  # until a server says
        self._hostname = server_hostname
        self._echo = echo
        idle = pool_recycle if pool_recycle > -1 else None
        rules = {"min_size": minsize, "max_size": maxsize or UNLIMITED, "idle_timeout": idle}
        self._settings: Mapping[str, Any] = rules | settings
        _, arguments = split(settings)
        self._asker = Opener(self._library, self._writes, server_hostname, arguments)
        self._roles = Roles()
        self._said: dict[Key, str] = {}
        self._split: tuple[Key, ...] = ()
        self._pools: dict[Key, FollowingPool] = {}  # the primary's; those of former ones end in `_tasks`
        self._replica_pool: FollowingPool | None = None
        self._finding: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- use ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def primary(self) -> AsyncIterator[Any]:
        """A connection to the pod that takes writes, as `async with db.primary() as connection:`.

        Raises `NoPrimary` (retryable) when no pod takes writes for `wait_for_endpoints` seconds; what the library
        raises. An error by which a pod says that it takes no writes has `error.retryable = True`.
        """
        endpoint, taking, connection = await self._acquired()
        failure: BaseException | None = None
        try:
            yield connection
        except BaseException as error:
            failure = error
            if isinstance(error, Exception):
                await self._judge(endpoint, error)  # before it is given back: nobody else may write on it
            raise
        finally:
            try:
                if self._after_write is not None:
                    await self._note_write(connection, failure)
            finally:
                taking.end(failure)

    @asynccontextmanager
    async def replica(self, after: str | None = None) -> AsyncIterator[Any]:
        """A connection to read by, as `async with db.replica() as connection:`. With one name for all pods it may lead
        to the primary too.

        after   a `db.token()`, from another request maybe: what this reader must see, beside what this context has
                written

        Raises what the library raises; `NoEndpoints` when there is no replica, with `on_no_replica="fail"`;
        `OptionError` for a token that is none.
        """
        self._begin()
        needed = self._needed(after)
        taking = self._reading().acquire()
        only_primary = needed.sticks(time.time(), self._sticky) or self._has_no_replica()
        connection = None if only_primary else await self._read_by(taking, needed)
        if connection is None:
            async with self.primary() as connection:
                yield connection
            return
        failure: BaseException | None = None
        try:
            yield connection
        except BaseException as error:
            failure = error
            raise
        finally:
            taking.end(failure)

    def token(self) -> str:
        """What this context (a task, and those it starts) has written so far, as text for a cookie or a header; "" when
        it is nothing, or without `after_write`. For `db.replica(after=…)`, in this process or another."""
        return str(self._token.get() or "")

    async def _read_by(self, taking: Taking, needed: Token) -> Any:
        """None: the primary is to serve."""
        try:
            connection = await taking.__aenter__()
        except self._library.error as error:
            if not self._falls_back or isinstance(error.__cause__, errors.PoolTimeout):
                raise
            log.debug("%s: no replica (%s), the primary serves", self._reads.target, error)
            return None
        if not needed.position:
            return connection
        failure: BaseException | None = None
        try:
            if await self._has_seen(connection, needed):
                return connection
        except Exception as error:
            failure = error
            log.warning("%s: a replica could not say what it has (%s)", self._reads.target, _mysql.said(error))
        except BaseException as error:
            taking.end(error)
            raise
        taking.end(failure)
        return None

    # ---- tokens ------------------------------------------------------------------------------------------------

    def _needed(self, after: str | None) -> Token:
        written = self._token.get() or Token()
        return written if after is None else written.with_(Token.parse(after))

    async def _has_seen(self, connection: Any, needed: Token) -> bool:
        """Whether the replica has all of it, waiting for that if need be."""
        wait = "MASTER_GTID_WAIT" if self._is_mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        row = await _row_of(connection, f"SELECT {wait}('{needed.position}', {self._gtid_timeout:g})")
        return row is not None and row[0] == 0

    async def _note_write(self, connection: Any, failure: BaseException | None) -> None:
        """In this context. What is not committed yet is nobody's to see."""
        token = Token(until=time.time() + self._sticky)  # something may have been written, and nobody knows what
        if isinstance(failure, Exception | None) and self._after_write == "gtid":
            statement = "SELECT @@last_gtid" if self._is_mariadb else "SELECT @@GLOBAL.gtid_executed"
            try:
                row = await _row_of(connection, statement)
                token = Token(Position.parse(str(row[0] or "")))
            except Exception as error:
                log.debug("%s: how far a write came is unknown (%s)", self._writes.target, _mysql.said(error))
        if token != Token():
            self._token.set((self._token.get() or Token()).with_(token))

    @property
    def primary_endpoint(self) -> Endpoint | None:
        """Who takes writes, as far as is known."""
        key = self._roles.primary
        return None if key is None else Endpoint.of(key)

    # ---- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the pools, once their connections are back, and the client."""
        keeper, self._keeper = self._keeper, None
        for task in [keeper, self._finding, *self._asking.values()]:
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        pools = [*self._pools.values(), *([self._replica_pool] if self._replica_pool is not None else [])]
        self._pools.clear()
        for pool in pools:
            pool.close()
        await asyncio.gather(*(pool.wait_closed() for pool in pools), *self._tasks, return_exceptions=True)
        await self._client.aclose()

    def _begin(self) -> None:
        if self._keeper is None:
            self._writes.driver()  # raises for a client that is closed
            self._keeper = self._spawn(self._follow())

    def _reading(self) -> FollowingPool:
        if self._replica_pool is None:
            self._replica_pool = self._pool_of(self._reads)
        return self._replica_pool

    def _pool_of(self, service: Service, *, is_primary: bool = False) -> FollowingPool:
        name = self._hostname or (self._writes if is_primary else service).target.host or None
        hooks = (self._greet, self._failed) if is_primary else (None, None)
        return FollowingPool(self._library, service, None, name, self._echo, self._settings, *hooks)

    def _has_no_replica(self) -> bool:
        """So that nobody waits for one to appear where the primary may serve."""
        engine = self._reads.driver().engine
        return self._falls_back and engine.answer is not None and not engine.ready

    # ---- the primary's pool -------------------------------------------------------------------------------------

    async def _acquired(self) -> tuple[Endpoint, Taking, Any]:
        self._begin()
        began = asyncio.get_running_loop().time()
        while True:
            endpoint = await self._who(began)
            pool = self._pools.get(endpoint.key)
            if pool is None:
                service = self._client.service(f"static:///{endpoint}")
                pool = self._pools[endpoint.key] = self._pool_of(service, is_primary=True)
            try:
                taking = pool.acquire()
                return endpoint, taking, await taking.__aenter__()
            except errors.ClosedError:
                pass  # it is not the primary any more
            except self._library.error:
                if self._roles.unwelcome(endpoint.key) != READ_ONLY:
                    raise

    async def _greet(self, endpoint: Endpoint, connection: Any) -> None:
        row = await _row_of(connection, _mysql.ROLE)
        self._answered(endpoint, row)
        if not _mysql.is_writable(row):
            raise self._library.error(_mysql.READ_ONLY_OPTION, f"{endpoint} takes no writes (read_only)")

    def _failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """The primary's pool could not be opened: maybe there is another one by now."""
        if isinstance(error, Exception) and _mysql.of_opening(error)[0] is Fault.UNREACHABLE:
            self._look_again()

    async def _judge(self, endpoint: Endpoint, error: Exception) -> None:
        refused = _mysql.refuses_writes(error)
        if refused is None:  # 1792: its transaction may have been begun READ ONLY
            await self._ask(endpoint)
            refused = self._roles.unwelcome(endpoint.key) == READ_ONLY
        if refused:
            error.retryable = True  # type: ignore[attr-defined]
            self._roles.told(endpoint.key, False)
            self._said[endpoint.key] = READ_ONLY
            self._settle()
            self._look_again()
        elif _mysql.is_lost(error):
            self._look_again()

    # ---- who is who --------------------------------------------------------------------------------------------

    async def _who(self, began: float) -> Endpoint:
        loop = asyncio.get_running_loop()
        while self._roles.primary is None:
            left = began + self._wait - loop.time()
            if left <= 0.0:
                asked = [(str(one), self._said.get(one.key, "not asked yet")) for one in self._candidates()]
                error = errors.NoPrimary(str(self._writes.target), loop.time() - began, asked)
                raise self._library.no_connection(error) from error
            await asyncio.wait([self._look_again()], timeout=left)
        return Endpoint.of(self._roles.primary)

    def _look_again(self) -> asyncio.Task[None]:
        """Ask who is who; one round at a time, for all who want to know."""
        if self._finding is None or self._finding.done():
            self._finding = self._spawn(self._find())
        return self._finding

    async def _find(self) -> None:
        for service in (self._writes, self._reads) if self._probes else (self._writes,):
            await service.driver().first_word()
        pending = {self._asking.get(one.key) or self._spawn(self._ask(one)) for one in self._candidates()}
        while pending and self._roles.primary is None:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        self._settle()
        if self._roles.primary is None:
            self._hint()
            await asyncio.sleep(PACE)

    async def _ask(self, endpoint: Endpoint) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._asking[endpoint.key] = task  # one at a time: a pod that says nothing is asked again at every round
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                connection = await self._asker.open(endpoint)
                try:
                    row = await _row_of(connection, _mysql.ROLE)
                finally:
                    await self._asker.close(connection)
        except Exception as error:
            self._said[endpoint.key] = _mysql.said(error)
            self._roles.unreachable(endpoint.key)
            self._settle()
        else:
            self._answered(endpoint, row)
        finally:
            del self._asking[endpoint.key]

    def _answered(self, endpoint: Endpoint, row: Any) -> None:
        is_writable = _mysql.is_writable(row)
        self._is_mariadb = _mysql.is_mariadb(row)
        self._said[endpoint.key] = "it takes writes" if is_writable else READ_ONLY
        self._roles.told(endpoint.key, is_writable)
        self._settle()

    def _candidates(self) -> list[Endpoint]:
        listed = list(self._writes.snapshot.endpoints)
        others = self._reads.snapshot.endpoints if self._probes and self._reads is not self._writes else ()
        return [*listed, *(one for one in others if one not in listed)]

    def _settle(self) -> None:
        listed = [one.key for one in self._writes.snapshot.endpoints]
        before = self._roles.primary
        now = self._roles.settle(listed, [one.key for one in self._candidates()])
        if self._roles.split and self._roles.split != self._split:
            names = ", ".join(str(Endpoint.of(key)) for key in self._roles.split)
            ours = now and Endpoint.of(now)
            log.error("%s: split brain: %s all take writes; %s gets ours", self._writes.target, names, ours)
        self._split = self._roles.split
        if now is not None and now != before:
            log.info("%s: %s is the primary", self._writes.target, Endpoint.of(now))
        for key in [key for key in self._pools if key != now]:
            left = self._pools.pop(key)
            left.close()
            self._spawn(left.wait_closed())

    def _hint(self) -> None:
        """DNS may be old: ask it soon. A caller that joins and leaves the queue makes the engine set its alarm."""
        driver = self._writes.driver()

        def told(now: float) -> None:
            driver.engine.refresh.hint(now)
            driver.engine.queued(now)
            driver.engine.left(now)

        driver._tell(told)

    async def _follow(self) -> None:
        """DNS says something else: ask again."""
        async for _ in self._writes.changes():
            self._settle()
            if self._roles.to_ask([one.key for one in self._writes.snapshot.endpoints]):
                self._look_again()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _row_of(connection: Any, statement: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
        row = await cursor.fetchone()
        return tuple(row.values()) if isinstance(row, dict) else row  # the application's cursor class may give dicts
