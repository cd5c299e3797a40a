"""Hosts that are not the cluster's go aiohttp's own way, untouched; and what is named in `targets=` is balanced."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import aiohttp
import pytest

from headlessconn import Client
from headlessconn.adapters import _routes
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.errors import TargetError
from headlessconn.testing import EmbeddedCluster, Pod
from tests.adapters.world import OFTEN, PlainResolver, get, shop


def questions(cluster: EmbeddedCluster) -> int:
    return len(cluster.zone.queries)


# ---- hosts that never cost a query -----------------------------------------------------------------------------------


async def test_addresses_are_dialled_as_they_are() -> None:
    async with shop() as world, world.session() as session, Pod() as other:
        assert await get(session, other.url) == "pod"
        assert await get(session, world.orders.pods[0].url) == world.orders.pods[0].name
        assert questions(world.cluster) == 0


async def test_an_ipv6_address_is_dialled_as_it_is() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        async with Pod("six", "::1") as other, shop(0) as world, world.session() as session:
            assert await get(session, other.url) == "six"
            assert questions(world.cluster) == 0
    except OSError as error:
        pytest.skip(f"no ::1 here: {error}")


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "LocalHost"])
async def test_localhost_is_this_machine(host: str) -> None:
    async with shop(0) as world, Pod("local") as local:
        resolver = PlainResolver(localhost=("127.0.0.1", local.port), api_localhost=("127.0.0.1", local.port))
        async with world.session(connector=world.connector(resolver=resolver)) as session:
            assert await get(session, f"http://{host}:{local.port}") == "local"
        assert resolver.asked == [host.lower()]
        assert questions(world.cluster) == 0


async def test_names_of_the_hosts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.0.1\tDev.Shop  other.shop # orders.shop\n")
    monkeypatch.setattr(_routes, "HOSTS", str(hosts))
    async with shop() as world, Pod("mine") as mine:
        resolver = PlainResolver(dev_shop=("127.0.0.1", mine.port))
        async with world.session(connector=world.connector(resolver=resolver)) as session:
            assert await get(session, f"http://dev.shop:{mine.port}") == "mine"
            assert questions(world.cluster) == 0
            assert await get(session, world.url) != "mine", "what stands behind a # is not in the file"


async def test_the_hosts_file_is_read_again_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tmp_path / "hosts"
    monkeypatch.setattr(_routes, "HOSTS", str(hosts))
    async with shop() as world, Pod("mine") as mine:
        resolver = PlainResolver(early_shop=("127.0.0.1", mine.port), late_shop=("127.0.0.1", mine.port))
        async with world.session(connector=world.connector(resolver=resolver)) as session:
            for line, host in (("127.0.0.1 early.shop", "early.shop"), ("127.0.0.1 late.shop", "late.shop")):
                with hosts.open("a") as file:
                    file.write(f"{line}\n")
                assert await get(session, f"http://{host}:{mine.port}") == "mine"
        assert questions(world.cluster) == 0


async def test_a_name_that_cannot_be_a_service_costs_no_query() -> None:
    """Out of a cluster the search list is not the cluster's: then only names under its zone may be ours."""
    async with EmbeddedCluster() as cluster, Pod("elsewhere") as elsewhere:
        resolver = PlainResolver(www_example_org=("127.0.0.1", elsewhere.port))
        async with (
            Client(nameservers=[cluster.nameserver], search=["corp.example"], ndots=1) as client,
            aiohttp.ClientSession(connector=HeadlessConnector(client, resolver=resolver)) as session,
        ):
            assert await get(session, f"http://www.example.org:{elsewhere.port}") == "elsewhere"
        assert questions(cluster) == 0


# ---- hosts that DNS knows, elsewhere ---------------------------------------------------------------------------------


async def test_a_name_in_another_domain() -> None:
    async with shop() as world, Pod("foreign") as foreign:
        world.cluster.zone.records("api.example.org.", "A 127.0.0.99")
        resolver = PlainResolver(api_example_org=(foreign.address, foreign.port))
        async with world.session(connector=world.connector(resolver=resolver)) as session:
            for _ in range(5):
                assert await get(session, "http://api.example.org") == "foreign"
            asked = questions(world.cluster)
            for _ in range(5):
                await get(session, "http://api.example.org")
            assert questions(world.cluster) == asked, "the verdict stands, and nothing follows that name"
        assert resolver.asked == ["api.example.org"], "aiohttp keeps the connection as ever"
        assert [driver.engine.target.host for driver in world.client.hub().drivers()] == []


@pytest.mark.parametrize("host", ["api.corp.example", "orders.nowhere", "intranet"])
async def test_a_wildcard_of_the_nodes_own_domain(host: str) -> None:
    """Kubernetes appends the node's domain to the search list, and its wildcard then answers for everything."""
    async with shop() as world, Pod("foreign") as foreign:
        world.cluster.zone.records("*.corp.example.", "A 127.0.0.99")
        search = (*world.cluster.search, "corp.example")
        resolver = PlainResolver(**{host.replace(".", "_"): (foreign.address, foreign.port)})
        async with (
            Client(**{**world.cluster.resolver, **OFTEN, "search": search}) as client,
            aiohttp.ClientSession(connector=HeadlessConnector(client, resolver=resolver)) as session,
        ):
            assert await get(session, f"http://{host}:8080") == "foreign"
        assert resolver.asked == [host]


async def test_a_service_without_a_pod_is_not_mistaken_for_the_wildcard() -> None:
    async with shop(0) as world:
        world.cluster.zone.records("*.corp.example.", "A 127.0.0.99")
        search = (*world.cluster.search, "corp.example")
        options = {**world.cluster.resolver, **OFTEN, "search": search, "wait_for_endpoints": 0.3}
        async with Client(**options) as client:
            connector = HeadlessConnector(client, targets=world.targets, resolver=PlainResolver())
            async with aiohttp.ClientSession(connector=connector) as session:
                with pytest.raises(aiohttp.ClientConnectorError, match="NXDOMAIN"):
                    await session.get(world.url)


async def test_a_name_that_nobody_knows_fails_as_aiohttp_fails() -> None:
    async with shop() as world, world.session(connector=world.connector(resolver=PlainResolver())) as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError, match="the plain resolver does not know"):
            await session.get("http://nobody.example")


# ---- switched off, or cut off ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["off", "OFF", "0", "false", "no"])
async def test_headlessconn_off_passes_everything(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLESSCONN", value)
    async with shop(3) as world:
        [first, *_] = world.orders.pods
        resolver = PlainResolver(orders_shop=(first.address, first.port))
        connector = world.connector(resolver=resolver, targets=["orders.shop"])
        async with world.session(connector=connector) as session:
            assert {await get(session, world.url) for _ in range(10)} == {first.name}
        assert (resolver.asked, questions(world.cluster)) == (["orders.shop"], 0)


async def test_when_dns_has_never_answered_requests_go_the_plain_way_and_it_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    # Nobody has port 53 of 127.0.0.77: the kernel refuses at once, as a node's does whose DNS is down.
    resolv_conf.write_text("nameserver 127.0.0.77\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n")
    async with Pod("plain") as plain, Client(resolv_conf=str(resolv_conf), lookup_timeout=1.0) as client:
        resolver = PlainResolver(orders_shop=(plain.address, plain.port), billing_shop=(plain.address, plain.port))
        connector = HeadlessConnector(client, targets=["billing.shop:8080"], resolver=resolver)
        async with aiohttp.ClientSession(connector=connector) as session:
            with caplog.at_level(logging.WARNING, "headlessconn"):
                for _ in range(3):
                    assert await get(session, "http://orders.shop:8080") == "plain"
                    assert await get(session, "http://billing.shop:8080") == "plain"
    said = [record.getMessage() for record in caplog.records if "plain way" in record.getMessage()]
    assert [line.partition(":8080")[0] for line in said] == ["orders.shop", "billing.shop"]
    assert "DNS has never answered" in said[0]


async def test_once_dns_has_answered_its_silence_changes_nothing() -> None:
    async with shop(2) as world, world.session(connector=world.connector(resolver=PlainResolver())) as session:
        await get(session, world.url)
        with world.cluster.zone.trouble(silent=True):
            seen = {await get(session, world.url) for _ in range(20)}
        assert len(seen) == 2


# ---- targets ---------------------------------------------------------------------------------------------------------


async def test_a_target_outside_the_zone_is_balanced_when_it_is_named() -> None:
    async with shop(2) as world:
        if not world.orders.port:
            pytest.skip("an address of its own for every pod is needed")
        world.cluster.zone.records("pods.example.org.", *(f"A {pod.address}" for pod in world.orders.pods))
        port = world.orders.port
        async with world.session(connector=world.connector(targets=[f"pods.example.org:{port}"])) as session:
            assert len({await get(session, f"http://pods.example.org:{port}") for _ in range(20)}) == 2


async def test_a_target_with_a_named_port() -> None:
    async with shop(3) as world, world.session(connector=world.connector(targets=["orders.shop:http"])) as session:
        async with session.get("http://orders.shop/v1") as response:
            assert response.url.port == 80
        assert len({await get(session, "http://orders.shop") for _ in range(30)}) == 3
        assert {request.host for pod in world.orders.pods for request in pod.requests} == {"orders.shop"}


async def test_a_target_without_a_port_takes_the_urls() -> None:
    async with shop(2) as world:
        if not world.orders.port:
            pytest.skip("an address of its own for every pod is needed")
        async with world.session(connector=world.connector(targets=["orders.shop"])) as session:
            assert len({await get(session, world.url) for _ in range(20)}) == 2


async def test_a_mapping_gives_a_host_the_addresses_of_a_static_target() -> None:
    async with shop(2) as world:
        static = "static:///" + ",".join(f"{pod.address}:{pod.port}" for pod in world.orders.pods)
        async with world.session(connector=world.connector(targets={"legacy.example": static})) as session:
            assert len({await get(session, "http://legacy.example") for _ in range(20)}) == 2
        assert {request.host for pod in world.orders.pods for request in pod.requests} == {"legacy.example"}
        assert questions(world.cluster) == 0


async def test_a_mapping_may_name_one_port_of_a_host_and_leave_the_others() -> None:
    async with shop(2) as world, Pod("other port") as other:
        static = "static:///" + ",".join(f"{pod.address}:{pod.port}" for pod in world.orders.pods)
        resolver = PlainResolver(legacy_example=(other.address, other.port))
        connector = world.connector(targets={"legacy.example:8080": static}, resolver=resolver)
        async with world.session(connector=connector) as session:
            assert await get(session, "http://legacy.example:8080") in {pod.name for pod in world.orders.pods}
            assert await get(session, "http://legacy.example:9090") == "other port"


@pytest.mark.parametrize(
    ("targets", "says"),
    [
        ("orders.shop:8080", "takes several, not a single string"),
        (["orders.shop:70000"], "70000 is not between 1 and 65535"),
        (["orders.shop:0"], "0 is not between 1 and 65535"),
        (["http://orders.shop"], "not a URL"),
        (["10.0.0.1:80"], "an address, not a name"),
        (["static:///10.0.0.1:80"], "no host that a URL could name"),
        ({"orders": "static:///10.0.0.1"}, "has no port"),
        ({"static:///10.0.0.1:80": "orders.shop"}, "no host that a URL could name"),
        ({"orders shop": "orders.shop"}, "white space"),
    ],
)
async def test_a_wrong_target_is_refused_at_once(targets: list[str] | dict[str, str] | str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as raised:
        HeadlessConnector(targets=targets)
    assert isinstance(raised.value, ValueError)
    assert "a right one looks like" in str(raised.value)
