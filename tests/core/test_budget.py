"""What races, retries and hedges may spend: a bucket of ten, filled by requests and by time."""

from headlessconn.core.budget import BURST, PER_SECOND, RATIO, Budget


def spent(budget: Budget, picks: int, now: float, tries: int = 100) -> int:
    """How many of many tries at one moment are allowed."""
    return sum(budget.spend(picks, now) for _ in range(tries))


def test_it_begins_full_and_then_refuses() -> None:
    budget = Budget(0.0)
    assert spent(budget, 0, 0.0) == BURST
    assert (budget.spent, budget.refused) == (10, 90)


def test_five_requests_earn_one_more_attempt() -> None:
    budget = Budget(0.0)
    spent(budget, 0, 0.0)
    assert 1 / RATIO == 5
    assert not budget.spend(4, 0.0)
    assert budget.spend(5, 0.0)
    assert not budget.spend(5, 0.0), "the same requests do not earn twice"
    assert spent(budget, 25, 0.0) == 4


def test_a_second_earns_one_so_that_a_quiet_client_may_still_retry() -> None:
    budget = Budget(0.0)
    spent(budget, 0, 0.0)
    assert PER_SECOND == 1.0
    assert not budget.spend(0, 0.5)
    assert budget.spend(0, 1.0)
    assert spent(budget, 0, 4.0) == 3


def test_it_holds_no_more_than_a_burst() -> None:
    budget = Budget(0.0)
    assert spent(budget, 1_000_000, 3600.0) == BURST
    assert spent(budget, 2_000_000, 3600.0) == BURST


def test_over_a_long_time_it_is_a_fifth_of_the_requests_and_one_a_second() -> None:
    budget = Budget(0.0)
    allowed = sum(spent(budget, picks, picks / 100.0, tries=2) for picks in range(1, 10_001))
    assert abs(allowed - (BURST + RATIO * 10_000 + PER_SECOND * 100)) <= 1
