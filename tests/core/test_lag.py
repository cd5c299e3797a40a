"""How far replicas are behind, by what the primary had written when."""

from math import inf

import pytest

from headlessconn.core.gtid import Position
from headlessconn.core.lag import REMEMBERED, Lag

A, B = b"a", b"b"


def at(number: int) -> Position:
    return Position.parse(f"0-1-{number}")


def test_a_replica_is_as_old_as_the_first_thing_it_lacks() -> None:
    lag = Lag()
    for number, now in ((1, 10.0), (2, 11.0), (3, 12.0)):
        lag.wrote(at(number), now)
    lag.applied(A, at(3), True)
    lag.applied(B, at(1), True)
    assert lag.behind(A, 20.0) == 0.0
    assert lag.behind(B, 20.0) == pytest.approx(9.0)  # since 11.0


def test_while_the_primary_writes_nothing_nobody_is_behind() -> None:
    lag = Lag()
    lag.wrote(at(1), 10.0)
    lag.applied(A, at(1), True)
    lag.wrote(at(1), 500.0)
    assert lag.behind(A, 1000.0) == 0.0


def test_who_has_stopped_is_infinitely_behind_until_it_runs_again() -> None:
    lag = Lag()
    lag.applied(A, at(1), False)
    assert lag.behind(A, 0.0) == inf
    lag.applied(A, at(1), None)  # it does not say
    assert lag.behind(A, 0.0) == 0.0


def test_who_was_never_asked_is_given_the_benefit_of_the_doubt() -> None:
    lag = Lag()
    lag.wrote(at(1), 0.0)
    assert lag.left_out([A], 1.0, 100.0) == {}


def test_those_behind_by_more_than_the_limit_are_left_out() -> None:
    lag = Lag()
    lag.wrote(at(2), 0.0)
    lag.applied(A, at(1), True)
    lag.applied(B, at(2), True)
    assert lag.left_out([A, B], 5.0, 5.0) == {}
    assert lag.left_out([A, B], 5.0, 5.1) == {A: pytest.approx(5.1)}


def test_the_best_stay_when_all_are_behind() -> None:
    lag = Lag()
    lag.wrote(at(2), 0.0)
    lag.wrote(at(3), 10.0)
    lag.applied(A, at(1), True)
    lag.applied(B, at(2), True)
    assert lag.left_out([A, B], 5.0, 100.0) == {A: pytest.approx(100.0)}
    assert lag.left_out([A], 5.0, 100.0) == {}
    lag.applied(A, at(1), False)
    lag.applied(B, at(1), False)
    assert lag.left_out([A, B], 5.0, 100.0) == {}  # the primary has died: both have stopped


def test_what_all_have_is_forgotten_and_memory_is_bounded() -> None:
    lag = Lag()
    for number in range(1, 5 * REMEMBERED):
        lag.wrote(at(number), float(number))
    assert len(lag._written) == REMEMBERED
    lag.applied(A, at(5 * REMEMBERED), True)
    lag.applied(B, at(1), True)
    lag.keep([A])
    assert len(lag._written) == 1
    assert lag.behind(B, 0.0) == 0.0  # it is none of them any more
