"""linkerd's load biaser, case by case (linkerd2-proxy, linkerd/http/load-biaser): failures are expensive, however fast.

Its base penalty is a flat 5 s, ours eight times what is usual; its Retry-After is a latency, ours a time.
"""

import itertools

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.latency import CLEARLY, PENALTY, RETRY_AFTER_MAX
from headlessconn.options import Options
from tests.core.play import Play, key

USUAL = 0.010


def serving(pods: str = "ab") -> Play:
    play = Play(pods, options=Options(consecutive_failures=0))
    for name in pods:
        answer(play, name, USUAL)
    return play


def answer(play: Play, name: str, seconds: float, *, bad: bool = False, retry_after: float = 0.0) -> None:
    pick = play.pick(name)
    play.until(play.now + seconds)
    play.engine.responded(pick, bad, play.now, retry_after)
    play.ended(pick)


def load(play: Play, name: str) -> float:
    view = play.view(name)
    assert view is not None
    assert view.latency is not None
    return view.latency * (view.in_flight + 1)


def test_fast_failure_more_expensive_than_healthy() -> None:
    play = serving()
    answer(play, "a", 0.100)
    answer(play, "b", 0.001, bad=True)
    assert load(play, "b") > load(play, "a") > USUAL


@pytest.mark.parametrize("retry_after", [0.0, 5.0, 30.0])
def test_a_failure_is_more_expensive_whatever_it_asks(retry_after: float) -> None:
    play = serving()
    answer(play, "b", 0.001, bad=True, retry_after=retry_after)
    assert load(play, "b") > 4 * load(play, "a")


def test_failure_records_once_at_response_head() -> None:
    """Its body, its trailers and its end add nothing."""
    play = serving()
    pick = play.pick("b")
    play.responded(pick, bad=True)
    weight = play.view("b").latency  # type: ignore[union-attr]
    play.responded(pick, bad=True)
    play.ended(pick)
    assert play.view("b").latency == weight  # type: ignore[union-attr]
    assert weight == pytest.approx(PENALTY * USUAL, rel=0.01)


def test_small_retry_after_floored_at_base_penalty() -> None:
    play, plain = serving(), serving()
    answer(play, "b", 0.001, bad=True, retry_after=1.0)
    answer(plain, "b", 0.001, bad=True)
    assert load(play, "b") == load(plain, "b")


def test_429_with_retry_after_capped_at_max() -> None:
    play, most = serving(), serving()
    answer(play, "b", 0.001, retry_after=86_400.0)
    answer(most, "b", 0.001, retry_after=RETRY_AFTER_MAX)
    asked, capped = (each.engine._set.members[key("b")].grown for each in (play, most))
    assert asked == capped


def test_503_with_retry_after_is_kept_off_for_that_long_and_no_longer() -> None:
    """Theirs records 30 s as a latency, which takes 87 s to fade to twice of 10 ms."""
    play = serving()
    answer(play, "b", 0.001, bad=True, retry_after=30.0)
    began = play.now
    for after in (10.0, 20.0, 29.0):
        play.until(began + after)
        answer(play, "a", USUAL)
        assert play.picked(2) == {"a"}
    play.until(began + 30.5)
    answer(play, "a", USUAL)
    assert load(play, "b") < CLEARLY * load(play, "a")
    assert "b" in play.picked(2)


def test_cancellation_records_measurement() -> None:
    """A request given up says at least as slow as that; it is no failure."""
    play = serving()
    pick = play.pick("b")
    play.until(play.now + 0.015)
    play.ended(pick, How.CANCELLED)
    assert load(play, "b") == pytest.approx(0.015, rel=0.01)


def test_penalty_decays_over_time() -> None:
    play = serving()
    answer(play, "b", 0.001, bad=True)
    seen = []
    for _ in range(6):
        seen.append(load(play, "b"))
        play.until(play.now + 10.0)
    assert all(later == pytest.approx(earlier / 2.718281828) for earlier, later in itertools.pairwise(seen))


def test_grpc_client_errors_record_low_rtt() -> None:
    """What the caller did wrong is an answer like any other: fast is fast."""
    play = serving()
    for _ in range(20):
        play.until(play.now + 1.0)
        answer(play, "b", 0.001)
    assert load(play, "b") < USUAL / 2


def test_a_peak_that_was_worse_is_kept() -> None:
    """`max(current decayed rtt, …)`: a failure is no relief for a pod that was slower still."""
    play = serving()
    for _ in range(10):
        answer(play, "b", 1.0)
    before = load(play, "b")
    answer(play, "b", 0.0, bad=True)
    assert load(play, "b") >= before
