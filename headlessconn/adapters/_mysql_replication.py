"""One replicated database as an application's read/write split sees it: who takes writes, which replicas will do.

For every form of the split, on a loop and in threads. Nothing here asks anybody: it is told what pods answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any, Literal, TypeAlias

from headlessconn import errors
from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.driver import Driver
from headlessconn._runtime.hub import Hub
from headlessconn._runtime.source import Source
from headlessconn.adapters import _mysql
from headlessconn.client import Client
from headlessconn.core.endpoint import Answer, Endpoint, Key
from headlessconn.core.gtid import Position
from headlessconn.core.lag import Lag
from headlessconn.core.roles import READ_ONLY, Roles

log = logging.getLogger("headlessconn")

AnyDriver: TypeAlias = Driver | BlockingDriver
OnNoReplica: TypeAlias = Literal["primary", "fail"]

PACE = 0.2  # seconds between two rounds of asking every pod for its role, while none takes writes
ROUND = 0.5  # seconds that a round waits for those who do not answer
STICKY = 2.0  # seconds
GTID_TIMEOUT = 0.5  # seconds; a replica that keeps up has it within a millisecond (measured: 0.3 ms, at most 1.2 ms)

# Of a server, on a connection of our own, to see how far it has come. None of it needs a privilege.
MARIADB_POSITION = "SELECT @@GLOBAL.gtid_current_pos"
MYSQL_POSITION = "SELECT @@GLOBAL.gtid_executed"
RUNNING = "SHOW GLOBAL STATUS LIKE 'Slave_running'"  # of both threads; MySQL 8 has no such thing


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

    def nobody(self, waited: float) -> errors.NoPrimary:
        with self._lock:
            asked = [(str(one), self._last.get(one.key, "not asked yet")) for one in self.candidates()]
        return errors.NoPrimary(self.name, waited, asked)

    # ---- for those who write -----------------------------------------------------------------------------------

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

    @property
    def sample_every(self) -> float:
        """Seconds from one look at all positions to the next: twice within what is too late, to see it in time."""
        assert self.max_lag is not None
        return min(1.0, self.max_lag / 2.0)

    def came_to(self, endpoint: Endpoint, rows: Sequence[Any], now: float) -> None:
        """How far a pod is, by the first row of each answer to `questions`. The primary's is told before the others'
        are asked: then a replica that has all of it is not taken for late, however long its answer takes."""
        position = position_of(rows[0][0])
        with self._lock:
            is_primary = endpoint.key == self._roles.primary
            if is_primary:
                self.lag.wrote(position, now)
            self.lag.applied(endpoint.key, position, None if is_primary else is_running(rows))

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


# ---- settings --------------------------------------------------------------------------------------------------


def check_settings(
    on_no_replica: object, after_write: object, sticky: object, gtid_timeout: object, max_lag: object
) -> None:
    """Those of every form, read strictly. Raises `OptionError`."""
    for name, value, choices in (
        ("on_no_replica", on_no_replica, ("primary", "fail")),
        ("after_write", after_write, ("gtid", "sticky", None)),
    ):
        if value not in choices:
            raise errors.OptionError(name, f"{value!r} is not one of {choices}", f"{name}={choices[0]!r}")
    for name, seconds, low, high in (
        ("sticky", sticky, 0.0, 3600.0),
        ("gtid_timeout", gtid_timeout, 0.0, 60.0),
        ("max_lag", 5.0 if max_lag is None else max_lag, 0.1, 86400.0),
    ):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not low <= seconds <= high:
            raise errors.OptionError(name, f"{seconds!r} is not between {low:g} and {high:g}", f"{name}=2.0")


# ---- positions -------------------------------------------------------------------------------------------------


def questions(is_mariadb: bool) -> tuple[str, ...]:
    """What a pod is asked to see how far it is; `Replication.came_to` reads the answers."""
    return (MARIADB_POSITION, RUNNING) if is_mariadb else (MYSQL_POSITION,)


def is_running(rows: Sequence[Any]) -> bool | None:
    """Whether it still replicates; None when it does not say."""
    if len(rows) < 2 or not rows[1]:
        return None
    return bool(str(rows[1][1]).upper() == "ON")


def position_of(text: object) -> Position:
    try:
        return Position.parse(str(text or ""))
    except ValueError:
        return Position()


# ---- the replicas' set -----------------------------------------------------------------------------------------


class Apart(Client):
    """A client that shares its knowledge with nobody on its loop: its sets are filtered, and its connections counted
    apart from those of others to the same pods."""

    def hub(self) -> Hub:
        if self._hub is None and not self._closed:
            self._hub = Hub(self.options, asyncio.get_running_loop())
            self._hub.users = 1
        return super().hub()


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

    @property
    def endpoints(self) -> list[Endpoint]:
        """All that DNS lists, those that are not kept too."""
        last = self.last
        return [] if last is None else [Endpoint.of(key, last.about.get(key)) for key in sorted(last.keys)]

    @property
    def keeps_none(self) -> bool:
        """Whether somebody is listed, and nobody of them will do."""
        last = self.last
        return last is not None and bool(last.keys) and not self._keep(last.keys)

    def _filtered(self, answer: Answer) -> Answer:
        if answer.kind != "records":
            return answer
        keys = self._keep(answer.keys)
        if not keys:
            return replace(answer, kind="nobody", keys=frozenset(), why="no replica among them")
        return replace(answer, keys=keys)


def filtered(driver: AnyDriver, keep: Callable[[frozenset[Key]], frozenset[Key]]) -> Filtered:
    """Have a driver's set filtered; it must be nobody else's."""
    if not isinstance(driver.source, Filtered):
        driver.source = Filtered(driver.source, keep)
    return driver.source


def hint(driver: AnyDriver) -> None:
    """DNS may be old: ask it again soon."""
    driver._tell(driver.engine.hint)


__all__ = [
    "GTID_TIMEOUT",
    "PACE",
    "ROUND",
    "STICKY",
    "Apart",
    "Filtered",
    "OnNoReplica",
    "Replication",
    "check_settings",
    "filtered",
    "hint",
    "is_running",
    "position_of",
    "questions",
]
