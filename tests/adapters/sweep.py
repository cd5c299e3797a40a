"""Cancelling a scenario at every place where it waits, and looking after each time at what is left of it.

An adapter test describes a scenario once: how its stage is set, and what one caller does on it. `sweep` plays it again
and again, and cancels the caller at his first wait, his second, and so on, until he comes through untouched. At each
wait both kinds of cancellation are tried, since they go different ways through the code: while the caller still waits,
and in the moment in which what he waited for has come (asyncio then throws away the result).

After each: nothing in flight, no connection, nobody waiting in any engine; and once the stage is struck no task, no
file descriptor, no warning about something unclosed, nothing that only the loop has seen.

    await sweep(stage, act, client=lambda world: world.client)
"""

from __future__ import annotations

import asyncio
import gc
import os
import types
import warnings
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from headlessconn import Client

T = TypeVar("T")

PATIENCE = 10.0  # seconds until something counts as left behind; what goes well needs a few turns of the loop
SHOWN = 4  # frames of the place where the caller waited
MOST = 500  # waits of one scenario: more is a scenario that never ends


class When(Enum):
    WAITING = "while it waited"
    COMING = "as what it waited for came"


class LeftBehind(AssertionError):
    """Something that a cancelled caller should have taken with him."""


@dataclass(frozen=True)
class Books:
    """What was open before, to compare with what is open after. File descriptors are counted, tasks are named."""

    tasks: frozenset[asyncio.Task[Any]]
    descriptors: int

    @classmethod
    def open(cls) -> Books:
        return cls(frozenset(asyncio.all_tasks()), count_descriptors())

    async def balanced(self, patience: float = PATIENCE) -> None:
        """Wait until nothing more is open than before. Raises `LeftBehind`, naming it."""
        await _soon(self._difference, patience)

    @staticmethod
    async def no_load(client: Client, patience: float = PATIENCE) -> None:
        """Wait until no engine of a client counts anything in flight, connected or waiting. Raises `LeftBehind`."""
        await _soon(lambda: load(client), patience)

    def _difference(self) -> str:
        tasks = asyncio.all_tasks() - self.tasks - {asyncio.current_task()}
        more = count_descriptors() - self.descriptors
        told = [repr(task) for task in tasks]
        return "; ".join([*told, *([f"{more} file descriptors"] if more > 0 else [])])


def count_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def load(client: Client) -> str:
    """What a client's engines count, in words; empty when it is nothing."""
    told = []
    for driver in client.hub().drivers():
        view = driver.snapshot()
        told += [f"{view.waiting} waiting for {view.target}"] if view.waiting else []
        told += [
            f"{member.in_flight} in flight and {member.connections} connections on {member.endpoint}"
            for member in view.members
            if member.in_flight or member.connections
        ]
    return "; ".join(told)


async def sweep(
    stage: Callable[[], AbstractAsyncContextManager[T]],
    act: Callable[[T], Coroutine[Any, Any, object]],
    *,
    client: Callable[[T], Client],
    patience: float = PATIENCE,
) -> int:
    """Play `act` on a fresh `stage` for each place where it waits, and cancel it there; the number of those places.

    stage    sets everything up, and takes it down; its servers belong outside, so that they are made once
    act      what the caller does; it must come through when nobody cancels it
    client   where the stage keeps the client whose engines are looked at
    patience seconds until something counts as left behind

    Raises `LeftBehind`, which says at which wait, and how, the cancellation left what behind.
    """
    gc.collect()
    gc.freeze()  # the collector then looks at the scenario alone: 1 ms a turn, not 50
    try:
        await _play(stage, act, client, 0, When.WAITING, patience)  # what is made once and kept is made now
        for number in range(1, MOST + 1):
            reached = [await _play(stage, act, client, number, when, patience) for when in When]
            if not any(reached):
                return number - 1
        raise AssertionError(f"the scenario was still waiting at its {MOST}th place: it does not end")
    finally:
        gc.unfreeze()


async def _play(
    stage: Callable[[], AbstractAsyncContextManager[T]],
    act: Callable[[T], Coroutine[Any, Any, object]],
    client: Callable[[T], Client],
    number: int,
    when: When,
    patience: float,
) -> bool:
    """One performance; whether it came to the wait at which it was to be cancelled."""
    loop = asyncio.get_running_loop()
    books, unseen, handler = Books.open(), list[str](), loop.get_exception_handler()
    walk = Walk(number, when)
    loop.set_exception_handler(lambda _, context: unseen.append(f"{context['message']}: {context.get('exception')!r}"))
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            async with stage() as setting:
                task = loop.create_task(walk.steps(act(setting)))
                await asyncio.wait([task])
                if not walk.reached:
                    task.result()
                elif not task.cancelled():
                    how = repr(task.exception() or task.result())
                    raise AssertionError(f"{walk} ended in {how}, not in CancelledError")
                await books.no_load(client(setting), patience)
            del task, setting
            gc.collect()
            await books.balanced(patience)
        told = [*unseen, *(str(warning.message) for warning in warned)]
        if told:
            raise LeftBehind("; ".join(told))
    except LeftBehind as left:
        raise LeftBehind(f"{walk} left behind: {left}") from None
    finally:
        loop.set_exception_handler(handler)
    return walk.reached


class Walk:
    """Drives a coroutine from wait to wait, and has its task cancelled at one of them."""

    def __init__(self, number: int, when: When) -> None:
        self.reached = False
        self._number = number
        self._when = when
        self._place = ""

    async def steps(self, work: Coroutine[Any, Any, object]) -> object:
        return await self._steps(work)

    def __str__(self) -> str:
        return f"a cancellation at wait {self._number}, {self._when.value}, in {self._place},"

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, object]) -> Generator[Any, Any, object]:
        value, error = None, None
        count = 0
        while True:
            try:
                awaited = work.send(value) if error is None else work.throw(error)
            except StopIteration as done:
                return done.value
            value, error = None, None
            count += 1
            if count == self._number:
                self.reached = True
                self._place = _innermost(work)
                self._cancel(awaited)
            try:
                value = yield awaited
            except BaseException as thrown:
                error = thrown

    def _cancel(self, awaited: asyncio.Future[Any] | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        if awaited is None or self._when is When.WAITING:
            # With a bare yield the task's next step is not in the queue yet: this comes before it.
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            # Callbacks run in the order in which they were added, and the task adds its own after this.
            awaited.add_done_callback(lambda _: task.cancel())


def _innermost(work: Any) -> str:
    """Where a suspended coroutine waits: the innermost frames, as `function (file:line) < its caller (file:line)`."""
    frames = []
    while work is not None:
        frame = getattr(work, "cr_frame", None) or getattr(work, "gi_frame", None)
        if frame is not None:
            code = frame.f_code
            frames.append(f"{code.co_qualname} ({os.path.basename(code.co_filename)}:{frame.f_lineno})")
        work = getattr(work, "cr_await", None) or getattr(work, "gi_yieldfrom", None)
    return " < ".join(frames[: -SHOWN - 1 : -1])


async def _soon(left: Callable[[], str], patience: float) -> None:
    """Wait until nothing is left: for a hundred turns of the loop at once, then at leisure."""
    loop = asyncio.get_running_loop()
    end, turns = loop.time() + patience, 0
    while told := left():
        if loop.time() > end:
            raise LeftBehind(told)
        turns += 1
        await asyncio.sleep(0 if turns < 100 else 0.01)
