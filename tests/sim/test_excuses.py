"""Each reason for which a request may fail beside a healthy pod has to be one: a scenario in which it does, and what
the price of not failing would be. And the judge accepts none of them where it does not hold."""

from collections import Counter

import pytest

from headlessconn.core.endpoint import How
from headlessconn.options import Options
from headlessconn.testing.sim import (
    Run,
    black_hole,
    crash,
    freeze,
    mend,
    no_sockets,
    simulate,
    sour,
    stall,
)
from headlessconn.testing.sim.events import Event
from headlessconn.testing.sim.excuses import Case
from headlessconn.testing.sim.knowing import Known
from headlessconn.testing.sim.traffic import Traffic

MANY = [f"pod-{number}" for number in range(40)]


def play(
    pods: list[str] | str,
    script: list[tuple[float, Event]],
    traffic: Traffic,
    options: Options | None = None,
    seconds: float = 20.0,
    latency: float = 0.002,
    seed: int = 1,
) -> tuple[Run, Counter[str]]:
    """The run, and how many requests failed for which reason."""
    run = simulate(pods, script=script, traffic=traffic, options=options, seconds=seconds, latency=latency, seed=seed)
    excuses: Counter[str] = Counter()
    for client in run.clients:
        known = Known.of(client, client.options.hold_nx, surely=True)
        excuses.update(excuse for _, excuse in Case(run.world, client, client.options, known).judged())
    return run, excuses


def test_sent_once() -> None:
    """Nobody knows whether the pod had done it before it died."""
    run, excuses = play("abc", [(12.0, crash("b"))], Traffic(100.0), latency=0.05)
    assert set(excuses) == {"sent once"}
    assert {request.outcome for request in run.requests if request.outcome != "ok"} == {"reset"}
    repeatable, none = play("abc", [(12.0, crash("b"))], Traffic(100.0, repeatable=1.0), latency=0.05)
    assert repeatable.failed == 0
    assert not none


def test_three_copies() -> None:
    """A request that kills its pod would else walk through the fleet."""
    script = [(12.0, sour(pod)) for pod in MANY[:-1]]
    _, excuses = play(MANY, script, Traffic(100.0, repeatable=1.0))
    assert set(excuses) <= {"three copies", "budget"}
    assert excuses["three copies"] >= 1


def test_budget() -> None:
    """Half of the answers are bad, and nobody may be ejected: repeating each would be half as much load again."""
    script = [(10.0, sour(pod, 0.5)) for pod in "abcd"]
    options = Options(consecutive_failures=0, failure_percentage_enforcement=0, success_rate_enforcement=0)
    _, excuses = play("abcde", script, Traffic(100.0, repeatable=1.0), options, seconds=40.0)
    assert excuses["budget"] >= 10
    assert set(excuses) <= {"budget", "three copies"}


def test_no_time() -> None:
    """A dial that is silent for a tenth of a second may still succeed: the race begins later."""
    _, excuses = play("abc", [(12.0, black_hole("b"))], Traffic(20.0, patience=0.1, repeatable=1.0), seed=3)
    assert set(excuses) == {"no time"}


def test_eight_dials() -> None:
    """One request may not dial a fleet."""
    script = [(12.0, crash(pod)) for pod in MANY[:-1]]
    run, excuses = play(MANY, script, Traffic(5.0, repeatable=1.0))
    assert excuses["eight dials"] >= 1
    assert set(excuses) == {"eight dials"}
    assert max(len(request.troubles) for request in run.requests) == 8


def test_silent_dials() -> None:
    """Three at once, then one has to end first."""
    script: list[tuple[float, Event]] = []
    for pod in MANY[:-1]:
        script += [(0.5, crash(pod)), (0.6, mend(pod)), (12.0, black_hole(pod))]
    traffic = Traffic(1.0, patience=2.0, repeatable=1.0)
    _, excuses = play(MANY, script, traffic)
    assert excuses["silent dials"] >= 1
    assert set(excuses) <= {"silent dials", "not yet silent", "no time", "budget"}


def test_not_yet_silent() -> None:
    """A client that sends one request in two seconds hears too little to know what silence means."""
    script = [(12.0, freeze("b"))]
    _, excuses = play("abc", script, Traffic(0.5, repeatable=1.0), seconds=60.0)
    assert set(excuses) == {"not yet silent"}


def test_stood_still() -> None:
    """While our own loop stands still nothing can be sent."""
    script = [(11.99, freeze("b")), (12.1, stall(0, 6.0))]
    _, excuses = play("ab", script, Traffic(50.0, repeatable=1.0))
    assert set(excuses) == {"stood still"}


def test_full() -> None:
    """`max_in_flight` is a promise to the pods: more would break it, healthy as they are."""
    options = Options(max_in_flight=1, wait_for_endpoints=0.5)
    _, excuses = play("ab", [], Traffic(100.0, repeatable=1.0), options, latency=0.1)
    assert set(excuses) == {"full"}


def test_no_sockets() -> None:
    """A copy needs a connection, and there is no descriptor for one."""
    script = [(12.0, crash("a")), (12.05, mend("a")), (12.06, freeze("b")), (12.06, no_sockets(0))]
    traffic = Traffic(4.0, patience=1.0, repeatable=1.0, hedge_after=0.05)
    _, excuses = play("ab", script, traffic, seconds=14.0)
    assert set(excuses) == {"no sockets"}


def test_nobody_healthy() -> None:
    script = [(12.0, sour(pod)) for pod in "abc"]
    _, excuses = play("abc", script, Traffic(20.0, repeatable=1.0))
    assert set(excuses) == {"nobody healthy"}


@pytest.mark.parametrize(
    "outcome", ["bad status", "reset", "timed out", "no pod accepts", "no endpoints", "overloaded"]
)
def test_no_reason_no_excuse(outcome: str) -> None:
    """Everything went well, and one request is said to have failed all the same."""
    run = simulate("abc", seconds=20.0, traffic=Traffic(20.0, repeatable=1.0))
    client = run.clients[0]
    request = client.requests[200]
    assert request.outcome == "ok"
    request.outcome = outcome
    request.ended_at = request.deadline
    case = Case(run.world, client, client.options, Known.of(client, 10.0, surely=True))
    assert [(failed.id, excuse) for failed, excuse in case.judged()] == [(200, "")]


def test_a_request_that_was_cut_short_by_its_caller_is_no_failure() -> None:
    run = simulate("abc", seconds=20.0, traffic=Traffic(50.0, cancelled=0.2, gives_up=How.CANCELLED), latency=0.05)
    assert run.outcomes["called off"] > 20
    client = run.clients[0]
    assert not list(Case(run.world, client, client.options, Known.of(client, 10.0)).judged())
