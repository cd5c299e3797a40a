"""dnspython is the oracle: what the walk reads, dnspython reads too; what dnspython cannot read, the walk refuses.

Messages are valid ones, as dnspython writes them and as no server would (records in any order, names compressed
wherever they may be), and then the same ones damaged. The walk may refuse more than dnspython; it may never read
something else, and never fail in another way.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.wire
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.SOA import SOA
from dns.rdtypes.IN.SRV import SRV
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headlessconn._runtime import wire
from headlessconn.core.lookup import Question, RecordType, Reply
from tests.runtime.test_wire import query_for, read

READ = {dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.SRV, dns.rdatatype.CNAME, dns.rdatatype.SOA}
OPT, TSIG, IN = 41, 250, dns.rdataclass.IN

# The same examples in every run, and no database: a red run is red for everybody.
quick = settings(
    max_examples=80, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


# ---- the oracle --------------------------------------------------------------------------------------------------


@dataclass
class Shape:
    """What a plain pass by dnspython's parser finds: the structure, and the data of the types that are read."""

    types: set[int] = field(default_factory=set)
    extended_rcode: int = 0

    @classmethod
    def of(cls, data: bytes) -> "Shape":
        """Raises `DNSException` for what is not well-formed."""
        shape, parser = cls(), dns.wire.Parser(data)
        _, _, questions, *counts = parser.get_struct("!HHHHHH")
        for _ in range(questions):
            _name(parser)
            parser.get_struct("!HH")
        options = 0
        for section, count in enumerate(counts):
            for _ in range(count):
                owner = _name(parser)
                kind, rdclass, ttl, length = parser.get_struct("!HHIH")
                shape.types.add(kind)
                with parser.restrict_to(length):
                    if kind == OPT:
                        options += 1
                        if section != 2 or options > 1 or owner != dns.name.root:
                            raise dns.message.BadEDNS
                        shape.extended_rcode = ttl >> 24
                        while parser.remaining():
                            parser.get_bytes(parser.get_struct("!HH")[1])
                    elif rdclass == dns.rdataclass.IN and kind in READ:
                        dns.rdata.from_wire_parser(rdclass, dns.rdatatype.RdataType(kind), parser)
                    else:
                        parser.get_remaining()
        if parser.remaining():
            raise dns.message.TrailingJunk
        return shape


def _name(parser: dns.wire.Parser) -> dns.name.Name:
    return dns.name.from_wire_parser(parser)


def agrees(ours: Reply, data: bytes, kind: RecordType) -> None:
    """Fail unless dnspython reads the same in these bytes."""
    shape = Shape.of(data)
    if TSIG in shape.types:
        return  # dnspython minds where a signature stands; nothing here is signed
    rcode = data[3] & 15 | shape.extended_rcode << 4
    assert (ours.rcode == "NOERROR", ours.rcode == "NXDOMAIN") == (rcode == 0, rcode == 3)
    if rcode not in (0, 3):
        assert ours.is_empty
        return
    # Errors in data of other types are dnspython's alone; the records beside them it reads all the same.
    message = dns.message.from_wire(data, continue_on_error=True, keyring=False)
    assert isinstance(message, dns.message.QueryMessage)
    chain = message.resolve_chaining()
    wanted = dns.rdatatype.from_text(kind)
    answer = list(chain.answer or ())
    if wanted == dns.rdatatype.SRV:
        services = {(port, dns.name.from_text(target)) for port, target in ours.services}
        assert services == {(record.port, record.target) for record in answer}
        assert not ours.addresses
    else:
        assert ours.addresses == {record.to_wire() for record in answer}
        assert not ours.services
    ttls = [chain.minimum_ttl]
    for target in {record.target for record in answer} if wanted == dns.rdatatype.SRV else ():
        found = [message.get_rrset(message.additional, target, dns.rdataclass.IN, t) for t in READ_GLUE]
        ttls += [rrset.ttl for rrset in found if rrset]
        glue = [ours.glue[name] for name in ours.glue if dns.name.from_text(name) == target]
        assert {address for addresses in glue for address in addresses} == {
            record.to_wire() for rrset in found if rrset for record in rrset
        }
    assert ours.truncated == bool(message.flags & dns.flags.TC)
    if answer:
        assert ours.ttl == min(ttls)
    else:
        assert ours.ttl is None
        if ours.negative_ttl is not None:
            assert ours.negative_ttl == chain.minimum_ttl
        else:
            soas = [found for found in message.authority if found.rdtype == dns.rdatatype.SOA and found.rdclass == IN]
            assert not any(chain.canonical_name.is_subdomain(soa.name) for soa in soas)


READ_GLUE = (dns.rdatatype.A, dns.rdatatype.AAAA)


def refused_or_agrees(data: bytes, name: str, kind: RecordType) -> bool:
    try:
        ours = read(data, name, kind)
    except (wire.Malformed, wire.Unexpected):
        return False
    if data[4:6] == b"\0\1":
        agrees(ours, data, kind)
    else:
        assert ours.rcode not in ("NOERROR", "NXDOMAIN")
    return True


# ---- valid messages ----------------------------------------------------------------------------------------------

LABELS = ("web", "shop", "svc", "cluster", "local", "_http", "_tcp", "10-244-1-31", "a", "example", "x" * 63, "*")


@dataclass
class Written:
    """A message, and where in it fields of two bytes, lengths and pointers stand."""

    data: bytes
    name: str
    kind: RecordType
    fields: list[int]


class Writer:
    """Writes records as no server does: a name may point at any place where its rest was written before."""

    def __init__(self, query: bytes, dice: random.Random) -> None:
        self.data = bytearray(query[:2] + bytes(10))
        self.fields = [2, 4, 6, 8, 10]
        self._dice = dice
        self._known: dict[dns.name.Name, list[int]] = {}
        self.name(dns.message.from_wire(query).question[0].name, compress=False)
        self.data += query[len(self.data) : len(self.data) + 4]

    def name(self, name: dns.name.Name, compress: bool = True) -> None:
        while name != dns.name.root:
            places = self._known.setdefault(name, [])
            if compress and places and self._dice.random() < 0.7:
                place = self._dice.choice(places)
                self.fields.append(len(self.data))
                self.data += (0xC000 | place).to_bytes(2, "big")
                return
            places.append(len(self.data))
            self.data += bytes((len(name[0]),)) + name[0]
            name = name.parent()
        self.data.append(0)

    def record(self, owner: dns.name.Name, ttl: int, rdata: dns.rdata.Rdata, swap: bool) -> None:
        self.name(owner if not swap else dns.name.Name([label.swapcase() for label in owner.labels]))
        self.fields += [len(self.data), len(self.data) + 2, len(self.data) + 6, len(self.data) + 8]
        self.data += rdata.rdtype.to_bytes(2, "big") + rdata.rdclass.to_bytes(2, "big") + ttl.to_bytes(4, "big")
        at = len(self.data)
        self.data += b"\0\0"
        plain = rdata.to_wire()
        assert plain is not None
        match rdata:
            case CNAME():
                self.name(rdata.target)
            case SRV():
                self.data += plain[:6]
                self.name(rdata.target)
            case SOA():
                self.name(rdata.mname)
                self.name(rdata.rname)
                self.data += plain[-20:]
            case _:
                self.data += plain
        self.data[at : at + 2] = (len(self.data) - at - 2).to_bytes(2, "big")


Record = tuple[dns.name.Name, int, dns.rdata.Rdata]


def valid(dice: random.Random) -> Written:
    """A reply that a server could send: a chain of aliases, records or none, glue, an authority, things unrelated."""
    kind: RecordType = dice.choice(["A", "A", "AAAA", "SRV", "SRV"])

    def a_name() -> dns.name.Name:
        labels = [label.encode() for label in dice.choices(LABELS, k=dice.randint(1, 3))]
        return dns.name.Name([*labels, b""]) if dice.random() < 0.9 else dns.name.from_text(r"a\.b\000\255.Example.")

    def ttl() -> int:
        return dice.choice([0, 1, 5, 30, 3600, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])

    def rdata(type_text: str, text: str) -> dns.rdata.Rdata:
        return dns.rdata.from_text("IN", type_text, text)

    def address(type_text: str) -> dns.rdata.Rdata:
        ours = f"10.244.{dice.randint(0, 1)}.{dice.randint(0, 3)}"
        return rdata(type_text, ours if type_text == "A" else f"fd00::{dice.randint(0, 3)}")

    def unrelated() -> Record:
        kinds: list[Callable[[], dns.rdata.Rdata]] = [
            lambda: rdata("TXT", '"a text"'), lambda: rdata("MX", f"5 {a_name()}"), lambda: rdata("NS", str(a_name())),
            lambda: address("A"), lambda: address("AAAA"), lambda: rdata("SRV", f"0 0 1 {a_name()}"),
            lambda: dns.rdata.GenericRdata(dns.rdataclass.HS, dns.rdatatype.A, b"odd"),
            lambda: dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.RdataType(65280), dice.randbytes(9)),
        ]  # fmt: skip
        return a_name(), ttl(), dice.choice(kinds)()

    def soa(owner: dns.name.Name) -> Record:
        return owner, ttl(), rdata("SOA", f"{a_name()} {a_name()} 1 2 3 4 {dice.choice([0, 5, 86400, 0xFFFFFFFF])}")

    asked = owner = dns.name.from_text(a_name().to_text().lower())
    answer: list[Record] = []
    for _ in range(dice.choice([0, 0, 0, 1, 2, 3])):
        target = a_name()
        if target not in [record[0] for record in answer] and target not in (asked, owner):
            answer.append((owner, ttl(), dns.rdata.from_text("IN", "CNAME", target.to_text())))
            owner = target
    rcode = dice.choice([0, 0, 0, 0, 0, 3, 2, 5])
    targets = [a_name() for _ in range(3)]
    if rcode == 0:
        for _ in range(dice.choice([0, 1, 2, 3, 5])):
            target = dice.choice(targets)
            service = f"0 {dice.randint(0, 9)} {dice.randint(0, 3)} {target}"
            answer.append((owner, ttl(), rdata("SRV", service) if kind == "SRV" else address(kind)))
    strange = [unrelated() for _ in range(dice.choice([0, 0, 1, 2]))]
    chain = [record[0] for record in answer] + [asked, owner]
    answer += [record for record in strange if record[0] not in chain]
    dice.shuffle(answer)
    authority = [unrelated() for _ in range(dice.choice([0, 0, 1]))]
    if dice.random() < 0.7:
        ancestors = list(dict.fromkeys(dns.name.Name(owner.labels[i:]) for i in range(len(owner))))
        authority += [soa(at) for at in dice.sample(ancestors, min(len(ancestors), dice.choice([1, 1, 2])))]
    glue = [(dice.choice(targets), ttl(), address(dice.choice(["A", "AAAA"]))) for _ in range(dice.choice([0, 2, 6]))]
    additional = [*glue, *(unrelated() for _ in range(dice.choice([0, 0, 1])))]
    dice.shuffle(additional)

    name = asked.to_text()
    query = query_for(name, kind)
    writer = Writer(query, dice)
    flags = 0x8400 | rcode | dice.choice([0, 0, 0, 0x0200])
    swap = dice.random() < 0.3
    for record in (*answer, *authority, *additional):
        writer.record(*record, swap)
    if dice.random() < 0.7:
        extended = dice.choice([0, 0, 0, 0, 1])
        options = dice.choice([b"", b"", b"\0\x0f\0\2\0\0", b"\0\3\0\1x\xfe\0\0\0"])
        writer.fields += [len(writer.data) + 1, len(writer.data) + 5, len(writer.data) + 9]
        writer.data += b"\0\0\x29\x04\xd0" + bytes((extended, 0, 0, 0)) + len(options).to_bytes(2, "big") + options
        counts = (len(answer), len(authority), len(additional) + 1)
    else:
        counts = (len(answer), len(authority), len(additional))
    writer.data[2:4] = flags.to_bytes(2, "big")
    writer.data[4:12] = b"".join(n.to_bytes(2, "big") for n in (1, *counts))
    return Written(bytes(writer.data), name, kind, writer.fields)


seeds = st.integers(0, 2**64 - 1)


@quick
@given(seeds)
def test_a_valid_reply_reads_as_dnspython_reads_it(seed: int) -> None:
    for dice in _dice(seed, 5):
        written = valid(dice)
        assert refused_or_agrees(written.data, written.name, written.kind), "a valid reply was refused"


@quick
@given(seeds)
def test_a_reply_that_dnspython_wrote_reads_as_dnspython_reads_it(seed: int) -> None:
    for dice in _dice(seed, 3):
        written = valid(dice)
        message = dns.message.from_wire(written.data)
        assert refused_or_agrees(message.to_wire(max_size=65535), written.name, written.kind)


# ---- damaged messages --------------------------------------------------------------------------------------------


def damaged(written: Written, dice: random.Random) -> bytes:
    data = bytearray(written.data)
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        at = dice.randrange(len(data))
        place = dice.choice([at for at in written.fields if at + 2 <= len(data)] or [0])
        match dice.randrange(10):
            case 0 | 1:  # a type, a class, a length, a count, a pointer: a little off, or something else that exists
                value = int.from_bytes(data[place : place + 2], "big")
                value = dice.choice([value + 1, value - 1, 0, 1, 5, 6, 16, 28, 33, 41, 0xFFFF, 0xC00C, at, 0xC000 | at])
                data[place : place + 2] = (value & 0xFFFF).to_bytes(2, "big")
            case 2:  # a pointer where none was
                data[at : at + 2] = (0xC000 | dice.randrange(len(data))).to_bytes(2, "big")
            case 3:
                data[at] ^= 1 << dice.randrange(8)
            case 4:
                data[at] = dice.randrange(256)
            case 5:
                del data[at:]
            case 6:
                data += dice.randbytes(dice.randint(1, 12))
            case 7:  # a piece twice, a piece lost
                data[at:at] = data[at : at + dice.randint(1, 16)]
            case 8:
                del data[at : at + dice.randint(1, 16)]
            case 9:  # rcode, TC, and the rest of the flags
                data[2:4] = (int.from_bytes(data[2:4], "big") ^ 1 << dice.randrange(16)).to_bytes(2, "big")
        if not data:
            break
    return bytes(data)


@quick
@given(seeds)
def test_a_damaged_reply_reads_as_dnspython_reads_it_or_is_refused(seed: int) -> None:
    for dice in _dice(seed, 10):
        written = valid(dice)
        for _ in range(3):
            refused_or_agrees(damaged(written, dice), written.name, written.kind)


def test_damage_is_not_always_refused_so_that_the_comparison_means_something() -> None:
    read_all_the_same = 0
    for dice in _dice(1, 300):
        written = valid(dice)
        read_all_the_same += refused_or_agrees(damaged(written, dice), written.name, written.kind)
    assert 30 < read_all_the_same < 270


@quick
@given(st.binary(max_size=300), st.sampled_from(["A", "AAAA", "SRV"]))
def test_anything_at_all_after_the_question_is_refused_or_read(noise: bytes, kind: RecordType) -> None:
    query = query_for(kind=kind)
    head = bytearray(query[: 12 + len(wire.question_of(query))])
    head[2:4] = b"\x84\0"
    head[6:12] = noise[:6].ljust(6, b"\0")
    for data in (bytes(head) + noise[6:], bytes(head[:6]) + b"\0\1\0\0\0\0" + bytes(head[12:]) + noise, noise):
        refused_or_agrees(data, "web.shop.svc.cluster.local.", kind)


def _dice(seed: int, count: int) -> Iterator[random.Random]:
    """Many messages a seed: the machinery around an example costs more than the message."""
    return (random.Random(f"{seed} {i}") for i in range(count))


def test_the_question_of_a_query_is_its_question_section() -> None:
    query = query_for("a.b.", "SRV")
    assert wire.question_of(query) == b"\1a\1b\0\0\x21\0\1"
    assert Question("a.b.", "SRV") == Question("a.b.", "SRV")
