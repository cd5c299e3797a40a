"""The hooks of an `Engine` with PyMySQL, for threads. There is no event loop here.

The socket is ours: PyMySQL is given a connected one, and verifies the name that it is given beside it. It detaches the
socket for TLS, so a duplicate of it is kept, by which an idle connection can be looked at and a silent one cut off.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from sqlalchemy import Engine

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_probe import knock
from headlessconn._runtime.workers import Workers
from headlessconn.adapters import _mysql_wire
from headlessconn.adapters._mysql_sockets import notice_vanished
from headlessconn.adapters._sqlalchemy_dial import Dialled, Dialling, Drop, Find, Line, Open, Pause, Place, Step
from headlessconn.adapters._sqlalchemy_hooks import Held, Hooks, Roles
from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.probing import LOOK_EVERY

log = logging.getLogger("headlessconn")

ASK_TIMEOUT = 2.0  # seconds for questions that a server answers from memory
PROBERS = 4  # threads for probes: none as long as there are none


class Wire(_mysql_wire.Wire):
    """One that is watched while its connection is opened, and looked at by each check-out.

    heard   `heard(0)` is empty as long as there is nothing to be read: on an idle connection anything else is an end,
            or an error on its way
    until   when it is cut off if it is still being opened
    """

    __slots__ = ("heard", "until")

    def __init__(self, sock: socket.socket, until: float) -> None:
        super().__init__(sock)
        self.heard = self._poll.poll
        self.until = until


class BlockingOpener:
    """Opens PyMySQL's connections to pods. What takes longer than `timeout` seconds is cut off by `watch_over`."""

    def __init__(self, dbapi: Any, server_hostname: str, timeout: float, connect_timeout: float) -> None:
        self._dbapi = dbapi
        self._name = server_hostname
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self.opening: set[Wire] = set()

    def __call__(
        self, endpoint: Endpoint, greeting: str | None, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Any, Any]:
        """The connection with its `Wire`, and the row."""
        named = named | {"host": self._name, "port": endpoint.port, "defer_connect": True}
        patience = min(named.get("connect_timeout") or self._connect_timeout, self._connect_timeout)
        source = (named["bind_address"], 0) if named.get("bind_address") else None
        made = self._dbapi.connect(*arguments, **named)
        sock = socket.create_connection((endpoint.address, endpoint.port), patience, source)
        wire: Wire | None = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            notice_vanished(sock, sends_files=bool(named.get("local_infile")))
            wire = Wire(sock, time.monotonic() + self._timeout)
            self.opening.add(wire)
            try:
                made.connect(sock)
                row = None if greeting is None else row_of(made, greeting)
            except Exception as error:
                if time.monotonic() >= wire.until:
                    raise TimeoutError(f"{endpoint} accepted, and let nobody in for {self._timeout:g} s") from error
                raise
            finally:
                self.opening.discard(wire)
        except BaseException:
            sock.close()
            if wire is not None:
                wire.close()
            if made.open:
                made.close()
            raise
        return (made, wire), row

    def watch_over(self, now: float) -> None:
        for wire in tuple(self.opening):
            if now >= wire.until:
                wire.cut()


def _drop(raw: Any, wire: Wire) -> None:
    """Close both; nobody waits for what the server has to say of it."""
    wire.close()
    if raw.open:
        raw.close()


def row_of(raw: Any, statement: str) -> Any:
    """The first row of an answer."""
    with raw.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


class BlockingHooks(Hooks):
    """`dials` makes the plan of one dial; `find` asks pods for their role, where that matters."""

    def __init__(
        self,
        engine: Engine,
        line: Line,
        opener: BlockingOpener,
        dials: Callable[[], Dialling],
        *,
        roles: Roles | None = None,
        find: Callable[[], None] | None = None,
        silent_after: float,
    ) -> None:
        super().__init__(engine, line, roles, silent_after)
        self._opener = opener
        self._dials = dials
        self._find = find
        self._workers = Workers(PROBERS, "headlessconn-probe")
        self._kept: dict[Key, tuple[Any, Wire]] = {}  # connections for questions, by pod
        _hooked.add(self)

    def _do_connect(self, dialect: Any, record: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        self.tick_soon()
        self._login = tuple(arguments), dict(named)
        dialled, wire = self._carry_out(self._dials(), *self._login)
        self.keep(dialled, wire, record)
        return dialled.raw

    def ask(self, endpoint: Endpoint, *statements: str, keep: bool = False) -> list[Any]:
        """The first row of each answer, by a connection beside the pool, `keep` it for the next question. The engine
        must have dialled before."""
        self.tick_soon()
        raw, wire = self._kept.pop(endpoint.key, (None, None))
        if wire is not None and wire.heard(0):
            _drop(raw, wire)
            wire = None
        if wire is None:
            assert self._login is not None
            (raw, wire), _ = self._opener(endpoint, None, *self._login)
        wire.until = time.monotonic() + ASK_TIMEOUT
        self._opener.opening.add(wire)
        try:
            rows = [row_of(raw, statement) for statement in statements]
        except BaseException:
            _drop(raw, wire)
            raise
        finally:
            self._opener.opening.discard(wire)
        if not keep or self.closed or self._kept.setdefault(endpoint.key, (raw, wire))[1] is not wire:
            _drop(raw, wire)
        return rows

    def keep_only(self, keys: Collection[Key]) -> None:
        for key in self._kept.keys() - keys:
            if (kept := self._kept.pop(key, None)) is not None:  # else a question took it meanwhile
                _drop(*kept)

    def _carry_out(self, plan: Dialling, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Dialled, Wire]:
        answer: Any = None
        error: BaseException | None = None
        while True:
            try:
                step = plan.send(answer) if error is None else plan.throw(error)
            except StopIteration as end:
                dialled: Dialled = end.value
                raw, wire = dialled.raw
                return Dialled(raw, dialled.endpoint, dialled.driver, dialled.claim), wire
            answer = error = None
            try:
                answer = self._do(step, arguments, named)
            except BaseException as raised:
                error = raised

    def _do(self, step: Step, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        match step:
            case Place(driver=driver, avoid=avoid, wait=wait):
                assert isinstance(driver, BlockingDriver)
                return driver.place_within(wait, avoid)
            case Open(endpoint=endpoint, greeting=greeting):
                return self._opener(endpoint, greeting, arguments, named)
            case Drop(raw=(connection, wire)):
                _drop(connection, wire)
            case Find():
                assert self._find is not None
                self._find()
            case Pause(seconds=seconds):
                time.sleep(seconds)

    # ---- the watch ---------------------------------------------------------------------------------------------

    def is_alive(self, held: Held) -> bool:
        return not held.wire.heard(0)

    def drop(self, held: Held) -> None:
        if held.raw.open:
            held.raw.close()

    def cut(self, held: Held) -> None:
        held.wire.cut()

    def start_ticking(self) -> None:
        threading.Thread(target=_tick, args=[weakref.ref(self)], name="headlessconn-sql", daemon=True).start()

    def tick(self) -> bool:
        self._opener.watch_over(time.monotonic())
        return super().tick()

    def probe(self, endpoint: Endpoint) -> None:
        self._workers.submit(partial(self._probe, endpoint, self.line.driver().place_probe(endpoint.key)))

    def _probe(self, endpoint: Endpoint, tell: Callable[[How], None]) -> None:
        how = How.CANCELLED
        try:
            how = knock(endpoint)
        finally:
            tell(how)
            self.probed(endpoint, how)

    def unhook(self) -> None:
        super().unhook()
        self._workers.close()
        self.keep_only(())

    def forked(self) -> None:
        super().forked()
        self._workers = Workers(PROBERS, "headlessconn-probe")
        self._opener.opening = set()
        self._kept = {}


def _tick(owner: weakref.ref[BlockingHooks]) -> None:
    """The thread of one engine, as long as there is one."""
    while True:
        time.sleep(LOOK_EVERY)
        hooks = owner()
        if hooks is None or hooks.closed:
            return
        try:
            hooks.tick()
        except Exception:
            log.exception("%s: the watch over its connections stumbled, and goes on", hooks.line.name)
        del hooks


_hooked: weakref.WeakSet[BlockingHooks] = weakref.WeakSet()


def _after_fork() -> None:
    for hooks in _hooked:
        hooks.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

__all__ = ["BlockingHooks", "BlockingOpener", "row_of"]
