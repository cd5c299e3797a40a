"""Checks as data: what may be written, what is refused, and that options with them compare and hash."""

from __future__ import annotations

import copy
import pickle
import ssl
from typing import Any

import pytest

from headlessconn.checks import Http, Tcp
from headlessconn.core.endpoint import Endpoint
from headlessconn.errors import OptionError
from headlessconn.options import Options


def test_the_defaults_are_the_promised_ones() -> None:
    check = Http()
    assert (check.path, check.timeout, check.port, check.host, check.tls) == ("/", 2.0, None, None, False)
    assert [status for status in (199, 200, 399, 400) if status in check.expected] == [200, 399]
    assert (Options().check, Options().check_interval, Options().verify) == (None, 5.0, None)


@pytest.mark.parametrize("expected", [[200, 204], (200, 204), {200, 204}, frozenset({200, 204}), iter([200, 204])])
def test_statuses_may_be_given_as_one_likes(expected: Any) -> None:
    assert Http(expected=expected).expected == {200, 204}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "healthz"}, "the path 'healthz'"),
        ({"path": ""}, "the path ''"),
        ({"path": "/a b"}, "the path '/a b'"),
        ({"path": "/x HTTP/1.1\r\nHost: evil"}, "the path"),
        ({"path": "/\n"}, "the path"),
        ({"path": "/ä"}, "the path"),
        ({"path": None}, "the path None"),
        ({"path": b"/"}, "the path b'/'"),
        ({"expected": []}, r"expected=\[\]"),
        ({"expected": 200}, "expected=200 is not several"),
        ({"expected": "200"}, "expected='200' is not several"),
        ({"expected": ["200"]}, r"expected=\['200'\]"),
        ({"expected": [True]}, r"expected=\[True\]"),
        ({"expected": [100]}, r"expected=\[100\]"),
        ({"expected": range(200, 700)}, "expected=range"),
        ({"timeout": 0}, "timeout=0 "),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": True}, "timeout=True"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"port": 0}, "port=0"),
        ({"port": 65536}, "port=65536"),
        ({"port": "80"}, "port='80'"),
        ({"port": True}, "port=True"),
        ({"host": "a b"}, "host='a b'"),
        ({"host": "a\r\nX: y"}, "host="),
        ({"host": ""}, "host=''"),
        ({"host": 1}, "host=1"),
        ({"tls": "yes"}, "tls='yes'"),
        ({"tls": None}, "tls=None"),
    ],
    ids=repr,
)
def test_a_check_that_cannot_be_made(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        Http(**settings)
    assert caught.value.option == "check"
    assert "a right one looks like check=Http(" in str(caught.value)


@pytest.mark.parametrize("check", ["/healthz", Http, 80, ("tcp",)], ids=repr)
def test_what_is_no_check(check: Any) -> None:
    with pytest.raises(OptionError, match=r"option check: .* is not a check: `Tcp\(\)` or `Http\(\)`"):
        Options(check=check)


def test_what_cannot_verify() -> None:
    with pytest.raises(OptionError, match="option verify: 'yes' is not a function"):
        Options(verify="yes")  # type: ignore[arg-type]


def test_options_with_checks_compare_and_hash_so_that_clients_share_what_they_know() -> None:
    def verify(endpoint: Endpoint, host: str) -> bool:
        return True

    context = ssl.create_default_context()
    for check in (Tcp(), Http("/healthz"), Http(expected=[200, 204]), Http(tls=context)):
        one, other = Options(check=check, verify=verify), Options(check=copy.copy(check), verify=verify)
        assert one == other
        assert hash(one) == hash(other)
    assert Options(check=Tcp()) != Options(check=Http())
    assert Options(verify=verify) != Options()


def test_a_check_can_be_pickled() -> None:
    check = Http("/healthz", expected=[200], port=8081)
    assert pickle.loads(pickle.dumps(check)) == check
