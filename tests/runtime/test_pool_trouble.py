"""The pool in trouble: hooks that fail, hang and lie, pods that refuse, connections that break. In virtual time."""

import asyncio
import logging
import ssl

import pytest

from headlessconn._runtime import faults
from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pooling import Fault
from headlessconn.errors import PoolTimeout
from tests.runtime.pool_stage import AccessDenied, Pooled, pods, pooled
from tests.runtime.scripted_source import until
from tests.runtime.virtual_time import in_virtual_time, now


def state(world: Pooled, number: int) -> State:
    members = world.stage.driver.snapshot().members
    [found] = [member.state for member in members if member.endpoint.address == f"127.0.0.{number}"]
    return found


# ---- open --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_pod_that_refuses_is_passed_by_and_the_engine_knows() -> None:
    async with pooled(pods(1, 2, 3), max_size=6) as world:
        world.database.opens[1] = "refuses"
        await world.together(6)
        assert world.database.spread == {2: 3, 3: 3}
        assert state(world, 1) is State.FAILING
        assert world.members == {1: 0, 2: 3, 3: 3}


@in_virtual_time
async def test_when_every_pod_refuses_the_caller_hears_why_at_the_end_of_his_time() -> None:
    async with pooled(pods(1, 2)) as world:
        world.database.opens = {1: "refuses", 2: "refuses"}
        with pytest.raises(PoolTimeout, match=r"dials failed, the last with 127\.0\.0\.[12]:1: Connection") as raised:
            async with world.pool.acquire(timeout=4.0):
                pass
        assert isinstance(raised.value.__cause__, ConnectionRefusedError)
        assert "See why the pods cannot be connected to" in str(raised.value)
        tries = len(world.database.did("open"))
        assert tries < 20, "less and less often"


@in_virtual_time
async def test_a_pod_that_accepts_and_says_nothing_keeps_no_caller_waiting() -> None:
    async with pooled(pods(1, 2), open_timeout=5.0) as world:
        world.database.opens[1] = "hangs"
        began = now()
        used = await world.together(4)
        assert {connection.number for connection in used} == {2}
        assert now() - began < 1.5
        await until(6.0)
        assert world.database.under_way["open"] == 0
        assert state(world, 1) is State.FAILING


@in_virtual_time
async def test_open_that_ignores_its_cancellation_holds_up_nothing() -> None:
    async with pooled(pods(1, 2), open_timeout=2.0) as world:
        world.database.opens[1] = "ignores cancellation"
        await world.together(4)
        await until(5.0)
        assert world.members[1] == 0
        await until(250.0)  # it does come, a hundred seconds later
        assert "came too late" in world.pool.snapshot.closed
        assert 1 not in world.database.spread


@in_virtual_time
async def test_open_that_returns_nothing_is_a_mistake_of_the_caller_and_he_hears_it() -> None:
    async with pooled(pods(1)) as world:
        world.database.opens[1] = "nothing"
        with pytest.raises(TypeError, match="open returned None: it must return the connection"):
            await world.use(0.0)


@in_virtual_time
async def test_an_error_that_every_pod_gives_is_raised_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with pooled(pods(1, 2)) as world:
        world.database.opens = {1: "denies", 2: "denies"}
        lengths = set()
        for _ in range(20):
            with pytest.raises(AccessDenied) as raised:
                await world.use(0.0)
            lengths.add(len(raised.traceback))
            assert "connect" in [entry.name for entry in raised.traceback], "it shows where in `open` it came from"
        assert len(lengths) == 1, "a traceback that grows with every raise"
        assert len(world.database.did("open")) == 2, "and no pod is asked each time"
        said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 2
        assert "no connection to 127.0.0.1:1: AccessDenied: access denied by 1" in "".join(said)
        world.database.opens.clear()
        await asyncio.sleep(1.0)
        await world.use(0.0)
        assert "can be connected to again" in caplog.text


@in_virtual_time
async def test_a_wrong_password_on_one_pod_leaves_it_out_with_the_reason() -> None:
    async with pooled(pods(1, 2, 3), max_size=6) as world:
        world.database.opens[2] = "denies"
        await world.together(12)
        assert world.database.spread == {1: 3, 3: 3}
        [trouble] = [pod.trouble for pod in world.pool.snapshot.pods if pod.trouble]
        assert trouble == "AccessDenied: access denied by 2"
        assert state(world, 2) is State.READY, "it is well, as far as others are concerned"
        await steady_until(world, 100.0)
        assert len(world.database.did("open")) < 20
        world.database.opens.clear()


async def steady_until(world: Pooled, at: float) -> None:
    while now() < at:
        await world.together(6)


@in_virtual_time
async def test_a_pod_with_too_many_connections_is_held_back_and_nobody_fails() -> None:
    async with pooled(pods(1, 2), max_size=4) as world:
        world.database.opens[1] = "full"
        assert {connection.number for connection in await world.together(4)} == {2}
        assert state(world, 1) is State.READY
        [held] = [pod for pod in world.pool.snapshot.pods if pod.held_for]
        assert held.trouble == "TooManyConnections: 1"


# ---- close, check, reset -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_close_that_hangs_is_given_up_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with pooled(pods(1), close_timeout=2.0) as world:
        world.database.closes[1] = "hangs"
        connection = await world.pool.acquire()
        world.pool.release(connection, broken=True)
        assert world.members == {1: 0}, "it does not count any more, whatever its close does"
        await asyncio.sleep(2.1)
        assert world.pool.snapshot.abandoned == 1
        assert world.database.under_way["close"] == 0
        assert "did not close (close_timeout)" in caplog.text


@in_virtual_time
async def test_a_close_that_ignores_its_cancellation_does_not_keep_the_pool_from_closing() -> None:
    async with pooled(pods(1), close_timeout=2.0) as world:
        world.database.closes[1] = "ignores cancellation"
        await world.use(0.0)
        began = now()
        await world.pool.aclose()
        assert now() - began < 4.0
        await asyncio.sleep(200.0)  # now it ends


@in_virtual_time
async def test_a_close_that_raises_is_an_end_too() -> None:
    async with pooled(pods(1)) as world:
        world.database.closes[1] = "raises"
        await world.use(0.0)
        await world.pool.aclose()
        assert world.pool.snapshot.closed == {"pool closed": 1}


@in_virtual_time
async def test_dead_connections_are_found_before_a_caller_has_them() -> None:
    async with pooled(pods(1, 2), "check", max_size=4) as world:
        await world.together(4)
        for connection in world.database.open:
            connection.dead = connection.number == 1
        await asyncio.sleep(10.0)
        used = await world.together(4)
        assert not any(connection.dead for connection in used)
        assert world.pool.snapshot.closed == {"failed its check": 2}
        assert state(world, 1) is State.READY, "a server may close what was idle"


@in_virtual_time
async def test_a_pod_whose_checks_hang_is_in_doubt_and_others_serve() -> None:
    async with pooled(pods(1, 2), "check", max_size=4) as world:
        await world.together(4)
        await asyncio.sleep(10.0)
        world.database.checks[1] = "hangs"
        began = now()
        used = await world.together(2)
        assert {connection.number for connection in used} == {2}
        assert now() - began < 1.0
        await asyncio.sleep(10.0)
        assert world.database.under_way["check"] == 0


@in_virtual_time
async def test_it_is_not_closed_while_its_check_still_runs() -> None:
    async with pooled(pods(1), "check", max_size=1, check_timeout=2.0) as world:
        await world.use(0.0)
        await asyncio.sleep(10.0)
        world.database.checks[1] = "ends slowly"
        began = now()
        await world.use(0.0)
        assert now() - began == pytest.approx(2.05)
        await asyncio.sleep(1.0)
        [closed_at] = [at for at, what, _ in world.database.log if what == "close"]
        assert closed_at - began == pytest.approx(2.5, abs=0.01)


@in_virtual_time
async def test_a_connection_comes_back_clean() -> None:
    async with pooled(pods(1), "reset", max_size=1) as world:
        async with world.pool.acquire() as connection:
            connection.dirty = True
        async with world.pool.acquire() as again:
            assert again is connection
            assert not again.dirty
        world.database.resets[1] = "raises"
        await world.use(0.0)
        world.database.resets.clear()
        assert await world.use(0.0) is not connection
        assert world.pool.snapshot.closed == {"reset failed": 1}


# ---- how the block ends ------------------------------------------------------------------------------------------


class LibraryError(Exception):
    """As a library raises it, with what the socket said as its cause."""


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ValueError("of the caller"), True),
        (KeyError("x"), True),
        (FileNotFoundError(2, "no such file"), True),
        (ConnectionResetError(104, "reset"), False),
        (BrokenPipeError(32, "broken"), False),
        (asyncio.IncompleteReadError(b"", 4), False),
        (TimeoutError(), False),
        (ConnectionRefusedError(111, "something else was dialled"), False),
    ],
    ids=repr,
)
@in_virtual_time
async def test_what_an_exception_says(error: Exception, kept: bool) -> None:
    async with pooled(pods(1)) as world:
        with pytest.raises(type(error)):
            await world.use(0.0, error)
        await asyncio.sleep(0.1)
        assert world.pool.snapshot.closed == ({} if kept else {"broken": 1})


@in_virtual_time
async def test_a_library_that_wraps_what_the_socket_said() -> None:
    async with pooled(pods(1)) as world:
        lost = LibraryError("2013, lost connection")
        lost.__cause__ = ConnectionResetError(104, "reset")
        with pytest.raises(LibraryError):
            await world.use(0.0, lost)
        await asyncio.sleep(0.1)
        assert world.pool.snapshot.closed == {"broken": 1}


@in_virtual_time
async def test_a_caller_who_is_cancelled_leaves_no_half_read_answer_to_the_next() -> None:
    async with pooled(pods(1)) as world:
        task = asyncio.ensure_future(world.use(10.0))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0.1)
        assert world.pool.snapshot.closed == {"cancelled in use": 1}
        assert state(world, 1) is State.READY


# ---- what errors of opening say ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "refused"), (Fault.UNREACHABLE, How.REFUSED)),
        (TimeoutError(), (Fault.UNREACHABLE, How.DIAL_TIMEOUT)),
        (OSError(113, "no route to host"), (Fault.UNREACHABLE, How.UNREACHABLE)),
        (asyncio.IncompleteReadError(b"", 4), (Fault.UNREACHABLE, How.RESET)),
        (asyncio.CancelledError(), (Fault.UNREACHABLE, How.CANCELLED)),
        (OSError(24, "too many open files"), (Fault.OURS, How.LOCAL)),
        (FileNotFoundError(2, "ca.pem"), (Fault.REFUSES, How.LOCAL)),
        (ssl.SSLCertVerificationError("expired"), (Fault.REFUSES, How.LOCAL)),
        (LibraryError("1045, access denied"), (Fault.REFUSES, How.CALLER)),
    ],
    ids=repr,
)
def test_what_an_error_of_open_says(error: BaseException, said: tuple[Fault, How]) -> None:
    assert faults.of_opening(error, None, None) == said
    wrapped = LibraryError("2003, cannot connect")
    wrapped.__cause__ = error
    assert faults.of_opening(wrapped, None, None) == said


def test_who_knows_the_library_is_heard_first() -> None:
    full = LibraryError("1040, too many connections")
    assert faults.of_opening(full, None, lambda error: "1040" in str(error)) == (Fault.FULL, How.CALLER)
    lost = LibraryError("2013, lost connection")
    assert faults.of_opening(lost, lambda error: True, None) == (Fault.UNREACHABLE, How.RESET)
    assert faults.of_using(lost, lambda error: True) == ("broken", How.RESET)
    assert faults.of_using(ConnectionResetError(), lambda error: False) == ("", How.OK)
    assert faults.of_using(ConnectionResetError(), lambda error: None) == ("broken", How.RESET)
    assert faults.of_using(asyncio.CancelledError(), lambda error: False)[0] == "cancelled in use"


def test_a_circle_of_causes_ends() -> None:
    one, other = LibraryError("one"), LibraryError("other")
    one.__cause__, other.__cause__ = other, one
    assert faults.of_opening(one, None, None) == (Fault.REFUSES, How.CALLER)
