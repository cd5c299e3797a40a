"""`service.run`: copies beside a silent pod, and what is left when it is cancelled; in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import pytest

from headlessconn import Pick
from headlessconn._runtime.running import name_of
from headlessconn.core.lane import ENOUGH
from headlessconn.core.member import State
from headlessconn.errors import DeadlineExceeded
from tests.runtime.script import Script, answers, breaks, is_mute, pods, refuses, takes
from tests.runtime.virtual_time import in_virtual_time, now

# ---- copies -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_copy_goes_to_another_pod_after_a_while_and_the_first_answer_wins() -> None:
    async with pods() as service:
        script = Script(service, is_mute, answers)
        with takes(0.3 + 0.01):
            assert await script.run(repeatable=True, hedge_after=0.3) == script.pods[1] != script.pods[0]
        assert [at for at, _ in script.began] == [0.0, 0.3]
        assert script.spent == 1


@in_virtual_time
async def test_the_slow_one_may_win_all_the_same() -> None:
    async with pods() as service:
        script = Script(service, partial(answers, after=0.35), is_mute)
        with takes(0.35):
            assert await script.run(repeatable=True, hedge_after=0.3) == script.pods[0]
        assert len(script.began) == 2


@in_virtual_time
async def test_there_are_two_copies_at_most_and_a_third_when_one_has_failed() -> None:
    async with pods(5) as service:
        script = Script(service, is_mute, partial(breaks, after=1.0), answers)
        await script.run(repeatable=True, hedge_after=0.3)
        assert script.most == 2
        assert [at for at, _ in script.began] == [0.0, 0.3, 1.3]


@in_virtual_time
async def test_a_copy_that_is_refused_goes_elsewhere() -> None:
    async with pods(5) as service:
        script = Script(service, is_mute, refuses, refuses, answers)
        with takes(0.31):
            await script.run(repeatable=True, hedge_after=0.3)
        assert script.spent == 1, "it was paid for once"


@in_virtual_time
async def test_when_a_copy_meets_our_own_trouble_the_first_one_is_waited_for() -> None:
    async def no_descriptors(pick: Pick) -> str:
        raise OSError(24, "Too many open files")

    async with pods() as service:
        script = Script(service, partial(answers, after=0.5), no_descriptors)
        assert await script.run(repeatable=True, hedge_after=0.3) == script.pods[0]


@in_virtual_time
async def test_p95_is_that_of_its_own_kind() -> None:
    async with pods() as service:
        script = Script(service, partial(answers, after=0.1))
        for _ in range(ENOUGH):
            await script.run(repeatable=True, hedge_after="p95")
        assert len(script.began) == ENOUGH, "while too few are known nothing is copied"
        script = Script(service, is_mute, answers)
        with takes(0.1 + 0.01):
            await service.run(script.fn, repeatable=True, hedge_after="p95")
        script = Script(service, is_mute, answers)
        with pytest.raises(DeadlineExceeded):
            await script.run(repeatable=True, hedge_after="p95", lane="another", deadline=1.0)


@in_virtual_time
async def test_without_budget_a_copy_is_asked_for_again() -> None:
    async with pods() as service:
        engine = service.driver().engine
        while engine.may_spend(asyncio.get_running_loop().time()):
            pass
        script = Script(service, is_mute, answers)
        await script.run(repeatable=True, hedge_after=0.1)
        assert [at for at, _ in script.began] == [0.0, 0.85], "a second earns one, and its own request a fifth"


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_pod_that_falls_silent_is_left_for_another_without_asking(repeatable: bool) -> None:
    """Four times a quarter of a second, since it owes a single answer."""
    async with pods() as service:
        script = Script(service, answers)
        for _ in range(40):
            await script.run()
        began = now()
        stuck = Script(service, is_mute, answers)
        waiting = asyncio.create_task(service.run(stuck.fn, repeatable=repeatable, lane=name_of(script.fn)))
        await asyncio.sleep(0.01)
        for _ in range(10):
            await service.run(script.fn)
        done, _ = await asyncio.wait([waiting], timeout=5.0)
        assert len(service.snapshot.of(State.EJECTED)) == 1
        assert bool(done) is repeatable
        assert len(stuck.began) == (2 if repeatable else 1)
        if repeatable:
            assert stuck.began[1][0] - began == pytest.approx(1.0, abs=0.02)
        waiting.cancel()
        await asyncio.wait([waiting])


# ---- cancelling -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_cancelled_at_any_moment_nothing_is_left() -> None:
    """While it dials, waits, races, backs off, and between."""
    for step in range(80):
        async with pods() as service:
            script = Script(service, refuses, partial(breaks, after=0.1), is_mute, partial(answers, after=0.5))
            running = asyncio.create_task(script.run(repeatable=True, hedge_after=0.1))
            await asyncio.sleep(step * 0.01)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            assert script.open == 0


@in_virtual_time
async def test_an_attempt_cancelled_before_it_began_ends_its_pick() -> None:
    async with pods() as service:
        running = asyncio.create_task(Script(service, answers).run())
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


@in_virtual_time
async def test_a_loser_that_takes_long_to_clean_up_is_waited_for() -> None:
    async def slow_to_let_go(pick: Pick) -> str:
        pick.sent()
        try:
            return await is_mute(pick)
        finally:
            await asyncio.sleep(0.2)

    async with pods() as service:
        script = Script(service, slow_to_let_go, answers)
        with takes(0.3 + 0.01 + 0.2):
            assert await script.run(repeatable=True, hedge_after=0.3) == script.pods[1]
