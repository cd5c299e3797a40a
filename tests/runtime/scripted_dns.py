"""A DNS server that does as the test says, byte by byte, over real sockets: what `Zone` is too well-behaved for."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from headlessconn._runtime.dns import Resolver
from headlessconn._runtime.source import DnsSource
from headlessconn.core.endpoint import Answer, address_of, port_of
from headlessconn.core.target import Target
from headlessconn.options import Options

WEB = "web.shop.svc.cluster.local."
PODS = ("10.244.1.1", "10.244.1.2", "10.244.1.3")
SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
SOA = "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"


class Asked(NamedTuple):
    """One query as it came: `wire` is all of it; `client` is the address it came from."""

    name: str
    type: str
    transport: str
    wire: bytes
    client: tuple[str, int]

    @property
    def text(self) -> str:
        return f"{self.name} {self.type} {self.transport}"


Datagrams = Sequence[bytes]
OnTcp = Callable[[Asked, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def reply(
    query: bytes,
    answer: Sequence[str] = (),
    authority: Sequence[str] = (),
    additional: Sequence[str] = (),
    *,
    rcode: str = "NOERROR",
    truncated: bool = False,
    authoritative: bool = True,
) -> bytes:
    """The reply to `query`, its sections as lines of a master file."""
    asked = dns.message.from_wire(query)
    message = dns.message.make_response(asked, our_payload=1232)
    if authoritative:
        message.flags |= dns.flags.AA
    message.set_rcode(dns.rcode.from_text(rcode))
    if truncated:
        message.flags |= dns.flags.TC
    for section, lines in ((message.answer, answer), (message.authority, authority), (message.additional, additional)):
        section.extend(_rrsets(lines))
    return message.to_wire(max_size=65535)


def addresses(name: str, found: Sequence[str] = PODS, ttl: int = 5) -> list[str]:
    return [f"{name} {ttl} IN {'AAAA' if ':' in address else 'A'} {address}" for address in found]


def framed(data: bytes) -> bytes:
    """As TCP carries it: its length first."""
    return len(data).to_bytes(2, "big") + data


def _rrsets(lines: Sequence[str]) -> list[dns.rrset.RRset]:
    """One RRset a line: the order of the lines is the order on the wire."""
    found = []
    for line in lines:
        owner, ttl, cls, kind, rdata = line.split(None, 4)
        found.append(dns.rrset.from_text(owner, int(ttl), cls, kind, rdata))
    return found


class Scripted:
    """`on_udp` gives the datagrams that answer a query (none is silence). TCP carries the first of them, unless
    `on_tcp` takes the connection over; `tcp=False` leaves the TCP port closed.

        async with Scripted(lambda asked: [reply(asked.wire, addresses(asked.name))]) as server:
            answer = await look_up("web.shop:80", server)
            assert [asked.text for asked in server.asked] == [...]
    """

    def __init__(
        self, on_udp: Callable[[Asked], Datagrams] = lambda asked: (), on_tcp: OnTcp | None = None, *, tcp: bool = True
    ) -> None:
        self.asked: list[Asked] = []
        self.on_udp = on_udp
        self._on_tcp = on_tcp
        self._with_tcp = tcp
        self._tcp: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []
        self._udp: asyncio.DatagramTransport
        self.port = 0

    @property
    def nameserver(self) -> str:
        return f"127.0.0.1:{self.port}"

    def texts(self) -> list[str]:
        return [asked.text for asked in self.asked]

    async def more(self, count: int) -> None:
        """Wait until it was asked so many times more."""
        heard = asyncio.get_running_loop().create_future()
        self._awaited.append((len(self.asked) + count, heard))
        await heard

    def send(self, datagram: bytes, client: tuple[str, int]) -> None:
        """One datagram more, unasked."""
        self._udp.sendto(datagram, client)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        while True:
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
            try:
                if self._with_tcp:
                    self._tcp = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            except OSError:  # that number is taken on the TCP side
                sock.close()
                continue
            sock.setblocking(False)
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=sock)
            return self

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await asyncio.sleep(0)  # the transports close in the next turn of the loop

    def note(self, query: bytes, transport: str, client: tuple[str, int]) -> Asked:
        question = dns.message.from_wire(query).question[0]
        asked = Asked(str(question.name), dns.rdatatype.to_text(question.rdtype), transport, query, client)
        self.asked.append(asked)
        for count, heard in self._awaited:
            if len(self.asked) >= count and not heard.done():
                heard.set_result(None)
        return asked

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            asked = self.note(query, "tcp", writer.get_extra_info("peername"))
            if self._on_tcp is not None:
                await self._on_tcp(asked, reader, writer)
            else:
                for data in self.on_udp(asked)[:1]:
                    writer.write(framed(data))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # whoever asked has gone, or the test is over
        finally:
            self._serving.discard(task)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: Scripted) -> None:
        self._server = server

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        for datagram in self._server.on_udp(self._server.note(data, "udp", client)):
            self._server.send(datagram, client)


def settings(*servers: Scripted | str, **more: object) -> Options:
    """Options for these servers, with the search list of a pod in the namespace `shop`."""
    nameservers = tuple(server if isinstance(server, str) else server.nameserver for server in servers)
    return Options.of(None, {"nameservers": nameservers, "search": SEARCH, "ndots": 5, "lookup_timeout": 30.0} | more)


def source(target: str, options: Options, resolver: Resolver | None = None) -> DnsSource:
    """What looks a target up; its memory lives as long as it does."""
    loop = asyncio.get_running_loop()
    return DnsSource(Target.parse(target), options, resolver or Resolver(options), loop.time)


async def look_up(target: str, *servers: Scripted | str, **more: object) -> Answer:
    """One look-up by a client that knows nothing yet."""
    return await source(target, settings(*servers, **more)).look_up()


def endpoints(answer: Answer) -> list[str]:
    """`10.244.1.1:80`, sorted."""
    return sorted(f"{address_of(key)}:{port_of(key)}" for key in answer.keys)
