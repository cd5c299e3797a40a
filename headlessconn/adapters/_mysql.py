"""What MySQL and MariaDB say: error numbers, roles, positions. For every adapter that speaks to them.

Numbers are those of mysqld_error.h and MariaDB's errmsg; libraries raise them as `Error(number, text)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headlessconn._runtime import faults
from headlessconn.core.endpoint import How
from headlessconn.core.pooling import Fault

# The connection is gone: 1053 server shutdown, 1079 shutdown complete, 1080 forced close, 1152 aborted, 1927 killed,
# 2006 gone away, 2013 lost in a query, 2055 lost while reading, 3169 killed session, 4031 closed for inactivity.
LOST = frozenset({1053, 1079, 1080, 1152, 1927, 2006, 2013, 2055, 3169, 4031})
# No room for one more connection here: 1040 in all, 1203 and 1226 of this user, 1135 no thread for it.
FULL = frozenset({1040, 1135, 1203, 1226})
CANNOT_CONNECT = 2003
READ_ONLY_OPTION = 1290  # "running with the --read-only option", but also with other options that forbid a statement
READ_ONLY_MODE = 1836
READ_ONLY_TRANSACTION = 1792  # also of a transaction that was begun READ ONLY on purpose

ROLE = "SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only, @@version"
"""Asked of each new connection where the role matters: one round trip. `super_read_only` implies `read_only`."""


def code_of(error: BaseException | None) -> int:
    """The server's or the driver's number of an error; 0 when it has none."""
    if error is None or not error.args:
        return 0
    code = error.args[0]
    return code if isinstance(code, int) else 0


def is_lost(error: BaseException) -> bool | None:
    """Whether an error says that the connection is gone; None when the built-in errors in its chain must tell."""
    return True if code_of(error) in LOST else None


def is_full(error: BaseException) -> bool:
    return code_of(error) in FULL


def of_opening(error: BaseException) -> tuple[Fault, How]:
    """Why there is no connection to a pod, and what its engine is told."""
    return faults.of_opening(error, is_lost, is_full)


def of_using(error: BaseException) -> How:
    """What a lost connection says of its pod."""
    why, how = faults.of_using(error, is_lost)
    return how if why else How.OK


def refuses_writes(error: BaseException) -> bool | None:
    """Whether an error says that its server takes no writes; None: ask it, the error may have another cause."""
    code = code_of(error)
    if code == READ_ONLY_OPTION:
        text = str(error.args[1]) if len(error.args) > 1 else ""
        return "read-only" in text.lower() or "read_only" in text.lower()
    if code == READ_ONLY_TRANSACTION:
        return None
    return code == READ_ONLY_MODE


def is_writable(row: Sequence[Any]) -> bool:
    """What the answer to `ROLE` says. Newer MariaDBs spell `read_only` as OFF, ON, NO_LOCK, NO_LOCK_NO_ADMIN."""
    return all(str(value).upper() in ("0", "OFF") for value in row[:2])


def is_mariadb(row: Sequence[Any]) -> bool:
    return "mariadb" in str(row[2]).lower()


def said(error: BaseException) -> str:
    """An error in a few words: `1045 Access denied for user 'app'@'10.0.0.7'`."""
    if code_of(error) and len(error.args) > 1:
        return f"{error.args[0]} {error.args[1]}"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
