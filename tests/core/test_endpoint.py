"""Packed keys and whole sets: what an endpoint is, and what differs between two answers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headlessconn.core.endpoint import NO_DIAL, Answer, Changes, Endpoint, Facts, How, address_of, diff, pack, port_of
from tests.core.dice import repeatable


@repeatable
@given(st.ip_addresses(), st.integers(1, 65535))
def test_a_key_holds_its_address_and_port(address: object, port: int) -> None:
    key = pack(str(address), port)
    assert (address_of(key), port_of(key)) == (str(address), port)
    assert len(key) in (6, 18)


@pytest.mark.parametrize(("address", "port"), [("orders.shop", 80), ("10.0.0.256", 80), ("", 80)])
def test_only_addresses_are_packed(address: str, port: int) -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        pack(address, port)


@pytest.mark.parametrize(
    ("address", "text"),
    [("10.244.1.7", "10.244.1.7:8080"), ("fd00::7", "[fd00::7]:8080"), ("fd00:0:0::7", "[fd00::7]:8080")],
)
def test_an_endpoint_reads_like_an_address(address: str, text: str) -> None:
    endpoint = Endpoint.of(pack(address, 8080))
    assert str(endpoint) == text
    assert endpoint.hostname == ""


def test_a_hostname_is_no_part_of_who_an_endpoint_is() -> None:
    key = pack("10.244.1.7", 8080)
    named, unnamed = Endpoint.of(key, Facts("db-0.db.data.svc.cluster.local.")), Endpoint.of(key)
    assert named.hostname == "db-0.db.data.svc.cluster.local."
    assert named == unnamed
    assert len({named, unnamed}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        named.port = 1  # type: ignore[misc]


KEYS = st.frozensets(st.integers(1, 12).map(lambda n: pack(f"10.0.0.{n}", 80)))


@repeatable
@given(KEYS, KEYS)
def test_a_diff_turns_the_old_set_into_the_new_one(old: frozenset[bytes], new: frozenset[bytes]) -> None:
    changes = diff(old, new)
    assert (old | changes.added) - changes.removed == new
    assert not changes.added & old
    assert changes.removed <= old
    assert diff(new, old) == Changes(changes.removed, changes.added)
    assert diff(old, old) == (frozenset(), frozenset())


def test_only_failed_dials_say_that_no_connection_could_be_had() -> None:
    assert {How.REFUSED, How.UNREACHABLE, How.DIAL_TIMEOUT} == NO_DIAL
    assert len({str(how.value) for how in How}) == len(How), "each says something of its own"


def test_an_answer_is_whole_and_frozen() -> None:
    answer = Answer("dns", "records", frozenset({pack("10.0.0.1", 80)}), ttl=5.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.ttl = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        answer.about[b"x"] = Facts()  # type: ignore[index]
