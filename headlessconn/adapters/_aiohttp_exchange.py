"""One aiohttp request on its connection: what its end says about the pod, and the copies sent to other pods.

A request without trouble costs nothing here but the exchange itself. In trouble (`core/attempts.py` decides) a copy of
the request goes to another pod in a task of its own, and the response that is answered first becomes the caller's: his
response object takes over the state of the winner.
"""

from __future__ import annotations

import asyncio
import copy
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ClientResponse
from aiohttp.hdrs import CONTENT_TYPE, RETRY_AFTER, UPGRADE
from aiohttp.helpers import TimerNoop
from aiohttp.payload import BytesPayload

from headlessconn.adapters._aiohttp_classes import Handler
from headlessconn.core.attempts import RETRIED, Attempts, Rules
from headlessconn.core.endpoint import How
from headlessconn.core.lane import Lane
from headlessconn.core.pick import ENDED, HURRIED, Pick

if TYPE_CHECKING:
    from headlessconn.adapters._aiohttp_dials import Dials
    from headlessconn.adapters.aiohttp import HeadlessConnector, Route

NOT_BAD = (501, 505)  # of those from 500 on: a method or version the application does not speak; the pod is well
IDEMPOTENT = frozenset(
    {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"}
)  # RFC 9110 9.2.2; aiohttp repeats these too
IDEMPOTENCY_KEY = "Idempotency-Key"  # draft-ietf-httpapi-idempotency-key-header: the server drops the second one

AGAIN = 0.25  # seconds after which a silent request is looked at again, when nothing could be done for it

_OK = How.OK


class Overtaken(Exception):
    """Raised into the reading of an answer that is not waited for any more."""


class Exchange:
    """One attempt of a request, from `connect()` to the release of its connection."""

    __slots__ = (
        "attempts",
        "connector",
        "copies",
        "dials",
        "done",
        "hedge",
        "lane",
        "limits",
        "outer",
        "pick",
        "protocol",
        "req",
        "response",
        "reused",
        "route",
    )

    protocol: Any  # these two once it has a connection
    reused: bool

    def __init__(
        self,
        connector: HeadlessConnector,
        route: Route,
        pick: Pick,
        req: ClientRequest,
        lane: Lane,
        limits: aiohttp.ClientTimeout,
    ) -> None:
        self.connector = connector
        self.route = route
        self.pick = pick
        self.req = req
        self.lane = lane
        self.limits = limits  # of its next dial
        self.outer = sys.exception()  # of a caller who is inside an `except` of his own
        self.response: ClientResponse | None = None  # once its head has come
        self.done = False  # the connection was given back
        self.attempts: Attempts | None = None  # of dials, once there is more than one
        self.dials: Dials | None = None  # from the first socket to the connection
        self.copies: Copies | None = None
        self.hedge: asyncio.Handle | None = None

    def end_dials(self) -> None:
        """It is connected, or given up."""
        if self.dials is not None:
            self.dials.end()

    def head(self, response: ClientResponse) -> None:
        """The head of the answer has come."""
        self.response = response
        status = response.status
        if status < 429:
            bad, retry_after = False, 0.0
        else:
            bad = status >= 500 and status not in NOT_BAD
            retry_after = _retry_after(response) if status == 429 or status == 503 else 0.0
        if self.done:
            self.route.driver.answered(self.pick, bad, retry_after)
            return
        self.route.driver.responded(self.pick, bad, retry_after)
        if status == 101 or response.headers.get(CONTENT_TYPE, "").startswith("text/event-stream"):
            self.route.driver.streams(self.pick)
            let_it_be_slow(self.protocol)

    def released(self) -> None:
        """aiohttp gives the connection back, or closes it."""
        self.done = True
        if not self.pick.is_listed:
            self.protocol.force_close()  # before it returns to the pool: nobody will ask for that pod again
        if self.response is not None:
            # Whatever exception is in the air may be the caller's own; what befell the body is kept with the body.
            error = self.response.content.exception()
            self.end(_OK if error is None else self.blame(error))
            return
        # aiohttp closes it in its own `except`. A caller may be inside one of his own, but that one is older.
        error = sys.exception()
        if error is not None and error is not self.outer:
            self.end(self.blame(error))
        elif self.req.response is None:
            self.end(How.CALLER)
        # Else a small answer was whole before its head was looked at: `head` is about to come, and ends it.

    def failed(self, error: BaseException) -> None:
        """The head could not be read although the connection was given back."""
        if self.done:
            self.end(self.blame(error))

    def blame(self, error: BaseException) -> How:
        """What an exception of aiohttp's says about the pod."""
        answered = self.response is not None
        match error:
            case _ if self.connector.closed:
                return How.CALLER  # it was we who cut it
            case asyncio.CancelledError() | GeneratorExit() | Overtaken():
                return How.CANCELLED
            case aiohttp.ServerTimeoutError():
                return How.TIMEOUT
            case aiohttp.ClientPayloadError():
                return How.RESET
            case aiohttp.ServerDisconnectedError() | ConnectionError() | aiohttp.ClientOSError():
                if self.protocol.is_connected():
                    return How.CALLER  # the connection stands: what failed is the body that he sends
                return How.RESET_REUSED if self.reused and not answered else How.RESET
            case aiohttp.ClientResponseError() if not answered:
                return How.BAD_STATUS  # what came is not HTTP
            case TimeoutError() if not answered:
                return How.TIMEOUT
        return How.CALLER

    def end(self, how: How) -> None:
        self.pick.holder = None
        if self.hedge is not None:
            self.hedge.cancel()
        if not self.pick.flags & ENDED:
            self.route.driver.ended(self.pick, how)

    # ---- in trouble --------------------------------------------------------------------------------------------

    def hurry_after(self, seconds: float) -> None:
        """Its time to hedge. Where the loop was late the answer may have come in the same turn: it is read first."""
        loop = asyncio.get_running_loop()

        def at_last() -> None:
            self.hedge = loop.call_soon(self.hurry)

        self.hedge = loop.call_later(seconds, at_last)

    def hurry(self) -> None:
        """The pod of this request fell silent (`Hurry`), or the time to hedge has come."""
        self.pick.flags |= HURRIED
        if self.response is not None or self.done or not may_repeat(self.req, self.protocol):
            return
        if self._is_awaited():
            if self.copies is None:
                self.copies = Copies(self)
            if self.copies.beside():
                return
        # It is still being sent, there is no other pod, or nothing left in the budget: that may change.
        if self.hedge is not None:
            self.hedge.cancel()
        self.hurry_after(AGAIN)

    def _is_awaited(self) -> bool:
        """Whether the caller is inside `start()`, which looks after copies however it ends. Before that a trace of his
        own may hold him up."""
        response: ClientResponse | None = self.req.response
        connection = None if response is None else response.connection
        return connection is not None and connection.protocol is self.protocol

    async def instead_of(self, error: BaseException, response: ClientResponse) -> ClientResponse | None:
        """The answer of another pod, where this one's exchange broke before its answer began."""
        copies, how = self.copies, self.blame(error)
        overtaken = isinstance(error, Overtaken)
        if not overtaken and (how not in (How.RESET, How.RESET_REUSED) or not may_repeat(self.req, self.protocol)):
            if copies is not None:
                copies.end()
            return None
        if copies is None:
            copies = self.copies = Copies(self)
        self.end(how)  # told at once, not when another pod has answered
        response.close()
        winner = await copies.after_break(overtaken)
        if winner is None and overtaken:
            raise aiohttp.ServerDisconnectedError(f"{self.pick.endpoint} was silent, and no other pod answered")
        return winner

    async def better_than(self, status: int) -> ClientResponse | None:
        """The answer of another pod, where this one's says that it is in trouble."""
        if status in RETRIED and may_repeat(self.req, self.protocol):
            if self.copies is None:
                self.copies = Copies(self)
            winner = await self.copies.after_bad()
            if winner is not None:
                self.end(_OK)
            return winner
        if self.copies is not None:
            self.copies.end()
        return None


class Copy(Exchange):
    """An attempt on behalf of a request whose first is in trouble. What goes wrong with it is `Copies`' to handle."""

    __slots__ = ()

    def hurry(self) -> None:
        self.pick.flags |= HURRIED
        if self.response is None and not self.done and self.copies is not None:
            self.copies.beside()

    async def instead_of(self, error: BaseException, response: ClientResponse) -> ClientResponse | None:
        return None

    async def better_than(self, status: int) -> ClientResponse | None:
        return None


class Copies:
    """What is sent to other pods on behalf of one request, each in a task of its own."""

    def __init__(self, first: Exchange) -> None:
        self._first = first
        self._params = first.protocol.headlessconn_params  # now: later its connection may serve another request
        self._driver = driver = first.route.driver
        total = first.limits.total
        rules = Rules(repeatable=True, deadline=first.pick.started_at + total if total else None)
        self._attempts = Attempts(driver.engine, rules, first.pick)
        self._attempts.went(first.pick)
        self._tasks: dict[asyncio.Task[Exchange | None], Pick] = {}
        self._winner: ClientResponse | None = None
        self._bad: ClientResponse | None = None  # its status says that another pod may do better
        self._waiting: asyncio.Future[None] | None = None  # the caller, once his own attempt is over
        self._ended = False

    def beside(self) -> bool:
        """One beside those that are silent; False when none is under way."""
        self._send(self._attempts.beside)
        if self._tasks and self._waiting is None and self._first.connector.is_full:
            self._overtake()  # the copy would wait for the very place that the silent attempt holds
        return bool(self._tasks)

    async def after_break(self, overtaken: bool) -> ClientResponse | None:
        """What comes instead of the first attempt, which is over."""
        if not overtaken:
            self._send(partial(self._attempts.after_break, self._first.pick))
        return await self._result()

    async def after_bad(self) -> ClientResponse | None:
        if self._winner is None and self._has_room(self._first):
            self._send(partial(self._attempts.after_bad, self._first.pick))
        return await self._result()

    def end(self) -> None:
        """Nobody waits for them any more."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        for response in (self._winner, self._bad):
            if response is not None:
                response.close()
        self._winner = self._bad = None

    async def _result(self) -> ClientResponse | None:
        try:
            if self._winner is None and self._tasks:
                self._waiting = asyncio.get_running_loop().create_future()
                await self._waiting
            found, self._winner = self._winner, None
            if found is None:  # asked so, since a response's truth may be its class's own
                found, self._bad = self._bad, None
            return found
        finally:
            self.end()

    def _has_room(self, answered: Exchange) -> bool:
        """Whether a copy can get a connection while this bad answer is kept in reserve."""
        return answered.done or not self._first.connector.is_full

    def _overtake(self) -> None:
        self._first.protocol.set_exception(Overtaken())

    def _send(self, question: Callable[[float], Pick | None]) -> None:
        pick = self._driver.further(question)
        if pick is not None:
            task = asyncio.ensure_future(self._exchange(pick))
            self._tasks[task] = pick
            self._first.connector.keep(task)
            task.add_done_callback(self._came)

    def _came(self, task: asyncio.Task[Exchange | None]) -> None:
        pick = self._tasks.pop(task)
        if task.cancelled() and not pick.flags & ENDED:  # before its first step
            self._driver.ended(pick, How.CANCELLED)
        exchange = None if task.cancelled() or task.exception() is not None else task.result()
        if exchange is not None and exchange.response is not None:
            self._answered(exchange, exchange.response)
        waiting = self._waiting
        if waiting is not None and not waiting.done() and (self._winner is not None or not self._tasks):
            waiting.set_result(None)

    def _answered(self, exchange: Exchange, response: ClientResponse) -> None:
        if self._ended or self._winner is not None:
            response.close()
        elif response.status in RETRIED:
            if self._bad is not None:
                self._bad.close()
            self._bad = response
            if self._has_room(exchange):
                self._send(partial(self._attempts.after_bad, exchange.pick))
        else:
            self._winner = response
            self._attempts.won(exchange.pick)
            for other in self._tasks:
                other.cancel()
            if self._waiting is None:
                self._overtake()

    async def _exchange(self, pick: Pick) -> Exchange | None:
        """An exchange with another pod, to the head of its answer; None when it broke."""
        first = self._first
        original = first.req
        req = copy.copy(original)
        req.__dict__.pop("_ClientRequest__writer", None)  # the first attempt's, which may still be writing
        req.response = None
        req._upload_tracker = None  # its figures are the first attempt's
        req._timer = TimerNoop()  # aiohttp's belongs to the caller's task, which ends this one
        req._traces = []  # they are told of the caller's request
        exchange = Copy(first.connector, first.route, pick, req, first.lane, first.limits)
        exchange.copies = self
        connection = await first.connector.connect_copy(exchange, self._attempts)
        try:
            connection.protocol.set_response_params(**self._params)  # type: ignore[union-attr]
            response = await req.send(connection)
            try:
                await response.start(connection)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            connection.close()
            if not self._ended:
                self._send(partial(self._attempts.after_break, exchange.pick))
            return None
        except BaseException:
            connection.close()
            raise
        response._timer, response._traces = original._timer, original._traces
        return exchange


def may_repeat(req: ClientRequest, protocol: Any) -> bool:
    """Whether it may be sent twice: an idempotent method or key, and a body that is still whole after it was sent."""
    return (
        type(protocol) is Handler
        and (req.method in IDEMPOTENT or IDEMPOTENCY_KEY in req.headers)
        and (not req.body or isinstance(req.body, BytesPayload))
        and req._continue is None
        and UPGRADE not in req.headers  # it may become a conversation, of which there is to be one
    )


def let_it_be_slow(protocol: Any) -> None:
    """A stream's peer may read slowly: lift the kernel's limit for unacknowledged bytes; keep-alive stays on."""
    sock = protocol.transport and protocol.transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def _retry_after(response: ClientResponse) -> float:
    """Seconds, of the form that has them; dates are rare, and need the pod's clock to be ours."""
    text = response.headers.get(RETRY_AFTER, "")
    if text.isdecimal() and len(text) < 10:
        return float(text)
    return 1.0 if response.status == 429 else 0.0  # too many requests for it are reason enough to send it fewer
