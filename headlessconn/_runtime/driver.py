"""The asyncio driver of one engine. It obeys one law and has no opinions.

After *every* call into the engine: carry out its outbox if there is one; re-arm the timer if `wakeup_at` moved earlier.
The engine is behind one plain lock, never held over an await or a callback.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from math import inf
from threading import Lock
from typing import Any, Protocol, TypeVar, assert_never

from headlessconn._runtime.checks import Checker
from headlessconn._runtime.placing import OnRetire, OnWarm, Placing
from headlessconn._runtime.source import Source
from headlessconn.core.attempts import Attempts
from headlessconn.core.claim import Claim, ConnId, Retire
from headlessconn.core.effects import Admit, Ask, Change, Changed, Effect, Forget, Hurry, Probe, Verify, Warm
from headlessconn.core.endpoint import Answer, How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.explain import advice_on
from headlessconn.core.pick import Nobody, Pick
from headlessconn.core.snapshot import Snapshot
from headlessconn.errors import ClosedError, NoEndpoints

log = logging.getLogger("headlessconn")

MISSED = 1000  # changes kept for a reader of `changes()` that does not keep up; the oldest are dropped
NAMED = 8  # endpoints that a log line names


Found = TypeVar("Found", Pick, Claim)

_OK = How.OK


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """The loop's clock. asyncio's own is `time.monotonic` behind a method, which costs as much again."""
    return time.monotonic if getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time else loop.time


class Owner(Protocol):
    """Whoever keeps the drivers: told when one falls idle and when it wakes."""

    def idled(self, driver: Driver) -> None: ...
    def woke(self, driver: Driver) -> None: ...


class Driver(Placing):
    """Runs one engine on one event loop. Calls come from that loop's thread; `snapshot` from any."""

    def __init__(self, engine: Engine, source: Source, loop: asyncio.AbstractEventLoop, owner: Owner) -> None:
        self.engine = engine
        self.source = source
        self.closed = False
        self._checker = Checker(engine.target, engine.options)
        self._loop = loop
        self._now = clock_of(loop)
        self._owner = owner
        lock = Lock()
        self._acquire, self._release = lock.acquire, lock.release  # bound: half the cost of a with statement
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = inf
        self._obeying = False
        self._was_idle = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._listening: set[asyncio.Future[None]] = set()
        self._readers: set[asyncio.Queue[Change | None]] = set()
        self.on_forget: set[Callable[[Key], None]] = set()
        self.on_retire: dict[ConnId, OnRetire] = {}
        self.on_warm: dict[ConnId, OnWarm] = {}
        self._obey()

    # ---- requests ----------------------------------------------------------------------------------------------

    def pick(self, avoid: Collection[Key] = (), safe: bool = True) -> Pick | Nobody:
        engine = self.engine
        self._acquire()
        try:
            found = engine.pick(self._now(), avoid, safe)
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()
        return found

    def responded(self, pick: Pick, bad: bool, retry_after: float = 0.0) -> None:
        engine = self.engine
        self._acquire()
        try:
            engine.responded(pick, bad, self._now(), retry_after)
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()

    def ended(self, pick: Pick, how: How) -> None:
        engine = self.engine
        self._acquire()
        try:
            engine.ended(pick, how, self._now())
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()

    def answered(self, pick: Pick, bad: bool, retry_after: float = 0.0) -> None:
        """Head and end at once, of an answer that was whole when it was looked at: most are."""
        engine = self.engine
        self._acquire()
        try:
            now = self._now()
            engine.responded(pick, bad, now, retry_after)
            engine.ended(pick, _OK, now)
        finally:
            self._release()
        if engine.outbox or engine.wakeup_at < self._armed_at:
            self._obey()

    def dialled(self, pick: Pick, how: How) -> None:
        self._tell(lambda now: self.engine.dialled(pick, how, now))

    def streams(self, pick: Pick) -> None:
        self._tell(lambda now: self.engine.streams(pick))

    def overslept(self, seconds: float) -> None:
        self._tell(lambda now: self.engine.overslept(seconds, now))

    def further(self, question: Callable[[float], Pick | None]) -> Pick | None:
        """Ask an `Attempts` of this engine one of its questions: `further(partial(attempts.after_dial, pick))`."""
        self._acquire()
        try:
            found = question(self._now())
        finally:
            self._release()
        self._obey()
        return found

    async def acquire(self, avoid: Collection[Key] = (), safe: bool = True, wait: float | None = None) -> Pick | Nobody:
        """A pick, waiting for an endpoint if need be: `wait` seconds, by default `wait_for_endpoints`.

        Nobody only when `avoid` names all there are. Raises `NoEndpoints`, `Overloaded`.
        """
        found = self.pick(avoid, safe)
        if isinstance(found, Pick) or found.all_avoided:
            return found
        return await self._in_turn(lambda: self.pick(avoid, safe), wait)

    async def claim(self, avoid: Collection[Key] = (), wait: float | None = None) -> Claim | Nobody:
        """A place, waiting for an endpoint if need be: `wait` seconds, by default `wait_for_endpoints`.

        Nobody only when `avoid` names all there are. Raises `NoEndpoints`, `Overloaded`, `ClosedError`.
        """
        found = self.place(avoid)
        if isinstance(found, Claim) or found.all_avoided:
            return found
        return await self._in_turn(lambda: self.place(avoid), wait)

    async def _in_turn(self, question: Callable[[], Found | Nobody], wait: float | None) -> Found | Nobody:
        """Wait in turn until the question is answered with somebody."""
        if self.engine.is_queue_full:
            raise self.engine.overloaded(0.0)
        limit = self.engine.options.wait_for_endpoints if wait is None else wait
        began = self._now()
        limit = max(limit, self.engine.fresh_in(began))  # not to wait for somebody to appear; somebody is known
        admitted = False
        while True:
            admitted = await self._admitted(began + limit, again=admitted)
            found = question()
            if not isinstance(found, Nobody) or found.all_avoided:
                return found
            if not admitted:
                waited = self._now() - began
                raise self.engine.overloaded(waited) if found.full else self._no_endpoints(waited)

    async def _admitted(self, deadline: float, again: bool = False) -> bool:
        """Wait for our turn; False when the deadline came first. `again`: we had one and got nothing, so it is still
        our turn."""
        if self.closed:
            raise ClosedError(f"the client of {self.engine.target} was closed")
        turn = self._loop.create_future()
        (self._waiting.appendleft if again else self._waiting.append)(turn)
        self._tell(self.engine.queued)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
            return True
        except TimeoutError:
            return turn.done() and not turn.cancelled()
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)
            self._tell(self.engine.left)

    def _no_endpoints(self, waited: float, wanted: int = 1) -> NoEndpoints:
        target = str(self.engine.target)
        view = self.snapshot()
        said = view.trouble or (view.answer.why if view.answer else "") or "nothing yet"
        age = None if view.trouble else view.answer_age  # else it would be that of another answer
        text = advice_on(view)
        return NoEndpoints(target, waited, said, age, text, len(view.ready), wanted)

    # ---- seeing ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        self._acquire()
        try:
            return self.engine.snapshot(self._now())
        finally:
            self._release()

    async def another(self, attempts: Attempts, seconds: float) -> Pick | None:
        """A pod that these attempts have not tried. When they tried all there are, those have just failed, and that has
        hinted a look-up: wait for its end, at most `seconds`, since the set may be another one by then."""
        if seconds <= 0 or self.closed:
            return None
        try:
            async with asyncio.timeout(seconds):
                await self._next_word()
        except TimeoutError:
            return None
        return self.further(attempts.another)

    async def first_word(self) -> None:
        """Wait until a look-up has ended, whatever it brought."""
        self._tell(self.engine.needed)
        while self.engine.answer is None and not self.engine.trouble and not self.closed:
            await self._next_word()

    async def _next_word(self) -> None:
        heard = self._loop.create_future()
        self._listening.add(heard)
        try:
            await heard
        finally:
            self._listening.discard(heard)

    async def ready(self, count: int, seconds: float) -> NoEndpoints | None:
        """Wait until `count` endpoints are READY; the error to raise when `seconds` passed first."""
        began = self._now()
        changes = self.changes()
        self._tell(self.engine.needed)
        try:
            async with asyncio.timeout(seconds):
                while self.engine.ready < count:
                    await anext(changes)
        except TimeoutError:
            return self._no_endpoints(self._now() - began, count)
        except StopAsyncIteration:
            raise ClosedError(f"the client of {self.engine.target} was closed") from None
        finally:
            await changes.aclose()
        return None

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Each change from now on, until the driver is closed. Who reads uses the target: it does not fall idle."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._readers.add(queue)
        self.engine.watchers += 1
        self._tell(self.engine.needed)
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._readers.discard(queue)
            self.engine.watchers -= 1

    # ---- the law -----------------------------------------------------------------------------------------------

    def _tell(self, fact: Callable[[float], None]) -> None:
        self._acquire()
        try:
            fact(self._now())
        finally:
            self._release()
        self._obey()

    def _obey(self) -> None:
        if self._obeying or self.closed:
            return  # facts raised while effects are carried out wait for the loop below
        self._obeying = True
        engine = self.engine
        try:
            while engine.outbox:
                self._acquire()
                try:
                    effects = engine.take()
                finally:
                    self._release()
                for effect in effects:
                    try:
                        self._carry_out(effect)
                    except Exception:  # somebody's callback: the other wishes are carried out all the same
                        log.exception("%s: %s was not carried out", self.engine.target, type(effect).__name__)
            if engine.wakeup_at < self._armed_at:
                if self._timer is not None:
                    self._timer.cancel()
                self._armed_at = engine.wakeup_at
                self._timer = self._loop.call_at(self._armed_at, self._on_timer)
        finally:
            self._obeying = False
        if engine.idle is not self._was_idle:
            self._was_idle = engine.idle
            (self._owner.idled if engine.idle else self._owner.woke)(self)

    def _on_timer(self) -> None:
        self._timer = None
        self._armed_at = inf
        self._tell(self.engine.wake)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Ask(id=ask):
                self._spawn(self._look_up(ask))
            case Probe():
                self._spawn(self._probe(effect))
            case Verify():
                self._spawn(self._verify(effect))
            case Forget(key=key):
                for forget in tuple(self.on_forget):
                    forget(key)
            case Retire():
                self._retire(effect)
            case Warm():
                self._warm(effect)
            case Hurry(pick=pick):
                if pick.holder is not None:
                    pick.holder.hurry()
            case Admit(count=count):
                self._admit(count)
            case Changed(change=change):
                self._publish(change)
            case _:
                assert_never(effect)

    def _admit(self, count: int) -> None:
        while count and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1

    def _publish(self, change: Change) -> None:
        if change.is_membership and log.isEnabledFor(logging.INFO):
            log.info("%s: %s%s", self.engine.target, change.counts(), _names(change))
        for queue in self._readers:
            if queue.qsize() >= MISSED:
                queue.get_nowait()
            queue.put_nowait(change)

    async def _look_up(self, ask: int) -> None:
        try:
            answer = await self.source.look_up()
        except Exception as error:  # a look-up must always be answered, or the engine waits for its guard
            log.exception("%s: the look-up failed", self.engine.target)
            answer = Answer("dns", "no_news", why=f"{type(error).__name__}: {error}")
        self._tell(lambda now: self.engine.answered(answer, now, ask))
        self._heard()

    def _heard(self) -> None:
        for waiter in self._listening:
            if not waiter.done():
                waiter.set_result(None)

    async def _probe(self, probe: Probe) -> None:
        passed, how, why = await self._checker.probe(probe)
        self._tell(lambda now: self.engine.probed(probe.id, passed, now, how, why))

    async def _verify(self, wish: Verify) -> None:
        meant = await self._checker.verify(wish)
        self._tell(lambda now: self.engine.verified(wish.id, meant, now))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """End the timer, the tasks and the waiting. Callers that wait get `ClosedError`."""
        if self.closed:
            return
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in tuple(self._tasks):
            task.cancel()
        error = ClosedError(f"the client of {self.engine.target} was closed")
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)
        self._heard()
        for queue in self._readers:
            queue.put_nowait(None)

    async def closed_tasks(self) -> None:
        """Wait until what `close` cancelled has ended."""
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _names(change: Change) -> str:
    added, removed = change.first_added(NAMED), change.first_removed(NAMED)
    words = [f" +{endpoint}" for endpoint in added] + [f" -{endpoint}" for endpoint in removed]
    rest = change.count - len(words)
    return "".join(words) + (f" and {rest} more" if rest else "")
