"""A few threads for what blocks. Started when there is work, ended when there has been none for a while."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

log = logging.getLogger("headlessconn")

Work: TypeAlias = Callable[[], object]

STAYS = 10.0  # seconds a thread waits for more work: dials and checks come in bursts, and starting one takes 0.1 ms


class Workers:
    """At most `count` threads. They are daemons: work that hangs keeps no interpreter from ending."""

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._work: deque[Work] = deque()
        self._changed = threading.Condition()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def submit(self, work: Work) -> None:
        """Do this soon, in one of the threads. After `close` it is dropped."""
        with self._changed:
            if self._closed:
                return
            self._work.append(work)
            if self._idle >= len(self._work):
                self._changed.notify()
            elif len(self._threads) < self._count:
                thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
                self._threads.add(thread)
                thread.start()

    def close(self) -> None:
        """Drop what has not begun. What has begun goes on, and its thread ends with it."""
        with self._changed:
            self._closed = True
            self._work.clear()
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until the threads have ended; False when some have not within `seconds`."""
        deadline = time.monotonic() + seconds
        with self._changed:
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:
                log.exception("%s: a piece of work failed", self._name)
            del work  # and whatever it holds, until the next one comes

    def _next(self) -> Work | None:
        with self._changed:
            self._idle += 1
            try:
                self._changed.wait_for(lambda: self._work or self._closed, STAYS)
            finally:
                self._idle -= 1
            if self._work:
                return self._work.popleft()
            self._threads.discard(threading.current_thread())
            return None
