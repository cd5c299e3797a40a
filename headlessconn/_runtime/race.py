"""Dialling a service: one pod, a second beside it when the first is silent, another when it refuses."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn.core.endpoint import How, Key
from headlessconn.core.pick import Pick
from headlessconn.errors import DialFailed

ABREAST = 3  # dials under way at once for one connection
DIALS = 8  # in all: with one READY pod left among many dead ones, the dead are FAILING after their first refusal


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
    racing: dict[asyncio.Task[socket.socket], Pick] = {}
    try:
        pick, sock = await _first(driver, racing)
    except BaseException:
        await _end(driver, racing)
        raise
    try:
        await _end(driver, racing)
    except BaseException:  # cancelled just now: nobody is left to take the winner
        sock.close()
        driver.ended(pick, How.CANCELLED)
        raise
    return pick, sock


async def _first(driver: Driver, racing: dict[asyncio.Task[socket.socket], Pick]) -> tuple[Pick, socket.socket]:
    """The race itself. Dials that are left in `racing` are the caller's to end."""
    options = driver.engine.options
    tried: list[tuple[str, str]] = []
    avoid: set[Key] = set()
    last: BaseException | None = None
    while True:
        if len(racing) < ABREAST and len(avoid) < DIALS and (not racing or driver.may_spend()):
            found = await driver.acquire(avoid) if not racing else driver.pick(avoid, safe=False)
            if isinstance(found, Pick):
                avoid.add(found.key)
                racing[asyncio.ensure_future(dial.connect(found.endpoint, options.connect_timeout))] = found
        if not racing:
            raise DialFailed(str(driver.engine.target), tried) from last
        done, _ = await asyncio.wait(racing, timeout=options.race_after, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            pick, error = racing[task], task.exception()
            if error is None:
                del racing[task]
                driver.dialled(pick, How.OK)
                return pick, task.result()
            last = error
            tried.append((str(pick.endpoint), dial.how_dial_failed(error).value))
            del racing[task]
            _lost(driver, pick, task)


async def _end(driver: Driver, racing: dict[asyncio.Task[socket.socket], Pick]) -> None:
    """Cancel what is left of a race, and wait for its end. Callbacks see to it even when the wait is cancelled too."""
    for task, pick in racing.items():
        task.add_done_callback(partial(_lost, driver, pick))
        task.cancel()
    if racing:
        await asyncio.wait(racing)


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
