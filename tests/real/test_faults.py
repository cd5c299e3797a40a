"""The fault lab in short: real pods, real faults. `make faults` is the whole of it.

Claimed here is what a noisy machine cannot break: that no idempotent request failed, that nothing else was sent twice,
and that a new pod was found. How fast is in the tables that `make faults` prints.
"""

from collections.abc import Iterator

import pytest

from tests.real.columns import COLUMNS, Column
from tests.real.faults import Bench
from tests.real.lab import Lab, missing
from tests.real.results import Result, table
from tests.real.scenarios import BY_NAME, SCENARIOS, Scenario
from tests.tiers import note, require

pytestmark = [pytest.mark.real, pytest.mark.slow]

RATE = 50.0
SECONDS = 8.0
"""The new pod is listed at 2 s and TTL is 5 s, so there is a look-up left in it; longer where a scenario needs it."""
NEEDS = {"rolling": 13.0, "dns-silent": 12.0, "dns-servfail": 12.0, "dns-stale": 12.0, "steady": 3.0}

SHORT = [scenario for scenario in SCENARIOS if not scenario.alone and scenario.name != "slow-pod"]
BY_COLUMN = {column.name: column for column in COLUMNS}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    require("real-network", not missing(), missing())
    with Lab("hcshort") as lab:
        yield Bench(lab, COLUMNS_HERE)


COLUMNS_HERE = [BY_COLUMN["headlessconn"], BY_COLUMN["hedged"]]


def play(bench: Bench, scenario: Scenario, columns: list[Column]) -> dict[str, Result]:
    seconds = NEEDS.get(scenario.name, SECONDS)
    found = {name: one for name, (one,) in bench.trial(scenario, RATE, columns, seconds=seconds).items()}
    for line in list(table((scenario.name, scenario.spare > 0, name, one) for name, one in found.items()))[1:]:
        note("real-network", line)
    return found


@pytest.mark.parametrize("scenario", SHORT, ids=lambda scenario: scenario.name)
def test_nothing_fails_and_new_pods_are_found(bench: Bench, scenario: Scenario) -> None:
    for name, ours in play(bench, scenario, COLUMNS_HERE).items():
        assert ours.failed == 0, (name, ours.errors)
        assert ours.posts_twice == 0, name
        if scenario.spare:
            assert ours.first == ours.first, f"{name}: the new pod received nothing"


@pytest.mark.parametrize("column", [column for column in COLUMNS if column.proxy], ids=lambda column: column.label)
def test_the_proxies_run_as_we_configured_them(bench: Bench, column: Column) -> None:
    require(column.tier, not column.lacks(), column.lacks())
    with Lab("hcproxies") as lab:
        through = play(Bench(lab, [column]), BY_NAME["steady"], [column])[column.name]
    assert through.requests > 0
    assert through.failed == 0, through.errors
