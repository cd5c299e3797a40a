"""How many may be ejected, when, and for how long."""

import itertools

import pytest

from headlessconn.core.endpoint import pack
from headlessconn.core.member import Member
from headlessconn.core.outlier import FORGIVEN_EVERY, is_outlier, may_eject, sentence
from headlessconn.options import Options

OPTIONS = Options()


def member() -> Member:
    return Member(pack("10.0.0.1", 80), None, 0.0)


def test_at_most_half_may_be_ejected_and_never_the_last() -> None:
    most = {}
    for members in range(1, 11):
        ready, ejected = members, 0
        while may_eject(ready, ejected):
            ready, ejected = ready - 1, ejected + 1
        most[members] = ejected
    assert most == {1: 0, 2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 4, 10: 5}


def test_never_the_last_ready_one() -> None:
    assert not any(may_eject(ready, ejected) for ready, ejected in itertools.product((0, 1), range(20)))


@pytest.mark.parametrize(("limit", "bad", "out"), [(5, 4, False), (5, 5, True), (5, 9, True), (1, 1, True)])
def test_consecutive_failures(limit: int, bad: int, out: bool) -> None:
    one = member()
    one.bad_in_a_row = bad
    assert is_outlier(one, Options(consecutive_failures=limit)) is out


def test_none_is_ever_ejected_when_the_limit_is_zero() -> None:
    one = member()
    one.bad_in_a_row = 10_000
    assert not is_outlier(one, Options(consecutive_failures=0))


def test_each_further_sentence_is_twice_as_long() -> None:
    one, now, spans = member(), 100.0, []
    for _ in range(9):
        until = sentence(one, OPTIONS, now)
        spans.append(until - now)
        now = until  # its trial at once, and badly
    assert spans == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_late_trial_is_no_good_service() -> None:
    """With few requests the trial may come long after the sentence. Waiting for one proves nothing."""
    one = member()
    for now, span in ((1000.0, 1.0), (1100.0, 2.0), (1200.0, 4.0)):
        assert sentence(one, OPTIONS, now) == now + span


def test_good_service_is_forgiving() -> None:
    def third_sentence(served: float) -> float:
        one = member()
        sentence(one, OPTIONS, 100.0)
        sentence(one, OPTIONS, 101.0)
        one.readmitted_at = 103.0  # its trial went well
        return round(sentence(one, OPTIONS, 103.0 + served) - 103.0 - served, 6)

    assert third_sentence(0.0) == 4.0
    assert third_sentence(FORGIVEN_EVERY - 0.1) == 4.0
    assert third_sentence(FORGIVEN_EVERY) == 2.0
    assert third_sentence(2 * FORGIVEN_EVERY) == 1.0
    assert third_sentence(1000 * FORGIVEN_EVERY) == 1.0


def test_it_never_grows_out_of_a_float() -> None:
    one = member()
    for _ in range(5000):
        assert sentence(one, OPTIONS, 50.0) - 50.0 <= OPTIONS.eject_max


def test_options_set_base_and_maximum() -> None:
    options, one = Options(eject_base=0.5, eject_max=1.5), member()
    assert [sentence(one, options, 0.0) for _ in range(4)] == [0.5, 1.0, 1.5, 1.5]
