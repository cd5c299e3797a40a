"""Reading the changes of a set, in a thread of one's own."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Self

from headlessconn._runtime.driver import MISSED
from headlessconn.core.effects import Change
from headlessconn.errors import ClosedError


class Changes(Iterator[Change]):
    """Each change since this was made: `for change in service.changes():`.

    It ends when the client closes, or by `close()` from any thread; also `with service.changes() as changes:`. Who
    reads uses the target: it does not fall idle. A reader that does not keep up misses the oldest beyond a thousand.
    """

    def __init__(self, target: str) -> None:
        self.closed = False
        self.keeps: object = None  # whose end, were it forgotten, would be ours
        self._target = target
        self._queue: queue.SimpleQueue[Change | None] = queue.SimpleQueue()

    def __next__(self) -> Change:
        change = None if self.closed else self._queue.get()
        if change is None:
            self.close()
            raise StopIteration
        return change

    def next_within(self, seconds: float) -> Change | None:
        """The next change, or None when `seconds` passed first. Raises `ClosedError` when there will be none."""
        try:
            change = None if self.closed else self._queue.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        if change is None:
            self.close()
            raise ClosedError(f"the client of {self._target} was closed")
        return change

    def put(self, change: Change) -> None:
        """The driver's: something changed."""
        if self._queue.qsize() >= MISSED:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                pass  # read in this very moment
        self._queue.put(change)

    def end(self) -> None:
        """The driver's: there will be no more."""
        self._queue.put(None)

    def close(self) -> None:
        """Stop reading, also in a thread that waits in `next`."""
        self.closed = True
        self.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
