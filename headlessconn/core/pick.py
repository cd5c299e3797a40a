"""A member taken for one request or one dial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.lane import Lane
from headlessconn.core.member import Member, State

_DRAINING, _GONE = State.DRAINING, State.GONE

ANSWERED = 1  # the answer's head came
CONNECTED = 2
STREAMS = 4  # it is a long-lived connection now
TRIAL = 8  # of an ejected member
ENDED = 16
HURRIED = 32  # its holder was told that the pod is silent
BAD = 64  # its answer was counted as a bad one
LIMITED = 128  # its end makes room for a caller that waits


class Pick:
    """It ends exactly once, by `Engine.ended`. `flags` are the bits above: one slot is cheaper to fill than five.

    lane     the kind of request, when its holder names one; without it the pod's silence says nothing
    holder   whoever is to be told of `Hurry`: anything with a method `hurry()`
    """

    __slots__ = ("flags", "holder", "lane", "member", "started_at")

    def __init__(self, member: Member, now: float) -> None:
        self.member = member
        self.started_at = now
        self.flags = 0
        self.lane: Lane | None = None
        self.holder: Any = None

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
        return state is not _DRAINING and state is not _GONE and not self.member.foreign


@dataclass(frozen=True, slots=True)
class Nobody:
    """No member to give. `all_avoided`: there are some, but the caller has tried them. `full`: there are some, but each
    has `max_in_flight` requests, or others wait for room already."""

    all_avoided: bool = False
    full: bool = False


NOBODY = Nobody()
ALL_AVOIDED = Nobody(all_avoided=True)
FULL = Nobody(full=True)
