"""A thousand histories of DNS trouble and changing sets; the world's log judges each.

A failing one prints its schedule, shrunk. To replay it alone: `python -m headlessconn.testing.sim refresh --seed N`.
"""

import pytest

from headlessconn.testing.sim.refreshing import Plan, judge
from headlessconn.testing.sim.shrinking import shrink

SEEDS = 1000
BATCH = 100


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_the_set_follows_dns_through_any_trouble(first: int) -> None:
    for seed in range(first, first + BATCH):
        plan = Plan.of(seed)
        if faults := judge(plan, plan.play()):
            schedule = "\n".join(f"    ({at:.3f}, {event!r})," for at, event in shrink(plan, judge))
            pytest.fail(f"{plan}\nwrong:\n  " + "\n  ".join(faults[:5]) + f"\nshrunk to\n{schedule}", pytrace=False)


def test_a_seed_is_a_history() -> None:
    plan = Plan.of(7)
    assert plan.play() == plan.play()
    assert plan.play() != Plan.of(8).play()


def test_every_trouble_and_every_change_occurs() -> None:
    """What the seeds never try they cannot judge."""
    happened = {event.name for seed in range(100) for _, event in Plan.of(seed).schedule}
    assert happened == {"add", "drain", "unlist", "relist", "replace", "dns"}
    troubles = {event.arguments[0] for seed in range(100) for _, event in Plan.of(seed).schedule if event.name == "dns"}
    assert troubles == {"", "nxdomain", "servfail", "refused", "silent", "stale", "truncated"}
    assert {Plan.of(seed).replicas for seed in range(100)} == {1, 2}
