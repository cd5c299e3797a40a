"""MongoDB's prose tests for polling SRV, ported to addresses, and HAProxy's cases of `hold`; in virtual time.

mongodb/specifications, polling-srv-records-for-mongos-discovery/tests; haproxy, doc/configuration, "resolvers: hold".
Pods that stay keep what is open on them.
"""

import itertools

import pytest

from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pick import NOBODY, Pick
from headlessconn.options import Options
from tests.core.play import Play, no_news, nobody, records

TURN = 6.0  # seconds in which a changed answer is certainly heard (refresh_max 5 s)


def used(play: Play, seconds: float) -> None:
    """Time in which somebody uses it."""
    end = play.now + seconds
    while play.now < end:
        play.until(min(end, play.now + 1.0))
        found = play.try_to_pick()
        if isinstance(found, Pick):
            play.ended(found)


# ---- MongoDB, prose tests 1 to 9 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [("ab", "abc"), ("ab", "a"), ("ab", "ac"), ("ab", "c"), ("ab", "cd")],
    ids=["1 added", "2 removed", "3 one replaced", "4 all replaced by one", "5 all replaced by two"],
)
def test_mongodb_the_set_is_what_the_answer_says(before: str, after: str) -> None:
    play = Play(before)
    held = {name: play.pick(name) for name in before}
    play.says = records(after)
    used(play, TURN)
    assert play.listed == set(after)
    for name, pick in held.items():
        stays = name in after
        assert pick.is_listed is stays
        assert play.state(name) is (State.READY if stays else State.DRAINING), "what is open on it goes on"
        assert (name in {gone for _, gone in play.forgotten}) is not stays


@pytest.mark.parametrize("trouble", ["timeout", "SERVFAIL"], ids=["6 time-out", "7 look-up failed"])
def test_mongodb_trouble_changes_nothing(trouble: str) -> None:
    play = Play("ab")
    moves = len(play.moves)
    play.says = no_news(trouble)
    used(play, 300.0)
    assert play.listed == {"a", "b"}
    assert len(play.moves) == moves
    assert play.picked() == {"a", "b"}
    play.says = records("abc")
    used(play, TURN)
    assert play.listed == {"a", "b", "c"}


def test_mongodb_no_records_change_nothing_at_first() -> None:
    """8: there, for ever, since mongos hosts do not scale to zero. A Service does, so here for `hold_nx`."""
    play = Play("ab")
    play.says = nobody("NODATA")
    used(play, TURN)
    assert play.picked() == {"a", "b"}
    used(play, Options().hold_nx)
    assert play.try_to_pick() is NOBODY


def test_mongodb_an_answer_that_is_the_same_touches_nothing() -> None:
    """ "MUST NOT remove all hosts and then re-add them"."""
    play = Play("ab")
    pick = play.pick("a")
    moves = len(play.moves)
    used(play, 120.0)
    assert len(play.asked) > 20
    assert len(play.moves) == moves
    assert play.forgotten == []
    play.ended(pick)


def test_mongodb_the_interval_is_measured_from_the_end_of_the_scan() -> None:
    play = Play("ab", silent=True)
    for _ in range(5):
        used(play, 0.5)  # an answer takes that long
        asked = play.engine.refresh.asking
        if not asked:
            break
        play.engine.answered(records("ab"), play.now, asked)
        play.obey()
        heard = play.now
        play.until(heard + 5.1)
        assert heard + 1.0 <= play.asked[-1] <= heard + 5.0


def test_mongodb_it_polls_for_as_long_as_it_is_used() -> None:
    play = Play("ab")
    used(play, 600.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(play.asked)]
    assert max(gaps) <= 5.0
    assert min(gaps[1:]) >= 4.5


# ---- HAProxy, hold ----------------------------------------------------------------------------------------------

HOLD = Options(hold_nx=30.0, refresh_min=1.0, refresh_max=1.0)  # `hold nx 30s`, `timeout resolve 1s`


def test_haproxy_nx_is_ignored_until_its_hold_is_over() -> None:
    play = Play("ab", options=HOLD)
    used(play, 5.0)
    play.says = nobody()
    began = play.now
    used(play, 29.0)
    assert play.picked() == {"a", "b"}
    used(play, 3.0)
    assert play.listed == set()
    gone = [at for at, name in play.forgotten if name == "a"]
    assert began + 30.0 <= gone[0] <= began + 31.1


def test_haproxy_it_is_up_again_with_the_first_valid_answer() -> None:
    play = Play("ab", options=HOLD)
    play.says = nobody()
    used(play, 40.0)
    assert play.try_to_pick() is NOBODY
    play.says = records("ab")
    used(play, 1.2)
    assert play.picked() == {"a", "b"}


def test_haproxy_one_valid_answer_begins_the_hold_anew() -> None:
    play = Play("ab", options=HOLD)
    for _ in range(5):
        play.says = nobody()
        used(play, 25.0)
        play.says = records("ab")
        used(play, 2.0)
    assert play.picked() == {"a", "b"}
    assert play.forgotten == []


@pytest.mark.parametrize("why", ["timeout", "REFUSED", "SERVFAIL"])
def test_haproxy_other_failures_hold_too(why: str) -> None:
    """`hold timeout`, `hold refused`, `hold other`: 30 s there; here no news never empties a set."""
    play = Play("ab", options=HOLD)
    play.says = no_news(why)
    used(play, 120.0)
    assert play.picked() == {"a", "b"}


def test_haproxy_a_held_server_that_refuses_is_down() -> None:
    """A health check and DNS that say the same need no hold."""
    play = Play("ab", options=HOLD)
    play.says = nobody()
    used(play, 5.0)
    play.refuse("a", How.REFUSED)
    assert play.state("a") is State.GONE
    assert play.picked() == {"b"}


def test_haproxy_obsolete_is_not_held() -> None:
    """`hold obsolete 0s`, its default: who is missing from an answer that lists others is out."""
    play = Play("abc", options=HOLD)
    play.says = records("ab")
    used(play, 1.2)
    assert play.listed == {"a", "b"}
