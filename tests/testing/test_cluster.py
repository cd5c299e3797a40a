"""The embedded cluster: DNS and pods change together, in the order in which Kubernetes changes them."""

import asyncio
import ssl
import sys
from collections.abc import Callable

import aiohttp
import pytest
import trustme
from aiohttp import web

from headlessconn.testing import EmbeddedCluster, EmbeddedService, Pod
from tests.testing.asking import addresses, ask, lines, rcode

ALIASES = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on its loopback")


async def who_answers(pod: Pod) -> str:
    async with aiohttp.ClientSession() as session, session.get(pod.url, headers={"Host": "orders.shop"}) as response:
        return str((await response.json())["pod"])


async def in_dns(cluster: EmbeddedCluster, service: EmbeddedService) -> list[str]:
    return sorted(await addresses(cluster.zone, service.fqdn))


@ALIASES
async def test_a_service_is_in_dns_and_its_pods_serve() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=3)
        assert (orders.name, orders.fqdn) == ("orders.shop", "orders.shop.svc.cluster.local.")
        assert orders.target == f"orders.shop:{orders.port}"
        assert orders.url == f"http://orders.shop:{orders.port}"
        assert [pod.name for pod in orders.pods] == ["orders-0", "orders-1", "orders-2"]
        assert [pod.address for pod in orders.pods] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        assert {pod.port for pod in orders.pods} == {orders.port}
        assert await in_dns(cluster, orders) == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
        assert [await who_answers(pod) for pod in orders.pods] == ["orders-0", "orders-1", "orders-2"]
        assert orders.served == {"orders-0": 1, "orders-1": 1, "orders-2": 1}

        payments = await cluster.service("payments", namespace="billing", pods=1, port_name="grpc", ttl=30)
        assert payments.name == "payments.billing"
        assert payments.pods[0].address == "127.0.0.5", "no two pods share an address"
        reply = await ask(cluster.zone, "_grpc._tcp.payments.billing.svc.cluster.local.", "SRV")
        assert reply.answer[0].ttl == 30
        assert reply.answer[0][0].port == payments.port
        assert cluster.services == (orders, payments)


async def test_what_a_pods_resolv_conf_says() -> None:
    async with EmbeddedCluster("k8s.example", namespace="web") as cluster:
        assert cluster.nameserver == f"127.0.0.1:{cluster.zone.port}"
        assert cluster.search == ("web.svc.k8s.example", "svc.k8s.example", "k8s.example")
        assert cluster.ndots == 5
        assert cluster.resolver == {"nameservers": [cluster.nameserver], "search": list(cluster.search), "ndots": 5}
        assert rcode(await ask(cluster.zone, "web.svc.k8s.example.")) == "NOERROR", "the client's namespace exists"
        api = await cluster.service("api", pods=1)
        assert (api.name, api.fqdn) == ("api.web", "api.web.svc.k8s.example.")
        assert len(await in_dns(cluster, api)) == 1


@pytest.mark.parametrize("one_address", [True, pytest.param(False, marks=ALIASES)])
async def test_scaling_rolling_and_removing(one_address: bool) -> None:
    async with EmbeddedCluster(one_address=one_address) as cluster:
        orders = await cluster.service("orders", pods=0)
        assert rcode(await ask(cluster.zone, orders.fqdn)) == "NXDOMAIN"
        assert rcode(await ask(cluster.zone, "shop.svc.cluster.local.")) == "NOERROR"

        def listed() -> set[str]:
            return {pod.name for pod in orders.listed}

        await orders.scale(2)
        assert listed() == {"orders-0", "orders-1"}
        [third] = await orders.add()
        await orders.scale(3)
        assert third.name == "orders-2"
        await orders.scale(1, grace=0)
        assert listed() == {"orders-0"}
        assert not third.is_running
        await orders.scale(3)
        old = orders.pods
        await orders.roll(surge=2, grace=0)
        assert len(orders.pods) == 3
        assert not set(orders.pods) & set(old)
        assert not any(pod.is_running for pod in old)
        assert len(orders.every) == 8
        assert not {(pod.address, pod.port) for pod in orders.pods} & {(pod.address, pod.port) for pod in old}
        await orders.remove(orders.pods[0], grace=0)
        assert len(await srv(cluster, orders)) == 2
        await orders.scale(0, grace=0)
        assert rcode(await ask(cluster.zone, orders.fqdn)) == "NXDOMAIN"
        with pytest.raises(ValueError, match=r"orders\.shop"):
            await orders.scale(-1)
        with pytest.raises(ValueError, match="surge"):
            await orders.roll(surge=0)


async def srv(cluster: EmbeddedCluster, service: EmbeddedService) -> set[tuple[str, int]]:
    """What a client learns from SRV and its glue: addresses and ports."""
    reply = await ask(cluster.zone, f"_{service.port_name}._tcp.{service.fqdn}", "SRV", tcp=True)
    glue = {line.split()[0]: line.split()[-1] for line in lines(reply.additional)}
    return {(glue[line.split()[-1]], int(line.split()[-2])) for line in lines(reply.answer)}


async def test_where_there_is_one_address_the_ports_differ_and_srv_tells_them() -> None:
    async with EmbeddedCluster(one_address=True) as cluster:
        orders = await cluster.service("orders", pods=3, stateful=True)
        assert (orders.port, orders.target, orders.url) == (None, "orders.shop:http", "http://orders.shop")
        assert {pod.address for pod in orders.pods} == {"127.0.0.1"}
        assert len({pod.port for pod in orders.pods}) == 3
        assert await in_dns(cluster, orders) == ["127.0.0.1"]
        reply = await ask(cluster.zone, f"_http._tcp.{orders.fqdn}", "SRV")
        told = {line.split()[-1].partition(".")[0]: int(line.split()[-2]) for line in lines(reply.answer)}
        assert told == {pod.name: pod.port for pod in orders.pods}
        assert [await who_answers(pod) for pod in orders.pods] == ["orders-0", "orders-1", "orders-2"]


@ALIASES
async def test_a_rollout_has_the_new_pod_in_dns_before_the_old_one_goes() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=3)
        already = len(cluster.zone.changes)
        await orders.roll(surge=1, grace=0)
        steps = [
            "+" + one.address if change.added else "-" + one.address
            for change in cluster.zone.changes[already:]
            for one in change.added or change.removed
        ]
    assert steps == ["+127.0.0.5", "-127.0.0.2", "+127.0.0.6", "-127.0.0.3", "+127.0.0.7", "-127.0.0.4"]


@ALIASES
async def test_a_removed_pod_leaves_dns_at_once_and_serves_for_its_grace() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=2)
        leaving, staying = orders.pods
        removing = asyncio.create_task(orders.remove(leaving, grace=0.5))
        await asyncio.sleep(0)
        assert await in_dns(cluster, orders) == [staying.address]
        assert leaving.is_draining
        assert await who_answers(leaving) == "orders-0"
        await removing
        assert not leaving.is_running


@ALIASES
async def test_dns_may_lag_behind_a_pod_that_closed() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=2)
        leaving, staying = orders.pods
        removing = asyncio.create_task(orders.remove(leaving, close_listener_at_once=True, dns_lag=0.5))
        await leaving.until(lambda: not leaving.is_running)
        assert await in_dns(cluster, orders) == [leaving.address, staying.address]
        assert (orders.pods, orders.listed) == ((staying,), (leaving, staying))
        with pytest.raises(aiohttp.ClientConnectorError):
            await who_answers(leaving)
        await removing
        assert await in_dns(cluster, orders) == [staying.address]


@ALIASES
async def test_a_crashed_pod_stays_in_dns_until_it_is_unlisted_or_restarted() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=2)
        first, second = orders.pods
        orders.crash(first)
        assert orders.pods == (second,)
        assert await in_dns(cluster, orders) == [first.address, second.address]
        await first.start()
        assert await who_answers(first) == "orders-0"
        orders.unlist(first)
        orders.unlist(first)
        assert await in_dns(cluster, orders) == [second.address]
        assert await who_answers(first) == "orders-0", "not ready, though it serves"
        orders.list(first)
        orders.list(first)
        assert await in_dns(cluster, orders) == [first.address, second.address]
        assert orders.pod("orders-0") is first
        with pytest.raises(LookupError, match="orders-0, orders-1"):
            orders.pod("orders-7")


@ALIASES
async def test_stateful_pods_keep_their_names_and_change_their_addresses() -> None:
    async with EmbeddedCluster() as cluster:
        db = await cluster.service("db", namespace="data", pods=3, stateful=True, port_name="mysql")
        before = await addresses(cluster.zone, f"db-1.{db.fqdn}")
        assert before == [db.pod("db-1").address]
        await db.roll(grace=0)
        assert [pod.name for pod in db.pods] == ["db-0", "db-1", "db-2"]
        after = await addresses(cluster.zone, f"db-1.{db.fqdn}")
        assert after == [db.pod("db-1").address] != before
        await db.scale(2, grace=0)
        assert [pod.name for pod in db.pods] == ["db-0", "db-1"]
        assert rcode(await ask(cluster.zone, f"db-2.{db.fqdn}")) == "NXDOMAIN"


@ALIASES
async def test_a_cluster_ip_service_is_one_record() -> None:
    async with EmbeddedCluster() as cluster:
        api = await cluster.service("api", pods=2, headless=False)
        assert await in_dns(cluster, api) == ["10.96.0.1"]
        await api.scale(0, grace=0)
        assert await in_dns(cluster, api) == ["10.96.0.1"], "a virtual address stays, with nobody behind it"


async def test_pods_of_your_own_make() -> None:
    authority = trustme.CA()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("orders.shop").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)

    def application(pod: Pod) -> web.Application:
        async def name(request: web.Request) -> web.Response:
            return web.Response(text=f"I am {pod.name}")

        app = web.Application()
        app.router.add_get("/", name)
        return app

    async with EmbeddedCluster() as cluster, aiohttp.ClientSession() as session:
        orders = await cluster.service("orders", pods=2, app=application, ssl_context=server_side)
        assert orders.url.startswith("https://orders.shop")
        for pod in orders.pods:
            async with session.get(pod.url, ssl=client_side, server_hostname="orders.shop") as response:
                assert await response.text() == f"I am {pod.name}"


@ALIASES
async def test_an_address_whose_port_is_taken_is_left_out() -> None:
    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=1)
        async with Pod("stranger", "127.0.0.3", orders.port or 0):
            await orders.scale(3)
            assert [pod.address for pod in orders.pods] == ["127.0.0.2", "127.0.0.4", "127.0.0.5"]
            assert [pod.name for pod in orders.pods] == ["orders-0", "orders-1", "orders-2"]


@ALIASES
async def test_two_clusters_side_by_side() -> None:
    async with EmbeddedCluster() as one, EmbeddedCluster() as other:
        first, second = await one.service("orders", pods=2), await other.service("orders", pods=2)
        assert first.port != second.port
        assert one.nameserver != other.nameserver
        assert [await who_answers(pod) for pod in (*first.pods, *second.pods)] == ["orders-0", "orders-1"] * 2


async def test_nothing_is_left_of_it() -> None:
    before = asyncio.all_tasks()
    async with EmbeddedCluster() as cluster, aiohttp.ClientSession() as session:
        orders = await cluster.service("orders", pods=3)
        lasting = [asyncio.create_task(session.get(f"{pod.url}/slow?seconds=3600").__aenter__()) for pod in orders.pods]
        for pod in orders.pods:
            await pod.until(lambda pod=pod: pod.in_flight == 1)  # type: ignore[misc]
        rolling = asyncio.create_task(orders.roll(grace=3600))
        await orders.every[0].until(lambda: orders.every[0].is_draining)
        await cluster.stop()
        with pytest.raises(RuntimeError, match="cluster does not run"):
            await rolling
        ended = await asyncio.gather(*lasting, return_exceptions=True)
        assert all(isinstance(error, aiohttp.ClientError) for error in ended)
        assert not any(pod.is_running for pod in orders.every)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        (lambda cluster: cluster.service("orders"), "enter the cluster"),
        (lambda cluster: started_twice(cluster), "has a Service orders.shop already"),
    ],
)
async def test_misuse_is_told(misuse: Callable[[EmbeddedCluster], "asyncio.Future[None]"], said: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=said):
        await misuse(EmbeddedCluster())


async def started_twice(cluster: EmbeddedCluster) -> None:
    async with cluster:
        await cluster.service("orders", pods=0)
        await cluster.service("orders", pods=0)


async def test_a_cluster_may_be_entered_again() -> None:
    cluster = EmbeddedCluster()
    async with cluster:
        orders = await cluster.service("orders", pods=1)
        where = cluster.nameserver
    async with cluster:
        assert cluster.nameserver == where
        assert not orders.pods
        await orders.pod("orders-0").start()
        assert await who_answers(orders.pods[0]) == "orders-0"
