"""The settings of one pool, with their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headlessconn.core.probing import SILENT_AFTER
from headlessconn.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRules:
    """How one pool grows, shrinks, checks and gives up. Spans are seconds; None is never.

    Raises `OptionError` for a value that is out of range or contradicts another.
    """

    min_size: int = 0
    """Kept open even when nobody needs them."""

    max_size: int = 10
    """Open at most, those that are handed out or being dialled included. While a connection moves to another pod its
    replacement is opened first, so that there may be one more for that moment."""

    timeout: float | None = 30.0
    """How long a caller waits for a connection before `PoolTimeout` (HikariCP and psycopg_pool: 30 s)."""

    idle_timeout: float | None = 600.0
    """A connection unused for this long is closed, down to `min_size` (HikariCP and psycopg_pool: 10 min)."""

    max_age: float | None = None
    """A connection older than this is replaced, at its check-in or while idle; ±10 % each, so that connections which
    were opened together do not end together. HikariCP has 30 min, psycopg_pool 60 min, both to follow changes behind a
    name; here those are followed anyway, so it is only needed for what cannot be seen: a ClusterIP, a server that
    grows."""

    open_timeout: float = 10.0
    """TCP, TLS and login together (MySQL's `connect_timeout` on the server: 10 s)."""

    check_after: float = 5.0
    """A connection unused for this long is checked before it is handed out. HikariCP checks after 0.5 s: one round
    trip more for most callers of a quiet service."""

    check_timeout: float = 2.0
    """A check is one round trip. One that takes longer is a dead pod, and its caller is still waiting."""

    reset_timeout: float = 5.0
    """A rollback of much work takes its time; beyond, the connection is closed instead."""

    close_timeout: float = 5.0
    """A goodbye. asyncio waits 30 s for the TLS one of a pod that vanished; beyond this it is given up, and counted."""

    silent_after: float = SILENT_AFTER
    """Connections to one pod that are handed out for this long, and for three times as long as usual, while those to
    other pods come back, let the pool ask the pod for a TCP connection. Pods that do not give one are let go."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> PoolRules:
        """Raises `OptionError` for a name it does not know, too."""
        if unknown := sorted(set(settings) - set(cls.__dataclass_fields__)):
            raise OptionError(unknown[0], "a pool has no such setting", f"one of {', '.join(cls.__dataclass_fields__)}")
        return cls(**settings)

    def __post_init__(self) -> None:
        for name, low, high, may_be_none in _RANGES:
            value = getattr(self, name)
            if value is None and may_be_none:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                none = " or None" if may_be_none else ""
                raise OptionError(
                    name, f"{value!r} is not between {low:,} and {high:,}{none}", f"{name}={_default(name)}"
                )
        for name in ("min_size", "max_size"):
            if not isinstance(getattr(self, name), int):
                raise OptionError(name, f"{getattr(self, name)!r} is not a whole number", f"{name}={_default(name)}")
        if self.min_size > self.max_size:
            raise OptionError(
                "min_size", f"{self.min_size} is more than max_size={self.max_size}", "min_size=2, max_size=10"
            )


_RANGES: tuple[tuple[str, float, float, bool], ...] = (
    ("min_size", 0, 100_000, False),
    ("max_size", 1, 100_000, False),
    ("timeout", 0, 86400, True),
    ("idle_timeout", 0.05, 86400 * 30, True),
    ("max_age", 0.05, 86400 * 365, True),
    ("open_timeout", 0.01, 3600, False),
    ("check_after", 0, 86400, False),
    ("check_timeout", 0.01, 3600, False),
    ("reset_timeout", 0.01, 3600, False),
    ("close_timeout", 0.01, 3600, False),
    ("silent_after", 0.05, 86400, False),
)


def _default(name: str) -> object:
    return {"min_size": 2, "max_age": 1800.0}.get(name, PoolRules.__dataclass_fields__[name].default)
