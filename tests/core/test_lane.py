"""The latencies of one kind of request: quantiles of the last few hundred, and as many kinds as there may be."""

from __future__ import annotations

import random

import pytest

from headlessconn.core.lane import ENOUGH, FRESH, KEPT, LANES, Lane, Lanes


def lane(*latencies: float) -> Lane:
    found = Lane()
    for latency in latencies:
        found.observe(latency)
    return found


def test_too_few_say_nothing() -> None:
    few = [0.01] * (ENOUGH - 1)
    assert lane(*few).quantile(0.99) is None
    assert lane(*few, 0.02).quantile(0.5) == 0.01


@pytest.mark.parametrize(
    ("part", "value"), [(0.0, 0.001), (0.5, 0.051), (0.95, 0.096), (0.99, 0.100), (1.0, 0.100)], ids=str
)
def test_a_quantile_is_what_that_part_takes_at_most(part: float, value: float) -> None:
    latencies = [number / 1000 for number in range(1, 101)]
    random.Random(3).shuffle(latencies)
    assert lane(*latencies).quantile(part) == value


def test_only_the_last_few_hundred_count() -> None:
    old = lane(*[10.0] * 1000, *[0.01] * KEPT)
    assert old.quantile(0.99) == 0.01
    assert old.quantile(0.0) == 0.01


def test_one_in_a_hundred_slow_ones_is_not_the_usual() -> None:
    seldom = lane(*([0.01] * 127 + [5.0]) * 2)
    assert seldom.quantile(0.99) == 0.01, "two of 256"
    often = lane(*([0.01] * 50 + [5.0]) * 5)
    assert often.quantile(0.99) == 5.0, "five of 255"


def test_a_quantile_follows_within_so_many_new_ones() -> None:
    followed = lane(*[0.01] * KEPT)
    assert followed.quantile(0.99) == 0.01
    for _ in range(FRESH):
        followed.observe(1.0)
    assert followed.quantile(0.99) == 1.0


def test_the_latest_is_with_every_one() -> None:
    """Of 256 the third largest is the 99th percentile: three slow answers in a row make it."""
    followed = lane(*[0.01] * KEPT)
    assert followed.quantile(0.99) == 0.01
    for _ in range(3):
        assert followed.quantile(0.99, latest=True) == 0.01
        followed.observe(1.0)
    assert followed.quantile(0.99, latest=True) == 1.0


def test_a_young_one_follows_sooner() -> None:
    """Twenty may have been the start of the application, when everything was cold."""
    young = lane(*[1.0] * ENOUGH)
    assert young.quantile(0.5) == 1.0
    for _ in range(2 * ENOUGH):
        young.observe(0.01)
    assert young.quantile(0.5) == 0.01


def test_lanes_are_made_by_name_and_the_one_unused_for_longest_goes() -> None:
    lanes = Lanes()
    first, second = lanes.named("/first"), lanes.named("/second")
    assert first is not second
    assert first.name == "/first"
    for number in range(LANES - 2):
        lanes.named(str(number))
    assert lanes.named("/first") is first
    lanes.named("one too many")
    assert lanes.named("/first") is first
    assert lanes.named("/second") is not second
