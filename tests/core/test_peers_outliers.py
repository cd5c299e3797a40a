"""The peers' own tables for outliers: grpc-java, grpc-go, Envoy, Finagle and linkerd, played against ours.

Two differences are on purpose. At most max(1, ⌊n/2⌋) are ejected, where theirs is a percentage that rounds up; and an
outlier must be notably worse than the others together.
"""

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pick import TRIAL
from headlessconn.core.rates import Tally, by_failure_percentage, by_success_rate, mean_and_deviation, outliers
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, records


def options(**settings: int) -> Options:
    return Options.of(None, {"consecutive_failures": 0, **settings})


# ---- the mathematics --------------------------------------------------------------------------------------------


def test_grpc_java_math_checks_out() -> None:
    assert mean_and_deviation([600, 470, 170, 430, 300]) == (394.0, 147.32277488562318)


def test_envoy_success_rate_threshold() -> None:
    """OutlierUtility.SRThreshold: {50, 100, 100, 100, 100} with 1.9 give a mean of 90 and a threshold of 52."""
    mean, deviation = mean_and_deviation([50, 100, 100, 100, 100])
    assert (mean, mean - 1.9 * deviation) == (90.0, 52.0)


# ---- grpc-java, OutlierDetectionLoadBalancerTest ----------------------------------------------------------------

SUCCESS = {"success_rate_minimum_hosts": 3, "success_rate_volume": 10, "failure_percentage_enforcement": 0}
FAILURE = {"failure_percentage_minimum_hosts": 3, "failure_percentage_volume": 10, "success_rate_enforcement": 0}

JAVA = [
    # name, options, which of five servers fail, calls to some of them (20 to the others), which are ejected
    ("successRateNoOutliers", SUCCESS, "", {}, ""),
    ("successRateOneOutlier", SUCCESS, "a", {}, "a"),
    ("successRateOneOutlier_notEnoughVolume", SUCCESS | {"success_rate_volume": 20}, "a", {"a": 19}, ""),
    (
        "successRateOneOutlier_notEnoughAddressesWithVolume",
        SUCCESS | {"success_rate_minimum_hosts": 5, "success_rate_volume": 20},
        "a",
        {"b": 19},
        "",
    ),
    ("successRateOneOutlier_enforcementPercentage", SUCCESS | {"success_rate_enforcement": 0}, "a", {}, ""),
    ("successRateTwoOutliers", SUCCESS | {"success_rate_stdev_factor": 1}, "ab", {}, "ab"),
    ("successRateThreeOutliers_maxEjectionPercentage", SUCCESS | {"success_rate_stdev_factor": 1}, "abc", {}, "ab"),
    ("failurePercentageNoOutliers", FAILURE, "", {}, ""),
    ("failurePercentageOneOutlier", FAILURE, "a", {}, "a"),
    ("failurePercentageOneOutlier_notEnoughVolume", FAILURE | {"failure_percentage_volume": 100}, "a", {}, ""),
    ("failurePercentageOneOutlier_enforcementPercentage", FAILURE | {"failure_percentage_enforcement": 0}, "a", {}, ""),
    ("successRateAndFailurePercentage_successRateOutlier", SUCCESS, "a", {}, "a"),
    ("successRateAndFailurePercentage_errorPercentageOutlier", FAILURE, "a", {}, "a"),
]


@pytest.mark.parametrize(
    ("settings", "failing", "calls", "ejected"), [row[1:] for row in JAVA], ids=[r[0] for r in JAVA]
)
def test_grpc_java(settings: dict[str, int], failing: str, calls: dict[str, int], ejected: str) -> None:
    play = Play("abcde", options=options(**settings))
    for name in "abcde":
        for _ in range(calls.get(name, 20)):
            play.request(name, bad=name in failing)
    play.until(10.0)
    assert {name for name in "abcde" if play.state(name) is State.EJECTED} == set(ejected)


def test_grpc_java_failure_percentage_with_too_few_addresses_of_volume() -> None:
    """Its rule is silent with one of five short of the volume, and so is ours; but not one good answer is enough for us
    at any size, which is the rule of ours that theirs lacks."""
    tallies = [Tally(20, 20), Tally(19, 0), *[Tally(20, 0)] * 3]
    rule = options(failure_percentage_minimum_hosts=5, failure_percentage_volume=20)
    assert by_failure_percentage(tallies, rule) == {}
    assert [found.place for found in outliers(tallies, rule)] == [0]


def test_grpc_java_success_rate_and_failure_percentage_three_outliers() -> None:
    """Success rate finds two of the three, failure percentage with its threshold of 0 and volume of 1 the third also.
    Theirs may eject all; of five we eject two, and count the third."""
    both = options(
        success_rate_minimum_hosts=3,
        success_rate_volume=10,
        success_rate_stdev_factor=1,
        failure_percentage_threshold=0,
        failure_percentage_minimum_hosts=3,
        failure_percentage_volume=1,
    )
    tallies = [Tally(20, 20), Tally(20, 20), Tally(1, 1), Tally(20, 0), Tally(20, 0)]
    assert by_success_rate(tallies, both).keys() == {0, 1}
    assert by_failure_percentage(tallies, both).keys() == {0, 1, 2}
    assert [found.place for found in outliers(tallies, both)] == [0, 1, 2]


def test_grpc_java_success_rate_one_outlier_config_change_and_unejected() -> None:
    """The ejected one is back when it answers well: theirs when its time is over, ours by a trial, after that time."""
    play = Play("abcde", options=options(**SUCCESS))
    for name in "abcde":
        for _ in range(20):
            play.request(name, bad=name == "a")
    play.until(10.0)
    assert play.state("a") is State.EJECTED
    play.until(11.0)
    play.request("a")
    assert play.state("a") is State.READY


# ---- grpc-go, balancer_test.go ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "enforcement", "ejected", "unenforced"),
    [("c", 100, 1, 0), ("", 100, 0, 0), ("c", 0, 0, 1)],
    ids=["one fails", "none fails", "not enforced"],
)
def test_grpc_go_eject_uneject(failing: str, enforcement: int, ejected: int, unenforced: int) -> None:
    """TestEjectUnejectSuccessRate, which configures failure percentage: threshold 50, three hosts, volume 3. Five good
    calls each eject nobody; then five bad ones of the failing one. Its metrics count both kinds of ejection."""
    settings = {"failure_percentage_threshold": 50, "failure_percentage_minimum_hosts": 3}
    rule = options(**settings, failure_percentage_volume=3, failure_percentage_enforcement=enforcement)
    play = Play("abc", options=rule, dice=Loaded(0.0))
    for name in "abc":
        for _ in range(5):
            play.request(name)
    play.until(10.0)
    assert set(play.states.values()) == {"ready"}
    for _ in range(5):
        for name in "cba":
            play.request(name, bad=name in failing)
    play.until(20.0)
    assert sum(state == "ejected" for state in play.states.values()) == ejected
    snapshot = play.engine.snapshot(play.now)
    assert (snapshot.ejections, snapshot.unenforced) == (ejected, unenforced)
    for _ in range(50):
        play.until(play.now + 20.0)
        play.request("c")
    assert set(play.states.values()) == {"ready"}


def test_grpc_go_eject_failure_rate() -> None:
    """TestEjectFailureRate, which configures success rate: factor 500, three hosts; 5/5, 5/5 and 0/5."""
    rule = options(success_rate_stdev_factor=500, success_rate_minimum_hosts=3, success_rate_volume=3)
    tallies = [Tally(5, 0), Tally(5, 0), Tally(5, 5)]
    assert by_success_rate(tallies, rule).keys() == {2}


def test_grpc_go_a_gate_that_stays_shut() -> None:
    """Its tally of ejected endpoints is not lowered when one of them leaves. Here one leaves with each round, and the
    next is ejected all the same."""
    play = Play("abc")
    for old, new in (("a", "d"), ("b", "e"), ("c", "f"), ("d", "g")):
        play.sour(old)
        assert play.state(old) is State.EJECTED
        play.says = records(play.listed - {old} | {new})
        play.until(play.now + 6.0)


# ---- Envoy, outlier_detection_impl_test.cc ----------------------------------------------------------------------


def test_envoy_basic_flow_5xx() -> None:
    """1 × 500, 1 × 200, 4 × 500: not yet; the fifth in a row ejects. Back after its time, out again after five more;
    when the host is removed none is ejected any more."""
    play = Play("ab", options=Options(eject_base=30.0, eject_max=300.0))
    for bad in (True, False, True, True, True, True):
        play.request("b", bad=bad)
    assert play.state("b") is State.READY
    play.request("b", bad=True)
    assert play.state("b") is State.EJECTED
    play.until(9.999)
    assert play.state("b") is State.EJECTED
    assert not play.pick("a").flags & TRIAL
    play.until(30.001)
    trial = play.pick()
    assert trial.flags & TRIAL
    play.responded(trial)
    play.ended(trial)
    assert play.state("b") is State.READY
    play.sour("b")
    assert play.state("b") is State.EJECTED
    play.says = records("a")
    play.until(36.0)
    assert play.engine.snapshot(play.now).of(State.EJECTED) == ()


def test_envoy_always_ejects_one_and_never_more_than_the_share() -> None:
    """With `always_eject_one_host` its 10 % of two hosts are one. Ours is half, and one of two or three in any case."""
    for pods, most in (("ab", 1), ("abc", 1), ("abcd", 2), ("abcdefghij", 5)):
        play = Play(pods)
        for name in pods:
            play.sour(name)
        assert sum(state == "ejected" for state in play.states.values()) == most


# ---- linkerd, failure accrual by consecutive failures -----------------------------------------------------------


def test_linkerd_consecutive_failures_and_its_probes() -> None:
    """Two failures shut it; a second later exactly one probe; that fails, and it is shut for two; stragglers that fail
    while it is shut are ignored; a probe that succeeds opens it."""
    play = Play("ab", options=Options(consecutive_failures=2, eject_base=1.0, eject_max=100.0))
    stragglers = [play.pick("b") for _ in range(3)]
    play.sour("b", times=2)
    assert play.state("b") is State.EJECTED
    play.until(1.0)
    probe = play.pick()
    assert probe.flags & TRIAL
    assert not any(play.pick().flags & TRIAL for _ in range(5)), "exactly one"
    play.responded(probe, bad=True)
    play.ended(probe)
    for straggler in stragglers:
        play.responded(straggler, bad=True)
        play.ended(straggler)
    assert play.view("b").retry_in == 2.0, "not more for the stragglers"  # type: ignore[union-attr]
    play.until(3.0)
    probe = play.pick()
    assert probe.flags & TRIAL
    play.responded(probe)
    play.ended(probe)
    assert play.state("b") is State.READY


# ---- Finagle, FailureAccrual ------------------------------------------------------------------------------------


def test_finagle_five_in_a_row_and_a_row_broken_by_one_success() -> None:
    play = Play("ab")
    for _ in range(50):
        play.sour("b", times=4)
        play.request("b")
    assert play.state("b") is State.READY
    play.sour("b", times=5)
    assert play.state("b") is State.EJECTED


@pytest.mark.parametrize("how", [How.RESET, How.TIMEOUT])
def test_finagle_broken_exchanges_count_like_bad_answers(how: How) -> None:
    play = Play("ab")
    for _ in range(5):
        play.until(play.now + 0.1)
        play.request("b", how)
    assert play.state("b") is State.EJECTED
