"""One request's further attempts: what goes elsewhere for nothing, what is repeated, what may run beside another."""

from __future__ import annotations

from headlessconn.core.attempts import ABREAST, COPIES, DIALS, ONCE, SENT, Attempts, Rules
from headlessconn.core.endpoint import How
from headlessconn.core.pick import TRIAL, Pick
from tests.core.play import Play, name_of

TWICE = Rules(repeatable=True)
MANY = "abcdefghijkl"


class Request:
    """One request on a stage: its attempts, asked as a driver asks them."""

    def __init__(self, pods: str = "abc", rules: Rules = TWICE, play: Play | None = None) -> None:
        self.play = play or Play(pods)
        self.first = self.play.pick()
        self.attempts = Attempts(self.play.engine, rules, self.first)

    @property
    def budget(self) -> tuple[int, int]:
        """Spent, refused."""
        return self.play.engine.budget.spent, self.play.engine.budget.refused

    def spend_all(self) -> None:
        while self.play.engine.may_spend(self.play.now):
            pass
        self.play.engine.budget.spent = self.play.engine.budget.refused = 0

    def refused(self, pick: Pick) -> Pick | None:
        self.play.dialled(pick, How.REFUSED)
        self.play.ended(pick, How.REFUSED)
        return self.attempts.after_dial(pick, self.play.now)

    def broke(self, pick: Pick) -> Pick | None:
        self.attempts.went(pick)
        self.play.ended(pick, How.RESET)
        return self.attempts.after_break(pick, self.play.now)

    def bad(self, pick: Pick) -> Pick | None:
        self.attempts.went(pick)
        self.play.responded(pick, bad=True)
        self.play.ended(pick)
        return self.attempts.after_bad(pick, self.play.now)

    def beside(self) -> Pick | None:
        return self.attempts.beside(self.play.now)

    def beside_dial(self) -> Pick | None:
        return self.attempts.beside_dial(self.play.now)


def some(pick: Pick | None) -> Pick:
    assert pick is not None
    return pick


# ---- not sent: elsewhere, for nothing ---------------------------------------------------------------------------


def test_what_was_not_sent_goes_to_each_pod_once_and_costs_nothing() -> None:
    request = Request("abc", ONCE)
    request.spend_all()
    second = some(request.refused(request.first))
    third = some(request.refused(second))
    assert {name_of(pick.key) for pick in (request.first, second, third)} == {"a", "b", "c"}
    assert request.refused(third) is None, "all were tried"
    assert request.budget == (0, 0)


def test_there_is_a_limit_to_how_many_pods_one_request_dials() -> None:
    request = Request(MANY, ONCE)
    dials, pick = 1, request.refused(request.first)
    while pick is not None:
        dials, pick = dials + 1, request.refused(pick)
    assert dials == DIALS == 8 < len(MANY)


def test_while_another_dial_is_under_way_a_failed_one_is_not_replaced() -> None:
    request = Request("abcd", ONCE)
    beside = some(request.beside_dial())
    assert request.refused(request.first) is None
    assert request.refused(beside) is not None, "it was the last one"


def test_a_copy_that_cannot_be_dialled_goes_elsewhere_while_the_first_one_waits() -> None:
    """What it costs was paid for that copy, and it was not sent."""
    request = Request("abcd", TWICE)
    request.attempts.went(request.first)
    copy = some(request.beside())
    assert request.budget == (1, 0)
    assert request.refused(copy) is not None
    assert request.budget == (1, 0)


def test_after_the_deadline_nothing_goes_anywhere() -> None:
    for rules in (Rules(deadline=2.0), Rules(True, deadline=2.0)):
        request = Request("abcdef", rules)
        request.play.until(1.999)
        failed = some(request.refused(request.first))
        request.play.until(2.0)
        assert request.beside_dial() is None
        assert request.beside() is None
        assert request.refused(failed) is None
        pick = request.play.pick()
        request.attempts.open[pick] = False
        assert request.broke(pick) is None
        assert request.attempts.after_bad(pick, request.play.now) is None


# ---- dials beside one another -----------------------------------------------------------------------------------


def test_dials_abreast_are_different_pods_and_are_paid_for() -> None:
    request = Request(MANY, ONCE)
    second, third = some(request.beside_dial()), some(request.beside_dial())
    assert len({request.first.key, second.key, third.key}) == ABREAST == 3
    assert request.beside_dial() is None
    assert request.budget == (2, 0)


def test_without_budget_nobody_is_dialled_beside() -> None:
    request = Request("abc", ONCE)
    request.spend_all()
    assert request.beside_dial() is None
    assert request.budget == (0, 1)


def test_what_was_sent_is_not_dialled_for_again() -> None:
    """A second dial beside it would send it twice."""
    request = Request("abc", TWICE)
    request.attempts.went(request.first)
    assert request.beside_dial() is None


def test_where_there_is_nobody_else_nothing_is_spent() -> None:
    request = Request("a", TWICE)
    assert request.beside_dial() is None
    assert request.beside() is None
    assert request.budget == (0, 0)


# ---- sent: once more, if that is safe ---------------------------------------------------------------------------


def test_what_was_sent_and_may_not_be_repeated_ends_there() -> None:
    request = Request("abc", ONCE)
    request.attempts.went(request.first)
    assert request.beside() is None
    assert request.broke(request.first) is None
    assert request.budget == (0, 0)
    request = Request("abc", ONCE)
    assert request.bad(request.first) is None
    assert request.budget == (0, 0)


def test_what_may_be_repeated_goes_to_another_pod_and_is_paid_for() -> None:
    for fail in (Request.broke, Request.bad):
        request = Request("abc", TWICE)
        second = some(fail(request, request.first))
        third = some(fail(request, second))
        assert len({request.first.key, second.key, third.key}) == 3
        assert request.attempts.sent == 2, "and the third is under way"
        assert fail(request, third) is None
        assert request.attempts.sent == SENT == 3
        assert request.budget == (2, 0)


def test_a_break_that_nobody_marked_as_sent_counts_as_sent() -> None:
    request = Request("abc", TWICE)
    pick: Pick | None = request.first
    for _ in range(SENT):
        request.play.ended(some(pick), How.RESET)
        pick = request.attempts.after_break(some(pick), request.play.now)
    assert pick is None
    assert request.attempts.sent == SENT


def test_a_break_with_nobody_else_there_tries_the_same_pod_again() -> None:
    """It may have been restarted; a bad answer of the only pod is an answer."""
    request = Request("a", TWICE)
    assert some(request.broke(request.first)).key == request.first.key
    request = Request("a", TWICE)
    assert request.bad(request.first) is None


def test_without_budget_nothing_is_repeated_and_that_is_counted_once() -> None:
    request = Request("ab", TWICE)
    request.spend_all()
    tried = set(request.attempts.tried)
    assert request.broke(request.first) is None
    assert request.budget == (0, 1)
    assert request.attempts.tried == tried


def test_a_bad_answer_goes_back_to_one_that_broke_when_all_were_tried() -> None:
    """Seed 5896 of ten thousand: a kept connection had died with the pod's restart, and the other pod answered 503."""
    request = Request("ab", TWICE)
    other = some(request.broke(request.first))
    again = some(request.bad(other))
    assert again.key == request.first.key
    assert request.bad(again) is None, "not to who answered badly"


def test_a_copy_beside_a_silent_one_goes_back_to_one_that_broke_when_all_were_tried() -> None:
    """Seed 1422 of ten thousand: the other pod takes six seconds, and who could have answered had been tried."""
    request = Request("ab", TWICE)
    other = some(request.broke(request.first))
    request.attempts.went(other)
    assert some(request.beside()).key == request.first.key
    assert request.beside() is None, "both are under way"


def test_a_bad_answer_does_not_go_to_who_could_not_be_dialled() -> None:
    request = Request("ab", TWICE)
    other = some(request.refused(request.first))
    assert request.bad(other) is None


def test_a_silent_one_that_asks_again_and_again_is_refused_once() -> None:
    """How often it asks is its driver's business; how many requests went without help is what people look at."""
    request = Request("ab", TWICE)
    request.spend_all()
    request.attempts.went(request.first)
    assert [request.beside() for _ in range(5)] == [None] * 5
    assert request.budget == (0, 1)
    request.play.until(request.play.now + 5.0)
    assert some(request.beside()).key != request.first.key


def test_a_further_attempt_earns_nothing() -> None:
    """Else five retries would pay for a sixth."""
    request = Request(MANY, ONCE)
    request.spend_all()
    pick: Pick | None = request.first
    while pick is not None:
        pick = request.refused(pick)
    assert (request.play.engine.picks, request.play.engine.again) == (8, 7)
    assert not request.play.engine.could_spend(request.play.now)


def test_a_further_attempt_is_never_a_trial() -> None:
    play = Play("abcd")
    play.sour("b")
    play.until(5.0)
    first = play.pick("a", safe=False)
    attempts = Attempts(play.engine, TWICE, first)
    for _ in range(2):
        pick = some(attempts.beside(play.now))
        assert not pick.flags & TRIAL
        assert name_of(pick.key) != "b"
        play.ended(pick, How.LOCAL)
        attempts.open.pop(pick)
    assert play.pick().flags & TRIAL, "one was due all the time"


# ---- copies beside one another ----------------------------------------------------------------------------------


def test_a_copy_goes_to_another_pod_and_there_are_two_at_most() -> None:
    request = Request("abcd", TWICE)
    request.attempts.went(request.first)
    copy = some(request.beside())
    assert copy.key != request.first.key
    assert request.beside() is None
    assert len(request.attempts.open) == COPIES == 2
    assert request.budget == (1, 0)


def test_when_one_of_two_copies_breaks_the_other_is_waited_for() -> None:
    request = Request("abcd", TWICE)
    request.attempts.went(request.first)
    copy = some(request.beside())
    assert request.broke(request.first) is None
    assert request.broke(copy) is not None, "it was the last one"


def test_copies_too_are_three_at_most_in_all() -> None:
    request = Request(MANY, TWICE)
    pick: Pick | None = request.first
    sent = 0
    while pick is not None:
        request.attempts.went(pick)
        sent += 1
        copy = request.beside()
        assert request.broke(pick) is None if copy else True
        pick = copy
    assert sent == SENT


def test_the_winner_leaves_the_losers_to_be_cancelled() -> None:
    request = Request("abcd", TWICE)
    request.attempts.went(request.first)
    copy = some(request.beside())
    assert request.attempts.won(copy) == [request.first]
    assert request.attempts.open == {}
    request.attempts.went(request.first)
    assert request.attempts.sent == 1, "it is over"


def test_one_whose_exchange_broke_is_dialled_anew_when_the_others_cannot_be_reached() -> None:
    """Its kept connections were dead, as after a restart of its node; a fresh one is answered."""
    request = Request("ab")
    first = request.first
    other = some(request.broke(first))
    assert other.key != first.key
    again = some(request.refused(other))
    assert again.key == first.key
    assert request.refused(again) is None, "and not for ever"


def test_one_whose_exchange_broke_is_dialled_anew_beside_a_silent_dial() -> None:
    request = Request("ab")
    silent = some(request.broke(request.first))
    again = some(request.beside_dial())
    assert again.key == request.first.key
    assert again.key != silent.key
    assert request.beside_dial() is None
