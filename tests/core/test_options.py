"""Options: ranges, contradictions, unknown names; each error is an `OptionError` that says what to write instead."""

import dataclasses
import math
from pathlib import Path

import pytest

from headlessconn.errors import HeadlessError, OptionError
from headlessconn.options import Options

SPANS = [
    "refresh_min",
    "refresh_max",
    "hold_nx",
    "wait_for_endpoints",
    "idle_after",
    "stale_after",
    "lookup_timeout",
    "connect_timeout",
    "race_after",
    "eject_base",
    "eject_max",
    "check_interval",
    "outlier_interval",
    "rebalance_over",
]
PERCENTAGES = ["success_rate_enforcement", "failure_percentage_threshold", "failure_percentage_enforcement"]
COUNTS = [
    "consecutive_failures",
    "success_rate_stdev_factor",
    "success_rate_minimum_hosts",
    "success_rate_volume",
    "failure_percentage_minimum_hosts",
    "failure_percentage_volume",
    "max_waiting",
    "idle_targets",
    *PERCENTAGES,
]


def test_the_defaults_are_the_promised_ones() -> None:
    options = Options()
    assert (options.refresh_min, options.refresh_max, options.hold_nx) == (1.0, 5.0, 10.0)
    assert (options.wait_for_endpoints, options.idle_after, options.stale_after) == (5.0, 60.0, 60.0)
    assert (options.lookup_timeout, options.connect_timeout, options.race_after) == (3.0, 2.5, 0.25)
    assert (options.policy, options.family, options.consecutive_failures) == ("peak_ewma", "auto", 5)
    assert options == Options.of(None, {})


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize(
    "value",
    [-1, -0.001, math.nan, math.inf, 1e9, 10**400, "1", None, (1,), 1j, True],
    ids=["-1", "-0.001", "nan", "inf", "1e9", "huge", "text", "none", "tuple", "complex", "bool"],
)
def test_a_span_out_of_range(name: str, value: object) -> None:
    with pytest.raises(OptionError) as caught:
        Options.of(None, {name: value})
    assert caught.value.option == name
    assert f"option {name}:" in str(caught.value)
    assert f"a right one looks like {name}=" in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, HeadlessError)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 2.5, 10**9, "5", None, False])
def test_a_count_out_of_range(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        Options.of(None, {name: value})


@pytest.mark.parametrize("name", PERCENTAGES)
def test_a_percentage_ends_at_a_hundred(name: str) -> None:
    assert getattr(Options.of(None, {name: 100}), name) == 100
    with pytest.raises(OptionError, match=name):
        Options.of(None, {name: 101})


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True])
def test_a_limit_of_requests_in_flight_is_a_whole_number_or_none(value: object) -> None:
    assert Options.of(None, {"max_in_flight": 1}).max_in_flight == 1
    assert Options.of(None, {"max_in_flight": None}).max_in_flight is None
    with pytest.raises(OptionError, match="max_in_flight"):
        Options.of(None, {"max_in_flight": value})


@pytest.mark.parametrize("name", ["max_age", "idle_timeout"])
@pytest.mark.parametrize("value", [0, 0.5, -1, math.nan, math.inf, 1e9, "60", True])
def test_an_age_is_a_span_or_none(name: str, value: object) -> None:
    assert getattr(Options.of(None, {name: None}), name) is None
    assert getattr(Options.of(None, {name: 60}), name) == 60
    with pytest.raises(OptionError, match=f"option {name}: .* is not between 1 and"):
        Options.of(None, {name: value})


@pytest.mark.parametrize("name", ["refresh_min", "refresh_max", "lookup_timeout", "connect_timeout", "race_after"])
def test_zero_is_no_span_between_tries(name: str) -> None:
    with pytest.raises(OptionError, match=name):
        Options.of(None, {name: 0})


@pytest.mark.parametrize("name", ["hold_nx", "wait_for_endpoints", "consecutive_failures", "rebalance_over"])
def test_zero_means_never(name: str) -> None:
    assert getattr(Options.of(None, {name: 0}), name) == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"refresh_min": 6.0}, "6 is more than refresh_max=5"),
        ({"refresh_max": 0.5}, "1 is more than refresh_max=0.5"),
        ({"eject_base": 61.0}, "61 is more than eject_max=60"),
        ({"eject_max": 0.5}, "1 is more than eject_max=0.5"),
    ],
)
def test_two_that_contradict_each_other(settings: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Options.of(None, settings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("policy", "fastest", "'fastest' is not one of"),
        ("policy", None, "None is not one of"),
        ("policy", ["peak_ewma"], "is not one of"),
        ("family", 4, "4 is not one of"),
        ("family", "v6", "'v6' is not one of"),
        ("nameservers", "10.96.0.10", "a single string, not several"),
        ("nameservers", (), "it is empty"),
        ("nameservers", 53, "53"),
        ("nameservers", (53,), "53"),
        ("nameservers", (["10.96.0.10"],), "10.96.0.10"),
        ("search", "shop.svc.cluster.local", "a single string, not several"),
        ("search", (None,), "None"),
        ("ndots", -1, "-1"),
        ("ndots", 16, "16"),
        ("ndots", "5", "'5'"),
        ("ndots", 1.5, "1.5"),
        ("cluster_zone", 5, "5"),
        ("cluster_zone", "", "''"),
        ("resolv_conf", None, "None"),
        ("resolv_conf", 3, "3"),
    ],
)
def test_a_value_that_makes_no_sense(name: str, value: object, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        Options.of(None, {name: value})
    assert caught.value.option == name
    assert said in str(caught.value)


def test_lists_become_tuples_so_that_options_can_be_compared() -> None:
    given = Options.of(None, {"nameservers": ["10.96.0.10"], "search": ["shop.svc.cluster.local"], "ndots": 5})
    assert given.nameservers == ("10.96.0.10",)
    assert given.search == ("shop.svc.cluster.local",)
    assert hash(given) == hash(dataclasses.replace(given))
    assert Options.of(None, {"search": []}).search == (), "no search list at all is a choice"


def test_a_path_is_as_good_as_its_name() -> None:
    assert Options.of(None, {"resolv_conf": Path("/etc/resolv.conf")}) == Options()


def test_an_unknown_option_is_told_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"option refresh_maximum: there is no such option; .*refresh_max"):
        Options.of(None, {"refresh_maximum": 3})


def test_changes_are_made_to_the_options_given() -> None:
    base = Options(refresh_max=2.0)
    changed = Options.of(base, {"policy": "round_robin"})
    assert (changed.refresh_max, changed.policy) == (2.0, "round_robin")
    assert base.policy == "peak_ewma"
    assert Options.of(base, {}) is base
    with pytest.raises(dataclasses.FrozenInstanceError):
        base.refresh_max = 3.0  # type: ignore[misc]
