"""The dials of one aiohttp request: a second pod beside a silent one, another one after a refusal.

The first dial runs in the caller's own task, inside aiohttp's `connect()`, so that the usual case costs no task. Only
when TCP stays silent for `race_after` does a dial to a different pod start beside it; the first connection ends the
others.
"""

from __future__ import annotations

import asyncio
import copy
import socket
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.connector import Connection

from headlessconn.adapters._aiohttp_classes import was_used
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick

if TYPE_CHECKING:
    from headlessconn.adapters._aiohttp_exchange import Exchange
    from headlessconn.adapters.aiohttp import HeadlessConnector


class Dials:
    """From the first socket that is made for a request to its connection.

    attempts  of the exchange
    since     when the first dial began, in the loop's time
    """

    def __init__(self, connector: HeadlessConnector, exchange: Exchange, sock: socket.socket) -> None:
        assert exchange.attempts is not None
        self._connector = connector
        self._route = route = exchange.route
        self._req = copy.copy(exchange.req)  # its URL names the pod of the first dial only while that one goes on
        self._limits = limits = exchange.limits
        self._until = exchange.pick.started_at + limits.connect if limits.connect else inf
        self.attempts = exchange.attempts
        self._socket: socket.socket | None = sock
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._loop = asyncio.get_running_loop()
        self.since = self._loop.time()
        self._racing: dict[asyncio.Task[Connection], tuple[Pick, aiohttp.ClientTimeout]] = {}
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
        for task, (pick, _) in self._racing.items():
            task.cancel()
            self.attempts.left(pick)
        if self._won is not None:
            (connection, pick), self._won = self._won, None
            self._drop(connection, pick)

    def _fire(self) -> None:
        if self._over or self._won is not None or _is_connected(self._socket):
            return
        driver = self._route.driver
        if not self._connector.is_full:  # else it would wait for the very place that the silent dial holds
            pick = self._question(self.attempts.beside_dial)
            if pick is None:
                return
            self._dial(pick)
        self._timer = self._loop.call_later(driver.engine.options.race_after, self._fire)

    def _question(self, question: Callable[[float], Pick | None]) -> Pick | None:
        """Another pod, while there is time left for one."""
        return self._route.driver.further(question) if self._loop.time() < self._until else None

    def _dial(self, pick: Pick) -> None:
        limits = self._limits
        if limits.connect:
            limits = limited(
                limits, max(self._until - pick.started_at, 0.001), limits.sock_connect
            )  # 0 would be for ever
        task = asyncio.ensure_future(self._connector.dial(copy.copy(self._req), self._route, pick, limits, traces=[]))
        self._racing[task] = pick, limits
        self._connector.keep(task)
        task.add_done_callback(self._came)

    def _came(self, task: asyncio.Task[Connection]) -> None:
        pick, limits = self._racing.pop(task)
        driver = self._route.driver
        if task.cancelled():
            driver.ended(pick, How.CANCELLED)
        elif (error := task.exception()) is not None:
            self._connector.dial_failed(driver, pick, error, limits, pick.started_at)
            other = None if self._over else self._question(partial(self.attempts.after_dial, pick))
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
        """It came too late: it joins the pool, if somebody will ask for that pod again."""
        if not was_used(connection.protocol):
            self._route.driver.dialled(pick, How.OK)
        self._route.driver.ended(pick, How.CALLER)  # no request went over it: nothing to learn of its latency
        if pick.is_listed:
            connection.release()
        else:
            connection.close()


def limited(timeout: aiohttp.ClientTimeout, connect: float | None, sock_connect: float | None) -> aiohttp.ClientTimeout:
    """The same time-outs with other ones for connecting."""
    return aiohttp.ClientTimeout(timeout.total, connect, timeout.sock_read, sock_connect, timeout.ceil_threshold)


def _is_connected(sock: socket.socket | None) -> bool:
    """Whether TCP stands: what follows (TLS) is the pod's own slowness, and must not be begun twice."""
    if sock is None:
        return True
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
