"""The peers' tables for retry budgets: Finagle's RetryBudgetTest, tower's TpsBudget, gRPC's throttling.

Theirs are parameters, ours are fixed: a fifth of the requests and one a second, saved up to ten, or for ten seconds.
"""

import pytest

from headlessconn.core.budget import BURST, PER_SECOND, RATIO, SAVED, Budget
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick
from tests.core.play import Play


def withdrawn(rate: float, seconds: int) -> int:
    """Every request wants one more attempt; how many were allowed."""
    budget = Budget(0.0)
    allowed = 0
    for request in range(1, int(rate * seconds) + 1):
        allowed += budget.spend(request, request / rate)
    return allowed


@pytest.mark.parametrize("rate", [2.0, 10.0, 100.0, 1000.0])
def test_finagle_a_percentage_of_the_requests_and_a_minimum_a_second(rate: float) -> None:
    """Finagle: 10 000 requests · pct + minRetries · seconds + what it opens with, ± 1, for pct from .0001 to .9999."""
    seconds = int(10_000 / rate)
    earned = RATIO * 10_000 + PER_SECOND * seconds + BURST
    assert abs(withdrawn(rate, seconds) - min(earned, 10_000)) <= 1


def test_finagle_it_opens_with_a_reserve() -> None:
    """Theirs: 10 a second for 10 s, so 100. Ours: ten."""
    budget = Budget(0.0)
    assert sum(budget.spend(0, 0.0) for _ in range(200)) == BURST


def test_finagle_deposits_expire() -> None:
    """What was earned more than ten seconds ago is gone: a night of good service pays for no storm in the morning."""
    busy = Budget(0.0)
    for second in range(1, 3601):
        busy.allows(second * 100, float(second))
    assert sum(busy.spend(360_000, 3600.0) for _ in range(10_000)) == RATIO * 100 * SAVED
    busy.allows(360_000, 3700.0)
    assert sum(busy.spend(360_000, 3701.0) for _ in range(10_000)) == BURST, "after a quiet time as much as a quiet one"


def test_tower_a_budget_that_is_empty_denies_and_earns_again() -> None:
    budget = Budget(0.0)
    while budget.spend(0, 0.0):
        pass
    assert [budget.spend(requests, 0.0) for requests in (1, 4, 5, 9, 10)] == [False, False, True, False, True]


def test_grpc_looking_takes_nothing() -> None:
    budget = Budget(0.0)
    assert all(budget.allows(0, 0.0) for _ in range(100))
    assert sum(budget.spend(0, 0.0) for _ in range(100)) == BURST
    assert not budget.allows(0, 0.0)
    assert budget.allows(0, 1.0)
    assert budget.spent == BURST
    assert budget.refused == 100 - BURST, "and is not counted as refused"


def test_a_time_that_went_back_earns_nothing_twice() -> None:
    budget = Budget(100.0)
    while budget.spend(0, 100.0):
        pass
    for _ in range(50):
        assert not budget.spend(0, 100.5)
        assert not budget.spend(0, 100.0)


def test_retries_earn_nothing() -> None:
    """Else a storm of retries would pay for itself: 1 / (1 - 0.2) of what was meant."""
    play = Play("abc")
    for _ in range(100):
        first = play.engine.pick(play.now)
        assert isinstance(first, Pick)
        play.engine.ended(first, How.OK, play.now)
    while play.engine.may_spend(play.now):
        again = play.engine.pick(play.now, again=True)
        assert isinstance(again, Pick)
        play.engine.ended(again, How.OK, play.now)
    assert play.engine.budget.spent == BURST + RATIO * 100
    for _ in range(5):
        again = play.engine.pick(play.now, again=True)
        assert isinstance(again, Pick)
        play.engine.ended(again, How.OK, play.now)
    assert not play.engine.could_spend(play.now)
    once = play.engine.pick(play.now)
    assert isinstance(once, Pick)
    assert play.engine.budget.allows(play.engine.picks - play.engine.again + 4, play.now)
