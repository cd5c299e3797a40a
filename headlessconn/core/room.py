"""`max_in_flight`: who has room for one more request. Exists only when there is such a limit."""

from __future__ import annotations

from collections.abc import Collection

from headlessconn.core.endpoint import Key
from headlessconn.core.member import Member
from headlessconn.core.membership import Membership
from headlessconn.core.pick import ALL_AVOIDED, FULL, NOBODY, Nobody


class Room:
    """The room on the members of one target that serve: a full READY one is waited for, not replaced by one that
    answers badly."""

    __slots__ = ("_limit", "_members")

    def __init__(self, members: Membership, limit: int) -> None:
        self._members = members
        self._limit = limit

    def of(self, member: Member) -> int:
        return max(0, self._limit + member.penalty - member.in_flight)

    def total(self) -> int:
        return sum(map(self.of, self._members.serving()))

    def is_left(self) -> bool:
        return any(map(self.of, self._members.serving()))

    def pick(self, avoid: Collection[Key], now: float) -> Member | Nobody:
        """The policy's choice among those with room. The first draw mostly has some; only then are all looked at."""
        picker = self._members.roster()
        if picker is None:
            return NOBODY
        if not avoid:
            first = picker.pick(now)
            if self.of(first):
                return first
        serving = self._members.serving(avoid)
        if not serving:
            return ALL_AVOIDED
        with_room = [member for member in serving if self.of(member)]
        return self._members.pick_among(with_room, now) if with_room else FULL
