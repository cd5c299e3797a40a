"""The engines of one blocking client, and its one thread: it asks DNS, probes, and keeps the time.

The thread is a daemon, so it keeps no interpreter alive. A forked child has no thread but the one that forked: there
the client starts afresh, with sockets, dice and a thread of its own.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import threading
import time
from collections import deque
from functools import partial
from math import inf
from typing import assert_never
from weakref import WeakSet

from headlessconn._runtime.blocking import BlockingDriver, Served
from headlessconn._runtime.blocking_dns import BlockingResolver, blocking_source_of
from headlessconn._runtime.blocking_probe import accepts
from headlessconn._runtime.hub import BEAT, IDLE_KEPT, STALL
from headlessconn._runtime.poll import Poll
from headlessconn._runtime.workers import Workers
from headlessconn.core.claim import Retire
from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Hurry, Probe, Verify, Warm
from headlessconn.core.endpoint import Answer
from headlessconn.core.engine import Engine
from headlessconn.core.target import Target
from headlessconn.errors import ClosedError
from headlessconn.options import Options

log = logging.getLogger("headlessconn")

CHECKERS = 4  # threads for checks by HTTP and for `verify`: none as long as there are none
JOIN = 5.0  # seconds `close` waits for the thread; only an adapter's callback that hangs could take as long

_opened: WeakSet[BlockingHub] = WeakSet()
_opening = threading.Lock()


def opening() -> threading.Lock:
    """The lock under which clients open and close; in a forked child a new one, whatever its parent's threads held."""
    return _opening


class BlockingHub:
    """Drivers by target, and the thread that serves them. The first driver starts it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.closed = False
        self.lost = False  # this is a forked child's copy of its parent's
        self._abandoned = False
        self._lock = threading.Lock()  # of the tables of drivers; taken before a driver's own lock, never after
        self._drivers: dict[Target, BlockingDriver] = {}
        self._idle: dict[Target, tuple[float, BlockingDriver]] = {}  # since when; in that order
        self._attached: WeakSet[Served] = WeakSet()
        self._called: deque[Served] = deque()
        self._alarms: list[tuple[float, int, Served]] = []  # those that were overtaken are dropped when due
        self._sequence = itertools.count()
        self._expected = inf  # when the thread is to look at its clock next
        self._poll = Poll(time.monotonic)
        self._resolver = BlockingResolver(options, self._poll)
        self._workers = Workers(CHECKERS, "headlessconn-check")
        self._thread: threading.Thread | None = None
        _opened.add(self)

    # ---- called by any thread ----------------------------------------------------------------------------------

    def driver(self, target: Target) -> BlockingDriver:
        """The driver of a target, made when there is none yet. Raises `ClosedError`."""
        with self._lock:
            self._check_open()
            driver = self._find(target)
            if driver is not None:
                return driver
            engine = Engine(target, self.options, random.Random(os.urandom(16)), time.monotonic())
            source = blocking_source_of(target, self.options, self._resolver)
            driver = self._drivers[target] = BlockingDriver(engine, source, self)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="headlessconn", daemon=True)
                self._thread.start()
        driver.tell(engine.needed)
        return driver

    def call(self, served: Served) -> None:
        """It has something to be carried out, or to be armed for."""
        self._called.append(served)
        self._poll.wake()

    def attach(self, served: Served) -> None:
        """Serve this too, until it is closed."""
        self._attached.add(served)

    def close(self) -> None:
        """End all drivers and the thread. Closing twice is right."""
        with self._lock:
            self.closed = True
            thread, drivers = self._thread, self._all()
        for driver in drivers:
            driver.close()
        self._workers.close()
        if thread is None:
            self._poll.close()
        elif thread is not threading.current_thread():
            self._poll.wake()
            thread.join(JOIN)

    def abandon(self) -> None:
        """Close soon: the client is gone, and was not closed. For a finalizer, which may run in any thread at any
        moment, so it takes no lock."""
        self._abandoned = True
        self._poll.nudge()

    def drivers(self) -> tuple[BlockingDriver, ...]:
        with self._lock:
            return self._all()

    def _all(self) -> tuple[BlockingDriver, ...]:
        return (*self._drivers.values(), *(driver for _, driver in self._idle.values()))

    def _find(self, target: Target) -> BlockingDriver | None:
        driver = self._drivers.get(target)
        if driver is None and target in self._idle:
            driver = self._idle[target][1]
        return driver

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("this client was closed: make a new one")

    # ---- the thread --------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while not self.closed:
            try:
                self._look_at_the_clock()
                for served in self._due():
                    self._obey(served)
                alarm_at = self._alarms[0][0] if self._alarms else inf
                self._poll.run(-inf if self._called else min(alarm_at, self._expected))
            except Exception:
                log.exception("the thread of a blocking client stumbled, and goes on")
                time.sleep(BEAT)
            if self._abandoned:
                self.close()
        self._poll.close()

    def _look_at_the_clock(self) -> None:
        """Notice that the process stood still, or that nobody but one thread ran: what was observed then says nothing
        about pods. Looked at while any target is in use."""
        now = time.monotonic()
        late = now - self._expected
        if late > STALL - BEAT:  # a stall that began just after a beat is late by a beat less
            for driver in self.drivers():
                driver.overslept(late)
        if late >= 0 or (self._expected == inf and self._drivers):
            self._expected = now + BEAT if self._drivers else inf

    def _due(self) -> list[Served]:
        """Who called, and whose time has come."""
        due: dict[Served, None] = {}
        now = time.monotonic()
        while self._alarms and self._alarms[0][0] <= now:
            at, _, served = heapq.heappop(self._alarms)
            if at == served.armed_at:
                served.disarm()
                due[served] = None
        while self._called:
            due[self._called.popleft()] = None
        return [served for served in due if not served.closed]

    def _obey(self, served: Served) -> None:
        armed_at = served.armed_at
        try:
            served.serve()
        except Exception:
            log.exception("carrying out what %r wants failed", served)
            served.disarm()
            self._called.append(served)
            time.sleep(BEAT)
        if served.armed_at != armed_at and served.armed_at < inf:
            heapq.heappush(self._alarms, (served.armed_at, next(self._sequence), served))
        if isinstance(served, BlockingDriver) and served.engine.idle is not served.was_idle:
            served.was_idle = served.engine.idle
            (self._idled if served.was_idle else self._woke)(served)

    def carry_out(self, driver: BlockingDriver, effect: Effect) -> None:
        match effect:
            case Ask(id=ask):
                deadline = time.monotonic() + self.options.lookup_timeout
                self._poll.spawn(self._look_up(driver, ask), deadline)
            case Probe(is_redial=True):
                self._poll.spawn(self._redial(driver, effect))
            case Probe():
                self._workers.submit(partial(self._probe, driver, effect))
            case Verify():
                self._workers.submit(partial(self._verify, driver, effect))
            case Forget(key=key):
                driver.forget(key)
            case Admit():
                driver.admit()
            case Changed(change=change):
                driver.publish(change)
            case Hurry(pick=pick):
                if pick.holder is not None:
                    pick.holder.hurry()
            case Retire():
                driver.retire(effect)
            case Warm():
                driver.warm(effect)
            case _:
                assert_never(effect)

    async def _look_up(self, driver: BlockingDriver, ask: int) -> None:
        try:
            answer = await driver.source.look_up()
        except Exception as error:  # a look-up must always be answered, or the engine waits for its guard
            log.exception("%s: the look-up failed", driver.engine.target)
            answer = Answer("dns", "no_news", why=f"{type(error).__name__}: {error}")
        driver.tell(lambda now: driver.engine.answered(answer, now, ask))
        driver.heard()

    async def _redial(self, driver: BlockingDriver, probe: Probe) -> None:
        """Connecting is all that this probe is about, and when a node has died there are many of them: no threads."""
        passed = await accepts(self._poll, probe.endpoint, time.monotonic() + probe.timeout)
        driver.tell(lambda now: driver.engine.probed(probe.id, passed, now))

    def _probe(self, driver: BlockingDriver, probe: Probe) -> None:
        passed, how, why = driver.checker.probe_blocking(probe)
        driver.tell(lambda now: driver.engine.probed(probe.id, passed, now, how, why))

    def _verify(self, driver: BlockingDriver, wish: Verify) -> None:
        meant = driver.checker.verify_blocking(wish)
        driver.tell(lambda now: driver.engine.verified(wish.id, meant, now))

    # ---- idle targets ------------------------------------------------------------------------------------------

    def _idled(self, driver: BlockingDriver) -> None:
        now = time.monotonic()
        with self._lock:
            self._drivers.pop(driver.engine.target, None)
            self._idle[driver.engine.target] = now, driver
            for target, (since, oldest) in tuple(self._idle.items()):
                if len(self._idle) <= self.options.idle_targets and now - since < IDLE_KEPT:
                    break
                del self._idle[target]
                if not oldest.close(only_idle=True):
                    self._drivers[target] = oldest  # used again, in this very moment

    def _woke(self, driver: BlockingDriver) -> None:
        with self._lock:
            self._idle.pop(driver.engine.target, None)
            self._drivers[driver.engine.target] = driver

    # ---- fork --------------------------------------------------------------------------------------------------

    def lose(self) -> None:
        """In a forked child: leave it to the parent, whatever state it is in."""
        self.lost = self.closed = True
        self._lock = threading.Lock()
        for served in (*self._all(), *self._attached):
            served.lose()
        self._poll.forget()


def _after_fork() -> None:
    global _opening
    _opening = threading.Lock()
    for hub in _opened:
        hub.lose()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
