"""The rules over an interval as pure functions: thresholds, volumes, minimums, what is added to A50, the sentences."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headlessconn.core.rates import (
    NOTABLY,
    Tally,
    by_all_bad,
    by_failure_percentage,
    by_success_rate,
    mean_and_deviation,
    outliers,
)
from headlessconn.options import Options
from tests.core.dice import repeatable

DEFAULTS = Options()


def tallies(*answered: tuple[int, int]) -> list[Tally]:
    return [Tally(answers, bad) for answers, bad in answered]


def places(given_: list[Tally], options: Options = DEFAULTS) -> list[int]:
    return [found.place for found in outliers(given_, options)]


# ---- the two rules of gRFC A50 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "out"),
    [
        (0, False),
        (1, True),  # √(n - 1) = 2.0 deviations, more than 1.9: however little one of five errs
        (50, True),
    ],
)
def test_one_of_five_is_always_an_outlier_by_deviation(bad: int, out: bool) -> None:
    found = by_success_rate(tallies((100, bad), *[(100, 0)] * 4), DEFAULTS)
    assert (0 in found) is out


def test_which_is_why_an_outlier_must_be_notably_worse_as_well() -> None:
    """One bad answer in a hundred would else take a pod of five away."""
    least = round(100 * NOTABLY)
    for bad in range(100):
        assert places(tallies((100, bad), *[(100, 0)] * 4)) == ([0] if bad >= least else []), bad


def test_the_success_rate_must_lie_below_the_threshold_not_at_it() -> None:
    """Two of four fail: mean 0.5, deviation 0.5, so with a factor of one the threshold is where they are: 0."""
    at_it = tallies((100, 100), (100, 100), (100, 0), (100, 0))
    assert not by_success_rate(at_it, Options(success_rate_stdev_factor=1000, success_rate_minimum_hosts=4))
    assert by_success_rate(at_it, Options(success_rate_stdev_factor=999, success_rate_minimum_hosts=4)).keys() == {0, 1}


def test_the_failure_percentage_must_be_more_than_the_threshold() -> None:
    assert not by_failure_percentage(tallies((100, 85), *[(100, 0)] * 4), DEFAULTS)
    assert by_failure_percentage(tallies((100, 86), *[(100, 0)] * 4), DEFAULTS).keys() == {0}


@pytest.mark.parametrize(("answers", "rule"), [(100, by_success_rate), (50, by_failure_percentage)])
def test_who_answered_too_little_is_neither_judged_nor_counted_as_a_host(answers: int, rule: object) -> None:
    enough = tallies(*[(answers, 0)] * 4)
    assert rule([Tally(answers, answers), *enough], DEFAULTS).keys() == {0}  # type: ignore[operator]
    assert not rule([Tally(answers - 1, answers - 1), *enough], DEFAULTS)  # type: ignore[operator]
    assert not rule([Tally(answers, answers), *enough[1:], Tally(answers - 1, 0)], DEFAULTS)  # type: ignore[operator]


def test_a_factor_of_zero_and_a_threshold_of_a_hundred_switch_off() -> None:
    one = tallies((100, 99), *[(100, 0)] * 4)
    assert places(one) == [0]
    assert places(one, Options(success_rate_stdev_factor=0, failure_percentage_threshold=100)) == []


@repeatable
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50))
def test_the_deviation_is_that_of_the_whole_population(rates: list[float]) -> None:
    mean, deviation = mean_and_deviation(rates)
    assert mean == pytest.approx(sum(rates) / len(rates))
    assert deviation**2 == pytest.approx(sum(r * r for r in rates) / len(rates) - mean**2, abs=1e-9)


# ---- what A50 does not see --------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", range(2, 12))
def test_a_member_without_one_good_answer_is_found_at_any_size(members: int) -> None:
    for dead in range(1, members):
        found = places(tallies(*[(50, 50)] * dead, *[(50, 0)] * (members - dead)))
        assert found == list(range(dead)), "in the order given, as they are equally bad"


def test_where_the_deviation_is_blind() -> None:
    """With f = 1.9, k fully dead of n are seen when k/n < 1/(1 + f²) = 21.7 %: one from five on, two from ten on."""
    seen = {
        (members, dead)
        for members in range(5, 12)
        for dead in (1, 2, 3)
        if by_success_rate(tallies(*[(100, 100)] * dead, *[(100, 0)] * (members - dead)), DEFAULTS)
    }
    assert seen == {(n, 1) for n in range(5, 12)} | {(n, 2) for n in (10, 11)}


def test_it_needs_the_volume_too() -> None:
    assert places(tallies((49, 49), (1000, 0))) == []
    assert places(tallies((50, 50), (1000, 0))) == [0]
    assert places(tallies((50, 49), (1000, 0))) == [], "one good answer, and so few members"


def test_when_everybody_fails_it_is_not_the_pod() -> None:
    assert places(tallies(*[(100, 100)] * 2)) == []
    assert places(tallies(*[(100, 100)] * 7)) == []
    assert places(tallies((100, 100), *[(100, 96)] * 6)) == [], "four points: no better elsewhere"
    assert places(tallies((100, 100), *[(100, 90)] * 6)) == [0]


def test_with_nothing_to_compare_with_nobody_is_one() -> None:
    assert places([]) == []
    assert places(tallies((100, 100))) == []
    assert places(tallies((100, 100), (0, 0))) == []


def test_the_worst_come_first_since_not_all_may_go() -> None:
    given_ = tallies((100, 90), (100, 0), (100, 100), (100, 0), (100, 95), *[(100, 0)] * 9)
    assert places(given_) == [2, 4, 0]


def test_of_two_rules_the_stricter_ones_word_counts() -> None:
    one = tallies((100, 100), *[(100, 0)] * 4)
    for success, failure in itertools.product((0, 40, 100), repeat=2):
        options = Options(success_rate_enforcement=success, failure_percentage_enforcement=failure)
        (found,) = outliers(one, options)
        assert found.enforcement == max(success, failure)


# ---- what they say ----------------------------------------------------------------------------------------------


def test_they_say_the_numbers() -> None:
    four = [(100, 0)] * 4
    said = [found.why for bad in (20, 90, 100) for found in outliers(tallies((100, bad), *four), DEFAULTS)]
    assert said == [
        "80.0% of 100 answers were good, fewer than 80.8% (mean 96.0% of 5 members, less 1.9 deviations of 8.0%); "
        "of the others' 100.0% were",
        "10.0% of 100 answers were good, fewer than 15 %; of the others' 100.0% were",
        "none of 100 answers was good; of the others' 100.0% were",
    ]


def test_all_bad_is_not_more_than_all() -> None:
    """A count that was told twice must not hide a member."""
    assert by_all_bad([Tally(50, 51)], DEFAULTS).keys() == {0}
