"""One replicated database as an application's read/write split sees it: who takes writes, which replicas will do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import RLock
from typing import Any

from headlessconn import errors
from headlessconn._runtime.source import Source
from headlessconn.adapters import _mysql
from headlessconn.adapters._sqlalchemy_dial import AnyDriver, Dialled, Dialling, Drop, Find, Line, Open
from headlessconn.adapters._sqlalchemy_errors import NoPrimary
from headlessconn.core.endpoint import Answer, Endpoint, Key
from headlessconn.core.gtid import Position
from headlessconn.core.lag import Lag
from headlessconn.core.pooling import Fault
from headlessconn.core.roles import READ_ONLY, Roles

log = logging.getLogger("headlessconn")

PACE = 0.2  # seconds between two rounds of asking every pod for its role, while none takes writes
ROUND = 0.5  # seconds that a round waits for those who do not answer
TICK = 0.25  # seconds between two looks at what DNS lists

LAGS = "it lags behind"
IS_PRIMARY = "it is the primary now"


class Replication:
    """The roles behind one application's database. Any thread may use it.

    name      of the primary's Service, for people
    probes    every pod may be asked whether it takes writes; else only those that DNS lists as the primary
    is_one    one Service for all pods, so that the primary is among its replicas
    max_lag   seconds, None = replicas are not looked at
    wait      seconds for a pod that takes writes
    """

    def __init__(self, name: str, *, probes: bool, is_one: bool, max_lag: float | None, wait: float) -> None:
        self.name = name
        self.probes = probes
        self.is_one = is_one
        self.max_lag = max_lag
        self.wait = wait
        self.hint: Callable[[], None] = lambda: None  # DNS may be old
        self.changed: Callable[[], None] = lambda: None  # other replicas will do than before
        self.lag = Lag()
        self.left_out: dict[Key, float] = {}
        self._roles = Roles()
        self._lock = RLock()
        self._listed: dict[Key, Endpoint] = {}
        self._others: dict[Key, Endpoint] = {}
        self._last: dict[Key, str] = {}  # what each pod said, in words
        self._split: tuple[Key, ...] = ()  # who has been said to claim it beside one another

    # ---- the facts ---------------------------------------------------------------------------------------------

    def listed(self, primaries: Iterable[Endpoint], replicas: Iterable[Endpoint]) -> bool:
        """What DNS says; whether somebody should be asked for his role."""
        with self._lock:
            self._listed = {} if self.is_one else {endpoint.key: endpoint for endpoint in primaries}
            self._others = {endpoint.key: endpoint for endpoint in replicas} if self.probes else {}
            self._last = {key: said for key, said in self._last.items() if key in self._listed or key in self._others}
            self._settle()
            return bool(self._roles.to_ask(self._listed, self._others))

    def to_ask(self) -> list[Endpoint]:
        with self._lock:
            return [self._endpoint(key) for key in self._roles.to_ask(self._listed, self._others)]

    def answered(self, endpoint: Endpoint, row: Any) -> bool:
        """A pod's answer to the question for its role; whether it takes writes."""
        is_writable = _mysql.is_writable(row)
        with self._lock:
            self._last[endpoint.key] = "it takes writes" if is_writable else READ_ONLY
            if not is_writable and endpoint.key in self._split:
                self._split = ()
            self._roles.told(endpoint.key, is_writable)
            self._settle()
        return is_writable

    def silent(self, endpoint: Endpoint, error: BaseException) -> None:
        """It could not be asked."""
        with self._lock:
            self._last[endpoint.key] = _mysql.said(error)
            self._roles.unreachable(endpoint.key)
            self._settle()

    def _settle(self) -> None:
        before = self._roles.primary
        now = self._roles.settle(self._listed, self._others)
        split = self._roles.split
        if split and split != self._split:
            self._split = split
            names = ", ".join(str(self._endpoint(key)) for key in split)
            log.error(
                "%s: split brain: %s all take writes; %s gets ours", self.name, names, now and self._endpoint(now)
            )
        if now is not None and now != before:
            log.info("%s: %s is the primary", self.name, self._endpoint(now))
            if self.is_one:
                self.changed()

    def _endpoint(self, key: Key) -> Endpoint:
        return self._listed.get(key) or self._others.get(key) or Endpoint.of(key)

    # ---- what follows ------------------------------------------------------------------------------------------

    @property
    def primary(self) -> Endpoint | None:
        with self._lock:
            key = self._roles.primary
            return None if key is None else self._endpoint(key)

    def candidates(self) -> list[Endpoint]:
        with self._lock:
            return list((self._listed | self._others).values())

    def nobody(self, waited: float) -> NoPrimary:
        with self._lock:
            asked = [(str(one), self._last.get(one.key, "not asked yet")) for one in self.candidates()]
        return NoPrimary(errors.NoPrimary(self.name, waited, asked))

    # ---- for the hooks of the primary's engine ------------------------------------------------------------------

    def unwelcome(self, key: Key) -> str:
        return self._roles.unwelcome(key)

    def refused_write(self, endpoint: Endpoint) -> None:
        with self._lock:
            self._last[endpoint.key] = READ_ONLY
            self._roles.told(endpoint.key, False)
        self.hint()

    def lost(self, key: Key) -> None:
        with self._lock:
            self._roles.lost(key)

    # ---- replicas ----------------------------------------------------------------------------------------------

    def replicas(self, keys: frozenset[Key]) -> frozenset[Key]:
        """Those of a Service's pods that are read from."""
        primary = self._roles.primary if self.is_one else None
        return frozenset(key for key in keys if key != primary and key not in self.left_out)

    def sampled(self, keys: Iterable[Key], now: float) -> None:
        """The replicas have been looked at: leave out those that lag, all but the best of them."""
        assert self.max_lag is not None
        among = [key for key in keys if not (self.is_one and key == self._roles.primary)]
        with self._lock:
            self.lag.keep(among)
            found = self.lag.left_out(among, self.max_lag, now)
            before, self.left_out = self.left_out, found
        for key in found.keys() - before.keys():
            how = "has stopped replicating" if found[key] == float("inf") else f"is {found[key]:.1f} s behind"
            log.warning("%s: %s %s: it is not read from", self.name, Endpoint.of(key), how)
        for key in before.keys() - found.keys():
            log.info("%s: %s is read from again", self.name, Endpoint.of(key))
        if found.keys() != before.keys():
            self.changed()


class Replicas:
    """Of the same database, for the hooks and the dials of the replicas' engine."""

    def __init__(self, replication: Replication) -> None:
        self._replication = replication
        self.greeting: str | None = _mysql.ROLE

    def unwelcome(self, key: Key) -> str:
        replication = self._replication
        if replication.left_out and key in replication.left_out:
            return LAGS
        if replication.is_one and key == replication._roles.primary:
            return IS_PRIMARY
        return ""

    def avoid(self) -> list[Key]:
        return [one.key for one in self._replication.candidates() if self.unwelcome(one.key)]

    def unfit(self, endpoint: Endpoint, row: Any) -> str:
        is_writable = self._replication.answered(endpoint, row)
        return IS_PRIMARY if is_writable and self._replication.is_one else ""

    def refused_write(self, endpoint: Endpoint) -> None:
        """A write was tried on a replica: nothing has changed by that."""

    def lost(self, key: Key) -> None: ...


class Filtered:
    """A source that lists only the pods which `keep` keeps. `last`: the last answer that said something, whole."""

    def __init__(self, source: Source, keep: Callable[[frozenset[Key]], frozenset[Key]]) -> None:
        self._source = source
        self._keep = keep
        self.last: Answer | None = None

    async def look_up(self) -> Answer:
        answer = await self._source.look_up()
        if answer.kind != "no_news":
            self.last = answer
        return self._filtered(answer)

    def push(self, driver: AnyDriver) -> None:
        """Other pods are kept than before: no need to ask DNS for that."""
        if (last := self.last) is not None:
            answer = self._filtered(last)
            driver._tell(lambda now: driver.engine.answered(answer, now))

    def _filtered(self, answer: Answer) -> Answer:
        if answer.kind != "records":
            return answer
        keys = self._keep(answer.keys)
        if not keys:
            return replace(answer, kind="nobody", keys=frozenset(), why="no replica among them")
        return replace(answer, keys=keys)


def to_primary(line: Line, replication: Replication) -> Dialling:
    """A connection to the pod that takes writes, whoever that is. Raises `NoPrimary`, after `wait` seconds; what a
    primary says that does not let us in."""
    began = time.monotonic()
    while True:
        if replication.primary is None:
            yield Find()
        endpoint = replication.primary
        waited = time.monotonic() - began
        if endpoint is None:
            if waited >= replication.wait:
                raise replication.nobody(waited)
            replication.hint()
            continue
        try:
            raw, row = yield Open(endpoint, _mysql.ROLE)
        except Exception as error:
            fault, _ = _mysql.of_opening(error)
            replication.silent(endpoint, error)
            replication.hint()
            if fault is not Fault.UNREACHABLE:
                raise
            if waited >= replication.wait:
                raise replication.nobody(waited) from error
            continue
        if replication.answered(endpoint, row) and not replication.unwelcome(endpoint.key):
            return Dialled(raw, endpoint)
        yield Drop(raw)


def hint(driver: AnyDriver) -> None:
    """DNS may be old: ask it again soon. A caller that joins and leaves the queue makes the engine set its alarm."""

    def told(now: float) -> None:
        driver.engine.refresh.hint(now)
        driver.engine.queued(now)
        driver.engine.left(now)

    driver._tell(told)


def filtered(driver: AnyDriver, keep: Callable[[frozenset[Key]], frozenset[Key]]) -> Filtered:
    """Have a driver's set filtered; it must be nobody else's."""
    if not isinstance(driver.source, Filtered):
        driver.source = Filtered(driver.source, keep)
    return driver.source


def position_of(text: object) -> Position:
    try:
        return Position.parse(str(text or ""))
    except ValueError:
        return Position()


__all__ = [
    "PACE",
    "ROUND",
    "TICK",
    "Filtered",
    "Replicas",
    "Replication",
    "filtered",
    "hint",
    "position_of",
    "to_primary",
]
