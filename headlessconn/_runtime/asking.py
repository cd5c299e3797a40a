"""One question to several servers: UDP and then TCP, in rounds, and what their replies are worth.

How bytes travel and how one waits is left open: `dns.py` does it on an event loop, `blocking_dns.py` in a thread.
tenacity spaces the tries *inside* one question; when to look up again is the engine's business.
"""

from __future__ import annotations

import itertools
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable

import dns.exception
import dns.message
from cachetools import LRUCache
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headlessconn._runtime import wire
from headlessconn._runtime.resolvconf import ResolvConf, Server
from headlessconn.core.lookup import Question, Reply
from headlessconn.options import Options

PAYLOAD = 1232  # bytes offered by EDNS: fits every path without fragments (DNS flag day 2020), 73 A records
TRY_TIMEOUT = 1.0  # seconds for one server over UDP; CoreDNS on the node answers in a millisecond
ROUNDS = 2  # tries of each server
BACKOFF = 0.05  # seconds, doubled and fully jittered: a restarted CoreDNS is back after 0.3 s
BACKOFF_MAX = 0.4
LARGEST = 65535  # bytes of a message


class ServerTrouble(Exception):
    """One server did not answer the question; another may. `why` goes into the answer: "timeout", "SERVFAIL" …"""

    def __init__(self, why: str, server: Server) -> None:
        super().__init__(why, server)
        self.why, self.server = why, server

    def __str__(self) -> str:
        return f"{self.why} from {self.server}"


class Asking(ABC):
    """Asks the servers of one client. Remembers the server that answered last, and which questions need TCP."""

    def __init__(self, options: Options) -> None:
        self.conf = ResolvConf(options)
        self.queries = 0
        self._options = options
        self._first = 0  # index of the server to begin with: the one that answered last, or after one that failed
        self._queries: LRUCache[Question, bytes] = LRUCache(4096)
        self._by_tcp: LRUCache[Question, bool] = LRUCache(4096)

    @abstractmethod
    async def _udp(self, server: Server, query: bytes, asked: bytes) -> bytes:
        """The reply by UDP, or `TimeoutError`. Datagrams for which `is_forgery` are passed over."""

    @abstractmethod
    async def _tcp(self, server: Server, query: bytes) -> bytes:
        """The reply by TCP, or `TimeoutError`; `EOFError` when the server hangs up."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Wait between two tries."""

    @abstractmethod
    async def _turn(self) -> None:
        """Let the others have their turn: a reply of a thousand records is read in slices."""

    async def ask(self, question: Question) -> Reply:
        """The reply of the first server that gives one; after all tries a `Reply` whose rcode says what went wrong."""
        try:
            query = self._query(question)
        except dns.exception.DNSException as error:  # a search domain that is no name, a label too long …
            return Reply(f"{question.name!r} cannot be asked: {error}")
        servers = self.conf.setting().servers
        retrying = AsyncRetrying(
            sleep=self._sleep,
            stop=stop_after_attempt(ROUNDS * len(servers)),
            wait=_between_rounds(len(servers)),
            retry=retry_if_exception_type(ServerTrouble),
            reraise=True,
        )
        order = itertools.count(self._first)

        async def next_server() -> Reply:
            index = next(order) % len(servers)
            try:
                reply = await self._try(servers[index], question, query)
            except BaseException:
                # Also when the look-up's own deadline ends us: else a silent first server could use up every one.
                self._first = index + 1
                raise
            self._first = index
            return reply

        try:
            return await retrying(next_server)
        except ServerTrouble as trouble:
            return Reply(trouble.why)

    async def _try(self, server: Server, question: Question, query: bytes) -> Reply:
        query = os.urandom(2) + query[2:]
        asked = wire.question_of(query)
        try:
            data = None
            transport = "tcp"
            if question not in self._by_tcp:
                data, transport = await self._udp(server, query, asked), "udp"
                if wire.check(data, query, asked):
                    data, transport = None, "tcp"  # truncated: from now on TCP at once, without the UDP round
            if data is None:
                # Only TCP that works is remembered: where it does not, UDP must be heard when the set fits in again.
                self._by_tcp.pop(question, None)
                data = await self._tcp(server, query)
                wire.check(data, query, asked)
            reply = await self._read(data, question, len(asked), transport)
        except TimeoutError:
            raise ServerTrouble("timeout", server) from None
        except ConnectionRefusedError:
            raise ServerTrouble("connection refused", server) from None
        except wire.Unexpected:
            raise ServerTrouble("the reply to another question", server) from None
        except wire.Malformed as problem:
            raise ServerTrouble(f"a malformed reply: {problem}", server) from None
        except EOFError:
            raise ServerTrouble("connection closed", server) from None
        except OSError as error:
            raise ServerTrouble(os.strerror(error.errno) if error.errno else str(error), server) from error
        if reply.rcode not in ("NOERROR", "NXDOMAIN"):
            raise ServerTrouble(reply.rcode, server)
        if transport == "tcp":
            self._by_tcp[question] = True
        return reply

    async def _read(self, data: bytes, question: Question, size: int, transport: str) -> Reply:
        walk = wire.read(data, question, size, transport)
        while True:
            try:
                next(walk)
            except StopIteration as done:
                reply: Reply = done.value
                return reply
            await self._turn()

    def _query(self, question: Question) -> bytes:
        found = self._queries.get(question)
        if found is None:
            message = dns.message.make_query(question.name, question.type)
            message.use_edns(0, 0, PAYLOAD)
            found = self._queries[question] = message.to_wire()
        return found


def is_forgery(data: bytes, query: bytes, asked: bytes) -> bool:
    """Whether a datagram is a forgery, or a late reply to somebody else: the real one may still come.

    Raises `Malformed` or `Unexpected` for what our server sent garbled: no use in waiting for more.
    """
    try:
        wire.check(data, query, asked)
    except (wire.Unexpected, wire.Malformed):
        if data[:2] == query[:2] and len(data) < wire.HEADER + len(asked):
            raise
        return True
    return False


def socket_for(server: Server, kind: socket.SocketKind) -> socket.socket:
    """A non-blocking socket of the server's family.

    It is to be connected, also for UDP: the kernel then drops what others send, and a server whose port is closed is
    known at once instead of after a time-out.
    """
    family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    return sock


def _between_rounds(servers: int) -> Callable[..., float]:
    """No wait before another server; a jittered one before the same again."""
    again = wait_random_exponential(multiplier=BACKOFF, max=BACKOFF_MAX)
    return lambda state: 0.0 if state.attempt_number % servers else again(state)
