"""Opens connections of aiomysql and asyncmy to the pods of a Service, and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from headlessconn import errors
from headlessconn.adapters._mysql_hosts import CONNECT_TIMEOUT, name_to_verify
from headlessconn.adapters._mysql_sockets import notice_vanished
from headlessconn.adapters._tls import PinnedContext, context_of
from headlessconn.client import Service
from headlessconn.core.endpoint import Endpoint
from headlessconn.core.pooling import PoolRules

GOODBYE = 1.0  # seconds for COM_QUIT to be sent; then the socket is closed without

_RULES = frozenset(PoolRules.__dataclass_fields__)


@dataclass(frozen=True)
class Library:
    """What is different between the two.

    connect         `await connect(**arguments)`; cleans up when it is cancelled
    stock           its own `create_pool`
    transport       of a connection, or None when it is closed
    is_dead         whether a connection that is idle has been closed by either side, without asking anybody
    is_open         whether the library has not closed it
    error           its `OperationalError`
    no_connection   of our error, one that is the library's too
    """

    name: str
    connect: Callable[..., Awaitable[Any]]
    stock: Callable[..., Awaitable[Any]]
    transport: Callable[[Any], asyncio.Transport | None]
    is_dead: Callable[[Any], bool]
    is_open: Callable[[Any], bool]
    error: type[Exception]
    no_connection: Callable[[errors.HeadlessError], Exception]


Greet: TypeAlias = Callable[[Endpoint, Any], Awaitable[None]]
"""Called with each new connection; what it raises means that this one will not do."""

Failed: TypeAlias = Callable[[Endpoint, BaseException], None]


def split(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of `PoolRules`, and those of the library."""
    rules = {name: value for name, value in settings.items() if name in _RULES}
    return rules, {name: value for name, value in settings.items() if name not in _RULES}


class Opener:
    """Opens connections to the pods of one service, and closes them."""

    def __init__(
        self,
        library: Library,
        service: Service,
        server_hostname: str | None,
        arguments: dict[str, Any],
        greet: Greet | None = None,
        failed: Failed | None = None,
    ) -> None:
        self._library = library
        self._greet = greet
        self._failed = failed
        self._arguments = dict(arguments)
        self._arguments.setdefault("connect_timeout", CONNECT_TIMEOUT)
        context = context_of(self._arguments.pop("ssl", None))
        name = name_to_verify(service.target, server_hostname, context is not None)
        if context is not None:
            self._arguments["ssl"] = PinnedContext(context, name)
        self._has_tls = context is not None

    async def open(self, endpoint: Endpoint) -> Any:
        """Connect to this pod and log in."""
        try:
            return await self._opened(endpoint)
        except BaseException as error:
            if self._failed is not None:
                self._failed(endpoint, error)
            raise

    async def _opened(self, endpoint: Endpoint) -> Any:
        connection = await self._library.connect(host=endpoint.address, port=endpoint.port, **self._arguments)
        transport = self._library.transport(connection)
        try:
            if transport is None:
                raise self._library.error(2013, f"{endpoint} hung up after the login")
            self._examine(endpoint, transport)
            if self._greet is not None:
                await self._greet(endpoint, connection)
        except BaseException:
            connection.close()
            if transport is not None:
                transport.abort()
            raise
        return connection

    def _examine(self, endpoint: Endpoint, transport: asyncio.Transport) -> None:
        if self._has_tls and transport.get_extra_info("ssl_object") is None:  # aiomysql goes on without
            raise self._library.error(2026, f"{endpoint} offers no TLS, though ssl= asks for it")
        peer = transport.get_extra_info("peername")
        if peer is None or peer[0] != endpoint.address:
            raise errors.OptionError("read_default_file", f"it leads to {peer}, not to {endpoint}", "one without host")
        sock = transport.get_extra_info("socket")
        if sock is not None:
            notice_vanished(sock, sends_files=bool(self._arguments.get("local_infile")))

    async def close(self, connection: Any) -> None:
        """Say goodbye, if anybody may hear it, and close."""
        transport = self._library.transport(connection)
        try:
            if not self._library.is_dead(connection):
                async with asyncio.timeout(GOODBYE):
                    await connection.ensure_closed()
        finally:
            connection.close()
            if transport is not None:
                transport.abort()  # else TLS would wait for the other side's goodbye: asyncio for 30 s

    async def check(self, connection: Any) -> bool:
        await connection.ping(reconnect=False)
        return True

    async def clean(self, connection: Any) -> None:
        """For whoever has it next. Without autocommit a mere SELECT begins a transaction, of which the status that
        aiomysql knows says nothing: the next reader would see what the last one saw."""
        if connection.get_transaction_status() or not connection.get_autocommit():
            await connection.rollback()

    def cut(self, connection: Any) -> None:
        """Its pod has vanished: whoever waits on it gets 2013."""
        transport = self._library.transport(connection)
        if transport is not None:
            transport.abort()
