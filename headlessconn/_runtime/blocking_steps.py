"""Steps on the connections of a blocking pool: dials, checks, resets, closings, each in a worker's thread.

A thread cannot be cancelled. A step that takes too long is left to itself, another thread stands in for its own, and
what it ends with is thrown away; where a socket can be seen in the connection, cutting that ends it soon.
"""

from __future__ import annotations

import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from headlessconn._runtime import faults
from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_probe import knock
from headlessconn._runtime.short_lock import ShortLock
from headlessconn._runtime.sockets import abort, keep_seen_alive
from headlessconn._runtime.turns import Turn
from headlessconn._runtime.workers import Job, Workers
from headlessconn.core.claim import KEEP, Claim, Keep, Retire, reason_of
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.pick import Nobody
from headlessconn.core.pooling import Check, Open, Phase, Pooling, Probe, Slot, said
from headlessconn.core.probing import has_passed
from headlessconn.errors import HeadlessError, OptionError, PickEnded

log = logging.getLogger("headlessconn")


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the user of a pool gives it. Raises `OptionError` for coroutine functions, which nobody here could await."""

    open: Callable[[Endpoint], Any]
    close: Callable[[Any], Any]
    check: Callable[[Any], Any] | None = None
    reset: Callable[[Any], Any] | None = None
    on_silent: Callable[[Any], object] | None = None
    is_lost: faults.IsLost | None = None
    is_full: faults.IsFull | None = None

    def __post_init__(self) -> None:
        for name in ("open", "close", "check", "reset", "on_silent"):
            hook = getattr(self, name)
            if hook is None and name not in ("open", "close"):
                continue
            if not callable(hook) or inspect.iscoroutinefunction(hook):
                raise OptionError(name, f"{hook!r} is no function that blocks", f"{name}=function")


class Step:
    """One step under way on a connection."""

    __slots__ = ("job", "then", "turn")

    def __init__(self, job: Job) -> None:
        self.job = job
        self.turn: Turn | None = None  # while it waits for an endpoint
        self.then: Callable[[], None] | None = None  # its connection is to be closed: not while it is used here


class Steps(ABC):
    """The steps of one pool. The attributes are the runner's."""

    machine: Pooling
    now: Callable[[], float]
    _driver: Callable[[], BlockingDriver]
    _hooks: Hooks
    _lock: ShortLock
    _name: str
    _steps: dict[Slot, Step]
    _workers: Workers

    def _begin(self, slot: Slot, phase: Phase, work: Callable[[Step], None]) -> None:
        """Do this in a worker's thread, if the connection is still in that phase then."""
        handed = threading.Event()

        def run() -> None:
            handed.wait()
            with self._lock:
                if slot.phase is not phase:
                    return
                before = self._steps.get(slot)
                if before is not None:  # a cancelled step must not use it beside us
                    before.then = partial(work, step)
                    return
                self._steps[slot] = step
            try:
                work(step)
            finally:
                with self._lock:
                    del self._steps[slot]
                if step.then is not None:
                    step.then()

        step = Step(self._workers.submit(run))
        handed.set()
        if step.job.is_refused and phase is Phase.CLOSING:
            run()  # a dial has ended after the pool: its connection is closed by whoever dialled it

    def _cancel(self, slot: Slot, why: str) -> None:
        self._end_claim(slot, How.DIAL_TIMEOUT if why == "open_timeout" else How.CANCELLED)
        if why == "close_timeout":
            log.warning("pool of %s: a connection to %s did not close (close_timeout)", self._name, slot.endpoint)
        with self._lock:
            step, connection = self._steps.get(slot), slot.connection
        if connection is not None:
            abort(connection)
        if step is not None:
            step.job.abandon()
            if step.turn is not None:
                step.turn.came.set()

    # ---- a dial ------------------------------------------------------------------------------------------------

    def _open(self, command: Open, step: Step) -> None:
        slot, machine = command.slot, self.machine
        try:
            connection = self._opened(command, step)
        except BaseException as error:
            with self._lock:
                is_wanted = slot.phase is Phase.OPENING  # else it was given up, and so was its claim
            if is_wanted:
                fault, how = faults.of_opening(error, self._hooks.is_lost, self._hooks.is_full)
                self._end_claim(slot, how)
                self.tell(partial(machine.failed, slot, fault, error))
                if slot.pod is not None and slot.pod.failures == 1:
                    log.warning("pool of %s: no connection to %s: %s", self._name, slot.endpoint, said(error))
            if not isinstance(error, Exception):
                raise
            return
        if connection is None:
            return
        claim, driver = self._claim_of(slot), slot.driver
        verdict: Keep | Retire = KEEP
        if claim is not None:
            on_retire, on_warm = partial(self._on_retire, slot), partial(self._on_warm, slot)
            slot.conn = driver.opened(claim, on_retire=on_retire, on_warm=on_warm)
            # Said before anybody can take it: afterwards it may be in somebody's hands, who has said so.
            verdict = self._verdict(slot, driver.checked_in)
        if slot.pod is not None and slot.pod.failures:
            log.info("pool of %s: %s can be connected to again", self._name, slot.endpoint)
        self.tell(lambda now: machine.opened(slot, connection, now))
        if isinstance(verdict, Retire):
            self._on_retire(slot, verdict)

    def _opened(self, command: Open, step: Step) -> Any:
        """What `open` gives; None when there is no place for it."""
        slot, machine = command.slot, self.machine
        if slot.claim is None:
            try:
                driver = self._driver()
                found = driver.place_within(avoid=command.avoid, began=partial(setattr, step, "turn"))
            except HeadlessError as error:
                self.tell(partial(machine.nobody, slot, error))
                return None
            if isinstance(found, Nobody):
                listed = [endpoint.key for endpoint in driver.snapshot().endpoints]
                self.tell(partial(machine.all_held, slot, listed))
                return None
            with self._lock:
                is_wanted = machine.placed(slot, found.key, found.endpoint, self.now())
                if is_wanted:
                    slot.claim, slot.driver = found, driver
            self.obey()
            if not is_wanted:
                driver.failed(found, How.CANCELLED)
                return None
        assert slot.endpoint is not None
        connection = self._hooks.open(slot.endpoint)
        if connection is None:
            raise TypeError("open returned None: it must return the connection")
        keep_seen_alive(connection)
        return connection

    def _claim_of(self, slot: Slot) -> Claim | None:
        """Whoever ends the claim takes it: the dial, or whoever gives it up."""
        with self._lock:
            claim: Claim | None = slot.claim
            slot.claim = None
        return claim

    def _end_claim(self, slot: Slot, how: How) -> None:
        claim = self._claim_of(slot)
        if claim is not None:
            slot.driver.failed(claim, how)

    # ---- the others --------------------------------------------------------------------------------------------

    def _check(self, command: Check, _: Step) -> None:
        slot, machine = command.slot, self.machine
        assert self._hooks.check is not None
        why: How | None = None
        try:
            if self._hooks.check(slot.connection) is False:
                why = How.RESET_REUSED
        except Exception as error:
            why = faults.of_checking(error)

        def is_over(now: float) -> None:
            if slot.phase is not Phase.CHECKING:
                return  # it was too slow, and is being closed
            if why is None:
                machine.checked(slot, now)
            else:
                machine.broke(slot, "failed its check", why, now)

        self.tell(is_over)

    def _reset(self, slot: Slot, _: Step) -> None:
        machine = self.machine
        assert self._hooks.reset is not None
        how: How | None = None
        leaving = ""
        try:
            self._hooks.reset(slot.connection)
        except Exception as error:
            how = faults.of_using(error, self._hooks.is_lost)[1]
        else:
            leaving = reason_of(self._verdict(slot, slot.driver.checked_in))

        def is_over(now: float) -> None:
            if slot.phase is not Phase.RESETTING:
                return
            if how is None:
                machine.was_reset(slot, now, leaving)
            else:
                machine.broke(slot, "reset failed", how, now)

        self.tell(is_over)

    def _close(self, slot: Slot, _: Step) -> None:
        try:
            self._hooks.close(slot.connection)
        except Exception as error:
            log.debug("pool of %s: closing a connection to %s: %s", self._name, slot.endpoint, said(error))
        finally:
            slot.connection = None
            self.tell(partial(self.machine.closed, slot))

    def _probe(self, probe: Probe) -> None:
        tell_engine, how = self._driver().place_probe(probe.key), How.CANCELLED
        try:
            how = knock(probe.endpoint)
        finally:
            tell_engine(how)
            self.tell(lambda now: self.machine.probed(probe.key, has_passed(how), now))

    def _verdict(self, slot: Slot, question: Callable[[Any], Keep | Retire]) -> Keep | Retire:
        """What the engine says of it; KEEP when it has been closed meanwhile, for then the machine knows better."""
        try:
            return question(slot.conn)
        except PickEnded:
            return KEEP

    # ---- the runner's other half -------------------------------------------------------------------------------

    @abstractmethod
    def obey(self) -> None: ...

    @abstractmethod
    def tell(self, fact: Callable[[float], object]) -> None: ...

    @abstractmethod
    def _on_retire(self, slot: Slot, wish: Retire) -> None: ...

    @abstractmethod
    def _on_warm(self, slot: Slot, claim: Claim) -> None: ...
