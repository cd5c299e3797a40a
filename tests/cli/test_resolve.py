"""`headlessconn resolve`: what each answer of DNS is called, as JSON and for people."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from headlessconn.cli.resolve import Found, Looked, look_up
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.testing import EmbeddedCluster
from headlessconn.testing.zone import Listed, Port
from tests.cli import command

HTTP = Port("http", 8080)
METRICS = Port("metrics", 9090)


async def looked_up(cluster: EmbeddedCluster, target: str, *, search: Sequence[str] = ()) -> Looked:
    found = search or cluster.search
    options = Options(nameservers=(cluster.nameserver,), search=tuple(found), ndots=5, lookup_timeout=1.0)
    return await look_up(Target.parse(target), options)


async def test_a_port_may_be_given_named_or_learnt() -> None:
    async with EmbeddedCluster(ttl=7) as cluster:
        cluster.zone.headless("web.shop", [Listed("10.0.0.10", (HTTP,)), Listed("10.0.0.9", (HTTP,))])
        given = (await looked_up(cluster, "web.shop:81")).resolution
        named = (await looked_up(cluster, "web:http")).resolution
        learnt = (await looked_up(cluster, "web.shop.svc.cluster.local.")).resolution

    assert given.endpoints == (Found("10.0.0.9", 81, None), Found("10.0.0.10", 81, None))
    label = "web.shop.svc.cluster.local."
    by_srv = (Found("10.0.0.9", 8080, f"10-0-0-9.{label}"), Found("10.0.0.10", 8080, f"10-0-0-10.{label}"))
    assert named.endpoints == learnt.endpoints == by_srv
    assert (given.name, named.name, learnt.name) == (label, f"_http._tcp.{label}", label)
    for found in (given, named, learnt):
        assert (found.outcome, found.rcode, found.ttl, found.negative_ttl) == ("ok", "NOERROR", 7, None)
        assert found.transport == "udp"


async def test_without_a_port_to_learn_the_addresses_are_shown_and_the_port_is_asked_for() -> None:
    async with EmbeddedCluster() as cluster:
        cluster.zone.headless("bare.shop", [Listed("10.0.0.9", ())])
        cluster.zone.headless("two.shop", [Listed("10.0.0.9", (HTTP, METRICS))])
        bare = await looked_up(cluster, "bare.shop.svc.cluster.local.")
        two = await looked_up(cluster, "two")
    assert bare.resolution.endpoints == two.resolution.endpoints == (Found("10.0.0.9", None, None),)
    assert bare.outcome == two.outcome == "ok"
    assert "no port" in bare.note
    assert "several ports (8080, 9090)" in two.note


@pytest.mark.parametrize(
    ("target", "outcome", "rcode"),
    [
        ("empty.shop.svc.cluster.local.:80", "nxdomain", "NXDOMAIN"),
        ("empty.shop.svc.cluster.local.", "nxdomain", "NXDOMAIN"),
        ("empty:80", "no_endpoints", "NXDOMAIN"),  # and not the wildcard of the node's own domain
        ("empty", "no_endpoints", "NXDOMAIN"),
        ("web.missing:80", "nxdomain", "NXDOMAIN"),
        ("six.shop:80", "ok", "NOERROR"),
        ("pay.shop:80", "nodata", "NOERROR"),
    ],
)
async def test_nobody_has_several_names(target: str, outcome: str, rcode: str) -> None:
    async with EmbeddedCluster() as cluster:
        cluster.zone.headless("empty.shop", [])
        cluster.zone.headless("six.shop", [Listed("fd00::6", (HTTP,))])
        cluster.zone.external_name("pay.shop", "gone.shop.svc.cluster.local")
        cluster.zone.records("*.corp.example.", "60 A 203.0.113.99")
        cluster.zone.serve("missing")
        search = (*cluster.search, "corp.example") if target.startswith("empty") else cluster.search
        looked = await looked_up(cluster, target, search=search)
    found = looked.resolution
    assert (found.outcome, found.rcode) == (outcome, rcode)
    if outcome != "ok":
        assert (found.endpoints, found.ttl, found.negative_ttl) == ((), None, 5)
        assert looked.note


async def test_no_answer_is_told_apart_from_nobody() -> None:
    async with EmbeddedCluster() as cluster:
        cluster.zone.headless("web.shop", [Listed("10.0.0.9", (HTTP,))])
        with cluster.zone.trouble(rcode="SERVFAIL"):
            broken = (await looked_up(cluster, "web:80")).resolution
        with cluster.zone.trouble(silent=True):
            silent = (await looked_up(cluster, "web:80")).resolution
        with cluster.zone.trouble(truncate=True):
            cut = (await looked_up(cluster, "web:80")).resolution
        with cluster.zone.trouble(truncate=True, transport="udp"):
            by_tcp = (await looked_up(cluster, "web:80")).resolution
    assert (broken.outcome, broken.rcode, broken.transport) == ("temporary_failure", "SERVFAIL", None)
    assert (silent.outcome, silent.rcode, silent.transport) == ("temporary_failure", None, None)
    assert (cut.outcome, cut.rcode, cut.endpoints, cut.transport) == ("partial", "NOERROR", (), "tcp")
    assert (by_tcp.outcome, by_tcp.transport, len(by_tcp.endpoints)) == ("ok", "tcp", 1)


async def test_the_json_form_is_one_object_on_stdout() -> None:
    async with EmbeddedCluster() as cluster:
        cluster.zone.headless("web.shop", [Listed("10.0.0.9", (HTTP,))])
        cluster.zone.headless("empty.shop", [])
        where = ["--nameserver", cluster.nameserver, "--ndots", "5"]
        for domain in cluster.search:
            where += ["--search", domain]
        found, nobody, human = await asyncio.gather(
            command.headlessconn("resolve", "web:8080", "--json", *where),
            command.headlessconn("resolve", "empty:8080", "--json", *where),
            command.headlessconn("resolve", "web:http", *where),
        )

    assert (found.code, found.stderr) == (0, "")
    assert json.loads(found.stdout) == {
        "name": "web.shop.svc.cluster.local.",
        "outcome": "ok",
        "rcode": "NOERROR",
        "endpoints": [{"address": "10.0.0.9", "port": 8080, "target": None}],
        "ttl": 5,
        "negative_ttl": None,
        "transport": "udp",
    }
    assert nobody.code == 1
    assert json.loads(nobody.stdout)["outcome"] == "no_endpoints"
    assert "pods' readiness" in nobody.stderr  # what to check, beside the data
    assert human == (
        0,
        "_http._tcp.web.shop.svc.cluster.local.  1 endpoint, TTL 5 s, by udp\n"
        "ADDRESS   PORT  TARGET\n"
        "10.0.0.9  8080  10-0-0-9.web.shop.svc.cluster.local.\n",
        "",
    )
