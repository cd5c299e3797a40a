"""What a reader must have seen of what was written before: a token that travels from a write to the reads after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from headlessconn.core.gtid import Position
from headlessconn.errors import OptionError

AfterWrite: TypeAlias = Literal["gtid", "sticky"]


@dataclass(frozen=True, slots=True)
class Token:
    """`str` makes it fit for a cookie or a header, `Token.parse` reads it again, in whatever process.

    position   a replica must have applied this
    until      no replica will do before this time (of the wall clock, which processes share)
    """

    position: Position = field(default_factory=Position)
    until: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises `OptionError`, a `ValueError`, for what is no token: it may come from anybody."""
        position, until = Position(), 0.0
        try:
            for part in filter(None, text.split(";")):
                kind, _, value = part.partition("=")
                if kind == "seen":
                    position = Position.parse(value)
                elif kind == "until":
                    until = float(value)
                else:
                    raise ValueError(f"{kind[:20]!r} is unknown")
        except ValueError as error:
            raise OptionError("after", f"it is no token: {error}", 'db.replica(after="seen=0-1-42")') from error
        if until != until:
            raise OptionError("after", "it is no token: until=nan", 'db.replica(after="seen=0-1-42")')
        return cls(position, until)

    def with_(self, other: Token) -> Token:
        """What satisfies both."""
        return Token(self.position.with_(other.position), max(self.until, other.until))

    def sticks(self, wall: float, longest: float) -> bool:
        """Whether only the primary will do at this time. No more than `longest` seconds: a token may come from anybody,
        and clocks differ."""
        return wall < self.until <= wall + 2.0 * longest

    def __str__(self) -> str:
        seen = [f"seen={self.position}"] if self.position else []
        return ";".join(seen + ([f"until={self.until:.3f}"] if self.until else []))
