"""TLS is spoken to the Service, though a pod's address is dialled: its name is sent, and its name is verified."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from headlessconn.testing.zone import Listed, Port
from tests.adapters.conftest import Authority
from tests.adapters.world import Shop, get, shop

LONG = "orders.shop.svc.cluster.local"


@contextlib.asynccontextmanager
async def tls_shop(
    authority: Authority, *names: str, pods: int = 2, options: dict[str, Any] | None = None
) -> AsyncIterator[tuple[Shop, list[str | None]]]:
    """The pods show a certificate for `names`; the list fills with the server names that clients send."""
    sent: list[str | None] = []
    context = authority.serving(*names)
    context.sni_callback = lambda _object, name, _context: sent.append(name)
    async with shop(pods, ssl_context=context, options=options) as world:
        yield world, sent


async def test_the_services_name_is_sent_and_verified(authority: Authority) -> None:
    async with tls_shop(authority, "orders.shop") as (world, sent):
        async with world.session(connector=world.connector(ssl=authority.trusting)) as session:
            assert len({await get(session, world.url) for _ in range(20)}) == 2
        assert sent == ["orders.shop"] * 2, "one handshake a pod"


async def test_a_context_given_with_the_request(authority: Authority) -> None:
    async with tls_shop(authority, "orders.shop") as (world, sent), world.session() as session:
        await get(session, world.url, ssl=authority.trusting)
        assert sent == ["orders.shop"]


async def test_an_absolute_name_is_sent_without_its_final_dot(authority: Authority) -> None:
    async with tls_shop(authority, LONG) as (world, sent), world.session() as session:
        if not world.orders.port:
            pytest.skip("the long name has no target of its own where pods have ports of their own")
        await get(session, world.url.replace("orders.shop", f"{LONG}."), ssl=authority.trusting)
        assert sent == [LONG]


async def test_a_certificate_for_another_name_is_refused_as_aiohttp_refuses_it(authority: Authority) -> None:
    async with tls_shop(authority, "billing.shop") as (world, sent), world.session() as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"not valid for 'orders\.shop'"):
            await get(session, world.url, ssl=authority.trusting)
        assert sent == ["orders.shop"], "no other pod is tried: all have the same certificate"
        assert {member.state.value for member in world.view.members} == {"ready"}, "and it is no evidence against any"
        assert world.load == (0, 0)


async def test_an_unknown_authority_is_refused_as_aiohttp_refuses_it(authority: Authority) -> None:
    async with tls_shop(authority, "orders.shop") as (world, _), world.session() as session:
        for _ in range(10):
            with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"local issuer|self-signed"):
                await get(session, world.url)
        assert {member.state.value for member in world.view.members} == {"ready"}


async def test_a_pod_that_does_not_speak_tls_is_told_as_aiohttp_tells_it(authority: Authority) -> None:
    async with shop(1) as world, world.session() as session:
        with pytest.raises(aiohttp.ClientConnectorSSLError):
            await get(session, world.url.replace("http:", "https:"), ssl=authority.trusting)
        assert world.state(world.orders.pods[0]) == "ready"
        assert world.load == (0, 0)


async def test_a_server_name_given_with_the_request_is_respected(authority: Authority) -> None:
    async with tls_shop(authority, "internal.example") as (world, sent), world.session() as session:
        for _ in range(4):
            await get(session, world.url, ssl=authority.trusting, server_hostname="internal.example")
        assert set(sent) == {"internal.example"}
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match=r"not valid for 'orders\.shop'"):
            await get(session, world.url, ssl=authority.trusting)
        assert sent[-1] == "orders.shop", "a kept connection under the other name does not serve"


async def test_without_verification_the_name_is_still_sent(authority: Authority) -> None:
    async with tls_shop(authority, "whoever.example") as (world, sent), world.session() as session:
        await get(session, world.url, ssl=False)
        assert sent == ["orders.shop"]


async def test_two_services_of_one_pod_do_not_share_a_connection(authority: Authority) -> None:
    async with tls_shop(authority, "orders.shop", "billing.shop", pods=1) as (world, sent):
        [pod] = world.orders.pods
        world.cluster.zone.headless("billing.shop", [Listed(pod.address, (Port("http", pod.port),))])
        targets = {} if world.orders.port else {"orders.shop": "orders.shop:http", "billing.shop": "billing.shop:http"}
        async with world.session(connector=world.connector(ssl=authority.trusting, targets=targets)) as session:
            for _ in range(2):
                await get(session, world.url)
                await get(session, world.url.replace("orders", "billing"))
        assert sent == ["orders.shop", "billing.shop"]
        assert pod.accepted == 2
        assert [request.host.partition(":")[0] for request in pod.requests] == ["orders.shop", "billing.shop"] * 2


async def test_a_web_socket_over_tls(authority: Authority) -> None:
    async with tls_shop(authority, "orders.shop") as (world, sent), world.session() as session:
        async with session.ws_connect(f"{world.url}/ws".replace("https", "wss"), ssl=authority.trusting) as socket:
            await socket.send_str("hello")
            assert (await socket.receive()).data == "hello"
        assert sent == ["orders.shop"]


async def test_a_handshake_without_an_answer_goes_to_another_pod(authority: Authority) -> None:
    options = {"connect_timeout": 1.0}
    async with tls_shop(authority, "orders.shop", options=options) as (world, _), world.session() as session:
        await world.service.ready(2)
        frozen, well = world.orders.pods
        frozen.freeze()
        for _ in range(6):
            assert await get(session, world.url, ssl=authority.trusting) == well.name
        assert world.member(frozen).why == "dial timed out"
        assert world.load == (0, 0)
