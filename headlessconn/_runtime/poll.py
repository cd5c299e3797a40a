"""Coroutines that wait for sockets and for times, served by one thread: as much of an event loop as a look-up needs.

Not asyncio, for two reasons. Its selector is an object of the kernel that a forked child would share with its parent;
`poll` has none. And where sockets and threads are patched to be cooperative, as under gevent, it would stand in the
way: a loop that runs in one thread there runs in all of them.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from math import ceil, inf
from threading import Lock
from typing import Any, TypeAlias

READ, WRITE = select.POLLIN, select.POLLOUT

Waiting: TypeAlias = tuple[socket.socket | None, int, float]
"""What a coroutine waits for: a socket, the event on it, and the time at which it waits no longer."""
Work: TypeAlias = Coroutine[Waiting, Any, None]


class Overdue(Exception):
    """The time of a whole piece of work is over. No `TimeoutError`: what tries again after one must not catch it."""


class Poll:
    """The thread calls `run` again and again; `wake` may be called from any thread, the rest from its own only."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._tasks: dict[_Task, None] = {}  # in the order in which they wait
        self._sockets: set[socket.socket] = set()
        self._hears, self._calls = socket.socketpair()
        self._hears.setblocking(False)
        self._calls.setblocking(False)
        self._woken = False
        self._closed = False
        self._lock = Lock()

    # ---- for coroutines ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, sock: socket.socket) -> Iterator[socket.socket]:
        """A socket that is closed at the end of the block, and in a forked child."""
        self._sockets.add(sock)
        try:
            yield sock
        finally:
            sock.close()
            self._sockets.discard(sock)

    async def readable(self, sock: socket.socket, until: float) -> None:
        """Wait until there is something to read. Raises `TimeoutError` at `until`, also when there always is."""
        if self._now() >= until or not await _wait((sock, READ, until)):
            raise TimeoutError

    async def writable(self, sock: socket.socket, until: float) -> None:
        if self._now() >= until or not await _wait((sock, WRITE, until)):
            raise TimeoutError

    async def sleep(self, seconds: float) -> None:
        """Wait; 0 lets the others have their turn."""
        await _wait((None, 0, self._now() + seconds))

    async def connect(self, sock: socket.socket, place: tuple[str, int], until: float) -> None:
        """Connect a non-blocking socket. Raises `OSError`; at `until`, `TimeoutError`."""
        try:
            sock.connect(place)
        except BlockingIOError:
            await self.writable(sock, until)
            check_connected(sock)

    # ---- for the thread ----------------------------------------------------------------------------------------

    def spawn(self, work: Work, deadline: float = inf) -> None:
        """Begin a piece of work; at `deadline`, `Overdue` is raised in it. What it raises comes out here or in `run`:
        it had better catch it."""
        task = _Task(work, deadline)
        self._go_on(task, None)

    def run(self, until: float) -> None:
        """Wait for the first of all that is waited for, of `wake` and of `until`, and serve what is ready then."""
        poll = select.poll()
        poll.register(self._hears, READ)
        by_socket: dict[int, _Task] = {}
        for task in self._tasks:
            sock, event, at = task.waiting
            until = min(until, at, task.deadline)
            if sock is not None:
                by_socket[sock.fileno()] = task
                poll.register(sock, event)
        ready = {fd for fd, _ in poll.poll(milliseconds(until - self._now()))}
        if self._hears.fileno() in ready:
            with self._lock:
                self._woken = False
                self._hears.recv(16)
        served = {task for fd, task in by_socket.items() if fd in ready}
        for task in tuple(self._tasks):
            if task in served or self._now() >= min(task.waiting[2], task.deadline):
                self._go_on(task, task in served)

    @property
    def is_idle(self) -> bool:
        """Whether there is no work, and no socket of any."""
        return not self._tasks and not self._sockets

    def wake(self) -> None:
        """Let `run` return soon; at once, if it is not running now."""
        with self._lock:
            if not self._woken and not self._closed:
                self._woken = True
                self._calls.send(b"\0")

    def nudge(self) -> None:
        """As `wake`, without a lock: for a finalizer."""
        with contextlib.suppress(OSError):  # closed, or many wait to be heard
            self._calls.send(b"\0")

    def close(self) -> None:
        """End all work, and close every socket."""
        for task in self._tasks:
            task.work.close()
        self._tasks.clear()
        with self._lock:
            self._closed = True
            self.forget()

    def forget(self) -> None:
        """Close our descriptors of all sockets, and nothing else: for a forked child, where the thread is not."""
        for sock in (*self._sockets, self._hears, self._calls):
            sock.close()

    def _go_on(self, task: _Task, ready: bool | None) -> None:
        """Go on with a piece of work until it waits again, or ends."""
        self._tasks.pop(task, None)
        try:
            if not ready and self._now() >= task.deadline:
                task.deadline = inf  # told once
                task.waiting = task.work.throw(Overdue())
            else:
                task.waiting = task.work.send(ready)
        except StopIteration:
            return
        self._tasks[task] = None


class _Task:
    __slots__ = ("deadline", "waiting", "work")

    def __init__(self, work: Work, deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.waiting: Waiting = (None, 0, inf)


@types.coroutine
def _wait(what: Waiting) -> Generator[Waiting, bool, bool]:
    ready = yield what
    return ready


def check_connected(sock: socket.socket) -> None:
    """Raise what a connect ended with, as the subclass of `OSError` that belongs to it."""
    if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(number, os.strerror(number))


def milliseconds(seconds: float) -> int | None:
    """As `poll` wants them: rounded up, so that it does not return just before the time; None for ever."""
    return None if seconds == inf else ceil(min(max(seconds, 0.0), 86400.0) * 1000)
