"""The driver obeys one law, whatever its source does. In virtual time: a minute takes a millisecond."""

import asyncio
import contextlib
import itertools
import logging
import random

import pytest

from headlessconn._runtime.driver import MISSED, NAMED
from headlessconn.core.effects import Change
from headlessconn.core.endpoint import How, Key, address_of
from headlessconn.core.member import State
from headlessconn.core.pick import Pick
from headlessconn.errors import NoEndpoints
from tests.runtime.scripted_source import (
    NXDOMAIN,
    SERVFAIL,
    Stage,
    addresses,
    places,
    records,
    rounded,
    stage,
    until,
)
from tests.runtime.silent import accepting_port, refusing_port
from tests.runtime.virtual_time import in_virtual_time, now


async def pick(on: Stage) -> Pick:
    found = await on.driver.acquire()
    assert isinstance(found, Pick)
    return found


async def use(on: Stage, seconds: float) -> None:
    """A request every second, so that the target stays in use."""
    end = now() + seconds
    while now() < end:
        on.driver.ended(await pick(on), How.OK)
        await asyncio.sleep(min(1.0, end - now()))


# ---- asking -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_asks_by_itself_and_again_within_the_ttl() -> None:
    async with stage(records(1, 2)) as on:
        await use(on, 30.0)
        assert on.source.asked[0] == 0.0
        gaps = [later - earlier for earlier, later in itertools.pairwise(on.source.asked)]
        assert 1.0 <= gaps[0] <= 5.0, "the first is anywhere between, so that targets opened together part"
        assert all(4.499 <= gap <= 5.001 for gap in gaps[1:])
        assert len(gaps) in (6, 7)


@in_virtual_time
async def test_many_callers_share_one_look_up() -> None:
    async with stage(records(1, 2)) as on:
        on.source.after = 0.5
        picks = await asyncio.gather(*(pick(on) for _ in range(100)))
        assert on.source.asked == [0.0]
        assert now() == pytest.approx(0.5)
        for one in picks:
            on.driver.ended(one, How.OK)


@in_virtual_time
async def test_a_source_that_raises_is_logged_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with stage(ZeroDivisionError("a bug of ours")) as on:
        await until(0.5)
        assert on.driver.snapshot().trouble == "ZeroDivisionError: a bug of ours"
        [record] = caplog.records
        assert (record.name, record.levelname) == ("headlessconn", "ERROR")
        assert record.getMessage() == "web.shop:80: the look-up failed"
        assert record.exc_info is not None
        on.source.says = records(1)
        await until(1.5)
        assert rounded(on.source.asked) == [0.0, 1.0]
        assert on.listed == addresses(1)


@in_virtual_time
async def test_a_source_that_hangs_is_given_up_and_asked_again() -> None:
    async with stage(None) as on:
        await until(4.5)
        assert on.driver.snapshot().trouble == "the look-up never ended"
        on.source.says = records(1)
        await until(6.0)
        assert rounded(on.source.asked) == [0.0, pytest.approx(5.0, abs=0.11)]
        assert on.listed == addresses(1)


@in_virtual_time
async def test_a_source_that_answers_too_late_is_not_heard() -> None:
    async with stage(records(1)) as on:
        on.source.after = 20.0
        await until(0.1)
        on.source.says, on.source.after = records(2), 0.0
        await until(6.0)
        assert on.listed == addresses(2)
        await until(20.5)
        assert on.listed == addresses(2), "what it said after 20 s was about another time"


@in_virtual_time
async def test_an_outage_of_dns_empties_nothing() -> None:
    async with stage(records(1, 2)) as on:
        await until(1.0)
        on.source.says = SERVFAIL
        await use(on, 600.0)
        assert on.listed == addresses(1, 2)
        on.source.says = records(2, 3)
        await use(on, 6.0)
        assert on.listed == addresses(2, 3)


@in_virtual_time
async def test_the_first_word_is_whatever_the_first_look_up_brings() -> None:
    for says in (records(1), NXDOMAIN, SERVFAIL, OSError("no network")):
        async with stage(says) as on:
            on.source.after = 0.7
            began = now()
            await asyncio.gather(on.driver.first_word(), on.driver.first_word())
            assert now() - began == pytest.approx(0.7)
            await on.driver.first_word()
            assert now() - began == pytest.approx(0.7), "it has been said"


# ---- probes -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_pod_that_goes_on_refusing_stays_failing() -> None:
    with accepting_port() as good, refusing_port() as refusing:
        async with stage(places(good, refusing)) as on:
            await until(1.0)
            while True:
                one = await pick(on)
                if one.endpoint.port == refusing:
                    break
                on.driver.ended(one, How.OK)
            on.driver.dialled(one, How.REFUSED)
            on.driver.ended(one, How.REFUSED)
            assert [view.state for view in on.driver.snapshot().members].count(State.FAILING) == 1
            await use(on, 30.0)
            assert [view.state for view in on.driver.snapshot().members].count(State.FAILING) == 1


@in_virtual_time
async def test_a_pod_that_accepts_again_is_found_by_its_first_redial() -> None:
    with accepting_port() as good:
        async with stage(places(good)) as on:
            await until(1.0)
            one = await pick(on)
            on.driver.dialled(one, How.UNREACHABLE)
            on.driver.ended(one, How.UNREACHABLE)
            [view] = on.driver.snapshot().members
            assert view.state is State.FAILING
            await until(2.0)
            [view] = on.driver.snapshot().members
            assert (view.state, view.why) == (State.READY, "connected")


# ---- waiting callers --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_callers_wait_and_are_served_in_the_order_of_their_coming() -> None:
    async with stage(NXDOMAIN) as on:
        served: list[int] = []

        async def call(number: int) -> None:
            await asyncio.sleep(number / 100)
            one = await pick(on)
            served.append(number)
            on.driver.ended(one, How.OK)

        callers = [asyncio.create_task(call(number)) for number in random.Random(5).sample(range(50), 50)]
        await until(2.5)
        assert on.driver.snapshot().waiting == 50
        on.source.says = records(1)
        await asyncio.gather(*callers)
        assert served == list(range(50))
        assert now() <= 3.6, "while callers wait DNS is asked every second"
        assert on.driver.snapshot().waiting == 0


@in_virtual_time
async def test_a_caller_that_gives_up_makes_no_gap_in_the_queue() -> None:
    async with stage(NXDOMAIN) as on:
        callers = [asyncio.create_task(pick(on)) for _ in range(5)]
        await until(0.5)
        assert on.driver.snapshot().waiting == 5
        callers[1].cancel()
        callers[3].cancel()
        await until(0.6)
        assert on.driver.snapshot().waiting == 3
        on.source.says = records(1)
        ended = await asyncio.gather(*callers, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ended] == [False, True, False, True, False]
        view = on.driver.snapshot()
        assert (view.waiting, sum(member.in_flight for member in view.members)) == (0, 3)
        for one in ended:
            if isinstance(one, Pick):
                on.driver.ended(one, How.OK)


@in_virtual_time
async def test_a_caller_cancelled_in_the_moment_of_its_admission_loses_nothing() -> None:
    async with stage(NXDOMAIN) as on:
        callers = [asyncio.create_task(pick(on)) for _ in range(3)]
        await until(0.5)
        on.source.says = records(1)
        changes = on.driver.changes()
        await anext(changes)
        callers[0].cancel()  # its turn has come, and it has not run yet
        await changes.aclose()
        ended = await asyncio.gather(*callers, return_exceptions=True)
        view = on.driver.snapshot()
        picks = [one for one in ended if isinstance(one, Pick)]
        assert view.waiting == 0
        assert sum(member.in_flight for member in view.members) == len(picks) == 2
        for one in picks:
            on.driver.ended(one, How.OK)


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (NXDOMAIN, ["the last answer was NXDOMAIN, ", "without a ready pod"]),
        (SERVFAIL, ["the last answer was SERVFAIL. ", "never answered", "port 53"]),
        (None, ["the last answer was the look-up never ended. "]),
    ],
)
@in_virtual_time
async def test_who_waits_in_vain_is_told_what_dns_said(says: object, words: list[str]) -> None:
    async with stage(says) as on:  # type: ignore[arg-type]
        with pytest.raises(NoEndpoints) as caught:
            await on.driver.acquire()
        assert now() == pytest.approx(5.0)
        text = str(caught.value)
        assert text.startswith("no endpoints behind web.shop:80 after waiting 5.0 s; ")
        for word in words:
            assert word in text
        assert caught.value.waited == pytest.approx(5.0)
        if says is NXDOMAIN:
            assert caught.value.age is not None
            assert 0.0 <= caught.value.age <= 1.0
        assert on.driver.snapshot().waiting == 0


@in_virtual_time
async def test_zero_fails_at_once_and_a_number_is_kept() -> None:
    async with stage(NXDOMAIN) as on:
        for wait in (0.0, 0.25, 2.0):
            began = now()
            with pytest.raises(NoEndpoints) as caught:
                await on.driver.acquire(wait=wait)
            assert now() - began == pytest.approx(wait)
            assert caught.value.waited == pytest.approx(wait)
    async with stage(None) as on:
        with pytest.raises(NoEndpoints, match="the last answer was nothing yet"):
            await on.driver.acquire(wait=0.0)


@in_virtual_time
async def test_ready_waits_for_as_many_as_are_wanted() -> None:
    async with stage(NXDOMAIN) as on:
        waiting = asyncio.create_task(on.driver.ready(3, 60.0))
        await until(2.5)
        on.source.says = records(1, 2)
        await until(10.0)
        assert not waiting.done()
        on.source.says = records(1, 2, 3)
        assert await waiting is None
        assert now() <= 15.0
        assert await on.driver.ready(3, 0.0) is None
        missing = await on.driver.ready(4, 1.0)
        assert isinstance(missing, NoEndpoints)
        assert missing.waited == pytest.approx(1.0)


# ---- seeing -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_changes_are_read_as_they_come() -> None:
    async with stage(records(1, 2)) as on:
        seen: list[Change] = []

        async def read() -> None:
            seen.extend([change async for change in on.driver.changes()])

        reading = [asyncio.create_task(read()) for _ in range(2)]
        await until(0.5)
        on.source.says = records(2, 3)
        await use(on, 6.0)
        on.driver.close()
        await asyncio.gather(*reading)
        seen.sort(key=lambda change: change.at)
        assert [change.counts() for change in seen] == ["+2 -0 =2", "+2 -0 =2", "+1 -1 =2", "+1 -1 =2"]


@in_virtual_time
async def test_a_reader_that_does_not_keep_up_loses_the_oldest_changes() -> None:
    async with stage(records(1), refresh_min=0.05, refresh_max=0.05) as on:
        changes = on.driver.changes()
        first = await anext(changes)
        assert first.counts() == "+1 -0 =1"
        for number in range(MISSED + 50):
            on.source.says = records(1, 2) if number % 2 else records(1)
            on.driver.ended(await pick(on), How.OK)
            await asyncio.sleep(0.06)
        on.driver.close()
        left = [change.counts() async for change in changes]
        assert len(left) in (MISSED - 1, MISSED)
        assert set(left) == {"+1 -0 =2", "+0 -1 =1"}
        await changes.aclose()


@in_virtual_time
async def test_one_line_is_logged_for_each_change_of_membership(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headlessconn")
    async with stage(records(1, 2)) as on:
        await until(1.0)
        one = await pick(on)
        on.driver.dialled(one, How.UNREACHABLE)
        on.driver.ended(one, How.UNREACHABLE)
        on.source.says = records(2, 3)
        await use(on, 6.0)
        await use(on, 12.0)
        on.source.says = NXDOMAIN
        with contextlib.suppress(NoEndpoints):
            await use(on, 30.0)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert lines[0].startswith("web.shop:80: +2 -0 =2 +10.0.0.")
    assert lines[1] == "web.shop:80: +1 -1 =2 +10.0.0.3:80 -10.0.0.1:80"
    assert lines[2].startswith("web.shop:80: +0 -2 =0 -10.0.0.")
    assert {record.levelname for record in caplog.records} == {"INFO"}


@in_virtual_time
async def test_a_line_names_a_few_and_counts_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headlessconn")
    async with stage(records(*range(1, 31))):
        await until(1.0)
    [record] = caplog.records
    assert record.getMessage().startswith("web.shop:80: +30 -0 =30 +10.0.0.")
    assert record.getMessage().count(":80") == 1 + NAMED
    assert record.getMessage().endswith(f" and {30 - NAMED} more")


@in_virtual_time
async def test_nothing_is_logged_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "headlessconn")
    async with stage(records(1, 2)):
        await until(1.0)
    assert caplog.records == []


# ---- the law ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_whoever_leaves_is_forgotten_once_and_the_callback_may_call_back() -> None:
    async with stage(records(1, 2, 3)) as on:
        await until(1.0)
        forgotten: list[str] = []

        def forget(key: Key) -> None:
            forgotten.append(address_of(key))
            found = on.driver.pick()  # a fact raised while effects are carried out
            assert isinstance(found, Pick)
            on.driver.ended(found, How.REFUSED)

        on.driver.on_forget.add(forget)
        on.source.says = records(3)
        await use(on, 12.0)
        assert sorted(forgotten) == addresses(1, 2)
        assert on.listed == addresses(3)


@in_virtual_time
async def test_an_alarm_that_moves_earlier_is_heeded() -> None:
    async with stage(records(1, 2)) as on:
        await until(2.0)
        one = await pick(on)
        on.driver.ended(one, How.RESET)  # a hint
        await until(2.5)
        assert rounded(on.source.asked) == [0.0, 2.0]


@in_virtual_time
async def test_an_unused_target_sleeps_and_its_next_use_asks_first() -> None:
    async with stage(records(1, 2)) as on:
        await until(100.0)
        assert on.keeper.told[0][1] == "idle"
        assert 60.0 <= on.keeper.told[0][0] <= 66.0
        asked = len(on.source.asked)
        await until(1000.0)
        assert len(on.source.asked) == asked
        on.source.says = records(3)
        one = await pick(on)
        assert address_of(one.key) == "10.0.0.3"
        [(woke_at, what)] = on.keeper.told[1:]
        assert (round(woke_at, 3), what) == (1000.0, "woke")
        on.driver.ended(one, How.OK)


@in_virtual_time
async def test_the_first_use_after_a_sleep_waits_a_tenth_of_a_second_at_most() -> None:
    async with stage(records(1)) as on:
        await until(100.0)
        on.source.after = 2.0
        one = await pick(on)
        assert now() == pytest.approx(100.1)
        assert address_of(one.key) == "10.0.0.1"
        on.driver.ended(one, How.OK)


@in_virtual_time
async def test_whoever_does_not_wait_gets_the_old_set_after_a_sleep() -> None:
    """`wait=0` means "do not wait for somebody to appear"; here somebody is known."""
    async with stage(records(1)) as on:
        await until(100.0)
        on.source.after = 2.0
        found = await on.driver.acquire(wait=0.0)
        assert isinstance(found, Pick)
        assert now() <= 100.1001
        on.driver.ended(found, How.OK)


@in_virtual_time
async def test_whoever_reads_changes_uses_the_target() -> None:
    async with stage(records(1)) as on:
        changes = on.driver.changes()
        assert (await anext(changes)).counts() == "+1 -0 =1"
        nextone = asyncio.ensure_future(anext(changes))
        await until(300.0)
        on.source.says = records(1, 2)
        await until(306.0)
        assert nextone.done()
        await changes.aclose()
