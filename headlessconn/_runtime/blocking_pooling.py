"""Runs the machine of one pool for many threads: callers take and give back under one plain lock, a few workers take
the steps that block, the client's thread keeps the time.

The law of drivers holds here too: after *every* call into the machine, carry out its outbox, re-arm the timer. Commands
may be carried out in any order and by any thread: each step looks, when it begins, whether it is wanted still.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import TypeVar, assert_never

from headlessconn._runtime import faults
from headlessconn._runtime.blocking import BlockingDriver, Thread
from headlessconn._runtime.blocking_steps import Hooks, Step, Steps
from headlessconn._runtime.short_lock import ShortLock
from headlessconn._runtime.sockets import cut_off
from headlessconn._runtime.workers import Workers
from headlessconn.core.claim import KEEP, Claim, Retire, reason_of
from headlessconn.core.endpoint import How
from headlessconn.core.pooling import (
    Cancel,
    Check,
    Close,
    Command,
    Hand,
    Open,
    Phase,
    Place,
    Pooling,
    PoolRules,
    Probe,
    Reset,
    Silent,
    Slot,
    Waiter,
)

log = logging.getLogger("headlessconn")
Result = TypeVar("Result")

WORKERS = 16  # threads at most: the machine dials ten at once, and beside those there are checks, resets and closings
LEFT_BEHIND = 1.0  # seconds that a closing pool waits for steps that nobody waits for any more

_BUSY = Phase.BUSY

_of_the_parent: list[BlockingRunner] = []
"""In a forked child: pools whose connections are the parent's. They are kept for ever, since even the end of such an
object might say goodbye to a server on a socket that both have."""


class BlockingRunner(Steps):
    """One pool's machine in motion."""

    def __init__(
        self, driver: Callable[[], BlockingDriver], thread: Thread, hooks: Hooks, rules: PoolRules, name: str
    ) -> None:
        self.now = time.monotonic
        self.machine = Pooling(rules, random.Random(os.urandom(16)), self.now(), checks=hooks.check is not None)
        self.closed = False
        self.lost = False  # it is a forked child's copy of its parent's
        self._driver = driver
        self._hooks = hooks
        self._name = name
        self._thread = thread
        self._workers = Workers(WORKERS, "headlessconn-pool")
        self._steps: dict[Slot, Step] = {}
        self._armed_at = inf
        self._called = False
        self._facts = threading.Condition()
        self._watchers = 0
        self._guard()
        self._thread.attach(self)

    def begin(self) -> None:
        """Open what is to be open from the beginning."""
        self.tell(self.machine.wake)

    def _guard(self) -> None:
        self._lock = lock = ShortLock()
        self._take, self._wait, self._release = lock.take, lock.wait, lock.release

    # ---- callers -----------------------------------------------------------------------------------------------

    def take(self, place: Place) -> Slot | None:
        """A connection that is fit for use, at once."""
        machine = self.machine
        while True:
            if not self._take(False):
                self._wait()
            try:
                slot = machine.acquire(place, self.now())
            finally:
                self._release()
            if slot is None:
                return None
            verdict = self._verdict(slot, slot.driver.checked_out)
            if verdict is KEEP and slot.phase is _BUSY:
                break
            self.broke(slot, reason_of(verdict), How.OK)
        if machine.outbox or machine.wakeup_at < self._armed_at:
            self.obey()
        return slot

    def wait(self, place: Place, seconds: float | None) -> Waiter:
        """Wait in line. With neither `slot` nor `error` in it the time was over."""
        turn = threading.Event()
        waiter = self.ask(lambda now: self.machine.queue(place, now, turn))
        try:
            turn.wait(seconds)
        except BaseException:
            if not self.ask(partial(self._leave, waiter)):
                self.give_back(waiter.slot, None)
            raise
        self.ask(partial(self._leave, waiter))
        return waiter

    def _leave(self, waiter: Waiter, now: float) -> bool:
        """Whether it stopped waiting before its turn."""
        if waiter.slot is None and waiter.error is None:
            self.machine.left(waiter, now)
        return waiter.slot is None

    def give_back(self, slot: Slot | None, error: BaseException | None) -> None:
        """Whoever had it has done with it, `error` being how that went."""
        if slot is None or slot.phase is not _BUSY or self.lost:
            return  # discarded meanwhile, cut off when the pool closed, or the parent's
        machine = self.machine
        why, how = ("", How.OK) if error is None else faults.of_using(error, self._hooks.is_lost)
        if why:
            self.broke(slot, why, how)
            return
        if self._hooks.reset is not None and not machine.closing:
            self._tell_of(slot, partial(machine.resetting, slot))
            return
        leaving = reason_of(self._verdict(slot, slot.driver.checked_in))
        if not self._take(False):
            self._wait()
        try:
            if slot.phase is _BUSY:
                machine.released(slot, self.now(), leaving)
        finally:
            self._release()
        if machine.outbox or machine.wakeup_at < self._armed_at:
            self.obey()

    def broke(self, slot: Slot, why: str, how: How) -> None:
        if not self.lost:
            self._tell_of(slot, partial(self.machine.broke, slot, why, how))

    def _tell_of(self, slot: Slot, fact: Callable[[float], None]) -> None:
        """Unless it is in nobody's hands any more."""
        with self._lock:
            if slot.phase is _BUSY:
                fact(self.now())
        self.obey()

    def wait_until(self, condition: Callable[[float], bool], deadline: float) -> bool:
        """Wait for something to be true of the machine; False when the deadline came first. Whoever waits keeps the
        time of the pool too: its client may be closed already."""
        with self._lock:
            self._watchers += 1
        try:
            with self._facts:
                while not self.ask(condition):
                    now = self.now()
                    if now >= deadline:
                        return False
                    self._facts.wait(max(0.001, min(deadline, self.machine.wakeup_at) - now))
                    if self.now() >= self.machine.wakeup_at:
                        self.tell(self.machine.wake)
                return True
        finally:
            with self._lock:
                self._watchers -= 1

    # ---- the law -----------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[float], Result]) -> Result:
        """Call the machine, told the time under the lock, and carry out what it wants."""
        with self._lock:
            answer = question(self.now())
        self.obey()
        return answer

    def tell(self, fact: Callable[[float], object]) -> None:
        self.ask(fact)

    def obey(self) -> None:
        machine = self.machine
        while machine.outbox:
            with self._lock:
                commands = machine.take()
            for command in commands:
                self._carry_out(command)
        if machine.wakeup_at < self._armed_at:
            with self._lock:
                called, self._called = self._called, True
            if not called and not self.closed:
                self._thread.call(self)
        if self._watchers:
            with self._facts:
                self._facts.notify_all()

    @property
    def armed_at(self) -> float:
        return self._armed_at

    def disarm(self) -> None:
        self._armed_at = inf

    def serve(self) -> None:
        """The client's thread's: it was called, or its time has come."""
        machine = self.machine
        with self._lock:
            self._called = False
            now = self.now()
            if now >= machine.wakeup_at:
                machine.wake(now)
            self._armed_at = machine.wakeup_at
        self.obey()

    def _carry_out(self, command: Command) -> None:
        match command:
            case Open(slot=slot):
                self._begin(slot, Phase.OPENING, partial(self._open, command))
            case Check(slot=slot):
                self._begin(slot, Phase.CHECKING, partial(self._check, command))
            case Reset(slot=slot):
                self._begin(slot, Phase.RESETTING, partial(self._reset, slot))
            case Close(slot=slot, how=how):
                conn, slot.conn = slot.conn, None
                if conn is not None:
                    slot.driver.gone(conn, how)
                self._begin(slot, Phase.CLOSING, partial(self._close, slot))
            case Cancel(slot=slot, why=why):
                self._cancel(slot, why)
            case Hand(waiter=waiter):
                if waiter.slot is not None:
                    # Said before its caller wakes up, who may give it back at once.
                    self._verdict(waiter.slot, waiter.slot.driver.checked_out)
                waiter.turn.set()
            case Probe():
                self._workers.submit(partial(self._probe, command))
            case Silent(slot=slot):
                cut_off(self._name, slot.endpoint, slot.connection, self._hooks.on_silent)
            case _:
                assert_never(command)

    def _on_retire(self, slot: Slot, wish: Retire) -> None:
        self.tell(lambda now: self.machine.retire(slot, reason_of(wish), now))

    def _on_warm(self, slot: Slot, claim: Claim) -> None:
        driver = slot.driver

        def replace(now: float) -> bool:
            dial = self.machine.replace(slot, claim.key, claim.endpoint, claim.reason.value, now)
            if dial is not None:
                dial.claim, dial.driver = claim, driver
            return dial is not None

        if not self.ask(replace):
            driver.failed(claim, How.CANCELLED)

    # ---- the end -----------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The last of it: the timer, and threads whose steps do not end."""
        self.closed = True
        self._workers.close(drop=False)  # what has not begun is over, or a connection that is to be closed
        if not self._workers.join(LEFT_BEHIND):
            log.warning("pool of %s: a step has not ended, and goes on in its thread", self._name)

    def lose(self) -> None:
        """In a forked child: leave it to the parent, with all its connections."""
        self.lost = self.closed = True
        self._guard()
        _of_the_parent.append(self)
