"""Dialling a service: one pod, a second beside it when the first is silent, another when it refuses."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.core.attempts import DIALS, ONCE, Attempts
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick
from headlessconn.errors import DialFailed


async def open_connection(
    driver: Driver, arguments: dict[str, Any]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to one of the pods; what `arguments` asks for beyond TCP begins only with the winner."""
    pick, sock = await connect(driver)
    try:
        streams = await asyncio.open_connection(sock=sock, **arguments)
    except BaseException as error:
        sock.close()
        driver.ended(pick, dial.how_dial_failed(error))
        raise
    driver.ended(pick, How.OK)
    return streams


async def connect(driver: Driver) -> tuple[Pick, socket.socket]:
    """The first of the pods to accept. Losers are cancelled, which is weak evidence: silence while another answered.

    Raises `NoEndpoints`, `DialFailed`.
    """
    race = _Race(driver)
    try:
        pick, sock = await race.first()
    except BaseException:
        await race.end()
        raise
    try:
        await race.end()
    except BaseException:  # cancelled just now: nobody is left to take the winner
        sock.close()
        driver.ended(pick, How.CANCELLED)
        raise
    return pick, sock


class _Race:
    """The dials under way for one connection; `Attempts` decides who runs in it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._racing: dict[asyncio.Task[socket.socket], Pick] = {}  # in the order of their beginning
        self._tried: list[tuple[str, str]] = []

    async def first(self) -> tuple[Pick, socket.socket]:
        """The race itself. Whoever still runs at its end is left to `end`."""
        driver = self._driver
        options = driver.engine.options
        pick = await driver.acquire()
        assert isinstance(pick, Pick)  # nothing was avoided
        attempts = Attempts(driver.engine, ONCE, pick)
        self._start(pick)
        while True:
            done, _ = await asyncio.wait(self._racing, timeout=options.race_after, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._start(driver.further(attempts.beside_dial))
            for task in [task for task in self._racing if task in done]:
                pick, error = self._racing.pop(task), task.exception()
                if error is None:
                    driver.dialled(pick, How.OK)
                    return pick, task.result()
                self._tried.append((str(pick.endpoint), dial.how_dial_failed(error).value))
                _lost(driver, pick, task)
                found = driver.further(partial(attempts.after_dial, pick))
                if found is None and self._racing:
                    found = driver.further(attempts.beside_dial)  # those under way may be silent ones
                if found is None and not self._racing:
                    found = await self._whoever_comes(attempts, error)
                self._start(found)

    async def end(self) -> None:
        """Cancel what is left, and wait for its end. Callbacks see to it even when the wait is cancelled too."""
        for task, pick in self._racing.items():
            task.add_done_callback(partial(_lost, self._driver, pick))
            task.cancel()
        if self._racing:
            await asyncio.wait(self._racing)

    def _start(self, pick: Pick | None) -> None:
        if pick is not None:
            timeout = self._driver.engine.options.connect_timeout
            self._racing[asyncio.ensure_future(dial.connect(pick.endpoint, timeout))] = pick

    async def _whoever_comes(self, attempts: Attempts, last: BaseException) -> Pick:
        """All that were tried have failed. When that has emptied the set, wait for somebody as any caller would."""
        if len(attempts.tried) < DIALS:
            found = await self._driver.acquire(attempts.tried)
            if isinstance(found, Pick):
                attempts.took(found)
                return found
        raise DialFailed(str(self._driver.engine.target), self._tried) from last


def _lost(driver: Driver, pick: Pick, task: asyncio.Task[socket.socket]) -> None:
    """A dial ended without being the first."""
    if task.cancelled():
        how = How.CANCELLED
    elif (error := task.exception()) is not None:
        how = dial.how_dial_failed(error)
        driver.dialled(pick, how)
    else:
        how = How.OK
        task.result().close()
        driver.dialled(pick, how)
    driver.ended(pick, how)


__all__ = ["connect", "open_connection"]
