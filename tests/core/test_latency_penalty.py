"""A pod that fails fast must not look fast: what a bad answer weighs, for how long, and with which policy."""

from math import exp, inf, log

import pytest

from headlessconn.core.endpoint import Key, pack
from headlessconn.core.latency import CLEARLY, DECAY, EPOCH, PENALTY, PENALTY_MAX, RETRY_AFTER_MAX, Latencies
from headlessconn.core.member import Member, State
from headlessconn.core.penalty import EXTRA, SPAN
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, key, records


class Pods:
    def __init__(self, names: str, usual: float = 0.010) -> None:
        self.members = {name: Member(pack(f"10.0.0.{ord(name)}", 80), None, 0.0) for name in names}
        self.by_key: dict[Key, Member] = {member.key: member for member in self.members.values()}
        self.latencies = Latencies(0.0)
        for name in names if usual else "":
            self.latencies.observe(self.members[name], usual, 0.0, self.by_key)

    def fail(self, name: str, now: float, latency: float = 0.001, retry_after: float = 0.0) -> None:
        self.latencies.penalize(self.members[name], latency, now, retry_after, self.by_key)

    def of(self, name: str, now: float) -> float:
        return self.latencies.of(self.members[name], now)


def test_a_fast_failure_weighs_eight_times_the_mean_over_all() -> None:
    pods = Pods("ab")
    pods.fail("b", 1.0)
    assert pods.of("b", 1.0) == pytest.approx(PENALTY * 0.010)
    assert pods.latencies.mean == pytest.approx(0.010), "which does not hear of it"


def test_it_is_not_doubted() -> None:
    """An ordinary peak at most doubles what is believed; the first bad answer weighs all it weighs."""
    pods = Pods("ab")
    pods.latencies.observe(pods.members["a"], 1.0, 0.0, pods.by_key)
    assert pods.of("a", 0.0) == pytest.approx(0.020)
    pods.fail("b", 0.0)
    assert pods.of("b", 0.0) == pytest.approx(PENALTY * pods.latencies.mean)


def test_its_latency_is_doubted_like_any_other() -> None:
    pods = Pods("ab")
    pods.fail("b", 0.0, latency=30.0)
    assert pods.of("b", 0.0) == pytest.approx(0.080), "one failure that took half a minute"
    pods.fail("b", 0.0, latency=30.0)
    assert pods.of("b", 0.0) == pytest.approx(0.160)


def test_it_never_makes_a_member_look_faster() -> None:
    pods = Pods("ab")
    for _ in range(10):
        pods.latencies.observe(pods.members["b"], 1.0, 0.0, pods.by_key)
    slow = pods.of("b", 0.0)
    pods.fail("b", 0.0)
    assert pods.of("b", 0.0) == pytest.approx(max(slow, PENALTY * pods.latencies.mean))
    pods.latencies.mean = 0.001
    pods.fail("b", 0.0)
    assert pods.of("b", 0.0) >= slow


def test_a_failure_that_follows_doubles_what_is_left_up_to_a_bound() -> None:
    pods = Pods("ab")
    weights = []
    for _ in range(6):
        pods.latencies.penalize(pods.members["b"], 0.001, 5.0, 0.0, pods.by_key, again=True)
        weights.append(round(pods.of("b", 5.0) / 0.010, 6))
    assert weights == [8, 16, 32, 64, 64, 64]
    assert weights[-1] == PENALTY_MAX
    pods.latencies.penalize(pods.members["b"], 0.001, 5.0 + 10.0, 0.0, pods.by_key, again=True)
    assert pods.of("b", 15.0) / 0.010 == pytest.approx(2 * 64 * exp(-1.0))


@pytest.mark.parametrize(("together", "weight"), [(True, 8.0), (False, 64.0)])
def test_requests_that_fail_together_count_as_one(together: bool, weight: float) -> None:
    """Four of them, and the pod is not ejected. In turn, each was sent although the one before had failed."""
    play = serving("peak_ewma")
    mean = play.engine._latencies.mean
    if together:
        for pick in [play.pick("b") for _ in range(4)]:
            play.responded(pick, bad=True)
            play.ended(pick)
    else:
        for _ in range(4):
            play.until(play.now + 1e-6)
            play.sour("b", times=1)
    assert play.view("b").latency == pytest.approx(weight * mean, rel=1e-4)  # type: ignore[union-attr]


def test_before_anybody_was_measured_it_weighs_what_it_took() -> None:
    pods = Pods("ab", usual=0.0)
    pods.fail("b", 1.0, latency=0.004)
    assert pods.of("b", 1.0) == pytest.approx(0.004)
    assert pods.latencies.mean == 0.0


@pytest.mark.parametrize("seconds", [20.0, 60.0, 200.0, 299.0])
def test_retry_after_is_over_when_it_is_over(seconds: float) -> None:
    """Until then its latency alone counts as clearly more than the mean; from then on it does not."""
    pods = Pods("ab")
    pods.fail("b", 5.0, retry_after=seconds)
    b, unmeasured = pods.members["b"], pods.latencies.unmeasured
    assert b.grown > CLEARLY * unmeasured(5.0 + seconds - 0.1)
    assert b.grown < CLEARLY * unmeasured(5.0 + seconds + 0.1)


def test_retry_after_has_a_cap_and_a_floor() -> None:
    pods = Pods("abc")
    pods.fail("a", 0.0, retry_after=86_400.0)
    pods.fail("b", 0.0, retry_after=RETRY_AFTER_MAX)
    assert pods.members["a"].grown == pods.members["b"].grown
    pods.fail("c", 0.0, retry_after=1.0)
    assert pods.of("c", 0.0) == pytest.approx(PENALTY * 0.010), "linkerd: small_retry_after_floored_at_base_penalty"
    assert pods.of("a", 0.0) == RETRY_AFTER_MAX, "what is shown is a latency that people can read"
    pods.fail("a", EPOCH + 1.0, retry_after=inf)
    assert pods.members["a"].grown < 1e300, "no overflow at the end of an epoch"


def test_it_fades_like_any_latency() -> None:
    pods = Pods("ab")
    pods.fail("b", 0.0)
    assert pods.of("b", 7.0) == pytest.approx(PENALTY * 0.010 * exp(-0.7))
    assert pytest.approx(DECAY * log(PENALTY / CLEARLY)) == SPAN


# ---- in an engine, with each policy -----------------------------------------------------------------------------

POLICIES = ("peak_ewma", "least_request")


def serving(policy: str, pods: str = "ab") -> Play:
    """Every pod has answered once, in 10 ms."""
    play = Play(pods, options=Options(policy=policy, consecutive_failures=0), dice=Loaded(0.0))  # type: ignore[arg-type]
    for name in pods:
        answer(play, name)
    return play


def answer(play: Play, name: str) -> None:
    """A request of 10 ms, alone."""
    pick = play.pick(name)
    play.until(play.now + 0.010)
    play.responded(pick)
    play.ended(pick)


def fail(play: Play, name: str, retry_after: float = 0.0, *, bad: bool = True) -> None:
    pick = play.pick(name)
    play.engine.responded(pick, bad, play.now, retry_after)
    play.obey()
    play.ended(pick)


@pytest.mark.parametrize("policy", POLICIES)
def test_one_bad_answer_keeps_requests_off_for_a_dozen_seconds(policy: str) -> None:
    play = serving(policy)
    fail(play, "b")
    began = play.now
    while play.now < began + SPAN - 0.5:
        assert play.picked(4) == {"a"}, f"{play.now - began} s after it"
        answer(play, "a")
        play.until(play.now + 0.25)
    play.until(began + SPAN + 0.1)
    answer(play, "a")
    assert "b" in play.picked(4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bad", [True, False])
def test_a_pod_that_asks_to_be_left_alone_is(policy: str, bad: bool) -> None:
    """A 429 is no bad answer of the pod, and still asks for less."""
    play = serving(policy)
    fail(play, "b", 60.0, bad=bad)
    began = play.now
    for after in (20.0, 40.0, 59.0):
        play.until(began + after)
        answer(play, "a")
        assert play.picked(4) == {"a"}
    play.until(began + 61.0)
    answer(play, "a")
    assert "b" in play.picked(4)


@pytest.mark.parametrize("policy", POLICIES)
def test_it_is_still_there_when_the_others_are_loaded(policy: str) -> None:
    play = serving(policy)
    fail(play, "b")
    load = [play.pick("a") for _ in range(EXTRA + 2)]
    assert play.picked(4) == {"b"}
    for pick in load:
        play.ended(pick)


@pytest.mark.parametrize("policy", POLICIES)
def test_when_all_fail_they_share_alike(policy: str) -> None:
    play = serving(policy, "abc")
    for name in "abc":
        fail(play, name)
    assert play.picked() == {"a", "b", "c"}


@pytest.mark.parametrize("policy", POLICIES)
def test_who_was_readmitted_by_a_good_trial_serves_at_once(policy: str) -> None:
    """Its sentence was a second; its penalty would keep it out for a dozen more."""
    play = Play("ab", options=Options(policy=policy))  # type: ignore[arg-type]
    answer(play, "a")
    answer(play, "b")
    play.sour("b")
    assert play.state("b") is State.EJECTED
    play.until(play.now + 1.0)
    trial = play.pick()
    play.until(play.now + 0.010)
    play.responded(trial)
    play.ended(trial)
    assert play.state("b") is State.READY
    assert "b" in play.picked(4)


def test_penalty_requests_are_no_requests() -> None:
    """What is shown, what is open, and what drains: only what somebody sent."""
    play = serving("least_request")
    fail(play, "b")
    view = play.view("b")
    assert view is not None
    assert view.in_flight == 0
    assert "0 in flight" in repr(play.engine._set.members[key("b")])
    pick = play.pick("b")
    assert play.view("b").in_flight == 1  # type: ignore[union-attr]
    play.ended(pick)
    fail(play, "b", 30.0)
    assert play.view("b").in_flight == 0, "a second penalty extends the first"  # type: ignore[union-attr]
    play.says = records("a")
    play.until(play.now + 6.0)
    assert play.state("b") is State.GONE, "nothing is open on it"


def test_penalties_end_by_themselves() -> None:
    play = serving("least_request", "abc")
    for name, seconds in (("a", 0.0), ("b", 100.0), ("a", 20.0), ("c", 0.0)):
        fail(play, name, seconds)
    for _ in range(130):  # somebody uses it
        play.until(play.now + 1.0)
        play.request("c")
    members = play.engine._set.members.values()
    assert [(member.in_flight, member.penalty) for member in members] == [(0, 0)] * 3
