"""`service.open_connection()` against real pods: who is dialled, whose name TLS verifies, what is left at its end."""

import asyncio
import socket
import ssl

import pytest
import trustme

from headlessconn import Client
from headlessconn.core.member import State
from headlessconn.errors import DialFailed, OptionError
from tests.runtime.shop import shop, until


async def test_a_connection_to_one_of_the_pods() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        reader, writer = await service.open_connection()
        sock = writer.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
        assert writer.get_extra_info("peername")[:2] in world.places
        writer.write(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()
        assert all(view.in_flight == 0 for view in service.snapshot.members)


async def test_a_crashed_pod_is_passed_over_when_dialling() -> None:
    async with shop(pods=2) as world, world.client(race_after=60.0) as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        dead, alive = world.orders.pods
        world.orders.crash(dead)
        for _ in range(6):
            _, writer = await service.open_connection()
            assert writer.get_extra_info("peername")[:2] == (alive.address, alive.port)
            writer.close()
            await writer.wait_closed()
        assert len(service.snapshot.of(State.FAILING)) == 1


async def test_when_every_pod_refuses_it_says_so_and_recovers() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        for pod in world.orders.pods:
            world.orders.crash(pod)
        with pytest.raises(DialFailed) as caught:
            await service.open_connection()
        assert {where for where, _ in caught.value.tried} == {f"{p.address}:{p.port}" for p in world.orders.every}
        assert {why for _, why in caught.value.tried} == {"refused"}
        for pod in world.orders.every:
            await pod.start()
        _, writer = await service.open_connection()
        writer.close()
        await writer.wait_closed()


def contexts(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server called `name`, and for a client that trusts its authority."""
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_tls_verifies_the_services_name_though_an_address_is_dialled() -> None:
    server, trusting = contexts("orders.shop")
    async with shop(pods=2, ssl_context=server) as world, world.client() as client:
        service = client.service(world.orders.target)
        reader, writer = await service.open_connection(ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await writer.wait_closed()


async def test_a_certificate_for_another_name_is_refused_and_is_no_evidence() -> None:
    server, trusting = contexts("payments.shop")
    async with shop(pods=2, ssl_context=server) as world, world.client() as client:
        service = client.service(world.orders.target)
        for _ in range(6):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"orders\.shop"):
                await service.open_connection(ssl=trusting)
        assert len(service.snapshot.ready) == 2
        assert all(view.in_flight == 0 for view in service.snapshot.members)
        _, writer = await service.open_connection(ssl=trusting, server_hostname="payments.shop")
        writer.close()
        await writer.wait_closed()


async def test_a_static_target_has_no_name_to_verify() -> None:
    _, trusting = contexts("orders.shop")
    async with Client() as client:
        with pytest.raises(OptionError, match=r"option server_hostname: static:///127\.0\.0\.1:1 has no name"):
            await client.service("static:///127.0.0.1:1").open_connection(ssl=trusting)


@pytest.mark.parametrize("cancelled_after", [0, 1, 2, 3, 5, 8, 13, 21])
async def test_a_connection_given_up_at_any_step_leaves_nothing(cancelled_after: int) -> None:
    server, trusting = contexts("orders.shop")
    async with shop(pods=2, ssl_context=server) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        opening = asyncio.create_task(service.open_connection(ssl=trusting))
        for _ in range(cancelled_after):
            await asyncio.sleep(0)
        opening.cancel()
        try:
            _, writer = await opening
        except asyncio.CancelledError:
            pass
        else:
            writer.close()
            await writer.wait_closed()
        await until(lambda: all(view.in_flight == 0 for view in service.snapshot.members))
