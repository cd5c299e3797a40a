"""A pool of long-lived connections that follows the pods of a service: SQL, Redis, AMQP, or whatever you speak."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import Callable, Generator
from math import inf
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from headlessconn._runtime.driver import Driver
from headlessconn._runtime.pooling import Hooks, Runner
from headlessconn.core.pooling import Phase, Place, PoolRules, PoolSnapshot, Slot, holders, last_failure, picture
from headlessconn.core.pooling.figures import Figures
from headlessconn.core.pooling.machine import Pooling
from headlessconn.errors import ClosedError, NotHeld, PoolTimeout, WrongLoop

log = logging.getLogger("headlessconn")

C = TypeVar("C")

GRACE = 5.0  # seconds that connections may stay out when the pool closes (psycopg_pool: 5 s)
RECENT = 60.0  # seconds for which a failed dial may explain why there is no connection


class Pool(Generic[C]):
    """Connections to the pods of one service, each to one pod, spread evenly. Made by `Service.pool`.

        async with service.pool(open=open_connection, close=close_connection) as pool:
            async with pool.acquire() as connection:
                ...

    It belongs to the event loop on which it is first used. Nothing is opened before.
    """

    def __init__(self, driver: Callable[[], Driver], target: str, hooks: Hooks, rules: PoolRules) -> None:
        self._driver = driver
        self._target = target
        self._hooks = hooks
        self.rules = rules
        self._runner: Runner | None = None
        self._taken: dict[int, Slot] = {}  # by `await pool.acquire()`, to be found again by `release`
        self._closed = False

    # ---- taking and giving back --------------------------------------------------------------------------------

    def acquire(self, timeout: float | None = inf, *, level: int = 1) -> Acquiring[C]:
        """A connection, as `async with pool.acquire() as connection:`.

        How the block ends tells what becomes of it. After an exception that says that the connection is lost (a
        connection error, an end of file, a time-out), or a cancellation, it is closed: an answer may still be under
        way on it. After any other it goes to the next caller, cleaned by `reset` if there is one.

        Or as `connection = await pool.acquire()`, to be given back by `release`, whatever happens.

        timeout   seconds to wait for one; default the pool's; 0 takes only what is free; None waits for ever
        level     how many callers up the place is that `PoolTimeout` names as holder; for wrappers

        Callers are served in the order in which they came. Raises `PoolTimeout`, which says who holds what;
        `NoEndpoints`; what `open` raised, if every pod says the same; `ClosedError`, `WrongLoop`.
        """
        frame = sys._getframe(level)
        return Acquiring(self, timeout, (frame.f_code.co_filename, frame.f_lineno))

    def release(self, connection: C, *, broken: bool = False) -> None:
        """Give back what `await pool.acquire()` gave. `broken`: it must not be used again.

        Raises `NotHeld` for a connection that is not out: given back twice, or another pool's; `WrongLoop`.
        """
        runner = self._held_by()
        slot = self._taken.get(id(connection))
        if slot is None:
            raise NotHeld(self._why_not_held(connection))
        del self._taken[id(connection)]
        if broken:
            runner.discard(slot)
        else:
            runner.give_back(slot, None)

    def discard(self, connection: C) -> None:
        """Close a connection that is out, now: it is broken, or in a state that nobody should meet with. The block that
        took it may end as it likes. Raises `NotHeld`, `WrongLoop`."""
        runner = self._held_by()
        for slot in runner.machine.held:
            if slot.connection is connection:
                self._taken.pop(id(connection), None)
                runner.discard(slot)
                return
        raise NotHeld(self._why_not_held(connection))

    # ---- life --------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._begun()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def ready(self, timeout: float | None = inf) -> None:
        """Wait until `min_size` connections are open: for a readiness probe. `timeout` as in `acquire`.

        Raises `PoolTimeout`, `ClosedError`, `WrongLoop`.
        """
        runner = self._begun()
        began = runner.now()
        try:
            async with asyncio.timeout(self.rules.timeout if timeout == inf else timeout):
                while sum(slot.phase not in (Phase.OPENING, Phase.CLOSING) for slot in runner.machine.slots) < (
                    self.rules.min_size
                ):
                    if self._closed:
                        raise ClosedError(self._was_closed())
                    await runner.next_fact()
        except TimeoutError:
            raise self._timed_out(runner, began) from runner.machine.figures.last_error

    async def aclose(self, timeout: float = GRACE) -> None:
        """Close it. Callers that wait get `ClosedError`; connections that are out have `timeout` seconds to come back.

        Those that do not are closed all the same, and a warning says where they were taken. Closing twice is right.
        Raises `WrongLoop` on another loop than the pool's, while that one lives.
        """
        runner = self._runner
        self._closed = True
        if runner is None or runner.loop.is_closed():
            return
        self._check_loop(runner)
        machine = runner.machine
        machine.close(runner.now())
        runner.obey()
        try:
            async with asyncio.timeout(timeout):
                await runner.emptied()
        except TimeoutError:
            for holder in holders(machine, runner.now()):
                log.warning("pool of %s: closed while a connection was out, taken at %s", self._target, holder)
            machine.cut(runner.now())
            runner.obey()
            await runner.emptied()  # each closing has its time-out
        self._taken.clear()
        await runner.end()

    # ---- seeing ------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> PoolSnapshot:
        """Everything known about it now, frozen."""
        if self._runner is None:
            return picture(Pooling(self.rules, random.Random(0), 0.0), 0.0)
        return picture(self._runner.machine, self._runner.now())

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self.snapshot)
        return f"<headlessconn.Pool of {self._target}: {state}>"

    # ---- inside ------------------------------------------------------------------------------------------------

    def _begun(self) -> Runner:
        runner = self._runner
        if runner is None or self._closed:
            return self._begin()
        self._check_loop(runner)
        return runner

    def _begin(self) -> Runner:
        if self._closed:
            raise ClosedError(self._was_closed())
        self._driver()  # raises for a client that is closed, forked, or another loop's
        self._runner = Runner(self._driver, self._hooks, self.rules, self._target, os.urandom(16))
        return self._runner

    def _held_by(self) -> Runner:
        """As `_begun`, of a pool that may be closing: what is out may come back."""
        if self._runner is None:
            raise NotHeld(f"the pool of {self._target} has not handed out anything yet")
        self._check_loop(self._runner)
        return self._runner

    def _check_loop(self, runner: Runner) -> None:
        try:
            here = asyncio.get_running_loop() is runner.loop
        except RuntimeError:
            here = False
        if not here:
            raise WrongLoop(
                f"the pool of {self._target} belongs to another event loop, or to another thread's: its connections "
                "can only be taken and given back there"
            )

    def _was_closed(self) -> str:
        return f"the pool of {self._target} was closed: make a new one"

    def _why_not_held(self, connection: C) -> str:
        assert self._runner is not None
        for slot in self._runner.machine.slots:
            if slot.connection is connection and slot.phase is Phase.BUSY:
                return (
                    f"this connection to {slot.endpoint} was taken by `async with pool.acquire()`: the end of that "
                    "block gives it back"
                )
            if slot.connection is connection:
                return f"this connection to {slot.endpoint} was given back already: it is {slot.phase.value} now"
        return f"the pool of {self._target} has not handed out this connection, or has closed it: {connection!r}"

    async def _wait(self, runner: Runner, place: Place, timeout: float | None) -> Slot:
        seconds = self.rules.timeout if timeout == inf else timeout
        began = runner.now()
        waiter = runner.machine.queue(place, began, runner.loop.create_future())
        runner.obey()
        try:
            async with asyncio.timeout(seconds):
                await waiter.turn
        except TimeoutError:
            pass  # unless it was our turn in the same moment
        except BaseException:
            if waiter.slot is not None:
                runner.give_back(waiter.slot, None)
            else:
                self._left(runner, waiter)
            raise
        if waiter.slot is not None:
            return waiter.slot
        if waiter.error is not None:
            raise waiter.error.with_traceback(waiter.trace)
        self._left(runner, waiter)
        raise self._timed_out(runner, began) from self._recent_error(runner, began)

    def _left(self, runner: Runner, waiter: Any) -> None:
        runner.machine.left(waiter, runner.now())
        runner.obey()

    def _timed_out(self, runner: Runner, began: float) -> PoolTimeout:
        machine, now = runner.machine, runner.now()
        view = picture(machine, now)
        recent = self._recent_error(runner, began) is not None
        return PoolTimeout(
            self._target,
            now - began,
            view.size,
            view.max_size,
            [str(holder) for holder in view.holders],
            view.waiting,
            view.opening,
            last_failure(machine) if recent else "",
            view.failed,
        )

    def _recent_error(self, runner: Runner, began: float) -> BaseException | None:
        figures: Figures = runner.machine.figures
        return figures.last_error if figures.last_failed_at >= began - RECENT else None


class Acquiring(Generic[C]):
    """The `async with`, or the `await`, of `Pool.acquire`."""

    __slots__ = ("_place", "_pool", "_slot", "_timeout")

    def __init__(self, pool: Pool[C], timeout: float | None, place: Place) -> None:
        self._pool = pool
        self._timeout = timeout
        self._place = place
        self._slot: Slot | None = None

    async def __aenter__(self) -> C:
        runner = self._pool._begun()
        slot = runner.take(self._place)
        if slot is None:
            slot = await self._pool._wait(runner, self._place, self._timeout)
        self._slot = slot
        connection: C = slot.connection
        return connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        slot, runner = self._slot, self._pool._runner
        assert slot is not None
        assert runner is not None
        runner.give_back(slot, error)

    def __await__(self) -> Generator[Any, Any, C]:
        connection = yield from self.__aenter__().__await__()
        assert self._slot is not None
        self._pool._taken[id(connection)] = self._slot
        return connection


__all__ = ["Pool", "PoolSnapshot"]
