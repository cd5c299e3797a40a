"""The blocking driver of one engine: any thread picks, under one plain lock; the client's thread does the rest.

The law is that of every driver: after *every* call into the engine, carry out its outbox if there is one; re-arm the
timer if `wakeup_at` moved earlier. Here that is the thread's work, so that effects are carried out in their order; a
caller only calls it. A request that changes nothing wakes nobody.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from functools import partial
from math import inf
from threading import Event
from typing import Protocol, TypeVar
from weakref import WeakSet

from headlessconn._runtime.checks import Checker
from headlessconn._runtime.placing import OnRetire, OnWarm, Placing
from headlessconn._runtime.reading import Changes
from headlessconn._runtime.short_lock import ShortLock
from headlessconn._runtime.source import Source
from headlessconn._runtime.telling import line_of, no_endpoints
from headlessconn._runtime.turns import Found, Question, Turn, Turns
from headlessconn.core.claim import Claim, ConnId
from headlessconn.core.effects import Admit, Change, Effect
from headlessconn.core.endpoint import How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Nobody, Pick
from headlessconn.core.snapshot import Snapshot
from headlessconn.errors import ClosedError, NoEndpoints

log = logging.getLogger("headlessconn")

_OK = How.OK
Result = TypeVar("Result")


class Served(Protocol):
    """What a client's thread serves: it comes when it is called, and at `armed_at`."""

    closed: bool

    @property
    def armed_at(self) -> float: ...

    def disarm(self) -> None:
        """The alarm has gone off, or could not be set."""

    def serve(self) -> None: ...

    def lose(self) -> None:
        """In a forked child, where the thread is not."""


class Thread(Protocol):
    """The client's thread."""

    def call(self, served: Served) -> None:
        """There is something to be carried out, or to be armed for."""

    def carry_out(self, driver: BlockingDriver, effect: Effect) -> None: ...

    def attach(self, served: Served) -> None:
        """Beside the drivers; until it is `closed`."""


class BlockingDriver(Placing):
    """Runs one engine for many threads."""

    def __init__(self, engine: Engine, source: Source, thread: Thread) -> None:
        self.engine = engine
        self.source = source
        self.checker = Checker(engine.target, engine.options)
        self.closed = False
        self.lost = False  # it is a forked child's copy of its parent's
        self.was_idle = False
        self.on_forget: set[Callable[[Key], None]] = set()
        self.on_retire: dict[ConnId, OnRetire] = {}
        self.on_warm: dict[ConnId, OnWarm] = {}
        self.thread = thread
        self._now = time.monotonic
        self._armed_at = inf
        self._called = False
        self._turns = Turns(engine)
        self._listening: list[Event] = []
        self._readers: WeakSet[Changes] = WeakSet()
        self._guard()

    def _guard(self) -> None:
        self._lock = lock = ShortLock()
        self._take, self._wait, self._acquire, self._release = lock.take, lock.wait, lock.acquire, lock.release

    # ---- requests: called by any thread ------------------------------------------------------------------------

    def pick(self, avoid: Collection[Key] = (), safe: bool = True) -> Pick | Nobody:
        engine = self.engine
        if not self._take(False):
            self._wait()
        try:
            found = engine.pick(self._now(), avoid, safe)
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()
        return found

    def responded(self, pick: Pick, bad: bool, retry_after: float = 0.0) -> None:
        self._tell(lambda now: self.engine.responded(pick, bad, now, retry_after))

    def ended(self, pick: Pick, how: How) -> None:
        if self.lost:
            return
        engine = self.engine
        if not self._take(False):
            self._wait()
        try:
            engine.ended(pick, how, self._now())
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()

    def answered(self, pick: Pick, bad: bool, retry_after: float = 0.0) -> None:
        """Head and end at once, of an answer that was whole when it was looked at: most are."""

        def is_over(now: float) -> None:
            self.engine.responded(pick, bad, now, retry_after)
            self.engine.ended(pick, _OK, now)

        self._tell(is_over)

    def dialled(self, pick: Pick, how: How) -> None:
        self._tell(lambda now: self.engine.dialled(pick, how, now))

    def streams(self, pick: Pick) -> None:
        self._tell(lambda now: self.engine.streams(pick))

    def overslept(self, seconds: float) -> None:
        self._tell(lambda now: self.engine.overslept(seconds, now))

    # ---- waiting -----------------------------------------------------------------------------------------------

    def acquire(self, avoid: Collection[Key] = (), safe: bool = True, wait: float | None = None) -> Pick | Nobody:
        """A pick, waiting for an endpoint if need be: `wait` seconds, by default `wait_for_endpoints`.

        Nobody only when `avoid` names all there are. Raises `NoEndpoints`, `Overloaded`, `ClosedError`.
        """
        found = self.pick(avoid, safe)
        if isinstance(found, Nobody) and not found.all_avoided:
            waited = self._awaited(lambda now: self.engine.pick(now, avoid, safe), bool(avoid), wait)
            assert not isinstance(waited, Claim)
            return waited
        return found

    def place_within(
        self,
        wait: float | None = None,
        avoid: Collection[Key] = (),
        began: Callable[[Turn], object] | None = None,
    ) -> Claim | Nobody:
        """A place for a connection, waiting for an endpoint if need be, as `acquire`. `began` is told of the turn that
        is waited for: whoever sets its `came` ends the waiting."""
        found = self.place(avoid)
        if isinstance(found, Nobody) and not found.all_avoided:
            waited = self._awaited(lambda now: self.engine.place(now, avoid), bool(avoid), wait, began)
            assert not isinstance(waited, Pick)
            return waited
        return found

    def _awaited(
        self,
        question: Question,
        is_choosy: bool,
        wait: float | None,
        began_to: Callable[[Turn], object] | None = None,
    ) -> Found:
        turn = Turn(question, is_choosy)
        if began_to is not None:
            began_to(turn)
        limit = self.engine.options.wait_for_endpoints if wait is None else wait
        with self._lock:
            self._check_open()
            began = self._now()
            found = question(began)  # under the same lock as the queueing: no Admit comes between the two
            if isinstance(found, Nobody) and not found.all_avoided:
                if self.engine.is_queue_full:
                    raise self.engine.overloaded(0.0)
                limit = max(limit, self.engine.fresh_in(began))  # not to wait for somebody to appear: somebody is known
                self._turns.join(turn, began)
            else:
                turn.found = found
        self._obey()
        if turn.found is not None:
            return turn.found
        try:
            turn.came.wait(max(0.0, began + limit - self._now()))
        except BaseException:
            self.ask(partial(self._turns.abandon, turn))
            raise
        last = self.ask(partial(self._turns.leave, turn))
        if last is None:
            raise self._closed_error()
        if isinstance(last, Nobody) and not last.all_avoided:
            waited = self._now() - began
            raise self.engine.overloaded(waited) if last.full else self._no_endpoints(waited)
        return last

    def first_word(self, seconds: float) -> None:
        """Wait until a look-up has ended, whatever it brought, at most `seconds`."""
        deadline = self._now() + seconds
        self._tell(self.engine.needed)
        while True:
            heard = Event()
            with self._lock:
                if self.engine.answer is not None or self.engine.trouble or self.closed:
                    return
                self._listening.append(heard)
            if not heard.wait(max(0.0, deadline - self._now())):
                return

    def ready(self, count: int, seconds: float) -> NoEndpoints | None:
        """Wait until `count` endpoints are READY; the error to raise when `seconds` passed first."""
        began = self._now()
        with self.changes() as changes:
            while self.ask(lambda now: self.engine.ready) < count:
                if changes.next_within(began + seconds - self._now()) is None:
                    return self._no_endpoints(self._now() - began, count)
        return None

    # ---- seeing ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        return self.ask(self.engine.snapshot)

    def _no_endpoints(self, waited: float, wanted: int = 1) -> NoEndpoints:
        return no_endpoints(self.snapshot(), waited, wanted)

    def changes(self) -> Changes:
        """Each change from now on, until the driver is closed. Who reads uses the target: it does not fall idle."""
        reader = Changes(str(self.engine.target))
        with self._lock:
            self._check_open()
            self._readers.add(reader)
            self.engine.watchers += 1
            self.engine.needed(self._now())
        self._obey()
        return reader

    # ---- the law -----------------------------------------------------------------------------------------------

    def ask(self, question: Callable[[float], Result]) -> Result:
        """Call the engine, told the time under the lock: so its time never goes back."""
        with self._lock:
            answer = question(self._now())
        self._obey()
        return answer

    def _tell(self, fact: Callable[[float], object]) -> None:
        if not self.lost:
            self.ask(fact)

    tell = _tell
    further = ask
    retire = Placing._retire
    warm = Placing._warm

    def _obey(self) -> None:
        """Call the thread, if there is anything for it, once until it comes. Callers that may go on are admitted here:
        those who wait for room do so for one another, and should not wait for the thread as well."""
        engine = self.engine
        if not (engine.outbox or engine.wakeup_at < self._armed_at):
            return
        with self._lock:
            now = self._now()
            served = self._turns.serve(now) if any(type(effect) is Admit for effect in engine.outbox) else []
            must_call = not self._called and bool(engine.outbox or engine.wakeup_at < self._armed_at)
            self._called = self._called or must_call
        for turn in served:
            turn.came.set()
        if must_call and not self.closed:
            self.thread.call(self)

    def serve(self) -> None:
        """The thread's: carry out what there is."""
        for effect in self._arm():
            try:
                self.thread.carry_out(self, effect)
            except Exception:  # of whoever was called: the other effects are carried out all the same
                log.exception("%s: carrying out %r failed", self.engine.target, effect)

    def _arm(self) -> tuple[Effect, ...]:
        engine = self.engine
        with self._lock:
            self._called = False
            engine.watchers = sum(not reader.closed for reader in self._readers)  # some have gone, told or not
            now = self._now()
            if now >= engine.wakeup_at:
                engine.wake(now)
            self._armed_at = engine.wakeup_at
            return engine.take()

    @property
    def armed_at(self) -> float:
        return self._armed_at

    def disarm(self) -> None:
        self._armed_at = inf

    def admit(self) -> None:
        for turn in self.ask(self._turns.serve):
            turn.came.set()

    def publish(self, change: Change) -> None:
        if change.is_membership and log.isEnabledFor(logging.INFO):
            log.info("%s: %s", self.engine.target, line_of(change))
        for reader in self._all_readers():
            reader.put(change)

    def forget(self, key: Key) -> None:
        for forget in tuple(self.on_forget):
            forget(key)

    def heard(self) -> None:
        """A look-up has ended."""
        with self._lock:
            listening, self._listening = self._listening, []
        for event in listening:
            event.set()

    # ---- the end -----------------------------------------------------------------------------------------------

    def close(self, *, only_idle: bool = False) -> bool:
        """End the waiting: callers that wait get `ClosedError`. False when it was to be idle, and is not."""
        with self._lock:
            if only_idle and not self.engine.idle:
                return False
            self.closed = True
            turns = self._turns.end(self._now())
        for turn in turns:
            turn.came.set()
        self.heard()
        for reader in self._all_readers():
            reader.end()
        return True

    def lose(self) -> None:
        """In a forked child: whatever is held, wherever the parent's threads stood, nothing of it is used any more."""
        self.lost = self.closed = True
        self._guard()

    def _all_readers(self) -> tuple[Changes, ...]:
        with self._lock:
            return tuple(self._readers)

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the client of {self.engine.target} was closed")
