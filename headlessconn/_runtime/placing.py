"""Long-lived connections on one event loop: the engine is asked and told about them, and their holders are called.

A part of the driver, under its law. Whoever holds a connection names two functions when it is open: one that is called
when it should go, one that is called when a replacement should be opened first.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

from headlessconn.core.claim import Claim, ConnId, Keep, Retire
from headlessconn.core.effects import Warm
from headlessconn.core.endpoint import How, Key
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Nobody
from headlessconn.core.snapshot import Snapshot

log = logging.getLogger("headlessconn")

OnRetire: TypeAlias = Callable[[Retire], None]
OnWarm: TypeAlias = Callable[[Claim], None]


class Placing(ABC):
    """What a driver says of connections. The attributes are the driver's."""

    engine: Engine
    on_retire: dict[ConnId, OnRetire]
    on_warm: dict[ConnId, OnWarm]
    _armed_at: float
    _acquire: Callable[[], object]
    _release: Callable[[], None]
    _now: Callable[[], float]

    def place(self, avoid: Collection[Key] = ()) -> Claim | Nobody:
        """Where to open one; it is counted from now on, until `opened` or `failed`."""
        self._acquire()
        try:
            found = self.engine.place(self._now(), avoid)
        finally:
            self._release()
        self._obey()
        return found

    def place_probe(self, key: Key) -> Callable[[How], None]:
        """A probe is a dial, so the engine counts it, on that pod and no other. To be told how it ended."""
        found = self.place([one.key for one in self.snapshot().endpoints if one.key != key])
        if isinstance(found, Claim) and found.key == key:
            return partial(self.failed, found)
        if isinstance(found, Claim):
            self.failed(found, How.CANCELLED)
        return lambda how: None

    def opened(
        self, claim: Claim, *, pushes: bool = False, on_retire: OnRetire | None = None, on_warm: OnWarm | None = None
    ) -> ConnId:
        """It is open and in use. `pushes`: it will never be checked in.

        on_retire   called when it should go, while it is idle or if it `pushes`; else its holder hears it by asking
        on_warm     called with the claim of a replacement, to be opened before this one goes; it must end that claim
        """
        self._acquire()
        try:
            conn = self.engine.opened(claim, self._now(), pushes, on_warm is not None)
            if on_retire is not None:
                self.on_retire[conn] = on_retire
            if on_warm is not None:
                self.on_warm[conn] = on_warm
        finally:
            self._release()
        self._obey()
        return conn

    def failed(self, claim: Claim, how: How) -> None:
        """There is no connection. CANCELLED, LOCAL and CALLER only give the place back."""
        self._tell(lambda now: self.engine.failed(claim, how, now))

    def verdict(self, conn: ConnId) -> Keep | Retire:
        """Whether it may stay; for holders that do not say when it is idle."""
        return self._judged(self.engine.verdict, conn)

    def checked_out(self, conn: ConnId) -> Keep | Retire:
        """Somebody wants to take it; with `Retire` it must be closed, and he be given another one."""
        return self._judged(self.engine.checked_out, conn)

    def checked_in(self, conn: ConnId) -> Keep | Retire:
        """It is free again; with `Retire` it must be closed."""
        return self._judged(self.engine.checked_in, conn)

    def gone(self, conn: ConnId, how: How = How.OK) -> None:
        """It is closed; `how`, if it broke. Saying so twice is harmless."""
        self.on_retire.pop(conn, None)
        self.on_warm.pop(conn, None)
        self._tell(lambda now: self.engine.closed(conn, now, how))

    def _judged(self, question: Callable[[ConnId, float], Keep | Retire], conn: ConnId) -> Keep | Retire:
        self._acquire()
        try:
            found = question(conn, self._now())
        finally:
            self._release()
        if self.engine.outbox or self.engine.wakeup_at < self._armed_at:
            self._obey()
        return found

    def _retire(self, effect: Retire) -> None:
        """Holders are strangers: an exception of theirs must not keep the other effects from being carried out."""
        tell = self.on_retire.get(effect.conn)
        if tell is not None:
            try:
                tell(effect)
            except Exception:
                log.exception("%s: the holder of a connection failed to let it go", self.engine.target)

    def _warm(self, effect: Warm) -> None:
        tell = self.on_warm.get(effect.replaces)
        try:
            if tell is not None:
                tell(effect.claim)
                return
        except Exception:
            log.exception("%s: the holder of a connection failed to replace it", self.engine.target)
        if not effect.claim.ended:
            self.failed(effect.claim, How.CANCELLED)

    # ---- the driver's other half -------------------------------------------------------------------------------

    @abstractmethod
    def snapshot(self) -> Snapshot: ...

    @abstractmethod
    def _tell(self, fact: Callable[[float], None]) -> None: ...

    @abstractmethod
    def _obey(self) -> None: ...
