"""Finagle's and tower's tables for balancing, played against our engine in virtual time.

P2CLeastLoadedTest, P2CPeakEwmaTest and LoadDistributionTest of finagle-core; load/peak_ewma.rs of tower. Where we mean
to differ the test says how.
"""

import random
from collections import Counter
from math import exp
from typing import get_args

import pytest

from headlessconn.core.endpoint import Answer, How, Key, pack
from headlessconn.core.engine import Engine
from headlessconn.core.latency import DECAY, Latencies
from headlessconn.core.member import Member, State
from headlessconn.core.pick import NOBODY, Pick
from headlessconn.options import Options, Policy
from tests.core.play import TARGET

POLICIES: tuple[Policy, ...] = get_args(Policy)
N, R = 100, 100_000  # Finagle's


def pods(*numbers: int) -> frozenset[Key]:
    return frozenset(pack(f"10.0.{number >> 8}.{number & 255}", 80) for number in numbers)


class Balancer:
    """One client, all of whose requests are picked at one moment."""

    def __init__(self, keys: frozenset[Key], policy: Policy = "least_request", seed: int = 1) -> None:
        self.engine = Engine(TARGET, Options(policy=policy), random.Random(seed), 0.0)
        self.now = 0.0
        self.open: list[Pick] = []
        self.relist(keys)

    def relist(self, keys: frozenset[Key]) -> None:
        kind = "records" if keys else "nobody"
        self.engine.answered(Answer("dns", kind, keys, ttl=5.0, why="NOERROR"), self.now)  # type: ignore[arg-type]
        self.engine.take()

    def hold(self, requests: int) -> Counter[Key]:
        """Begin so many that never end; how many each pod got."""
        counts: Counter[Key] = Counter()
        for _ in range(requests):
            pick = self.engine.pick(self.now)
            assert isinstance(pick, Pick)
            self.open.append(pick)
            counts[pick.key] += 1
        return counts

    def refuse(self, key: Key) -> None:
        listed = {view.endpoint.key for view in self.engine.snapshot(self.now).members}
        pick = self.engine.pick(self.now, listed - {key})
        assert isinstance(pick, Pick)
        self.engine.dialled(pick, How.REFUSED, self.now)
        self.engine.ended(pick, How.REFUSED, self.now)
        self.engine.take()

    def revive(self, key: Key) -> None:
        """As a probe that passes does."""
        self.engine._health.connected(self.engine._set.members[key], self.now)

    @property
    def loads(self) -> list[int]:
        return [view.in_flight for view in self.engine.snapshot(self.now).members]


def mean_difference(loads: list[int]) -> float:
    mean = sum(loads) / len(loads)
    return max(abs(load - mean) for load in loads)


# ---- P2CLeastLoadedTest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_it_balances_evenly(policy: Policy) -> None:
    balancer = Balancer(pods(*range(N)), policy)
    balancer.hold(R)
    assert mean_difference(balancer.loads) < 10


@pytest.mark.parametrize("policy", ["peak_ewma", "least_request"])
def test_it_balances_evenly_when_load_varies(policy: Policy) -> None:
    """Each pod keeps what it got for a time of its own; half of all is given back while the rest comes."""
    rng = random.Random(7)
    balancer = Balancer(pods(*range(N)), policy)
    for _ in range(R // 10):
        balancer.hold(1)
        if rng.random() < 0.5:
            pick = balancer.open.pop(rng.randrange(len(balancer.open)))
            balancer.engine.ended(pick, How.LOCAL, 0.0)
    assert mean_difference(balancer.loads) < 10


def test_a_node_that_was_down_gets_nothing_and_evens_out_when_it_is_revived() -> None:
    """Finagle: 2R/N ± 60 of the next R."""
    keys = sorted(pods(*range(N)))
    balancer = Balancer(frozenset(keys))
    balancer.refuse(keys[0])
    assert balancer.hold(R)[keys[0]] == 0
    balancer.revive(keys[0])
    assert abs(balancer.hold(R)[keys[0]] - 2 * R / N) <= 60


def test_a_node_that_is_added_evens_out() -> None:
    balancer = Balancer(pods(*range(N)))
    balancer.hold(R)
    balancer.relist(pods(*range(N + 1)))
    balancer.hold(R)
    assert mean_difference(balancer.loads) < 10


def test_a_node_that_is_removed_gets_nothing_more() -> None:
    keys = sorted(pods(*range(N)))
    balancer = Balancer(frozenset(keys))
    balancer.hold(R // 10)
    balancer.relist(frozenset(keys[1:]))
    assert balancer.hold(R // 10)[keys[0]] == 0


def test_when_all_are_down_every_request_is_still_served() -> None:
    keys = sorted(pods(*range(N)))
    balancer = Balancer(frozenset(keys))
    for key in keys:
        balancer.refuse(key)
    assert {view.state for view in balancer.engine.snapshot(0.0).members} == {State.FAILING}
    assert sum(balancer.hold(R // 10).values()) == R // 10


def test_with_half_of_them_down_none_of_those_is_tried() -> None:
    """Finagle draws five pairs at most, and sends about one in a thousand to a dead one; our tiers send none."""
    keys = sorted(pods(*range(N)))
    balancer = Balancer(frozenset(keys))
    for key in keys[: N // 2]:
        balancer.refuse(key)
    counts = balancer.hold(R // 10)
    assert not any(counts[key] for key in keys[: N // 2])


def test_empty_and_filled_again() -> None:
    balancer = Balancer(frozenset())
    assert balancer.engine.pick(0.0) is NOBODY
    balancer.relist(pods(*range(N)))
    balancer.hold(R // 10)
    assert mean_difference(balancer.loads) < 10


# ---- P2CPeakEwmaTest --------------------------------------------------------------------------------------------


def run(balancer: Balancer, latency: dict[Key, float], requests: int, gap: float) -> Counter[Key]:
    """Requests that end after the latency of their pod."""
    under_way: list[tuple[float, int, Pick]] = []
    counts: Counter[Key] = Counter()
    for number in range(requests):
        balancer.now += gap
        under_way.sort(key=lambda entry: entry[0])
        while under_way and under_way[0][0] <= balancer.now:
            at, _, pick = under_way.pop(0)
            balancer.engine.responded(pick, False, at)
            balancer.engine.ended(pick, How.OK, at)
        pick_ = balancer.engine.pick(balancer.now)
        assert isinstance(pick_, Pick)
        counts[pick_.key] += 1
        under_way.append((balancer.now + latency[pick_.key], number, pick_))
    return counts


def test_a_node_without_history_that_never_answers_is_probed_only_a_little() -> None:
    """Finagle: at most once, as nothing known counts as infinitely slow while something is pending. Here it counts as
    average, so that a new pod is used at once: it gets as many as an average pod holds at its busiest, and no more."""
    keys = sorted(pods(*range(10)))
    latency = dict.fromkeys(keys, 0.010)
    latency[keys[0]] = 1e9
    balancer = Balancer(frozenset(keys), "peak_ewma")
    assert run(balancer, latency, 10_000, 0.001)[keys[0]] <= 5


def test_twice_as_slow_gets_half_as_much() -> None:
    """Under load, where Finagle's test is too: the product of latency and requests in flight evens out."""
    keys = sorted(pods(*range(10)))
    latency = dict.fromkeys(keys, 0.010)
    latency[keys[0]] = 0.020
    balancer = Balancer(frozenset(keys), "peak_ewma")
    run(balancer, latency, 5_000, 0.00005)
    counts = run(balancer, latency, 40_000, 0.00005)
    others = (sum(counts.values()) - counts[keys[0]]) / 9
    assert counts[keys[0]] / others == pytest.approx(0.5, abs=0.1)


# ---- tower, load/peak_ewma.rs -----------------------------------------------------------------------------------


def test_towers_default_rtt_decays() -> None:
    """10 ms; then 9.048 and 8.187 ms, a tenth and two tenths of the decay later."""
    member = Member(pack("10.0.0.1", 80), None, 0.0)
    latencies = Latencies(0.0)
    latencies.observe(member, 0.010, 0.0, {member.key: member})
    seen = [latencies.of(member, part * DECAY) for part in (0.0, 0.1, 0.2)]
    assert seen == pytest.approx([0.010, 0.010 * exp(-0.1), 0.010 * exp(-0.2)])


def test_towers_compound_decay() -> None:
    """Two calls of 200 ms: the load is exactly 400 ms while one of them is pending, then exactly 200 ms; a decay later
    less than 100 ms, ten decays later less than 0.1 ms. (A tenth of a decay there is a second here, and the prior is
    100 ms: one observation at most doubles what is believed.)"""
    key = pods(1)
    balancer = Balancer(key, "peak_ewma")
    member = next(iter(balancer.engine._set.members.values()))
    latencies = balancer.engine._latencies
    latencies.observe(member, 0.100, 0.0, balancer.engine._set.members)

    def load(now: float) -> float:
        return latencies.of(member, now) * (member.in_flight + 1)

    first = balancer.engine.pick(0.0)
    second = balancer.engine.pick(0.0)
    assert isinstance(first, Pick)
    assert isinstance(second, Pick)
    balancer.engine.ended(first, How.OK, 0.2)
    assert load(0.2) == pytest.approx(0.400)
    balancer.engine.ended(second, How.OK, 0.2)
    assert load(0.2) == pytest.approx(0.200)
    assert load(0.2 + DECAY) < 0.100
    assert load(0.2 + 10 * DECAY) < 0.0001


# ---- LoadDistributionTest ---------------------------------------------------------------------------------------

CLIENTS, REQUESTS = 5, 150


def distribution(policy: Policy, *sets: range) -> Counter[Key]:
    """Five clients, 150 requests each over each set, one after the other, each ended before the next begins."""
    counts: Counter[Key] = Counter()
    for seed in range(CLIENTS):
        balancer = Balancer(pods(*sets[0]), policy, seed)
        for numbers in sets:
            balancer.relist(pods(*numbers))
            for _ in range(REQUESTS):
                balancer.now += 0.010
                pick = balancer.engine.pick(balancer.now)
                assert isinstance(pick, Pick)
                counts[pick.key] += 1
                balancer.engine.ended(pick, How.OK, balancer.now + 0.005)
    return counts


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("sets", "most"),
    [
        ((range(10),), 155),
        ((range(10), range(5, 15), range(10, 20)), 450),
        ((range(10), range(5)), 300),
        ((range(10), range(15)), 300),
    ],
    ids=["ten servers", "a rolling deploy in two batches", "from ten to five", "from ten to fifteen"],
)
def test_no_server_gets_more_than_twice_its_part(policy: Policy, sets: tuple[range, ...], most: int) -> None:
    counts = distribution(policy, *sets)
    assert max(counts.values()) <= most
    assert set(counts) == set().union(*(pods(*numbers) for numbers in sets)), "and each gets some"
