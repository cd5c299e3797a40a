"""Writes to the primary, reads from the replicas, over the pools of aiomysql and asyncmy.

The primary's pool leads to one pod. Who that is decides `core.roles`, by what pods say of themselves; when it changes,
the pool is left behind, its connections end as they come back, and the next pod gets a new one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Self

from headlessconn import errors
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_hosts import OPTIONS, with_port
from headlessconn.adapters._mysql_monitor import Monitor, row_of
from headlessconn.adapters._mysql_opener import Library, Opener, split
from headlessconn.adapters._mysql_pool import UNLIMITED, FollowingPool, Taking
from headlessconn.adapters._mysql_replication import (
    GTID_TIMEOUT,
    STICKY,
    Apart,
    OnNoReplica,
    Replication,
    check_settings,
)
from headlessconn.client import Client
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.gtid import Position
from headlessconn.core.pooling import Fault
from headlessconn.core.roles import READ_ONLY
from headlessconn.core.target import Target
from headlessconn.core.writes import AfterWrite, Token
from headlessconn.options import Options

log = logging.getLogger("headlessconn")


class ReadWriteBase:
    """What `ReadWrite` of both adapters is. See there."""

    _library: Library

    def __init__(
        self,
        primary: str | Target,
        replicas: str | Target | None = None,
        *,
        probe_role: bool = False,
        on_no_replica: OnNoReplica = "primary",
        after_write: AfterWrite | None = None,
        sticky: float = STICKY,
        gtid_timeout: float = GTID_TIMEOUT,
        max_lag: float | None = None,
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
        check_settings(on_no_replica, after_write, sticky, gtid_timeout, max_lag)
        read_target = target if replicas is None else with_port(Target.parse(replicas))
        client = Client(options or OPTIONS)
        reading = client if max_lag is None else Apart(client.options)  # else its set is filtered
        self._clients = (client,) if reading is client else (client, reading)
        self._reads = reading.service(read_target)
        writes = self._reads if reading is client and read_target == target else client.service(target)
        self._falls_back = on_no_replica == "primary"
        self._after_write = after_write
        self._sticky = sticky
        self._gtid_timeout = gtid_timeout
        self._token: ContextVar[Token | None] = ContextVar(f"what was written to {target}", default=None)
        self._hostname = server_hostname
        self._write_name = server_hostname or target.host or None
        self._echo = echo
        idle = pool_recycle if pool_recycle > -1 else None
        rules = {"min_size": minsize, "max_size": maxsize or UNLIMITED, "idle_timeout": idle}
        self._settings: Mapping[str, Any] = rules | settings
        self._replication = Replication(
            str(target),
            probes=probe_role or read_target == target,
            is_one=read_target == target,
            max_lag=max_lag,
            wait=client.options.wait_for_endpoints,
        )
        _, arguments = split(settings)
        openers = [Opener(self._library, service, server_hostname, arguments) for service in (writes, self._reads)]
        self._monitor = Monitor(
            self._library, self._replication, (writes, self._reads), (openers[0], openers[1]), self._let_go
        )
        self._pools: dict[Key, FollowingPool] = {}  # the primary's; those of former ones end in `_leaving`
        self._leaving: set[asyncio.Task[None]] = set()
        self._replica_pool: FollowingPool | None = None

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
        to the primary too; with `max_lag` only as long as nobody has said that he is the primary.

        after   a `db.token()`, from another request maybe: what this reader must see, beside what this context has
                written

        Raises what the library raises; `NoEndpoints` when there is no replica, with `on_no_replica="fail"`;
        `OptionError` for a token that is none.
        """
        self._monitor.begin()
        needed = self._needed(after)
        taking = self._reading().acquire()
        only_primary = needed.sticks(time.time(), self._sticky) or (self._falls_back and self._monitor.has_no_replica())
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
        wait = "MASTER_GTID_WAIT" if self._monitor.is_mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
        row = await row_of(connection, f"SELECT {wait}('{needed.position}', {self._gtid_timeout:g})")
        return row is not None and row[0] == 0

    async def _note_write(self, connection: Any, failure: BaseException | None) -> None:
        """In this context. What is not committed yet is nobody's to see."""
        token = Token(until=time.time() + self._sticky)  # something may have been written, and nobody knows what
        if isinstance(failure, Exception | None) and self._after_write == "gtid":
            statement = "SELECT @@last_gtid" if self._monitor.is_mariadb else "SELECT @@GLOBAL.gtid_executed"
            try:
                row = await row_of(connection, statement)
                token = Token(Position.parse(str(row[0] or "")))
            except Exception as error:
                log.debug("%s: how far a write came is unknown (%s)", self._replication.name, _mysql.said(error))
        if token != Token():
            self._token.set((self._token.get() or Token()).with_(token))

    @property
    def primary_endpoint(self) -> Endpoint | None:
        """Who takes writes, as far as is known."""
        return self._replication.primary

    # ---- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._monitor.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the pools, once their connections are back, and what it asks pods by."""
        pools = [*self._pools.values(), *([self._replica_pool] if self._replica_pool is not None else [])]
        self._pools.clear()
        self._monitor.close()
        for pool in pools:
            pool.close()
        ending = [self._monitor.wait_closed(), *(pool.wait_closed() for pool in pools)]
        try:
            await asyncio.gather(*ending, *self._leaving, return_exceptions=True)
        finally:
            for client in self._clients:
                await client.aclose()

    # ---- the pools ---------------------------------------------------------------------------------------------

    def _reading(self) -> FollowingPool:
        self._monitor.replica_driver()
        if self._replica_pool is None:
            name = self._hostname or self._reads.target.host or None
            self._replica_pool = FollowingPool(self._library, self._reads, None, name, self._echo, self._settings)
        return self._replica_pool

    def _writing(self, endpoint: Endpoint) -> FollowingPool:
        pool = self._pools.get(endpoint.key)
        if pool is None:
            service = self._clients[0].service(f"static:///{endpoint}")
            hooks = self._greet, self._failed
            name, settings = self._write_name, self._settings
            pool = FollowingPool(self._library, service, None, name, self._echo, settings, *hooks)
            self._pools[endpoint.key] = pool
        return pool

    async def _acquired(self) -> tuple[Endpoint, Taking, Any]:
        began = asyncio.get_running_loop().time()
        while True:
            endpoint = await self._who(began)
            pool = self._writing(endpoint)
            try:
                taking = pool.acquire()
                return endpoint, taking, await taking.__aenter__()
            except errors.ClosedError:
                pass  # it is not the primary any more
            except self._library.error:
                if self._replication.unwelcome(endpoint.key) != READ_ONLY:
                    raise

    async def _who(self, began: float) -> Endpoint:
        """Who takes writes, once somebody does. Raises `NoPrimary`, `ClosedError`."""
        loop = asyncio.get_running_loop()
        self._monitor.begin()
        while (endpoint := self._replication.primary) is None:
            waited = loop.time() - began
            if waited >= self._replication.wait:
                error = self._replication.nobody(waited)
                raise self._library.no_connection(error) from error
            await asyncio.wait([self._monitor.look_again()], timeout=self._replication.wait - waited)
            self._monitor.begin()  # raises when it was closed meanwhile
        return endpoint

    async def _greet(self, endpoint: Endpoint, connection: Any) -> None:
        if not self._monitor.answered(endpoint, await row_of(connection, _mysql.ROLE)):
            raise self._library.error(_mysql.READ_ONLY_OPTION, f"{endpoint} takes no writes (read_only)")

    def _failed(self, endpoint: Endpoint, error: BaseException) -> None:
        """The primary's pool could not be opened: maybe there is another one by now."""
        if isinstance(error, Exception) and _mysql.of_opening(error)[0] is Fault.UNREACHABLE:
            self._monitor.look_again()

    async def _judge(self, endpoint: Endpoint, error: Exception) -> None:
        refused = _mysql.refuses_writes(error)
        if refused is None:  # 1792: its transaction may have been begun READ ONLY
            await asyncio.wait([self._monitor.ask(endpoint)])
            refused = self._replication.unwelcome(endpoint.key) == READ_ONLY
        if refused:
            error.retryable = True  # type: ignore[attr-defined]
            self._monitor.refused_write(endpoint)
        elif _mysql.is_lost(error):
            self._monitor.look_again()

    def _let_go(self) -> None:
        """Pools of those that are not the primary any more end as their connections come back."""
        primary = self._replication.primary
        for key in [key for key in self._pools if primary is None or key != primary.key]:
            left = self._pools.pop(key)
            left.close()
            task = asyncio.get_running_loop().create_task(left.wait_closed())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
