"""The connections that are open or being dialled, by the member that they go to. Counting, no deciding."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import NoReturn

from headlessconn.core.claim import Claim, ConnId, Retire
from headlessconn.core.member import Member
from headlessconn.errors import PickEnded


class Connection:
    """One that is open. `counted`: it is part of its member's share, until it is about to go."""

    __slots__ = (
        "counted",
        "id",
        "idle_since",
        "member",
        "moving",
        "old_at",
        "opened_at",
        "pushes",
        "retire",
        "still_until",
        "warms",
    )

    def __init__(self, number: ConnId, member: Member, pushes: bool, warms: bool, now: float) -> None:
        self.id = number
        self.member = member
        self.pushes = pushes
        self.warms = warms
        self.opened_at = now
        self.idle_since = inf  # whoever opened it uses it
        self.still_until = now  # when it may be moved at the earliest
        self.old_at = inf
        self.moving: Claim | None = None  # its replacement, while that is dialled
        self.retire: Retire | None = None
        self.counted = True

    @property
    def is_in_hand(self) -> bool:
        """Whether some caller has it, who will check it in."""
        return self.idle_since == inf and not self.pushes

    @property
    def seniority(self) -> tuple[bool, float, ConnId]:
        """The smallest goes first: an idle one before one whose holder never checks in, and the oldest."""
        return self.pushes, self.opened_at, self.id


class Share:
    """What one member holds. `dials`: under way or expected; `live`: counted connections and dials."""

    __slots__ = ("dials", "live", "open")

    def __init__(self) -> None:
        self.open: dict[ConnId, Connection] = {}  # in the order of opening
        self.dials = 0
        self.live = 0


class _Open(dict[ConnId, Connection]):
    def __missing__(self, conn: ConnId) -> NoReturn:
        raise PickEnded(f"connection {conn} was closed before, or never opened")


class Holdings:
    """Every one, by its number and by its member. What is said of a closed one raises `PickEnded`."""

    __slots__ = ("_last", "expected", "open", "shares")

    def __init__(self) -> None:
        self.open: dict[ConnId, Connection] = _Open()
        self.shares: dict[Member, Share] = {}  # of those that hold something
        self.expected: deque[tuple[float, Member]] = deque()  # until when a dial to whom is expected
        self._last = 0

    def dial(self, member: Member, now: float) -> Claim:
        self._count(member)
        member.connections += 1
        return Claim(member, now)

    def expect(self, member: Member, until: float) -> None:
        """One was sent away so that another be opened there: its place is kept, or what is left would not add up."""
        self._count(member)
        self.expected.append((until, member))

    def expect_no_more(self) -> None:
        """The dial that was expected first has come, or it will not."""
        _, member = self.expected.popleft()
        share = self.shares[member]
        share.dials -= 1
        share.live -= 1
        self._drop_if_empty(member, share)

    def opened(self, claim: Claim, pushes: bool, warms: bool, now: float) -> Connection:
        share = self._end(claim)
        self._last += 1
        made = Connection(self._last, claim.member, pushes, warms, now)
        share.open[made.id] = self.open[made.id] = made
        return made

    def failed(self, claim: Claim) -> None:
        share = self._end(claim)
        share.live -= 1
        claim.member.connections -= 1
        self._drop_if_empty(claim.member, share)

    def closed(self, conn: ConnId) -> Connection | None:
        """None when it was closed before."""
        found = self.open.pop(conn, None)
        if found is not None:
            share = self.shares[found.member]
            del share.open[conn]
            self.discount(found)
            found.member.connections -= 1
            self._drop_if_empty(found.member, share)
            if found.moving is not None:
                found.moving.replaces = None  # what is dialled for it just adds now
        return found

    def replaced(self, claim: Claim) -> Connection | None:
        """The connection that waits for this dial, which has ended; None when it has gone by itself, or is told to."""
        old = None if claim.replaces is None else self.open.get(claim.replaces)
        if old is None or old.moving is not claim:
            return None
        old.moving = None
        return old if old.retire is None else None

    def discount(self, found: Connection) -> None:
        """It is about to go: what stands in for it counts instead."""
        if found.counted:
            found.counted = False
            self.shares[found.member].live -= 1

    def recount(self, found: Connection) -> None:
        """It stays after all."""
        if not found.counted:
            found.counted = True
            self.shares[found.member].live += 1

    def live(self, member: Member) -> int:
        share = self.shares.get(member)
        return 0 if share is None else share.live

    def _count(self, member: Member) -> None:
        share = self.shares.get(member)
        if share is None:
            share = self.shares[member] = Share()
        share.dials += 1
        share.live += 1

    def _end(self, claim: Claim) -> Share:
        if claim.ended:
            raise PickEnded(f"the claim on {claim.endpoint} was ended twice")
        claim.ended = True
        share = self.shares[claim.member]
        share.dials -= 1
        return share

    def _drop_if_empty(self, member: Member, share: Share) -> None:
        if not share.open and not share.dials:
            del self.shares[member]
