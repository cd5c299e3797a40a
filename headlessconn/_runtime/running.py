"""`service.run`: one exchange with one of the pods, carried on elsewhere when that pod fails or falls silent.

`Attempts` decides who comes next; here are the tasks, the waiting and the clock. A round ends when every pod refused,
or when there was none; rounds are spaced by tenacity, since the set may be another one soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf
from typing import Generic, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from headlessconn._runtime.driver import Driver, clock_of
from headlessconn.core.attempts import COPIES, SENT, Attempts, Rules
from headlessconn.core.endpoint import NO_DIAL, How
from headlessconn.core.lane import Lane
from headlessconn.core.pick import Pick
from headlessconn.errors import DeadlineExceeded, DialFailed, NoEndpoints, OptionError

# Seconds between rounds, at random up to twice as many after each (full jitter, else clients of one outage keep step).
# The set can be another one after refresh_min, 1 s: waiting longer than that only comes late.
BACK_OFF_FIRST = 0.1
BACK_OFF_MAX = 1.0

ASK_AGAIN = 0.25  # seconds until a copy is asked for again that the budget refused; one is earned each second

T = TypeVar("T")


class Held(Protocol):
    """What the caller's function is given, as far as a run looks at it."""

    @property
    def is_sent(self) -> bool: ...
    @property
    def is_bad(self) -> bool: ...
    def finish(self, error: BaseException | None) -> How: ...


H = TypeVar("H", bound=Held)


class Run(Generic[H, T]):
    """One call of `service.run`. It is the holder of its picks: a `Hurry` reaches it."""

    def __init__(
        self,
        driver: Driver,
        hold: Callable[[Pick], H],
        exchange: Callable[[H], Awaitable[T]],
        lane: Lane,
        *,
        repeatable: bool,
        deadline: float | None,
        hedge_after: float | None,
    ) -> None:
        self._driver = driver
        self._hold = hold
        self._exchange = exchange
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._now = clock_of(self._loop)
        self._began_at = self._now()
        self._seconds = deadline
        self._deadline = inf if deadline is None else self._began_at + deadline
        self._rules = Rules(repeatable, None if deadline is None else self._deadline, hedge_after)
        self._sent = 0  # by the rounds before
        self._hedge_at = inf
        self._copied = False
        self._racing: dict[asyncio.Task[T], _Attempt[H]] = {}  # in the order of their beginning
        self._tried: list[tuple[str, str]] = []
        self._broken: BaseException | None = None  # what the last attempt that was sent ended with
        self._nobody = False  # a round ended since nobody took the request: it may be had again
        self._hurried = self._loop.create_future()

    async def answer(self) -> T:
        """What the exchange returned, or raised. Raises `NoEndpoints`, `DialFailed`, `DeadlineExceeded` else."""
        try:
            return await self._round()
        except Exception:
            if not self._nobody or self._now() + BACK_OFF_FIRST >= self._until:
                raise
        await asyncio.sleep(BACK_OFF_FIRST)
        rounds = AsyncRetrying(
            retry=retry_if_exception(lambda _: self._nobody),
            wait=wait_random_exponential(multiplier=2 * BACK_OFF_FIRST, max=BACK_OFF_MAX, min=BACK_OFF_FIRST),
            stop=self._is_over,
            sleep=asyncio.sleep,
            reraise=True,
        )
        return await rounds(self._round)

    def hurry(self) -> None:
        """A pod fell silent, which owes us an answer."""
        if not self._hurried.done():
            self._hurried.set_result(None)

    @property
    def _until(self) -> float:
        """When the last round may begin. Whoever named no deadline waits as long as for a first endpoint."""
        if self._seconds is not None:
            return self._deadline
        wait: float = self._driver.engine.options.wait_for_endpoints
        return self._began_at + wait

    def _is_over(self, state: RetryCallState) -> bool:
        return self._now() + float(state.upcoming_sleep) >= self._until

    async def _round(self) -> T:
        """From pod to pod, until one answers or all have been tried."""
        self._nobody = False
        attempts = Attempts(self._driver.engine, self._rules, await self._first())
        attempts.sent = self._sent
        (first,) = attempts.open
        try:
            self._start(first)
            return await self._answered(attempts)
        finally:
            self._sent = attempts.sent
            await self._end()

    async def _first(self) -> Pick:
        wait = min(self._driver.engine.options.wait_for_endpoints, max(0.0, self._deadline - self._now()))
        try:
            found = await self._driver.acquire((), self._rules.repeatable, wait)
        except NoEndpoints:
            self._nobody = True
            if self._broken is not None:
                raise self._broken  # noqa: B904 - it came first, and says more
            raise
        assert isinstance(found, Pick)  # nothing was avoided
        if self._tried:
            self._driver.engine.again += 1  # a later round is not another request, and earns nothing
        return found

    async def _answered(self, attempts: Attempts) -> T:
        while True:
            await self._event(attempts)
            for task in [task for task in self._racing if task.done()]:
                attempt = self._racing.pop(task)
                how = attempt.over(task)
                if how is How.OK:
                    return task.result()
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                assert error is not None
                found = self._elsewhere(attempts, attempt, how, error)
                if found is None and self._copied:
                    self._hedge_at = self._now()  # one of two is left, which has been silent for long
                self._start(found)

    async def _event(self, attempts: Attempts) -> None:
        """Wait until an attempt ends. On the way one beside it may be begun; at the deadline all are given up."""
        while True:
            at = min(self._deadline, self._hedge_at)
            timeout = None if at == inf else max(0.0, at - self._now())
            await asyncio.wait({*self._racing, self._hurried}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() for task in self._racing):
                return
            now = self._now()
            if now >= self._deadline:
                raise DeadlineExceeded(str(self._driver.engine.target), now - self._began_at, self._so_far(now))
            if self._hurried.done() or now >= self._hedge_at:
                self._hurried = self._loop.create_future()
                self._see_what_was_sent(attempts)
                found = self._driver.further(attempts.beside)
                self._hedge_at = now + ASK_AGAIN if found is None and self._may_hedge(attempts) else inf
                self._copied = self._copied or found is not None
                self._start(found)

    def _elsewhere(self, attempts: Attempts, attempt: _Attempt[H], how: How, error: BaseException) -> Pick | None:
        """An attempt failed: who is next; None while others are under way. When nobody is, its exception is raised."""
        driver, pick, bad = self._driver, attempt.pick, attempt.held.is_bad
        noted = partial(_noted, error, tuple(self._tried))
        if (how is How.CALLER and not bad) or how is How.CANCELLED:
            raise noted()  # an answer of a kind, or the wish of whoever cancelled it
        self._tried.append((str(pick.endpoint), "bad answer" if bad else how.value))
        self._see_what_was_sent(attempts)
        if how in NO_DIAL and not attempt.held.is_sent:
            found = driver.further(partial(attempts.after_dial, pick))
            if found is None and self._racing:
                found = driver.further(attempts.beside)
            if found is None and not self._racing:
                self._nobody = True
                if self._broken is not None:
                    raise self._broken
                raise DialFailed(str(driver.engine.target), self._tried) from error
            return found
        if how is How.LOCAL and not bad:
            attempts.left(pick)
            found = None
        else:
            found = driver.further(partial(attempts.after_bad if bad else attempts.after_break, pick))
            self._broken = noted()
        if found is None and not self._racing:
            raise error if error is self._broken else noted()
        return found

    def _may_hedge(self, attempts: Attempts) -> bool:
        return self._rules.repeatable and len(self._racing) < COPIES and attempts.sent < SENT

    def _see_what_was_sent(self, attempts: Attempts) -> None:
        for attempt in self._racing.values():
            if attempt.held.is_sent:
                attempts.went(attempt.pick)

    def _start(self, pick: Pick | None) -> None:
        if pick is None:
            return
        pick.lane, pick.holder = self._lane, self
        attempt = _Attempt(pick, self._hold(pick), self._now())
        task = self._loop.create_task(self._one(attempt.held))
        task.add_done_callback(attempt.over)  # also when it is cancelled before it began, or nobody waits any more
        self._racing[task] = attempt
        if self._rules.repeatable and self._rules.hedge_after is not None:
            self._hedge_at = attempt.began_at + self._rules.hedge_after

    async def _one(self, held: H) -> T:
        return await self._exchange(held)

    async def _end(self) -> None:
        """Cancel what is left, and wait for its end."""
        left = list(self._racing)
        self._racing.clear()
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    def _so_far(self, now: float) -> list[tuple[str, str]]:
        silent = [
            (str(attempt.pick.endpoint), f"no answer in {now - attempt.began_at:.2f} s")
            for attempt in self._racing.values()
        ]
        return self._tried + silent


class _Attempt(Generic[H]):
    """One attempt; `how` once it is over."""

    __slots__ = ("began_at", "held", "how", "pick")

    def __init__(self, pick: Pick, held: H, now: float) -> None:
        self.pick = pick
        self.held = held
        self.began_at = now
        self.how: How | None = None

    def over(self, task: asyncio.Task[T]) -> How:
        """Tell the engine how it ended; once."""
        if self.how is None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            self.how = self.held.finish(error)
        return self.how


def _noted(error: BaseException, before: Sequence[tuple[str, str]]) -> BaseException:
    """The exception as it was raised, so that an `except` knows it, with a note of the attempts before it."""
    if before:
        each = ", ".join(f"{endpoint} ({why})" for endpoint, why in before)
        error.add_note(f"headlessconn: attempt {len(before) + 1} of this request; before it: {each}")
    return error


def hedging(after: float | str | None, repeatable: bool, deadline: float | None, lane: Lane) -> float | None:
    """`hedge_after` in seconds; None for none, and while too few of this kind were seen to know how long they take."""
    if deadline is not None and not deadline > 0:
        raise OptionError("deadline", f"{deadline!r} is not a number of seconds above 0", "deadline=2.0")
    if after is None:
        return None
    if not repeatable:
        raise OptionError("hedge_after", "a copy is sent, so it must be repeatable", "repeatable=True, hedge_after=0.1")
    if after == "p95":
        return lane.quantile(0.95)
    if isinstance(after, str) or not after > 0:
        raise OptionError("hedge_after", f"{after!r} is neither seconds above 0 nor 'p95'", 'hedge_after="p95"')
    return after


def name_of(function: Callable[..., object]) -> str:
    """What to call the lane of a function that was given none: functions differ in what they ask for."""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
