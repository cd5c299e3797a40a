"""`max_age` and `idle_timeout`: connections that go for what they are, not for where they lead."""

from __future__ import annotations

import pytest

from headlessconn.core.claim import KEEP, Reason
from headlessconn.core.endpoint import How
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.holder import Holder


@pytest.mark.parametrize(("value", "age"), [(0.0, 90.0), (0.5, 100.0), (1.0, 110.0)])
def test_max_age_is_kept_within_a_tenth(value: float, age: float) -> None:
    """One pod, as behind a ClusterIP: another connection to the same address may well reach another pod."""
    holder = Holder("a", dice=Loaded(value), options=Options(max_age=100.0))
    idle, busy = holder.open(1)[0], holder.opened(holder.claim(), idle=False)
    pushing = holder.opened(holder.claim(), pushes=True, warms=False)
    holder.until(age - 0.01)
    assert holder.check_in(busy) is KEEP
    assert holder.check_out(busy) is KEEP
    assert (holder.warmed, holder.retired) == ([], [])
    holder.until(age + 0.01)
    [(at, conn, to)], [(told_at, told, reason)] = holder.warmed, holder.retired
    assert at == told_at == pytest.approx(age)
    assert (conn, to, told, reason) == (idle, "a", pushing, Reason.OLD)
    holder.comply()
    assert [(conn, reason) for _, conn, reason in holder.retired[1:]] == [(idle, Reason.OLD)]
    assert holder.check_in(busy) is KEEP
    assert holder.warmed[-1][1] == busy


def test_one_that_cannot_be_renewed_is_tried_again() -> None:
    holder = Holder("a", dice=Loaded(0.5), options=Options(max_age=100.0))
    [conn] = holder.open(1)
    holder.until(100.0)
    holder.failed(holder.pending(), How.CANCELLED)
    assert holder.check_out(conn) is KEEP
    assert holder.check_in(conn) is KEEP
    holder.until(105.0)
    assert [(at, old) for at, old, _ in holder.warmed] == [(100.0, conn), (105.0, conn)]


def test_without_max_age_they_live_for_ever() -> None:
    holder = Holder("abc")
    holder.open(3)
    holder.calm(20_000.0)
    assert (holder.warmed, holder.retired) == ([], [])


def test_idle_timeout_counts_from_the_last_use() -> None:
    holder = Holder("ab", options=Options(idle_timeout=60.0))
    idle, used = holder.open(2)
    busy = holder.opened(holder.claim(), idle=False)
    pushing = holder.opened(holder.claim(), pushes=True)
    holder.until(50.0)
    holder.check_out(used)
    holder.check_in(used)
    holder.until(60.0)
    assert holder.retired == [(60.0, idle, Reason.IDLE)]
    holder.until(200.0)
    assert holder.retired == [(60.0, idle, Reason.IDLE), (110.0, used, Reason.IDLE)]
    assert holder.check_in(busy) is KEEP
    assert pushing in holder.where
