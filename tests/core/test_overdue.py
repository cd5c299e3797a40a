"""Connections that are out and do not come back: whose pod is asked, when, and what its answer means."""

from itertools import pairwise
from math import inf

import pytest

from headlessconn.core.overdue import Overdue
from headlessconn.core.probing import AGAIN_FIRST, AGAIN_MAX, PROBES, TIMES_USUAL

A, B = b"a", b"b"


def test_a_pod_is_asked_once_a_connection_to_it_is_out_for_too_long() -> None:
    watch = Overdue(3.0)
    assert watch.look([(A, 0.0), (B, 1.0)], 2.9) == []
    assert watch.look([(A, 0.0), (A, 0.0), (B, 1.0)], 3.0) == [A]
    assert watch.look([(A, 0.0), (B, 1.0)], 3.5) == []  # it is being asked


def test_where_queries_are_long_patience_is_longer() -> None:
    watch = Overdue(3.0)
    for _ in range(200):
        watch.returned(5.0)
    assert watch.usual == pytest.approx(5.0)
    assert watch.look([(A, 0.0)], TIMES_USUAL * 5.0 - 0.1) == []
    assert watch.look([(A, 0.0)], TIMES_USUAL * 5.0 + 0.1) == [A]


def test_two_failed_probes_in_a_row_and_those_who_wait_since_before_are_told() -> None:
    watch = Overdue(3.0)
    watch.look([(A, 0.0)], 3.0)
    assert watch.probed(A, False, 4.5) == inf  # once more
    assert watch.asking(A, 4.5)
    assert watch.probed(A, False, 6.0) == 3.0
    assert PROBES == 2


def test_a_probe_that_passes_between_two_that_fail_starts_over() -> None:
    watch = Overdue(3.0)
    watch.look([(A, 0.0)], 3.0)
    watch.probed(A, False, 4.5)
    watch.asking(A, 4.5)
    assert watch.probed(A, True, 4.6) is None
    watch.asking(A, 20.0)
    assert watch.probed(A, False, 21.5) == inf


def test_a_pod_that_answers_is_asked_again_less_and_less_often() -> None:
    """A long transaction looks like a dead node; MySQL counts bare connects."""
    watch = Overdue(3.0)
    now, asked = 3.0, []
    while now < 400.0:
        if watch.look([(A, 0.0)], now):
            asked.append(now)
            watch.probed(A, True, now)
        now += 0.5
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert waits[:4] == [AGAIN_FIRST, 10.0, 20.0, 40.0]
    assert set(waits[4:]) == {AGAIN_MAX}


def test_one_probe_of_a_pod_at_a_time() -> None:
    watch = Overdue(3.0)
    assert watch.asking(A, 0.0)
    assert not watch.asking(A, 0.1)
    assert watch.asking(B, 0.1)
