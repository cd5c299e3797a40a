"""Asking DNS over real sockets when servers, or strangers, do their worst: no crash, no hang, no growth, no part taken
for the whole.

Deadlines are asserted by what was said ("timeout"), not by a clock: a busy machine is slow, and right.
"""

import asyncio
import random
import socket
import tracemalloc
from collections.abc import Callable

import pytest

import headlessconn
import headlessconn._runtime.dns as dns_runtime
from headlessconn._runtime.dns import Resolver
from headlessconn.core.lookup import NEGATIVE_MAX, TTL_MAX, Question
from tests.runtime.scripted_dns import (
    PODS,
    SOA,
    WEB,
    Asked,
    Datagrams,
    OnTcp,
    Scripted,
    addresses,
    endpoints,
    framed,
    look_up,
    reply,
    settings,
    source,
)
from tests.runtime.test_wire_oracle import damaged, valid

TARGET = "web.shop.svc.cluster.local.:80"
WHOLE = [f"{pod}:80" for pod in PODS]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a second must not make a second try of one."""
    monkeypatch.setattr(dns_runtime, "TRY_TIMEOUT", 30.0)


def good(asked: Asked) -> Datagrams:
    return [reply(asked.wire, addresses(asked.name) if asked.type == "A" else (), [SOA])]


def with_id(datagram: bytes, ident: bytes) -> bytes:
    return ident + datagram[2:]


# ---- strangers ---------------------------------------------------------------------------------------------------


async def test_a_perfect_forgery_from_another_port_is_not_even_received() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as forger:
        forger.bind(("127.0.0.1", 0))

        def answer(asked: Asked) -> Datagrams:
            forger.sendto(reply(asked.wire, addresses(asked.name, ["203.0.113.66"])), asked.client)
            return good(asked)

        async with Scripted(answer) as server:
            assert endpoints(await look_up(TARGET, server)) == WHOLE


FORGERIES: dict[str, Callable[[Asked], bytes]] = {
    "another id": lambda asked: with_id(good(asked)[0], bytes((asked.wire[0] ^ 1, asked.wire[1]))),
    "another question": lambda asked: good(asked)[0].replace(b"\3web", b"\3wex"),
    "the question in another case": lambda asked: good(asked)[0].replace(b"\3web", b"\3wEb"),
    "another type": lambda asked: (lambda data: data[:39] + b"\0\x1c" + data[41:])(good(asked)[0]),
    "the query itself": lambda asked: asked.wire,
    "two questions": lambda asked: good(asked)[0][:4] + b"\0\2" + good(asked)[0][6:],
    "an empty datagram": lambda asked: b"",
    "half a header": lambda asked: b"\0\0\x84\0\0\1",
    "noise": lambda asked: random.Random(7).randbytes(500),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_is_not_the_reply_is_passed_over_and_the_reply_is_heard(forgery: str) -> None:
    async with Scripted(lambda asked: [*[FORGERIES[forgery](asked)] * 3, *good(asked)]) as server:
        assert endpoints(await look_up(TARGET, server)) == WHOLE
        assert len(server.asked) == 1


async def test_forgeries_alone_are_no_news() -> None:
    async with Scripted(lambda asked: [forge(asked) for forge in FORGERIES.values()]) as server:
        answer = await look_up(TARGET, server, lookup_timeout=0.2)
        assert (answer.kind, answer.why) == ("no_news", "timeout")


async def test_a_flood_of_forgeries_does_not_hold_the_loop() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with Scripted(lambda asked: [*[FORGERIES["another id"](asked)] * 100, *good(asked)]) as server:
        busy = asyncio.create_task(others())
        await asyncio.sleep(0)
        assert endpoints(await look_up(TARGET, server)) == WHOLE
        busy.cancel()
        assert turns >= 100, "whoever else runs on the loop gets a turn between two forgeries"


# ---- servers that talk nonsense ----------------------------------------------------------------------------------


async def test_damaged_replies_and_noise_never_fail_in_another_way() -> None:
    """Each look-up gets a reply of its own kind of damage, with the right id, and one of pure noise behind it."""
    dice = random.Random(11)

    def answer(asked: Asked) -> Datagrams:
        written = valid(dice)
        whole = good(asked)[0]
        torn = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            torn[dice.randrange(2, len(torn))] = dice.randrange(256)
        return [
            dice.choice([bytes(torn), whole[: dice.randrange(len(whole))], whole[:12] + dice.randbytes(60)]),
            with_id(damaged(written, dice), asked.wire[:2]),
            asked.wire[:2] + dice.randbytes(dice.randrange(300)),
        ]

    async with Scripted(answer) as server:
        options = settings(server, lookup_timeout=0.25)
        answers = await asyncio.gather(*(source(TARGET, options).look_up() for _ in range(150)))
    assert {answer.kind for answer in answers} <= {"records", "nobody", "no_news"}
    assert sum(answer.kind == "no_news" for answer in answers) > 50


@pytest.mark.parametrize(
    ("line", "ttl"),
    [("0 IN A", 0), ("2147483647 IN A", TTL_MAX), ("2147483648 IN A", 0), ("4294967295 IN A", 0), ("5 IN A", 5)],
)
async def test_a_ttl_of_zero_and_of_years(line: str, ttl: float) -> None:
    async with Scripted(lambda asked: [reply(asked.wire, [f"{asked.name} {line} 10.0.0.1"])]) as server:
        assert (await look_up(TARGET, server)).ttl == ttl


async def test_a_negative_ttl_of_years_is_minutes() -> None:
    soa = "cluster.local. 2147483647 IN SOA a. b. 1 2 3 4 2147483647"
    async with Scripted(lambda asked: [reply(asked.wire, authority=[soa], rcode="NXDOMAIN")]) as server:
        answer = await look_up(TARGET, server)
        assert (answer.kind, answer.why, answer.ttl) == ("nobody", "NXDOMAIN", NEGATIVE_MAX)


# ---- several servers ---------------------------------------------------------------------------------------------


def closed_port() -> str:
    """The address of a server that is not there: the kernel refuses at once."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


ELSEWHERE = ["203.0.113.66"]

LIARS: dict[str, Callable[[Asked], Datagrams]] = {
    "SERVFAIL": lambda asked: [reply(asked.wire, rcode="SERVFAIL")],
    "REFUSED": lambda asked: [reply(asked.wire, rcode="REFUSED")],
    "FORMERR without a question": lambda asked: [asked.wire[:2] + b"\x80\x01" + bytes(8)],
    "records and SERVFAIL": lambda asked: [reply(asked.wire, addresses(asked.name, ELSEWHERE), rcode="SERVFAIL")],
    "records and NXDOMAIN": lambda asked: [reply(asked.wire, addresses(asked.name, ELSEWHERE), rcode="NXDOMAIN")],
    "bytes left over": lambda asked: [good(asked)[0] + b"\0"],
    "a record cut short": lambda asked: [good(asked)[0][:-1]],
    "a reply cut in its question": lambda asked: [good(asked)[0][:20]],
}


@pytest.mark.parametrize("liar", LIARS)
async def test_of_three_servers_one_dead_and_one_lying_the_third_is_heard_and_remembered(liar: str) -> None:
    async with Scripted(LIARS[liar]) as lying, Scripted(good) as honest:
        looking = source(TARGET, settings(closed_port(), lying, honest))
        for times in (1, 2, 3):
            answer = await looking.look_up()
            assert endpoints(answer) == WHOLE
            assert (len(lying.asked), len(honest.asked)) == (1, times), "the good one is asked first from now on"


async def test_when_the_good_one_dies_the_others_have_their_turn() -> None:
    async with Scripted(good) as first:
        async with Scripted(good) as second:
            looking = source(TARGET, settings(second, first))
            assert endpoints(await looking.look_up()) == WHOLE
            assert (len(second.asked), len(first.asked)) == (1, 0)
        assert endpoints(await looking.look_up()) == WHOLE
        assert len(first.asked) == 1


async def test_three_dead_servers_are_tried_twice_and_said() -> None:
    answer = await look_up(TARGET, closed_port(), closed_port(), closed_port())
    assert (answer.kind, answer.why) == ("no_news", "connection refused")


async def test_three_silent_servers_end_with_the_look_up() -> None:
    async with Scripted() as a, Scripted() as b, Scripted() as c:
        answer = await look_up(TARGET, a, b, c, lookup_timeout=0.2)
        assert (answer.kind, answer.why) == ("no_news", "timeout")


async def test_a_silent_server_does_not_use_up_the_next_look_up_as_well() -> None:
    async with Scripted() as silent, Scripted(good) as honest:
        looking = source(TARGET, settings(silent, honest, lookup_timeout=0.3))
        assert (await looking.look_up()).why == "timeout"
        assert endpoints(await looking.look_up()) == WHOLE


async def test_a_server_that_fails_once_is_asked_again() -> None:
    async with Scripted() as server:
        server.on_udp = lambda asked: LIARS["SERVFAIL"](asked) if len(server.asked) == 1 else good(asked)
        assert endpoints(await look_up(TARGET, server)) == WHOLE
        assert len(server.asked) == 2


# ---- truncated, and TCP ------------------------------------------------------------------------------------------


def by_tcp_only(asked: Asked) -> Datagrams:
    """Everything by TCP, a third of it by UDP."""
    if asked.transport == "tcp":
        return good(asked)
    return [reply(asked.wire, addresses(asked.name, PODS[:1]), truncated=True)]


async def test_a_truncated_reply_is_fetched_by_tcp_and_so_is_the_next_at_once() -> None:
    async with Scripted(by_tcp_only) as server:
        looking = source(TARGET, settings(server))
        answer = await looking.look_up()
        assert (endpoints(answer), answer.transport) == (WHOLE, "tcp")
        assert endpoints(await looking.look_up()) == WHOLE
        assert [asked.transport for asked in server.asked] == ["udp", "tcp", "tcp"]


async def test_truncated_over_tcp_is_never_a_set() -> None:
    async with Scripted(lambda asked: [reply(asked.wire, addresses(asked.name, PODS[:2]), truncated=True)]) as server:
        answer = await look_up(TARGET, server)
        assert (answer.kind, answer.why, answer.keys) == ("no_news", "truncated over TCP", frozenset())


async def test_without_tcp_a_truncated_reply_is_no_news_and_a_smaller_set_is_heard_by_udp() -> None:
    async with Scripted(by_tcp_only, tcp=False) as server:
        looking = source(TARGET, settings(server))
        answer = await looking.look_up()
        assert (answer.kind, answer.why) == ("no_news", "connection refused")
        server.on_udp = good
        assert endpoints(await looking.look_up()) == WHOLE


async def by_drops(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte at a time, for ever."""
    for byte in framed(good(asked)[0][:3] + bytes(60000)):
        writer.write(bytes((byte,)))
        await asyncio.sleep(0.01)


async def without_end(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As much as it takes."""
    writer.write(framed(good(asked)[0][:12] + bytes(65523)))
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def then_silence(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(framed(good(asked)[0])[:-1])
    await reader.read()


async def then_the_end(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(framed(good(asked)[0])[:-1])


async def nothing_at_all(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(framed(b""))


async def somebody_elses(asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(framed(FORGERIES["another id"](asked)))


STREAMS: dict[OnTcp, str] = {
    by_drops: "timeout",
    then_silence: "timeout",
    without_end: "the reply to another question",
    then_the_end: "connection closed",
    nothing_at_all: "a malformed reply: 0 bytes are no DNS message",
    somebody_elses: "the reply to another question",
}


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.__name__)
async def test_tcp_that_drips_or_never_ends_costs_neither_time_nor_memory(stream: OnTcp) -> None:
    async with Scripted(by_tcp_only, stream) as server:
        tracemalloc.start()
        try:
            answer = await look_up(TARGET, server, lookup_timeout=0.3 if STREAMS[stream] == "timeout" else 10.0)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert answer.kind == "no_news"
    assert answer.why.startswith(STREAMS[stream])
    assert peak < 4_000_000, "a reply has 65 535 bytes at most, and the server of this test writes as much again"


# ---- one query in flight -----------------------------------------------------------------------------------------


async def test_a_question_is_never_in_flight_twice() -> None:
    async with Scripted(good) as server:
        options = settings(server)
        resolver = Resolver(options)
        ports = [source(f"web.shop.svc.cluster.local.:{port}", options, resolver) for port in (80, 81, 82)]
        answers = await asyncio.gather(*(port.look_up() for port in ports))
        assert [endpoints(answer)[0] for answer in answers] == ["10.244.1.1:80", "10.244.1.1:81", "10.244.1.1:82"]
        assert len(server.asked) == 1
        await ports[0].look_up()
        assert len(server.asked) == 2, "but replies are not kept"


async def test_who_joined_a_question_goes_on_when_whoever_asked_it_is_cancelled() -> None:
    async with Scripted() as server:
        resolver = Resolver(settings(server))
        first = asyncio.create_task(resolver.ask(Question(WEB, "A")))
        await server.more(1)
        second = asyncio.create_task(resolver.ask(Question(WEB, "A")))
        third = asyncio.create_task(resolver.ask(Question(WEB, "A")))
        await asyncio.sleep(0)
        third.cancel()
        server.on_udp = good
        first.cancel()
        assert len((await second).addresses) == 3
        assert len(server.asked) == 2
        assert first.cancelled()
        assert third.cancelled()


# ---- a set once good ---------------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[Asked], Datagrams]] = {
    **LIARS,
    "a part, truncated over TCP too": lambda asked: [
        reply(asked.wire, addresses(asked.name, PODS[:1]), truncated=True)
    ],
    "a part of another question": lambda asked: [FORGERIES["another question"](asked)],
    "a part with another id": lambda asked: [with_id(reply(asked.wire, addresses(asked.name, PODS[:1])), b"\0\0")],
    "silence": lambda asked: [],
    "noise": lambda asked: [asked.wire[:2] + random.Random(len(asked.wire)).randbytes(99)],
}


async def test_no_hostile_answer_replaces_a_good_set_by_a_part() -> None:
    async with (
        Scripted(good) as server,
        headlessconn.Client(settings(server, refresh_min=0.05, refresh_max=0.05, lookup_timeout=0.1)) as client,
    ):
        service = client.service(TARGET)
        await service.ready(3)
        changes = 0

        async def count() -> None:
            nonlocal changes
            async for _ in service.changes():
                changes += 1

        counting = asyncio.create_task(count())
        for hostile in HOSTILE.values():
            server.on_udp = hostile
            await server.more(3)  # whatever was under way, one look-up at least had nothing but this
            async with service.pick(wait=0) as pick:
                assert pick.host in PODS
            assert sorted(map(str, service.snapshot.endpoints)) == WHOLE
        assert changes == 0
        assert service.snapshot.trouble, "and it is said that DNS is in trouble"
        server.on_udp = lambda asked: [reply(asked.wire, addresses(asked.name, PODS[1:]))]
        while len(service.snapshot.endpoints) != 2:
            await server.more(1)
        counting.cancel()
        assert changes == 1, "an honest answer, though smaller, is believed"
