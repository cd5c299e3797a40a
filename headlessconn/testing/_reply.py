"""Questions and replies on the wire. dnspython reads the questions; the replies are put together from ready pieces."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import dns.exception
import dns.message
import dns.rdataclass
import dns.rdatatype

from headlessconn.testing._records import REFUSED, Answer, Labels, Record, wire_name

FORMERR, NOTIMP = 1, 4
OPT, IXFR, AXFR = 41, 251, 252
QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080


@dataclass(frozen=True, slots=True)
class Question:
    name: Labels
    rdtype: int
    type: str
    wire: bytes  # the question section as it came: replies keep its case
    limit: int
    opt: bytes
    recursion_desired: int

    @property
    def text(self) -> str:
        return ".".join(self.name) + "."

    @classmethod
    def parse(cls, query: bytes, transport: str) -> Self | int:
        """The question, or the rcode to refuse it with."""
        if query[2] & 0x78:
            return NOTIMP  # an opcode other than QUERY
        try:
            message = dns.message.from_wire(query)
        except (dns.exception.DNSException, struct.error):
            return FORMERR
        if len(message.question) != 1:
            return FORMERR
        asked = message.question[0]
        if asked.rdclass != dns.rdataclass.IN or asked.rdtype in (IXFR, AXFR):
            return REFUSED
        edns = message.edns >= 0
        opt = b"\0" + struct.pack(">HHIH", OPT, message.payload, message.ednsflags & 0x8000, 0) if edns else b""
        return cls(
            name=tuple(label.decode("latin-1").lower() for label in asked.name.labels[:-1]),
            rdtype=int(asked.rdtype),
            type=dns.rdatatype.to_text(asked.rdtype),
            wire=query[12 : 12 + len(asked.name.to_digestable()) + 4],
            limit=65535 if transport == "tcp" else max(512, message.payload) if edns else 512,
            opt=opt,
            recursion_desired=message.flags & RD,
        )


class Reply:
    """An answer as wire pieces. `assemble` shuffles them, keeps what fits and puts the id in front."""

    def __init__(self, question: Question, answer: Answer, fresh_until: float = math.inf) -> None:
        self.question = question
        self.fresh_until = fresh_until
        self._flags = QR | RA | question.recursion_desired | answer.rcode | (AA if answer.authoritative else 0)
        known: dict[Labels, int] = {}  # every suffix of the question's name may be pointed at
        offset = 12
        for depth, label in enumerate(question.name):
            known[question.name[depth:]] = offset
            offset += len(label) + 1
        self._chain = [_owner(r.owner, known) + _tail(r) for r in answer.chain]
        self._records: list[bytes] = []
        self._targets: dict[bytes, Labels] = {}
        for record in answer.records:
            wire = _owner(record.owner, known) + _tail(record)
            self._records.append(wire)
            if record.target:
                self._targets[wire] = record.target
        self._glue = [(r.owner, _owner(r.owner, known), _tail(r)) for r in answer.glue]
        self._authority = b"".join(_owner(r.owner, known) + _tail(r) for r in answer.soa)
        self._authority_count = len(answer.soa)

    def assemble(self, ident: bytes, dice: random.Random, *, truncate: bool = False) -> bytes:
        question = self.question
        dice.shuffle(self._records)  # before cutting, as CoreDNS does: a cut reply holds another part each time
        records = self._chain + self._records
        if truncate:
            records = records[: len(records) // 2]
        cut = truncate
        at = 12 + len(question.wire)
        end = question.limit - len(self._authority) - len(question.opt)
        pieces = [b"", question.wire]
        pointers: dict[Labels, int] = {}
        count = extra = 0
        for wire in records:
            if at + len(wire) > end:
                cut = True
                break
            pieces.append(wire)
            at += len(wire)
            count += 1
            if wire in self._targets:
                target = self._targets[wire]
                pointers[target] = at - len(wire_name(target))
        pieces.append(self._authority)
        for owner, name, tail in () if cut else self._glue:
            pointer = pointers.get(owner, 0x4000)
            wire = (struct.pack(">H", 0xC000 | pointer) if pointer < 0x4000 else name) + tail
            if at + len(wire) > end:
                cut = True
                break
            pieces.append(wire)
            at += len(wire)
            extra += 1
        if question.opt:
            pieces.append(question.opt)
            extra += 1
        flags = self._flags | (TC if cut else 0)
        pieces[0] = ident + struct.pack(">HHHHH", flags, 1, count, self._authority_count, extra)
        return b"".join(pieces)


def _owner(labels: Labels, known: Mapping[Labels, int]) -> bytes:
    for depth in range(len(labels)):
        pointer = known.get(labels[depth:])
        if pointer is not None:
            return wire_name(labels[:depth])[:-1] + struct.pack(">H", 0xC000 | pointer)
    return wire_name(labels)


def _tail(record: Record) -> bytes:
    return struct.pack(">HHIH", record.rdtype, 1, record.ttl, len(record.rdata)) + record.rdata
