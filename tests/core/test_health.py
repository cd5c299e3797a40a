"""What is evidence against a pod, and what follows; with exact times, on an engine whose clock is moved by hand."""

import pytest

from headlessconn.core.effects import Probe
from headlessconn.core.endpoint import How
from headlessconn.core.health import PROBE_GUARD
from headlessconn.core.member import State
from headlessconn.core.pick import TRIAL
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, nobody, records

DIALS = [How.REFUSED, How.UNREACHABLE, How.DIAL_TIMEOUT]
ANSWERS = [How.RESET, How.TIMEOUT, How.BAD_STATUS]
NEVER = [How.OK, How.RESET_REUSED, How.LOCAL, How.CALLER]


# ---- FAILING: the last dial was no connection -------------------------------------------------------------------


@pytest.mark.parametrize("how", DIALS)
def test_one_failed_dial_makes_a_pod_failing(how: How) -> None:
    play = Play()
    play.refusing = {"b"}
    play.until(2.0)
    play.refuse("b", how)
    assert play.state("b") is State.FAILING
    assert play.picked() == {"a", "c"}
    assert f"2 b: ready -> failing ({how.value})" in play.moves


@pytest.mark.parametrize("how", DIALS)
def test_a_failed_dial_is_a_hint(how: How) -> None:
    play = Play()
    play.until(2.0)
    play.refuse("b", how)
    play.until(4.0)
    assert play.asked == [0.0, 2.0]


def test_it_is_redialled_with_back_off_until_it_answers() -> None:
    play = Play()
    play.refusing = {"b"}
    play.until(2.0)
    play.refuse("b")
    play.until(22.0)
    assert play.probes("b") == [2.5, 3.5, 5.5, 9.5, 14.5, 19.5], "0.5, 1, 2, 4, 5, 5 s later"
    play.refusing = set()
    play.until(24.5)
    assert play.probes("b")[-1] == 24.5
    assert play.state("b") is State.READY
    assert play.picked() == {"a", "b", "c"}
    assert play.moves[-1] == "24.5 b: failing -> ready (connected)"
    play.until(60.0)
    assert play.probes("b")[-1] == 24.5, "and no more"


def test_the_back_off_begins_anew_with_each_failure() -> None:
    play = Play()
    play.until(2.0)
    play.refuse("b")
    play.until(3.0)
    assert play.state("b") is State.READY
    play.refuse("b")
    play.until(4.0)
    assert play.probes("b") == [2.5, 3.5]


def test_redials_are_jittered_by_a_tenth() -> None:
    play = Play(dice=Loaded(0.999))
    play.refusing = {"b"}
    play.until(2.0)
    play.refuse("b")
    play.until(4.0)
    assert play.probes("b") == pytest.approx([2.45, 3.35], abs=0.01)


def test_a_probe_that_never_reports_does_not_end_the_probing() -> None:
    play = Play()
    play.mute = {"b"}
    play.until(2.0)
    play.refuse("b")
    play.until(20.0)
    lost = 2.5 + play.engine.options.connect_timeout + PROBE_GUARD
    assert play.probes("b")[:2] == [2.5, lost + 1.0]
    assert len(play.probes("b")) >= 3
    play.engine.probed(12345, True, play.now)  # nobody asked
    assert play.state("b") is State.FAILING


def test_there_is_no_cap_on_how_many_may_fail() -> None:
    play = Play("abcd")
    play.refusing = set("abcd")
    play.until(2.0)
    for name in "abc":
        play.refuse(name)
    assert play.picked() == {"d"}
    play.refuse("d")
    assert set(play.states.values()) == {"failing"}
    assert play.picked() == {"a", "b", "c", "d"}, "used only when nothing else is left, but then used"


def test_a_successful_dial_of_a_request_lifts_failing_too() -> None:
    play = Play("ab")
    play.refusing = {"a", "b"}
    play.refuse("a")
    play.refuse("b")
    pick = play.pick("a")
    play.dialled(pick, How.OK)
    assert play.states == {"a": "ready", "b": "failing"}
    play.ended(pick)


def test_a_refusal_that_began_before_a_dial_succeeded_is_old_news() -> None:
    play = Play()
    play.until(2.0)
    slow, quick = play.pick("b"), play.pick("b")
    play.until(2.5)
    play.dialled(quick, How.OK)
    play.until(3.0)
    play.dialled(slow, How.DIAL_TIMEOUT)
    assert play.state("b") is State.READY
    play.ended(slow, How.DIAL_TIMEOUT)
    play.ended(quick)


def test_a_pod_that_left_the_set_and_refuses_is_gone_at_once() -> None:
    play = Play("ab")
    play.until(1.0)
    open_work, dial = play.pick("b"), play.pick("b")
    play.says = records("a")
    play.until(6.0)
    assert play.state("b") is State.DRAINING
    play.dialled(dial, How.REFUSED)
    assert play.state("b") is State.GONE
    play.ended(dial, How.REFUSED)
    play.ended(open_work)
    assert play.states == {"a": "ready"}


def test_a_pod_that_refuses_and_then_leaves_the_set_is_gone_at_once() -> None:
    play = Play("ab")
    play.refusing = {"b"}
    play.until(1.0)
    play.refuse("b")
    play.says = records("a")
    play.until(6.0)
    assert play.states == {"a": "ready"}
    probes = len(play.probes("b"))
    play.until(60.0)
    assert len(play.probes("b")) == probes, "nobody dials who is gone"


# ---- never evidence ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", NEVER)
def test_what_is_never_evidence(how: How) -> None:
    """Our own trouble, the caller's exceptions, keep-alive races: however often they happen."""
    play = Play()
    play.until(2.0)
    for _ in range(20):
        pick = play.pick("b")
        play.dialled(pick, how)
        play.ended(pick, how)
    assert play.states == {"a": "ready", "b": "ready", "c": "ready"}
    assert play.asked == [0.0]
    play.until(4.9)
    assert play.asked == [0.0], "and it is no hint either"


@pytest.mark.parametrize("how", NEVER[1:])
def test_what_is_no_evidence_does_not_absolve_either(how: How) -> None:
    play = Play()
    play.sour("b", times=4)
    play.request("b", how)
    play.request("b", bad=True)
    assert play.state("b") is State.EJECTED


# ---- EJECTED: it answers badly ----------------------------------------------------------------------------------


def test_five_bad_answers_in_a_row_eject() -> None:
    play = Play()
    play.until(2.0)
    play.sour("b", times=4)
    assert play.state("b") is State.READY
    play.request("b")
    play.sour("b", times=4)
    assert play.state("b") is State.READY, "in a row"
    play.sour("b", times=1)
    assert play.state("b") is State.EJECTED
    assert play.moves[-1] == "2 b: ready -> ejected (5 bad answers in a row, the last: bad status)"
    assert play.picked() == {"a", "c"}
    assert play.probes("b") == [], "a connect proves nothing about answers"


@pytest.mark.parametrize("how", ANSWERS)
def test_bad_answers_of_every_kind(how: How) -> None:
    play = Play()
    for _ in range(5):
        play.request("b", how)
    assert play.state("b") is State.EJECTED


@pytest.mark.parametrize(("how", "asks"), [(How.RESET, True), (How.TIMEOUT, True), (How.BAD_STATUS, False)])
def test_resets_and_time_outs_are_hints_and_a_bad_status_is_none(how: How, asks: bool) -> None:
    """A pod that says 503 is there; one that breaks connections may not be."""
    play = Play()
    play.until(2.0)
    play.request("b", how)
    play.until(4.9)
    assert (play.asked == [0.0, 2.0]) is asks


def test_a_bad_status_said_at_the_head_counts_once() -> None:
    play = Play()
    for _ in range(4):
        pick = play.pick("b")
        play.responded(pick, bad=True)
        play.responded(pick, bad=True)
        play.ended(pick, How.BAD_STATUS)
    assert play.state("b") is State.READY


@pytest.mark.parametrize(("pods", "most"), [("ab", 1), ("abc", 1), ("abcd", 2), ("abcdef", 3), ("a", 0)])
def test_at_most_half_are_ejected(pods: str, most: int) -> None:
    play = Play(pods)
    for name in pods:
        play.sour(name, times=10)
    assert sorted(play.states.values()) == ["ejected"] * most + ["ready"] * (len(pods) - most)


def test_the_last_ready_pod_is_never_ejected() -> None:
    play = Play("abc")
    play.refusing = {"a", "b"}
    play.refuse("a")
    play.refuse("b")
    play.sour("c", times=50)
    assert play.state("c") is State.READY


def test_the_ejected_serve_before_the_failing_do() -> None:
    play = Play("abc")
    play.refusing = set("abc")
    play.sour("a")
    play.refuse("b")
    play.refuse("c")
    assert play.states == {"a": "ejected", "b": "failing", "c": "failing"}
    assert play.picked() == {"a"}


def test_ejection_is_counted_afresh_when_an_ejected_pod_leaves_the_set() -> None:
    """A running tally drifts: grpc-go's gate stayed shut after rolling restarts."""
    play = Play("abc")
    play.sour("a")
    play.says = records("bcd")
    play.until(6.0)
    play.sour("b")
    assert play.state("b") is State.EJECTED


# ---- silence: what a caller's own time-out looks like from here -------------------------------------------------


def cancelled(play: Play, name: str, *, connected: bool = True, seconds: float = 1.0) -> None:
    pick = play.pick(name)
    if connected:
        play.dialled(pick, How.OK)
    play.until(play.now + seconds)
    play.ended(pick, How.CANCELLED)


def test_three_silent_attempts_in_a_row_are_a_time_out_when_others_answered() -> None:
    play = Play()
    play.sour("b", times=4)
    cancelled(play, "b")
    play.request("a")
    cancelled(play, "b")
    assert play.state("b") is State.READY
    cancelled(play, "b")
    assert play.state("b") is State.EJECTED
    assert play.moves[-1].endswith("the last: silent until its callers gave up)")


def test_when_nobody_answers_it_is_not_the_pod() -> None:
    play = Play()
    for _ in range(30):
        cancelled(play, "b")
    assert play.state("b") is State.READY


def test_an_answer_ends_the_silence() -> None:
    play = Play()
    play.sour("b", times=4)
    play.request("a")
    for _ in range(10):
        cancelled(play, "b")
        cancelled(play, "b")
        play.request("a")
        pick = play.pick("b")
        play.responded(pick)
        play.ended(pick)
    assert play.state("b") is State.READY


def test_three_silent_dials_are_no_connection() -> None:
    play = Play(options=Options(race_after=60.0))
    play.refusing = {"b"}
    for _ in range(3):
        assert play.state("b") is State.READY
        cancelled(play, "b", connected=False)
        play.request("a")
    assert play.state("b") is State.FAILING
    assert play.moves[-1].endswith("(no connection until its callers gave up)")


def test_a_dial_that_lost_its_race_is_followed_by_a_probe_which_says_what_is_the_matter() -> None:
    play = Play()
    play.refusing = {"b"}
    cancelled(play, "b", connected=False)
    assert play.state("b") is State.READY, "one is weak evidence"
    play.until(play.now + 0.1)
    assert play.state("b") is State.FAILING
    assert play.moves[-1].endswith("(silent to a dial, and to a probe after it)")


def test_a_dial_that_lost_its_race_to_a_pod_that_is_well_costs_a_probe_and_no_more() -> None:
    play = Play()
    cancelled(play, "b", connected=False)
    play.until(play.now + 5.0)
    assert play.state("b") is State.READY
    assert sum(isinstance(effect, Probe) for _, effect in play.log) == 1


def test_a_probe_that_our_own_trouble_ended_says_nothing_of_a_pod_in_doubt() -> None:
    play = Play()
    play.mute = {"b"}
    cancelled(play, "b", connected=False)
    play.until(play.now + 0.1)
    [probe] = [effect for _, effect in play.log if isinstance(effect, Probe)]
    play.engine.probed(probe.id, False, play.now, How.LOCAL)
    play.obey()
    assert play.state("b") is State.READY
    cancelled(play, "b", connected=False)
    play.until(play.now + 0.1)
    play.engine.overslept(1.0, play.now)
    play.until(play.now + 10.0)
    assert play.state("b") is State.READY, "our own loop stood still meanwhile"


def test_an_attempt_given_up_after_the_head_is_no_silence() -> None:
    play = Play()
    play.sour("b", times=4)
    for _ in range(10):
        pick = play.pick("b")
        play.responded(pick)
        play.until(play.now + 1.0)
        play.ended(pick, How.CANCELLED)
        play.request("a")
    assert play.state("b") is State.READY


# ---- our own stall ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [How.UNREACHABLE, How.DIAL_TIMEOUT])
def test_a_dial_that_timed_out_while_we_overslept_is_void(how: How) -> None:
    play = Play()
    play.until(2.0)
    pick = play.pick("b")
    play.now = 5.0
    play.engine.overslept(3.0, play.now)
    play.dialled(pick, how)
    play.ended(pick, how)
    assert play.state("b") is State.READY
    play.until(5.1)
    later = play.pick("b")
    play.until(7.6)
    play.dialled(later, how)
    assert play.state("b") is State.FAILING, "what began afterwards counts"


def test_a_refusal_is_the_kernels_word_and_stays() -> None:
    play = Play()
    pick = play.pick("b")
    play.engine.overslept(3.0, play.now)
    play.dialled(pick, How.REFUSED)
    assert play.state("b") is State.FAILING


@pytest.mark.parametrize("how", [How.TIMEOUT, How.RESET, How.CANCELLED])
def test_answers_missed_while_we_overslept_are_void(how: How) -> None:
    play = Play()
    for _ in range(10):
        play.request("a")
        pick = play.pick("b")
        play.engine.overslept(0.7, play.now)
        play.ended(pick, how)
    assert play.state("b") is State.READY


def test_a_time_out_sooner_than_its_kind_takes_says_nothing_of_the_pod() -> None:
    """Seed 2580 of ten thousand: callers that had queued for a place had little time left when they got one, and a pod
    that was well went out for it."""
    play = Play()
    lane = play.engine.lane("GET /report")

    def asked(name: str, takes: float, how: How) -> None:
        pick = play.pick(name)
        pick.lane = lane
        play.dialled(pick, How.OK)
        play.until(play.now + takes)
        play.ended(pick, how)

    for _ in range(30):
        asked("a", 0.8, How.OK)
    for _ in range(10):
        asked("b", 0.1, How.TIMEOUT)
    assert play.state("b") is State.READY
    for _ in range(5):
        asked("b", 0.9, How.TIMEOUT)
    assert play.state("b") is State.EJECTED
    play.until(play.now + 1.1)
    trial = play.pick("b")
    trial.lane = lane
    assert trial.flags & TRIAL
    play.dialled(trial, How.OK)
    play.until(play.now + 0.1)
    play.ended(trial, How.TIMEOUT)
    assert play.state("b") is State.EJECTED
    assert not play.pick().flags & TRIAL, "the next one only after a while"


# ---- nobody is listed, and the pods still work ------------------------------------------------------------------


def test_a_held_pod_that_refuses_is_gone() -> None:
    play = Play("ab")
    play.says = nobody()
    play.until(5.0)
    assert play.states == {"a": "ready", "b": "ready"}
    play.refuse("b")
    assert play.states == {"a": "ready"}
    assert play.moves[-2:] == ["5 b: ready -> failing (refused)", "5 b: failing -> gone (not listed, and refuses)"]
