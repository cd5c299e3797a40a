"""`service.run`: where an exchange goes when its pod fails, when it is repeated, when given up; in virtual time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from headlessconn import Client, NoEndpoints, Pick
from headlessconn._runtime.running import name_of
from headlessconn.core.member import State
from headlessconn.errors import DeadlineExceeded, DialFailed, OptionError
from tests.runtime.script import Own, Script, answers, breaks, is_in_trouble, is_mute, pods, raises, refuses, takes
from tests.runtime.virtual_time import in_virtual_time, now

# ---- one attempt ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_it_returns_is_the_answer() -> None:
    async with pods() as service:
        script = Script(service, answers)
        assert await script.run() in script.pods
        assert len(script.began) == 1
        [view] = [view for view in service.snapshot.members if view.latency]
        assert view.latency == pytest.approx(0.01)


@in_virtual_time
async def test_its_own_exception_is_an_answer_too() -> None:
    async with pods() as service:
        for rules in ({}, {"repeatable": True}):
            script = Script(service, raises)
            with pytest.raises(Own, match="404") as caught:
                await script.run(**rules)
            assert len(script.began) == 1
            assert not hasattr(caught.value, "__notes__")


@in_virtual_time
async def test_its_own_cancellation_is_passed_on() -> None:
    async def cancels(pick: Pick) -> str:
        raise asyncio.CancelledError

    async with pods() as service:
        with pytest.raises(asyncio.CancelledError):
            await Script(service, cancels).run(repeatable=True)


# ---- not sent ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_not_sent_goes_elsewhere_for_nothing() -> None:
    async with pods(5) as service:
        script = Script(service, refuses, refuses, refuses, answers)
        assert await script.run() == script.pods[-1]
        assert len(set(script.pods)) == 4
        assert script.spent == 0
        assert len(service.snapshot.of(State.FAILING)) == 3


@in_virtual_time
async def test_a_refusal_needs_no_mark() -> None:
    """Nobody behind a port that refuses can have seen anything."""

    async def refuses_unmarked(pick: Pick) -> str:
        raise ConnectionRefusedError

    async with pods() as service:
        script = Script(service, refuses_unmarked, answers)
        assert await script.run() == script.pods[1]


@in_virtual_time
@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError, EOFError], ids=lambda one: one.__name__)
async def test_whatever_fails_while_connecting_was_not_sent(error: type[Exception]) -> None:
    """A TLS handshake that is reset, a greeting that never comes."""

    async def fails(pick: Pick) -> str:
        async with pick.connecting():
            raise error

    async with pods() as service:
        script = Script(service, fails, answers)
        assert await script.run() == script.pods[1]
        assert len(service.snapshot.of(State.FAILING)) == 1


@in_virtual_time
async def test_an_exception_of_his_own_around_a_failed_dial_is_the_dials() -> None:
    async def wraps(pick: Pick) -> str:
        try:
            async with pick.connecting():
                raise ConnectionRefusedError
        except OSError as error:
            raise Own("cannot connect") from error

    async with pods() as service:
        script = Script(service, wraps, answers)
        assert await script.run() == script.pods[1]


@in_virtual_time
async def test_connecting_has_a_time_limit() -> None:
    async def hangs(pick: Pick, **limit: float) -> str:
        async with pick.connecting(**limit):
            await asyncio.sleep(3600.0)
        raise AssertionError

    async with pods() as service:
        with takes(2.5 + 0.01):
            await Script(service, hangs, answers).run()
        with takes(0.2 + 0.01):
            await Script(service, partial(hangs, timeout=0.2), answers).run()
        assert {view.why for view in service.snapshot.of(State.FAILING)} == {"dial timed out"}


@in_virtual_time
async def test_his_own_time_limit_around_connecting_counts_as_one() -> None:
    async def hangs(pick: Pick) -> str:
        async with asyncio.timeout(0.1), pick.connecting():
            await asyncio.sleep(3600.0)
        raise AssertionError

    async with pods() as service:
        script = Script(service, hangs, answers)
        assert await script.run() == script.pods[1]


# ---- sent -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_sent_is_not_repeated_unless_he_says_so() -> None:
    async with pods() as service:
        for act in (breaks, is_in_trouble):
            script = Script(service, act, answers)
            with pytest.raises((ConnectionResetError, Own)):
                await script.run()
            assert len(script.began) == 1
            script = Script(service, act, answers)
            assert await script.run(repeatable=True) == script.pods[1] != script.pods[0]
            assert script.spent >= 1


@in_virtual_time
async def test_what_was_not_marked_as_unsent_counts_as_sent() -> None:
    """Else a function that marks nothing would charge a card twice."""

    async def breaks_unmarked(pick: Pick) -> str:
        raise ConnectionResetError

    async with pods() as service:
        script = Script(service, breaks_unmarked, answers)
        with pytest.raises(ConnectionResetError):
            await script.run()
        assert len(script.began) == 1


@in_virtual_time
async def test_a_refusal_after_it_was_sent_is_no_dial_of_its_own() -> None:
    async def second_connection(pick: Pick) -> str:
        pick.sent()
        raise ConnectionRefusedError

    async with pods() as service:
        script = Script(service, second_connection, answers)
        with pytest.raises(ConnectionRefusedError):
            await script.run()
        assert len(script.began) == 1


@in_virtual_time
async def test_it_is_sent_to_three_pods_at_most_and_then_raises_what_the_last_one_raised() -> None:
    async with pods(5) as service:
        script = Script(service, breaks, is_in_trouble, breaks)
        with pytest.raises(ConnectionResetError) as caught:
            await script.run(repeatable=True)
        a, b, c = script.pods
        assert len({a, b, c}) == 3
        assert caught.value.__notes__ == [
            f"headlessconn: attempt 3 of this request; before it: {a} (reset), {b} (bad answer)"
        ]
        assert script.spent == 2


@in_virtual_time
async def test_without_budget_it_raises_at_once() -> None:
    async with pods() as service:
        engine = service.driver().engine
        while engine.may_spend(asyncio.get_running_loop().time()):
            pass
        script = Script(service, breaks, answers)
        with pytest.raises(ConnectionResetError):
            await script.run(repeatable=True)
        assert len(script.began) == 1


@in_virtual_time
async def test_our_own_trouble_goes_nowhere() -> None:
    async def no_descriptors(pick: Pick) -> str:
        raise OSError(24, "Too many open files")

    async with pods() as service:
        script = Script(service, no_descriptors, answers)
        with pytest.raises(OSError, match="Too many open files"):
            await script.run(repeatable=True)
        assert len(script.began) == 1


# ---- rounds -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_when_all_refuse_it_waits_and_tries_again() -> None:
    async with pods(2) as service:
        script = Script(service, refuses, refuses, refuses, refuses, refuses, answers)
        assert await script.run() == script.pods[5]
        times = [at for at, _ in script.began]
        assert times[0] == times[1] < times[2] == times[3] < times[4] == times[5]
        assert times[2] - times[0] == pytest.approx(0.1, abs=0.002)
        assert 0.1 <= times[4] - times[2] <= 0.4
        assert script.spent == 0
        engine = service.driver().engine
        assert (engine.picks, engine.again) == (6, 5), "one request earns once, however many rounds it takes"


@in_virtual_time
async def test_without_a_deadline_the_last_round_begins_as_long_as_callers_wait_for_an_endpoint() -> None:
    async with pods(2, wait_for_endpoints=3.0) as service:
        script = Script(service, refuses)
        with pytest.raises(DialFailed) as caught:
            await script.run()
        assert 1.9 < script.began[-1][0] < 3.0
        assert len(caught.value.tried) == len(script.began) >= 8
        assert {why for _, why in caught.value.tried} == {"refused"}
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


@in_virtual_time
async def test_with_a_deadline_none_begins_after_it() -> None:
    async with pods(2) as service:
        script = Script(service, refuses)
        with pytest.raises(DialFailed):
            await script.run(deadline=1.0)
        assert max(at for at, _ in script.began) < 1.0
        assert now() < 1.0, "nor is it waited for: it would be in vain"


@in_virtual_time
async def test_nobody_there_is_waited_for_until_the_deadline() -> None:
    async with Client(nameservers=("127.0.0.1:1",), search=(), wait_for_endpoints=0.2, lookup_timeout=0.1) as client:
        service = client.service("orders.shop.svc.cluster.local.:80")
        script = Script(service, answers)
        with pytest.raises(NoEndpoints):
            await script.run(deadline=2.0)
        assert 1.0 < now() <= 2.1
        assert script.began == []


@in_virtual_time
async def test_when_it_was_sent_and_then_nobody_takes_it_the_break_is_what_is_raised() -> None:
    """`DialFailed` would say that nothing was sent."""
    async with pods(2, wait_for_endpoints=1.0) as service:
        script = Script(service, breaks, refuses)
        with pytest.raises(ConnectionResetError):
            await script.run(repeatable=True)
        assert len(script.began) > 3


# ---- the deadline -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_at_the_deadline_it_is_given_up_and_says_how_each_pod_stands() -> None:
    async with pods() as service:
        script = Script(service, refuses, breaks, is_mute)
        with takes(2.0), pytest.raises(DeadlineExceeded) as caught:
            await script.run(repeatable=True, deadline=2.0)
        a, b, c = script.pods
        error = caught.value
        assert error.tried == ((a, "refused"), (b, "reset"), (c, "no answer in 1.99 s"))
        assert error.target == str(service.target)
        assert error.seconds == pytest.approx(2.0)
        assert isinstance(error, TimeoutError)


@in_virtual_time
async def test_nothing_is_repeated_after_the_deadline() -> None:
    async with pods() as service:
        script = Script(service, partial(breaks, after=0.999), answers)
        assert await script.run(repeatable=True, deadline=1.2) == script.pods[1]
        script = Script(service, partial(breaks, after=0.999), partial(answers, after=0.9))
        with takes(1.2), pytest.raises(DeadlineExceeded):
            await script.run(repeatable=True, deadline=1.2)


# ---- rules that contradict each other, and names ----------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize(
    "rules",
    [
        {"hedge_after": 0.1},
        {"hedge_after": "p95"},
        {"hedge_after": "p99", "repeatable": True},
        {"hedge_after": 0.0, "repeatable": True},
        {"deadline": 0.0},
        {"deadline": float("nan")},
    ],
    ids=str,
)
async def test_rules_that_cannot_be_meant_are_said_at_once(rules: dict[str, Any]) -> None:
    async with pods() as service:
        script = Script(service, answers)
        with pytest.raises(OptionError):
            await script.run(**rules)
        assert script.began == []


def test_each_function_is_a_kind_of_its_own() -> None:
    class Asks:
        async def __call__(self, pick: Pick) -> str:
            return ""

        async def method(self, pick: Pick) -> str:
            return ""

    names = [name_of(fn) for fn in (answers, breaks, partial(partial(answers, after=1.0)), Asks(), Asks().method)]
    assert names[0] == f"{answers.__module__}.answers" == names[2] != names[1]
    assert names[3].endswith("Asks")
    assert names[4].endswith("Asks.method")
