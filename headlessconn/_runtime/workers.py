"""A few threads for what blocks. Started when there is work, ended when there has been none for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger("headlessconn")

STAYS = 10.0  # seconds a thread waits for more work: dials and checks come in bursts, and starting one takes 0.1 ms
MOST_ABANDONED = 64  # threads that others stand in for: what never ends would else take one more each time


class Job:
    """A piece of work, begun or not. `is_refused`: it came after the end, and nobody will do it."""

    __slots__ = ("_workers", "is_abandoned", "is_refused", "work")

    def __init__(self, workers: Workers, work: Callable[[], object]) -> None:
        self._workers = workers
        self.work = work
        self.is_abandoned = self.is_refused = False

    def abandon(self) -> None:
        """Nobody waits for it any more. A thread cannot be stopped, but another one may stand in for it."""
        self._workers.abandon(self)


class Workers:
    """At most `count` threads at work. They are daemons: work that hangs keeps no interpreter from ending."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._abandoned = 0
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, work: Callable[[], object]) -> Job:
        """Do this soon, in one of the threads. After `close` it is refused."""
        job = Job(self, work)
        with self._changed:
            job.is_refused = self._closed
            if not self._closed:
                self._jobs.append(job)
                self._staff()
        return job

    def abandon(self, job: Job) -> None:
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
            elif not job.is_abandoned and self._abandoned < MOST_ABANDONED:
                job.is_abandoned = True
                self._abandoned += 1
                self._staff()

    def close(self, *, drop: bool = True) -> None:
        """End the threads. What has begun goes on, and its thread ends with it; `drop` what has not."""
        with self._changed:
            self._closed = True
            if drop:
                self._jobs.clear()
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until the threads have ended; False when some have not within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _staff(self) -> None:
        """Have enough threads for the work."""
        if self._idle >= len(self._jobs):
            self._changed.notify()
        elif self._jobs and len(self._threads) - self._abandoned < self._count:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            try:
                job.work()
            except Exception:
                log.exception("%s: a piece of work failed", self._name)
            if job.is_abandoned:
                with self._changed:
                    self._abandoned -= 1
            del job  # and whatever it holds, until the next one comes

    def _next(self) -> Job | None:
        with self._changed:
            if len(self._threads) - self._abandoned <= self._count:  # else one has taken our place
                self._idle += 1
                try:
                    self._changed.wait_for(lambda: self._jobs or self._closed, STAYS)
                finally:
                    self._idle -= 1
                if self._jobs:
                    return self._jobs.popleft()
            self._threads.discard(threading.current_thread())
            return None
