"""Positions in the stream of transactions, as MariaDB and MySQL spell them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headlessconn.core.gtid import LONGEST, Position

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
OTHER = "4e11fa47-71ca-11e1-9e33-c80aa9429562"


@pytest.mark.parametrize(
    ("position", "other", "covers"),
    [
        ("0-1-42", "0-1-42", True),
        ("0-1-42", "0-1-41", True),
        ("0-1-42", "0-1-43", False),
        ("0-2-42", "0-1-42", True),  # who wrote it does not matter within a domain
        ("0-1-42", "1-1-1", False),
        ("0-1-42,1-1-7", "1-1-7", True),
        ("0-1-42", "", True),
        ("", "0-1-1", False),
        (f"{UUID}:1-5:7-9", f"{UUID}:2-4", True),
        (f"{UUID}:1-5:7-9", f"{UUID}:8", True),
        (f"{UUID}:1-5:7-9", f"{UUID}:5-7", False),
        (f"{UUID}:1-5", f"{OTHER}:1", False),
        (f"{UUID}:1-5, {OTHER.upper()}:1-3", f"{OTHER}:1-3", True),
        (f"{UUID}:orders:1-5", f"{UUID}:1-5", False),  # tagged ones are counted apart
    ],
)
def test_what_covers_what(position: str, other: str, covers: bool) -> None:
    assert Position.parse(position).covers(Position.parse(other)) is covers


@pytest.mark.parametrize("text", ["", "0-1-42", "0-2-7,3-1-9", f"{UUID}:1-5:7-9", f"{UUID}:3,{OTHER}:1-2"])
def test_it_is_spelled_as_it_was_read(text: str) -> None:
    assert str(Position.parse(text)) == text


def test_neighbours_are_joined() -> None:
    assert str(Position.parse(f"{UUID}:1-3:4:6")) == f"{UUID}:1-4:6"


def test_both_together_cover_each() -> None:
    one, two = Position.parse("0-1-42,1-1-7"), Position.parse("0-2-43,2-1-1")
    both = one.with_(two)
    assert str(both) == "0-2-43,1-1-7,2-1-1"
    assert both.covers(one)
    assert both.covers(two)
    assert str(two.with_(one)) == str(both)


@pytest.mark.parametrize(
    "text", ["0-1", "0-1-42; DROP TABLE orders", "'0-1-42'", f"{UUID}", f"{UUID}:", "0-1--42", "x" * (LONGEST + 1)]
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"position"):
        Position.parse(text)


SPANS = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 5)), min_size=1, max_size=5)


@given(SPANS, SPANS)
def test_sets_agree_with_sets(one: list[tuple[int, int]], two: list[tuple[int, int]]) -> None:
    def numbers(spans: list[tuple[int, int]]) -> set[int]:
        return {number for first, more in spans for number in range(first, first + more + 1)}

    def position(spans: list[tuple[int, int]]) -> Position:
        return Position.parse(UUID + "".join(f":{first}-{first + more}" for first, more in spans))

    assert position(one).covers(position(two)) is (numbers(one) >= numbers(two))
    both = position(one).with_(position(two))
    assert both == position([(number, 0) for number in numbers(one) | numbers(two)])
