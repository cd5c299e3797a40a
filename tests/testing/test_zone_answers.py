"""The zone says what CoreDNS says. The rows were compared, reply by reply, with a live CoreDNS 1.13.2."""

import asyncio
import socket

import dns.flags
import dns.message
import pytest

from headlessconn.testing import Zone
from headlessconn.testing.zone import Listed, Port
from tests.testing.asking import addresses, ask, lines, rcode

HTTP = (Port("http", 8080),)
SOA = "cluster.local. 5 SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5"


def small_cluster() -> Zone:
    zone = Zone()
    zone.namespace("empty")
    zone.headless("web.shop", [Listed(f"10.244.1.{n}", HTTP) for n in (31, 32, 33)])
    zone.headless("nobody.shop", [])
    zone.headless("unnamed.shop", [Listed("10.244.1.31", (Port("", 8080),))])
    zone.headless("portless.shop", [Listed("10.244.1.51")])
    zone.headless("twins.shop", [Listed("10.244.1.61", HTTP, "twin"), Listed("10.244.1.62", HTTP, "twin")])
    zone.headless("mixed.shop", [Listed("10.244.1.31", HTTP), Listed("10.244.2.41", (Port("http", 9191),))])
    zone.headless("six.shop", [Listed("fd00:10:244:1:2:3::", HTTP), Listed("fd00:10:244::9", HTTP)])
    zone.headless("db.data", [Listed(f"10.244.3.1{n}", (Port("mysql", 3306),), f"db-{n}") for n in (0, 1)])
    zone.cluster_ip("api.shop", ["10.96.7.10"], [Port("http", 80)], [Listed("10.244.1.21", HTTP)])
    zone.cluster_ip("dual.shop", ["10.96.7.11", "fd00:96::b"], [Port("http", 80)])
    zone.external_name("pay.shop", "pay.example.net")
    zone.external_name("alias.shop", "api.shop.svc.cluster.local")
    zone.external_name("dangling.shop", "gone.shop.svc.cluster.local")
    zone.external_name("ipname.shop", "192.0.2.99")
    zone.records("pay.example.net.", "60 A 192.0.2.80")
    zone.records("*.corp.example.", "60 A 203.0.113.99")
    zone.records("db.data.shop.svc.cluster.local.", "5 CNAME db.data.svc.cluster.local.")
    return zone


Said = tuple[str, list[str], list[str], list[str]]  # rcode, answer, authority, additional
NXDOMAIN: Said = ("NXDOMAIN", [], [SOA], [])
NODATA: Said = ("NOERROR", [], [SOA], [])


def records(*answer: str, glue: tuple[str, ...] = ()) -> Said:
    return "NOERROR", sorted(answer), [], sorted(glue)


@pytest.mark.parametrize(
    ("name", "rdtype", "said"),
    [
        pytest.param(
            "web.shop.svc.cluster.local.",
            "A",
            records(*(f"web.shop.svc.cluster.local. 5 A 10.244.1.{n}" for n in (31, 32, 33))),
            id="headless",
        ),
        pytest.param("web.shop.svc.cluster.local.", "AAAA", NODATA, id="other-family"),
        pytest.param("web.shop.svc.cluster.local.", "TXT", NODATA, id="other-type"),
        pytest.param("nobody.shop.svc.cluster.local.", "A", NXDOMAIN, id="nobody-ready"),
        pytest.param("nothing.shop.svc.cluster.local.", "A", NXDOMAIN, id="no-such-service"),
        pytest.param("web.nowhere.svc.cluster.local.", "A", NXDOMAIN, id="no-such-namespace"),
        pytest.param("shop.svc.cluster.local.", "A", NODATA, id="namespace"),
        pytest.param("empty.svc.cluster.local.", "A", NODATA, id="empty-namespace"),
        pytest.param("nowhere.svc.cluster.local.", "A", NXDOMAIN, id="missing-namespace"),
        pytest.param("svc.cluster.local.", "A", NODATA, id="svc"),
        pytest.param("cluster.local.", "A", NODATA, id="apex"),
        pytest.param("cluster.local.", "SOA", records(SOA), id="apex-soa"),
        pytest.param("web.cluster.local.", "A", NXDOMAIN, id="search-candidate"),
        pytest.param("10-244-1-21.shop.pod.cluster.local.", "A", NXDOMAIN, id="pods-disabled"),
        pytest.param(
            "dns-version.cluster.local.", "TXT", records('dns-version.cluster.local. 28800 TXT "1.1.0"'), id="version"
        ),
        pytest.param(
            "_http._tcp.web.shop.svc.cluster.local.",
            "SRV",
            records(
                *(
                    f"_http._tcp.web.shop.svc.cluster.local. 5 SRV 0 33 8080 10-244-1-{n}.web.shop.svc.cluster.local."
                    for n in (31, 32, 33)
                ),
                glue=tuple(f"10-244-1-{n}.web.shop.svc.cluster.local. 5 A 10.244.1.{n}" for n in (31, 32, 33)),
            ),
            id="srv",
        ),
        pytest.param(
            "_http._tcp.mixed.shop.svc.cluster.local.",
            "SRV",
            records(
                "_http._tcp.mixed.shop.svc.cluster.local. 5 SRV 0 50 8080 10-244-1-31.mixed.shop.svc.cluster.local.",
                "_http._tcp.mixed.shop.svc.cluster.local. 5 SRV 0 50 9191 10-244-2-41.mixed.shop.svc.cluster.local.",
                glue=(
                    "10-244-1-31.mixed.shop.svc.cluster.local. 5 A 10.244.1.31",
                    "10-244-2-41.mixed.shop.svc.cluster.local. 5 A 10.244.2.41",
                ),
            ),
            id="srv-two-port-numbers",
        ),
        pytest.param(
            "_http._tcp.twins.shop.svc.cluster.local.",
            "SRV",
            records(
                "_http._tcp.twins.shop.svc.cluster.local. 5 SRV 0 50 8080 twin.twins.shop.svc.cluster.local.",
                glue=(
                    "twin.twins.shop.svc.cluster.local. 5 A 10.244.1.61",
                    "twin.twins.shop.svc.cluster.local. 5 A 10.244.1.62",
                ),
            ),
            id="srv-one-hostname-two-pods",
        ),
        pytest.param(
            "_http._tcp.six.shop.svc.cluster.local.",
            "SRV",
            records(
                "_http._tcp.six.shop.svc.cluster.local. 5 SRV 0 50 8080"
                " fd00-10-244-1-2-3--0.six.shop.svc.cluster.local.",
                "_http._tcp.six.shop.svc.cluster.local. 5 SRV 0 50 8080 fd00-10-244--9.six.shop.svc.cluster.local.",
                glue=(
                    "fd00-10-244-1-2-3--0.six.shop.svc.cluster.local. 5 AAAA fd00:10:244:1:2:3::",
                    "fd00-10-244--9.six.shop.svc.cluster.local. 5 AAAA fd00:10:244::9",
                ),
            ),
            id="srv-ipv6",
        ),
        pytest.param(
            "unnamed.shop.svc.cluster.local.",
            "SRV",
            records(
                "unnamed.shop.svc.cluster.local. 5 SRV 0 100 8080 10-244-1-31.unnamed.shop.svc.cluster.local.",
                glue=("10-244-1-31.unnamed.shop.svc.cluster.local. 5 A 10.244.1.31",),
            ),
            id="srv-bare-name-lists-unnamed-ports",
        ),
        pytest.param("_http._tcp.unnamed.shop.svc.cluster.local.", "SRV", NXDOMAIN, id="srv-unnamed"),
        pytest.param("_http._udp.web.shop.svc.cluster.local.", "SRV", NXDOMAIN, id="srv-wrong-protocol"),
        pytest.param("_grpc._tcp.web.shop.svc.cluster.local.", "SRV", NXDOMAIN, id="srv-wrong-port"),
        pytest.param("portless.shop.svc.cluster.local.", "SRV", NODATA, id="srv-portless"),
        pytest.param(
            "_http._tcp.mixed.shop.svc.cluster.local.",
            "A",
            records(
                "_http._tcp.mixed.shop.svc.cluster.local. 5 A 10.244.1.31",
                "_http._tcp.mixed.shop.svc.cluster.local. 5 A 10.244.2.41",
            ),
            id="address-of-an-srv-name",
        ),
        pytest.param(
            "db-0.db.data.svc.cluster.local.",
            "A",
            records("db-0.db.data.svc.cluster.local. 5 A 10.244.3.10"),
            id="stateful-pod",
        ),
        pytest.param("db-7.db.data.svc.cluster.local.", "A", NXDOMAIN, id="no-such-pod"),
        pytest.param(
            "api.shop.svc.cluster.local.", "A", records("api.shop.svc.cluster.local. 5 A 10.96.7.10"), id="cluster-ip"
        ),
        pytest.param(
            "10-244-1-21.api.shop.svc.cluster.local.",
            "A",
            records("10-244-1-21.api.shop.svc.cluster.local. 5 A 10.244.1.21"),
            id="cluster-ip-pod",
        ),
        pytest.param(
            "_http._tcp.dual.shop.svc.cluster.local.",
            "SRV",
            records(
                "_http._tcp.dual.shop.svc.cluster.local. 5 SRV 0 50 80 dual.shop.svc.cluster.local.",
                glue=(
                    "dual.shop.svc.cluster.local. 5 A 10.96.7.11",
                    "dual.shop.svc.cluster.local. 5 AAAA fd00:96::b",
                ),
            ),
            id="cluster-ip-srv",
        ),
        pytest.param(
            "pay.shop.svc.cluster.local.",
            "A",
            records("pay.shop.svc.cluster.local. 5 CNAME pay.example.net.", "pay.example.net. 60 A 192.0.2.80"),
            id="external-name",
        ),
        pytest.param(
            "alias.shop.svc.cluster.local.",
            "A",
            records(
                "alias.shop.svc.cluster.local. 5 CNAME api.shop.svc.cluster.local.",
                "api.shop.svc.cluster.local. 5 A 10.96.7.10",
            ),
            id="external-name-inside",
        ),
        pytest.param("dangling.shop.svc.cluster.local.", "A", NODATA, id="external-name-dangling"),
        pytest.param("ipname.shop.svc.cluster.local.", "A", NXDOMAIN, id="external-name-of-an-address"),
        pytest.param("_http._tcp.pay.shop.svc.cluster.local.", "SRV", NXDOMAIN, id="external-name-srv"),
        pytest.param("pay.shop.svc.cluster.local.", "SRV", NODATA, id="external-name-bare-srv"),
        pytest.param(
            "db.data.shop.svc.cluster.local.",
            "A",
            records(
                "db.data.shop.svc.cluster.local. 5 CNAME db.data.svc.cluster.local.",
                "db.data.svc.cluster.local. 5 A 10.244.3.10",
                "db.data.svc.cluster.local. 5 A 10.244.3.11",
            ),
            id="autopath",
        ),
    ],
)
async def test_the_zone_answers(name: str, rdtype: str, said: Said) -> None:
    async with small_cluster() as zone:
        for tcp in (False, True):
            reply = await ask(zone, name, rdtype, tcp=tcp)
            assert (
                rcode(reply),
                sorted(lines(reply.answer)),
                lines(reply.authority),
                sorted(lines(reply.additional)),
            ) == said
            assert reply.flags & dns.flags.AA
            assert not reply.flags & dns.flags.TC


async def test_other_zones_are_refused_until_something_is_served_there() -> None:
    async with small_cluster() as zone:
        assert rcode(await ask(zone, "web.shop.")) == "REFUSED"
        assert await addresses(zone, "web.corp.example.") == ["203.0.113.99"]
        assert rcode(await ask(zone, "corp.example.")) == "REFUSED"
        zone.serve("corp.example.")
        assert rcode(await ask(zone, "corp.example.")) == "NXDOMAIN"
        zone.serve(".")
        reply = await ask(zone, "web.shop.")
        assert rcode(reply) == "NXDOMAIN"
        assert not reply.flags & dns.flags.AA
        zone.records("*.corp.example.")
        assert rcode(await ask(zone, "web.corp.example.")) == "NXDOMAIN"


async def test_the_reply_keeps_the_case_of_the_question() -> None:
    async with small_cluster() as zone:
        reply = await ask(zone, "WeB.Shop.svc.CLUSTER.local.")
    assert str(reply.question[0].name) == "WeB.Shop.svc.CLUSTER.local."
    assert str(reply.answer[0].name) == "WeB.Shop.svc.CLUSTER.local."
    assert zone.queries[0].name == "web.shop.svc.cluster.local."


async def test_each_reply_is_shuffled_and_the_seed_decides_how() -> None:
    async def orders(seed: int) -> list[list[str]]:
        async with Zone(seed=seed) as zone:
            zone.headless("web.shop", [Listed(f"10.244.1.{n}", HTTP) for n in range(1, 9)])
            return [await addresses(zone, "web.shop.svc.cluster.local.") for _ in range(5)]

    first = await orders(1)
    assert len({tuple(order) for order in first}) == 5
    assert {tuple(sorted(order)) for order in first} == {tuple(sorted(first[0]))}
    assert await orders(1) == first
    assert await orders(2) != first


def many(count: int) -> list[Listed]:
    return [Listed(f"10.244.{20 + n // 250}.{1 + n % 250}", HTTP) for n in range(count)]


@pytest.mark.parametrize(
    ("count", "payload", "fitting"),
    [(29, None, 29), (30, None, 29), (30, 1232, 30), (73, 1232, 73), (74, 1232, 73), (74, 4096, 74), (30, 100, 28)],
)
async def test_what_does_not_fit_into_a_datagram_is_cut(count: int, payload: int | None, fitting: int) -> None:
    """The counts are those measured on CoreDNS for a question of this length."""
    async with Zone() as zone:
        zone.headless("xxx.shop", many(count))
        reply = await ask(zone, "xxx.shop.svc.cluster.local.", payload=payload)
        assert len(lines(reply.answer)) == fitting
        assert bool(reply.flags & dns.flags.TC) == (fitting < count)
        assert len(reply.to_wire()) <= max(512, payload or 0)
        assert len(await addresses(zone, "xxx.shop.svc.cluster.local.")) == count


async def test_a_cut_reply_holds_another_part_each_time() -> None:
    async with Zone() as zone:
        zone.headless("xxx.shop", many(250))
        replies = [lines((await ask(zone, "xxx.shop.svc.cluster.local.", payload=None)).answer) for _ in range(10)]
    assert {len(reply) for reply in replies} == {29}
    assert len({line for reply in replies for line in reply}) > 150


@pytest.mark.parametrize(("count", "answers", "glue"), [(6, 6, 6), (7, 7, 3), (8, 7, 0)])
async def test_srv_glue_is_cut_first(count: int, answers: int, glue: int) -> None:
    async with Zone() as zone:
        zone.headless("xxx.shop", many(count))
        reply = await ask(zone, "_http._tcp.xxx.shop.svc.cluster.local.", "SRV", payload=None)
    assert (len(lines(reply.answer)), len(lines(reply.additional))) == (answers, glue)
    assert bool(reply.flags & dns.flags.TC) == (glue < count)


async def test_not_even_tcp_carries_everything() -> None:
    async with Zone() as zone:
        zone.headless("xxx.shop", many(4200))
        reply = await ask(zone, "xxx.shop.svc.cluster.local.", tcp=True)
        assert len(lines(reply.answer)) == 4092
        assert reply.flags & dns.flags.TC
        reply = await ask(zone, "_http._tcp.xxx.shop.svc.cluster.local.", "SRV", tcp=True)
        assert 800 < len(lines(reply.answer)) < 1200
        assert reply.flags & dns.flags.TC


async def test_ttls_are_the_zones_or_the_services_own() -> None:
    async with Zone(ttl=30) as zone:
        zone.headless("web.shop", [Listed("10.244.1.1")])
        zone.headless("fast.shop", [Listed("10.244.1.2")], ttl=1)
        assert (await ask(zone, "web.shop.svc.cluster.local.")).answer[0].ttl == 30
        assert (await ask(zone, "fast.shop.svc.cluster.local.")).answer[0].ttl == 1
        zone.headless("fast.shop", [Listed("10.244.1.3")])
        assert (await ask(zone, "fast.shop.svc.cluster.local.")).answer[0].ttl == 1, "a new set keeps the old TTL"
        zone.set_ttl(2)
        zone.set_ttl(3, "fast.shop")
        assert (await ask(zone, "web.shop.svc.cluster.local.")).answer[0].ttl == 2
        assert (await ask(zone, "fast.shop.svc.cluster.local.")).answer[0].ttl == 3
        zone.set_ttl(3600)
        negative = (await ask(zone, "gone.shop.svc.cluster.local.")).authority[0]
        assert (negative.ttl, negative[0].minimum) == (300, 3600), "CoreDNS caps the SOA's TTL, not its minimum"


async def test_sets_are_replaced_and_every_change_is_logged() -> None:
    one, two, three = (Listed(f"10.244.1.{n}", HTTP) for n in (1, 2, 3))
    async with Zone() as zone:
        zone.headless("web.shop", [one, two])
        assert sorted(await addresses(zone, "web.shop.svc.cluster.local.")) == ["10.244.1.1", "10.244.1.2"]
        zone.headless("web.shop", [two, three])
        assert sorted(await addresses(zone, "web.shop.svc.cluster.local.")) == ["10.244.1.2", "10.244.1.3"]
        zone.headless("web.shop", [three, two])
        zone.headless("web.shop", [])
        assert rcode(await ask(zone, "web.shop.svc.cluster.local.")) == "NXDOMAIN"
        zone.headless("web.shop", [one])
        zone.delete("web.shop")
        zone.delete("web.shop")
        assert rcode(await ask(zone, "web.shop.svc.cluster.local.")) == "NXDOMAIN"
        assert rcode(await ask(zone, "shop.svc.cluster.local.")) == "NOERROR"
    assert [(change.service, change.added, change.removed) for change in zone.changes] == [
        ("web.shop", (one, two), ()),
        ("web.shop", (three,), (one,)),
        ("web.shop", (), (three, two)),
        ("web.shop", (one,), ()),
        ("web.shop", (), (one,)),
    ]
    assert [(query.name, query.type, query.transport) for query in zone.queries] == [
        ("web.shop.svc.cluster.local.", "A", "tcp"),
        ("web.shop.svc.cluster.local.", "A", "tcp"),
        ("web.shop.svc.cluster.local.", "A", "udp"),
        ("web.shop.svc.cluster.local.", "A", "udp"),
        ("shop.svc.cluster.local.", "A", "udp"),
    ]
    assert zone.changes[0].at <= zone.queries[0].at <= zone.changes[1].at
    assert zone.queries[0].client[0] == "127.0.0.1"


async def test_it_stops_and_comes_back_on_the_same_port() -> None:
    zone = Zone()
    with pytest.raises(RuntimeError, match="start"):
        _ = zone.nameserver
    zone.headless("web.shop", [Listed("10.244.1.1")])
    await zone.start()
    await zone.start()
    where = zone.nameserver
    assert await addresses(zone, "web.shop.svc.cluster.local.") == ["10.244.1.1"]
    await zone.stop()
    await zone.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", zone.port)
    async with zone:
        assert zone.nameserver == where
        assert await addresses(zone, "web.shop.svc.cluster.local.") == ["10.244.1.1"]


async def test_many_questions_on_one_connection() -> None:
    async with Zone() as zone:
        zone.headless("web.shop", many(40))
        reader, writer = await asyncio.open_connection("127.0.0.1", zone.port)
        queries = [dns.message.make_query("web.shop.svc.cluster.local.", "A") for _ in range(50)]
        whole = b"".join(len(wire).to_bytes(2) + wire for wire in (query.to_wire() for query in queries))
        for at in range(0, len(whole), 7):
            writer.write(whole[at : at + 7])
        for query in queries:
            reply = dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))
            assert query.is_response(reply)
            assert len(lines(reply.answer)) == 40
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (dns.message.make_query("cluster.local.", "AXFR").to_wire(), "REFUSED"),
        (dns.message.make_query("web.shop.svc.cluster.local.", "A", "CH").to_wire(), "REFUSED"),
        (b"\x12\x34\x28\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1", "NOTIMP"),
        (b"\x12\x34\1\0\0\1\0\0\0\0\0\0\xff\xff", "FORMERR"),
        (b"\x12\x34\1\0\0\0\0\0\0\0\0\0", "FORMERR"),
    ],
)
async def test_odd_questions_get_an_error_not_silence(query: bytes, said: str) -> None:
    async with Zone() as zone:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(("127.0.0.1", zone.port))
            await loop.sock_sendall(client, b"too short")
            await loop.sock_sendall(client, query)
            reply = dns.message.from_wire(await loop.sock_recv(client, 2000), ignore_trailing=True)
    assert reply.id == int.from_bytes(query[:2])
    assert rcode(reply) == said


@pytest.mark.parametrize("name", ["orders", "orders.shop.svc", "", "a.b.c"])
def test_a_service_is_named_by_service_and_namespace(name: str) -> None:
    with pytest.raises(ValueError, match=r"orders\.shop"):
        Zone().headless(name, [])


def test_what_dns_cannot_say_is_refused() -> None:
    zone = Zone()
    with pytest.raises(ValueError, match="whole number of seconds"):
        zone.headless("web.shop", [], ttl=0.5)
    with pytest.raises(ValueError, match="whole number of seconds"):
        Zone(ttl=-1)
    with pytest.raises(ValueError, match="60 A 192"):
        zone.records("a.example.", "60 A not-an-address")
    with pytest.raises(LookupError, match=r"nobody\.shop"):
        zone.set_ttl(5, "nobody.shop")
