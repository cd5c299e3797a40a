"""A fleet with a few long-lived connections each: what moves when pods come and go, judged by the world's own log."""

from __future__ import annotations

import pytest

from headlessconn.testing.sim.fleet import Fleet

OUT = 12.0  # when the pods become more; by then all processes have started
DONE = OUT + 5.0 + 5.0 + 30.0 + 2.0  # a look-up, the time a new pod must stand, and rebalance_over


@pytest.mark.parametrize(
    ("connections", "warms", "uneven"),
    # With one each a process can but choose a pod by itself, so the fleet is as even as so many throws of dice: of 60
    # fleets the busiest pod of six had 1.22 of the idlest in the middle one and 1.40 in the worst; with two each, 1.14
    # and 1.25; with five each, 1.04 and 1.08.
    [(1, True, 1.5), (1, False, 1.5), (2, True, 1.15), (2, False, 1.15), (5, True, 1.08), (20, True, 1.03)],
)
def test_a_fleet_follows_three_new_pods_with_the_fewest_moves(connections: int, warms: bool, uneven: float) -> None:
    fleet = Fleet(1000, connections, pods=3, warms=warms, pause=80.0)
    fleet.run(OUT)
    assert sum(fleet.held().values()) == 1000 * connections
    assert fleet.busiest_to_idlest() <= uneven
    fleet.scale(6)
    fleet.run(DONE)
    assert sum(fleet.held().values()) == 1000 * connections
    assert fleet.busiest_to_idlest() <= uneven
    assert fleet.moved(0.0, OUT) == 0
    assert fleet.moved(OUT) == sum(fleet.held()[pod] for pod in "456"), "who moved, moved to a new pod, once"
    assert fleet.moved(OUT) <= 1.05 * fleet.least_moves(OUT)
    assert all(fleet.worst_second(pod, OUT) <= 0.1 for pod in "456")


@pytest.mark.parametrize(("processes", "connections"), [(1000, 1), (300, 3)])
def test_processes_that_learn_of_it_at_different_times(processes: int, connections: int) -> None:
    """Behind caches: what they hear is up to 10 s old."""
    fleet = Fleet(processes, connections, pods=3, lag=10.0, pause=40.0)
    fleet.run(OUT + 10.0)
    fleet.scale(6)
    fleet.run(DONE + 20.0)
    assert fleet.moved(OUT) == sum(fleet.held()[pod] for pod in "456")
    assert fleet.moved(OUT) <= 1.05 * fleet.least_moves(OUT + 10.0)
    assert all(fleet.worst_second(pod, OUT) <= 0.1 for pod in "456")


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("warms", [True, False], ids=["warms", "closes"])
@pytest.mark.parametrize(("work", "pause"), [(0.5, 10.0), (5.0, 0.01)], ids=["mostly idle", "always busy"])
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 6), (6, 3)])
def test_one_process_moves_what_must(
    before: int, after: int, work: float, pause: float, warms: bool, seed: int
) -> None:
    fleet = Fleet(1, 16, before, work=work, pause=pause, warms=warms, seed=seed)
    fleet.run(20.0)
    held = fleet.held()
    fleet.scale(after)
    fleet.run(100.0)
    counts = [fleet.held()[pod] for pod in fleet.listed]
    assert sum(counts) == 16
    assert max(counts) - min(counts) <= 1
    gone = sum(count for pod, count in held.items() if pod not in fleet.listed)
    new = sum(fleet.held()[pod] for pod in fleet.listed if pod not in held)
    assert fleet.moved(20.0) == gone + new, "closed / had to move = 1.0"
    if after < before and work < 1.0:
        last = max(fact.at for fact in fleet.facts("close", 20.0))
        assert last <= 20.0 + 5.0 + 2 * work + 0.01, "idle ones at once, the others when they are back"


@pytest.mark.parametrize(("away", "back"), [(8.0, 8.0), (6.0, 20.0), (15.0, 5.0)])
def test_a_pod_that_flaps_makes_nothing_swing(away: float, back: float) -> None:
    """Its connections go once, since nobody knows that it will be back. They return when it has been quiet."""
    fleet = Fleet(40, 3, pods=3, pause=40.0)
    fleet.run(OUT)
    for round_ in range(10):
        start = OUT + round_ * (away + back)
        fleet.unlist("2")
        fleet.run(start + away)
        fleet.relist("2")
        fleet.run(start + away + back)
    end = OUT + 10 * (away + back)
    assert fleet.moved(OUT) == 40
    assert fleet.held()["2"] == 0
    fleet.run(end + 640.0)
    assert fleet.moved(end) == 40
    assert fleet.held() == {"1": 40, "2": 40, "3": 40}


@pytest.mark.parametrize("pushes", [False, True])
@pytest.mark.parametrize("connections", [1, 10])
def test_a_pod_that_restarts_in_place_gets_its_share_back(connections: int, pushes: bool) -> None:
    """A StatefulSet's pod on the same address. Processes with ten eject it by their broken connections; one of them is
    moved there to try it."""
    fleet = Fleet(100, connections, pods=3, pushes=pushes, pause=4.0)
    fleet.run(OUT)
    before = fleet.held()
    fleet.crash("2")
    fleet.run(OUT + 15.0)
    assert fleet.held()["2"] == 0
    assert sum(fleet.held().values()) == 100 * connections
    assert fleet.moved(OUT) == 0, "what works is left alone"
    fleet.recover("2")
    fleet.run(OUT + 150.0)
    assert fleet.held() == before
    assert fleet.moved(OUT) == before["2"]


def test_a_seed_is_a_history() -> None:
    def history(seed: int) -> list[object]:
        fleet = Fleet(50, 3, pods=3, seed=seed, lag=3.0)
        fleet.run(OUT)
        fleet.scale(5)
        fleet.crash("1")
        fleet.run(DONE)
        return list(fleet.log)

    assert history(1) == history(1)
    assert history(1) != history(2)
