"""Where a new long-lived connection goes, and which one should move, and when.

It knows connections by number; it never holds one. What moves does so without haste: a replacement is opened first
where the holder can do that, moves are spread over `rebalance_over`, idle connections go before busy ones, and a busy
one only when its holder says so by checking it in.
"""

from __future__ import annotations

import random
from bisect import insort
from collections.abc import Collection, Iterable
from math import inf

from headlessconn.core.claim import KEEP, Claim, ConnId, Keep, Reason, Retire
from headlessconn.core.effects import Effect, Warm
from headlessconn.core.endpoint import Key
from headlessconn.core.holdings import Connection, Holdings
from headlessconn.core.member import Member, State
from headlessconn.core.membership import Membership
from headlessconn.core.quota import quotas, roomiest, surplus
from headlessconn.core.standing import Standing
from headlessconn.options import Options

GRACE = 30.0  # seconds a terminating pod serves on: Kubernetes' terminationGracePeriodSeconds unless told otherwise
YOUNG = 1.0  # seconds for which a connection is never moved: a burst of dials first settles by itself
AGE_JITTER = 0.1  # of max_age, so that connections that were opened together do not all go together
EXPECTED = 30.0  # seconds the place of one that was sent away is kept for the dial of its holder
AGAIN = 5.0  # seconds after a replacement that could not be opened until the next is tried: a pod may be full, or slow

_READY = State.READY
_LEFT = frozenset({State.DRAINING, State.GONE})


class Placement:
    """The long-lived connections of one target.

    wishes         effects to carry out, since the last `take`
    expiry_at      when an idle one may be too old, or idle for too long
    next_at        when `wake` wants to be called
    next_move_at   when the next one is planned to move
    """

    __slots__ = (
        "_by_rank",
        "_due",
        "_held",
        "_not_before",
        "_open",
        "_options",
        "_owed",
        "_retry_at",
        "_rng",
        "_set",
        "_standing",
        "expiry_at",
        "wishes",
    )

    def __init__(self, members: Membership, options: Options, rng: random.Random) -> None:
        self._set = members
        self._options = options
        self._rng = rng
        self._held = Holdings()
        self._open = self._held.open
        self._standing = Standing(options)
        self._by_rank = False  # the set has changed since all were where they belong
        self._due: list[float] = []  # when the moves that are planned will be made
        self._not_before = -inf  # a replacement failed: none is planned for a while
        self._owed = 0  # moves whose time has come, but not their connection
        self._retry_at = inf  # when one that is too young to be moved is old enough
        self.expiry_at = inf
        self.wishes: list[Effect] = []

    # ---- dials -------------------------------------------------------------------------------------------------

    def place(self, now: float, avoid: Collection[Key] = ()) -> Claim | None:
        """Where one more should go, counted at once; None when there is nobody whom `avoid` does not name."""
        standing = self._standing
        moved = self._is_expected()
        if not standing.seed:  # drawn and looked at when a connection is placed first: most engines never place one
            standing.seed = self._rng.getrandbits(64).to_bytes(8, "big")
            standing.arrange(self._set.members.values(), now)
        member = roomiest(self._held.shares, standing.order, avoid)
        if member is None and avoid:
            left = [member for member in self._set.members.values() if member.key not in avoid and not member.foreign]
            for state in (State.EJECTED, State.FAILING):  # as for requests: who answers badly before who refuses
                member = roomiest(self._held.shares, [member for member in left if member.state is state])
                if member is not None:
                    break
        if member is None:
            return None
        claim = self._held.dial(member, now)
        claim.moved = moved
        return claim

    def claim(self, member: Member, now: float) -> Claim:
        """A dial to this one."""
        moved = self._is_expected()
        claim = self._held.dial(member, now)
        claim.moved = moved
        return claim

    def _is_expected(self) -> bool:
        """Whether this dial stands in for one that was sent away; it takes the place that was kept, or a better one."""
        if not self._held.expected:
            return False
        self._held.expect_no_more()
        return True

    def opened(self, claim: Claim, pushes: bool, warms: bool, now: float) -> ConnId:
        """The dial succeeded; the connection that it replaces may go."""
        made = self._held.opened(claim, pushes, warms, now)
        # Who has just been moved here is not moved on, unless its pod leaves.
        made.still_until = now + (max(YOUNG, self._options.rebalance_over) if claim.moved else YOUNG)
        if self._options.max_age is not None:
            made.old_at = now + self._options.max_age * (1.0 + AGE_JITTER * (2.0 * self._rng.random() - 1.0))
            if pushes:
                self.expiry_at = min(self.expiry_at, made.old_at)
        left = claim.member.state in _LEFT  # while it was dialled
        old = self._held.replaced(claim)
        if old is not None:
            if left:
                self._held.recount(old)
            else:
                self._retire(old, claim.reason, now)
        if left and pushes:
            self._retire(made, Reason.LEFT, now)
        self._plan(now)
        return made.id

    def failed(self, claim: Claim, now: float) -> None:
        """There is no connection; the one that it was to replace stays for now."""
        self._held.failed(claim)
        old = self._held.replaced(claim)
        if old is not None:
            self._held.recount(old)
            self._not_before = now + AGAIN
            if claim.reason is Reason.OLD:
                old.old_at = now + AGAIN
                self.expiry_at = min(self.expiry_at, old.old_at)
        self._plan(now)

    # ---- while it is open --------------------------------------------------------------------------------------

    def verdict(self, conn: ConnId, now: float) -> Keep | Retire:
        """Whether it may stay. Asked where it may be moved: not in a transaction."""
        found = self._open[conn]
        if found.member.state is _READY and now < found.old_at and found.retire is None and not self._owed:
            return KEEP
        return self._look(found, True, now)

    def checked_out(self, conn: ConnId, now: float) -> Keep | Retire:
        """Somebody takes it, if it may stay. It is not refused him for being surplus: he would have to dial."""
        found = self._open[conn]
        found.idle_since = inf
        if found.member.state is _READY and now < found.old_at and found.retire is None:
            return KEEP
        return self._look(found, False, now)

    def checked_in(self, conn: ConnId, now: float) -> Keep | Retire:
        """It is free again, if it may stay."""
        found = self._open[conn]
        found.idle_since = now
        idle_timeout = self._options.idle_timeout
        expiry_at = found.old_at if idle_timeout is None else min(found.old_at, now + idle_timeout)
        if expiry_at < self.expiry_at:
            self.expiry_at = expiry_at
        if found.member.state is _READY and now < found.old_at and found.retire is None and not self._owed:
            return KEEP
        return self._look(found, True, now)

    def member_of(self, conn: ConnId) -> Member:
        return self._open[conn].member

    def is_in_hand(self, conn: ConnId) -> bool:
        """Whether it is open and in use."""
        return conn in self._open and self._open[conn].idle_since == inf

    def closed(self, conn: ConnId, now: float) -> Member | None:
        """It is gone. None when it was before: whoever sees a connection break says so, and its owner closes it."""
        found = self._held.closed(conn)
        if found is None:
            return None
        self._plan(now)
        return found.member

    # ---- the world ---------------------------------------------------------------------------------------------

    def changed(self, now: float) -> None:
        """The set, or what is thought of its members, has changed."""
        if not self._standing.seed:
            return
        self._arrange(now)
        for member in [member for member in self._held.shares if member.state in _LEFT]:
            for found in self._held.shares[member].open.values():
                if found.retire is None and not found.is_in_hand:
                    self._retire(found, Reason.LEFT, now)
        self._plan(now)
        if self._owed:
            self._retry_at = now  # others may hold too much now, and idle ones among theirs

    def wake(self, now: float) -> None:
        """Timers only."""
        if now < self.next_at:
            return
        if now >= self._standing.next_at:
            self._arrange(now)
        if now >= self.expiry_at:
            self._expire(now)
        while now >= self._expected_until:
            self._held.expect_no_more()
        self._plan(now)
        while self._due and self._due[0] <= now:
            del self._due[0]
            self._owed += 1
        self._retry_at = inf
        while self._owed and (ripe := self._ripest((member for member, _ in self._over()), now)) is not None:
            self._owed -= 1
            self._move(ripe, now)
        self._plan(now)

    def try_out(self, member: Member, now: float) -> bool:
        """An ejected member may be tried: move one connection there, if it would have one as its share. Without this a
        process that opens no connections any more would never find out that the member is well again.

        Whether one is being dialled. Where its holder cannot do that, one is sent away, and the next dial is the trial.
        """
        order = sorted([*self._standing.places, member], key=self._standing.rank)
        places = {one: place for place, one in enumerate(order)}
        each, more = quotas(sum(self._held.live(one) for one in order), len(order))
        if self._held.live(member) >= each + (places[member] < more):
            return False
        giver = self._ripest((one for one, _ in surplus(self._held.shares, places, by_rank=True)), now)
        if giver is None:
            return False
        self._send_away(giver, Reason.SURPLUS, member, now)
        if giver.moving is None:
            return False
        giver.moving.trial = True
        return True

    def take(self) -> tuple[Effect, ...]:
        wishes, self.wishes = tuple(self.wishes), []
        return wishes

    @property
    def in_use(self) -> bool:
        return bool(self._held.shares)

    @property
    def next_at(self) -> float:
        if not self._held.shares:
            return inf
        return min(self.next_move_at, self._standing.next_at, self._retry_at, self.expiry_at, self._expected_until)

    @property
    def next_move_at(self) -> float:
        return self._due[0] if self._due else inf

    @property
    def _expected_until(self) -> float:
        return self._held.expected[0][0] if self._held.expected else inf

    @property
    def surplus(self) -> int:
        """How many connections are to move: on members that hold more than their share."""
        return sum(count for _, count in self._over())

    @property
    def moving(self) -> int:
        """How many replacements are being dialled."""
        return sum(found.moving is not None for found in self._open.values())

    # ---- what goes ---------------------------------------------------------------------------------------------

    def _look(self, found: Connection, movable: bool, now: float) -> Keep | Retire:
        """The verdict on one whose holder asks, so that no effect need tell him."""
        if found.retire is not None:
            pass
        elif found.member.state in _LEFT:
            self._retire(found, Reason.LEFT, now, tell=False)
        elif found.member.state is not _READY and self._standing.ready:
            self._retire(found, Reason.SUSPECT, now, tell=False)
        elif found.moving is not None:
            pass
        elif now >= found.old_at:
            self._renew(found, now, tell=False)
        elif movable and self._owed and now >= found.still_until:
            if any(member is found.member for member, _ in self._over()):
                self._owed -= 1
                self._move(found, now, tell=False)
        return found.retire or KEEP

    def _ripest(self, members: Iterable[Member], now: float) -> Connection | None:
        """The one to move that no caller has in hand."""
        best: Connection | None = None
        for member in members:
            for found in self._held.shares[member].open.values():
                if not found.counted or found.is_in_hand:
                    continue
                if now < found.still_until:
                    self._retry_at = min(self._retry_at, found.still_until)
                elif best is None or found.seniority < best.seniority:
                    best = found
        return best

    def _move(self, found: Connection, now: float, *, tell: bool = True) -> None:
        """To the member that lacks most."""
        self._held.discount(found)
        better = roomiest(self._held.shares, list(self._standing.places))
        if better is None or better is found.member:
            self._held.recount(found)
        else:
            self._send_away(found, Reason.SURPLUS, better, now, tell=tell)

    def _renew(self, found: Connection, now: float, *, tell: bool = True) -> None:
        """It is too old; another takes its place, on whatever member."""
        self._held.discount(found)
        self._send_away(found, Reason.OLD, roomiest(self._held.shares, self._standing.order), now, tell=tell)

    def _send_away(
        self, found: Connection, reason: Reason, to: Member | None, now: float, *, tell: bool = True
    ) -> None:
        """Have its replacement opened, if its holder can do that; else it goes, and the next dial is for it."""
        self._held.discount(found)
        if found.warms and to is not None:
            claim = found.moving = self._held.dial(to, now)
            claim.replaces, claim.reason, claim.moved = found.id, reason, True
            self.wishes.append(Warm(claim, found.id))
        else:
            if to is not None:
                self._held.expect(to, now + EXPECTED)
            self._retire(found, reason, now, tell=tell)

    def _retire(self, found: Connection, reason: Reason, now: float, *, tell: bool = True) -> None:
        """It should go. `tell`: by an effect, unless a caller has it in hand, who will ask."""
        self._held.discount(found)
        by = now
        if reason is Reason.LEFT:
            by = max(now, found.member.moved_at + GRACE)
        elif reason is Reason.SURPLUS or reason is Reason.OLD:
            by = now + self._options.rebalance_over
        found.retire = Retire(found.id, reason, by)
        if tell and not found.is_in_hand:
            self.wishes.append(found.retire)

    def _expire(self, now: float) -> None:
        """Those that no caller has in hand and that are too old, or idle for too long."""
        idle_timeout = inf if self._options.idle_timeout is None else self._options.idle_timeout
        self.expiry_at = inf
        for found in self._open.values():
            if found.retire is not None or found.moving is not None or found.is_in_hand:
                continue
            if now >= found.old_at:
                self._renew(found, now)
            elif now >= found.idle_since + idle_timeout:
                self._retire(found, Reason.IDLE, now)
            else:
                self.expiry_at = min(self.expiry_at, found.old_at, found.idle_since + idle_timeout)

    # ---- when they go ------------------------------------------------------------------------------------------

    def _arrange(self, now: float) -> None:
        if self._standing.arrange(self._set.members.values(), now):
            self._by_rank = True

    def _over(self) -> list[tuple[Member, int]]:
        return surplus(self._held.shares, self._standing.places, self._by_rank)

    def _plan(self, now: float) -> None:
        """As many moves as there are surplus connections, each at a time of its own: a thousand processes that learn
        of a new pod together must not all dial it together. Those of one process come at even distances, give or take
        one, so that the first need not be waited for."""
        wanted = self.surplus
        if not wanted:
            self._by_rank = False
            self._due.clear()
            self._owed = 0
            return
        planned = len(self._due) + self._owed
        since = max(now, self._not_before)
        each = self._options.rebalance_over / max(1, wanted - planned)
        for turn in range(wanted - planned):
            insort(self._due, since + each * (turn + self._rng.random()))
        for _ in range(wanted, planned):
            if self._due:
                self._due.pop()
            else:
                self._owed -= 1
