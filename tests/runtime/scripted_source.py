"""One driver on a virtual clock, and the source that it asks, which does as the test says."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from headlessconn._runtime.driver import Driver
from headlessconn.core.endpoint import Answer, pack
from headlessconn.core.engine import Engine
from headlessconn.core.target import Target
from headlessconn.options import Options
from tests.runtime.virtual_time import now

TARGET = Target.parse("web.shop:80")


def records(*numbers: int, ttl: float | None = 5.0) -> Answer:
    """The set 10.0.0.<number>:80."""
    return Answer("dns", "records", frozenset(pack(f"10.0.0.{n}", 80) for n in numbers), ttl=ttl, why="NOERROR")


def places(*ports: int) -> Answer:
    """The set 127.0.0.1:<port>, where something real listens, or refuses."""
    return Answer("dns", "records", frozenset(pack("127.0.0.1", port) for port in ports), ttl=5.0, why="NOERROR")


NXDOMAIN = Answer("dns", "nobody", ttl=5.0, why="NXDOMAIN")
SERVFAIL = Answer("dns", "no_news", why="SERVFAIL")


class Scripted:
    """Says `says` to each look-up, `after` seconds later; an exception is raised, None is never said."""

    def __init__(self, says: Answer | Exception | None) -> None:
        self.says = says
        self.after = 0.0
        self.asked: list[float] = []
        self.cancelled = 0

    async def look_up(self) -> Answer:
        self.asked.append(now())
        says = self.says
        try:
            if says is None:
                await asyncio.Event().wait()
            if self.after:
                await asyncio.sleep(self.after)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(says, Exception):
            raise says
        assert says is not None
        return says


class Keeper:
    """Whoever keeps the driver: told when it falls idle and when it wakes."""

    def __init__(self) -> None:
        self.told: list[tuple[float, str]] = []

    def idled(self, driver: Driver) -> None:
        self.told.append((now(), "idle"))

    def woke(self, driver: Driver) -> None:
        self.told.append((now(), "woke"))


class Stage:
    def __init__(self, says: Answer | Exception | None, settings: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self.source = Scripted(says)
        self.keeper = Keeper()
        engine = Engine(TARGET, Options(**settings), random.Random(1), loop.time())
        self.driver = Driver(engine, self.source, loop, self.keeper)

    @property
    def listed(self) -> list[str]:
        return sorted(endpoint.address for endpoint in self.driver.snapshot().endpoints)


@asynccontextmanager
async def stage(says: Answer | Exception | None, **settings: Any) -> AsyncIterator[Stage]:
    """A driver, its clock at 0, its first question under way. At the end nothing of it is left."""
    before = asyncio.all_tasks()
    made = Stage(says, settings)
    try:
        yield made
    finally:
        made.driver.close()
        await made.driver.closed_tasks()
    assert asyncio.all_tasks() <= before


async def until(at: float) -> None:
    await asyncio.sleep(at - now())


def addresses(*numbers: int) -> list[str]:
    return [f"10.0.0.{n}" for n in numbers]


def rounded(times: Iterable[float]) -> list[float]:
    return [round(at, 3) for at in times]
