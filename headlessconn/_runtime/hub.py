"""The engines of one event loop, shared by every client and adapter there that has the same options.

Two connectors of one process must not each ask DNS for the same name, nor each believe that a pod is idle while the
other one loads it.
"""

from __future__ import annotations

import asyncio
import os
import random
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from cachetools import TTLCache

from headlessconn._runtime.dns import Resolver
from headlessconn._runtime.driver import Driver
from headlessconn._runtime.source import source_of
from headlessconn.core.engine import Engine
from headlessconn.core.target import Target
from headlessconn.errors import WrongLoop
from headlessconn.options import Options

IDLE_KEPT = 3600.0  # seconds an idle target keeps its set and history
BEAT = 0.25  # seconds between looks at our own clock
STALL = 0.5  # seconds for which the loop stood still that make a stall: what was observed then says nothing about pods

_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Options, Hub]] = WeakKeyDictionary()
_opened: WeakSet[Hub] = WeakSet()


class _Idle(TTLCache[Target, Driver]):
    """Idle drivers; whoever falls out is closed."""

    def popitem(self) -> tuple[Target, Driver]:
        target, driver = super().popitem()
        driver.close()
        return target, driver

    def expire(self, time: float | None = None) -> list[tuple[Target, Driver]]:
        expired: list[tuple[Target, Driver]] = super().expire(time)
        for _, driver in expired:
            driver.close()
        return expired


class Hub:
    """Drivers by target. Opened by its first user, closed by its last."""

    def __init__(self, options: Options, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.loop = loop
        self.resolver = Resolver(options)
        self.users = 0
        self.forked = False
        self._drivers: dict[Target, Driver] = {}
        self._idle = _Idle(options.idle_targets, IDLE_KEPT, timer=loop.time)
        self._beat: asyncio.TimerHandle | None = None
        self._expected = 0.0

    @classmethod
    def open(cls, options: Options) -> Hub:
        """The hub of the running loop for these options, with one user more."""
        loop = _running_loop()
        hubs = _hubs.setdefault(loop, {})
        hub = hubs.get(options)
        if hub is None:
            for dead in [other for other in _hubs if other.is_closed()]:
                del _hubs[dead]  # of clients that were never closed: a hub holds its loop, so nothing else frees them
            hub = hubs[options] = cls(options, loop)
            _opened.add(hub)
        hub.users += 1
        return hub

    def check(self) -> None:
        """Raise `WrongLoop` when used from another loop or another process than it was opened in."""
        if self.forked:
            raise WrongLoop(
                "this client was opened before a fork, in the parent process: its sockets and loop stayed there. "
                "Build it before the fork if you like, but use it only after"
            )
        if _running_loop() is not self.loop:
            raise WrongLoop(
                "this client belongs to another event loop: make one client a loop (asyncio.run makes a new loop each "
                "time it is called)"
            )

    def driver(self, target: Target) -> Driver:
        """The driver of a target, made when there is none yet."""
        driver = self._drivers.get(target) or self._idle.get(target)
        if driver is None:
            rng = random.Random(os.urandom(16))
            now = self.loop.time()
            engine = Engine(target, self.options, rng, now)
            source = source_of(target, self.options, self.resolver, self.loop.time)
            driver = self._drivers[target] = Driver(engine, source, self.loop, self)
            self._watch()
        return driver

    def forget(self, target: Target) -> None:
        """Drop a target that turned out to be none of our business."""
        driver = self._drivers.pop(target, None) or self._idle.pop(target, None)
        if driver is not None:
            driver.close()

    def drivers(self) -> tuple[Driver, ...]:
        return (*self._drivers.values(), *self._idle.values())

    def idled(self, driver: Driver) -> None:
        target = driver.engine.target
        if self._drivers.pop(target, None) is driver:
            self._idle[target] = driver

    def woke(self, driver: Driver) -> None:
        target = driver.engine.target
        self._idle.pop(target, None)
        self._drivers[target] = driver
        self._watch()

    async def close(self) -> None:
        """One user less; the last one ends all drivers."""
        self.users -= 1
        if self.users:
            return
        hubs = _hubs.get(self.loop, {})
        if hubs.get(self.options) is self:
            del hubs[self.options]
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        drivers = self.drivers()
        self._drivers.clear()
        for driver in drivers:
            driver.close()
        for driver in drivers:
            await driver.closed_tasks()
        self._idle.clear()

    def _watch(self) -> None:
        """Look at the clock while any target is in use."""
        if self._beat is None:
            self._expected = self.loop.time() + BEAT
            self._beat = self.loop.call_at(self._expected, self._on_beat)

    def _on_beat(self) -> None:
        late = self.loop.time() - self._expected
        self._beat = None
        if late > STALL - BEAT:  # a stall that began just after a beat is late by a beat less
            for driver in tuple(self._drivers.values()):
                driver.overslept(late)
        if self._drivers:
            self._watch()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongLoop("no event loop runs here: use the client in a coroutine, on the loop that it serves") from None


def _after_fork(*_: Any) -> None:
    for hub in _opened:
        hub.forked = True
    _opened.clear()
    _hubs.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
