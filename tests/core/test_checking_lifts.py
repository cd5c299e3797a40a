"""What a passed check lifts, a pod that fell silent, and results that come late; in virtual time."""

import pytest

from headlessconn.checks import Tcp
from headlessconn.core.endpoint import How
from headlessconn.core.health import PROBE_GUARD
from headlessconn.core.member import State
from headlessconn.core.pick import TRIAL
from tests.core.checked import HTTP, Checked
from tests.core.dice import Loaded
from tests.core.play import nobody, records

# ---- what a passed check lifts ----------------------------------------------------------------------------------


def test_a_passed_tcp_check_never_lifts_an_ejection() -> None:
    play = Checked(check=Tcp())
    play.until(1.0)
    play.sour("b")
    play.until(40.0)
    assert len(play.checks("b")) > 5
    assert play.state("b") is State.EJECTED, "a frozen process still accepts"
    assert play.pick().flags & TRIAL


def test_a_passed_http_check_lifts_an_ejection_when_the_sentence_is_over() -> None:
    play = Checked(eject_base=3.0)
    play.until(1.0)
    play.sour("b")
    play.until(3.9)
    assert play.state("b") is State.EJECTED
    play.until(9.0)
    assert play.state("b") is State.READY
    assert "ejected -> ready (its check passed)" in play.moves[-1]


def test_after_that_one_bad_answer_to_a_request_ejects_again_for_longer() -> None:
    """A health page that works beside broken pages costs as much as a trial would: one request a sentence."""
    play = Checked()
    spans = []
    play.sour("b")
    for _ in range(4):
        began = play.now
        while play.state("b") is State.EJECTED:
            play.until(play.now + 0.1)
        spans.append(play.now - began)
        play.request("b", bad=True)
        assert play.state("b") is State.EJECTED
    assert spans == pytest.approx([1.0, 2.0, 4.0, 8.0], abs=0.3)


def test_after_that_a_good_answer_wipes_the_slate() -> None:
    play = Checked()
    play.sour("b")
    play.until(1.5)
    assert play.state("b") is State.READY
    play.request("b")
    play.sour("b", times=4)
    assert play.state("b") is State.READY


def test_a_passed_check_takes_back_what_failed_ones_said_and_nothing_else() -> None:
    play = Checked()
    play.sour("b", times=3)
    play.fails = {"b": How.BAD_STATUS}
    play.use(6.0, "ac")
    play.fails = {}
    play.use(11.0, "ac")
    play.request("b", bad=True)
    assert play.state("b") is State.READY, "three and one"
    play.request("b", bad=True)
    assert play.state("b") is State.EJECTED


def test_what_a_good_answer_absolved_is_not_taken_back_again() -> None:
    play = Checked()
    play.fails = {"b": How.BAD_STATUS}
    play.use(11.0, "ac")
    play.request("b")
    play.sour("b", times=3)
    play.fails = {}
    play.use(20.0, "ac")
    play.sour("b", times=2)
    assert play.state("b") is State.EJECTED, "three, a passed check, two"


def test_a_failed_check_takes_the_place_of_a_trial() -> None:
    play = Checked()
    play.until(1.0)
    play.sour("b")
    play.fails = {"b": How.BAD_STATUS}
    play.until(2.5)
    assert not play.pick().flags & TRIAL, "it was due at 2 s; a check has found out that it would fail"
    assert play.view("b").why == "its trial ended badly: its check: GET /healthz answered 503"  # type: ignore[union-attr]


@pytest.mark.parametrize("check_first", [True, False])
def test_a_request_and_a_check_that_try_it_together_double_its_sentence_once(check_first: bool) -> None:
    """Seed 2459 of ten thousand: a pod stayed out for twice as long as its sentences said."""
    play = Checked(eject_base=3.0)
    play.until(1.0)
    play.sour("b")
    play.holds = {"b"}
    play.until(4.2)
    trial = play.pick("b")
    assert trial.flags & TRIAL
    assert "b" in play.held
    if check_first:
        play.report("b", How.BAD_STATUS)
    play.responded(trial, bad=True)
    play.ended(trial)
    if not check_first:
        play.report("b", How.BAD_STATUS)
    play.holds = set()
    play.until(10.0)
    assert play.state("b") is State.EJECTED
    play.until(11.0)
    assert play.state("b") is State.READY, "6 s after, not 12"


def test_where_no_request_may_be_a_trial_a_check_leads_back() -> None:
    play = Checked()
    play.sour("b")
    play.until(8.0)
    assert "b" in play.picked(), "picks that are not safe"


# ---- gray failure -----------------------------------------------------------------------------------------------


def frozen(play: Checked, name: str = "b") -> None:
    """Two requests to the pod, without an answer, while the others answer: it is suspected of being silent."""
    lane = play.engine.lane("GET /")
    for _ in range(60):
        for other in "ac":
            pick = play.pick(other)
            pick.lane = lane
            play.dialled(pick, How.OK)
            play.until(play.now + 0.01)
            play.responded(pick)
            play.ended(pick)
    for _ in range(2):
        pick = play.pick(name)
        pick.lane = lane
        play.dialled(pick, How.OK)
    while play.state(name) is State.READY:
        play.use(play.now + 0.05, "ac", every=0.01)
        assert play.now < 10.0


def test_a_suspected_pod_gets_one_http_check_at_once_and_returns_if_it_passes() -> None:
    play = Checked(dice=Loaded(1.0))
    play.holds = {"b"}
    frozen(play)
    assert play.state("b") is State.EJECTED
    assert play.checks("b")[-1] > play.now - 0.1
    assert "b" in play.held
    play.report("b")
    assert play.state("b") is State.READY
    assert play.moves[-1].endswith("ejected -> ready (it answers again)")


def test_a_suspected_pod_that_stays_silent_stays_out() -> None:
    play = Checked(dice=Loaded(1.0))
    play.fails = {"b": How.TIMEOUT}
    frozen(play)
    checked = len(play.checks("b"))
    assert checked == 1
    play.use(play.now + 30.0, "ac")
    assert play.state("b") is State.EJECTED
    assert len(play.checks("b")) > 3
    play.fails = {}
    play.use(play.now + 6.0, "ac")
    assert play.state("b") is State.READY


def test_a_tcp_check_does_not_clear_a_suspected_pod() -> None:
    play = Checked(check=Tcp(), dice=Loaded(1.0))
    frozen(play)
    play.use(play.now + 20.0, "ac")
    assert play.state("b") is State.EJECTED


# ---- races ------------------------------------------------------------------------------------------------------


def test_a_passed_check_that_began_before_the_last_failure_lifts_nothing() -> None:
    play = Checked(dice=Loaded(0.5))
    play.holds = {"b"}
    play.refusing = {"b"}
    play.until(2.9)
    assert "b" in play.held
    play.refuse("b")
    play.report("b")
    assert play.state("b") is State.FAILING

    play = Checked(dice=Loaded(0.5), eject_base=0.05)
    play.holds = {"b"}
    play.until(2.9)
    play.sour("b")
    play.until(3.0)
    play.report("b")
    assert play.state("b") is State.EJECTED


def test_a_check_that_passes_within_the_sentence_lifts_nothing_yet() -> None:
    play = Checked(dice=Loaded(0.5), eject_base=3.0)
    play.holds = {"b"}
    while "b" not in play.held:
        play.until(play.engine.wakeup_at)
    play.sour("b")  # in the very moment in which the check began
    play.until(play.now + 0.5)
    play.report("b")
    assert play.state("b") is State.EJECTED
    play.holds = set()
    play.until(play.now + 2.6)
    assert play.state("b") is State.READY


def test_a_failed_check_that_began_before_the_last_connection_or_answer_proves_nothing() -> None:
    for how in (How.REFUSED, How.DIAL_TIMEOUT, How.TIMEOUT, How.BAD_STATUS):
        play = Checked("ab", dice=Loaded(0.5), consecutive_failures=1)
        play.holds = {"b"}
        play.until(2.9)
        pick = play.pick("b")
        play.dialled(pick, How.OK)
        play.responded(pick)
        play.ended(pick)
        play.report("b", how)
        assert play.state("b") is State.READY, how


def test_a_check_that_never_reports_says_nothing_and_is_repeated() -> None:
    play = Checked(dice=Loaded(0.0))
    play.holds = {"b"}
    play.until(60.0)
    assert play.state("b") is State.READY
    first, second = [at for at in play.checks("b") if at > 0.0][:2]
    guard = 2 * play.engine.options.connect_timeout + HTTP.timeout + PROBE_GUARD
    assert second - first == pytest.approx(guard + 5.0, abs=0.3)
    play.engine.probed(-999, False, play.now, How.REFUSED)  # nobody asked
    assert play.state("b") is State.READY


def test_a_result_about_a_pod_that_left_changes_nothing() -> None:
    play = Checked("ab", dice=Loaded(0.5))
    play.holds = {"b"}
    play.until(2.9)
    play.says = records("a")
    play.use(8.0, "a")
    assert play.state("b") is State.GONE
    play.report("b", How.REFUSED)
    assert play.states == {"a": "ready"}


def test_while_dns_lists_nobody_a_held_pod_that_refuses_its_check_is_gone() -> None:
    play = Checked("ab", dice=Loaded(1.0), check_interval=2.0)
    play.says = nobody()
    play.use(5.5)
    assert play.states == dict.fromkeys("ab", "ready"), "held"
    play.fails = {"b": How.REFUSED}
    play.refusing = {"b"}
    play.use(8.5)
    assert play.states == {"a": "ready"}
