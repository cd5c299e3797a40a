"""A pod's connection, which can be frozen."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from headlessconn.testing.pod import Pod


class Connection(asyncio.Protocol, asyncio.Transport):
    """One connection. It stands between socket and aiohttp, so that a frozen pod neither reads nor writes a byte."""

    def __init__(self, pod: Pod) -> None:
        self._pod = pod
        self._above: asyncio.Protocol | None = None
        self._is_fresh = True  # nothing was asked yet
        self._owes = False  # bytes came in since the last answer
        self._wants_pause = False
        self._wants_close = False
        self._unread: list[bytes] = []
        self._unsent: list[bytes] | None = None  # a list while frozen

    # what the socket tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._below = cast(asyncio.Transport, transport)
        runner = self._pod._runner
        if not self._pod.is_running or runner is None or runner.server is None:
            self._below.abort()
            return
        self._pod._wires.add(self)
        self._pod.accepted += 1
        self._pod._tell()
        self._above = runner.server()
        self._above.connection_made(self)
        if self._pod.is_frozen:
            self.freeze()

    def data_received(self, data: bytes) -> None:
        self._is_fresh, self._owes = False, True
        if self._unsent is not None:
            self._unread.append(data)
        elif self._above is not None:
            self._above.data_received(data)

    def eof_received(self) -> bool | None:
        return self._above.eof_received() if self._above is not None else None

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        above, self._above = self._above, None
        if above is not None:
            above.connection_lost(exc)
        self._pod._wires.discard(self)
        self._pod._tell()

    # what aiohttp wants

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._unsent is not None:
            self._unsent.append(bytes(data))
        else:
            self._below.write(data)

    def close(self) -> None:
        if self._unsent is not None:
            self._wants_close = True
        else:
            self._below.close()

    def abort(self) -> None:
        self.close() if self._unsent is not None else self._below.abort()

    def is_closing(self) -> bool:
        return self._wants_close or self._below.is_closing()

    def is_reading(self) -> bool:
        return not self._wants_pause and not self.is_closing()

    def pause_reading(self) -> None:
        self._wants_pause = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        self._wants_pause = False
        if self._unsent is None:
            self._below.resume_reading()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._below.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return self._below.get_write_buffer_size() + sum(map(len, self._unsent or ()))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.set_write_buffer_limits(high, low)

    # what the pod does

    def freeze(self) -> None:
        self._unsent = []
        self._below.pause_reading()

    def thaw(self) -> None:
        unsent, self._unsent = self._unsent or [], None
        unread, self._unread = self._unread, []
        for data in unsent:
            self._below.write(data)
        if self._wants_close:
            self._below.close()
            return
        if not self._wants_pause:
            self._below.resume_reading()
        for data in unread:
            self.data_received(data)

    def cut(self) -> None:
        self._below.abort()

    def answered(self) -> None:
        self._owes = False

    def end_if_idle(self, *, even_fresh: bool = False) -> None:
        """Close, unless a request is open, on its way into aiohttp, or still in the kernel."""
        if self._owes or (self._is_fresh and not even_fresh) or self.get_write_buffer_size():
            return
        unread = select.poll()
        unread.register(self._below.get_extra_info("socket").fileno(), select.POLLIN)
        if not unread.poll(0):
            self.close()
