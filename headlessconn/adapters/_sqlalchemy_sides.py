"""The two sides of a read/write split, each with its engine, its service and its hooks: what both forms of it share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from headlessconn import errors
from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.driver import Driver
from headlessconn.adapters._mysql_replication import GTID_TIMEOUT, STICKY, OnNoReplica, filtered, hint
from headlessconn.adapters._sqlalchemy_dial import Dialling, Line, dialling
from headlessconn.adapters._sqlalchemy_errors import NoEndpoints
from headlessconn.adapters._sqlalchemy_hooks import Hooks
from headlessconn.adapters._sqlalchemy_roles import Replicas, to_primary
from headlessconn.adapters._sqlalchemy_split import Split
from headlessconn.core.endpoint import Endpoint
from headlessconn.core.probing import SILENT_AFTER
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.target import Target
from headlessconn.core.writes import AfterWrite
from headlessconn.options import Options

EngineT = TypeVar("EngineT")
HooksT = TypeVar("HooksT", bound=Hooks)
DriverT = TypeVar("DriverT", Driver, BlockingDriver)
DriverOfT = TypeVar("DriverOfT", Driver, BlockingDriver, covariant=True)


class ServiceOf(Protocol[DriverOfT]):
    """A service of either client."""

    target: Target

    @property
    def snapshot(self) -> Snapshot: ...

    def driver(self) -> DriverOfT: ...


class Sides(ABC, Generic[EngineT, DriverT, HooksT]):
    """The primary's side is the first, the replicas' the second. Settings are described by `ReadWrite`."""

    def __init__(
        self,
        make_engine: Callable[[], EngineT],
        *,
        primary: str | Target,
        replicas: str | Target | None = None,
        probe_role: bool = False,
        options: Options | None = None,
        on_no_replica: OnNoReplica = "primary",
        after_write: AfterWrite | None = None,
        sticky: float = STICKY,
        gtid_timeout: float = GTID_TIMEOUT,
        max_lag: float | None = None,
        server_hostname: str | None = None,
        silent_after: float = SILENT_AFTER,
        open_timeout: float = 10.0,
    ) -> None:
        self._split = split = Split(
            primary,
            replicas,
            probe_role=probe_role,
            options=options,
            on_no_replica=on_no_replica,
            after_write=after_write,
            sticky=sticky,
            gtid_timeout=gtid_timeout,
            max_lag=max_lag,
        )
        self._replication = replication = split.replication
        self._services: tuple[ServiceOf[DriverT], ServiceOf[DriverT]] = self._open_clients(split)
        self.primary_engine, self.replica_engine = make_engine(), make_engine()
        self._replicas = Replicas(replication)
        self._hooks = (
            self._hooked(self.primary_engine, 0, self._to_primary, server_hostname, silent_after, open_timeout),
            self._hooked(self.replica_engine, 1, self._to_replica, server_hostname, silent_after, open_timeout),
        )
        replication.hint = self._hint
        replication.changed = self._push
        self._prepare()

    @abstractmethod
    def _open_clients(self, split: Split) -> tuple[ServiceOf[DriverT], ServiceOf[DriverT]]:
        """A client for each side: the replicas' set is filtered, and each role's connections are counted apart."""

    @abstractmethod
    def _hooked(
        self,
        engine: EngineT,
        side: int,
        dials: Callable[[Line], Dialling],
        server_hostname: str | None,
        silent_after: float,
        open_timeout: float,
    ) -> HooksT:
        """The hooks on the engine of one side."""

    @abstractmethod
    def _prepare(self) -> None:
        """What it keeps of its own, beside the two sides."""

    def _asking_by(self, side: int) -> HooksT | None:
        """Whose login asks pods of this side: its own, since that verifies the name by which they are dialled; the
        other's, as long as nobody has used this one. None: nobody has used any."""
        found = self._hooks[side] if self._hooks[side].has_dialled else self._hooks[1 - side]
        return found if found.has_dialled else None

    def token(self) -> str:
        """What this context (a task, and those it starts; a thread) has written so far, as text for a cookie or a
        header; "" when it is nothing, or without `after_write`. For `db.replica(after=…)`, in this process or another.
        """
        return str(self._split.token)

    # ---- dials -------------------------------------------------------------------------------------------------

    def _to_primary(self, line: Line) -> Dialling:
        return (yield from to_primary(line, self._replication))

    def _to_replica(self, line: Line) -> Dialling:
        # Where the primary stands in, it is not waited for that a replica appears; only for the first answer of DNS.
        known = self._driver().engine.answer is not None
        wait = 0.0 if known and self._split.on_no_replica == "primary" else None
        try:
            return (yield from dialling(line, self._replicas, wait))
        except errors.NoEndpoints as error:
            raise NoEndpoints(error) from error

    # ---- what DNS lists ----------------------------------------------------------------------------------------

    def _driver(self) -> DriverT:
        """The replicas', which lists only those that will do."""
        driver = self._services[1].driver()
        filtered(driver, self._replication.replicas)
        return driver

    def _has_none(self) -> bool:
        """Whether the primary is all that there is behind the one name."""
        return filtered(self._driver(), self._replication.replicas).keeps_none

    def _all_replicas(self) -> list[Endpoint]:
        """Those that are left out too."""
        return filtered(self._driver(), self._replication.replicas).endpoints

    def _hint(self) -> None:
        for service in self._services:
            hint(service.driver())

    def _push(self) -> None:
        driver = self._driver()
        filtered(driver, self._replication.replicas).push(driver)

    def __repr__(self) -> str:
        split = self._split
        return f"<{type(self).__name__}: writes to {split.primary_target}, reads from {split.replica_target}>"
