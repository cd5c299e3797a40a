"""Active checks in virtual time: who is asked and when, and what a failed check says."""

import pytest

from headlessconn.checks import Check, Http, Tcp
from headlessconn.core.agenda import ABREAST
from headlessconn.core.effects import Probe
from headlessconn.core.endpoint import Answer, How, pack
from headlessconn.core.member import State
from tests.core.checked import HTTP, Checked
from tests.core.dice import Loaded
from tests.core.play import name_of, records

# ---- whom, and when ---------------------------------------------------------------------------------------------


def test_nobody_is_checked_unless_asked_for() -> None:
    play = Checked(check=None)
    play.until(50.0)
    assert not [effect for _, effect in play.log if isinstance(effect, Probe)]


def test_quiet_pods_are_checked_every_interval_from_somewhere_in_the_first() -> None:
    play = Checked(dice=Loaded(0.5), check_interval=4.0)
    play.until(13.0)
    # Anywhere in the first interval; then up to a tenth sooner, and seen within a fiftieth of it.
    assert play.checks("a") == play.checks("b") == play.checks("c")
    assert play.checks("a") == pytest.approx([2.0, 5.8, 9.6], abs=0.2)


def test_a_pod_that_answers_requests_is_not_checked() -> None:
    play = Checked(dice=Loaded(0.5))
    play.use(30.0, "a")
    assert play.checks("a") == []
    assert len(play.checks("b")) >= 5
    play.use(40.0, "b")
    assert play.checks("a")[0] == pytest.approx(35.0, abs=0.1), "an interval after its last answer"


def test_a_bad_answer_is_an_answer_too() -> None:
    play = Checked(consecutive_failures=0, dice=Loaded(0.5))
    while play.now < 20.0:
        play.request("a", bad=True)
        play.until(play.now + 1.0)
    assert play.checks("a") == []


def test_for_a_tcp_check_a_connection_is_news_as_well() -> None:
    for check, checks in ((Tcp(), 0), (HTTP, 4)):
        play = Checked(check=check, dice=Loaded(0.5))
        while play.now < 19.0:
            pick = play.pick("a")
            play.dialled(pick, How.OK)
            play.ended(pick, How.CALLER)
            play.until(play.now + 1.0)
        assert len(play.checks("a")) == checks, check


def test_who_fails_drains_or_is_gone_is_not_checked() -> None:
    play = Checked("abcd")
    play.refusing = {"b"}
    play.refuse("b")
    open_work = play.pick("c")
    play.says = records("ab")
    play.use(40.0, "a")
    assert play.states == {"a": "ready", "b": "failing", "c": "draining"}
    assert [len(play.checks(name)) for name in "bcd"] == [0, 1, 1], "just after 0 s, when all was well"
    play.ended(open_work)


def test_who_returns_is_checked_again() -> None:
    play = Checked("ab")
    play.says = records("a")
    open_work = play.pick("b")
    play.use(12.0, "a")
    assert play.state("b") is State.DRAINING
    play.says = records("ab")
    play.use(20.0, "a")
    assert play.state("b") is State.READY
    assert play.checks("b")[-1] > 12.0
    play.ended(open_work)


def test_an_idle_target_checks_nobody_until_it_is_used() -> None:
    play = Checked("ab", idle_after=10.0)
    play.until(100.0)
    assert max(play.checks("a")) < 20.0
    play.engine.needed(play.now)
    play.obey()
    play.until(101.0)
    assert play.checks("a")[-1] >= 100.0


class Spread(Loaded):
    """Throws that lie apart as evenly as can be."""

    def random(self) -> float:
        self.value = (self.value + 0.618) % 1.0
        return self.value


THOUSAND = frozenset(pack(f"10.1.{n // 250}.{n % 250}", 80) for n in range(1000))


def of_a_thousand(dice: Loaded | None = None) -> Checked:
    return Checked(says=Answer("dns", "records", THOUSAND, ttl=5.0, why="NOERROR"), dice=dice)


def probes(play: Checked) -> int:
    return sum(isinstance(effect, Probe) for _, effect in play.log)


def test_a_thousand_pods_are_checked_few_at_a_time_and_none_waits_for_a_look() -> None:
    play = of_a_thousand()
    play.until(0.2)
    assert probes(play) == 1000, "one after the other, when each ends at once"

    play = of_a_thousand()
    play.holds = {name_of(key) for key in THOUSAND}
    play.until(6.0)
    assert probes(play) == ABREAST


def test_a_large_set_does_not_wake_the_loop_for_each_pod() -> None:
    play = of_a_thousand(Spread())
    play.until(10.0)
    before, woken = probes(play), 0
    while play.engine.wakeup_at <= 20.0:
        play.now = play.engine.wakeup_at
        play.engine.wake(play.now)
        play.obey()
        woken += 1
    assert 1900 < probes(play) - before < 2300
    # A look every 0.1 s takes its twenty in two rounds of sixteen; and DNS.
    assert woken < 350


# ---- what a failed check says -----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [Tcp(), HTTP], ids=repr)
@pytest.mark.parametrize("how", [How.REFUSED, How.UNREACHABLE, How.DIAL_TIMEOUT])
def test_no_connection_is_evidence_like_a_dial(check: Check, how: How) -> None:
    play = Checked(check=check, dice=Loaded(0.5))
    play.fails = {"b": how}
    play.refusing = {"b"}
    asked = len(play.asked)
    play.until(2.9)
    assert play.state("b") is State.FAILING
    assert play.picked() == {"a", "c"}, "nobody's request was lost to find that out"
    assert "its check: GET /healthz answered 503" in play.moves[-1]
    play.until(3.6)
    assert play.probes("b")[-1] == pytest.approx(3.0, abs=0.2), "re-dialled as every failing one"
    assert len(play.asked) > asked, "and DNS is asked whether it is still there"


@pytest.mark.parametrize("how", [How.BAD_STATUS, How.TIMEOUT, How.RESET])
def test_failed_http_checks_are_bad_answers_and_five_in_a_row_eject(how: How) -> None:
    play = Checked()
    play.fails = {"b": how}
    play.use(19.0, "ac")
    assert play.state("b") is State.READY, "four"
    play.use(21.0, "ac")
    assert play.state("b") is State.EJECTED
    assert "5 bad answers in a row, the last: its check" in play.moves[-1]


def test_failed_checks_and_bad_answers_are_counted_together() -> None:
    play = Checked()
    play.sour("b", times=3)
    play.fails = {"b": How.BAD_STATUS}
    play.use(9.0, "ac")
    assert play.state("b") is State.READY
    play.use(11.0, "ac")
    assert play.state("b") is State.EJECTED


@pytest.mark.parametrize("how", [How.LOCAL, How.CALLER, How.CANCELLED])
def test_our_own_trouble_is_no_evidence(how: How) -> None:
    play = Checked()
    play.fails = dict.fromkeys("abc", how)
    play.until(60.0)
    assert play.states == dict.fromkeys("abc", "ready")
    assert len(play.checks("a")) > 10, "and it is asked again"


def test_the_last_ready_one_is_not_ejected_by_checks() -> None:
    play = Checked()
    play.fails = dict.fromkeys("abc", How.BAD_STATUS)
    play.until(60.0)
    assert sorted(play.states.values()) == ["ejected", "ready", "ready"], "at most max(1, half of three)"


def test_a_port_for_health_alone_says_nothing_about_the_port_for_requests() -> None:
    play = Checked(check=Http("/healthz", port=8081))
    play.fails = {"b": How.REFUSED}
    play.use(14.0, "ac")
    assert play.state("b") is State.READY, "a bad answer, not a failed dial"
    play.use(30.0, "ac")
    assert play.state("b") is State.EJECTED
    play.refusing = {"a"}
    play.refuse("a")
    play.until(30.4)
    assert play.state("a") is State.FAILING


def test_a_check_during_our_own_stall_proves_nothing_unless_it_was_refused() -> None:
    for how, state in ((How.DIAL_TIMEOUT, State.READY), (How.REFUSED, State.FAILING)):
        play = Checked(dice=Loaded(0.5))
        play.holds = {"b"}
        play.refusing = {"b"}
        play.until(3.0)
        play.engine.overslept(0.6, 3.0)
        play.report("b", how)
        assert play.state("b") is state, how
