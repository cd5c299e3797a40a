"""A plain lock around sections of a microsecond, for threads that share one interpreter lock."""

from __future__ import annotations

import sys
import time
from threading import Lock

NAP = 50e-6  # seconds; the kernel makes it about twice as much
NAPS = 20  # then it queues up like everybody: nobody starves, and whoever holds it for long is not polled

_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


class ShortLock:
    """As `threading.Lock`, but whoever finds it taken naps a little before it queues up.

    A thread that blocks on a lock is given it while it does not have the interpreter, and holds it until it does, so
    that every other thread finds it taken and blocks as well: one unlucky switch of threads, and each section costs two
    switches from then on. With four threads, a pick and its end took 9 to 12 µs instead of 4 (CPython 3.11). Without an
    interpreter lock there is nothing to avoid.

    take     `take(False)` is whether it was had at once; if not, `wait` for it: `acquire`, written out for the hot path
    release
    """

    __slots__ = ("_lock", "release", "take")

    def __init__(self) -> None:
        self._lock = Lock()
        self.take, self.release = self._lock.acquire, self._lock.release

    def wait(self) -> None:
        take = self.take
        for _ in range(NAPS if _HAS_GIL else 0):
            time.sleep(NAP)
            if take(False):
                return
        take()

    def acquire(self) -> None:
        if not self.take(False):
            self.wait()

    __enter__ = acquire

    def __exit__(self, *_: object) -> None:
        self.release()
