"""asyncio in virtual time: when nothing is left to do, the clock jumps to the next timer. Minutes take milliseconds.

Sockets on loopback work too: what the kernel has ready comes before any jump.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

P = ParamSpec("P")

START = 1000.0
SETTLE = 0.002  # real seconds in which the kernel may deliver what was sent on loopback, before the clock jumps


class _Jumping(selectors.DefaultSelector):
    now = START

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and len(self.get_map()) > 1:  # one is the loop's own, by which threads would wake it
            found = super().select(SETTLE)
        if not found:
            if timeout is None:
                raise RuntimeError("everything waits for something that will never happen")
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an `async def` test so. It begins at `START`; a failure that the loop would only log fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        swallowed: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: swallowed.append(context))
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(watched())
        assert not swallowed, swallowed

    return run


def now() -> float:
    """Seconds since the test began."""
    return asyncio.get_running_loop().time() - START
