"""A member taken for one request or one dial."""

from __future__ import annotations

from dataclasses import dataclass

from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.member import Member, State

_DRAINING, _GONE = State.DRAINING, State.GONE

ANSWERED = 1  # the answer's head came
CONNECTED = 2
STREAMS = 4  # it is a long-lived connection now
TRIAL = 8  # of an ejected member
ENDED = 16


class Pick:
    """It ends exactly once, by `Engine.ended`. `flags` are the bits above: one slot is cheaper to fill than five."""

    __slots__ = ("flags", "member", "started_at")

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.started_at = now
        self.flags = 0

    @property
    def key(self) -> Key:
        return self.member.key

    @property
    def endpoint(self) -> Endpoint:
        return self.member.endpoint

    @property
    def is_listed(self) -> bool:
        """Whether its endpoint is still in the set, so that its connection is worth keeping."""
        state = self.member.state
        return state is not _DRAINING and state is not _GONE


@dataclass(frozen=True, slots=True)
class Nobody:
    """No member to give. `all_avoided`: there are some, but the caller has tried them."""

    all_avoided: bool = False


NOBODY = Nobody()
ALL_AVOIDED = Nobody(all_avoided=True)
