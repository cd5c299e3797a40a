"""DBUtils: a `PooledDB` of PyMySQL's connections that follows the pods of a headless Service.

    service = headlessconn.sync.Client().service("mysql-read.data:3306")
    creator = Creator(service, user="app", password=…, database="shop", autocommit=True)
    pool = PooledDB(creator, ping=creator.ping, maxconnections=16, blocking=True)

`creator=` and a callable `ping=` are DBUtils' documented hooks: the one opens connections, the other says whether one
may be handed out; for one that may not DBUtils opens another first. `PersistentDB` takes the same two.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any
from weakref import WeakSet

try:
    import pymysql
    from dbutils import __version__ as version  # type: ignore[import-untyped]
except ImportError as missing:  # pragma: no cover
    raise ImportError(
        "headlessconn.adapters.dbutils needs DBUtils and PyMySQL: pip install headlessconn[dbutils]"
    ) from missing
if version < "3.2":
    raise ImportError(f"headlessconn.adapters.dbutils needs DBUtils 3.2: {version} asks no function given as ping=")

from headlessconn._runtime import faults
from headlessconn._runtime.dial import how_dial_failed
from headlessconn._runtime.lease import Lease
from headlessconn.adapters import _mysql
from headlessconn.adapters._dbutils_watch import Watch
from headlessconn.adapters._mysql_hosts import name_to_verify
from headlessconn.adapters._pymysql_connection import LOGIN_TIMEOUT, Connection
from headlessconn.core.claim import KEEP
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.pooling.pods import Pods
from headlessconn.core.probing import SILENT_AFTER
from headlessconn.sync import Service

log = logging.getLogger("headlessconn")

TRIES = 3  # pods for one connection, as for a request that was not sent
TCP_TIMEOUT = 1.0  # seconds; `PooledDB` dials under the lock of its whole pool
QUICK = 0.3  # seconds, while there is another pod to try
QUICK_LOGIN = 1.0  # seconds for TLS and login then


class Creator:
    """What `PooledDB(creator, ping=creator.ping)` is given. Any number of pools may share one.

    `arguments` are those of `pymysql.connect`. A pod that cannot be opened is left for another one, up to three. The
    last one has `connect_timeout` (1 s unless given) for TCP and 10 s to log in; while there are others a pod has 0.3
    and 1 s.

    server_hostname  whom certificates must name with `ssl=`; default: the Service
    silent_after     seconds, and three times as long as usual, that an answer may take until its pod is asked for a TCP
                     connection. A pod that twice gives none is dead: whoever waits on it gets 2013

    Raises `OptionError` for `ssl=` without a name to verify; when it is called, what PyMySQL raises, and `NoEndpoints`.
    """

    dbapi = pymysql
    threadsafety = pymysql.threadsafety

    def __init__(
        self,
        service: Service,
        *,
        server_hostname: str | None = None,
        silent_after: float = SILENT_AFTER,
        **arguments: Any,
    ) -> None:
        self._service = service
        self._name = name_to_verify(service.target, server_hostname, bool(arguments.get("ssl")))
        self._arguments = {"connect_timeout": TCP_TIMEOUT} | arguments
        self._pods = Pods(random.Random(os.urandom(16)))
        self._lock = threading.Lock()
        self._leased: WeakSet[_Leased] = WeakSet()
        self._watch = Watch(service, self._open, silent_after)

    def __call__(self) -> Connection:
        """Open one, to the pod that lacks most to its share."""
        tried: list[Endpoint] = []
        last: BaseException | None = None
        while True:
            held_back = self._held_back()
            lease = self._place([*tried, *held_back], tried)
            if lease.endpoint in tried:  # there is nobody else
                lease.failed(asyncio.CancelledError())
                assert last is not None
                raise last
            skipped = {*tried, *held_back, lease.endpoint}
            is_last = len(tried) == TRIES - 1 or skipped.issuperset(self._service.snapshot.endpoints)
            try:
                given = self._arguments if is_last else self._arguments | {"connect_timeout": QUICK}
                connection = _Leased(lease, self._watch, self._name, given, LOGIN_TIMEOUT if is_last else QUICK_LOGIN)
            except Exception as error:
                last = error
                self._failed(lease.endpoint, error)
                tried.append(lease.endpoint)
                if len(tried) == TRIES:
                    raise
            else:
                self._worked(connection)
                return connection

    def ping(self, connection: Any) -> bool:
        """Whether it may be handed out: nobody has closed it, its pod has not left, and it is no surplus."""
        return isinstance(connection, _Leased) and connection.may_stay

    def _place(self, avoid: list[Endpoint], tried: list[Endpoint]) -> Lease:
        lease = self._service.place(avoid=avoid)
        if lease.endpoint not in tried or len(avoid) == len(tried):
            return lease
        lease.failed(asyncio.CancelledError())
        return self._service.place(avoid=tried)  # better one that is held back than none

    def _held_back(self) -> list[Endpoint]:
        """Pods that were full, refused the password or were not there a moment ago; and those whose connections broke,
        which DBUtils closes only once it has another."""
        with self._lock:
            failed = self._pods.to_avoid(iter(()), time.monotonic())
            broken = {one.endpoint.key: None for one in self._leased if one.is_broken}
        return [Endpoint.of(key) for key in dict.fromkeys([*failed, *broken])]

    def _failed(self, endpoint: Endpoint, error: BaseException) -> None:
        fault, _ = _mysql.of_opening(error)
        with self._lock:
            pod = self._pods.get(endpoint.key) or self._pods.add(endpoint.key, endpoint)
            self._pods.blame(pod, fault, error, time.monotonic())
            is_first = pod.failures == 1
            self._pods.forget((), time.monotonic())
        if is_first:
            log.warning("%s: no connection to %s: %s", self._service.target, endpoint, _mysql.said(error))

    def _open(self) -> list[_Leased]:
        with self._lock:
            return list(self._leased)

    def _worked(self, connection: _Leased) -> None:
        self._watch.start()
        with self._lock:
            self._leased.add(connection)
            pod = self._pods.get(connection.endpoint.key)
            if pod is not None:
                self._pods.praise(pod)


class _Leased(Connection):
    """One that is counted until it is closed, and that knows whether it may stay, and since when it waits for an answer
    to be read."""

    waits_since = inf

    def __init__(
        self, lease: Lease, watch: Watch, server_hostname: str, arguments: dict[str, Any], login_timeout: float
    ) -> None:
        self._lease: Lease | None = None
        self._watch = watch
        try:
            super().__init__(lease.endpoint, server_hostname, arguments, login_timeout)
        except BaseException as error:
            lease.failed(_seen_by_the_engine(error))
            raise
        lease.opened()
        self._lease = lease

    def close(self) -> None:
        try:
            super().close()
        finally:
            lease, self._lease = self._lease, None
            if lease is not None:
                lease.closed()

    def __del__(self) -> None:
        self.close()  # by DBUtils as by PyMySQL: a connection that nobody holds is closed

    def _read_query_result(self, unbuffered: bool = False) -> Any:
        return self._awaited(partial(super()._read_query_result, unbuffered))  # type: ignore[misc]  # not in its stubs

    def _read_ok_packet(self) -> Any:
        return self._awaited(super()._read_ok_packet)  # type: ignore[misc]

    def _awaited(self, read: Callable[[], Any]) -> Any:
        since = self.waits_since = time.monotonic()
        try:
            return read()
        finally:
            self.waits_since = inf
            self._watch.answered(time.monotonic() - since)

    @property
    def is_broken(self) -> bool:
        """PyMySQL has closed it by itself, in a query."""
        return self._lease is not None and not self.open

    @property
    def may_stay(self) -> bool:
        return self._lease is not None and self.is_alive and self._lease.verdict() is KEEP


def _seen_by_the_engine(error: BaseException) -> BaseException:
    """What PyMySQL wraps: the refusal or the time-out."""
    return next((one for one in faults.chain(error) if how_dial_failed(one) is not How.CALLER), error)


__all__ = ["Connection", "Creator"]
