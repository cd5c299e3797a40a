"""Long-lived connections beside requests, in the same histories: they follow the pods, and nothing of them is lost."""

from __future__ import annotations

from headlessconn.options import Options
from headlessconn.testing.sim import Run, add, crash, drain, simulate, stall
from headlessconn.testing.sim.judging import _let_go
from headlessconn.testing.sim.knowing import Known
from headlessconn.testing.sim.traffic import Traffic

SOON = Options(rebalance_over=2.0)
HOLDS = Traffic(rate=20.0, holds=6)


def to(run: Run, pod: str) -> list[tuple[float, float]]:
    """From when to when each connection to it was open."""
    holder = run.clients[0].holder
    assert holder is not None
    key = run.world.pods[pod].key
    return [(begins, ends) for begins, ends, whom in holder.spans if whom == key]


def test_a_new_pod_gets_its_share_and_a_pod_that_leaves_none() -> None:
    script = [(10.0, add("c", 0.002)), (25.0, drain("a", 2.0))]
    run = simulate("ab", script=script, seconds=40.0, options=SOON, traffic=HOLDS)
    new = to(run, "c")
    assert len([begins for begins, _ in new if 10.0 <= begins <= 19.0]) == 2, "a look-up, and two seconds"
    assert all(ends <= 25.0 + 5.0 + 4.0 for _, ends in to(run, "a"))
    assert len([ends for _, ends in to(run, "b") + new if ends >= 40.0]) == 6
    assert {request.outcome for request in run.requests} == {"ok"}


def test_what_breaks_is_opened_elsewhere_and_all_is_counted() -> None:
    script = [(10.0, crash("a")), (12.0, stall(0, 3.0))]
    run = simulate("abc", script=script, seconds=30.0, options=SOON, traffic=HOLDS)
    holder = run.clients[0].holder
    assert holder is not None
    assert holder.claims == holder.ended
    assert holder.opened == len(holder.spans)
    assert len([ends for _, ends, _ in holder.spans if ends >= 30.0]) == 6
    assert not [begins for begins, _ in to(run, "a") if begins > 10.0]


def test_a_connection_to_a_pod_that_left_is_seen() -> None:
    """By the judge: this one was never let go."""
    run = simulate("ab", script=[(10.0, drain("a", 2.0))], seconds=30.0, options=SOON, traffic=HOLDS)
    [client] = run.clients
    known = Known.of(client, client.options.hold_nx)
    assert not list(_let_go(client, known))
    assert client.holder is not None
    client.holder.spans.append((5.0, 30.0, run.world.pods["a"].key))
    assert [fault.partition(" left at")[0] for fault in _let_go(client, known)] == ["a"]
