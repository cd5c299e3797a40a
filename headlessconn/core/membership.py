"""Who is in the set: whole answers replace it, "nobody" is held for a while, and every move is written down."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from math import inf

from headlessconn.core.effects import Change
from headlessconn.core.endpoint import Facts, Key, diff
from headlessconn.core.latency import Latencies
from headlessconn.core.member import Member, State
from headlessconn.core.pickers import Newcomers, Picker, build
from headlessconn.options import Options

_READY, _EJECTED, _FAILING, _DRAINING = State.READY, State.EJECTED, State.FAILING, State.DRAINING


class Membership:
    """The members of one target.

    members     all that are known, those that drain included
    listed      the keys that are in the set
    picker      over the members that serve; None when it must be built first (`roster`)
    hold_until  when the set that "nobody" left behind ends; `inf` when it is not held
    """

    __slots__ = (
        "_added",
        "_latencies",
        "_moves",
        "_options",
        "_random",
        "_removed",
        "ejected",
        "forgotten",
        "hold_until",
        "listed",
        "members",
        "picker",
        "ready",
    )

    def __init__(self, options: Options, rng: random.Random, latencies: Latencies) -> None:
        self._options = options
        self._random = rng
        self._latencies = latencies
        self.members: dict[Key, Member] = {}
        self.listed: frozenset[Key] = frozenset()
        self.picker: Picker | None = None
        self.ready = 0
        self.ejected = 0
        self.hold_until = inf
        self.forgotten: list[Key] = []  # left the set since the last look: idle connections to them may close
        self._added: list[Member] = []
        self._removed: list[Member] = []
        self._moves: list[tuple[Member, State | None, State, str]] = []

    def replace(self, keys: frozenset[Key], about: Mapping[Key, Facts], now: float) -> bool:
        """The set is this now. Unchanged members keep their history; False when nothing changed."""
        self.hold_until = inf
        if keys == self.listed:
            return False
        changes = diff(self.listed, keys)
        self.listed = keys
        members = self.members
        # Sorted, and all walks below are over `members` (a dict, in the order of joining): a set of bytes has another
        # order in each process, and a seed must replay in every one.
        for key in sorted(changes.added):
            member = members.get(key)
            if member is not None:
                self.move(member, "return", "listed again", now)
            else:
                member = members[key] = Member(key, about.get(key) if about else None, now)
                self._moves.append((member, None, _READY, "listed"))
            self._added.append(member)
        self._leave(sorted(changes.removed), "leave", "no longer listed", now)
        self.picker = None
        return True

    def nobody(self, now: float) -> None:
        """DNS lists nobody: hold those that still work; of those that refuse, DNS and pod say the same."""
        if self.listed and self.hold_until == inf:
            self.hold_until = now + self._options.hold_nx
            failing = [member.key for member in self.in_state(_FAILING)]
            self.unlist(failing, "leave", "not listed, and refuses", now)
        self.release_held(now)

    def release_held(self, now: float) -> None:
        """The time of a held set may be over."""
        if now >= self.hold_until:
            self.unlist(sorted(self.listed), "leave", "DNS lists nobody", now)
            self.hold_until = inf

    def unlist(self, keys: Collection[Key], cause: str, why: str, now: float) -> None:
        if keys:
            self.listed = self.listed.difference(keys)
            self._leave(keys, cause, why, now)
            if not self.listed:
                self.hold_until = inf

    def expire_failing(self, limit: float, now: float) -> None:
        """DNS has been silent for long: members that have failed for as long are gone, the last one excepted."""
        for member in list(self.in_state(_FAILING)):
            if len(self.listed) > 1 and now - member.moved_at >= limit:
                self.unlist((member.key,), "expire", "failing for as long as DNS is silent", now)

    def move(self, member: Member, cause: str, why: str, now: float) -> None:
        """Make a legal move of the table, and write it down."""
        before = member.move(cause, why, now)
        self._moves.append((member, before, member.state, why))
        if before is _FAILING or before is _EJECTED:
            member.retry_at = inf
            member.trial = member.suspected = False
        if member.state is State.GONE:
            del self.members[member.key]
        self.picker = None

    def close_if_drained(self, member: Member, now: float) -> None:
        if member.state is State.DRAINING and not member.is_open:
            self.move(member, "drained", "nothing left open", now)

    def roster(self) -> Picker | None:
        """The picker, built when the set changed: READY members; if there is none, those that answer badly; if there
        is none either, those that refuse. None when the set is empty.

        The tiers replace a panic threshold: with two of three pods dead, a rule of 50 % would send two thirds of all
        requests to corpses.
        """
        if self.picker is None:
            tiers: dict[State, list[Member]] = {_READY: [], _EJECTED: [], _FAILING: [], _DRAINING: []}
            for member in self.members.values():
                if not member.foreign:  # such a one is nobody's last resort either
                    tiers[member.state].append(member)
            self.ready, self.ejected = len(tiers[_READY]), len(tiers[_EJECTED])
            serving = tiers[_READY] or tiers[_EJECTED] or tiers[_FAILING]
            if serving:
                self.picker = self._build(serving)
                if serving is tiers[_READY] and 0 < sum(map(_is_new, serving)) < len(serving):
                    self.picker = Newcomers(serving, self.picker, self)
        return self.picker

    def pick_avoiding(self, avoid: Collection[Key], now: float) -> Member | None:
        """The same choice among those that `avoid` does not name, tier by tier."""
        serving = self.serving(avoid)
        return self.pick_among(serving, now) if serving else None

    def serving(self, avoid: Collection[Key] = ()) -> list[Member]:
        """The members of the best tier that has any which `avoid` does not name."""
        left = [member for member in self.members.values() if member.key not in avoid and not member.foreign]
        for state in (_READY, _EJECTED, _FAILING):
            serving = [member for member in left if member.state is state]
            if serving:
                return serving
        return []

    def pick_among(self, members: list[Member], now: float) -> Member:
        """The policy's choice among these."""
        return self._build(members).pick(now)

    def counts(self) -> tuple[int, int]:
        """How many are READY and how many EJECTED, counted afresh whenever anything moved."""
        self.roster()
        return self.ready, self.ejected

    def in_state(self, state: State) -> Iterable[Member]:
        return (member for member in self.members.values() if member.state is state)

    def changes(self, now: float) -> Change | None:
        """What has moved since the last look."""
        if not self._moves:
            return None
        change = Change(now, self._added, self._removed, self._moves, len(self.listed))
        self._added, self._removed, self._moves = [], [], []
        return change

    def _leave(self, keys: Collection[Key], cause: str, why: str, now: float) -> None:
        for key in keys:
            member = self.members[key]
            self._removed.append(member)
            self.move(member, cause, why, now)
            self.forgotten.append(key)
            self.close_if_drained(member, now)

    def _build(self, members: list[Member]) -> Picker:
        return build(self._options.policy, members, self._random, self._latencies)


def _is_new(member: Member) -> bool:
    return not member.picked
