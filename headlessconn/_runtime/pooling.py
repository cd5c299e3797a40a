"""Runs the machine of one pool on one event loop: its timer, its steps as tasks, and what the engine must hear.

The law of drivers holds here too: after *every* call into the machine, carry out its outbox, re-arm the timer.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, assert_never

from headlessconn._runtime import dial, faults
from headlessconn._runtime.driver import Driver, clock_of
from headlessconn._runtime.sockets import abort, close_any, cut_off, keep_seen_alive
from headlessconn.core.claim import KEEP, Claim, Retire, reason_of
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.pick import Nobody
from headlessconn.core.pooling import (
    Cancel,
    Check,
    Close,
    Command,
    Hand,
    Open,
    Phase,
    Pooling,
    PoolRules,
    Probe,
    Reset,
    Silent,
    Slot,
    said,
)
from headlessconn.core.probing import PROBE_TIMEOUT, has_passed
from headlessconn.errors import HeadlessError

log = logging.getLogger("headlessconn")

LEFT_BEHIND = 1.0  # seconds that a closing pool waits for steps that it has cancelled and that do not end


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the user of a pool gives it. Each may be a function or a coroutine function, the last three only the
    former."""

    open: Callable[[Endpoint], Any]
    close: Callable[[Any], Any] = close_any
    check: Callable[[Any], Any] | None = None
    reset: Callable[[Any], Any] | None = None
    on_silent: Callable[[Any], object] | None = None
    is_lost: faults.IsLost | None = None
    is_full: faults.IsFull | None = None


class Runner:
    """One pool's machine in motion. Made on the loop that it serves."""

    def __init__(self, driver: Callable[[], Driver], hooks: Hooks, rules: PoolRules, name: str, seed: bytes) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = clock_of(self.loop)
        self.machine = Pooling(rules, random.Random(seed), self.now(), checks=hooks.check is not None)
        self._driver = driver
        self._hooks = hooks
        self._name = name
        # Steps run in the context in which the pool began, not in that of whoever happened to need a connection first:
        # his trace must not hold the dial that serves others for hours.
        self._context = contextvars.copy_context()
        self._tasks: dict[Slot, asyncio.Task[None]] = {}
        self._running: set[asyncio.Task[None]] = set()  # those, and cancelled ones that have not ended
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = inf
        self._obeying = False
        self._listening: set[asyncio.Future[None]] = set()
        self.machine.wake(self.now())
        self.obey()

    # ---- the law -----------------------------------------------------------------------------------------------

    def obey(self) -> None:
        if self._obeying:
            return  # facts raised while commands are carried out wait for the loop below
        self._obeying = True
        machine = self.machine
        try:
            while machine.outbox:
                for command in machine.take():
                    self._carry_out(command)
        finally:
            self._obeying = False
        if machine.wakeup_at < self._armed_at:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_at = machine.wakeup_at
            self._timer = self.loop.call_at(self._armed_at, self._on_timer)
        if self._listening:
            for listener in self._listening:
                if not listener.done():
                    listener.set_result(None)

    def _on_timer(self) -> None:
        self._timer = None
        self._armed_at = inf
        self.machine.wake(self.now())
        self.obey()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Open(slot=slot):
                self._begin(slot, self._open(command))
            case Check(slot=slot):
                self._begin(slot, self._check(slot))
            case Reset(slot=slot):
                self._begin(slot, self._reset(slot))
            case Close(slot=slot, how=how):
                if slot.conn is not None:
                    slot.driver.gone(slot.conn, how)
                    slot.conn = None
                self._begin(slot, self._close(slot, self._tasks.get(slot)))
            case Cancel(slot=slot, why=why):
                self._cancel(slot, why)
            case Hand(waiter=waiter):
                if (taken := waiter.slot) is not None:
                    taken.driver.checked_out(taken.conn)
                if not waiter.turn.done():
                    waiter.turn.set_result(None)
            case Probe():
                self._spawn(self._probe(command))
            case Silent(slot=slot):
                cut_off(self._name, slot.endpoint, slot.connection, self._hooks.on_silent)
            case _:
                assert_never(command)

    async def next_fact(self) -> None:
        """Wait until anything has happened."""
        heard = self.loop.create_future()
        self._listening.add(heard)
        try:
            await heard
        finally:
            self._listening.discard(heard)

    # ---- hot: callers ------------------------------------------------------------------------------------------

    def take(self, place: tuple[str, int]) -> Slot | None:
        """A connection that is fit for use, at once."""
        machine = self.machine
        while True:
            slot = machine.acquire(place, self.now())
            if slot is None:
                return None
            verdict = slot.driver.checked_out(slot.conn)
            if verdict is KEEP:
                break
            machine.broke(slot, reason_of(verdict), How.OK, self.now())
            self.obey()
        if machine.outbox or machine.wakeup_at < self._armed_at:
            self.obey()
        return slot

    def give_back(self, slot: Slot, error: BaseException | None) -> None:
        """Whoever had it has done with it, `error` being how that went."""
        if slot.phase is not Phase.BUSY:
            return  # discarded meanwhile, or cut off when the pool closed
        machine = self.machine
        if error is not None:
            why, how = faults.of_using(error, self._hooks.is_lost)
            if why:
                machine.broke(slot, why, how, self.now())
                self.obey()
                return
        if self._hooks.reset is not None and not machine.closing:
            machine.resetting(slot, self.now())
        else:
            verdict = slot.driver.checked_in(slot.conn)
            machine.released(slot, self.now(), reason_of(verdict))
        if machine.outbox or machine.wakeup_at < self._armed_at:
            self.obey()

    def discard(self, slot: Slot) -> None:
        self.machine.broke(slot, "discarded", How.OK, self.now())
        self.obey()

    # ---- steps -------------------------------------------------------------------------------------------------

    async def _open(self, command: Open) -> None:
        slot, machine = command.slot, self.machine
        try:
            connection = await self._opened(command)
        except BaseException as error:
            if slot.phase is Phase.OPENING:  # else it was given up, and so was its claim
                fault, how = faults.of_opening(error, self._hooks.is_lost, self._hooks.is_full)
                if slot.claim is not None:
                    self._end_claim(slot, how)
                machine.failed(slot, fault, error, self.now())
                self._say(slot, error)
                self.obey()
            if not isinstance(error, Exception):
                raise
            return
        if connection is None:
            return
        claim, slot.claim = slot.claim, None
        if claim is not None:
            slot.conn = slot.driver.opened(
                claim, on_retire=partial(self._on_retire, slot), on_warm=partial(self._on_warm, slot)
            )
        if slot.pod is not None and slot.pod.failures:
            log.info("pool of %s: %s can be connected to again", self._name, slot.endpoint)
        machine.opened(slot, connection, self.now())
        if slot.phase is Phase.IDLE and slot.conn is not None:
            self._told(slot, slot.driver.checked_in(slot.conn))
        self.obey()

    async def _opened(self, command: Open) -> Any:
        """What `open` gives; None when there is no place for it."""
        slot, machine = command.slot, self.machine
        if slot.claim is None:
            try:
                driver = self._driver()
                found = await driver.claim(command.avoid)
            except HeadlessError as error:
                machine.nobody(slot, error, self.now())
                self.obey()
                return None
            if isinstance(found, Nobody):
                listed = [endpoint.key for endpoint in driver.snapshot().endpoints]
                machine.all_held(slot, listed, self.now())
                self.obey()
                return None
            if not machine.placed(slot, found.key, found.endpoint, self.now()):
                driver.failed(found, How.CANCELLED)
                return None
            slot.claim, slot.driver = found, driver
            self.obey()
        assert slot.endpoint is not None
        connection = await _result(self._hooks.open(slot.endpoint))
        if connection is None:
            raise TypeError("open returned None: it must return the connection")
        keep_seen_alive(connection)
        return connection

    async def _check(self, slot: Slot) -> None:
        assert self._hooks.check is not None
        try:
            works = await _result(self._hooks.check(slot.connection))
        except BaseException as error:
            if slot.phase is Phase.CHECKING:
                self.machine.broke(slot, "failed its check", faults.of_checking(error), self.now())
            if not isinstance(error, Exception):
                raise
        else:
            if slot.phase is not Phase.CHECKING:
                return  # it was too slow, and is being closed
            if works is False:
                self.machine.broke(slot, "failed its check", How.RESET_REUSED, self.now())
            else:
                self.machine.checked(slot, self.now())
        finally:
            self.obey()

    async def _reset(self, slot: Slot) -> None:
        assert self._hooks.reset is not None
        try:
            await _result(self._hooks.reset(slot.connection))
        except BaseException as error:
            if slot.phase is Phase.RESETTING:
                _, how = faults.of_using(error, self._hooks.is_lost)
                self.machine.broke(slot, "reset failed", how, self.now())
            if not isinstance(error, Exception):
                raise
        else:
            if slot.phase is Phase.RESETTING:
                verdict = slot.driver.checked_in(slot.conn)
                self.machine.was_reset(slot, self.now(), reason_of(verdict))
        finally:
            self.obey()

    async def _close(self, slot: Slot, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])  # a cancelled step must not use it beside us
        try:
            await _result(self._hooks.close(slot.connection))
        except Exception as error:
            log.debug("pool of %s: closing a connection to %s: %s", self._name, slot.endpoint, said(error))
        finally:
            slot.connection = None
            self.machine.closed(slot, self.now())
            self.obey()

    def _cancel(self, slot: Slot, why: str) -> None:
        if slot.claim is not None:
            self._end_claim(slot, How.DIAL_TIMEOUT if why == "open_timeout" else How.CANCELLED)
        if why == "close_timeout":
            log.warning("pool of %s: a connection to %s did not close (close_timeout)", self._name, slot.endpoint)
            abort(slot.connection)
        task = self._tasks.get(slot)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _probe(self, probe: Probe) -> None:
        tell_engine, how = self._driver().place_probe(probe.key), How.CANCELLED
        try:
            (await dial.connect(probe.endpoint, PROBE_TIMEOUT)).close()
            how = How.CALLER  # it was no connection to keep
        except OSError as error:
            how = dial.how_dial_failed(error)
        finally:
            tell_engine(how)
            self.machine.probed(probe.key, has_passed(how), self.now())
            self.obey()

    # ---- the engine --------------------------------------------------------------------------------------------

    def _on_retire(self, slot: Slot, wish: Retire) -> None:
        self._told(slot, wish)
        self.obey()

    def _told(self, slot: Slot, verdict: Any) -> None:
        if verdict is not KEEP:
            self.machine.retire(slot, reason_of(verdict), self.now())

    def _on_warm(self, slot: Slot, claim: Claim) -> None:
        dial = self.machine.replace(slot, claim.key, claim.endpoint, claim.reason.value, self.now())
        if dial is None:
            slot.driver.failed(claim, How.CANCELLED)
        else:
            dial.claim, dial.driver = claim, slot.driver
        self.obey()

    def _end_claim(self, slot: Slot, how: How) -> None:
        claim, slot.claim = slot.claim, None
        slot.driver.failed(claim, how)

    def _say(self, slot: Slot, error: BaseException) -> None:
        """One line for the first failure in a row."""
        pod = slot.pod
        if pod is not None and pod.failures == 1:
            log.warning("pool of %s: no connection to %s: %s", self._name, pod.endpoint, said(error))

    # ---- tasks -------------------------------------------------------------------------------------------------

    def _begin(self, slot: Slot, step: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[slot] = self._spawn(step)
        task.add_done_callback(partial(self._ended, slot))

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
        if self._tasks.get(slot) is task:
            del self._tasks[slot]

    def _spawn(self, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(step, context=self._context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def emptied(self) -> None:
        """Wait until nothing is left of it."""
        while self.machine.slots:
            await self.next_fact()

    async def end(self) -> None:
        """The last of it: the timer, and tasks that do not end."""
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=LEFT_BEHIND)
        for task in self._running:
            log.warning("pool of %s: a step ignores its cancellation: %r", self._name, task)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _result(value: Any) -> Any:
    """Hooks may be functions or coroutine functions."""
    return await value if inspect.isawaitable(value) else value
