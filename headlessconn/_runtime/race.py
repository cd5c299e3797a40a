"""Dialling a service: one pod, a second beside it when the first is silent, another when it refuses."""

from __future__ import annotations

import asyncio
import socket
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
    options = driver.engine.options
    tried: list[tuple[str, str]] = []
    avoid: set[Key] = set()
    racing: dict[asyncio.Task[socket.socket], Pick] = {}
    last: BaseException | None = None
    try:
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
                pick = racing.pop(task)
                error = task.exception()
                if error is None:
                    driver.dialled(pick, How.OK)
                    for late in done - {task}:
                        _drop(driver, racing, late)
                    return pick, task.result()
                last, how = error, dial.how_dial_failed(error)
                tried.append((str(pick.endpoint), how.value))
                driver.dialled(pick, how)
                driver.ended(pick, how)
    finally:
        for task in tuple(racing):
            task.cancel()
        for task in tuple(racing):
            await asyncio.wait([task])
            _drop(driver, racing, task)


def _drop(driver: Driver, racing: dict[asyncio.Task[socket.socket], Pick], task: asyncio.Task[socket.socket]) -> None:
    """A dial that lost the race."""
    pick = racing.pop(task, None)
    if pick is None:
        return
    if task.cancelled():
        driver.ended(pick, How.CANCELLED)
    elif task.exception() is None:
        task.result().close()
        driver.dialled(pick, How.OK)
        driver.ended(pick, How.OK)
    else:
        how = dial.how_dial_failed(task.exception())  # type: ignore[arg-type]
        driver.dialled(pick, how)
        driver.ended(pick, how)
