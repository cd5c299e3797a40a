"""How far a MySQL or MariaDB server has come: positions in the stream of transactions, compared without asking it.

MariaDB numbers transactions by domain, `0-1-42,1-2-7`; MySQL keeps sets of them by server, `3E11FA47-…:1-5:7`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

_MARIADB = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})")
_MYSQL = re.compile(
    r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?::[a-z_][a-z0-9_]{0,31})?)((?::\d{1,20}(?:-\d{1,20})?)+)"
)
LONGEST = 8192  # characters: one may come from a cookie

Spans: TypeAlias = tuple[tuple[int, int], ...]
"""Transactions from and to, both included; in order, without touching one another."""


@dataclass(frozen=True, slots=True)
class Position:
    """Immutable; `str` spells it as the server does. The empty one is the beginning.

    >>> Position.parse("0-1-42").covers(Position.parse("0-2-41"))
    True
    """

    _spans: Mapping[str, Spans] = field(default_factory=dict)
    _makers: Mapping[str, str] = field(default_factory=dict, compare=False)  # MariaDB: who wrote a domain's last one

    @classmethod
    def parse(cls, text: str) -> Position:
        """Raises `ValueError` for what is no position."""
        if len(text) > LONGEST:
            raise ValueError(f"a position of {len(text)} characters is too long")
        spans: dict[str, Spans] = {}
        makers: dict[str, str] = {}
        for part in filter(None, re.split(r"[\s,]+", text.strip().lower())):
            if found := _MARIADB.fullmatch(part):
                domain, maker, number = found.groups()
                spans[domain] = _joined(spans.get(domain, ()), ((1, int(number)),))
                makers[domain] = maker
            elif found := _MYSQL.fullmatch(part):
                server, several = found.groups()
                spans[server] = _joined(spans.get(server, ()), tuple(map(_span, several[1:].split(":"))))
            else:
                raise ValueError(f"{part[:80]!r} is not a position: neither 0-1-42 nor <server's uuid>:1-42")
        return cls(spans, makers)

    def covers(self, other: Position) -> bool:
        """Whether all of the other's transactions are among these."""
        return all(
            any(low <= first and last <= high for low, high in self._spans.get(name, ()))
            for name, spans in other._spans.items()
            for first, last in spans
        )

    def with_(self, other: Position) -> Position:
        """Those of both."""
        spans, makers = dict(self._spans), dict(self._makers)
        for name, added in other._spans.items():
            before = spans.get(name, ())
            spans[name] = _joined(before, added)
            if name in other._makers and added[-1][1] >= (before[-1][1] if before else 0):
                makers[name] = other._makers[name]
        return Position(spans, makers)

    def __bool__(self) -> bool:
        return bool(self._spans)

    def __str__(self) -> str:
        return ",".join(
            f"{name}-{self._makers[name]}-{spans[-1][1]}" if name in self._makers else _spelled(name, spans)
            for name, spans in sorted(self._spans.items())
        )


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def _joined(one: Spans, other: Spans) -> Spans:
    found: list[tuple[int, int]] = []
    for first, last in sorted(one + other):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return tuple(found)


def _spelled(name: str, spans: Spans) -> str:
    return name + "".join(f":{first}" if first == last else f":{first}-{last}" for first, last in spans)
