"""DNS records as the embedded zone keeps them, and the rules by which CoreDNS makes them from ready endpoints."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

A, AAAA, CNAME, SOA, SRV, TXT = 1, 28, 5, 6, 33, 16
NOERROR, NXDOMAIN, REFUSED = 0, 3, 5

Labels = tuple[str, ...]  # lower case, without the root: ("orders", "shop", "svc", "cluster", "local")
T = TypeVar("T")


class Port(NamedTuple):
    """A named port of an endpoint. `name` may be empty: such a port is listed by the bare SRV name only."""

    name: str
    number: int
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Listed:
    """A ready endpoint, as an EndpointSlice would tell CoreDNS. Without `hostname` it goes by its dashed address."""

    address: str
    ports: tuple[Port, ...] = ()
    hostname: str | None = None

    @property
    def label(self) -> str:
        return self.hostname.lower() if self.hostname else _dashed(self.address)


@functools.lru_cache(maxsize=16384)
def _dashed(address: str) -> str:
    dashed = address.lower().replace(".", "-").replace(":", "-")
    return dashed + "0" if dashed.endswith("-") else dashed  # fd00:: would end in a dash, which no host name may


@dataclass(frozen=True, slots=True)
class Service:
    ttl: int | None
    listed: tuple[Listed, ...] = ()
    virtual: tuple[str, ...] = ()  # of a ClusterIP Service; empty: headless
    ports: tuple[Port, ...] = ()  # the Service's own ports: only a ClusterIP publishes those
    external: Labels = ()  # of an ExternalName Service

    def hosts(self, owner: Labels, label: str | None = None) -> list[Host]:
        """CoreDNS's unit of answering: one entry for each address and port. `label` asks for one endpoint only."""
        if self.virtual and label is None:
            return [Host(ip, port, owner) for ip in self.virtual for port in self.ports or (None,)]
        return [
            Host(one.address, port, (one.label, *owner))
            for one in self.listed
            if label is None or one.label == label
            for port in one.ports or (None,)
        ]


class Host(NamedTuple):
    address: str
    port: Port | None
    target: Labels


class Record(NamedTuple):
    owner: Labels
    rdtype: int
    ttl: int
    rdata: bytes
    target: Labels = ()  # of an SRV: glue may point at it


@dataclass(slots=True)
class Answer:
    rcode: int = NOERROR
    authoritative: bool = True
    chain: list[Record] = field(default_factory=list)  # CNAMEs: always first, in this order
    records: list[Record] = field(default_factory=list)  # shuffled
    glue: list[Record] = field(default_factory=list)
    soa: list[Record] = field(default_factory=list)

    def lifetime(self) -> int:
        return min((r.ttl for r in (*self.chain, *self.records, *self.soa)), default=0)

    def aged(self, seconds: int, most: int) -> Answer:
        def older(records: list[Record]) -> list[Record]:
            return [r._replace(ttl=max(0, min(r.ttl, most) - seconds)) for r in records]

        return replace(
            self, chain=older(self.chain), records=older(self.records), glue=older(self.glue), soa=older(self.soa)
        )


def address_records(hosts: Iterable[Host], owner: Labels, rdtype: int, ttl: int) -> list[Record]:
    distinct = dict.fromkeys(packed_address(host.address) for host in hosts)
    return [Record(owner, family, ttl, rdata) for family, rdata in distinct if family == rdtype]


def srv_answer(owner: Labels, hosts: list[Host], ttl: int) -> Answer:
    """One SRV for each distinct target and port, though every address counts in the weight: so CoreDNS has it."""
    weight = max(1, 100 // max(1, len(hosts)))
    answer = Answer()
    seen: set[tuple[Labels, int | str]] = set()
    for host in hosts:
        if host.port is None:
            continue
        if (host.target, host.port.number) not in seen:
            seen.add((host.target, host.port.number))
            rdata = struct.pack(">HHH", 0, weight, host.port.number) + wire_name(host.target)
            answer.records.append(Record(owner, SRV, ttl, rdata, host.target))
        if (host.target, host.address) not in seen:
            seen.add((host.target, host.address))
            family, packed = packed_address(host.address)
            answer.glue.append(Record(host.target, family, ttl, packed))
    return answer


def soa_record(domain: Labels, ttl: int) -> Record:
    names = wire_name(("ns", "dns", *domain)) + wire_name(("hostmaster", *domain))
    return Record(domain, SOA, min(ttl, 300), names + struct.pack(">IIIII", 1, 7200, 1800, 86400, ttl))


def parse_record(line: str, owner: Labels, ttl: int) -> Record:
    """A master-file line: `[owner.] [ttl] [IN] TYPE rdata`."""
    words = line.split()
    if words and words[0].endswith("."):
        owner = labels_of(words.pop(0))
    if words and words[0].isdigit():
        ttl = int(words.pop(0))
    if words and words[0].upper() == "IN":
        words.pop(0)
    try:
        rdtype = dns.rdatatype.from_text(words[0])
        rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, " ".join(words[1:]), dns.name.root, relativize=False)
    except (IndexError, dns.exception.DNSException) as error:
        raise ValueError(f"not a record: {line!r} ({error}); write it as '60 A 192.0.2.7'") from error
    target = labels_of(rdata.to_text().split()[-1]) if rdtype in (CNAME, SRV) else ()
    return Record(owner, int(rdtype), ttl, rdata.to_wire() or b"", target)


def labels_of(name: str) -> Labels:
    return tuple(label for label in name.lower().split(".") if label)


def is_under(name: Labels, scope: Labels) -> bool:
    return not scope or name[-len(scope) :] == scope


def longest(scopes: Mapping[Labels, T], name: Labels) -> T | None:
    fitting = [scope for scope in scopes if is_under(name, scope)]
    return scopes[max(fitting, key=len)] if fitting else None


def whole_seconds(ttl: float) -> int:
    if ttl < 0 or ttl != int(ttl):
        raise ValueError(f"a DNS TTL is a whole number of seconds, 0 or more: got {ttl!r}")
    return int(ttl)


@functools.lru_cache(maxsize=16384)  # a thousand endpoint names share all but their first label
def wire_name(labels: Labels) -> bytes:
    if not labels:
        return b"\0"
    label = labels[0].encode("latin-1")
    return bytes((len(label),)) + label + wire_name(labels[1:])


@functools.lru_cache(maxsize=16384)
def packed_address(address: str) -> tuple[int, bytes]:
    if ":" in address:
        return AAAA, socket.inet_pton(socket.AF_INET6, address)
    return A, socket.inet_pton(socket.AF_INET, address)
