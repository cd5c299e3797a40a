"""One endpoint's life: the table of moves is the law, and everything that is not in it raises."""

import itertools

import pytest

from headlessconn.core.endpoint import Facts, pack
from headlessconn.core.member import MOVES, Member, State

KEY = pack("10.244.1.7", 8080)
CAUSES = sorted({cause for _, cause in MOVES})


def member_in(state: State) -> Member:
    member = Member(KEY, None, 0.0)
    member.state = state
    return member


@pytest.mark.parametrize(("state", "cause"), list(itertools.product(State, CAUSES)), ids=str)
def test_every_move_is_in_the_table_or_raises(state: State, cause: str) -> None:
    member = member_in(state)
    if (state, cause) in MOVES:
        assert member.move(cause, "because", 7.0) is state
        assert member.state is MOVES[state, cause]
        assert (member.why, member.moved_at) == ("because", 7.0)
    else:
        with pytest.raises(KeyError):
            member.move(cause, "because", 7.0)
        assert (member.state, member.why, member.moved_at) == (state, "listed", 0.0), "nothing happened"


def test_what_the_table_says() -> None:
    """Rules of the design that whoever edits the table should break on purpose only."""
    assert not [move for move in MOVES if move[0] is State.GONE], "nobody returns from the dead: they are made anew"
    ways_to_ready = {cause for (_, cause), after in MOVES.items() if after is State.READY}
    assert ways_to_ready == {"connect", "readmit", "return"}
    assert MOVES[State.EJECTED, "refuse"] is State.FAILING
    assert (State.EJECTED, "connect") not in MOVES, "a frozen process still accepts: a connect does not readmit"
    assert MOVES[State.FAILING, "leave"] is State.GONE, "removed and refusing"
    for state in set(State) - {State.GONE}:
        assert _reaches(state, State.GONE), f"{state} must end some time"


def _reaches(start: State, end: State) -> bool:
    seen, ahead = set(), {start}
    while ahead:
        state = ahead.pop()
        seen.add(state)
        ahead |= {after for (before, _), after in MOVES.items() if before is state} - seen
    return end in seen


def test_open_work() -> None:
    for in_flight, connections, is_open in ((0, 0, False), (1, 0, True), (0, 1, True)):
        member = member_in(State.READY)
        member.in_flight, member.connections = in_flight, connections
        assert member.is_open is is_open


def test_it_says_who_it_is() -> None:
    member = Member(KEY, Facts("db-0.db.data.svc.cluster.local."), 0.0)
    assert str(member.endpoint) == "10.244.1.7:8080"
    assert member.endpoint.hostname == "db-0.db.data.svc.cluster.local."
    assert repr(member) == "<10.244.1.7:8080 ready: listed; 0 in flight>"
