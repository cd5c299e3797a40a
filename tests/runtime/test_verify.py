"""`verify` on real sockets: a pod whose address somebody else got, and functions that cannot say."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import pytest

from headlessconn import Endpoint, Service
from headlessconn._runtime.checks import Checker
from headlessconn.core.effects import Verify
from headlessconn.core.endpoint import pack
from headlessconn.core.member import State
from headlessconn.core.target import Target
from headlessconn.core.verifying import WHY
from headlessconn.errors import NoEndpoints
from headlessconn.options import Options
from headlessconn.testing import Pod
from tests.runtime.shop import shop, until
from tests.runtime.unused import member, unused

ORDERS = Target.parse("orders.shop:8080")


async def name_behind(endpoint: Endpoint) -> str:
    """Who answers there."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{endpoint}/") as response:
        name: str = (await response.json())["pod"]
        return name


async def test_an_address_that_a_pod_of_another_service_got_is_left_out() -> None:
    asked: list[tuple[str, str]] = []

    async def is_ours(endpoint: Endpoint, host: str) -> bool:
        asked.append((str(endpoint), host))
        return (await name_behind(endpoint)).startswith("orders-")

    async with shop() as world, unused(world, verify=is_ours) as service:
        await until(lambda: len(asked) == 3)
        lost = world.orders.pods[1]
        place = lost.address, lost.port
        assert (f"{lost.address}:{lost.port}", "orders.shop") in asked
        await lost.stop()
        while member(service, lost).state is not State.FAILING:
            assert await peer_of(service) != place

        # DNS lags behind: it lists an address that now belongs to somebody else, who accepts and answers.
        async with Pod("billing-0", *place) as billing:
            await until(lambda: member(service, lost).state is State.EJECTED)
            assert member(service, lost).why == WHY
            assert place not in {await peer_of(service) for _ in range(30)}
            assert {request.path for request in billing.requests} == {"/"}, "verify has asked, and nobody else"
        await lost.start()
        await until(lambda: member(service, lost).state is State.READY)
        while await peer_of(service) != place:
            pass


async def peer_of(service: Service) -> tuple[str, int]:
    """Where a new connection of the Service leads."""
    _, writer = await service.open_connection()
    place: tuple[str, int] = writer.get_extra_info("peername")[:2]
    writer.close()
    await writer.wait_closed()
    return place


async def test_when_none_is_ours_nobody_gets_a_request_and_the_error_says_why() -> None:
    async with shop(pods=2) as world, unused(world, verify=lambda endpoint, host: False) as service:
        await until(lambda: len(service.snapshot.of(State.EJECTED)) == 2)
        with pytest.raises(NoEndpoints, match=r"`verify` said no to all 2 endpoints: check"):
            async with service.pick(wait=0):
                pass
        assert not [request for pod in world.orders.pods for request in pod.requests]


WISH = Verify(1, Endpoint.of(pack("10.0.0.1", 80)), 5.0)


async def raises(endpoint: Endpoint, host: str) -> bool:
    raise ConnectionRefusedError("nobody home")


async def hangs(endpoint: Endpoint, host: str) -> bool:
    await asyncio.Event().wait()
    return True


@pytest.mark.parametrize(
    ("verify", "said"),
    [
        (raises, "ConnectionRefusedError('nobody home')"),
        (hangs, "it took more than 0.05 s"),
        (lambda endpoint, host: None, "it returned None, neither True nor False"),
        (lambda endpoint: True, "TypeError"),
    ],
    ids=["raises", "hangs", "forgotten-return", "arguments"],
)
async def test_what_is_no_word_is_no_evidence_and_said_once(
    verify: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    checker = Checker(ORDERS, Options(verify=verify))
    for number in range(3):
        assert await checker.verify(Verify(number, WISH.endpoint, 0.05)) is None
    [record] = caplog.records
    assert (record.name, record.levelno) == ("headlessconn", logging.WARNING)
    assert record.getMessage().startswith("orders.shop:8080: verify said nothing about 10.0.0.1:80 (")
    assert said in record.getMessage()


async def test_a_plain_function_may_verify_too() -> None:
    told: list[tuple[Endpoint, str]] = []

    def verify(endpoint: Endpoint, host: str) -> bool:
        told.append((endpoint, host))
        return endpoint.address == "10.0.0.1"

    checker = Checker(ORDERS, Options(verify=verify))
    assert await checker.verify(WISH) is True
    assert await checker.verify(Verify(2, Endpoint.of(pack("10.0.0.2", 80)), 5.0)) is False
    assert told[0] == (WISH.endpoint, "orders.shop")


def test_in_a_thread_too(caplog: pytest.LogCaptureFixture) -> None:
    assert Checker(ORDERS, Options(verify=lambda endpoint, host: True)).verify_blocking(WISH) is True
    assert Checker(ORDERS, Options(verify=lambda endpoint, host: False)).verify_blocking(WISH) is False
    assert not caplog.records
    assert Checker(ORDERS, Options(verify=raises)).verify_blocking(WISH) is None
    assert "neither True nor False" in caplog.text, "no loop runs here: a coroutine is no word"
