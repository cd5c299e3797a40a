"""The read/write split for threads."""

from __future__ import annotations

import logging
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import sqlalchemy.exc
from sqlalchemy import Connection, Engine

from headlessconn import errors
from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.workers import Workers
from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_replication import PACE, ROUND, questions
from headlessconn.adapters._sqlalchemy_blocking import BlockingHooks, BlockingOpener
from headlessconn.adapters._sqlalchemy_dial import Dialling, Line
from headlessconn.adapters._sqlalchemy_roles import TICK
from headlessconn.adapters._sqlalchemy_sides import Sides
from headlessconn.adapters._sqlalchemy_split import Split, is_mariadb
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.writes import Token
from headlessconn.sync import Client, Service

log = logging.getLogger("headlessconn")

ASKERS = 8  # threads that ask pods: none as long as nobody is asked
PATIENCE = 10.0  # seconds: what a pod does not say until then it does not say


class BlockingReadWrite(Sides[Engine, BlockingDriver, BlockingHooks]):
    """`ReadWrite` for threads: the same settings, with an `Engine` on PyMySQL, and `with` in place of `async with`.

        with BlockingReadWrite(
            lambda: create_engine("mysql+pymysql://app:secret@/shop", pool_size=10),
            primary="mysql-primary.data:3306",
            replicas="mysql-read.data:3306",
        ) as db:
            with db.primary() as connection, connection.begin():
                connection.execute(insert(orders).values(note="new"))
            with db.replica() as connection:
                rows = connection.execute(select(orders))

    What a context has written is kept by thread, or by `contextvars` where those are carried along.
    """

    def _open_clients(self, split: Split) -> tuple[Service, Service]:
        self._clients = Client(split.options), Client(split.options)
        return self._clients[0].service(split.primary_target), self._clients[1].service(split.replica_target)

    def _prepare(self) -> None:
        self._workers = Workers(ASKERS, "headlessconn-ask")
        self._lock = threading.Lock()
        self._finding: threading.Event | None = None
        self._asked_at = -PACE
        self._asking: set[Key] = set()
        self._heard = threading.Condition()
        self._is_kept = False
        self._closed = threading.Event()

    def _hooked(
        self,
        engine: Engine,
        side: int,
        dials: Callable[[Line], Dialling],
        server_hostname: str | None,
        silent_after: float,
        open_timeout: float,
    ) -> BlockingHooks:
        service, dbapi = self._services[side], engine.dialect.loaded_dbapi
        line = Line(str(service.target), self._driver if side else service.driver, dbapi.OperationalError)
        name = server_hostname or service.target.host
        opener = BlockingOpener(dbapi, name, open_timeout, self._split.options.connect_timeout)
        return BlockingHooks(
            engine,
            line,
            opener,
            lambda: dials(line),
            roles=self._replicas if side else self._replication,
            find=self._find,
            silent_after=silent_after,
        )

    # ---- use ---------------------------------------------------------------------------------------------------

    @contextmanager
    def primary(self) -> Iterator[Connection]:
        """A connection to the pod that takes writes; see `ReadWrite.primary`. Raises `NoPrimary`."""
        self._begin()
        with self.primary_engine.connect() as connection:
            written = self._split.unknown_write() if self._split.after_write else Token()
            try:
                yield connection
            except Exception:
                written = self._split.written_on(connection)
                raise
            else:
                written = self._split.written_on(connection)
            finally:
                self._split.wrote(written)

    @contextmanager
    def replica(self, after: str | Token | None = None) -> Iterator[Connection]:
        """A connection to read by; see `ReadWrite.replica`."""
        self._begin()
        needed = self._split.needed(after)
        connection = None if self._split.only_primary(needed) else self._reading(needed)
        with connection or self.primary_engine.connect() as found:
            yield found

    def _reading(self, needed: Token) -> Connection | None:
        """A connection to a replica that has all this; None: the primary is to serve."""
        if self._split.on_no_replica == "primary" and self._has_none():
            return None
        try:
            connection = self.replica_engine.connect()
        except sqlalchemy.exc.DBAPIError as error:
            if self._split.on_no_replica == "fail":
                raise
            log.debug("%s: no replica (%s), the primary serves", self._replication.name, error)
            return None
        try:
            if self._split.has_seen(connection, needed):
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    # ---- life --------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pools, as far as their connections are not out, and the clients."""
        self._closed.set()
        for engine in (self.primary_engine, self.replica_engine):
            engine.dispose()
        for hooks in self._hooks:
            hooks.unhook()
        self._workers.close()
        for client in self._clients:
            client.close()

    def _begin(self) -> None:
        if not self._is_kept:
            with self._lock:
                begins, self._is_kept = not self._is_kept, True
            if begins:
                name = "headlessconn-roles"
                threading.Thread(target=_keep, args=[weakref.ref(self), self._closed], name=name, daemon=True).start()

    # ---- who is who --------------------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Tell what DNS lists; whether somebody should be asked for his role."""
        found: list[tuple[Endpoint, ...]] = []
        for driver in (self._services[0].driver(), self._driver()):
            if driver.engine.answer is None:
                driver.first_word(self._replication.wait + 1.0)
            driver.tell(driver.engine.needed)
            found.append(driver.snapshot().endpoints)
        return self._replication.listed(found[0], found[0] if self._replication.is_one else self._all_replicas())

    def _find(self) -> None:
        """One round of asking at a time, for all who wait for it."""
        with self._lock:
            under_way = self._finding
            if under_way is None:
                self._finding = threading.Event()
        if under_way is not None:
            under_way.wait(PATIENCE)
            return
        try:
            self._ask_all()
        finally:
            with self._lock:
                finding, self._finding = self._finding, None
            assert finding is not None
            finding.set()

    def _ask_all(self) -> None:
        self._closed.wait(max(0.0, self._asked_at + PACE - time.monotonic()))
        self._asked_at = time.monotonic()
        self._look()
        for endpoint in self._replication.to_ask():
            if endpoint.key not in self._asking:
                self._asking.add(endpoint.key)
                self._workers.submit(partial(self._ask, endpoint))
        # A pod that is silent is waited for in the rounds after this one; others may have been promoted meanwhile.
        with self._heard:
            self._heard.wait_for(lambda: not self._asking or self._replication.primary is not None, ROUND)

    def _ask(self, endpoint: Endpoint) -> None:
        try:
            [row] = self._hooks[0].ask(endpoint, _mysql.ROLE)
        except Exception as error:
            self._replication.silent(endpoint, error)
        else:
            self._replication.answered(endpoint, row)
        finally:
            with self._heard:
                self._asking.discard(endpoint.key)
                self._heard.notify_all()

    # ---- the keeper --------------------------------------------------------------------------------------------

    def _round(self) -> None:
        """Follow what DNS says of roles, and how far replicas are."""
        if self._look() and self._hooks[0].has_dialled:
            self._find()
        samples = self._replication.max_lag is not None
        if samples and time.monotonic() >= self._sampled_at + self._replication.sample_every:
            self._sampled_at = time.monotonic()
            self._sample()

    _sampled_at = 0.0

    def _sample(self) -> None:
        of_primary, of_replicas = self._asking_by(0), self._asking_by(1)
        if of_primary is None or of_replicas is None:
            return
        asked = questions(is_mariadb(of_primary.engine))
        replication, primary, replicas = self._replication, self._replication.primary, self._all_replicas()
        if primary is not None and (rows := self._rows(of_primary, primary, asked[:1])):
            replication.came_to(primary, rows, time.monotonic())
        others = [endpoint for endpoint in replicas if endpoint != primary]
        answers: queue.SimpleQueue[tuple[Endpoint, list[Any]]] = queue.SimpleQueue()
        for endpoint in others:
            self._workers.submit(lambda one=endpoint: answers.put((one, self._rows(of_replicas, one, asked))))  # type: ignore[misc]
        for _ in others:
            try:
                endpoint, rows = answers.get(timeout=PATIENCE)
            except queue.Empty:
                return
            if rows:
                replication.came_to(endpoint, rows, time.monotonic())
        replication.sampled([endpoint.key for endpoint in replicas], time.monotonic())
        asked_of = [endpoint.key for endpoint in (*others, *([] if primary is None else [primary]))]
        of_primary.keep_only(asked_of)
        of_replicas.keep_only(asked_of)

    def _rows(self, hooks: BlockingHooks, endpoint: Endpoint, statements: tuple[str, ...]) -> list[Any]:
        try:
            return hooks.ask(endpoint, *statements, keep=True)
        except Exception as error:
            log.debug("%s: %s does not say how far it is: %s", self._replication.name, endpoint, _mysql.said(error))
            return []


def _keep(owner: weakref.ref[BlockingReadWrite], closed: threading.Event) -> None:
    """The keeper's thread, as long as there is somebody to keep for."""
    while not closed.wait(TICK):
        db = owner()
        if db is None:
            return
        try:
            db._round()
        except errors.ClosedError:
            return
        except Exception:
            log.exception("%r: looking after its roles stumbled, and goes on", db)
        del db
