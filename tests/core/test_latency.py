"""Peak EWMA without exponentials at picking: against Finagle's rule, written down here a second time."""

import itertools
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headlessconn.core.endpoint import Key, pack
from headlessconn.core.latency import DECAY, DOUBT, EPOCH, Latencies
from headlessconn.core.member import Member
from tests.core.dice import repeatable


class Finagle:
    """A peak becomes the mean, what is below is mixed in by the time since, and reading lets it fade."""

    def __init__(self) -> None:
        self.mean, self.at = 0.0, 0.0

    def read(self, now: float) -> float:
        self.mean *= exp(-(now - self.at) / DECAY)
        self.at = now
        return self.mean

    def observe(self, latency: float, now: float) -> None:
        weight = exp(-(now - self.at) / DECAY)
        faded = self.read(now)
        self.mean = latency if latency > faded else faded + latency * (1.0 - weight)


class Pods:
    def __init__(self, names: str) -> None:
        self.members = {name: Member(pack(f"10.0.0.{ord(name)}", 80), None, 0.0) for name in names}
        self.by_key: dict[Key, Member] = {member.key: member for member in self.members.values()}
        self.latencies = Latencies(0.0)

    def observe(self, name: str, latency: float, now: float) -> None:
        self.latencies.observe(self.members[name], latency, now, self.by_key)

    def of(self, name: str, now: float) -> float:
        return self.latencies.of(self.members[name], now)


# Latencies within a factor of two, where our doubt about peaks never bites; gaps that step over several epochs.
HISTORY = st.lists(
    st.tuples(st.sampled_from("ab"), st.floats(0.010, 0.0199), st.floats(0.0, 40.0) | st.floats(0.0, 1500.0)),
    min_size=1,
    max_size=40,
)


@repeatable
@given(HISTORY)
def test_it_is_finagles_rule(history: list[tuple[str, float, float]]) -> None:
    pods, theirs = Pods("ab"), {"a": Finagle(), "b": Finagle()}
    now = 0.0
    for name, latency, gap in history:
        now += gap
        pods.observe(name, latency, now)
        theirs[name].observe(latency, now)
        for other, rule in theirs.items():
            assert pods.of(other, now) == pytest.approx(rule.read(now), rel=1e-9, abs=1e-300)


@repeatable
@given(HISTORY, st.floats(0.0, 600.0))
def test_members_compare_at_any_time_as_their_means_do(history: list[tuple[str, float, float]], later: float) -> None:
    """That is what the exponentials are saved for: nothing is computed when two are compared."""
    pods, now = Pods("ab"), 0.0
    for name, latency, gap in history:
        now += gap
        pods.observe(name, latency, now)
    a, b = pods.members["a"], pods.members["b"]
    if a.grown and b.grown:
        mean_a, mean_b = pods.of("a", now + later), pods.of("b", now + later)
        if mean_b > 1e-300:
            assert a.grown / b.grown == pytest.approx(mean_a / mean_b, rel=1e-9)


def test_a_step_of_the_epoch_changes_no_mean() -> None:
    pods = Pods("abc")
    pods.observe("a", 0.020, 1.0)
    pods.observe("b", 0.010, 2.0)
    before = EPOCH + 5.0
    means = [pods.of(name, before) for name in "ab"]
    pods.observe("c", 0.010, before)  # the epoch moves on with this one
    assert [pods.of(name, before) for name in "ab"] == pytest.approx(means, rel=1e-9)
    assert pods.members["a"].grown < 1.0, "the numbers are small again"


def test_it_lives_for_years() -> None:
    pods, now = Pods("ab"), 0.0
    for _ in range(3000):
        now += 997.0
        pods.observe("a", 0.010, now)
    assert pods.of("a", now) == pytest.approx(0.010)
    assert pods.latencies.unmeasured(now + 1e9) > 0.0, "no overflow, however long nothing was heard"
    assert pods.of("a", now + 1e9) >= 0.0
    pods.observe("b", 0.010, now + 1e9)
    assert pods.of("b", now + 1e9) == pytest.approx(0.010)


def test_a_mean_fades_when_nothing_is_heard() -> None:
    pods = Pods("a")
    pods.observe("a", 0.100, 0.0)
    assert pods.of("a", DECAY) == pytest.approx(0.100 / exp(1))
    assert pods.of("a", 3 * DECAY) == pytest.approx(0.100 / exp(3))


def test_an_unmeasured_member_is_average() -> None:
    pods = Pods("abc")
    assert pods.latencies.unmeasured(5.0) == 0.0, "all are alike as long as nobody was measured"
    pods.observe("a", 0.010, 0.0)
    for at in (0.0, 3.0, 10.0):
        assert pods.latencies.unmeasured(at) == pytest.approx(0.010 * exp(at / DECAY))
    for now in range(1, 200):
        pods.observe("b", 0.030, float(now))
    assert pods.latencies.mean == pytest.approx(0.030, rel=1e-3), "the mean over all follows what is measured"


def test_one_peak_at_most_doubles_what_is_believed_and_a_slow_pod_shows_it_again() -> None:
    pods = Pods("ab")
    pods.observe("a", 0.005, 0.0)
    pods.observe("b", 0.005, 0.0)
    believed = []
    for _ in range(6):
        pods.observe("b", 0.100, 0.0)
        believed.append(pods.of("b", 0.0))
    assert believed[0] == pytest.approx(DOUBT * 0.005)
    assert believed == sorted(believed)
    assert all(later <= DOUBT * earlier * 1.0001 or later <= 0.100 for earlier, later in itertools.pairwise(believed))
    assert believed[-1] == pytest.approx(0.100)


def test_the_very_first_latency_is_believed() -> None:
    pods = Pods("a")
    pods.observe("a", 3.0, 0.0)
    assert pods.of("a", 0.0) == 3.0


def test_an_attempt_given_up_says_at_least() -> None:
    pods = Pods("a")
    pods.observe("a", 0.010, 0.0)
    a = pods.members["a"]
    pods.latencies.at_least(a, 0.002, 1.0, pods.by_key)
    assert pods.of("a", 1.0) == pytest.approx(0.010 * exp(-0.1)), "it says nothing new"
    pods.latencies.at_least(a, 0.015, 1.0, pods.by_key)
    assert pods.of("a", 1.0) == pytest.approx(0.015)
