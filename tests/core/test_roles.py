"""Who the primary is: what pods say, whom DNS names, and what is certain only once somebody else has spoken."""

from headlessconn.core.roles import OTHER, READ_ONLY, Roles

A, B, C = b"a", b"b", b"c"


def roles(**said: bool) -> Roles:
    found = Roles()
    for name, writable in said.items():
        found.told(name.encode(), writable)
    return found


def test_who_says_so_is_the_primary() -> None:
    assert roles(a=False, b=True).settle([A], [A, B, C]) == B


def test_nobody_is_while_nobody_says_so() -> None:
    found = roles(a=False)
    assert found.settle([A], [B]) is None
    assert found.to_ask([A], [A, B]) == [A, B]


def test_of_two_dns_decides() -> None:
    found = roles(a=True, b=True)
    assert found.settle([B], [A, B]) == B
    assert found.split == (A, B)


def test_of_two_that_dns_does_not_name_the_one_in_use_stays() -> None:
    found = roles(b=True)
    assert found.settle([], [A, B]) == B
    found.told(A, True)
    assert found.settle([], [A, B]) == B
    found.lost(B)
    assert found.settle([], [A, B]) is None  # its connection broke; that is no reason to write to the other half
    found.told(B, True)
    assert found.settle([], [A, B]) == B


def test_another_is_taken_once_the_one_in_use_says_no_or_is_out_of_reach() -> None:
    for spoken in ("no", "silent"):
        found = roles(a=True)
        assert found.settle([A], [A, B]) == A
        found.lost(A)
        found.told(B, True)
        assert found.settle([A], [A, B]) is None
        if spoken == "no":
            found.told(A, False)
        else:
            found.unreachable(A)
        assert found.settle([A], [A, B]) == B


def test_whom_dns_names_is_heard_before_another_is_taken() -> None:
    found = roles(b=True)
    assert found.settle([A], [A, B]) is None
    found.unreachable(A)
    assert found.settle([A], [A, B]) == B


def test_when_dns_names_another_it_is_asked_and_then_taken() -> None:
    found = roles(a=True)
    assert found.settle([A], [A, B]) == A
    assert found.settle([B], [A, B]) == A
    assert found.to_ask([B], [A, B]) == [B]
    found.told(B, True)
    assert found.settle([B], [A, B]) == B
    assert found.to_ask([B], [A, B]) == []


def test_one_that_left_every_set_is_not_waited_for() -> None:
    found = roles(a=True)
    assert found.settle([A], [A, B]) == A
    found.told(B, True)
    assert found.settle([], [B]) == B


def test_which_connections_may_stay() -> None:
    found = roles(a=True, b=False)
    found.settle([A], [A, B, C])
    assert found.unwelcome(A) == ""
    assert found.unwelcome(B) == READ_ONLY
    assert found.unwelcome(C) == OTHER
    found.told(A, False)
    assert found.primary is None
    assert found.unwelcome(A) == READ_ONLY
    assert found.unwelcome(C) == ""  # it is not known to be wrong


def test_no_order_of_a_set_decides() -> None:
    for listed in ([A, B], [B, A]):
        assert roles(a=True, b=True).settle(listed, []) == A
