"""A blocking pool of MySQL connections that notices, on the way out and in, what only one who knows MySQL can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar

from headlessconn._runtime.blocking_steps import Hooks
from headlessconn.adapters import _mysql
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.pooling import Phase, Place, PoolRules, Slot
from headlessconn.sync import Pool, Service
from headlessconn.sync.pool import Acquiring


class Connection(Protocol):
    """A library's connection as our adapters have it.

    is_alive   whether an idle one has not been closed, without asking anybody
    clean      make it fit for its next user; False when it cannot be
    cut        a thread that waits on it goes on with an error
    """

    @property
    def is_alive(self) -> bool: ...
    def clean(self) -> bool: ...
    def cut(self) -> None: ...
    def close(self) -> None: ...
    def ping(self, reconnect: Literal[False] = ...) -> object: ...


C = TypeVar("C", bound=Connection)

GONE = "closed by its server"


class MySQLPool(Pool[C], Generic[C]):
    """A `headlessconn.sync.Pool` of MySQL connections. Made by `open_pool`.

    A connection whose server has closed it is never handed out. One that comes back in a transaction is rolled back, in
    the thread that gives it back: its next user must neither see an old snapshot nor commit another's writes.
    """

    def __init__(self, service: Service, open: Callable[[Endpoint], C], rules: Mapping[str, Any]) -> None:  # noqa: A002
        hooks = Hooks(
            open,
            lambda connection: connection.close(),
            lambda connection: connection.ping(reconnect=False),
            on_silent=lambda connection: connection.cut(),
            is_lost=_mysql.is_lost,
            is_full=_mysql.is_full,
        )
        settings = PoolRules.of({"check_timeout": 1.0, **rules})
        super().__init__(service.driver, str(service.target), hooks, settings)
        service._client._pools.add(self)

    def acquire(self, timeout: float | None = inf, *, level: int = 1) -> Acquiring[C]:
        """A connection, as `with pool.acquire() as connection:`. See `headlessconn.sync.Pool.acquire`."""
        plain = super().acquire(timeout, level=level + 1)
        return _Acquiring(plain._pool, plain._timeout, plain._place)

    def release(self, connection: C, *, broken: bool = False) -> None:
        """Give back what `take` gave. `broken`: it must not be used again."""
        if id(connection) in self._taken:  # else it is another's by now
            broken = broken or not connection.clean()
        super().release(connection, broken=broken)

    def _acquired(self, place: Place, timeout: float | None) -> Slot:
        while True:
            slot = super()._acquired(place, timeout)
            if slot.connection.is_alive:
                return slot
            runner = self._runner
            assert runner is not None
            runner.broke(slot, GONE, How.RESET_REUSED)  # its pod went while it was idle


class _Acquiring(Acquiring[C]):
    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        slot, pool = self._slot, self._pool
        assert slot is not None
        assert isinstance(pool, MySQLPool)
        is_over = error is not None and (not isinstance(error, Exception) or _mysql.is_lost(error))
        if slot.phase is Phase.BUSY and not is_over and not slot.connection.clean():
            pool.discard(slot.connection)
            return
        super().__exit__(kind, error, trace)
