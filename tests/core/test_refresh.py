"""When a target is looked up again: each row is a history of facts, and the exact second of the next look-up.

With `Loaded(0.0)` there is no jitter; 1.0 is the most there may be.
"""

from collections.abc import Callable
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headlessconn.core.refresh import EARLY, EMPTY_EAGER, GUARD, HINT_FORGOTTEN, LATE, Refresh
from headlessconn.options import Options
from tests.core.dice import Loaded, repeatable

OPTIONS = Options()
ROUNDING = 1e-9


class Played:
    """A schedule and the clock of its test: `asks(at)` begins a look-up then, and what follows is told at that time."""

    def __init__(self, dice: float = 0.0, options: Options = OPTIONS) -> None:
        self.refresh = Refresh(options, Loaded(dice), 0.0)
        self.now = 0.0

    def asks(self, at: float | None = None) -> "Played":
        """A look-up begins at `at`, or when it is due."""
        self.now = self.refresh.due_at if at is None else at
        self.refresh.ask(self.now)
        return self

    def records(self, ttl: float | None, changed: bool = False, after: float = 0.0) -> "Played":
        self.now += after
        self.refresh.records(ttl, changed, self.now)
        return self

    def nobody(self, ttl: float | None = 5.0, waiters: int = 0, changed: bool = False) -> "Played":
        self.refresh.nobody(ttl, waiters, changed, self.now)
        return self

    def no_news(self, waiters: int = 0, after: float = 0.0) -> "Played":
        self.now += after
        self.refresh.no_news(waiters, self.now)
        return self

    def hinted(self, at: float) -> "Played":
        self.now = at
        self.refresh.hint(at)
        return self

    @property
    def wait(self) -> float:
        """From the last fact to the next look-up."""
        return self.refresh.due_at - self.now


def test_the_first_look_up_is_due_at_once() -> None:
    played = Played()
    assert played.refresh.due_at == 0.0
    assert (played.refresh.asking, played.refresh.give_up_at) == (0, inf)


@pytest.mark.parametrize(
    ("ttl", "wait"),
    [(0, 1.0), (0.2, 1.0), (1, 1.0), (2, 2.0), (4.5, 4.5), (5, 5.0), (30, 5.0), (86400, 5.0), (None, inf)],
)
def test_the_ttl_is_kept_between_the_minimum_and_the_maximum(ttl: float | None, wait: float) -> None:
    assert Played().asks(10.0).records(ttl).wait == wait


def test_the_minimum_counts_from_the_question_not_from_its_answer() -> None:
    """A name is never asked more often than every refresh_min; but a slow answer has used that time up."""
    played = Played().asks(10.0).records(0, after=0.4)
    assert played.refresh.due_at == 11.4
    played = Played(dice=1.0).asks(10.0).records(0, after=0.05).asks(20.0).records(0, after=0.05)
    assert played.refresh.due_at == 21.0, "10 % early would be 20.95, which is within refresh_min of the question"


@pytest.mark.parametrize(("dice", "wait"), [(0.0, 5.0), (0.5, 3.0), (1.0, 1.0)])
def test_the_first_wait_is_any_that_is_allowed(dice: float, wait: float) -> None:
    """So that targets which were opened together are not asked for together, round after round."""
    assert Played(dice).asks(0.0).records(30).wait == pytest.approx(wait)


@pytest.mark.parametrize(("ttl", "earliest"), [(2, 1.8), (5, 4.5), (30, 4.5)])
def test_a_constant_ttl_is_jittered_early(ttl: float, earliest: float) -> None:
    """So that a fleet which was started together spreads: up to 10 % early, and never late."""
    waits = [Played(dice).asks(0.0).records(ttl).asks().records(ttl).wait for dice in (0.0, 0.5, 1.0)]
    full = min(ttl, 5.0)
    assert waits == pytest.approx([full, full * (1 - EARLY / 2), earliest])


def test_a_ttl_that_counts_down_is_jittered_late() -> None:
    """There is a cache in between: asking before its entry ends only brings the old answer with TTL 1."""
    for dice in (0.0, 0.5, 1.0):
        played = Played(dice).asks(0.0).records(5).asks().records(3)
        assert played.refresh.counts_down
        assert played.wait == pytest.approx(3 * (1 + LATE * dice))


def test_late_is_never_later_than_the_maximum() -> None:
    for dice in (0.0, 0.5, 1.0):
        played = Played(dice).asks(0.0).records(30).asks().records(25)
        assert played.refresh.counts_down
        assert 4.5 <= played.wait <= 5.0


def test_hints_ask_soon_but_never_within_the_minimum() -> None:
    played = Played().asks(0.0).records(5).hinted(0.3)
    assert played.refresh.due_at == 1.0
    played = Played().asks(0.0).records(5).hinted(2.0)
    assert played.refresh.due_at == 2.0
    played = Played().asks(0.0).records(5).hinted(4.999).hinted(0.5)
    assert played.refresh.due_at == 1.0


def test_a_hint_never_puts_a_look_up_off() -> None:
    played = Played().asks(0.0).records(1).hinted(0.5)
    assert played.refresh.due_at == 1.0


def test_hints_whose_answers_change_nothing_are_heeded_ever_later() -> None:
    """A dead node stays listed for 40-50 s: the hints of its refused dials must not become a storm."""
    played = Played().asks(0.0).records(5)
    waits = []
    for _ in range(6):
        asked_at = played.refresh.asked_at
        played.hinted(asked_at + 0.01)
        waits.append(played.refresh.due_at - asked_at)
        played.asks().records(5)
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0, 5.0]


def test_a_hint_is_prompt_again_after_an_answer_that_changed_something() -> None:
    played = Played().asks(0.0).records(5).hinted(0.0).asks().records(5).hinted(1.0)
    assert played.refresh.due_at == 3.0
    played.asks().records(5, changed=True).hinted(3.1)
    assert played.refresh.due_at == 4.0


def test_a_hint_is_prompt_again_after_a_time_without_hints() -> None:
    played = Played().asks(0.0).records(5).hinted(0.0).asks().records(5).hinted(1.0).asks().records(5)
    for _ in range(20):
        played.asks().records(5)
    assert played.now > 3.0 + HINT_FORGOTTEN
    asked_at = played.refresh.asked_at
    played.hinted(asked_at + 0.5)
    assert played.refresh.due_at == asked_at + 1.0


def test_a_hint_needs_no_second_question_beside_the_one_under_way() -> None:
    played = Played().asks(0.0).hinted(0.2)
    assert played.refresh.due_at == inf
    assert played.records(5, after=0.1).wait == 5.0


@pytest.mark.parametrize("dice", [0.0, 1.0])
def test_no_news_backs_off_to_the_maximum(dice: float) -> None:
    played = Played(dice)
    waits = []
    for _ in range(6):
        played.asks().no_news()
        waits.append(played.wait)
    assert waits == pytest.approx([max(1.0, wait * (1 - EARLY * dice)) for wait in (1.0, 2.0, 4.0, 5.0, 5.0, 5.0)])


def test_no_news_backs_off_no_further_than_the_ttl_known_last() -> None:
    """So that after an outage of DNS the set is right again as soon as after a change."""
    played = Played().asks().records(2)
    waits = []
    for _ in range(4):
        played.asks().no_news()
        waits.append(played.wait)
    assert waits == [1.0, 2.0, 2.0, 2.0]


def test_the_back_off_ends_with_any_answer() -> None:
    played = Played().asks().no_news().asks().no_news().asks().records(5).asks().no_news()
    assert played.wait == 1.0
    played = Played().asks().no_news().asks().no_news().asks().nobody().asks().no_news()
    assert played.wait == 1.0


def test_while_callers_wait_it_does_not_back_off() -> None:
    played = Played()
    for _ in range(6):
        played.asks().no_news(waiters=1)
        assert played.wait == 1.0


def test_a_look_up_that_took_long_is_followed_at_once_when_callers_wait() -> None:
    played = Played().asks(0.0).no_news(waiters=1, after=3.0)
    assert played.refresh.due_at == 4.0


def test_an_empty_set_is_asked_for_eagerly_and_then_by_its_negative_ttl() -> None:
    played = Played()
    asked = []
    for _ in range(40):
        played.asks().nobody(ttl=3.0)
        asked.append(played.now)
    eager = [at for at in asked if at <= EMPTY_EAGER]
    assert eager == [float(second) for second in range(31)]
    assert asked[31:34] == [33.0, 36.0, 39.0]


@pytest.mark.parametrize(("ttl", "wait"), [(0.0, 1.0), (2.0, 2.0), (30.0, 5.0), (None, 5.0)])
def test_the_negative_ttl_is_kept_between_the_minimum_and_the_maximum(ttl: float | None, wait: float) -> None:
    played = Played().asks(0.0).nobody()
    assert played.asks(EMPTY_EAGER).nobody(ttl).wait == wait


def test_while_callers_wait_an_empty_set_is_asked_for_eagerly_for_ever() -> None:
    played = Played().asks(0.0).nobody()
    assert played.asks(500.0).nobody(30.0, waiters=1).wait == 1.0


def test_a_set_that_was_filled_and_is_empty_again_is_new_and_eager_again() -> None:
    played = Played().asks(0.0).nobody().asks(40.0).records(5).asks(45.0).nobody(30.0)
    assert played.wait == 1.0
    assert played.refresh.empty_since == 45.0


def test_a_waiting_caller_hurries_the_next_look_up() -> None:
    played = Played().asks(0.0).nobody().asks(40.0).nobody(30.0)
    assert played.refresh.due_at == 45.0
    played.refresh.hurry(42.0)
    assert played.refresh.due_at == 42.0
    played = Played().asks(0.0).no_news()
    played.refresh.hurry(0.5)
    assert played.refresh.due_at == 1.0, "not within refresh_min of the last question"
    played = Played().asks(0.0)
    played.refresh.hurry(0.5)
    assert played.refresh.due_at == inf, "the answer is on its way"


def test_one_look_up_at_a_time() -> None:
    played = Played().asks(0.0)
    with pytest.raises(AssertionError, match="two look-ups under way"):
        played.refresh.ask(0.1)
    assert played.refresh.asking == 1
    assert played.no_news().asks(1.0).refresh.asking == 2, "each has an id of its own"


def test_a_look_up_that_never_reports_is_given_up() -> None:
    played = Played().asks(7.0)
    assert played.refresh.give_up_at == 7.0 + OPTIONS.lookup_timeout + GUARD
    assert played.records(5).refresh.give_up_at == inf


def test_asleep_it_asks_no_more() -> None:
    played = Played().asks(0.0).records(5)
    played.refresh.sleep()
    assert played.refresh.due_at == inf


def test_options_move_all_of_it() -> None:
    options = Options(refresh_min=0.5, refresh_max=2.0)
    played = Played(options=options).asks(0.0).records(30)
    assert played.wait == 2.0
    waits = []
    for _ in range(4):
        played.asks().no_news()
        waits.append(played.wait)
    assert waits == [0.5, 1.0, 2.0, 2.0]
    assert Played(options=options).asks(0.0).records(30).hinted(0.1).refresh.due_at == 0.5


FACTS: dict[str, Callable[[Played, float], object]] = {
    "records": lambda played, x: played.records(x),
    "changed": lambda played, x: played.records(x, changed=True),
    "nobody": lambda played, x: played.nobody(x, waiters=int(x) % 2),
    "no news": lambda played, x: played.no_news(waiters=int(x) % 2),
    "hint": lambda played, x: played.hinted(played.now + x),
    "hurry": lambda played, x: played.refresh.hurry(played.now),
}


@repeatable
@given(
    st.floats(0.0, 1.0),
    st.lists(st.tuples(st.sampled_from(sorted(FACTS)), st.floats(0.0, 60.0), st.floats(0.0, 2.0)), max_size=30),
)
def test_whatever_happens_it_is_always_armed_and_never_hasty(
    dice: float, history: list[tuple[str, float, float]]
) -> None:
    """Silence for ever after one bad answer is how vert.x's resolver goes stale: here some time is always set."""
    played = Played(dice)
    for fact, x, late in history:
        refresh = played.refresh
        if fact in ("hint", "hurry"):
            FACTS[fact](played, x)
        else:
            asked_before = refresh.asked_at
            played.asks(max(played.now, refresh.due_at) + late)
            assert refresh.asked_at - asked_before >= OPTIONS.refresh_min - ROUNDING
            assert refresh.give_up_at < inf
            FACTS[fact](played, x)
        assert refresh.asking == 0
        assert refresh.due_at - played.now <= OPTIONS.refresh_max + ROUNDING
        assert refresh.due_at >= refresh.asked_at + OPTIONS.refresh_min - ROUNDING
