"""What a person reads: the snapshot's numbers and the sentences made of them, word for word."""

import dataclasses

import pytest

from headlessconn.core.effects import Changed
from headlessconn.core.endpoint import How
from headlessconn.core.explain import advice, explain
from headlessconn.core.member import State
from tests.core.play import Play, key, no_news, nobody, records


def told(play: Play) -> list[str]:
    return explain(play.engine.snapshot(play.now)).splitlines()


def test_all_is_well() -> None:
    play = Play("ab")
    play.until(3.0)
    assert told(play) == [
        "web.shop:80 has 2 endpoints: 2 ready.",
        "DNS said NOERROR for web.shop.svc. 3.0 s ago, TTL 5 s; asked again in 2.0 s.",
    ]


def test_one_of_each() -> None:
    play = Play("abcde")
    play.refusing = {"b"}
    play.until(2.0)
    play.refuse("b")
    play.sour("c")
    stream, request = play.pick("d"), play.pick("d")
    play.engine.streams(stream)
    play.says = records("abc")
    play.until(2.25)
    assert told(play) == [
        "web.shop:80 has 3 endpoints: 1 ready, 1 failing, 1 ejected, 1 draining.",
        "DNS said NOERROR for web.shop.svc. 0.2 s ago, TTL 5 s; asked again in 4.8 s.",
        "10.0.0.2:80 is failing for 0.2 s: refused; 0 in flight, 0 connections; tried again in 0.2 s.",
        "10.0.0.3:80 is ejected for 0.2 s: 5 bad answers in a row, the last: bad status; "
        "0 in flight, 0 connections; tried again in 0.8 s.",
        "10.0.0.4:80 is draining for 0.2 s: no longer listed; 1 in flight, 1 connection.",
    ]
    play.ended(request)
    play.ended(stream)


def test_before_the_first_answer() -> None:
    play = Play(silent=True)
    play.engine.queued(play.now)
    assert told(play) == [
        "web.shop:80 has 0 endpoints.",
        "DNS has not answered yet; asking now.",
        "1 caller waits. DNS has not answered yet: give it longer with wait_for_endpoints.",
    ]


def test_when_dns_cannot_be_reached() -> None:
    play = Play(says=no_news("timeout"))
    play.engine.queued(play.now)
    play.engine.queued(play.now)
    assert told(play) == [
        "web.shop:80 has 0 endpoints.",
        "DNS has not answered yet; the last look-up failed (timeout); asked again in 1.0 s.",
        "2 callers wait. DNS has never answered for it (timeout): check the nameservers in resolv.conf, and that this "
        "pod may reach their port 53 by UDP and TCP.",
    ]


def test_when_dns_falls_silent() -> None:
    play = Play("a")
    play.says = no_news("SERVFAIL")
    play.until(5.25)
    assert told(play) == [
        "web.shop:80 has 1 endpoint: 1 ready.",
        "DNS said NOERROR for web.shop.svc. 5.2 s ago, TTL 5 s; the last look-up failed (SERVFAIL); "
        "asked again in 0.8 s.",
    ]


def test_when_nobody_is_listed() -> None:
    play = Play("ab")
    play.says = nobody()
    play.until(7.5)
    assert told(play) == [
        "web.shop:80 has 2 endpoints: 2 ready.",
        "DNS said NXDOMAIN for web.shop.svc. 0.5 s ago, TTL 5 s; asked again in 0.5 s.",
        "DNS lists nobody: those that still work are held for 7.5 s more.",
    ]


def test_when_nobody_uses_it() -> None:
    play = Play("a")
    play.until(95.0)
    assert told(play) == [
        "web.shop:80 has 1 endpoint: 1 ready.",
        "DNS said NOERROR for web.shop.svc. 35.0 s ago, TTL 5 s; nobody uses it, so nobody asks: "
        "the next use asks first.",
    ]


def test_a_set_that_never_changes() -> None:
    static = dataclasses.replace(
        records("a", ttl=None), source="static", why="as written", name="static:///10.0.0.1:80"
    )
    play = Play(says=static)
    play.until(2.0)
    assert told(play) == [
        "web.shop:80 has 1 endpoint: 1 ready.",
        "The target said as written for static:///10.0.0.1:80 2.0 s ago; it never changes.",
    ]


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("NXDOMAIN", ["does not exist", "without a ready pod", "kubectl get service,endpointslices", "orders.shop:80"]),
        ("NODATA", ["clusterIP: None", "IP family"]),
        ("several ports (80, 81): name one", ["port"]),
    ],
)
def test_advice_says_what_to_check(why: str, words: list[str]) -> None:
    text = advice(nobody(why), "", "orders.shop:80")
    assert all(word in text for word in words), text


def test_advice_follows_the_trouble_there_is_now() -> None:
    """DNS said something once, and says nothing now: that is what to look into."""
    assert advice(None, "SERVFAIL", "orders.shop:80").startswith("DNS has never answered for it (SERVFAIL): check")
    assert advice(nobody(), "timeout", "orders.shop:80").startswith("DNS does not answer for it any more (timeout)")


# ---- the snapshot -----------------------------------------------------------------------------------------------


def test_a_snapshot_is_frozen_and_does_not_follow_the_engine() -> None:
    play = Play("ab")
    before = play.engine.snapshot(play.now)
    play.says = records("a")
    play.until(5.0)
    assert len(before.endpoints) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.picks = 3  # type: ignore[misc]
    assert len(play.engine.snapshot(play.now).endpoints) == 1


def test_what_a_snapshot_tells() -> None:
    play = Play("abcd")
    play.refusing = {"b"}
    play.until(1.0)
    play.refuse("b")
    play.sour("c")
    pick = play.pick("a")
    play.until(1.5)
    play.responded(pick)
    view = play.engine.snapshot(play.now)
    assert view.target == "web.shop:80"
    assert [len(view.of(state)) for state in State] == [2, 1, 1, 0, 0]
    assert {member.endpoint.key for member in view.ready} == {key("a"), key("d")}
    [failing] = view.of(State.FAILING)
    assert (failing.endpoint.key, failing.why, failing.since, failing.retry_in) == (key("b"), "refused", 0.5, 1.0)
    [a] = [member for member in view.members if member.endpoint.key == key("a")]
    assert (a.in_flight, a.retry_in) == (1, None)
    assert a.latency == pytest.approx(0.5)
    assert (view.picks, view.waiting, view.idle, view.asking, view.held_for) == (7, 0, False, False, None)
    assert (view.trouble, view.answer_age, view.next_look_in) == ("", 0.5, 4.5)
    assert str(view) == "web.shop:80: 2 ready, 1 failing, 1 ejected"
    play.ended(pick)


def test_an_empty_snapshot() -> None:
    view = Play(silent=True).engine.snapshot(0.0)
    assert (view.answer, view.answer_age, view.endpoints, view.asking) == (None, None, (), True)
    assert str(view) == "web.shop:80: no endpoints"


def test_a_draining_pod_is_seen_and_not_counted() -> None:
    play = Play("ab")
    pick = play.pick("b")
    play.says = records("a")
    play.until(5.0)
    view = play.engine.snapshot(play.now)
    assert (len(view.members), len(view.endpoints)) == (2, 1)
    play.ended(pick)


# ---- changes ----------------------------------------------------------------------------------------------------


def test_what_a_change_tells() -> None:
    play = Play("ab")
    play.says = records("bc")
    play.until(5.0)
    [first, change] = [effect.change for _, effect in play.log if isinstance(effect, Changed)]
    assert (first.counts(), change.counts(), repr(change)) == ("+2 -0 =2", "+1 -1 =2", "<Change +1 -1 =2>")
    assert change.is_membership
    assert [str(endpoint) for endpoint in change.added] == ["10.0.0.3:80"]
    assert [str(endpoint) for endpoint in change.removed] == ["10.0.0.1:80"]
    assert change.at == 5.0
    assert [(str(move.endpoint), move.before, move.after) for move in change.moves] == [
        ("10.0.0.3:80", None, State.READY),
        ("10.0.0.1:80", State.READY, State.DRAINING),
        ("10.0.0.1:80", State.DRAINING, State.GONE),
    ]


def test_a_pod_judged_differently_is_no_change_of_membership() -> None:
    play = Play("ab")
    play.refuse("b", How.UNREACHABLE)
    change = [effect.change for _, effect in play.log if isinstance(effect, Changed)][-1]
    assert not change.is_membership
    assert (change.counts(), change.added, change.removed) == ("+0 -0 =2", (), ())
    [move] = change.moves
    assert (move.before, move.after, move.why) == (State.READY, State.FAILING, "unreachable")
