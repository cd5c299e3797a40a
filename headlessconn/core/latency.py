"""Peak EWMA latencies, kept so that two members compare without an exponential.

Finagle's rule: a latency above the mean becomes the mean; one below it is mixed in with weight 1 - e^(-Δt/τ); reading
the mean lets it fade by e^(-Δt/τ). All means fade alike, so their order changes only when something is observed: each
is kept as it would be if it had not faded since a common epoch (`Member.grown` = mean × e^((t - epoch)/τ)), and picking
compares those numbers directly. The epoch moves on before they grow too large for a float.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp

from headlessconn.core.endpoint import Key
from headlessconn.core.member import Member

DECAY = 10.0  # τ, seconds: after this long without news a mean counts for 1/e of itself (Finagle 10 s, linkerd 10 s)
EPOCH = 100 * DECAY  # e^100 is far within a float, and a step over all members each thousand seconds costs nothing
NEWEST = 0.1  # what one latency weighs in the mean over all members
# One latency at most doubles what is believed. Finagle takes each peak at its word, and then a cold start or a pause of
# the collector, 20 times the usual, keeps a pod out for τ·ln 20 = 30 s; a pod that *is* slow shows it again at once.
DOUBT = 2.0
CLEARLY = 2.0  # how many times more a load must be to count as more: latencies of equal pods differ by less
# Times the mean over all: what a bad answer counts as, at least. A pod that fails in 1 ms would else be the fastest and
# get everything (linkerd's load biaser is for that). Its flat 5 s is 1000 times the mean of a service that answers in
# 5 ms, and keeps a pod out for τ·ln(1000/2) = 62 s after one 503; eight times the mean do so for τ·ln(8/2) = 14 s. Less
# than four would leave fewer than 7 s, in which a pod that fails always would have cost twice as many requests.
PENALTY = 8.0
# What repeated ones come to: τ·ln(64/2) = 35 s. A pod that fails half of its requests is never bad five times in a row
# for long, and gets too few requests to be compared by their rates. One of two such pods cost 1.4 % of all requests
# with 8 alone, and 0.1 % with doubling (`python -m benchmarks.loads`).
PENALTY_MAX = 64.0
RETRY_AFTER_MAX = 300.0  # seconds of Retry-After that are believed (linkerd 300 s)


class Latencies:
    """The means of one target's members, and the mean over all of them.

    An unmeasured member is taken as average. With no prior a new pod looks free and draws every pair it is in, until
    its first answer; Finagle's penalty allows it one request at a time; as average it gets its fair share at once.
    """

    __slots__ = ("_epoch", "mean")

    def __init__(self, now: float) -> None:
        self._epoch = now
        self.mean = 0.0

    def observe(self, member: Member, latency: float, now: float, members: Mapping[Key, Member]) -> None:
        """A latency in seconds. `members` are all that share the epoch, for the rare step of it."""
        if now - self._epoch > EPOCH:
            self._step(now, members)
        growth = exp((now - self._epoch) / DECAY)
        peak = latency * growth
        mean = self.mean
        if mean:
            believed = DOUBT * (mean * growth if mean * growth > member.grown else member.grown)
            if peak > believed:
                peak = believed
                latency = believed / growth  # or one pause of a second would make 10 ms of mean ten times as much
            self.mean = mean + NEWEST * (latency - mean)
        else:
            self.mean = latency
        if peak < member.grown:
            weight = member.growth / growth
            peak = member.grown + peak * (1.0 - weight)
        member.grown = peak
        member.growth = growth

    def penalize(
        self,
        member: Member,
        latency: float,
        now: float,
        retry_after: float,
        members: Mapping[Key, Member],
        again: bool = False,
    ) -> None:
        """A bad answer, or one that asks to be left alone for `retry_after` seconds: it was slow, however fast it came.

        It never makes a member look faster, and the mean over all does not hear of it: else a pod that fails fast would
        lower what is usual. The latency is doubted like any other, the penalty is not. Retry-After is a time, not a
        latency: it counts as what will have faded to "not clearly more than the mean" when that time is over.

        `again`: the request was sent after the last bad answer had come. So it doubles what is left of that penalty,
        to `PENALTY_MAX`; those that fail together, when a pod's database is away, count as one.
        """
        if now - self._epoch > EPOCH:
            self._step(now, members)
        growth = exp((now - self._epoch) / DECAY)
        times = PENALTY
        if retry_after > 0.0:
            times = max(times, CLEARLY * exp(min(retry_after, RETRY_AFTER_MAX) / DECAY))
        mean = self.mean * growth
        if mean:
            slow = max(times * mean, min(latency * growth, DOUBT * member.grown))
            if again:
                slow = max(slow, min(2.0 * member.grown, PENALTY_MAX * mean))
        else:
            slow = latency * growth
        if slow > member.grown:
            member.grown = slow
        member.growth = growth

    def at_least(self, member: Member, latency: float, now: float, members: Mapping[Key, Member]) -> None:
        """A censored latency: an attempt given up after this long would have taken no less."""
        if latency > self.of(member, now):
            self.observe(member, latency, now, members)

    def of(self, member: Member, now: float) -> float:
        """A member's mean at `now`, faded, in seconds; 0 when nothing was measured. Penalties make it up to 300 s."""
        return min(member.grown / exp(min((now - self._epoch) / DECAY, 700.0)), RETRY_AFTER_MAX)

    def unmeasured(self, now: float) -> float:
        """What `Member.grown` would be for an average member, measured now."""
        return self.mean * exp(min((now - self._epoch) / DECAY, 700.0))

    def _step(self, now: float, members: Mapping[Key, Member]) -> None:
        faded = exp(max((self._epoch - now) / DECAY, -700.0))
        for member in members.values():
            member.grown *= faded
            member.growth *= faded
        self._epoch = now
