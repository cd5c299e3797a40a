"""The cluster's DNS server, on loopback: it answers for one zone as CoreDNS does, and as badly as you want.

Names, rcodes, SRV targets and weights, SOA and TTLs follow the kubernetes plugin of CoreDNS 1.13 and the Kubernetes
DNS specification 1.1.0. Order and truncation follow its loadbalance plugin and miekg/dns, the library under it: 29
addresses fit without EDNS, 73 in 1232 bytes, 4092 over TCP, and what fits is another random part at every reply. Not
imitated: pod names (`pods disabled`), zonal names, zone transfers, DNSSEC.

A reply is rendered once per distinct query, and only shuffled, cut and given its id after that, so that the server
costs a load test next to nothing. Every edit drops what was rendered.
"""

from __future__ import annotations

import asyncio
import functools
import math
import random
import socket
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Self

import dns.rcode

from headlessconn.testing._coredns import CoreDNS
from headlessconn.testing._happenings import Change, Query, Trouble
from headlessconn.testing._records import (
    NXDOMAIN,
    Answer,
    Labels,
    Listed,
    Port,
    Service,
    is_under,
    labels_of,
    longest,
    parse_record,
    soa_record,
    whole_seconds,
)
from headlessconn.testing._reply import QR, Question, Reply
from headlessconn.testing._transports import Datagrams, Stream

__all__ = ["Change", "Listed", "Port", "Query", "Trouble", "Zone"]

# A query's bytes are the key of its rendered reply. A test asks for a few names, but cookies make endless new keys.
RENDERED_MAX = 4096


class Zone:
    """An authoritative DNS server for a cluster's zone, on 127.0.0.1, UDP and TCP on one port.

    domain: the zone.
    ttl: whole seconds, of every record that has none of its own. 5 is CoreDNS's default; kubeadm sets 30.
    seed: of the dice that shuffle the replies.
    port: 0 is any free one; it stays the same when the zone is stopped and started again.

    Services are named `"orders.shop"` (Service, namespace). A set is published whole, never as a change. Everything may
    be edited while the server runs, and works on the next reply:

        async with Zone() as zone:
            zone.headless("orders.shop", [Listed("127.0.0.2", (Port("http", 8080),))])
            with zone.trouble("orders.shop", rcode="SERVFAIL"):
                ...
            zone.freeze()                 # answers stay what they are now, the live sets go on changing
            assert zone.queries[-1].type == "A"
    """

    def __init__(self, domain: str = "cluster.local", *, ttl: float = 5, seed: int = 0, port: int = 0) -> None:
        self.domain = domain.strip(".").lower()
        self.queries: list[Query] = []
        self.changes: list[Change] = []
        self._published = CoreDNS(tuple(self.domain.split(".")), whole_seconds(ttl))
        self._dice = random.Random(seed)
        self._port = port
        self._troubles: list[Trouble] = []
        self._caching: dict[Labels, float] = {}
        self._stored: dict[tuple[Labels, int], tuple[Answer, float]] = {}
        self._rendered: dict[tuple[bytes, str], Reply] = {}
        self._socket: socket.socket | None = None  # of UDP
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._streams: set[asyncio.Transport] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._udp_closed: asyncio.Future[None] | None = None

    def __str__(self) -> str:
        return self.domain

    def __repr__(self) -> str:
        where = self.nameserver if self.is_running else "stopped"
        return f"<Zone {self.domain} at {where}, {len(self._published.services)} services, {len(self.queries)} queries>"

    # --- the server

    @property
    def is_running(self) -> bool:
        return self._udp is not None

    @property
    def nameserver(self) -> str:
        """`"127.0.0.1:PORT"`. Known once the zone was started."""
        if not self._port:
            raise RuntimeError(f"zone {self.domain} has no port yet: enter it with `async with`, or await start()")
        return f"127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return int(self.nameserver.rpartition(":")[2])

    async def start(self) -> None:
        """Listen. Does nothing when it already does."""
        if self._udp is not None:
            return
        loop = asyncio.get_running_loop()
        for attempt in range(20):  # a port that is free for TCP may be taken for UDP
            tcp = await loop.create_server(lambda: Stream(self._receive, self._streams), "127.0.0.1", self._port)
            port, closed = tcp.sockets[0].getsockname()[1], loop.create_future()
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                sock.bind(("127.0.0.1", port))
                udp, _ = await loop.create_datagram_endpoint(
                    functools.partial(Datagrams, self._receive, closed), sock=sock
                )
            except BaseException as error:
                tcp.close()
                sock.close()
                if self._port or attempt == 19 or not isinstance(error, OSError):
                    raise
            else:
                self._socket, self._udp, self._tcp, self._port, self._udp_closed = sock, udp, tcp, port, closed
                return

    async def stop(self) -> None:
        """Stop answering: the port refuses. Does nothing when stopped. Records, troubles and logs stay."""
        tcp = self._tcp
        self.kill()
        if tcp is not None and self._udp_closed is not None:
            await self._udp_closed
            await tcp.wait_closed()

    def kill(self) -> None:
        """Stop without waiting: the DNS server crashes. Works even after the loop's end."""
        udp, tcp, sock, self._udp, self._tcp, self._socket = self._udp, self._tcp, self._socket, None, None, None
        if udp is None or tcp is None or sock is None:
            return
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        tcp.close()
        try:
            for stream in list(self._streams):
                stream.abort()
            udp.abort()
        except RuntimeError:  # the loop is closed and will not close what it was given
            sock.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # --- what is published

    def namespace(self, name: str) -> None:
        """Let a namespace exist without a Service in it: `<name>.svc.<zone>` is then NODATA, not NXDOMAIN."""
        self._published.namespaces.add(name.lower())
        self._edited()

    def headless(self, service: str, listed: Iterable[Listed], *, ttl: float | None = None) -> None:
        """Publish the whole set of ready endpoints of a headless Service. An empty set is NXDOMAIN, as in a cluster."""
        self._publish(service, Service(self._keep_ttl(service, ttl), tuple(listed)))

    def cluster_ip(
        self,
        service: str,
        addresses: Iterable[str],
        ports: Iterable[Port] = (),
        listed: Iterable[Listed] = (),
        *,
        ttl: float | None = None,
    ) -> None:
        """Publish a Service with virtual addresses and its own ports. `listed` gives the per-endpoint names."""
        ours = Service(self._keep_ttl(service, ttl), tuple(listed), tuple(addresses), tuple(ports))
        self._publish(service, ours)

    def external_name(self, service: str, target: str, *, ttl: float | None = None) -> None:
        """Publish an ExternalName Service: a CNAME to `target`, with its addresses when this server knows them."""
        self._publish(service, Service(self._keep_ttl(service, ttl), external=labels_of(target)))

    def delete(self, service: str) -> None:
        """Delete the Service; its namespace stays. Does nothing when there is none."""
        key = self._key(service)
        gone = self._published.services.pop(key, None)
        if gone is not None:
            self._log_change(key, gone.listed, ())
        self._edited()

    def records(self, owner: str, *lines: str, ttl: float = 60) -> None:
        """Set the records of an absolute name, in the zone or outside: `records("*.corp.example.", "A 203.0.113.9")`.

        `*.` makes a wildcard, as the domain of a node often has one; wildcards work outside of the zone only.
        No lines: the name is gone.
        """
        labels = labels_of(owner)
        self._published.records.pop(labels, None)
        if lines:
            self._published.records[labels] = [parse_record(line, labels, whole_seconds(ttl)) for line in lines]
        self._edited()

    def serve(self, domain: str) -> None:
        """Answer NXDOMAIN, not REFUSED, for unknown names under `domain`; `"."` makes this a resolver of the world."""
        self._published.domains.add(labels_of(domain))
        self._edited()

    def set_ttl(self, ttl: float, service: str | None = None) -> None:
        """Change the TTL of one Service, or of every record that has no own. Whole seconds, 0 to 3600 in CoreDNS."""
        if service is None:
            self._published.ttl = whole_seconds(ttl)
        else:
            key = self._key(service)
            if key not in self._published.services:
                raise LookupError(f"no Service {service!r} in zone {self.domain}: publish it before setting its TTL")
            self._published.services[key] = replace(self._published.services[key], ttl=whole_seconds(ttl))
        self._edited()

    def listed(self, service: str) -> tuple[Listed, ...]:
        """The endpoints published for a Service just now; empty when there is no such Service."""
        ours = self._published.services.get(self._key(service))
        return ours.listed if ours else ()

    # --- what goes wrong

    def trouble(
        self,
        name: str | None = None,
        *,
        rcode: str | None = None,
        silent: bool = False,
        delay: float = 0.0,
        truncate: bool = False,
        wrong_id: bool = False,
        lie: Iterable[str] | None = None,
        types: Iterable[str] = (),
        transport: str | None = None,
        times: int | None = None,
    ) -> Trouble:
        """Make replies go wrong as `Trouble` describes, for `name` and every name under it, or for all names.

        `name` is a Service (`"orders.shop"`: its SRV and endpoint names too) or an absolute name with its final dot. Of
        several troubles that cover a question the newest rules. It works from this call on; a `with` ends it again.
        """
        if rcode is not None:
            dns.rcode.from_text(rcode)
        lines = None if lie is None else tuple(lie)
        for line in lines or ():
            parse_record(line, (), 0)
        trouble = Trouble(
            self._scope(name),
            *(rcode, silent, delay, truncate, wrong_id, lines),
            *(tuple(types), transport, times, self._troubles),
        )
        self._troubles.append(trouble)
        return trouble

    def freeze(self, name: str | None = None) -> None:
        """Go on giving the answers of this moment, as CoreDNS does while the API server is away, until `thaw`."""
        self._published.frozen[self._scope(name)] = dict(self._published.services)
        self._edited()

    def thaw(self, name: str | None = None) -> None:
        self._published.frozen.pop(self._scope(name), None)
        self._edited()

    def cache(self, seconds: float | None, name: str | None = None) -> None:
        """Put a cache in front: answers, negative ones too, stay for min(TTL, `seconds`) and their TTL counts down.

        `None` takes the cache away. Older kubeadm clusters have one of 30 s: there a new pod shows up to 30 s late.
        """
        scope = self._scope(name)
        self._caching.pop(scope, None)
        if seconds is None:
            self._stored = {key: held for key, held in self._stored.items() if not is_under(key[0], scope)}
        else:
            self._caching[scope] = seconds
        self._edited()

    def heal(self, name: str | None = None) -> None:
        """End every trouble, freeze and cache of `name`, or all there are."""
        scope = self._scope(name)
        for trouble in [t for t in self._troubles if is_under(t.scope, scope)]:
            trouble.end()
        self._published.frozen = {key: held for key, held in self._published.frozen.items() if not is_under(key, scope)}
        self._caching = {key: held for key, held in self._caching.items() if not is_under(key, scope)}
        self._stored = {key: held for key, held in self._stored.items() if not is_under(key[0], scope)}
        self._edited()

    # --- one query

    def _receive(self, query: bytes, transport: str, client: tuple[str, int], send: Callable[[bytes], None]) -> None:
        if len(query) < 12 or query[2] & 0x80:
            return  # not a query; answering answers would let two servers talk for ever
        now = time.monotonic()
        reply = self._rendered.get((query[2:], transport))
        if reply is None or now >= reply.fresh_until:
            question = Question.parse(query, transport)
            if isinstance(question, int):
                kept = int.from_bytes(query[2:4]) & 0x7900  # opcode, RD
                send(query[:2] + struct.pack(">HHHHH", QR | kept | question, 0, 0, 0, 0))
                return
            reply = Reply(question, *self._look_up(question, now))
            if len(self._rendered) >= RENDERED_MAX:
                self._rendered.clear()
            self._rendered[query[2:], transport] = reply
        question = reply.question
        self.queries.append(Query(now, question.text, question.type, transport, client))
        if self._troubles:
            for trouble in reversed(self._troubles):
                if trouble.covers(question.name, question.type, transport):
                    self._answer_badly(trouble, reply, query[:2], send)
                    return
        send(reply.assemble(query[:2], self._dice))

    def _answer_badly(self, trouble: Trouble, reply: Reply, ident: bytes, send: Callable[[bytes], None]) -> None:
        if trouble.times is not None:
            trouble.times -= 1
            if trouble.times <= 0:
                trouble.end()
        if trouble.silent:
            return
        question = reply.question
        if trouble.rcode is not None:
            rcode = int(dns.rcode.from_text(trouble.rcode))
            soa = [soa_record(self._published.apex, self._published.ttl)] if rcode == NXDOMAIN else []
            reply = Reply(question, Answer(rcode, rcode == NXDOMAIN, soa=soa))
        elif trouble.lie is not None:
            told = [parse_record(line, question.name, self._published.ttl) for line in trouble.lie]
            reply = Reply(question, Answer(chain=told))
        if trouble.wrong_id:
            ident = bytes(byte ^ 0x5A for byte in ident)
        wire = reply.assemble(ident, self._dice, truncate=trouble.truncate)
        if trouble.delay <= 0:
            send(wire)
            return

        def send_late() -> None:
            self._timers.discard(timer)
            send(wire)

        timer = asyncio.get_running_loop().call_later(trouble.delay, send_late)
        self._timers.add(timer)

    def _look_up(self, question: Question, now: float) -> tuple[Answer, float]:
        """The answer, and until when it may be rendered just so."""
        most = longest(self._caching, question.name)
        if most is None:
            return self._published.answer(question.name, question.rdtype), math.inf
        key = (question.name, question.rdtype)
        answer, stored_at = self._stored.get(key, (None, 0.0))
        if answer is None or now - stored_at >= min(most, answer.lifetime()):
            answer, stored_at = self._published.answer(*key), now
            self._stored[key] = answer, now
        age = int(now - stored_at)
        return answer.aged(age, int(most)), stored_at + age + 1

    # --- keeping the books

    def _key(self, service: str) -> Labels:
        labels = labels_of(service)
        if is_under(labels, ("svc", *self._published.apex)):
            labels = labels[: -len(self._published.apex) - 1]
        if len(labels) != 2 or not all(labels):
            raise ValueError(f"not a Service of zone {self.domain}: {service!r}; write it as 'orders.shop'")
        return labels

    def _scope(self, name: str | None) -> Labels:
        if name is None:
            return ()
        return labels_of(name) if name.endswith(".") else (*labels_of(name), "svc", *self._published.apex)

    def _keep_ttl(self, service: str, ttl: float | None) -> int | None:
        old = self._published.services.get(self._key(service))
        return whole_seconds(ttl) if ttl is not None else old.ttl if old else None

    def _publish(self, service: str, new: Service) -> None:
        key = self._key(service)
        old = self._published.services.get(key)
        self._published.services[key] = new
        self._published.namespaces.add(key[1])
        self._log_change(key, old.listed if old else (), new.listed)
        self._edited()

    def _log_change(self, key: Labels, old: tuple[Listed, ...], new: tuple[Listed, ...]) -> None:
        before, after = set(old), set(new)
        added, removed = tuple(one for one in new if one not in before), tuple(one for one in old if one not in after)
        if added or removed:
            self.changes.append(Change(time.monotonic(), ".".join(key), added, removed))

    def _edited(self) -> None:
        self._rendered.clear()
