"""The walk over a reply, refusal by refusal, and what the worst message costs.

That it reads what dnspython reads is `test_wire_oracle.py`.
"""

import ast
import inspect
from collections.abc import Callable
from struct import pack
from typing import NamedTuple, SupportsIndex

import dns.message
import dns.name
import dns.rrset
import pytest

from headlessconn._runtime import wire
from headlessconn._runtime.wire import Malformed, Unexpected
from headlessconn.core.lookup import Question, RecordType, Reply
from tests.runtime.scripted_dns import PODS, SOA, WEB, addresses, reply

A, CNAME, SOA_TYPE, TXT, AAAA, SRV, OPT = 1, 5, 6, 16, 28, 33, 41
TO_QUESTION = b"\xc0\x0c"
ROOT = b"\0"


def query_for(name: str = WEB, kind: RecordType = "A") -> bytes:
    message = dns.message.make_query(name, kind, id=0x1234)
    message.use_edns(0, 0, 1232)
    return message.to_wire()


def read(data: bytes, name: str = WEB, kind: RecordType = "A", transport: str = "udp") -> Reply:
    """As the resolver does: check, then walk to the end."""
    query = query_for(name, kind)
    asked = wire.question_of(query)
    wire.check(data, query, asked)
    walk = wire.read(data, Question(name, kind), len(asked), transport)
    while True:
        try:
            next(walk)
        except StopIteration as done:
            found: Reply = done.value
            return found


# ---- messages by hand --------------------------------------------------------------------------------------------


def rr(owner: bytes, kind: int, data: bytes, *, cls: int = 1, ttl: int = 5, length: int | None = None) -> bytes:
    return owner + pack(">HHIH", kind, cls, ttl, len(data) if length is None else length) + data


def message(
    answer: tuple[bytes, ...] = (),
    authority: tuple[bytes, ...] = (),
    additional: tuple[bytes, ...] = (),
    *,
    kind: RecordType = "A",
    rcode: int = 0,
    flags: int = 0x8400,
    counts: tuple[int, int, int] | None = None,
    tail: bytes = b"",
) -> bytes:
    query = query_for(kind=kind)
    question = wire.question_of(query)
    numbers = counts or (len(answer), len(authority), len(additional))
    records = b"".join((*answer, *authority, *additional))
    return query[:2] + pack(">5H", flags | rcode, 1, *numbers) + question + records + tail


def name(text: str) -> bytes:
    return dns.name.from_text(text).to_digestable()


POD = rr(TO_QUESTION, A, bytes((10, 244, 1, 1)))
FIRST = wire.HEADER + len(wire.question_of(query_for()))  # where the first record begins
WRONG = "an address of a wrong length"
NOT_BACK = "a pointer that does not lead back"
SRV_DATA = b"\0\0\0\x64\x1f\x90"


def alias(owner: bytes, target: bytes) -> bytes:
    return rr(owner, CNAME, target)


def aliases(count: int) -> list[bytes]:
    return [alias(name(f"{i}."), name(f"{i + 1}.")) for i in range(count)]


class Refusal(NamedTuple):
    says: str
    data: Callable[[], bytes]
    kind: RecordType = "A"
    error: type[Exception] = Malformed


def changed(at: int, value: bytes) -> Callable[[], bytes]:
    good = message((POD,))
    return lambda: good[:at] + value + good[at + len(value) :]


REFUSALS = [
    Refusal("bytes are no DNS message", lambda: b"\x12\x34\x84"),
    Refusal("another id", changed(0, b"\x12\x35"), error=Unexpected),
    Refusal("not a reply to a query", changed(2, b"\x04"), error=Unexpected),
    Refusal("not a reply to a query", changed(2, b"\xac"), error=Unexpected),  # opcode 5: an update
    Refusal("not exactly one question", changed(4, b"\0\0")),
    Refusal("not exactly one question", changed(4, b"\0\2")),
    Refusal("not exactly one question", lambda: message()[:4] + bytes(8)),  # NOERROR without a question
    Refusal("another question", changed(13, b"x"), error=Unexpected),
    Refusal("another question", changed(13, b"W"), error=Unexpected),  # its case is ours, or it is not for us
    Refusal("another question", changed(FIRST - 3, b"\x1c"), error=Unexpected),
    Refusal("another question", lambda: message()[: FIRST - 1], error=Unexpected),
    Refusal("bytes after the last record", lambda: message((POD,), tail=b"\0")),
    Refusal("bytes after the last record", lambda: message((POD, POD), counts=(1, 0, 0))),
    Refusal("a record runs out", lambda: message((POD[:11],))),
    Refusal("a record runs out", lambda: message((), (POD[:11],))),
    Refusal("a record's data runs out", lambda: message((POD[:-1],))),
    Refusal("a record's data runs out", lambda: message((), (POD[:-1],))),
    Refusal("a name runs out", lambda: message((POD,), counts=(65535, 0, 0))),
    Refusal("a name runs out", lambda: message((POD,), counts=(1, 65535, 0))),
    Refusal("a name runs out", lambda: message((POD,), counts=(1, 0, 65535))),
    Refusal(WRONG, lambda: message((rr(TO_QUESTION, A, bytes(5)),))),
    Refusal(WRONG, lambda: message((rr(TO_QUESTION, A, b""),))),
    Refusal(WRONG, lambda: message((rr(TO_QUESTION, AAAA, bytes(4)),), kind="AAAA"), "AAAA"),
    Refusal(WRONG, lambda: message((rr(TO_QUESTION, AAAA, bytes(4)),))),  # nobody's, but wrong
    Refusal(WRONG, lambda: message((), (), (rr(TO_QUESTION, A, bytes(3)),))),
    Refusal("two CNAMEs for one name", lambda: message(tuple(alias(TO_QUESTION, name(to)) for to in ("a.", "b.")))),
    Refusal("two SOAs for one name", lambda: message((), (rr(ROOT, SOA_TYPE, bytes(22)),) * 2)),
    Refusal("a second OPT record, or one with a name", lambda: message((), (), (rr(ROOT, OPT, b""),) * 2)),
    Refusal("a second OPT record, or one with a name", lambda: message((), (), (rr(TO_QUESTION, OPT, b""),))),
    Refusal("an OPT record outside of the additional section", lambda: message((rr(ROOT, OPT, b""),))),
    Refusal("an OPT record outside of the additional section", lambda: message((), (rr(ROOT, OPT, b"", cls=1232),))),
    Refusal("EDNS options of another length than they say", lambda: message((), (), (rr(ROOT, OPT, b"\0\3\0\2x"),))),
    Refusal("EDNS options of another length than they say", lambda: message((), (), (rr(ROOT, OPT, b"\0\3\0"),))),
    Refusal("16 CNAMEs or more, or a loop of them", lambda: message((alias(TO_QUESTION, TO_QUESTION),))),
    Refusal(
        "16 CNAMEs or more, or a loop of them",
        lambda: message((alias(TO_QUESTION, name("0.")), *aliases(15))),
    ),
    Refusal("NXDOMAIN, and records all the same", lambda: message((POD,), rcode=3)),
    Refusal("an SRV record too short", lambda: message((rr(TO_QUESTION, SRV, SRV_DATA),), kind="SRV"), "SRV"),
    Refusal(
        "an SRV record of another length than it says",
        lambda: message((rr(TO_QUESTION, SRV, SRV_DATA + name("a.") + b"x"),), kind="SRV"),
        "SRV",
    ),
    Refusal("an SRV record of another length than it says", lambda: message((rr(ROOT, SRV, SRV_DATA + b"\1"),) * 2)),
    Refusal("a CNAME of another length than it says", lambda: message((alias(TO_QUESTION, name("a.") + b"x"),))),
    Refusal("a CNAME of another length than it says", lambda: message((), (alias(ROOT, b"\0\0"),))),
    Refusal("a SOA of another length than it says", lambda: message((), (rr(ROOT, SOA_TYPE, bytes(23)),))),
    Refusal("a SOA of another length than it says", lambda: message((rr(ROOT, SOA_TYPE, bytes(21)),))),
    Refusal("a pointer runs out", lambda: message((b"\xc0",))),
    Refusal(NOT_BACK, lambda: message((rr(b"\xc0\x0b", A, bytes(4)),))),  # into the header
    Refusal(NOT_BACK, lambda: message((rr(b"\xc0" + bytes((FIRST,)), A, bytes(4)),))),  # itself
    Refusal(NOT_BACK, lambda: message((rr(b"\xc0\xff", A, bytes(4)),))),
    Refusal("a label of a reserved kind", lambda: message((rr(b"\x40a\0", A, bytes(4)),))),
    Refusal("a label of a reserved kind", lambda: message((rr(b"\x80a\0", A, bytes(4)),))),
    Refusal("a label runs out, or a name has more than 255 bytes", lambda: message((b"\5abc",))),
    Refusal("a label runs out, or a name has more than 255 bytes", lambda: message(((b"\x3f" + b"a" * 63) * 4 + POD,))),
    Refusal(
        "a label runs out, or a name has more than 255 bytes",  # a name that a pointer leads through itself
        lambda: message((rr(ROOT, TXT, b"\5abc"), rr(pointer(FIRST + 11), A, bytes(4)))),
    ),
    Refusal("a name runs out", lambda: message((rr(ROOT, TXT, b"\3abc"), rr(pointer(FIRST + 11), A, bytes(4))))),
    Refusal("a name of more than 255 bytes, or of more than 16 pointers", lambda: chains(17, b"\1a")),
    Refusal(
        "a name of more than 255 bytes, or of more than 16 pointers",
        lambda: message((rr((b"\x3f" + b"a" * 63) * 3 + b"\x27" + b"b" * 39 + TO_QUESTION, A, bytes(4)),)),
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.says.replace(" ", "-"))
def test_what_is_not_a_well_formed_reply_to_the_question_is_refused(refusal: Refusal) -> None:
    with pytest.raises(refusal.error, match=refusal.says):
        read(refusal.data(), kind=refusal.kind)


def test_every_refusal_of_the_walk_is_tried_above() -> None:
    sentences = {
        _words("".join(str(part.value) for part in ast.walk(call.args[0]) if isinstance(part, ast.Constant)))
        for call in ast.walk(ast.parse(inspect.getsource(wire)))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Malformed", "Unexpected")
    }
    assert len(sentences) > 20
    assert sentences == {_words(refusal.says.replace("16", "")) for refusal in REFUSALS}


def _words(text: str) -> str:
    return " ".join(text.split())


# ---- what is read ------------------------------------------------------------------------------------------------


def test_a_short_error_without_a_question_still_says_its_rcode() -> None:
    query = query_for()
    for rcode, text in ((1, "FORMERR"), (2, "SERVFAIL"), (4, "NOTIMP"), (5, "REFUSED"), (9, "RCODE9")):
        data = query[:2] + bytes((0x80, rcode)) + bytes(8)
        assert read(data) == Reply(text, transport="udp")


def test_an_extended_rcode_is_an_error_though_the_header_says_noerror() -> None:
    assert read(message((POD,), (), (rr(ROOT, OPT, b"", cls=1232, ttl=1 << 24),))).rcode == "RCODE16"
    assert read(message((POD,), (), (rr(ROOT, OPT, b"", cls=1232, ttl=0x8000),))).rcode == "NOERROR"


def test_a_ttl_with_its_highest_bit_set_is_zero_and_years_stay_years() -> None:
    assert read(message((rr(TO_QUESTION, A, bytes(4), ttl=0x8000_0000),))).ttl == 0
    assert read(message((rr(TO_QUESTION, A, bytes(4), ttl=0x7FFF_FFFF),))).ttl == 0x7FFF_FFFF
    assert read(message((POD, rr(TO_QUESTION, A, bytes(4), ttl=3)))).ttl == 3
    negative = read(message((), (rr(ROOT, SOA_TYPE, b"\0\0" + bytes(16) + b"\xff\xff\xff\xff", ttl=12),)))
    assert negative.negative_ttl == 12


def test_the_smallest_ttl_counts_over_chain_records_and_glue() -> None:
    srv = "_http._tcp." + WEB
    data = reply(
        query_for(srv, "SRV"),
        [f"{srv} 7 IN CNAME other.example.", "other.example. 60 IN SRV 0 1 80 a.example."],
        additional=["a.example. 30 IN A 10.0.0.1", "b.example. 1 IN A 10.0.0.2"],
    )
    found = read(data, srv, "SRV")
    assert (found.ttl, found.services, dict(found.glue)) == (7, [(80, "a.example.")], {"a.example.": [b"\x0a\0\0\1"]})
    glue = ["a.example. 30 IN A 10.0.0.1"]
    data = reply(query_for(srv, "SRV"), [f"{srv} 60 IN SRV 0 1 80 a.example."], additional=glue)
    assert read(data, srv, "SRV").ttl == 30


def test_a_negative_ttl_is_that_of_the_nearest_soa_above_the_name() -> None:
    other = "example. 1 IN SOA a. b. 1 2 3 4 1"
    root = ". 2 IN SOA a. b. 1 2 3 4 86400"
    assert read(reply(query_for(), authority=[other, SOA, root], rcode="NXDOMAIN")).negative_ttl == 5
    assert read(reply(query_for(), authority=[root, other])).negative_ttl == 2
    assert read(reply(query_for(), authority=[other])).negative_ttl is None
    chained = reply(query_for(), [f"{WEB} 3 IN CNAME x.example."], ["example. 60 IN SOA a. b. 1 2 3 4 60", SOA])
    assert read(chained).negative_ttl == 3, "the alias may point elsewhere by then"


def test_names_that_no_host_has_are_read_and_escaped() -> None:
    odd = "_http._tcp." + WEB
    target = r"a\.b\010\195c." + "example."
    found = read(reply(query_for(odd, "SRV"), [f"{odd} 5 IN SRV 0 1 80 {target}"]), odd, "SRV")
    assert found.services == [(80, r"a\046b\010\195c.example.")], "no dot that is none, no line feed for a log"
    assert dns.name.from_text(found.services[0][1]) == dns.name.from_text(target), "and it can be asked for"
    dotted = r"cluster.local. 5 IN SOA ns.cluster.local. first\.last.example. 1 2 3 4 5"
    assert read(reply(query_for(), authority=[dotted])).negative_ttl == 5


def test_records_of_no_interest_are_passed_over_unread() -> None:
    strange = rr(TO_QUESTION, 65280, b"\xff" * 9), rr(TO_QUESTION, TXT, b"\xff"), rr(TO_QUESTION, A, b"", cls=3)
    found = read(message((*strange, POD), strange, strange))
    assert found.addresses == {bytes((10, 244, 1, 1))}


def test_fifteen_aliases_are_followed_in_any_order_and_a_record_beats_an_alias() -> None:
    chain = [alias(TO_QUESTION, name("0.")), *aliases(14)]
    last = rr(name("14."), A, bytes((10, 0, 0, 1)))
    assert read(message((last, *reversed(chain)))).addresses == {bytes((10, 0, 0, 1))}
    assert read(message((alias(TO_QUESTION, name("14.")), last, POD))).addresses == {bytes((10, 244, 1, 1))}


# ---- what the worst message costs --------------------------------------------------------------------------------


class Counted(bytes):
    """Bytes that count how often they are looked at: a measure of work that no busy machine changes."""

    looks = 0

    def __getitem__(self, index: SupportsIndex | slice) -> object:  # type: ignore[override]
        Counted.looks += 1
        return super().__getitem__(index)


def pointer(to: int) -> bytes:
    return (0xC000 | to).to_bytes(2, "big")


def a_pile_of(record: bytes, *, before: bytes = b"") -> bytes:
    """As many records as 65 535 bytes hold, after one that carries `before` as data nobody reads."""
    first = rr(ROOT, TXT, before)
    count = (65535 - FIRST - len(first)) // len(record)
    return message((first, record * count), counts=(count + 1, 0, 0))


def entering(data: bytes, places: list[int]) -> bytes:
    """As many records as fit, whose names lie in the unread data of the first one, each entering it elsewhere."""
    entries = [rr(pointer(FIRST + 11 + place), TXT, b"") for place in places]
    room = (65535 - FIRST - 11 - len(data)) // 12
    records = (entries * (room // len(entries) + 1))[:room]
    return message((rr(ROOT, TXT, data), *records), counts=(len(records) + 1, 0, 0))


def chains(links: int, step: bytes) -> bytes:
    """Pointers that lead to pointers, with labels between them or not; the last ones are entered first."""
    data, places = bytearray(b"\0"), [0]
    for _ in range(links):
        data += step + pointer(FIRST + 11 + places[-1])
        places.append(len(data) - len(step) - 2)
    return entering(bytes(data), places[::-1])


def overlapping() -> bytes:
    """b"0" is a label's length (48) and a letter of other labels: every byte begins a name."""
    block = b"0" * 98 + bytes(49)
    return entering(block * 100, [147 * i + j for i in range(100) for j in range(98)])


WORST: dict[str, Callable[[], bytes]] = {
    "records of no length": lambda: a_pile_of(rr(ROOT, TXT, b"")),
    "addresses": lambda: a_pile_of(rr(TO_QUESTION, A, bytes(4))),
    "thousands of pointers": lambda: chains(8000, b""),
    "pointers between labels": lambda: chains(15, b"\1a"),
    "names of 127 labels": lambda: a_pile_of(rr(b"\1a" * 126 + ROOT, TXT, b"")),
    "overlapping labels": overlapping,
    "counts of 65535": lambda: message((POD,), counts=(65535, 65535, 65535)),
}


@pytest.mark.parametrize("worst", WORST)
def test_the_work_for_any_message_is_in_proportion_to_its_length(worst: str) -> None:
    data = WORST[worst]()
    assert len(data) <= 65535
    Counted.looks = slices = longest = before = 0
    walk = wire.read(Counted(data), Question(WEB, "A"), len(wire.question_of(query_for())), "tcp")
    is_read = False
    try:
        while True:
            next(walk)
            slices += 1
            longest, before = max(longest, Counted.looks - before), Counted.looks
    except StopIteration:
        is_read = True
    except Malformed:
        pass
    assert Counted.looks <= 2 * len(data) + 100
    # The loop gets its turn between slices. No slice can cost more than the part of a message that pointers can reach.
    assert longest <= 2 * 16384 + 4 * wire.SLICE
    assert is_read == (worst not in ("thousands of pointers", "counts of 65535"))
    if is_read:
        assert slices >= int.from_bytes(data[6:8], "big") // wire.SLICE


def test_a_thousand_pods_are_read_in_slices() -> None:
    pods = [f"10.1.{i >> 8}.{i & 255}" for i in range(1000)]
    data = reply(query_for(), addresses(WEB, pods))
    walk = wire.read(data, Question(WEB, "A"), len(wire.question_of(query_for())), "tcp")
    turns = sum(1 for _ in walk)
    assert turns == 1000 // wire.SLICE
    assert len(read(data).addresses) == 1000
    assert read(reply(query_for(), addresses(WEB, PODS))).addresses == {bytes((10, 244, 1, n)) for n in (1, 2, 3)}
