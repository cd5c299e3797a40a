"""The pool: taking and giving back, following the pods, and its end. In virtual time, with a scripted DNS."""

import asyncio
import contextlib
import contextvars
import pickle
import threading
from collections import Counter

import pytest

from headlessconn.errors import ClosedError, HeadlessError, NoEndpoints, NotHeld, PoolTimeout, WrongLoop
from tests.runtime.pool_stage import Connection, Pooled, pods, pooled
from tests.runtime.scripted_source import NXDOMAIN, until
from tests.runtime.virtual_time import in_virtual_time, now

# ---- taking and giving back --------------------------------------------------------------------------------------


@in_virtual_time
async def test_one_connection_serves_one_caller_after_the_other() -> None:
    async with pooled(pods(1, 2, 3)) as world:
        first = await world.use(0.1)
        assert await world.use(0.1) is first
        assert world.database.did("open") == [first.number]


@in_virtual_time
async def test_many_callers_are_spread_over_all_pods() -> None:
    async with pooled(pods(1, 2, 3), max_size=9) as world:
        used = await world.together(27)
        assert world.database.spread == {1: 3, 2: 3, 3: 3}
        assert Counter(connection.number for connection in used) == {1: 9, 2: 9, 3: 9}
        assert world.members == {1: 3, 2: 3, 3: 3}


@in_virtual_time
async def test_nothing_is_opened_before_the_first_use() -> None:
    async with pooled(pods(1), min_size=2) as world:
        await until(10.0)
        assert world.database.log == []
        assert str(world.pool.snapshot) == "0 busy, 0 idle, 0 opening of 10, 0 waiting"
        async with world.pool as pool:
            await pool.ready()
            assert world.database.spread == {1: 2}


@in_virtual_time
async def test_a_caller_waits_at_most_his_time_and_hears_who_holds_what() -> None:
    async with pooled(pods(1), max_size=2) as world:
        await world.use(0.0)
        held = [await world.pool.acquire() for _ in range(2)]
        began = now()
        with pytest.raises(PoolTimeout) as raised:
            async with world.pool.acquire(timeout=7.0):
                pass
        assert now() - began == pytest.approx(7.0)
        error = raised.value
        assert isinstance(error, HeadlessError)
        assert isinstance(error, TimeoutError)
        assert (error.size, error.limit, error.waiting, error.opening) == (2, 2, 0, 0)
        assert [holder.partition(":")[0] for holder in error.holders] == ["runtime/test_pool.py"] * 2
        assert "for 7.0 s (to 127.0.0.1:1)" in error.holders[0]
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        began = now()
        with pytest.raises(PoolTimeout):
            await world.use(0.0)
        assert now() - began == pytest.approx(30.0)
        for connection in held:
            world.pool.release(connection)


@in_virtual_time
async def test_the_place_that_is_named_is_that_of_the_caller() -> None:
    async with pooled(pods(1)) as world:

        async def wrapper() -> Connection:
            connection: Connection = await world.pool.acquire(level=1)
            return connection

        one = await wrapper()
        async with world.pool.acquire():
            places = [holder.place for holder in world.pool.snapshot.holders]
        assert len(set(places)) == 2
        assert all(place.startswith("runtime/test_pool.py:") for place in places)
        world.pool.release(one)


@in_virtual_time
async def test_zero_takes_only_what_is_free() -> None:
    async with pooled(pods(1)) as world:
        with pytest.raises(PoolTimeout):
            await world.pool.acquire(timeout=0)
        await until(1.0)
        async with world.pool.acquire(timeout=0) as connection:
            assert connection.number == 1


@in_virtual_time
async def test_a_connection_that_is_given_back_twice() -> None:
    async with pooled(pods(1)) as world:
        connection = await world.pool.acquire()
        world.pool.release(connection)
        with pytest.raises(NotHeld, match=r"to 127\.0\.0\.1:1 was given back already: it is idle now"):
            world.pool.release(connection)
        async with world.pool.acquire() as again:
            assert again is connection
            with pytest.raises(NotHeld, match="the end of that block gives it back"):
                world.pool.release(again)
        with pytest.raises(NotHeld, match="has not handed out this connection"):
            world.pool.release(Connection(1))
        assert await world.use(0.0) is connection, "whatever was tried, it is whole"


@in_virtual_time
async def test_what_a_caller_throws_away_is_closed_and_its_block_ends_in_peace() -> None:
    async with pooled(pods(1)) as world:
        async with world.pool.acquire() as connection:
            world.pool.discard(connection)
            await asyncio.sleep(1.0)
            assert connection.closed_at == pytest.approx(now() - 1.0)
        other = await world.pool.acquire()
        world.pool.release(other, broken=True)
        assert other is not connection
        await asyncio.sleep(0.1)
        assert world.pool.snapshot.closed == {"discarded": 2}
        with pytest.raises(NotHeld):
            world.pool.discard(other)


@in_virtual_time
async def test_steps_do_not_run_in_the_callers_context() -> None:
    trace = contextvars.ContextVar("trace", default="none")
    seen: list[str] = []
    async with pooled(pods(1)) as world:
        connect = world.database._do

        async def told(*what: object) -> None:
            seen.append(trace.get())
            await connect(*what)  # type: ignore[arg-type]

        world.database._do = told  # type: ignore[method-assign, assignment]
        async with world.pool:
            trace.set("of one caller")
            await world.use(0.0)
        assert set(seen) == {"none"}


@in_virtual_time
async def test_it_belongs_to_one_loop() -> None:
    async with pooled(pods(1)) as world:
        connection = await world.pool.acquire()

        raised: list[type[BaseException]] = []

        def elsewhere() -> None:
            for act in (lambda: world.pool.release(connection), lambda: asyncio.run(world.use(0.0))):
                try:
                    act()
                except WrongLoop as error:
                    raised.append(type(error))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert raised == [WrongLoop, WrongLoop]
        world.pool.release(connection)


# ---- following the pods ------------------------------------------------------------------------------------------


async def steady(world: Pooled, seconds: float, callers: int = 4, each: float = 0.1) -> None:
    """So many callers, one connection after the other."""
    end = now() + seconds

    async def caller() -> None:
        while now() < end:
            await world.use(each)

    await asyncio.gather(*[caller() for _ in range(callers)])


@in_virtual_time
async def test_a_new_pod_gets_its_share_of_idle_connections_and_no_more_move_than_must() -> None:
    async with pooled(pods(1, 2), max_size=12) as world:
        await world.together(12)
        assert world.database.spread == {1: 6, 2: 6}
        world.dns(pods(1, 2, 3))
        await until(70.0)
        assert world.database.spread == {1: 4, 2: 4, 3: 4}
        assert len(world.database.did("close")) == 4
        assert world.pool.snapshot.moves == 4


@in_virtual_time
async def test_a_new_pod_gets_its_share_while_all_are_in_use_and_nobody_fails() -> None:
    async with pooled(pods(1, 2), max_size=6) as world:
        work = asyncio.ensure_future(steady(world, 90.0, callers=9))
        await until(10.0)
        world.dns(pods(1, 2, 3))
        await work
        assert world.database.spread == {1: 2, 2: 2, 3: 2}
        assert len(world.database.did("close")) == 2
        assert world.pool.snapshot.failed == 0


@in_virtual_time
async def test_a_replacement_is_open_before_the_old_one_goes() -> None:
    async with pooled(pods(1, 2), max_size=12) as world:
        await world.together(12)
        world.dns(pods(1, 2, 3))
        fewest = 12
        while now() < 70.0:
            await asyncio.sleep(0.01)
            fewest = min(fewest, len(world.database.open))
        assert fewest == 12


@in_virtual_time
async def test_a_pod_that_leaves_loses_its_idle_connections_at_once_and_busy_ones_when_they_come_back() -> None:
    async with pooled(pods(1, 2), max_size=4) as world:
        await world.together(4)
        held = [await world.pool.acquire() for _ in range(2)]
        [busy] = [connection for connection in held if connection.number == 2]
        world.dns(pods(1))
        await until(6.0)
        assert world.database.spread == {1: 2, 2: 1}
        assert world.stage.listed == ["127.0.0.1"]
        for connection in held:
            world.pool.release(connection)
        await asyncio.sleep(0.1)
        assert busy.closed_at is not None
        assert world.database.spread == {1: 2}


@in_virtual_time
async def test_a_rolling_update_fails_nobody() -> None:
    """Each pod is replaced by a new one, under load; pods serve on for a while after they have left DNS."""
    async with pooled(pods(1, 2, 3), max_size=6) as world:
        work = asyncio.ensure_future(steady(world, 60.0))
        for step, numbers in enumerate([(2, 3, 4), (3, 4, 5), (4, 5, 6)]):
            await until(10.0 + 10.0 * step)
            world.dns(pods(*numbers))
        await work
        assert set(world.database.spread) <= {4, 5, 6}
        assert world.pool.snapshot.failed == 0
        assert world.pool.snapshot.turned_away == 0


@in_virtual_time
async def test_nobody_there_is_said_after_the_time_that_one_waits_for_an_endpoint() -> None:
    async with pooled(NXDOMAIN) as world:
        began = now()
        with pytest.raises(HeadlessError, match=r"no endpoints behind web\.shop:80 after waiting 5\.0 s"):
            await world.use(0.0)
        assert now() - began == pytest.approx(5.0)
        waiting = asyncio.ensure_future(world.use(0.0))
        await asyncio.sleep(2.0)
        world.dns(pods(7))
        assert (await waiting).number == 7


@in_virtual_time
async def test_who_comes_late_is_not_sent_away_by_what_another_waited_for() -> None:
    async with pooled(NXDOMAIN) as world:
        with pytest.raises(PoolTimeout):
            await world.pool.acquire(timeout=4.9)
        began = now()
        with pytest.raises(NoEndpoints):
            await world.use(0.0)
        assert now() - began > 5.0


@in_virtual_time
async def test_a_connection_that_nobody_ever_had_goes_with_its_pod_too() -> None:
    async with pooled(pods(1, 2)) as world:
        begun = [asyncio.ensure_future(world.use(0.0)) for _ in range(2)]
        await asyncio.sleep(0.01)
        for task in begun:
            task.cancel()
        await asyncio.sleep(0.1)
        assert world.database.spread == {1: 1, 2: 1}
        world.dns(pods(1))
        await until(6.0)
        assert world.database.spread == {1: 1}


# ---- its end -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_closing_waits_for_what_is_out_and_sends_away_who_waits() -> None:
    async with pooled(pods(1), max_size=1) as world:
        holder = asyncio.ensure_future(world.use(3.0))
        await asyncio.sleep(0.1)
        waiter = asyncio.ensure_future(world.use(0.0))
        await asyncio.sleep(0.1)
        began = now()
        await world.pool.aclose()
        assert 2.5 < now() - began < 3.1
        assert (await holder).closed_at is not None
        with pytest.raises(ClosedError, match="was closed"):
            await waiter
        with pytest.raises(ClosedError, match="make a new one"):
            await world.use(0.0)
        await world.pool.aclose()
        assert "closed" in repr(world.pool)


@in_virtual_time
async def test_what_never_comes_back_is_named_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(pods(1)) as world:
        leaked = await world.pool.acquire()
        began = now()
        await world.pool.aclose(timeout=2.0)
        assert now() - began == pytest.approx(2.0, abs=0.1)
        assert leaked.closed_at is not None
        [said] = [record.getMessage() for record in caplog.records if "while a connection was out" in record.message]
        assert "runtime/test_pool.py:" in said
        with contextlib.suppress(NotHeld):
            world.pool.release(leaked)


@in_virtual_time
async def test_closing_that_is_cancelled_can_be_done_again() -> None:
    async with pooled(pods(1)) as world:
        holder = asyncio.ensure_future(world.use(4.0))
        await asyncio.sleep(0.1)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await world.pool.aclose()
        await world.pool.aclose()
        assert (await holder).closed_at is not None


@in_virtual_time
async def test_closing_ends_dials_that_are_under_way() -> None:
    async with pooled(pods(1), min_size=3) as world:
        world.database.opens[1] = "hangs"
        async with world.pool:
            await asyncio.sleep(1.0)
            assert world.database.under_way["open"] > 0
        assert world.database.under_way["open"] == 0
