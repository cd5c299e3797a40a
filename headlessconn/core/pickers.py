"""Which member gets the next request: two random different ones, and the less loaded of them.

Power of two choices (Mitzenmacher, Upfal): with n requests on n pods the busiest holds ln ln n / ln 2 + O(1), where
plain random gives ln n / ln ln n. The two must be different members, as in Finagle, tower and linkerd (grpc-go draws
with replacement). A picker is built for one membership and replaced with it, never changed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from headlessconn.core.latency import CLEARLY, Latencies
from headlessconn.core.member import Member
from headlessconn.options import Policy


class Picker(Protocol):
    """Picks one of the members it was built for. `now` is told; nothing is awaited, nothing is locked."""

    def pick(self, now: float) -> Member: ...


class LeastRequest:
    """The one with fewer requests in flight; ties go to the one picked less recently.

    That tie rule matters when little is in flight: at 20 requests/s it lifts a new pod's worst share from 0.60 to 0.87
    of fair (simulated), where "the first drawn" is plain random.
    """

    __slots__ = ("_members", "_others", "_pairs", "_random")

    def __init__(self, members: Sequence[Member], rng: random.Random) -> None:
        self._members = members
        self._others = len(members) - 1
        self._pairs = len(members) * self._others
        self._random = rng.random

    def pick(self, now: float) -> Member:
        others = self._others
        if not others:
            return self._members[0]
        draw = int(self._random() * self._pairs)  # one draw for an ordered pair of different members
        first = draw // others
        second = draw % others
        if second >= first:  # step over the hole `first` left, so every pair is as likely
            second += 1
        a, b = self._members[first], self._members[second]
        if a.in_flight != b.in_flight:
            return a if a.in_flight < b.in_flight else b
        return a if a.picked < b.picked else b


class PeakEwma:
    """The one with clearly less peak EWMA latency × (in flight + 1), Finagle's and linkerd's load; else as
    `LeastRequest`.

    Without "clearly" the faster of two idle members wins every time, however small the difference: of three pods with
    1.0, 1.1 and 1.2 ms a quiet client would send 2/3, 1/3 and none. `Latencies` keeps the means so that comparing two
    needs no exponential.
    """

    __slots__ = ("_latencies", "_members", "_others", "_pairs", "_random")

    def __init__(self, members: Sequence[Member], rng: random.Random, latencies: Latencies) -> None:
        self._members = members
        self._others = len(members) - 1
        self._pairs = len(members) * self._others
        self._random = rng.random
        self._latencies = latencies

    def pick(self, now: float) -> Member:
        others = self._others
        if not others:
            return self._members[0]
        draw = int(self._random() * self._pairs)
        first = draw // others
        second = draw % others
        if second >= first:
            second += 1
        a, b = self._members[first], self._members[second]
        load_a = (a.grown or self._latencies.unmeasured(now)) * (a.in_flight + 1)
        load_b = (b.grown or self._latencies.unmeasured(now)) * (b.in_flight + 1)
        if load_a * CLEARLY < load_b:
            return a
        if load_b * CLEARLY < load_a:
            return b
        if a.in_flight != b.in_flight:
            return a if a.in_flight < b.in_flight else b
        return a if a.picked < b.picked else b


class RoundRobin:
    """One after the other, from a random start so that a fleet started together does not march in step."""

    __slots__ = ("_members", "_next")

    def __init__(self, members: Sequence[Member], rng: random.Random) -> None:
        self._members = members
        self._next = int(rng.random() * len(members))

    def pick(self, now: float) -> Member:
        member = self._members[self._next]
        self._next += 1
        if self._next == len(self._members):
            self._next = 0
        return member


class Replaceable(Protocol):
    """Where a picker is kept."""

    picker: Picker | None


class Newcomers:
    """Members that were never picked come first, at every second pick and each once; then all is as the policy has it.

    Two of four that are drawn miss a new one in half of the draws: a client of five requests a second would find out
    late, and now and then after more than a second, that there is a pod which has nothing to do.
    """

    __slots__ = ("_left", "_owner", "_policy", "_turn")

    def __init__(self, members: Sequence[Member], policy: Picker, owner: Replaceable) -> None:
        self._left = [member for member in members if not member.picked]
        self._policy = policy
        self._owner = owner
        self._turn = True

    def pick(self, now: float) -> Member:
        self._turn, turn = not self._turn, self._turn
        while turn and self._left:
            member = self._left.pop()
            if not member.picked:
                return member
        if not self._left and self._owner.picker is self:
            self._owner.picker = self._policy
        return self._policy.pick(now)


def build(policy: Policy, members: Sequence[Member], rng: random.Random, latencies: Latencies) -> Picker:
    """The picker of a policy for one membership, which must not be empty."""
    match policy:
        case "peak_ewma":
            return PeakEwma(members, rng, latencies)
        case "least_request":
            return LeastRequest(members, rng)
        case "round_robin":
            return RoundRobin(members, rng)
