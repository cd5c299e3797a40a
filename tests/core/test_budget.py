"""What races, retries and hedges may spend: a bucket filled by requests and by time, as large as the client is busy."""

from headlessconn.core.budget import BURST, PER_SECOND, RATIO, SAVED, Budget


def spent(budget: Budget, requests: int, now: float, tries: int = 1000) -> int:
    """How many of many tries at one moment are allowed."""
    return sum(budget.spend(requests, now) for _ in range(tries))


def test_it_begins_full_and_then_refuses() -> None:
    budget = Budget(0.0)
    assert spent(budget, 0, 0.0, tries=100) == BURST == 10
    assert (budget.spent, budget.refused) == (10, 90)


def test_looking_whether_it_allows_one_takes_nothing() -> None:
    budget = Budget(0.0)
    assert all(budget.allows(0, 0.0) for _ in range(100))
    assert (budget.spent, budget.refused) == (0, 0)
    assert spent(budget, 0, 0.0) == BURST
    assert not budget.allows(0, 0.0)


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


def test_a_quiet_client_saves_up_a_burst_and_no_more() -> None:
    """An hour of silence is no licence to send a hundred copies at once."""
    budget = Budget(0.0)
    assert spent(budget, 0, 3600.0) == BURST
    budget = Budget(0.0)
    assert spent(budget, 3600, 3600.0) == BURST, "nor is one request a second"


def test_a_busy_client_saves_up_what_ten_seconds_earn() -> None:
    """A pod that dies takes along all that is in flight on it: at 400/s and 150 ms that may be sixty at once."""
    budget = Budget(0.0)
    assert SAVED == 10.0
    assert spent(budget, 400 * 60, 60.0) == RATIO * SAVED * 400 == 800
    assert spent(budget, 400 * 60, 60.0) == 0


def test_a_start_is_rated_by_a_whole_second() -> None:
    """Ten requests in the first hundredth are no thousand a second; what they earned may be kept all the same."""
    budget = Budget(0.0)
    assert spent(budget, 10, 0.01) == 12, "ten at the beginning, a fifth of ten, and nothing for a rate"
    budget = Budget(0.0)
    assert spent(budget, 1000, 0.5) == 210


def test_who_was_busy_and_is_quiet_now_keeps_a_burst() -> None:
    budget = Budget(0.0)
    assert budget.allows(400 * 60, 60.0)
    assert budget.allows(400 * 60, 61.0)
    assert spent(budget, 400 * 60, 61.0) == BURST


def test_over_a_long_time_it_is_a_fifth_of_the_requests_and_one_a_second() -> None:
    budget = Budget(0.0)
    allowed = sum(spent(budget, requests, requests / 100.0, tries=2) for requests in range(1, 10_001))
    assert abs(allowed - (BURST + RATIO * 10_000 + PER_SECOND * 100)) <= 1


def test_when_everything_fails_the_load_grows_by_a_fifth() -> None:
    """An outage at 400/s: every request wants one more attempt. Without a budget the load doubles."""
    budget = Budget(0.0)
    spent(budget, 400 * 60, 60.0)
    allowed = sum(budget.spend(400 * 60 + more, 60.0 + more / 400) for more in range(1, 400 * 60 + 1))
    assert abs(allowed / (400 * 60) - RATIO) < 0.01
