"""What both forms of the read/write split have in common: settings, and tokens."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Any

from sqlalchemy import Connection, Engine

from headlessconn.adapters._mysql_hosts import OPTIONS, with_port
from headlessconn.adapters._mysql_replication import OnNoReplica, Replication, check_settings, position_of
from headlessconn.adapters._sqlalchemy_hooks import KEY, row_of
from headlessconn.core.target import Target
from headlessconn.core.writes import AfterWrite, Token
from headlessconn.errors import OptionError
from headlessconn.options import Options

log = logging.getLogger("headlessconn")


class Split:
    """The settings, read strictly, and the token of each context."""

    def __init__(
        self,
        primary: str | Target,
        replicas: str | Target | None,
        *,
        probe_role: bool,
        options: Options | None,
        on_no_replica: OnNoReplica,
        after_write: AfterWrite | None,
        sticky: float,
        gtid_timeout: float,
        max_lag: float | None,
    ) -> None:
        self.primary_target = with_port(Target.parse(primary))
        self.replica_target = self.primary_target if replicas is None else with_port(Target.parse(replicas))
        is_one = self.replica_target == self.primary_target
        if is_one and not probe_role:
            raise OptionError(
                "probe_role",
                f"there is one name for all pods, {self.primary_target}, so only they can say which takes writes",
                'ReadWrite(…, primary="mysql.data:3306", probe_role=True), or replicas="mysql-read.data:3306"',
            )
        check_settings(on_no_replica, after_write, sticky, gtid_timeout, max_lag)
        self.options = options or OPTIONS
        self.on_no_replica = on_no_replica
        self.after_write = after_write
        self.sticky = sticky
        self.gtid_timeout = gtid_timeout
        self.replication = Replication(
            str(self.primary_target),
            probes=probe_role,
            is_one=is_one,
            max_lag=max_lag,
            wait=self.options.wait_for_endpoints,
        )
        self._token: ContextVar[Token | None] = ContextVar(f"what was written to {self.primary_target}", default=None)

    # ---- tokens ------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self._token.get() or Token()

    def wrote(self, token: Token) -> None:
        """In this context."""
        if token != Token():
            self._token.set(self.token.with_(token))

    def needed(self, after: str | Token | None) -> Token:
        """What a reader in this context must have seen."""
        if after is None:
            return self.token
        return self.token.with_(after if isinstance(after, Token) else Token.parse(after))

    def only_primary(self, needed: Token) -> bool:
        return needed.sticks(time.time(), self.sticky)

    def unknown_write(self) -> Token:
        """Something may have been written, and there is no telling what."""
        return Token(until=time.time() + self.sticky)

    # ---- what is asked on a connection of the application's, outside of its transactions ----------------------------

    def written_on(self, connection: Connection) -> Token:
        """The token of what has been committed on it. No transaction begins by that."""
        if self.after_write is None:
            return Token()
        if self.after_write == "sticky" or connection.closed or connection.invalidated:
            return self.unknown_write()
        statement = "SELECT @@last_gtid" if is_mariadb(connection.engine) else "SELECT @@GLOBAL.gtid_executed"
        try:
            position = position_of(row_of(connection.connection, statement)[0])
        except Exception as error:
            log.warning("%s: how far a write came is unknown (%s)", self.replication.name, error)
            connection.invalidate(error)
            return self.unknown_write()
        return Token(position)

    def has_seen(self, connection: Connection, needed: Token) -> bool:
        """Whether the replica has all of it, waiting for that if need be."""
        if not needed.position:
            return True
        position, seconds = needed.position, self.gtid_timeout
        if is_mariadb(connection.engine):
            statement = f"SELECT MASTER_GTID_WAIT('{position}', {seconds:g})"
        else:
            statement = f"SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds:g})"
        try:
            row = row_of(connection.connection, statement)
        except Exception as error:
            log.warning("%s: a replica could not say what it has (%s)", self.replication.name, error)
            connection.invalidate(error)
            return False
        return row is not None and row[0] == 0

    def pod_of(self, connection: Connection) -> Any:
        held = connection.info.get(KEY)
        return None if held is None else held.endpoint


def is_mariadb(engine: Engine) -> bool:
    return bool(getattr(engine.dialect, "is_mariadb", False))
