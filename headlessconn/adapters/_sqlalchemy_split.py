"""What both forms of the read/write split have in common: settings, tokens, and what is asked of servers."""

from __future__ import annotations

import logging
import time
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection, Engine

from headlessconn.adapters._mysql_hosts import OPTIONS, with_port
from headlessconn.adapters._sqlalchemy_hooks import KEY, row_of
from headlessconn.adapters._sqlalchemy_roles import Replication, position_of
from headlessconn.core.target import Target
from headlessconn.core.writes import AfterWrite, Token
from headlessconn.errors import OptionError
from headlessconn.options import Options

log = logging.getLogger("headlessconn")

OnNoReplica: TypeAlias = Literal["primary", "fail"]

STICKY = 2.0  # seconds
GTID_TIMEOUT = 0.5  # seconds; a replica that keeps up has it within a millisecond (measured: 0.3 ms, at most 1.2 ms)


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
        for name, value, choices in (
            ("on_no_replica", on_no_replica, ("primary", "fail")),
            ("after_write", after_write, ("gtid", "sticky", None)),
        ):
            if value not in choices:
                raise OptionError(name, f"{value!r} is not one of {choices}", f"{name}={choices[0]!r}")
        for name, seconds, low, high in (
            ("sticky", sticky, 0.0, 3600.0),
            ("gtid_timeout", gtid_timeout, 0.0, 60.0),
            ("max_lag", 5.0 if max_lag is None else max_lag, 0.1, 86400.0),
        ):
            given: object = seconds
            if isinstance(given, bool) or not isinstance(given, int | float) or not low <= given <= high:
                raise OptionError(name, f"{seconds!r} is not between {low:g} and {high:g}", f"{name}=2.0")
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
        statement = "SELECT @@last_gtid" if _is_mariadb(connection.engine) else "SELECT @@GLOBAL.gtid_executed"
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
        if _is_mariadb(connection.engine):
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


def _is_mariadb(engine: Engine) -> bool:
    return bool(getattr(engine.dialect, "is_mariadb", False))


# Of a server, on a connection of our own, to see how far it has come. None of it needs a privilege.
MARIADB_POSITION = "SELECT @@GLOBAL.gtid_current_pos"
MYSQL_POSITION = "SELECT @@GLOBAL.gtid_executed"
RUNNING = "SHOW GLOBAL STATUS LIKE 'Slave_running'"  # of both threads; MySQL 8 has no such thing


def questions(engine: Engine) -> tuple[str, ...]:
    return (MARIADB_POSITION, RUNNING) if _is_mariadb(engine) else (MYSQL_POSITION,)


def is_running(rows: list[Any]) -> bool | None:
    if len(rows) < 2 or not rows[1]:
        return None
    return bool(str(rows[1][1]).upper() == "ON")
