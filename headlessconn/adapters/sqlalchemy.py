"""SQLAlchemy: engines whose connections follow the pods of a headless Service.

    engine = create_async_engine("mysql+aiomysql://app:secret@mysql-read.data/shop")
    attach(engine, client.service("mysql-read.data:3306"))

The pool stays SQLAlchemy's; what dials, judges and retires its connections are SQLAlchemy's own documented events.
With PyMySQL (`create_engine`, threads), aiomysql and asyncmy (`create_async_engine`).
"""

from __future__ import annotations

import os
from functools import partial
from typing import TypeAlias

try:
    from sqlalchemy import Engine
    from sqlalchemy.ext.asyncio import AsyncEngine
except ImportError as missing:  # pragma: no cover
    raise ImportError(
        "headlessconn.adapters.sqlalchemy needs SQLAlchemy: pip install 'headlessconn[sqlalchemy]'"
    ) from missing

from headlessconn import client, errors, sync
from headlessconn.adapters import _sqlalchemy_dial
from headlessconn.adapters._mysql_hosts import OPTIONS, with_port
from headlessconn.adapters._sqlalchemy_async import AsyncHooks, AsyncOpener
from headlessconn.adapters._sqlalchemy_blocking import BlockingHooks, BlockingOpener
from headlessconn.adapters._sqlalchemy_dial import AnyPod, Line, dialling
from headlessconn.adapters._sqlalchemy_errors import NoEndpoints, NoPrimary
from headlessconn.adapters._sqlalchemy_readwrite import ReadWrite
from headlessconn.adapters._sqlalchemy_readwrite_blocking import BlockingReadWrite
from headlessconn.core.endpoint import Endpoint
from headlessconn.core.probing import SILENT_AFTER
from headlessconn.core.target import Target
from headlessconn.core.writes import Token
from headlessconn.errors import OptionError

OFF = ("off", "0", "false", "no")
OPEN_TIMEOUT = 10.0  # seconds; what MySQL's own `connect_timeout` gives a client to log in

AnyService: TypeAlias = client.Service | sync.Service


def attach(
    engine: Engine | AsyncEngine,
    service: AnyService | str | None = None,
    *,
    server_hostname: str | None = None,
    silent_after: float = SILENT_AFTER,
    open_timeout: float = OPEN_TIMEOUT,
) -> Attached:
    """Have the connections of an engine follow the pods of a Service, from now on.

        engine = create_engine("mysql+pymysql://app:secret@mysql-read.data/shop", pool_size=10)
        attach(engine, client.service("mysql-read.data:3306"))  # client = headlessconn.sync.Client()

    New pods get their share of the connections: a surplus connection is closed at its check-in, and the pool dials
    another one instead. A pod that leaves gets no new work, and loses its connections as they come back. A connection
    in a transaction is never touched. One that has ended, or whose pod does not answer any more, is replaced before
    somebody gets it. One lost connection is one lost connection: the pool is not thrown away for it.

    service          of a `headlessconn.sync.Client` for an `Engine`, of a `headlessconn.Client` for an `AsyncEngine`;
                     or a target, `mysql-read.data:3306`, for a client of its own; by default the engine's URL names it
    server_hostname  the name that certificates must be for, if TLS is on (`connect_args={"ssl": context}`): by default
                     the Service's, as the target has it
    silent_after     seconds, and three times as long as usual, for which a connection may be out until its pod is asked
                     for a TCP connection. A pod that twice gives none is dead: whoever waits on it gets his error 2013
    open_timeout     seconds for TCP, TLS and login together

    With the environment's `HEADLESSCONN=off` nothing is attached, and the engine dials what its URL names.

    Attach before the engine is used first. Leave `pool_pre_ping` off: it does nothing that is not done here, costs a
    round trip a check-out, and throws away the pool for one dead connection. Raises `OptionError` for an engine whose
    driver is another one; `TargetError`.
    """
    is_async = isinstance(engine, AsyncEngine)
    core = engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    _check_driver(core, is_async)
    found, owned = _service_of(core, service, is_async)
    name = server_hostname or found.target.host or core.url.host or ""
    line = Line(str(found.target), found.driver, core.dialect.loaded_dbapi.OperationalError)
    dials = partial(_dialling, line)
    hooks: AsyncHooks | BlockingHooks
    if isinstance(found, client.Service):
        opener = AsyncOpener(core.driver, line.error, name, open_timeout, found._client.options.connect_timeout)
        hooks = AsyncHooks(core, line, opener, dials, silent_after=silent_after)
    else:
        patience = found._client.options.connect_timeout
        opening = BlockingOpener(core.dialect.loaded_dbapi, name, open_timeout, patience)
        hooks = BlockingHooks(core, line, opening, dials, silent_after=silent_after)
    attached = Attached(hooks, found, owned)
    if os.environ.get("HEADLESSCONN", "").lower() in OFF:
        attached.detach()
    return attached


class Attached:
    """An engine that follows the pods. Made by `attach`.

    service   whose pods these are: `attached.service.explain()`
    """

    def __init__(
        self, hooks: AsyncHooks | BlockingHooks, service: AnyService, owned: client.Client | sync.Client | None
    ) -> None:
        self.service = service
        self._hooks = hooks
        self._owned = owned

    @property
    def connections(self) -> dict[Endpoint, int]:
        """How many connections the pool has to each pod at this moment."""
        found: dict[Endpoint, int] = {}
        for held in self._hooks.all_held():
            found[held.endpoint] = found.get(held.endpoint, 0) + 1
        return found

    def detach(self) -> None:
        """Let the engine go on as the plain library has it; its connections are not followed any more. A client that
        `attach` has made is closed, if it is one for threads."""
        self._hooks.unhook()
        if isinstance(self._owned, sync.Client):
            self._owned.close()

    async def aclose(self) -> None:
        """`detach`, and close a client that `attach` has made."""
        self.detach()
        if isinstance(self._owned, client.Client):
            await self._owned.aclose()

    def __repr__(self) -> str:
        each = ", ".join(f"{count} to {endpoint}" for endpoint, count in self.connections.items())
        return f"<{self.service.target}: {each or 'no connections'}>"


def _dialling(line: Line) -> _sqlalchemy_dial.Dialling:
    try:
        return (yield from dialling(line, AnyPod()))
    except errors.NoEndpoints as error:
        raise NoEndpoints(error) from error


def _check_driver(engine: Engine, is_async: bool) -> None:
    known = ("aiomysql", "asyncmy") if is_async else ("pymysql",)
    if engine.driver not in known:
        raise OptionError(
            "engine",
            f"its driver is {engine.driver}, whose connections cannot be led to a pod here (known: {', '.join(known)})",
            f"create_{'async_' * is_async}engine('mysql+{known[0]}://…')",
        )


def _service_of(
    engine: Engine, service: AnyService | str | None, is_async: bool
) -> tuple[AnyService, client.Client | sync.Client | None]:
    """The service, and the client that had to be made for it."""
    if isinstance(service, client.Service | sync.Service):
        if isinstance(service, client.Service) is not is_async:
            kinds = ("headlessconn.Client", "AsyncEngine") if is_async else ("headlessconn.sync.Client", "Engine")
            raise OptionError(
                "service", "an Engine needs one for threads, an AsyncEngine one for a loop",
                f"{kinds[0]}().service('{service.target}') for an {kinds[1]}",
            )  # fmt: skip
        return service, None
    if service is None:
        service = f"{engine.url.host}:{engine.url.port}" if engine.url.port else str(engine.url.host)
    target = with_port(Target.parse(service))
    made: client.Client | sync.Client = client.Client(OPTIONS) if is_async else sync.Client(OPTIONS)
    return made.service(target), made


__all__ = ["Attached", "BlockingReadWrite", "NoEndpoints", "NoPrimary", "ReadWrite", "Token", "attach"]
