"""A pool on a virtual clock: scripted DNS, and a database whose pods do as the test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from headlessconn._runtime.pooling import Hooks
from headlessconn.core.endpoint import Answer, Endpoint, pack
from headlessconn.core.pooling import PoolRules
from headlessconn.pool import Pool
from tests.runtime.scripted_source import Stage, stage
from tests.runtime.virtual_time import now


def pods(*numbers: int) -> Answer:
    """The set 127.0.0.<number>:1. Nobody listens there, so that what probes a failing pod hears a refusal at once."""
    return Answer("dns", "records", frozenset(pack(f"127.0.0.{n}", 1) for n in numbers), ttl=5.0, why="NOERROR")


class AccessDenied(Exception):
    """What a server says that is well and will not have us."""


class TooManyConnections(Exception):
    pass


class Connection:
    """One to a pod of the database."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.dirty = False
        self.dead = False
        self.closed_at: float | None = None
        self.cut = False

    def __repr__(self) -> str:
        return f"<to {self.number}>"


class Database:
    """open, close, check, reset   what each pod does, by number: ok, refuses, hangs, denies, full, nothing, raises …
    log   what was done, with the time
    """

    def __init__(self) -> None:
        self.opens: dict[int, str] = {}
        self.closes: dict[int, str] = {}
        self.checks: dict[int, str] = {}
        self.resets: dict[int, str] = {}
        self.open: set[Connection] = set()
        self.log: list[tuple[float, str, int]] = []
        self.under_way: Counter[str] = Counter()

    async def connect(self, endpoint: Endpoint) -> Connection:
        number = int(endpoint.address.rpartition(".")[2])
        await self._do("open", number, self.opens.get(number, "ok"), 0.05)
        if self.opens.get(number) == "nothing":
            return None  # type: ignore[return-value]
        connection = Connection(number)
        self.open.add(connection)
        return connection

    async def disconnect(self, connection: Connection) -> None:
        self.open.discard(connection)
        connection.closed_at = now()
        await self._do("close", connection.number, self.closes.get(connection.number, "ok"), 0.001)

    async def check(self, connection: Connection) -> bool:
        await self._do("check", connection.number, self.checks.get(connection.number, "ok"), 0.001)
        return not connection.dead

    async def reset(self, connection: Connection) -> None:
        await self._do("reset", connection.number, self.resets.get(connection.number, "ok"), 0.001)
        connection.dirty = False

    async def _do(self, what: str, number: int, how: str, seconds: float) -> None:
        self.log.append((round(now(), 3), what, number))
        self.under_way[what] += 1
        try:
            await asyncio.sleep(0.001 if how == "refuses" else seconds)
            match how:
                case "refuses":
                    raise ConnectionRefusedError(111, "refused")
                case "hangs":
                    await asyncio.Event().wait()
                case "ignores cancellation":
                    while True:
                        try:
                            await asyncio.sleep(100.0)
                            return
                        except asyncio.CancelledError:
                            pass
                case "ends slowly":
                    try:
                        await asyncio.Event().wait()
                    finally:
                        await asyncio.sleep(0.5)
                case "denies":
                    raise AccessDenied(f"access denied by {number}")
                case "full":
                    raise TooManyConnections(str(number))
                case "raises":
                    raise RuntimeError(f"{what} of {number}")
        finally:
            self.under_way[what] -= 1

    @property
    def spread(self) -> dict[int, int]:
        """Open connections by pod."""
        return dict(sorted(Counter(connection.number for connection in self.open).items()))

    def did(self, what: str, since: float = 0.0) -> list[int]:
        return [number for at, done, number in self.log if done == what and at >= since]


class Pooled:
    def __init__(self, stage: Stage, database: Database, pool: Pool[Connection]) -> None:
        self.stage = stage
        self.database = database
        self.pool = pool

    def dns(self, says: Answer) -> None:
        """What DNS says from its next look-up on, which comes within 5 s."""
        self.stage.source.says = says

    async def use(self, seconds: float, error: Exception | None = None) -> Connection:
        """One caller, who has a connection for so long."""
        async with self.pool.acquire() as connection:
            await asyncio.sleep(seconds)
            if error is not None:
                raise error
        return connection

    async def together(self, count: int, seconds: float = 0.1) -> list[Connection]:
        return await asyncio.gather(*[self.use(seconds) for _ in range(count)])

    @property
    def members(self) -> dict[int, int]:
        """Connections by pod, as the engine counts them."""
        view = self.stage.driver.snapshot()
        return {int(member.endpoint.address.rpartition(".")[2]): member.connections for member in view.members}


def is_full(error: BaseException) -> bool:
    return isinstance(error, TooManyConnections)


@asynccontextmanager
async def pooled(
    says: Answer, *hooks: str, on_silent: Callable[[Connection], None] | None = None, **rules: Any
) -> AsyncIterator[Pooled]:
    """A pool, and at its end nothing of it: no task, no connection, nothing that the engine counts.

    hooks   which of `check` and `reset` the pool is given
    rules   its settings; those with a leading `dns_` are the client's
    """
    options = {name.removeprefix("dns_"): rules.pop(name) for name in list(rules) if name.startswith("dns_")}
    async with stage(says, **options) as made:
        database = Database()
        given = Hooks(
            database.connect,
            database.disconnect,
            database.check if "check" in hooks else None,
            database.reset if "reset" in hooks else None,
            on_silent,
            is_full=is_full,
        )
        world = Pooled(made, database, Pool(lambda: made.driver, "db.data:3306", given, PoolRules(**rules)))
        before = asyncio.all_tasks()
        await asyncio.sleep(0.01)  # DNS has answered
        try:
            yield world
        finally:
            await world.pool.aclose()
        assert asyncio.all_tasks() <= before
        assert not database.open
        assert not any(world.members.values()), world.members
        assert not made.driver.on_retire
        assert not made.driver.on_warm
