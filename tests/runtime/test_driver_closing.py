"""Closing a driver ends everything, and whoever waits is told."""

import asyncio

import pytest

from headlessconn.core.pick import NOBODY, Pick
from headlessconn.errors import ClosedError
from tests.runtime.scripted_source import NXDOMAIN, Stage, stage, until
from tests.runtime.virtual_time import in_virtual_time


async def pick(on: Stage) -> Pick:
    found = await on.driver.acquire()
    assert isinstance(found, Pick)
    return found


@in_virtual_time
async def test_closing_ends_everything() -> None:
    async with stage(None) as on:
        waiting = [asyncio.create_task(pick(on)) for _ in range(3)]
        word = asyncio.create_task(on.driver.first_word())
        await until(0.5)
        on.driver.close()
        on.driver.close()
        await on.driver.closed_tasks()
        assert on.source.cancelled == 1
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ended] == [ClosedError] * 3
        assert "web.shop:80 was closed" in str(ended[0])
        await word
        with pytest.raises(ClosedError):
            await on.driver.acquire()
        assert on.driver.pick() is NOBODY
        await until(600.0)
        assert on.source.asked == [0.0], "no timer is left"


@in_virtual_time
async def test_closing_ends_those_who_wait_for_readiness() -> None:
    async with stage(NXDOMAIN) as on:
        waiting = asyncio.create_task(on.driver.ready(1, 60.0))
        await until(0.5)
        on.driver.close()
        with pytest.raises(ClosedError):
            await waiting


@in_virtual_time
async def test_a_caller_cancelled_while_closing_makes_no_noise() -> None:
    async with stage(NXDOMAIN) as on:
        waiting = asyncio.create_task(pick(on))
        await until(0.5)
        on.driver.close()
        waiting.cancel()
        with pytest.raises((asyncio.CancelledError, ClosedError)):
            await waiting
        del waiting
