"""The dials of one aiohttp request: a second pod beside a silent one, another one after a refusal.

The first dial runs in the caller's own task, inside aiohttp's `connect()`, so that the usual case costs no task. Only
when TCP stays silent for `race_after` does a dial to a different pod start beside it; the first connection ends the
others.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from functools import partial
from typing import TYPE_CHECKING

from aiohttp.connector import Connection

from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick

if TYPE_CHECKING:
    import aiohttp

    from headlessconn.adapters._aiohttp_exchange import Exchange
    from headlessconn.adapters.aiohttp import HeadlessConnector


class Dials:
    """From the first socket that is made for a request to its connection.

    since     when the first dial began, in the loop's time
    """

    def __init__(
        self, connector: HeadlessConnector, exchange: Exchange, limits: aiohttp.ClientTimeout, sock: socket.socket
    ) -> None:
        assert exchange.attempts is not None
        self._connector = connector
        self._route = route = exchange.route
        self._req = copy.copy(exchange.req)  # its URL names the pod of the first dial only while that one goes on
        self._limits = limits
        self._attempts = exchange.attempts
        self._socket: socket.socket | None = sock
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._racing: dict[asyncio.Task[Connection], Pick] = {}
        self._won: tuple[Connection, Pick] | None = None
        self._interrupted = False
        self._over = False
        self._waiting: asyncio.Future[None] | None = None
        self._timer = self._loop.call_later(route.driver.engine.options.race_after, self._fire)

    def overtook(self, error: BaseException) -> bool:
        """Whether it was we who interrupted the caller's own dial, and nobody else did too."""
        if not self._interrupted or self._task is None:
            return False
        self._interrupted = False
        return self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError)

    async def result(self) -> tuple[Connection, Pick] | None:
        """The connection of the others, once the caller's own dial is over; None when all have failed."""
        self._timer.cancel()
        self._socket = None
        try:
            if self._won is None and self._racing:
                self._waiting = self._loop.create_future()
                await self._waiting
            won, self._won = self._won, None
            return won
        finally:
            self.end()

    def end(self) -> None:
        """One is connected, or nobody waits for them any more."""
        self._over = True
        self._timer.cancel()
        self._socket = None
        for task in self._racing:
            task.cancel()
        if self._won is not None:
            (connection, pick), self._won = self._won, None
            self._drop(connection, pick)

    def _fire(self) -> None:
        if self._over or self._won is not None or _is_connected(self._socket):
            return
        pick = self._route.driver.further(self._attempts.beside_dial)
        if pick is not None:
            self._dial(pick)
            self._timer = self._loop.call_later(self._route.driver.engine.options.race_after, self._fire)

    def _dial(self, pick: Pick) -> None:
        task = asyncio.ensure_future(
            self._connector.dial(copy.copy(self._req), self._route, pick, self._limits, traces=[])
        )
        self._racing[task] = pick
        self._connector.keep(task)
        task.add_done_callback(self._came)

    def _came(self, task: asyncio.Task[Connection]) -> None:
        pick = self._racing.pop(task)
        driver = self._route.driver
        if task.cancelled():
            driver.ended(pick, How.CANCELLED)
        elif (error := task.exception()) is not None:
            self._connector.dial_failed(driver, pick, error, self._limits, self.since)
            other = None if self._over else driver.further(partial(self._attempts.after_dial, pick))
            if other is not None:
                self._dial(other)
        elif self._over or self._won is not None:
            self._drop(task.result(), pick)
        else:
            self._won = task.result(), pick
            if self._waiting is None and self._task is not None:
                self._interrupted = True
                self._task.cancel()
        waiting = self._waiting
        if waiting is not None and not waiting.done() and (self._won is not None or not self._racing):
            waiting.set_result(None)

    def _drop(self, connection: Connection, pick: Pick) -> None:
        """It came too late: it joins the pool."""
        self._route.driver.dialled(pick, How.OK)
        self._route.driver.ended(pick, How.CALLER)  # no request went over it: nothing to learn of its latency
        connection.release()


def _is_connected(sock: socket.socket | None) -> bool:
    """Whether TCP stands: what follows (TLS) is the pod's own slowness, and must not be begun twice."""
    if sock is None:
        return True
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
