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
SLICE = 250  # records read before the loop gets its turn: about 0.2 ms
CHAIN = 16  # CNAMEs followed (BIND 16, Unbound 11)

_TYPES = {"A": 1, "AAAA": 28, "SRV": 33}
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
    left over.
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
        self._question = question
        self._type = _TYPES[question.type]
        self._names: dict[int, str] = {HEADER: question.name}  # decoded so far, by where they begin
        self._by_owner: dict[str, list[bytes]] = {}
        self._ttls: dict[str, int] = {}
        self._aliases: dict[str, tuple[str, int]] = {}
        self._service_owners: dict[str, list[tuple[int, str]]] = {}
        self._glue: dict[str, list[bytes]] = {}
        self._glue_ttls: dict[str, int] = {}
        self._negative_ttl: int | None = None

    def answers(self, count: int) -> Generator[None, None, None]:
        data, wanted = self._data, self._type
        ttls, by_owner = self._ttls, self._by_owner
        end = len(data)
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            owner, at = self._owner()
            if at + 10 > end:
                raise Malformed("a record runs out")
            kind, cls, ttl, length = _record(data, at)
            at += 10
            self.at = at + length
            if self.at > end:
                raise Malformed("a record's data runs out")
            if cls != _IN:
                continue
            if ttl > 0x7FFFFFFF:
                ttl = 0  # RFC 2181, section 8
            if kind == _CNAME:
                target, after = self._name(at)
                if after != self.at:
                    raise Malformed("a CNAME of another length than it says")
                self._aliases.setdefault(owner, (target, ttl))
                continue
            if kind != wanted:
                continue
            if kind == _A or kind == _AAAA:
                if length != (4 if kind == _A else 16):
                    raise Malformed("an address of a wrong length")
                found = by_owner.get(owner)
                if found is None:
                    found = by_owner[owner] = []
                    ttls[owner] = ttl
                elif ttl < ttls[owner]:
                    ttls[owner] = ttl
                found.append(data[at : at + length])
            else:
                if length < 7:
                    raise Malformed("an SRV record too short")
                _, _, port = _srv(data, at)
                target, after = self._name(at + 6)
                if after != self.at:
                    raise Malformed("an SRV record of another length than it says")
                self._service_owners.setdefault(owner, []).append((port, target))
                ttls[owner] = min(ttls.get(owner, ttl), ttl)

    def authorities(self, count: int) -> Generator[None, None, None]:
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            _, kind, cls, ttl, at, length = self._header()
            if kind == _SOA and cls == _IN:
                _, after = self._name(at)
                _, after = self._name(after)
                if after + 20 != at + length:
                    raise Malformed("a SOA of another length than it says")
                self._negative_ttl = min(0 if ttl > 0x7FFFFFFF else ttl, _u32(self._data, after + 16)[0])

    def additionals(self, count: int) -> Generator[None, None, None]:
        data = self._data
        options = 0
        for i in range(count):
            if i % SLICE == SLICE - 1:
                yield
            owner, kind, cls, ttl, at, length = self._header()
            if kind == _OPT:
                options += 1
                if owner != "." or options > 1:
                    raise Malformed("a second OPT record, or one with a name")
                self.extended_rcode = ttl >> 24
            elif cls == _IN and (kind == _A or kind == _AAAA):
                if length != (4 if kind == _A else 16):
                    raise Malformed("an address of a wrong length")
                if ttl > 0x7FFFFFFF:
                    ttl = 0
                self._glue.setdefault(owner, []).append(data[at : at + length])
                self._glue_ttls[owner] = min(self._glue_ttls.get(owner, ttl), ttl)

    def reply(self, rcode: str, truncated: bool, transport: str) -> Reply:
        owner = self._question.name
        ttls: list[int] = []
        for _ in range(CHAIN):
            alias = self._aliases.get(owner)
            if alias is None:
                break
            owner, ttl = alias
            ttls.append(ttl)
        else:
            raise Malformed(f"more than {CHAIN} CNAMEs, or a loop of them")
        addresses = self._by_owner.get(owner, ())
        services = self._service_owners.get(owner, [])
        glue: dict[str, list[bytes]] = {}
        if addresses or services:
            ttls.append(self._ttls[owner])
        for _, target in services:
            if target in self._glue:
                glue[target] = self._glue[target]
        ttls.extend(self._glue_ttls[name] for name in glue)
        found = bool(addresses or services)
        return Reply(
            rcode,
            frozenset(addresses),
            services,
            glue,
            float(min(ttls)) if found else None,
            None if self._negative_ttl is None else float(self._negative_ttl),
            truncated,
            transport,
        )

    # ---- names -------------------------------------------------------------------------------------------------

    def _header(self) -> tuple[str, int, int, int, int, int]:
        owner, at = self._owner()
        if at + 10 > len(self._data):
            raise Malformed("a record runs out")
        kind, cls, ttl, length = _record(self._data, at)
        at += 10
        self.at = at + length
        if self.at > len(self._data):
            raise Malformed("a record's data runs out")
        return owner, kind, cls, ttl, at, length

    def _owner(self) -> tuple[str, int]:
        at = self.at
        data = self._data
        if data[at : at + 2] == b"\xc0\x0c":  # a pointer to the question's name: nearly all owners
            return self._question.name, at + 2
        return self._name(at)

    def _name(self, at: int) -> tuple[str, int]:
        """The name at `at`, lower case with its final dot, and where it ends.

        Each pointer must lead further back than the one before, so there can be no loop; a name has 255 bytes at most,
        so a long chain of labels and pointers ends early.
        """
        data, names = self._data, self._names
        end, back, total = len(data), at, 0
        after: int | None = None  # where the name ends in place, once a pointer has led away
        labels: list[tuple[int, str]] = []
        name = ""
        while True:
            if at >= end:
                raise Malformed("a name runs out")
            size = data[at]
            if size == 0:
                after = at + 1 if after is None else after
                break
            if size >= 0xC0:
                if at + 2 > end:
                    raise Malformed("a pointer runs out")
                to = (size & 0x3F) << 8 | data[at + 1]
                if to >= back or to < HEADER:
                    raise Malformed("a pointer that does not lead back")
                after = at + 2 if after is None else after
                known = names.get(to)
                if known is not None:
                    name = known if known != "." else ""
                    break
                at = back = to
                continue
            if size > 63:
                raise Malformed("a label of a reserved kind")
            label = data[at + 1 : at + 1 + size]
            total += size + 1
            if len(label) != size or total > 254:
                raise Malformed("a label runs out, or a name has more than 255 bytes")
            if not label.isascii() or b"." in label:
                raise Malformed("a label that is no host name's")
            labels.append((at, label.decode("ascii").lower()))
            at += size + 1
        for where, text in reversed(labels):
            name = f"{text}.{name}"
            names[where] = name
        if len(name) > 254:
            raise Malformed("a name of more than 255 bytes")
        return name or ".", after
