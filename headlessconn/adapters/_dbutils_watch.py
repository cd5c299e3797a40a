"""A watch over connections that DBUtils holds: who waits for the answer of a pod that has vanished is cut off.

DBUtils does not say when a connection is out. So it is each answer that is waited for: one that takes for long is a
reason to ask its pod for a TCP connection, as of connections that are out (`core/probing.py`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Protocol

from headlessconn import errors
from headlessconn._runtime.blocking_probe import knock
from headlessconn._runtime.workers import Workers
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.overdue import Overdue
from headlessconn.core.probing import LOOK_EVERY, has_passed
from headlessconn.sync import Service

log = logging.getLogger("headlessconn")

PROBERS = 4


class Waiting(Protocol):
    """A connection; `waits_since` is the time (`time.monotonic`) its question was sent, `inf` when none is."""

    endpoint: Endpoint
    waits_since: float

    def cut(self) -> None: ...


class Watch:
    """Has a thread while there are connections. `connections` gives those that are open."""

    def __init__(self, service: Service, connections: Callable[[], Iterable[Waiting]], silent_after: float) -> None:
        self._service = service
        self._connections = connections
        self._overdue = Overdue(silent_after)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._workers = Workers(PROBERS, "headlessconn-probe")

    def start(self) -> None:
        """There is a connection."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():  # as in a forked child
                self._workers = Workers(PROBERS, "headlessconn-probe")
                self._thread = threading.Thread(
                    target=_tick, args=[weakref.ref(self)], name="headlessconn-dbutils", daemon=True
                )
                self._thread.start()

    def answered(self, seconds: float) -> None:
        self._overdue.returned(seconds)

    def tick(self) -> bool:
        """Whether there is anything to watch."""
        now = time.monotonic()
        connections = list(self._connections())
        endpoints = {one.endpoint.key: one.endpoint for one in connections}
        with self._lock:
            late = self._overdue.look([(one.endpoint.key, one.waits_since) for one in connections], now)
            if not connections:
                self._thread = None
        for key in late:
            self._ask(endpoints[key])
        return bool(connections)

    def _ask(self, endpoint: Endpoint) -> None:
        self._workers.submit(partial(self._probe, endpoint))

    def _probe(self, endpoint: Endpoint) -> None:
        tell_engine: Callable[[How], None] = lambda how: None  # noqa: E731
        with contextlib.suppress(errors.ClosedError):  # connections may outlive their client
            tell_engine = self._service.driver().place_probe(endpoint.key)
        how = knock(endpoint)
        tell_engine(how)
        with self._lock:
            since = self._overdue.probed(endpoint.key, has_passed(how), time.monotonic())
            if since == inf:
                self._overdue.asking(endpoint.key, time.monotonic())
        if since == inf:
            self._ask(endpoint)
        elif since is not None:
            silent = [one for one in self._connections() if one.endpoint == endpoint and one.waits_since <= since]
            log.warning(
                "%s: %s answers nothing and gives no TCP connection (%s); %d callers who wait on it are cut off",
                self._service.target,
                endpoint,
                how.value,
                len(silent),
            )
            for one in silent:
                one.cut()


def _tick(owner: weakref.ref[Watch]) -> None:
    while True:
        time.sleep(LOOK_EVERY)
        watch = owner()
        if watch is None or not watch.tick():
            return
        del watch


__all__ = ["Waiting", "Watch"]
