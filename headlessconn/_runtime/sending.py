"""What a pick's holder says on the way: where connecting ends, and from when on the pod may have seen the request.

It decides whether a request may go elsewhere for nothing, so it is never guessed: what was not marked as unsent counts
as sent, but for a refused or unreachable address, behind which nobody can have seen a thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from headlessconn._runtime.dial import how_dial_failed, how_request_failed
from headlessconn.core.endpoint import NO_DIAL, How
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Pick


class Told(Protocol):
    """A driver of either kind, as far as a pick's holder has something to tell it."""

    engine: Engine

    def further(self, question: Callable[[float], Pick | None]) -> Pick | None: ...
    def dialled(self, pick: Pick, how: How) -> None: ...
    def ended(self, pick: Pick, how: How) -> None: ...


class Sending:
    """One pick's way to the pod.

    is_sent   the holder said that the pod may have seen the request
    is_bad    the holder said that the answer is a bad one
    """

    __slots__ = ("_driver", "_failed", "_pick", "is_bad", "is_sent")

    def __init__(self, driver: Told, pick: Pick) -> None:
        self._driver = driver
        self._pick = pick
        self._failed: BaseException | None = None  # what ended a `connecting` block
        self.is_sent = False
        self.is_bad = False

    def sent(self) -> None:
        """From here on the pod may have seen it: its latency and its silence are counted from now."""
        if not self.is_sent:
            self.is_sent = True
            self._driver.further(self._tell)

    def finish(self, error: BaseException | None) -> How:
        """The end, told to the engine."""
        how = How.OK if error is None else self._judge(error)
        self._failed = None
        if how in NO_DIAL:
            self._driver.dialled(self._pick, how)
        self._driver.ended(self._pick, how)
        return how

    def dial_failed(self, error: BaseException) -> None:
        self._failed = error

    def _tell(self, now: float) -> None:
        """Not `Engine.dialled`: whoever keeps connections of his own may not have dialled at all."""
        self._driver.engine.sent(self._pick, now)

    def _judge(self, error: BaseException) -> How:
        """An exception that came out of a `connecting` block is a dial's, also when the holder wrapped it."""
        if self._failed is not None and not self.is_sent:
            link: BaseException | None = error
            while link is not None:
                how = How.REFUSED if isinstance(link, EOFError) else how_dial_failed(link)  # closed before a word
                if link is self._failed or how in NO_DIAL:
                    return how
                link = link.__cause__
        return how_request_failed(error)


class Connecting:
    """The `async with` of `Pick.connecting`."""

    __slots__ = ("_sending", "_timeout")

    def __init__(self, sending: Sending, seconds: float) -> None:
        self._sending = sending
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            self._sending.dial_failed(late)
            raise
        if error is None:
            self._sending.sent()
        else:
            self._sending.dial_failed(error)
