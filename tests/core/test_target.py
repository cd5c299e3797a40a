"""Targets: every form that is understood, and every malformed one told apart, with a right example."""

import pytest

from headlessconn.core.endpoint import pack
from headlessconn.core.target import Target
from headlessconn.errors import HeadlessError, TargetError

LONG_LABEL = "a" * 64
LONG_NAME = ".".join(["a" * 60] * 5)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("orders.shop:8080", Target("dns", "orders.shop", port=8080)),
        ("orders.shop:http", Target("dns", "orders.shop", port_name="http")),
        ("orders.shop", Target("dns", "orders.shop")),
        ("orders", Target("dns", "orders")),
        ("db-0.db.data:3306", Target("dns", "db-0.db.data", port=3306)),
        ("orders.shop.svc.cluster.local.:8080", Target("dns", "orders.shop.svc.cluster.local", True, 8080)),
        ("orders.shop.svc.cluster.local.", Target("dns", "orders.shop.svc.cluster.local", True)),
        ("orders.shop.:grpc-web", Target("dns", "orders.shop", True, port_name="grpc-web")),
        ("dns:///orders.shop:8080", Target("dns", "orders.shop", port=8080)),
        ("dns:///orders.shop.:http", Target("dns", "orders.shop", True, port_name="http")),
        ("my_host.shop:1", Target("dns", "my_host.shop", port=1)),
        ("0-1.shop:65535", Target("dns", "0-1.shop", port=65535)),
        ("orders.shop:8080tcp", Target("dns", "orders.shop", port_name="8080tcp")),
        ("static:///10.0.0.1:80", Target("static", "", addresses=frozenset({pack("10.0.0.1", 80)}))),
        (
            "static:///10.0.0.1:80,[fd00::1]:8443",
            Target("static", "", addresses=frozenset({pack("10.0.0.1", 80), pack("fd00::1", 8443)})),
        ),
        ("static:///10.0.0.1:80,10.0.0.1:80", Target("static", "", addresses=frozenset({pack("10.0.0.1", 80)}))),
    ],
)
def test_a_target_that_is_understood(text: str, target: Target) -> None:
    found = Target.parse(text)
    assert found == target
    assert hash(found) == hash(target)
    assert str(found) == text, "people see what they wrote"
    assert Target.parse(found) is found


def test_targets_compare_by_what_they_mean() -> None:
    """Two spellings are one target, so one engine and one question."""
    assert Target.parse("Orders.Shop:HTTP") == Target.parse("dns:///orders.shop:http")
    assert Target.parse("static:///10.0.0.2:80,10.0.0.1:80") == Target.parse("static:///10.0.0.1:80,10.0.0.2:80")
    assert Target.parse("orders.shop:8080") != Target.parse("orders.shop.:8080"), "absolute is another name"
    assert Target.parse("orders.shop:80") != Target.parse("orders.shop:http")
    assert len({Target.parse("orders.shop:8080"), Target.parse("ORDERS.shop:8080")}) == 1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("   ", "white space"),
        ("orders shop:8080", "white space"),
        (" orders.shop:8080", "white space"),
        ("orders.shop:8080\n", "white space"),
        ("orders.shop:0", "port 0"),
        ("orders.shop:70000", "port 70000"),
        ("orders.shop:65536", "port 65536"),
        ("orders.shop:-1", "port -1"),
        ("orders.shop:--1", "port '--1'"),
        ("orders.shop:+80", "port '+80'"),
        ("orders.shop:", "port ''"),
        ("orders.shop:80.5", "port '80.5'"),
        ("orders.shop:８０", "port '８０'"),
        ("orders.shop:²", "port '²'"),
        ("orders.shop:http_alt", "port 'http_alt'"),
        ("orders.shop:-http", "port '-http'"),
        ("orders.shop:http-", "port 'http-'"),
        ("orders.shop:a--b", "port 'a--b'"),
        ("orders.shop:sixteen-letters-", "port 'sixteen-letters-'"),
        ("orders.shop:averyverylongname", "port 'averyverylongname'"),
        ("orders..shop:8080", "an empty label"),
        (".orders.shop", "an empty label"),
        (":8080", "an empty label"),
        (".", "an empty label"),
        ("orders.shop..", "an empty label"),
        ("-orders.shop:8080", "label '-orders'"),
        ("orders-.shop:8080", "label 'orders-'"),
        ("ord*rs.shop:8080", "label 'ord*rs'"),
        ("bücher.shop:8080", "label 'bücher'"),
        ("\u212aube.shop", "label '\u212aube'"),  # KELVIN SIGN, whose lower case is a plain k
        (f"{LONG_LABEL}.shop", f"label '{LONG_LABEL}'"),
        (LONG_NAME, "304 characters"),
        ("orders.shop/v1", "path"),
        ("user@orders.shop", "user"),
        ("dns:///orders.shop:8080/v1", "path"),
        ("10.0.0.1", "an address, not a name"),
        ("10.0.0.1:80", "an address, not a name"),
        ("10.0.0.1.:80", "an address, not a name"),
        ("[fd00::1]:80", "an address, not a name"),
        ("fd00::1", "an address, not a name"),
        ("orders.shop:80:90", "an address, not a name"),
        ("http://orders.shop:8080", "scheme 'http'"),
        ("https://orders.shop/v1", "scheme 'https'"),
        ("http:///orders.shop:8080", "scheme 'http'"),
        ("consul:///orders", "scheme 'consul'"),
        ("://orders.shop", "scheme ''"),
        ("dns://10.96.0.10/orders.shop:8080", "a slash is missing"),
        ("dns:///", "empty"),
        ("static://10.0.0.1:80", "a slash is missing"),
        ("static:///", "'' has no port"),
        ("static:///10.0.0.1", "'10.0.0.1' has no port"),
        ("static:///10.0.0.1:80,", "'' has no port"),
        ("static:///10.0.0.1:80, 10.0.0.2:80", "' 10.0.0.2' is not an IP address"),
        ("static:///orders.shop:80", "'orders.shop' is not an IP address"),
        ("static:///10.0.0.256:80", "'10.0.0.256' is not an IP address"),
        ("static:///fd00::1:80", "'fd00::1' is not an IP address"),
        ("static:///[10.0.0.1:80", "'[10.0.0.1' is not an IP address"),
        ("static:///[fe80::1%eth0]:80", "'[fe80::1%eth0]' is not an IP address"),
        ("static:///10.0.0.1:0", "port 0"),
        ("static:///10.0.0.1:70000", "port 70000"),
        ("static:///10.0.0.1:http", "port 'http'"),
        ("static:///10.0.0.1:8_0", "port '8_0'"),
        ("static:///10.0.0.1: 80", "port ' 80'"),
        ("static:///10.0.0.1:+80", "port '+80'"),
    ],
)
def test_a_malformed_target_names_the_part_and_shows_a_right_one(text: str, part: str) -> None:
    with pytest.raises(TargetError) as caught:
        Target.parse(text)
    error = caught.value
    assert part in str(error)
    assert repr(text) in str(error)
    assert error.text == text
    assert f"a right one looks like {error.example!r}" in str(error)
    Target.parse(error.example)  # what is shown as right is right
    assert isinstance(error, ValueError)
    assert isinstance(error, HeadlessError)


@pytest.mark.parametrize("text", [None, 8080, b"orders.shop:8080", ("orders.shop", 8080)])
def test_what_is_not_even_text(text: object) -> None:
    with pytest.raises(TargetError, match=f"it is a {type(text).__name__}, not a string"):
        Target.parse(text)  # type: ignore[arg-type]
