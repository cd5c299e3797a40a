"""aiohttp's own classes with what we add: to its protocol a memory, to its response a step when the head has come."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientResponse
from aiohttp.connector import Connection

from headlessconn.core.attempts import RETRIED

if TYPE_CHECKING:
    from headlessconn.adapters._aiohttp_exchange import Exchange


_read_as = ResponseHandler.set_response_params  # found once: `super()` costs 0.4 µs more, of which each request has one


class Handler(ResponseHandler):
    """aiohttp's protocol, which remembers how its answers are to be read: a copy's are read the same way."""

    headlessconn_params: dict[str, Any]

    def set_response_params(self, **params: Any) -> None:
        self.headlessconn_params = params
        _read_as(self, **params)


def was_used(protocol: Any) -> bool:
    """Whether it has carried a request of ours before."""
    return type(protocol) is Handler or hasattr(protocol, "headlessconn_used")


def now_used(protocol: Any) -> bool:
    """The same; and it will have from now on."""
    if was_used(protocol):
        return True
    if type(protocol) is ResponseHandler:
        protocol.__class__ = Handler  # a subclass without slots: the same layout
    else:
        protocol.headlessconn_used = True
    return False


def has_hung_up(protocol: Any) -> bool:
    """Whether the pod has closed a kept connection and the loop has not got round to noticing.

    A pod that closes its idle connections at SIGTERM would lose each request that is sent in that gap; those that may
    not be sent twice are worth a system call.
    """
    if not was_used(protocol) or not hasattr(select, "poll"):
        return False
    if protocol.transport is None:
        return True
    waiting = select.poll()
    waiting.register(protocol.transport.get_extra_info("socket"), getattr(select, "POLLRDHUP", select.POLLIN))
    return bool(waiting.poll(0))


class Watching:
    """What a watched response class adds to the one it derives from."""

    async def start(self, connection: Connection) -> ClientResponse:
        exchange: Exchange | None = getattr(connection, "headlessconn_exchange", None)
        if exchange is None:
            return await super().start(connection)  # type: ignore[misc, no-any-return]
        response: ClientResponse = self  # type: ignore[assignment]
        try:
            await super().start(connection)  # type: ignore[misc]
        except BaseException as error:
            exchange.failed(error)
            winner = await exchange.instead_of(error, response)
            if winner is None:
                raise
            adopt(response, winner)
            return response
        exchange.head(response)
        if response.status in RETRIED or exchange.copies is not None:
            winner = await exchange.better_than(response.status)
            if winner is not None:
                adopt(response, winner)
        return response


_watched: dict[type[ClientResponse], type[ClientResponse]] = {}


def watched(cls: type[ClientResponse]) -> type[ClientResponse]:
    """The session's response class with our step in `start()`; made once for each."""
    found = _watched.get(cls)
    if found is None:
        if issubclass(cls, Watching):
            return cls
        found = type(cls.__name__, (Watching, cls), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
        _watched[cls] = found
    return found


def adopt(response: ClientResponse, winner: ClientResponse) -> None:
    """The caller's response object becomes the winner: both share one state from now on, so that what aiohttp tells the
    one at the end of the body holds for the other. The winner's own object lives as long as its connection, whose
    exchange has it, and so is not taken for one that was dropped unread."""
    loser = object.__new__(type(response))
    loser.__dict__ = response.__dict__
    response.__dict__ = winner.__dict__
    loser.close()
