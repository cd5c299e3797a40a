"""`max_in_flight` and `max_waiting` as callers meet them: they wait in turn, are let in, time out, or are refused."""

import asyncio
from collections import Counter

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick
from headlessconn.errors import NoEndpoints, Overloaded
from tests.runtime.scripted_source import NXDOMAIN, Stage, records, stage
from tests.runtime.virtual_time import in_virtual_time, now


async def request(on: Stage, seconds: float, wait: float | None = None) -> float:
    """One request; when it was let in."""
    pick = await on.driver.acquire(wait=wait)
    assert isinstance(pick, Pick)
    began = now()
    try:
        await asyncio.sleep(seconds)
    finally:
        on.driver.answered(pick, False)
    return began


@in_virtual_time
async def test_callers_are_let_in_one_by_one_and_in_their_order() -> None:
    async with stage(records(1, 2), max_in_flight=2) as on:
        began = await asyncio.gather(*(request(on, 1.0) for _ in range(20)))
        assert began == sorted(began)
        assert list(Counter(began).values()) == [4] * 5
        assert on.driver.snapshot().waiting == 0


@in_virtual_time
async def test_callers_in_a_loop_do_not_starve_those_who_wait() -> None:
    async with stage(records(1), max_in_flight=1) as on:

        async def loop() -> None:
            for _ in range(50):
                await request(on, 0.1)

        busy = asyncio.ensure_future(loop())
        await asyncio.sleep(0.05)
        other = await asyncio.gather(*(request(on, 0.0) for _ in range(3)))
        assert max(other) - now() <= 0.2
        busy.cancel()
        await asyncio.wait([busy])


@in_virtual_time
async def test_who_waits_in_vain_is_told_what_is_full() -> None:
    async with stage(records(1, 2), max_in_flight=1) as on:
        holders = [asyncio.ensure_future(request(on, 60.0)) for _ in range(2)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded) as caught:
            await request(on, 1.0, wait=2.0)
        error = caught.value
        assert (error.endpoints, error.in_flight, error.max_in_flight, error.waiting) == (2, 2, 1, 0)
        assert error.waited == pytest.approx(2.0)
        assert not isinstance(error, NoEndpoints)
        with pytest.raises(Overloaded):
            await request(on, 1.0, wait=0.0)
        await asyncio.gather(*holders)


@in_virtual_time
async def test_one_too_many_waiting_is_refused_at_once() -> None:
    async with stage(records(1), max_in_flight=1, max_waiting=3) as on:
        holder = asyncio.ensure_future(request(on, 1.0))
        await asyncio.sleep(0.1)
        queue = [asyncio.ensure_future(request(on, 0.0)) for _ in range(3)]
        await asyncio.sleep(0.1)
        before = now()
        with pytest.raises(Overloaded, match=r"1 request in flight on 1 endpoint .* 3 callers waiting of at most 3"):
            await request(on, 1.0)
        assert now() == before
        await asyncio.gather(holder, *queue)
        await request(on, 0.0)


@in_virtual_time
async def test_a_queue_for_a_service_without_pods_has_an_end_too() -> None:
    async with stage(NXDOMAIN, max_waiting=10) as on:
        ends = await asyncio.gather(*(request(on, 0.0) for _ in range(15)), return_exceptions=True)
        assert Counter(type(end) for end in ends) == {NoEndpoints: 10, Overloaded: 5}


@in_virtual_time
async def test_a_caller_cancelled_just_when_it_was_let_in_passes_its_place_on() -> None:
    async with stage(records(1), max_in_flight=1) as on:
        pick = await on.driver.acquire()
        assert isinstance(pick, Pick)
        first, second = (asyncio.ensure_future(request(on, 0.0)) for _ in range(2))
        await asyncio.sleep(0.1)
        on.driver.ended(pick, How.OK)  # the first is let in, and has not yet heard of it
        first.cancel()
        assert await second == pytest.approx(now())
        assert first.cancelled()
        assert on.driver.snapshot().waiting == 0
