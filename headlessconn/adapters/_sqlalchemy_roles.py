"""A database's roles for SQLAlchemy's engines: the way to the primary, and which replicas will do."""

from __future__ import annotations

import time
from typing import Any

from headlessconn.adapters import _mysql
from headlessconn.adapters._mysql_replication import Replication
from headlessconn.adapters._sqlalchemy_dial import Dialled, Dialling, Drop, Find, Line, Open
from headlessconn.adapters._sqlalchemy_errors import NoPrimary
from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.pooling import Fault

TICK = 0.25  # seconds between two looks at what DNS lists

LAGS = "it lags behind"
IS_PRIMARY = "it is the primary now"


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
                raise NoPrimary(replication.nobody(waited))
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
                raise NoPrimary(replication.nobody(waited)) from error
            continue
        if replication.answered(endpoint, row) and not replication.unwelcome(endpoint.key):
            return Dialled(raw, endpoint)
        yield Drop(raw)


__all__ = ["TICK", "Replicas", "to_primary"]
