"""Reading a DNS reply: a plain walk over the records that matter, bounded and strict.

dnspython builds an object for each record: 31 ms for a thousand A records, in the event loop. This walk takes a
hundredth of that and gives up the loop between slices. It refuses whatever is not exactly a well-formed reply to the
question that was asked; dnspython is the oracle of its tests (both give the same records, or this one refuses).

A message is a header of 12 bytes, one question, and three sections of records:
owner name · type (2) · class (2) · TTL (4) · length (2) · data.
"""

from __future__ import annotations

from collections.abc import Generator
from struct import Struct

from headlessconn.core.lookup import Question, Reply

HEADER = 12
SLICE = 100  # records read before the loop gets its turn: 0.1 ms of A, 0.3 ms of SRV with their targets
CHAIN = 16  # CNAMEs followed (BIND 16, Unbound 11)
HOPS = 16  # pointers in one name, as dnspython has it; a server needs one

_TYPES = {"A": 1, "AAAA": 28, "SRV": 33}
_HOST = b"abcdefghijklmnopqrstuvwxyz0123456789-_*"  # what stands in names as it is; the rest is escaped
_A, _CNAME, _SOA, _AAAA, _SRV, _OPT = 1, 5, 6, 28, 33, 41
_IN = 1
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}

_counts = Struct(">HHHHHH").unpack_from
_record = Struct(">HHIH").unpack_from
_srv = Struct(">HHH").unpack_from
_u32 = Struct(">I").unpack_from


class Malformed(Exception):
    """The bytes are not a well-formed reply."""


class Unexpected(Exception):
    """A well-formed message, but not the reply to our question: another id or question. Somebody else's, or a forgery;
    the real reply may still come."""


def question_of(query: bytes) -> bytes:
    """The question section of a query we sent (it has one question, and an OPT record of 11 bytes at its end)."""
    end = HEADER
    while query[end]:
        end += query[end] + 1
    return query[HEADER : end + 5]


def check(data: bytes, query: bytes, question: bytes) -> bool:
    """Whether a reply is truncated (TC). Raises `Unexpected` when it is not the reply to `query`, byte for byte."""
    if len(data) < HEADER:
        raise Malformed(f"{len(data)} bytes are no DNS message")
    if data[:2] != query[:2]:
        raise Unexpected("another id")
    if not data[2] & 0x80 or data[2] & 0x78:
        raise Unexpected("not a reply to a query")
    if data[4:6] != b"\0\1":
        # A server that cannot read the question may leave it out; its rcode still counts as no news.
        if data[4:6] == b"\0\0" and data[3] & 15 not in (0, 3) and len(data) == HEADER:
            return False
        raise Malformed("not exactly one question")
    if data[HEADER : HEADER + len(question)] != question:
        raise Unexpected("another question")
    return bool(data[2] & 0x02)


def read(data: bytes, question: Question, size: int, transport: str) -> Generator[None, None, Reply]:
    """Walk a checked reply; `size` is the length of its question section. Yields between slices of records.

    Raises `Malformed`: a name that loops or runs out, a length that does not fit, counts that do not match, bytes
    left over, records that contradict each other. Records of types that mean nothing here are passed over unread.
    """
    _, flags, questions, answers, authorities, additionals = _counts(data)
    truncated = bool(flags & 0x0200)
    rcode = flags & 15
    if not questions:
        return Reply(_RCODES.get(rcode, f"RCODE{rcode}"), transport=transport)
    walk = _Walk(data, question, HEADER + size)
    yield from walk.answers(answers)
    yield from walk.authorities(authorities)
    yield from walk.additionals(additionals)
    if walk.at != len(data):
        raise Malformed(f"{len(data) - walk.at} bytes after the last record")
    rcode |= walk.extended_rcode << 4
    name = _RCODES.get(rcode, f"RCODE{rcode}")
    if rcode not in (0, 3):
        return Reply(name, transport=transport)
    return walk.reply(name, truncated, transport)


class _Walk:
    def __init__(self, data: bytes, question: Question, at: int) -> None:
        self.at = at
        self.extended_rcode = 0
        self._data = data
        self._type = _TYPES[question.type]
        # Names decoded so far, by where they begin: the name ("" is the root), where its first pointer leads (0: it has
        # none), where it ends in place, and how many pointers it has.
        self._names: dict[int, tuple[str, int, int, int]] = {}
        self._asked, _ = self._name(HEADER)  # in our spelling: `question.name` may escape otherwise
        self._addresses: dict[str, list[bytes]] = {}
        self._services: dict[str, list[tuple[int, str]]] = {}
        self._ttls: dict[str, int] = {}
        self._aliases: dict[str, tuple[str, int]] = {}
        self._glue: dict[str, list[bytes]] = {}
        self._glue_ttls: dict[str, int] = {}
        self._negative_ttls: dict[str, int] = {}

    def answers(self, count: int) -> Generator[None, None, None]:
        data, wanted = self._data, self._type
        ttls, addresses = self._ttls, self._addresses
        end = len(data)
        size = 16 if wanted == _AAAA else 4
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            # As `_header`, written out: this loop is the cost of a thousand records.
            if data[self.at : self.at + 2] == b"\xc0\x0c":  # a pointer to the question's name: nearly all owners
                owner, at = self._asked, self.at + 2
            else:
                owner, at = self._name(self.at)
            if at + 10 > end:
                raise Malformed("a record runs out")
            kind, cls, ttl, length = _record(data, at)
            at += 10
            self.at = at + length
            if self.at > end:
                raise Malformed("a record's data runs out")
            if ttl > 0x7FFFFFFF:
                ttl = 0  # RFC 2181, section 8
            if cls == _IN and kind == wanted:
                if kind == _SRV:
                    self._services.setdefault(owner, []).append(self._service(at, length))
                elif length == size:
                    found = addresses.get(owner)
                    if found is None:
                        found = addresses[owner] = []
                    found.append(data[at : at + length])
                else:
                    raise Malformed("an address of a wrong length")
                if ttls.get(owner, ttl) >= ttl:
                    ttls[owner] = ttl
            elif cls == _IN and kind == _CNAME:
                target, before = self._alias(at), self._aliases.get(owner)
                if before is not None and before[0] != target:
                    raise Malformed("two CNAMEs for one name")
                self._aliases[owner] = (target, ttl if before is None else min(ttl, before[1]))
            else:
                self._unused(kind, cls, at, length)

    def authorities(self, count: int) -> Generator[None, None, None]:
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            owner, kind, cls, ttl, at, length = self._header()
            if kind == _SOA and cls == _IN:
                if owner in self._negative_ttls:
                    raise Malformed("two SOAs for one name")
                self._negative_ttls[owner] = min(ttl, self._soa_minimum(at, length))
            else:
                self._unused(kind, cls, at, length)

    def additionals(self, count: int) -> Generator[None, None, None]:
        options = 0
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            owner, kind, cls, ttl, at, length = self._header()
            if kind == _OPT:
                options += 1
                if owner != "." or options > 1:
                    raise Malformed("a second OPT record, or one with a name")
                self.extended_rcode = self._data[at - 6]  # the first byte of what is a TTL in other records
                self._options(at)
            elif cls == _IN and (kind == _A or kind == _AAAA):
                self._unused(kind, cls, at, length)
                self._glue.setdefault(owner, []).append(self._data[at : at + length])
                self._glue_ttls[owner] = min(self._glue_ttls.get(owner, ttl), ttl)
            else:
                self._unused(kind, cls, at, length)

    def reply(self, rcode: str, truncated: bool, transport: str) -> Reply:
        owner = self._asked
        ttls: list[int] = []
        for _ in range(CHAIN):
            alias = None if owner in self._ttls else self._aliases.get(owner)
            if alias is None:
                break
            owner, ttl = alias
            ttls.append(ttl)
        else:
            raise Malformed(f"{CHAIN} CNAMEs or more, or a loop of them")
        found = owner in self._ttls
        if found and rcode == "NXDOMAIN":
            raise Malformed("NXDOMAIN, and records all the same")  # RFC 2308: it is said of the last name of the chain
        services = self._services.get(owner, [])
        glue = {target: self._glue[target] for _, target in services if target in self._glue}
        if found:
            ttls.append(self._ttls[owner])
            ttls.extend(self._glue_ttls[target] for target in glue)
        negative = None if found else self._negative_ttl(owner)
        return Reply(
            rcode,
            frozenset(self._addresses.get(owner, ())),
            services,
            glue,
            float(min(ttls)) if found else None,
            None if negative is None else float(min(negative, *ttls)) if ttls else float(negative),
            truncated,
            transport,
        )

    def _negative_ttl(self, owner: str) -> int | None:
        """Of the nearest SOA above the name that has no records: others say nothing about it."""
        while owner not in self._negative_ttls:
            if owner == ".":
                return None
            owner = owner.partition(".")[2] or "."
        return self._negative_ttls[owner]

    # ---- data of records ---------------------------------------------------------------------------------------

    def _header(self) -> tuple[str, int, int, int, int, int]:
        owner, at = self._name(self.at)
        if at + 10 > len(self._data):
            raise Malformed("a record runs out")
        kind, cls, ttl, length = _record(self._data, at)
        at += 10
        self.at = at + length
        if self.at > len(self._data):
            raise Malformed("a record's data runs out")
        return owner, kind, cls, 0 if ttl > 0x7FFFFFFF else ttl, at, length

    def _unused(self, kind: int, cls: int, at: int, length: int) -> None:
        """A record nobody asked for: well-formed all the same, or the message is not to be trusted."""
        if kind == _OPT:
            raise Malformed("an OPT record outside of the additional section")
        if cls != _IN:
            return
        if kind == _A or kind == _AAAA:
            if length != (4 if kind == _A else 16):
                raise Malformed("an address of a wrong length")
        elif kind == _SRV:
            self._service(at, length)
        elif kind == _CNAME:
            self._alias(at)
        elif kind == _SOA:
            self._soa_minimum(at, length)

    def _service(self, at: int, length: int) -> tuple[int, str]:
        if length < 7:
            raise Malformed("an SRV record too short")
        _, _, port = _srv(self._data, at)
        target, after = self._name(at + 6)
        if after != self.at:
            raise Malformed("an SRV record of another length than it says")
        return port, target

    def _alias(self, at: int) -> str:
        target, after = self._name(at)
        if after != self.at:
            raise Malformed("a CNAME of another length than it says")
        return target

    def _soa_minimum(self, at: int, length: int) -> int:
        _, after = self._name(at)
        _, after = self._name(after)
        if after + 20 != self.at:
            raise Malformed("a SOA of another length than it says")
        minimum: int = _u32(self._data, after + 16)[0]
        return minimum

    def _options(self, at: int) -> None:
        """EDNS options are not read, but must fill their record exactly: code (2), length (2), data."""
        while at + 4 <= self.at:
            at += 4 + int.from_bytes(self._data[at + 2 : at + 4], "big")
        if at != self.at:
            raise Malformed("EDNS options of another length than they say")

    # ---- names -------------------------------------------------------------------------------------------------

    def _name(self, at: int) -> tuple[str, int]:
        """The name at `at`, lower case with its final dot, and where it ends.

        A pointer leads back, each one further than the one before, to something that ends before what it was read in
        begins: so there is no loop. Every place is remembered and decoded once, so that the cost of all names together
        is in proportion to the message, however they point.
        """
        data, names = self._data, self._names
        end, back, total = len(data), at, 0
        after: int | None = None  # where the name ends in place, once a pointer has led away
        passed: list[tuple[int, str, int]] = []
        name, leads_to, ends, hops = "", 0, 0, 0
        while True:
            if at >= end:
                raise Malformed("a name runs out")
            size = data[at]
            if size == 0:
                ends = at + 1
                after = ends if after is None else after
                break
            if size >= 0xC0:
                if at + 2 > end:
                    raise Malformed("a pointer runs out")
                to = (size & 0x3F) << 8 | data[at + 1]
                if to >= back or to < HEADER:
                    raise Malformed("a pointer that does not lead back")
                after = at + 2 if after is None else after
                passed.append((at, "", to))
                end = back
                at = back = to
            elif size > 63:
                raise Malformed("a label of a reserved kind")
            else:
                total += size + 1
                if at + 1 + size > end or total > 254:
                    raise Malformed("a label runs out, or a name has more than 255 bytes")
                passed.append((at, _label(data[at + 1 : at + 1 + size]) + ".", 0))
                at += size + 1
            if after is not None and at in names:
                name, leads_to, ends, hops = names[at]
                if leads_to >= back or ends > end:
                    raise Malformed("a pointer that does not lead back")
                break
        for where, label, to in reversed(passed):
            if to:
                leads_to, ends, hops = to, where + 2, hops + 1
            name = label + name
            names[where] = name, leads_to, ends, hops
        if len(name) > 254 or hops > HOPS:
            raise Malformed(f"a name of more than 255 bytes, or of more than {HOPS} pointers")
        return name or ".", after


def _label(label: bytes) -> str:
    """Lower case; bytes that host names do not have are escaped as in master files: dots, for one, and control codes
    that would end up in a log."""
    label = label.lower()
    if not label.translate(None, _HOST):
        return label.decode("ascii")
    return "".join(chr(byte) if byte in _HOST else f"\\{byte:03d}" for byte in label)
