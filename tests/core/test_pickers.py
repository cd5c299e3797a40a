"""Who is picked: even pairs, different members, the less loaded one, ties to the least recently picked."""

import random
from collections import Counter
from typing import get_args

import pytest

from headlessconn.core.endpoint import Key, pack
from headlessconn.core.latency import Latencies
from headlessconn.core.member import Member
from headlessconn.core.pickers import LeastRequest, PeakEwma, Picker, RoundRobin, build
from headlessconn.options import Options, Policy
from tests.core.play import Play, name_of, records

POLICIES: tuple[Policy, ...] = get_args(Policy)
LOADS: tuple[Policy, ...] = ("peak_ewma", "least_request")


class Pods:
    """Members, the means of their latencies, and the engine's count of picks."""

    def __init__(self, count: int, policy: Policy = "peak_ewma", seed: int = 1) -> None:
        self.members = [Member(pack(f"10.0.{n >> 8}.{n & 255}", 80), None, 0.0) for n in range(count)]
        self.latencies = Latencies(0.0)
        self.by_key: dict[Key, Member] = {member.key: member for member in self.members}
        self.picks = 0
        self.picker: Picker = build(policy, self.members, random.Random(seed), self.latencies)

    def pick(self, now: float = 0.0) -> Member:
        """As the engine does it: the count of picks is written down."""
        member = self.picker.pick(now)
        self.picks = member.picked = self.picks + 1
        return member

    def answered(self, member: Member, latency: float, now: float = 0.0) -> None:
        self.latencies.observe(member, latency, now, self.by_key)

    def counts(self, requests: int) -> list[int]:
        """Requests that each gets when one ends before the next begins."""
        counted = Counter(self.pick().key for _ in range(requests))
        return [counted[member.key] for member in self.members]


@pytest.mark.parametrize(("policy", "kind"), list(zip(POLICIES, (PeakEwma, LeastRequest, RoundRobin), strict=True)))
def test_a_policy_has_its_picker(policy: Policy, kind: type) -> None:
    assert type(Pods(3, policy).picker) is kind


@pytest.mark.parametrize("policy", POLICIES)
def test_one_pod_gets_everything(policy: Policy) -> None:
    pods = Pods(1, policy)
    pods.members[0].in_flight = 1000
    assert pods.counts(10) == [10]


@pytest.mark.parametrize("policy", LOADS)
def test_two_different_members_are_drawn_and_every_pair_as_often(policy: Policy) -> None:
    """The less loaded of a pair wins, so with loads in order the winner tells the pair: of ten members, the one with
    rank r wins the 9 - r pairs that it is in with a more loaded one. The busiest never wins: it is never drawn twice.
    """
    pods = Pods(10, policy)
    for load, member in enumerate(pods.members):
        member.in_flight = 4**load  # ... times what counts as clearly more
    throws, pairs = 45_000, 45
    counts = pods.counts(throws)
    expected = [(9 - rank) * throws / pairs for rank in range(10)]
    assert counts[9] == 0
    chi_square = sum((seen - due) ** 2 / due for seen, due in zip(counts[:9], expected[:9], strict=True))
    assert chi_square < 26.1, "8 degrees of freedom: more than that comes once in a thousand seeds"


@pytest.mark.parametrize("policy", LOADS)
def test_the_order_of_the_draw_does_not_matter(policy: Policy) -> None:
    """Among equals every member wins as often, whatever its place."""
    pods = Pods(5, policy)
    drawn = Counter(pods.picker.pick(0.0).key for _ in range(10_000))  # `picked` stays 0, so all ties are alike
    chi_square = sum((seen - 2000) ** 2 / 2000 for seen in drawn.values())
    assert len(drawn) == 5
    assert chi_square < 18.5, "4 degrees of freedom: more than that comes once in a thousand seeds"


@pytest.mark.parametrize("policy", LOADS)
def test_the_less_loaded_of_two_wins(policy: Policy) -> None:
    pods = Pods(2, policy)
    busy, idle = pods.members
    busy.in_flight = 1
    assert pods.counts(20) == [0, 20]
    idle.in_flight = 2
    assert pods.counts(20) == [20, 0]


@pytest.mark.parametrize("policy", LOADS)
def test_ties_go_to_the_least_recently_picked(policy: Policy) -> None:
    """So two idle pods take turns, where "the first drawn" would be a coin."""
    pods = Pods(2, policy)
    turns = [pods.pick() for _ in range(10)]
    assert turns[0] is not turns[1]
    assert turns == turns[:2] * 5


@pytest.mark.parametrize("policy", LOADS)
def test_at_low_load_a_new_pod_gets_its_share(policy: Policy) -> None:
    """At a few requests a second nothing is in flight, and the tie rule alone spreads: the worst share stays high."""
    pods = Pods(5, policy)
    assert min(pods.counts(1000)) >= 0.85 * 200


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("before", ["a", "abc"])
def test_pods_that_are_new_get_the_next_requests_each_one(policy: Policy, before: str) -> None:
    """At every second pick, so that a hundred new ones are not a hundred dials in a row."""
    play = Play(before, options=Options(policy=policy))
    for _ in range(6):
        play.ended(play.pick())
    play.says = records(before + "xyz")
    play.until(5.1)
    turns = []
    for _ in range(6):
        pick = play.pick()
        turns.append(name_of(pick.key))
        play.ended(pick)
    assert turns[0] in "xyz"
    assert set("xyz") <= set(turns[:5])


def test_when_all_are_new_nobody_comes_first() -> None:
    play = Play("abc", options=Options(policy="round_robin"))
    first = [name_of(play.pick().key) for _ in range(9)]
    assert first == first[:3] * 3
    assert type(play.engine._set.picker) is RoundRobin


def test_round_robin_takes_one_after_the_other_from_a_random_start() -> None:
    pods = Pods(3, "round_robin")
    turns = [pods.pick() for _ in range(9)]
    assert turns == turns[:3] * 3
    assert set(turns) == set(pods.members)
    starts = {Pods(3, "round_robin", seed).pick().key for seed in range(30)}
    assert len(starts) == 3, "a fleet that was started together must not march in step"


def test_a_slow_pod_is_avoided_by_peak_ewma_and_not_by_least_request() -> None:
    """One pod of five 20 times slower. In flight alone does not show it, as long as little is in flight."""
    for policy, most in (("peak_ewma", 0), ("least_request", 250)):
        pods = Pods(5, policy)  # type: ignore[arg-type]
        for _ in range(6):  # one observation at most doubles what is believed
            for member in pods.members:
                pods.answered(member, 0.1 if member is pods.members[0] else 0.005)
        slow, *_ = pods.counts(1000)
        assert slow <= most
        assert slow == 0 or policy == "least_request"


def test_a_slow_pod_gets_requests_when_the_others_are_loaded() -> None:
    pods = Pods(2)
    slow, fast = pods.members
    for _ in range(8):
        pods.answered(slow, 0.1)
        pods.answered(fast, 0.005)
    assert pods.pick() is fast
    fast.in_flight = 100
    assert pods.pick() is slow


def test_equal_pods_get_equal_shares_though_their_latencies_differ_a_little() -> None:
    """Without "clearly" the faster of two idle pods would win every time: 2/3, 1/3 and none for these three."""
    pods = Pods(3)
    for member, latency in zip(pods.members, (0.0010, 0.0011, 0.0012), strict=True):
        pods.answered(member, latency)
    assert min(pods.counts(999)) >= 0.9 * 333


def test_a_pod_never_measured_is_taken_as_average() -> None:
    """It neither draws every request until its first answer, nor waits for one."""
    pods = Pods(3)
    for member in pods.members[:2]:
        pods.answered(member, 0.010)
    counts = pods.counts(999)
    assert min(counts) >= 0.9 * 333
    assert max(counts) <= 1.1 * 333


def test_the_same_dice_pick_the_same() -> None:
    one, other, third = Pods(7, seed=3), Pods(7, seed=3), Pods(7, seed=4)
    picks = [[pods.pick().key for _ in range(50)] for pods in (one, other, third)]
    assert picks[0] == picks[1] != picks[2]
