"""Every error: one root, the builtin that people would look for, whole after pickling, a sentence that helps."""

import copy
import pickle

import pytest

from headlessconn import errors
from headlessconn.errors import (
    ClosedError,
    DeadlineExceeded,
    DialFailed,
    HeadlessError,
    NoEndpoints,
    NoPrimary,
    NotHeld,
    OptionError,
    Overloaded,
    PickEnded,
    PoolTimeout,
    TargetError,
    WrongLoop,
)

ALL: list[tuple[HeadlessError, type[Exception]]] = [
    (TargetError("orders..shop", "an empty label is not a DNS label"), ValueError),
    (TargetError("static:///x", "'x' has no port", "static:///10.0.0.1:80"), ValueError),
    (OptionError("refresh_min", "-1 is not between 0.05 and 3600", "refresh_min=1.0"), ValueError),
    (NoEndpoints("orders.shop:8080", 5.0, "NXDOMAIN", 0.7, "Check the Service."), ConnectionError),
    (NoEndpoints("orders.shop:8080", 0.0, "nothing yet", None, "Wait longer."), ConnectionError),
    (NoEndpoints("orders.shop:8080", 5.0, "NOERROR", 0.7, "See the pods.", ready=2, wanted=3), ConnectionError),
    (DialFailed("orders.shop:8080", [("10.0.0.1:80", "refused"), ("10.0.0.2:80", "dial timed out")]), ConnectionError),
    (Overloaded("orders.shop:8080", 2, 200, 100, 1024, 1024), ConnectionError),
    (Overloaded("orders.shop:8080", 1, 7, None, 12, 1024, waited=5.0), ConnectionError),
    (DeadlineExceeded("orders.shop:8080", 2.0, [("10.0.0.1:80", "reset"), ("10.0.0.2:80", "silent")]), TimeoutError),
    (DeadlineExceeded("orders.shop:8080", 2.0, ()), TimeoutError),
    (PoolTimeout("db.data:3306", 30.0, 10, 10, ["orders/db.py:42 for 31.0 s (to 10.0.0.1:3306)"], 3, 0), TimeoutError),
    (PoolTimeout("db.data:3306", 30.0, 0, 10, (), 0, 2, "10.0.0.1:3306: ConnectionRefusedError", 9), TimeoutError),
    (NoPrimary("mysql-primary.data:3306", 5.0, [("10.0.0.1:3306", "it takes no writes")]), ConnectionError),
    (NoPrimary("mysql-primary.data:3306", 5.0, ()), ConnectionError),
    (NotHeld("this connection was given back already"), RuntimeError),
    (ClosedError("this client was closed: make a new one"), RuntimeError),
    (WrongLoop("this client belongs to another event loop"), RuntimeError),
    (PickEnded("the pick of 10.0.0.1:80 was ended twice"), RuntimeError),
]


@pytest.mark.parametrize(("error", "builtin"), ALL, ids=lambda value: type(value).__name__)
def test_it_is_one_of_ours_and_a_builtin(error: HeadlessError, builtin: type[Exception]) -> None:
    assert isinstance(error, HeadlessError)
    assert isinstance(error, builtin)


@pytest.mark.parametrize("error", [error for error, _ in ALL], ids=str)
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_it_survives_a_process_boundary(error: HeadlessError, how: object) -> None:
    """Task queues and process pools pickle what was raised; an OSError parent would lose all but two arguments."""
    again = how(error)  # type: ignore[operator]
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(again) == repr(error)
    assert vars(again) == vars(error)


def test_every_error_of_the_tree_is_tried_here() -> None:
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, HeadlessError)}
    assert {type(error) for error, _ in ALL} == defined - {HeadlessError}
    assert errors.__doc__ is not None
    for error in defined:
        assert error.__name__ in errors.__doc__, "the drawing at the head of the file shows it"


def test_what_they_say() -> None:
    assert [str(error) for error, _ in ALL] == [
        "target 'orders..shop': an empty label is not a DNS label; a right one looks like 'orders.shop:8080'",
        "target 'static:///x': 'x' has no port; a right one looks like 'static:///10.0.0.1:80'",
        "option refresh_min: -1 is not between 0.05 and 3600; a right one looks like refresh_min=1.0",
        "no endpoints behind orders.shop:8080 after waiting 5.0 s; "
        "the last answer was NXDOMAIN, 0.7 s ago. Check the Service.",
        "no endpoints behind orders.shop:8080 after waiting 0.0 s; the last answer was nothing yet. Wait longer.",
        "only 2 of 3 endpoints behind orders.shop:8080 are ready after waiting 5.0 s; "
        "the last answer was NOERROR, 0.7 s ago. See the pods.",
        "could not connect to orders.shop:8080: tried 10.0.0.1:80 (refused), 10.0.0.2:80 (dial timed out). "
        "Pods that DNS still lists may be gone: a dead node stays listed for up to 50 s; "
        "see the pods with `kubectl get endpointslices`",
        "orders.shop:8080 is overloaded: 200 requests in flight on 2 endpoints (of at most 100 each), 1024 callers "
        "waiting of at most 1024; gave up after 0.0 s. Add pods, send less at once, or raise max_in_flight if the pods "
        "can take more (max_waiting only makes the queue longer).",
        "orders.shop:8080 is overloaded: 7 requests in flight on 1 endpoint (without a limit), 12 callers "
        "waiting of at most 1024; gave up after 5.0 s. Add pods, send less at once, or raise max_in_flight if the pods "
        "can take more (max_waiting only makes the queue longer).",
        "orders.shop:8080 did not answer within 2.00 s: tried 10.0.0.1:80 (reset), 10.0.0.2:80 (silent). Give it a "
        "later deadline, or see why these pods are slow; `repeatable=True` lets a silent one be left for another",
        "orders.shop:8080 did not answer within 2.00 s: tried nobody yet. Give it a later deadline, or see why these "
        "pods are slow; `repeatable=True` lets a silent one be left for another",
        "no connection to db.data:3306 within 30.0 s: 10 of 10 connections, 1 of them handed out: "
        "orders/db.py:42 for 31.0 s (to 10.0.0.1:3306); 0 being opened, 3 other callers waiting. "
        "See whether the pods answer: dials that say nothing end after open_timeout.",
        "no connection to db.data:3306 within 30.0 s: 0 of 10 connections, none handed out; 2 being opened, "
        "0 other callers waiting; 9 dials failed, the last with 10.0.0.1:3306: ConnectionRefusedError. "
        "See why the pods cannot be connected to.",
        "no pod behind mysql-primary.data:3306 takes writes, after 5.0 s: 10.0.0.1:3306 (it takes no writes). "
        "Try again: one may be promoted any moment. `SELECT @@read_only` tells of each",
        "no pod behind mysql-primary.data:3306 takes writes, after 5.0 s: DNS lists none. "
        "Try again: one may be promoted any moment. `SELECT @@read_only` tells of each",
        "this connection was given back already",
        "this client was closed: make a new one",
        "this client belongs to another event loop",
        "the pick of 10.0.0.1:80 was ended twice",
    ]


def test_their_facts_are_attributes() -> None:
    nobody = NoEndpoints("orders.shop", 5.0, "NODATA", 1.5, "Check.")
    assert (nobody.target, nobody.waited, nobody.said, nobody.age) == ("orders.shop", 5.0, "NODATA", 1.5)
    failed = DialFailed("orders.shop", [("10.0.0.1:80", "refused")])
    assert (failed.target, failed.tried) == ("orders.shop", (("10.0.0.1:80", "refused"),))
