"""A long-lived connection as the engine sees it: a claim while it is dialled, an id while it is open, and what is said
of it when its holder asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.member import Member

ConnId: TypeAlias = int
"""Names an open connection. Never used twice by one engine, so a late word about a closed one harms nobody."""


class Reason(Enum):
    """Why a connection should go."""

    LEFT = "its pod left the set"
    SUSPECT = "its pod is in doubt, and a better one is there"
    SURPLUS = "its pod holds more than its share"
    OLD = "older than max_age"
    IDLE = "unused for idle_timeout"

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Keep:
    """The connection may stay."""


KEEP = Keep()
"""The only one: `verdict is KEEP`."""


@dataclass(frozen=True, slots=True)
class Retire:
    """The connection should go, without haste: when its work is done, and best before `by` (the engine's time).

    An answer to whoever checks in or out, and an effect for connections that nobody is about to check in: those that
    idle in a pool, and those of holders that never check in. It stays said: who asks again hears it again.
    """

    conn: ConnId
    reason: Reason
    by: float


def reason_of(verdict: Keep | Retire) -> str:
    """Why it should go, for people; "" when it may stay."""
    return verdict.reason.value if isinstance(verdict, Retire) else ""


class Claim:
    """A dial under way. It is counted from the moment it is given, so that twenty dials at once spread.

    replaces   the connection that goes when this one is open, None for one that only adds
    trial      whether it tries a member that was ejected

    It ends exactly once, by `Engine.opened` or `Engine.failed`.
    """

    __slots__ = ("ended", "member", "moved", "reason", "replaces", "started_at", "trial")

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.started_at = now
        self.replaces: ConnId | None = None
        self.reason = Reason.SURPLUS  # why `replaces` goes
        self.trial = False
        self.moved = False  # it stands where it does because another one was moved: not to be moved again soon
        self.ended = False

    @property
    def key(self) -> Key:
        return self.member.key

    @property
    def endpoint(self) -> Endpoint:
        return self.member.endpoint

    def __repr__(self) -> str:
        instead = "" if self.replaces is None else f" in place of {self.replaces}"
        return f"<Claim on {self.endpoint}{instead}>"
