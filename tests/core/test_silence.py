"""A pod that accepts and says nothing: when it is suspected, who may hurry, and when not, with exact times."""

from __future__ import annotations

from math import inf

import pytest

from headlessconn.core.effects import Hurry
from headlessconn.core.endpoint import How
from headlessconn.core.lane import ENOUGH, KEPT, Lane
from headlessconn.core.pick import CONNECTED, HURRIED, TRIAL, Pick
from headlessconn.core.silence import ALONE, NEVER_SENT, OTHERS, SILENT_MIN, SLOWER, patience
from tests.core.play import Play


def lane(usual: float | None) -> Lane | None:
    """A kind of request that takes as long as this; None: nobody named one."""
    if usual is None:
        return None
    found = Lane()
    for _ in range(ENOUGH):
        found.observe(usual)
    return found


class Pods(Play):
    def owe(self, name: str, usual: float | None = 0.01, *, sent: bool = True) -> Pick:
        """A request to this pod, which has not answered yet."""
        pick = self.pick(name)
        pick.lane = lane(usual)
        if sent:
            pick.flags |= CONNECTED
        return pick

    def answer(self, name: str, times: int = OTHERS) -> None:
        """It answers others, at once."""
        for _ in range(times):
            self.request(name)

    @property
    def suspected(self) -> list[str]:
        return [move for move in self.moves if "silent" in move]

    @property
    def hurried(self) -> list[tuple[float, Pick]]:
        return [(at, effect.pick) for at, effect in self.log if isinstance(effect, Hurry)]


# ---- suspicion --------------------------------------------------------------------------------------------------


def test_it_owes_two_answers_and_others_answer() -> None:
    pods = Pods()
    first, second = pods.owe("b"), pods.owe("b")
    pods.answer("a")
    pods.until(10.0)
    assert pods.suspected == ["0.25 b: ready -> ejected (silent for 0.25 s, owing 2 answers, while others answer)"]
    assert pods.hurried == [(0.25, first), (0.25, second)]
    assert (SILENT_MIN, OTHERS) == (0.25, 5)
    assert pods.asked[1] == 1.0, "it is a hint as well: the pod may be gone"


def test_a_single_owed_answer_needs_four_times_the_patience() -> None:
    pods = Pods()
    pods.owe("b")
    pods.answer("a")
    pods.until(10.0)
    assert pods.suspected == ["1 b: ready -> ejected (silent for 1.00 s, owing 1 answer, while others answer)"]
    assert ALONE == 4.0


def test_unless_others_answer_all_are_slow() -> None:
    pods = Pods()
    pods.owe("b"), pods.owe("b")
    pods.answer("a", OTHERS - 1)
    pods.until(4.0)
    assert pods.suspected == []
    pods.answer("c", 1)
    pods.until(10.0)
    assert pods.suspected[0].startswith("4.25 b: ready -> ejected (silent for 4.25 s")


def test_what_others_answered_before_is_no_comparison() -> None:
    pods = Pods()
    pods.answer("a", 1000)
    pods.until(1.0)
    pods.owe("b"), pods.owe("b")
    pods.until(10.0)
    assert pods.suspected == []


def test_its_own_answers_are_no_silence() -> None:
    """A heavy request and many light ones: the pod speaks all the time."""
    pods = Pods()
    pods.owe("b"), pods.owe("b")
    for step in range(50):
        pods.until(step * 0.2)
        pods.answer("a")
        pods.until(pods.now + 0.01)
        pods.answer("b", 1)
    assert pods.suspected == []
    pods.until(10.5)
    assert pods.suspected == [], "from its last word on nobody else has answered either"
    pods.answer("a")
    pods.until(11.0)
    assert len(pods.suspected) == 1


@pytest.mark.parametrize(("usual", "until"), [(0.001, SILENT_MIN), (0.05, SILENT_MIN), (0.5, 2.0), (5.0, 20.0)])
def test_patience_is_four_times_what_such_requests_take(usual: float, until: float) -> None:
    pods = Pods()
    pick = pods.owe("b", usual)
    pods.owe("b", usual)
    assert patience(pick) == until
    assert SLOWER == 4.0
    pods.answer("a")
    pods.until(30.0)
    assert pods.suspected[0].startswith(f"{until:g} b: ready -> ejected")


def test_without_a_kind_nothing_is_overdue() -> None:
    """Neither when nobody named one, nor while too few of it are known."""
    pods = Pods()
    pods.owe("b", None)
    young = pods.owe("b", None)
    young.lane = Lane()
    for _ in range(ENOUGH - 1):
        young.lane.observe(0.001)
    pods.answer("a")
    pods.until(30.0)
    assert patience(young) == inf
    assert pods.suspected == []
    young.lane.observe(0.001)
    pods.until(31.0)
    assert len(pods.suspected) == 1


def test_two_must_be_overdue_each_by_its_own_kind() -> None:
    pods = Pods()
    pods.owe("b", 5.0), pods.owe("b", 0.1), pods.owe("b", 0.2)
    pods.answer("a")
    pods.until(5.0)
    assert pods.suspected == ["0.8 b: ready -> ejected (silent for 0.80 s, owing 3 answers, while others answer)"]


def test_a_light_request_behind_a_heavy_one_is_not_overdue_when_it_begins() -> None:
    """The pod has been silent for long, and rightly so."""
    pods = Pods()
    pods.owe("b", 5.0)
    pods.until(3.0)
    pods.owe("b", 0.01)
    pods.answer("a")
    pods.until(5.0)
    assert pods.suspected[0].startswith("4 b: ready -> ejected (silent for 4.00 s"), "a second after it, being alone"


def test_when_all_became_slow_at_once_their_answers_say_so() -> None:
    """The five answers of others that a suspicion takes were slow, and five of 256 are more than one in a hundred."""
    pods = Pods()
    kind = pods.engine.lane("/")
    for _ in range(KEPT):
        kind.observe(0.01)
    others = [pods.owe(name) for name in "aaaaabb"]
    for pick in others:
        pick.lane = kind
    pods.until(2.0)
    assert patience(others[0]) == SILENT_MIN
    for pick in others[:OTHERS]:
        pods.responded(pick)
        pods.ended(pick)
    pods.until(7.9)
    assert pods.suspected == []
    pods.until(8.1)
    assert pods.suspected == ["8 b: ready -> ejected (silent for 8.00 s, owing 2 answers, while others answer)"]


def test_a_dial_is_not_silence() -> None:
    """Nothing was sent yet: dials have their own time-out and race."""
    pods = Pods()
    first, second = pods.owe("b", sent=False), pods.owe("b", sent=False)
    pods.answer("a")
    pods.until(10.0)
    assert pods.suspected == []
    pods.dialled(first, How.OK)
    pods.dialled(second, How.OK)
    pods.answer("a")
    pods.until(20.0)
    assert pods.suspected[0].startswith("10.25 b"), "it counts from the connection on"


def test_a_stream_owes_nothing() -> None:
    pods = Pods()
    for pick in (pods.owe("b"), pods.owe("b"), pods.owe("b")):
        pods.engine.streams(pick)
    pods.answer("a")
    pods.until(30.0)
    assert pods.suspected == []


def test_who_never_says_that_he_is_connected_is_not_looked_at_for_ever() -> None:
    """A pick may be held for hours by somebody who says nothing on the way."""
    pods = Pods()
    pick = pods.owe("b", sent=False)
    pods.until(NEVER_SENT)
    assert pick in pods.engine._owed
    pods.until(NEVER_SENT + 1.0)
    assert pick not in pods.engine._owed
    assert pods.engine.wakeup_at > pods.now + SILENT_MIN, "no look is due any more"
    pods.ended(pick)


# ---- hurrying ---------------------------------------------------------------------------------------------------


def test_each_hurries_once_and_so_do_those_that_follow() -> None:
    pods = Pods()
    first, second = pods.owe("b"), pods.owe("b")
    pods.answer("a")
    pods.until(0.5)
    third = pods.owe("b")
    pods.until(10.0)
    assert [pick for _, pick in pods.hurried] == [first, second, third]
    assert pods.hurried[-1][0] <= 0.75
    assert third.flags & HURRIED


def test_nobody_else_is_hurried() -> None:
    pods = Pods()
    of_b = [pods.owe("b"), pods.owe("b")]
    pods.owe("a"), pods.owe("c")
    pods.answer("a")
    pods.until(0.9)
    assert [pick for _, pick in pods.hurried] == of_b


def test_a_heavy_request_is_not_copied_because_it_holds_up_light_ones() -> None:
    """A report that blocks its pod would block the next one too, and then a third."""
    pods = Pods()
    report, light, other, unknown = pods.owe("b", 5.0), pods.owe("b"), pods.owe("b"), pods.owe("b", None)
    pods.answer("a")
    pods.until(60.0)
    assert pods.suspected[0].startswith("0.25 b")
    assert pods.hurried == [(0.25, light), (0.25, other), (20.0, report)]
    assert not unknown.flags & HURRIED


def test_a_silent_trial_hurries_after_its_own_patience_and_needs_no_others() -> None:
    pods = Pods()
    pods.sour("b")
    pods.until(5.0)
    trial = pods.pick()
    assert trial.flags & TRIAL
    trial.flags |= CONNECTED
    trial.lane = lane(0.1)
    pods.until(10.0)
    assert pods.hurried == [(5.4, trial)]
    assert pods.suspected == []


# ---- when to look -----------------------------------------------------------------------------------------------


def test_it_looks_only_while_something_is_owed() -> None:
    pods = Pods()
    quiet = pods.engine.wakeup_at
    assert quiet > SILENT_MIN
    pick = pods.owe("b")
    assert pods.engine.wakeup_at == SILENT_MIN
    pods.ended(pick)
    pods.until(SILENT_MIN)
    assert pods.engine.wakeup_at == quiet


def test_the_next_look_is_always_later() -> None:
    """Else whoever arms an alarm with it stands still: to a computer 0.35 - 0.1 is less than 0.25, and 0.1 + 0.25 is
    0.35."""
    assert 0.1 + SILENT_MIN == 0.35
    assert SILENT_MIN > 0.35 - 0.1
    pods = Pods()
    pods.until(0.1)
    pods.owe("b"), pods.owe("b")
    pods.answer("a")
    for _ in range(10):
        pods.now = pods.engine.wakeup_at
        pods.engine.wake(pods.now)
        assert pods.engine.wakeup_at > pods.now
        pods.obey()
    assert pods.suspected[0].startswith("0.35 b")


def test_it_looks_when_somebody_will_be_overdue() -> None:
    pods = Pods()
    pods.owe("b", 0.075), pods.owe("b", 0.075)
    pods.answer("a")
    pods.until(1.0)
    assert pods.suspected[0].startswith("0.3 b")
