"""Asks the pods of a replicated database, beside the pools of aiomysql and asyncmy: who takes writes, and how far the
replicas are. What the answers mean is `Replication`'s to say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from headlessconn._runtime.driver import Driver
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_opener import Library, Opener
from headlessconn.adapters._mysql_replication import PACE, ROUND, Replication, filtered, hint, questions
from headlessconn.client import Service
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.errors import ClosedError

log = logging.getLogger("headlessconn")

ASK_TIMEOUT = 2.0  # seconds for a login and its questions


class Monitor:
    """Of one database, on one loop.

    writes, reads   the services of the two roles; one and the same where neither can be told from the other. With
                    `max_lag` that of the replicas is filtered, so its client must share it with nobody
    openers         of connections for questions, by what each service's certificates must be for
    settled         called when another pod may be the primary, or none any more
    """

    def __init__(
        self,
        library: Library,
        replication: Replication,
        services: tuple[Service, Service],
        openers: tuple[Opener, Opener],
        settled: Callable[[], None],
    ) -> None:
        self.replication = replication
        self.is_mariadb = True  # until a server says
        self._library = library
        self._writes, self._reads = services
        self._of_primary, self._of_replicas = openers
        self._settled = settled
        self._is_filtered = replication.max_lag is not None
        self._begun = False
        self._closed = False
        self._finding: asyncio.Task[None] | None = None
        self._asking: dict[Key, asyncio.Task[None]] = {}  # for their roles
        self._sampling: dict[Key, asyncio.Task[None]] = {}  # how far they are
        self._kept: dict[Key, Any] = {}  # connections for that, one a pod
        self._tasks: set[asyncio.Task[None]] = set()
        replication.hint = self._hint
        replication.changed = self._push

    # ---- life --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Follow what DNS says, if that is not done yet. Raises `ClosedError`, `WrongLoop`."""
        if self._closed:
            raise ClosedError(f"the connections to {self.replication.name} were closed: make a new ReadWrite")
        if self._begun:
            return
        self._writes.driver()
        self._begun = True
        for service in dict.fromkeys((*self._primary_services(), *((self._reads,) if self._is_filtered else ()))):
            self._spawn(self._follow(service))
        if self._is_filtered:
            self._spawn(self._keep_sampling())

    def close(self) -> None:
        """End what it does. Then `await monitor.wait_closed()`."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Close the connections that are kept."""
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            kept = tuple(self._kept.values())
            await asyncio.gather(*(self._of_primary.close(one) for one in kept), return_exceptions=True)
        finally:
            self._keep_only(())

    # ---- what DNS lists ----------------------------------------------------------------------------------------

    def replica_driver(self) -> Driver:
        """The replicas'. With `max_lag` it lists only those that will do."""
        driver = self._reads.driver()
        if self._is_filtered:
            filtered(driver, self.replication.replicas)
        return driver

    def has_no_replica(self) -> bool:
        """Whether there is nobody to read from, so that there is no use in waiting."""
        driver = self.replica_driver()
        if self._is_filtered and filtered(driver, self.replication.replicas).keeps_none:
            return True  # DNS lists the primary only; what it listed before is held for a while
        return driver.engine.answer is not None and not driver.engine.ready

    def look(self) -> bool:
        """Tell what DNS lists; whether somebody should be asked for his role."""
        primaries = self._writes.snapshot.endpoints
        replicas: Iterable[Endpoint] = ()
        if self.replication.probes:
            replicas = primaries if self.replication.is_one else self._all_replicas()
        is_asked = self.replication.listed(primaries, replicas)
        self._settled()
        return is_asked

    def _all_replicas(self) -> Iterable[Endpoint]:
        """Those that are left out too."""
        driver = self.replica_driver()
        if self._is_filtered:
            return filtered(driver, self.replication.replicas).endpoints
        return driver.snapshot().endpoints

    def _primary_services(self) -> tuple[Service, ...]:
        """Those that may list the primary."""
        if self.replication.probes and not self.replication.is_one:
            return self._writes, self._reads
        return (self._writes,)

    def _hint(self) -> None:
        for service in self._primary_services():
            hint(service.driver())

    def _push(self) -> None:
        if self._is_filtered:
            driver = self.replica_driver()
            filtered(driver, self.replication.replicas).push(driver)

    async def _follow(self, service: Service) -> None:
        """DNS says something else: ask again."""
        async for _ in service.changes():
            self._ask_the_unknown()

    # ---- who takes writes --------------------------------------------------------------------------------------

    def answered(self, endpoint: Endpoint, row: Any) -> bool:
        """A pod's answer to the question for its role, asked by whom it may be; whether it takes writes."""
        self.is_mariadb = _mysql.is_mariadb(row)
        is_writable = self.replication.answered(endpoint, row)
        self._settled()
        return is_writable

    def refused_write(self, endpoint: Endpoint) -> None:
        """It said so to somebody who tried."""
        self.replication.refused_write(endpoint)
        self._settled()
        self.look_again()

    def _ask_the_unknown(self) -> None:
        if self.look():
            for endpoint in self.replication.to_ask():
                self.ask(endpoint)

    def look_again(self) -> asyncio.Task[None]:
        """Ask who is who; one round at a time, for all who want to know."""
        if self._finding is None or self._finding.done():
            self._finding = self._spawn(self._find())
        return self._finding

    async def _find(self) -> None:
        if self._closed:
            return
        for service in self._primary_services():
            await service.driver().first_word()
        self.look()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + ROUND
        pending = {self.ask(endpoint) for endpoint in self.replication.candidates()}
        # A pod that is silent is waited for in the rounds after this one; others may have been promoted meanwhile.
        while pending and self.replication.primary is None and (left := ends_at - loop.time()) > 0.0:
            _, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        self.look()
        if self.replication.primary is None:
            self._hint()
            await asyncio.sleep(PACE)

    def ask(self, endpoint: Endpoint) -> asyncio.Task[None]:
        """Ask a pod for its role; one question at a time."""
        task = self._asking.get(endpoint.key)
        if task is None:
            task = self._asking[endpoint.key] = self._spawn(self._ask(endpoint))
            task.add_done_callback(lambda _: self._asking.pop(endpoint.key, None))
        return task

    async def _ask(self, endpoint: Endpoint) -> None:
        # By a new connection each time: were it kept, its end would be taken for that of the pod.
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                connection = await self._of_primary.open(endpoint)
                try:
                    row = await row_of(connection, _mysql.ROLE)
                finally:
                    await self._of_primary.close(connection)
        except Exception as error:
            self.replication.silent(endpoint, error)
            self._settled()
        else:
            self.answered(endpoint, row)

    # ---- how far replicas are ----------------------------------------------------------------------------------

    async def _keep_sampling(self) -> None:
        loop, every = asyncio.get_running_loop(), self.replication.sample_every
        while True:
            again_at = loop.time() + every
            try:
                await self._sample(every / 2.0)
            except Exception:
                log.exception("%s: looking after its replicas stumbled, and goes on", self.replication.name)
            await asyncio.sleep(max(0.0, again_at - loop.time()))

    async def _sample(self, patience: float) -> None:
        """Ask everybody how far he is. Who does not say within `patience` is judged by what is known of him."""
        self._ask_the_unknown()
        replicas = tuple(self._all_replicas())
        primary = self.replication.primary
        first = () if primary is None else (self._how_far(primary, self._of_primary),)
        if first:
            await asyncio.wait(first, timeout=patience)
        others = [self._how_far(one, self._of_replicas) for one in replicas if one != primary]
        if others:
            await asyncio.wait(others, timeout=patience)
        self._keep_only({one.key for one in (*replicas, *((primary,) if primary else ()))})
        self.replication.sampled([one.key for one in replicas], asyncio.get_running_loop().time())

    def _how_far(self, endpoint: Endpoint, opener: Opener) -> asyncio.Task[None]:
        """One question at a time: one that hangs is not asked again before it has been given up."""
        task = self._sampling.get(endpoint.key)
        if task is None:
            task = self._sampling[endpoint.key] = self._spawn(self._say_how_far(endpoint, opener))
            task.add_done_callback(lambda _: self._sampling.pop(endpoint.key, None))
        return task

    async def _say_how_far(self, endpoint: Endpoint, opener: Opener) -> None:
        connection = self._kept.pop(endpoint.key, None)
        if connection is not None and self._library.is_dead(connection):
            self._drop(connection)
            connection = None
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(ASK_TIMEOUT):
                if connection is None:
                    connection = await opener.open(endpoint)
                transport = self._library.transport(connection)  # asyncmy lets go of it when a question is cancelled
                rows = [await row_of(connection, question) for question in questions(self.is_mariadb)]
        except BaseException as error:
            if connection is not None:
                self._drop(connection, transport)
            if not isinstance(error, Exception):
                raise
            log.debug("%s: %s does not say how far it is: %s", self.replication.name, endpoint, _mysql.said(error))
        else:
            self._kept[endpoint.key] = connection
            self.replication.came_to(endpoint, rows, asyncio.get_running_loop().time())

    def _keep_only(self, keys: Iterable[Key]) -> None:
        for key in self._kept.keys() - keys:
            self._drop(self._kept.pop(key))

    def _drop(self, connection: Any, transport: asyncio.Transport | None = None) -> None:
        """Without a goodbye: nobody may be there to hear it."""
        transport = transport or self._library.transport(connection)
        connection.close()
        if transport is not None:
            transport.abort()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def row_of(connection: Any, statement: str) -> Any:
    """The first row of the answer, as a tuple."""
    async with connection.cursor() as cursor:
        await cursor.execute(statement)
        row = await cursor.fetchone()
        return tuple(row.values()) if isinstance(row, dict) else row  # the application's cursor class may give dicts
