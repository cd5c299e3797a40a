"""`verify` in virtual time: when it is asked, what its no does, and what says nothing."""

from __future__ import annotations

import itertools

import pytest

from headlessconn.core.agenda import ABREAST
from headlessconn.core.effects import Effect, Verify
from headlessconn.core.endpoint import Answer, Endpoint, How, pack
from headlessconn.core.member import State
from headlessconn.core.pick import TRIAL, Nobody
from headlessconn.core.verifying import ABSENT, VERIFY_TIMEOUT, WHY
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, name_of, records


def unused(endpoint: Endpoint, host: str) -> bool:
    raise AssertionError("the core only looks whether there is one")


class Verified(Play):
    """A play in which `verify` says at once that a pod is meant; of those in `foreign` it says no, of those in `dumb`
    it cannot say, and of those in `slow` it never says anything."""

    def __init__(self, pods: str = "abc", *, dice: Loaded | None = None, says: Answer | None = None) -> None:
        self.foreign: set[str] = set()
        self.dumb: set[str] = set()
        self.slow: set[str] = set()
        self.asked_about: list[tuple[float, str]] = []
        super().__init__(pods, dice=dice, options=Options(verify=unused), says=says)

    def obey(self) -> None:
        while self.engine.outbox:
            effects = self.engine.take()
            self.engine.outbox = tuple(effect for effect in effects if not isinstance(effect, Verify))
            super().obey()
            for effect in effects:
                self._answer(effect)

    def _answer(self, effect: Effect) -> None:
        if isinstance(effect, Verify):
            name = name_of(effect.endpoint.key)
            self.asked_about.append((self.now, name))
            if name not in self.slow:
                meant = None if name in self.dumb else name not in self.foreign
                self.engine.verified(effect.id, meant, self.now)

    def times(self, name: str) -> list[float]:
        return [at for at, asked in self.asked_about if asked == name]

    def use(self, until: float, names: str = "", every: float = 1.0) -> None:
        while self.now < until:
            self.until(min(until, self.now + every))
            for name in names:
                if name in self.states:
                    self.request(name)
            self.engine.needed(self.now)


# ---- when it is asked -------------------------------------------------------------------------------------------


def test_each_endpoint_is_asked_about_once_when_it_is_new() -> None:
    play = Verified("ab")
    play.use(10.0, "ab")
    assert play.asked_about == [(0.0, "a"), (0.0, "b")]
    play.says = records("abc")
    play.use(60.0, "abc")
    [(at, name)] = play.asked_about[2:]
    assert name == "c"
    assert at < 15.1


def test_without_verify_nothing_is_asked() -> None:
    play = Play()
    play.refuse("b")
    play.until(60.0)
    assert not [effect for _, effect in play.log if isinstance(effect, Verify)]


def test_who_connects_again_after_a_failure_is_asked_about() -> None:
    play = Verified()
    play.refusing = {"b"}
    play.use(10.0, "abc")
    play.refuse("b")
    play.use(20.0, "ac")
    assert play.times("b") == [0.0]
    play.refusing = set()
    play.use(30.0, "ac")
    [at] = play.times("b")[1:]
    assert at == play.probes("b")[-1], "at the dial that succeeded"


def test_a_connection_after_one_that_broke_is_asked_about_at_most_once_a_second() -> None:
    play = Verified()
    play.until(10.0)
    for _ in range(20):
        pick = play.pick("b")
        play.dialled(pick, How.OK)
        play.responded(pick)
        play.ended(pick)
        play.until(play.now + 0.05)
        play.request("b", How.RESET)
    play.until(12.0)
    assert play.times("b")[1:] == pytest.approx([10.05, 11.05], abs=0.06)


def test_a_connection_after_a_long_absence_is_asked_about() -> None:
    play = Verified()
    play.use(10.0, "abc")
    play.use(10.0 + ABSENT - 1.0, "ac")
    reconnect(play, "b")
    assert play.times("b") == [0.0]
    play.use(play.now + ABSENT + 1.0, "ac")
    reconnect(play, "b")
    assert play.times("b") == [0.0, play.now]


def reconnect(play: Verified, name: str) -> None:
    pick = play.pick(name)
    play.dialled(pick, How.OK)
    play.until(play.now)
    play.responded(pick)
    play.ended(pick)


def test_who_returns_into_the_set_is_asked_about() -> None:
    play = Verified("ab")
    play.says = records("a")
    open_work = play.pick("b")
    play.use(12.0, "a")
    play.says = records("ab")
    play.use(20.0, "a")
    assert len(play.times("b")) == 2
    play.ended(open_work)


def test_who_fails_or_left_is_not_asked_about() -> None:
    play = Verified()
    play.slow = {"b", "c"}
    play.refusing = {"b"}
    play.refuse("b")
    play.says = records("ab")
    play.use(60.0, "a")
    assert play.times("c") == [0.0]
    assert play.states == {"a": "ready", "b": "failing"}


def test_few_are_asked_about_at_a_time() -> None:
    keys = frozenset(pack(f"10.1.{n // 250}.{n % 250}", 80) for n in range(1000))
    says = Answer("dns", "records", keys, ttl=5.0, why="NOERROR")
    assert len(Verified(says=says).asked_about) == 1000
    slow = Verified("a")
    slow.slow = {name_of(key) for key in keys}
    slow.says = says
    slow.until(6.0)
    assert len(slow.asked_about) == 1 + ABREAST


# ---- no ---------------------------------------------------------------------------------------------------------


def taken_over(pods: str = "abc", foreign: str = "b") -> Verified:
    """At 10 s these addresses belong to pods of another Service."""
    play = Verified("".join(set(pods) - set(foreign)) or "z")
    play.use(5.0)
    play.foreign = set(foreign)
    play.says = records(pods)
    play.use(10.0)
    return play


def test_who_is_not_meant_is_left_out() -> None:
    play = taken_over()
    assert play.state("b") is State.EJECTED
    assert play.view("b").why == WHY  # type: ignore[union-attr]
    assert any(line.endswith(f"b: ready -> ejected ({WHY})") for line in play.moves)
    assert play.picked() == {"a", "c"}
    assert "b" in {name for _, name in play.forgotten}, "idle connections to it are closed"


def test_no_request_tries_it_and_no_check_lets_it_in() -> None:
    play = taken_over()
    for _ in range(120):
        play.until(play.now + 0.5)
        pick = play.pick()
        assert not pick.flags & TRIAL
        assert name_of(pick.key) != "b"
        play.ended(pick)
    assert play.state("b") is State.EJECTED


def test_there_is_no_cap_and_it_is_nobodys_last_resort() -> None:
    play = taken_over("abc", foreign="abc")
    assert play.states == dict.fromkeys("abc", "ejected")
    assert isinstance(play.try_to_pick(), Nobody)
    assert isinstance(play.try_to_pick(avoid="a"), Nobody)


def test_the_others_may_still_be_ejected_as_if_it_were_not_there() -> None:
    play = taken_over("abcd")
    play.sour("a")
    assert play.state("a") is State.EJECTED, "one of three, beside one that is none of them"


def test_it_is_asked_about_again_with_back_off_and_let_in_when_it_is_ours() -> None:
    play = taken_over()
    play.use(150.0, "ac")
    times = play.times("b")
    spans = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert spans == pytest.approx([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0][: len(spans)])
    assert len(spans) >= 6
    play.foreign = set()
    play.use(play.now + 61.0, "ac")
    assert play.state("b") is State.READY
    assert play.picked() == {"a", "b", "c"}
    asked = len(play.times("b"))
    play.use(play.now + 120.0, "abc")
    assert len(play.times("b")) == asked, "and that was that"


def test_callers_who_wait_are_let_in_when_one_turns_out_to_be_ours() -> None:
    play = taken_over("ab", foreign="ab")
    play.engine.queued(play.now)
    play.obey()
    admitted = len(play.admitted)
    play.until(10.2)
    assert len(play.admitted) == admitted, "nobody to give"
    play.foreign = {"b"}
    play.use(play.now + 61.0)
    assert len(play.admitted) > admitted


def test_an_address_that_is_taken_over_while_it_failed() -> None:
    play = Verified()
    play.refusing = {"b"}
    play.use(5.0, "abc")
    play.refuse("b")
    play.foreign, play.refusing = {"b"}, set()
    play.use(20.0, "ac")
    assert play.state("b") is State.EJECTED
    play.refusing = {"b"}
    play.use(100.0, "ac")
    play.says = records("ac")
    play.use(110.0, "ac")
    assert play.states == {"a": "ready", "c": "ready"}


def test_one_that_was_ejected_for_its_answers_is_left_out_too() -> None:
    play = Verified()
    play.use(2.0, "abc")
    play.sour("b")
    play.foreign = {"b"}
    play.until(2.2)
    play.request("b", How.RESET)  # by a request that tried the others
    play.until(2.4)
    pick = play.pick("b")
    play.dialled(pick, How.OK)
    play.ended(pick, How.CALLER)
    play.use(5.0, "ac")
    assert play.view("b").why == WHY  # type: ignore[union-attr]
    assert not play.pick().flags & TRIAL


# ---- neither yes nor no -----------------------------------------------------------------------------------------


def test_who_cannot_say_gives_no_evidence_and_is_asked_again() -> None:
    play = Verified("ab")
    play.dumb = {"c"}
    play.says = records("abc")
    play.use(30.0, "abc")
    assert play.state("c") is State.READY
    assert len(play.times("c")) >= 4
    play.dumb = set()
    play.use(play.now + 40.0, "abc")
    asked = len(play.times("c"))
    play.use(play.now + 100.0, "abc")
    assert len(play.times("c")) == asked


def test_a_word_that_never_comes_is_given_up_and_asked_for_again() -> None:
    play = Verified("ab")
    play.slow = {"c"}
    play.says = records("abc")
    play.use(30.0, "abc")
    first, second = play.times("c")[:2]
    assert second - first == pytest.approx(2 * VERIFY_TIMEOUT + 1.0, abs=0.1)
    assert play.state("c") is State.READY
    play.engine.verified(12345, False, play.now)  # nobody asked
    assert play.state("c") is State.READY


def test_who_cannot_say_any_more_does_not_let_in_again() -> None:
    play = taken_over()
    play.foreign, play.dumb = set(), {"b"}
    play.use(100.0, "ac")
    assert play.state("b") is State.EJECTED
