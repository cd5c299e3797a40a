"""SQLAlchemy's documented events, and what each of them means here.

do_connect      dial a pod; the connection's `Held` goes into its record's `info`
checkout        is the connection alive, may it stay? Else `DisconnectionError`: the pool dials another one
checkin         may it stay? Else its record is invalidated, and dials again when it is used next
close, detach   it is gone, or not the pool's any more
handle_error    one lost connection is one lost connection; SQLAlchemy's default throws away the whole pool
"""

from __future__ import annotations

import logging
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from math import inf
from threading import Lock
from typing import Any, Protocol

from sqlalchemy import Engine, event, exc
from sqlalchemy.engine import ExceptionContext

from headlessconn.adapters import _mysql
from headlessconn.adapters._sqlalchemy_dial import AnyDriver, Dialled, Line
from headlessconn.core.claim import KEEP, ConnId
from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.overdue import Overdue
from headlessconn.core.probing import has_passed

log = logging.getLogger("headlessconn")

KEY = "headlessconn"  # of our entry in a record's `info`


class Held:
    """One connection of the pool.

    raw      the driver's connection
    pool     the engine's at that time: `dispose` makes another
    wire     what a thread may look at and shut without the driver: a socket; None on a loop
    out_at   since when it has been checked out; `inf` while it is not
    """

    __slots__ = (
        "conn",
        "driver",
        "endpoint",
        "how",
        "key",
        "opened_at",
        "out_at",
        "pool",
        "raw",
        "record",
        "uses",
        "wire",
    )

    def __init__(self, dialled: Dialled, wire: Any, record: Any, pool: Any, now: float) -> None:
        self.endpoint: Endpoint = dialled.endpoint
        self.key: Key = dialled.endpoint.key
        self.driver: AnyDriver | None = dialled.driver
        self.conn: ConnId | None = None
        if dialled.driver is not None and dialled.claim is not None:
            self.conn = dialled.driver.opened(dialled.claim)
        self.raw = dialled.raw
        self.wire = wire
        self.record = weakref.ref(record)
        self.pool = weakref.ref(pool)
        self.opened_at = now
        self.out_at = now
        self.uses = 0
        self.how = How.OK  # what it broke with


class Roles(Protocol):
    """Whoever cares for what role a pod has."""

    def unwelcome(self, key: Key) -> str:
        """Why a connection to this pod may not stay, "" if it may. Asked at every check-out and check-in."""
        ...

    def refused_write(self, endpoint: Endpoint) -> None:
        """It said that it is read-only."""
        ...

    def lost(self, key: Key) -> None:
        """A connection to it broke, or could not be had."""
        ...


class Hooks(ABC):
    """The events of one engine. `unhook` takes them off again."""

    def __init__(self, engine: Engine, line: Line, roles: Roles | None, silent_after: float) -> None:
        self.engine = engine
        self.line = line
        self.roles = roles
        self.overdue = Overdue(silent_after)
        self.closed = False
        self.held: set[Held] = set()
        self._lock = Lock()  # of that set, which dials and ends change, in threads too
        self._doubts: dict[Key, float] = {}  # a connection to this pod broke then: those opened before may be dead too
        self._said_foreign = False
        self._login: tuple[tuple[Any, ...], dict[str, Any]] | None = None  # what the engine dials with
        self.is_ticking = False
        self._listeners: list[tuple[str, Callable[..., Any], dict[str, bool]]] = [
            ("do_connect", self._do_connect, {"retval": True}),
            ("handle_error", self._handle_error, {}),
            ("checkout", self._checkout, {}),
            ("checkin", self._checkin, {}),
            ("close", self._close, {}),
            ("detach", self._close, {}),
        ]
        for name, listener, how in self._listeners:
            event.listen(engine, name, listener, **how)

    def unhook(self) -> None:
        """The engine goes on as if it had never been attached; what is open is not followed any more."""
        if self.closed:
            return
        self.closed = True
        for name, listener, _ in self._listeners:
            event.remove(self.engine, name, listener)
        for held in self.all_held():
            self.end(held)

    def forked(self) -> None:
        """In a forked child: what is open is the parent's."""
        self._lock = Lock()
        self.held = set()
        self._doubts = {}
        self.is_ticking = False

    def all_held(self) -> list[Held]:
        with self._lock:
            return list(self.held)

    # ---- dialling ----------------------------------------------------------------------------------------------

    @abstractmethod
    def _do_connect(self, dialect: Any, record: Any, arguments: list[Any], named: dict[str, Any]) -> Any: ...

    def keep(self, dialled: Dialled, wire: Any, record: Any) -> None:
        """It is open, its login included."""
        for held in self.all_held():
            if held.record() is record:  # what was opened for this record before came to nothing: a listener raised
                self.end(held)
                self.drop(held)
        held = Held(dialled, wire, record, self.engine.pool, time.monotonic())
        with self._lock:
            self.held.add(held)
            self._doubts = {key: at for key, at in self._doubts.items() if any(one.key == key for one in self.held)}
        record.info[KEY] = held
        self.tick_soon()

    def end(self, held: Held) -> None:
        """It is closed, or as good as closed. Saying so twice is right."""
        with self._lock:
            if held not in self.held:
                return
            self.held.discard(held)
        held.out_at = inf
        if held.wire is not None:
            held.wire.close()
        if held.driver is not None and held.conn is not None:
            held.driver.gone(held.conn, held.how)

    @property
    def has_dialled(self) -> bool:
        """Whether it is known how to log in, which questions beside the pool need too."""
        return self._login is not None

    @abstractmethod
    def keep_only(self, keys: Collection[Key]) -> None:
        """Close the connections for questions to all other pods."""

    # ---- hot: a caller takes one, and gives it back ------------------------------------------------------------

    def _checkout(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        held: Held | None = record.info.get(KEY)
        if held is None:
            self._say_foreign()
            return
        # Who has just dialled keeps what he got: the pool tries twice, then the caller gets "connection is closed".
        if held.uses and (why := self._unfit(held)):
            raise exc.DisconnectionError(why)
        held.uses += 1
        held.out_at = time.monotonic()
        if not self.is_ticking:
            self.tick_soon()

    def _unfit(self, held: Held) -> str:
        """Why a caller should not be given it."""
        if not self.is_alive(held):
            held.how = How.RESET  # of an idle connection: no blame, but DNS is asked what has become of the pod
            self._doubt(held)
            return f"{held.endpoint} has closed it"
        if self._doubts and held.opened_at < self._doubts.get(held.key, -inf):
            return f"another connection to {held.endpoint} was lost"
        if self.roles is not None and (why := self.roles.unwelcome(held.key)):
            return why
        if held.conn is not None and held.driver is not None:
            verdict = held.driver.checked_out(held.conn)
            if verdict is not KEEP:
                return f"{held.endpoint}: {verdict.reason.value}"  # type: ignore[union-attr]
        return ""

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        held: Held | None = record.info.get(KEY)
        if held is None or dbapi_connection is None or held.out_at == inf:
            return
        self.overdue.returned(time.monotonic() - held.out_at)
        held.out_at = inf
        may_stay = held.conn is None or held.driver is None or held.driver.checked_in(held.conn) is KEEP
        if not may_stay or (self.roles is not None and self.roles.unwelcome(held.key)):
            record.invalidate()
        elif held.pool() is not self.engine.pool:
            record.invalidate()  # the engine was disposed of while it was out: nobody else would close it

    def _close(self, dbapi_connection: Any, record: Any) -> None:
        held: Held | None = record.info.pop(KEY, None)
        if held is not None:
            if not self.is_alive(held):
                self.cut(held)  # SQLAlchemy would say goodbye to nobody, and log that it could not
            self.end(held)

    def _say_foreign(self) -> None:
        if not self._said_foreign and not self.closed:
            self._said_foreign = True
            log.warning(
                "%s: this engine has connections that were not dialled here (it was used before `attach`, or has a "
                "`creator`): they do not follow the pods",
                self.line.name,
            )

    # ---- trouble -----------------------------------------------------------------------------------------------

    def _handle_error(self, context: ExceptionContext) -> None:
        error = context.original_exception
        if context.connection is None or context.connection.invalidated:
            return
        held: Held | None = context.connection.info.get(KEY)
        if held is None:
            return
        if isinstance(error, Exception) and (context.is_disconnect or _mysql.is_lost(error)):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
            held.how = _mysql.of_using(error)
            self._doubt(held)
        elif self.roles is not None and isinstance(error, Exception) and self._refuses_writes(context, error):
            context.is_disconnect = True  # this connection is not used again
            context.invalidate_pool_on_disconnect = False
            error.retryable = True  # type: ignore[attr-defined]
            if context.sqlalchemy_exception is not None:
                context.sqlalchemy_exception.retryable = True  # type: ignore[attr-defined]
            log.warning("%s: %s takes no writes any more (%s)", self.line.name, held.endpoint, _mysql.said(error))
            self.roles.refused_write(held.endpoint)

    def _refuses_writes(self, context: ExceptionContext, error: Exception) -> bool:
        said = _mysql.refuses_writes(error)
        if said is None:
            assert context.connection is not None
            said = not _mysql.is_writable(row_of(context.connection.connection, _mysql.ROLE))
        return said

    def _doubt(self, held: Held) -> None:
        """Until its pod has been asked, no connection of the same age is handed out."""
        self._doubts[held.key] = time.monotonic()
        if self.roles is not None:
            self.roles.lost(held.key)
        if self.overdue.asking(held.key, time.monotonic()):
            self.probe(held.endpoint)

    # ---- the watch ---------------------------------------------------------------------------------------------

    @abstractmethod
    def is_alive(self, held: Held) -> bool:
        """Whether nothing says that an idle connection has ended. Costs no round trip."""

    @abstractmethod
    def drop(self, held: Held) -> None:
        """Close it without a word. Doing so twice is right."""

    @abstractmethod
    def cut(self, held: Held) -> None:
        """Wake whoever waits on it: what he waits for does not come."""

    @abstractmethod
    def start_ticking(self) -> None:
        """Call `tick` every `LOOK_EVERY` seconds, at least as long as it returns True."""

    def tick_soon(self) -> None:
        if not self.is_ticking:
            self.is_ticking = True
            self.start_ticking()

    @abstractmethod
    def probe(self, endpoint: Endpoint) -> None:
        """Connect to it by TCP, beside everything else, counted by `Placing.place_probe`; then call `probed`."""

    def tick(self) -> bool:
        now = time.monotonic()
        out = False
        late: list[tuple[Key, float]] = []
        endpoints: dict[Key, Endpoint] = {}
        for held in self.all_held():
            if held.record() is None:  # the pool let go of it without a word
                self.end(held)
                self.drop(held)
            elif held.out_at < inf:
                out = True
                late.append((held.key, held.out_at))
                endpoints[held.key] = held.endpoint
        for key in self.overdue.look(late, now):
            self.probe(endpoints[key])
        return out

    def probed(self, endpoint: Endpoint, how: How) -> None:
        """It gave a connection (CALLER), or did not."""
        passed = has_passed(how)
        since = self.overdue.probed(endpoint.key, passed, time.monotonic())
        if passed:
            self._doubts.pop(endpoint.key, None)
            return
        if self.roles is not None:
            self.roles.lost(endpoint.key)
        if since is None:
            return
        if since == inf:
            self.overdue.asking(endpoint.key, time.monotonic())
            self.probe(endpoint)
            return
        silent = [held for held in self.all_held() if held.key == endpoint.key and held.out_at <= since]
        if silent:
            log.warning(
                "%s: %s answers nothing and gives no TCP connection (%s); %d callers who wait on it are cut off",
                *(self.line.name, endpoint, how.value, len(silent)),
            )
        for held in silent:
            self.cut(held)


def row_of(connection: Any, statement: str) -> Any:
    cursor = connection.cursor()
    try:
        cursor.execute(statement)
        return cursor.fetchone()
    finally:
        cursor.close()
