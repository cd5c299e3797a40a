"""One way to reach a MySQL service from Python: a pool that is opened, queried by many workers, and closed.

Each set-up is a small class over one library, known here by its name; a process of its own runs it
(`tests.real.sql_load`), so what one leaves behind, a stuck thread or a closed socket, is nobody else's. To have
another compared, write the class and put a line into `SETUPS`:

    class Mine(AsyncSetUp):
        async def open(self) -> None: self.pool = await mine.create_pool(self.where.host, self.where.port, ...)
        async def query(self, statement: str) -> int: ...
        async def close(self) -> None: ...
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

POOL_SIZE = 16
"""Of every pool that is compared, without overflow."""

SETUPS: dict[str, str] = {
    "aiomysql": "tests.real.sql_stock:Aiomysql",
    "asyncmy": "tests.real.sql_stock:Asyncmy",
    "SQLAlchemy, aiomysql": "tests.real.sql_stock:SQLAlchemyAsync",
    "SQLAlchemy, aiomysql, pre_ping": "tests.real.sql_stock:SQLAlchemyAsyncPrePing",
    "SQLAlchemy, PyMySQL": "tests.real.sql_stock:SQLAlchemySync",
    "SQLAlchemy, PyMySQL, pre_ping": "tests.real.sql_stock:SQLAlchemySyncPrePing",
    "mysql-connector": "tests.real.sql_stock:MySQLConnector",
    "DBUtils, PyMySQL": "tests.real.sql_stock:DBUtilsPyMySQL",
    "ours, aiomysql": "tests.real.sql_our_pools:OursAiomysql",
    "ours, asyncmy": "tests.real.sql_our_pools:OursAsyncmy",
    "ours, aiomysql, split": "tests.real.sql_our_pools:OursAiomysqlSplit",
    "ours, asyncmy, split": "tests.real.sql_our_pools:OursAsyncmySplit",
    "ours, PyMySQL pool": "tests.real.sql_our_pools:OursPyMySQL",
    "ours, mysql-connector": "tests.real.sql_our_pools:OursMySQLConnector",
    "ours, DBUtils": "tests.real.sql_our_pools:OursDBUtils",
    "ours, SA aiomysql": "tests.real.sql_our_sqlalchemy:Attached",
    "ours, SA asyncmy": "tests.real.sql_our_sqlalchemy:AttachedAsyncmy",
    "ours, SA PyMySQL": "tests.real.sql_our_sqlalchemy:AttachedPyMySQL",
    "ours, SA split, aiomysql": "tests.real.sql_our_sqlalchemy:ReadWriteAsync",
    "ours, SA split, PyMySQL": "tests.real.sql_our_sqlalchemy:ReadWriteBlocking",
    "ours, SA split, aiomysql, probing": "tests.real.sql_our_sqlalchemy:ReadWriteAsyncProbing",
    "ours, SA split, PyMySQL, probing": "tests.real.sql_our_sqlalchemy:ReadWriteBlockingProbing",
}
"""Where each set-up lives, `module:Class`: a process imports only the one that it runs."""


@dataclass(frozen=True)
class Where:
    """What to connect to, as plain data: it is handed to another process.

    resolver   keyword arguments for `Options` where the system's resolver does not know the names; empty: it does
    ca         path of the CA's certificate
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    size: int = POOL_SIZE
    resolver: dict[str, Any] = field(default_factory=dict)
    ca: str = ""

    @property
    def login(self) -> dict[str, Any]:
        """`host`, `port`, `user`, `password`: what every driver calls so."""
        return {"host": self.host, "port": self.port, "user": self.user, "password": self.password}


class AsyncSetUp(ABC):
    """A pool on an event loop. The errors of `query` are the library's own."""

    def __init__(self, where: Where) -> None:
        self.where = where

    @abstractmethod
    async def open(self) -> None:
        """Make the pool; connections may come with the queries."""

    @abstractmethod
    async def query(self, statement: str) -> int:
        """Check a connection out, run one statement and commit it, check it in. Returns the row's first column."""

    @abstractmethod
    async def close(self) -> None:
        """Leave nothing open."""


class BlockingSetUp(ABC):
    """The same for threads: `query` is called by many at once."""

    def __init__(self, where: Where) -> None:
        self.where = where

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def query(self, statement: str) -> int: ...

    @abstractmethod
    def close(self) -> None: ...


def make(name: str, where: Where) -> AsyncSetUp | BlockingSetUp:
    """The set-up of this name. Raises `KeyError` for an unknown one, `ImportError` without its library."""
    module, _, kind = SETUPS[name].partition(":")
    made = getattr(importlib.import_module(module), kind)(where)
    assert isinstance(made, AsyncSetUp | BlockingSetUp)
    return made
