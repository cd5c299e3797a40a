"""A pool of long-lived connections that follows the pods of a service, for threads."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from functools import partial
from math import inf
from types import TracebackType
from typing import Generic, Self, TypeVar

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_hub import opening
from headlessconn._runtime.blocking_pooling import BlockingRunner
from headlessconn._runtime.blocking_steps import Hooks
from headlessconn.core.endpoint import How
from headlessconn.core.pooling import (
    Phase,
    Place,
    Pooling,
    PoolRules,
    PoolSnapshot,
    Slot,
    holders,
    last_failure,
    picture,
)
from headlessconn.errors import ClosedError, NotHeld, PoolTimeout

log = logging.getLogger("headlessconn")

C = TypeVar("C")

GRACE = 5.0  # seconds that connections may stay out when the pool closes (psycopg_pool: 5 s)
RECENT = 60.0  # seconds for which a failed dial may explain why there is no connection


class Pool(Generic[C]):
    """Connections to the pods of one service, each to one pod, spread evenly. Made by `Service.pool`.

        with service.pool(open=open_connection, close=close_connection) as pool:
            with pool.acquire() as connection:
                ...

    Any thread may use it. Nothing is opened before its first use; used after a fork, it opens connections of its own
    there, and leaves those of its parent alone.
    """

    def __init__(self, driver: Callable[[], BlockingDriver], target: str, hooks: Hooks, rules: PoolRules) -> None:
        self._driver = driver
        self._target = target
        self._hooks = hooks
        self.rules = rules
        self._runner: BlockingRunner | None = None
        self._taken: dict[int, Slot] = {}  # by `take`, to be found again by `release`
        self._closed = False

    # ---- taking and giving back --------------------------------------------------------------------------------

    def acquire(self, timeout: float | None = inf, *, level: int = 1) -> Acquiring[C]:
        """A connection, as `with pool.acquire() as connection:`.

        How the block ends tells what becomes of it. After an exception that says that the connection is lost (a
        connection error, an end of file, a time-out), or an interruption, it is closed: an answer may still be under
        way on it. After any other it goes to the next caller, cleaned by `reset` if there is one.

        timeout   seconds to wait for one; default the pool's; 0 takes only what is free; None waits for ever
        level     how many callers up the place is that `PoolTimeout` names as holder; for wrappers

        Callers are served in the order in which they came. Raises `PoolTimeout`, which says who holds what;
        `NoEndpoints`; what `open` raised, if every pod says the same; `ClosedError`.
        """
        frame = sys._getframe(level)
        return Acquiring(self, timeout, (frame.f_code.co_filename, frame.f_lineno))

    def take(self, timeout: float | None = inf, *, level: int = 1) -> C:
        """As `acquire`, without a block: to be given back by `release`, whatever happens."""
        frame = sys._getframe(level)
        slot = self._acquired((frame.f_code.co_filename, frame.f_lineno), timeout)
        connection: C = slot.connection
        self._taken[id(connection)] = slot
        return connection

    def release(self, connection: C, *, broken: bool = False) -> None:
        """Give back what `take` gave. `broken`: it must not be used again.

        Raises `NotHeld` for a connection that is not out: given back twice, another pool's, or the parent process'.
        """
        runner = self._held_by()
        slot = self._taken.pop(id(connection), None)
        if slot is None:
            raise NotHeld(self._why_not_held(runner, connection))
        if broken:
            runner.broke(slot, "discarded", How.OK)
        else:
            runner.give_back(slot, None)

    def discard(self, connection: C) -> None:
        """Close a connection that is out, now: it is broken, or in a state that nobody should meet with. The block that
        took it may end as it likes. Raises `NotHeld`."""
        runner = self._held_by()
        for slot in runner.ask(lambda now: tuple(runner.machine.held)):
            if slot.connection is connection:
                self._taken.pop(id(connection), None)
                runner.broke(slot, "discarded", How.OK)
                return
        raise NotHeld(self._why_not_held(runner, connection))

    # ---- life --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._begun()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ready(self, timeout: float | None = inf) -> None:
        """Wait until `min_size` connections are open: for a readiness probe. `timeout` as in `acquire`.

        Raises `PoolTimeout`, `ClosedError`.
        """
        runner = self._begun()
        began = runner.now()
        seconds = self.rules.timeout if timeout == inf else timeout

        def enough(now: float) -> bool:
            if runner.machine.closing:
                raise ClosedError(self._was_closed())
            open_ = sum(slot.phase not in (Phase.OPENING, Phase.CLOSING) for slot in runner.machine.slots)
            return open_ >= self.rules.min_size

        if not runner.wait_until(enough, inf if seconds is None else began + seconds):
            raise self._timed_out(runner, began) from runner.machine.figures.last_error

    def close(self, timeout: float = GRACE) -> None:
        """Close it, from any thread. Callers that wait get `ClosedError`; connections that are out have `timeout`
        seconds to come back. Those that do not are closed all the same, and a warning says where they were taken.
        Closing twice is right."""
        with opening():
            self._closed, runner = True, self._runner
        if runner is None or runner.closed:
            return
        machine = runner.machine
        runner.tell(machine.close)
        if not runner.wait_until(lambda now: not machine.slots, runner.now() + timeout):
            for holder in runner.ask(partial(holders, machine)):
                log.warning("pool of %s: closed while a connection was out, taken at %s", self._target, holder)
            runner.tell(machine.cut)
            runner.wait_until(lambda now: not machine.slots, inf)  # each closing has its time-out
        self._taken.clear()
        runner.end()

    # ---- seeing ------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> PoolSnapshot:
        """Everything known about it now, frozen."""
        runner = self._runner
        if runner is None or runner.lost:
            return picture(Pooling(self.rules, random.Random(0), 0.0), 0.0)
        return runner.ask(partial(picture, runner.machine))

    def __repr__(self) -> str:
        state = "closed" if self._closed else str(self.snapshot)
        return f"<headlessconn.sync.Pool of {self._target}: {state}>"

    # ---- inside ------------------------------------------------------------------------------------------------

    def _begun(self) -> BlockingRunner:
        runner = self._runner
        if runner is None or self._closed or runner.lost:
            return self._begin()
        return runner

    def _begin(self) -> BlockingRunner:
        thread = self._driver().thread  # raises for a client that is closed
        with opening():
            if self._closed:
                raise ClosedError(self._was_closed())
            runner = self._runner
            if runner is None or runner.lost:
                self._taken.clear()
                runner = self._runner = BlockingRunner(self._driver, thread, self._hooks, self.rules, self._target)
        runner.begin()
        return runner

    def _held_by(self) -> BlockingRunner:
        """As `_begun`, of a pool that may be closing: what is out may come back."""
        runner = self._runner
        if runner is None or runner.lost:
            raise NotHeld(f"the pool of {self._target} has not handed out anything in this process")
        return runner

    def _was_closed(self) -> str:
        return f"the pool of {self._target} was closed: make a new one"

    def _why_not_held(self, runner: BlockingRunner, connection: C) -> str:
        for slot in runner.ask(lambda now: tuple(runner.machine.slots)):
            if slot.connection is connection and slot.phase is Phase.BUSY:
                return (
                    f"this connection to {slot.endpoint} was taken by `with pool.acquire()`: the end of that block "
                    "gives it back"
                )
            if slot.connection is connection:
                return f"this connection to {slot.endpoint} was given back already: it is {slot.phase.value} now"
        return f"the pool of {self._target} has not handed out this connection, or has closed it: {connection!r}"

    def _acquired(self, place: Place, timeout: float | None) -> Slot:
        runner = self._begun()
        slot = runner.take(place)
        if slot is not None:
            return slot
        began = runner.now()
        waiter = runner.wait(place, self.rules.timeout if timeout == inf else timeout)
        if waiter.slot is not None:
            return waiter.slot
        if waiter.error is not None:
            raise waiter.error.with_traceback(waiter.trace)
        raise self._timed_out(runner, began) from self._recent_error(runner, began)

    def _timed_out(self, runner: BlockingRunner, began: float) -> PoolTimeout:
        view = runner.ask(partial(picture, runner.machine))
        recent = self._recent_error(runner, began) is not None
        return PoolTimeout(
            self._target,
            runner.now() - began,
            view.size,
            view.max_size,
            [str(holder) for holder in view.holders],
            view.waiting,
            view.opening,
            last_failure(runner.machine) if recent else "",
            view.failed,
        )

    def _recent_error(self, runner: BlockingRunner, began: float) -> BaseException | None:
        figures = runner.machine.figures
        return figures.last_error if figures.last_failed_at >= began - RECENT else None


class Acquiring(Generic[C]):
    """The `with` of `Pool.acquire`."""

    __slots__ = ("_place", "_pool", "_runner", "_slot", "_timeout")

    def __init__(self, pool: Pool[C], timeout: float | None, place: Place) -> None:
        self._pool = pool
        self._timeout = timeout
        self._place = place
        self._slot: Slot | None = None
        self._runner: BlockingRunner | None = None

    def __enter__(self) -> C:
        pool = self._pool
        self._slot = slot = pool._acquired(self._place, self._timeout)
        self._runner = pool._runner
        connection: C = slot.connection
        return connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        self._runner.give_back(self._slot, error)


__all__ = ["Pool", "PoolSnapshot"]
