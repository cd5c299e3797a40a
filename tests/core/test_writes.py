"""Tokens: what travels from a write to the reads after it."""

import pytest

from headlessconn.core.gtid import Position
from headlessconn.core.writes import Token
from headlessconn.errors import OptionError


@pytest.mark.parametrize("text", ["", "seen=0-1-42", "until=1732435200.500", "seen=0-1-42,1-1-3;until=1732435200.500"])
def test_it_is_read_as_it_was_spelled(text: str) -> None:
    assert str(Token.parse(text)) == text


@pytest.mark.parametrize("text", ["0-1-42", "seen=now", "until=tomorrow", "until=nan", "seen=0-1-42' OR 1", "a=b"])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="it is no token"):
        Token.parse(text)


def test_both_together() -> None:
    both = Token(Position.parse("0-1-42"), 5.0).with_(Token(Position.parse("0-1-41,1-1-1"), 7.0))
    assert both == Token(Position.parse("0-1-42,1-1-1"), 7.0)


def test_it_sticks_for_a_while_and_no_stranger_makes_it_longer() -> None:
    assert Token(until=12.0).sticks(10.0, longest=2.0)
    assert not Token(until=12.0).sticks(12.0, longest=2.0)
    assert not Token(until=1e12).sticks(10.0, longest=2.0)
    assert not Token().sticks(10.0, longest=2.0)
