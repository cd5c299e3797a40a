"""What a client could know, and what was true: timelines that judges ask, read from the world's log."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from headlessconn.core.endpoint import How, Key
from headlessconn.testing.sim.driving import Driving
from headlessconn.testing.sim.world import Pod

NOBODY: frozenset[Key] = frozenset()


@dataclass(frozen=True)
class Known:
    """The set that a client was told of, change by change.

    While DNS says "nobody" the last set is held for `hold` seconds, or until its loop runs again, without those who
    refused the last connection; `surely`: without those to whom it failed in any way. At the very moment of a change
    both sets are right: what happens at one moment happens in some order.
    """

    times: list[float]
    sets: list[frozenset[Key]]

    @classmethod
    def of(cls, client: Driving, hold: float, surely: bool = False) -> Known:
        known = cls([-inf], [NOBODY])
        empty_at = inf
        facts: list[tuple[float, int, Any]] = [(at, 1, answer) for at, answer in client.heard]
        facts += [(contact.at, 0, contact) for contact in client.contacts]
        refused: set[Key] = set()  # to whom the last connection failed
        connected_at: dict[Key, float] = {}
        for at, kind, fact in sorted(facts, key=lambda fact: fact[:2]):
            if at >= empty_at:
                known._set(empty_at, NOBODY)
                empty_at = inf
            if not kind:
                if fact.how is How.OK:
                    refused.discard(fact.key)
                    connected_at[fact.key] = at
                elif fact.began_at >= connected_at.get(fact.key, -inf):  # else a later one has succeeded
                    if surely or fact.how is How.REFUSED:
                        refused.add(fact.key)
                if empty_at != inf:
                    known._set(at, known.sets[-1] - refused)
            elif fact.kind == "records":
                empty_at = inf
                known._set(at, fact.keys)
            elif fact.kind == "nobody" and known.sets[-1] and empty_at == inf:
                known._set(at, known.sets[-1] - refused)
                empty_at = at + hold
                for begins, ends in client.stalls:
                    if begins <= empty_at < ends:
                        empty_at = ends
        if empty_at != inf:
            known._set(empty_at, NOBODY)
        return known

    def _set(self, at: float, keys: frozenset[Key]) -> None:
        if keys != self.sets[-1]:
            self.times.append(at)
            self.sets.append(keys)

    def lacks(self, key: Key) -> list[tuple[float, float]]:
        """When it held no such key: from after the first to before the second moment of each pair."""
        spans: list[tuple[float, float]] = []
        since: float | None = None
        for at, held in zip(self.times, self.sets, strict=True):
            if key not in held:
                since = at if since is None else since
            elif since is not None:
                spans.append((since, at))
                since = None
        if since is not None:
            spans.append((since, inf))
        return spans

    def without(self, key: Key) -> Iterator[tuple[float, float]]:
        """The spans in which it held no such key any more, after it had."""
        return ((begins, ends) for begins, ends in self.lacks(key) if begins > -inf)

    def throughout(self, begins: float, ends: float) -> frozenset[Key]:
        """The keys it held from `begins` to `ends`."""
        first = max(0, bisect_left(self.times, begins) - 1)
        return frozenset.intersection(*self.sets[first : bisect_right(self.times, ends)])


def was_well(pod: Pod, begins: float, ends: float) -> bool:
    """Whether it was as it should be from `begins` to `ends`, the same process all the time."""
    history = pod.history
    if history[0].at > begins:
        return False
    first = 0
    while first + 1 < len(history) and history[first + 1].at < begins:
        first += 1
    generation = history[first].generation
    return all(entry.well and entry.generation == generation for entry in history[first:] if entry.at <= ends)


def was_ill(pod: Pod, begins: float, ends: float) -> bool:
    """Whether anything was wrong with it at any time from `begins` to `ends`."""
    return not was_well(pod, max(begins, pod.history[0].at), ends)


def well_since(pod: Pod, until: float) -> float:
    """Since when it has been well without a break until then; `inf` when it is not."""
    since = inf
    for entry in pod.history:
        if entry.at > until:
            break
        since = (entry.at if since == inf else since) if entry.well else inf
    return since


class Bucket:
    """A reference for the retry budget: earns a part of requests and one a second, and holds so much at most."""

    def __init__(self, ratio: float, per_second: float, most: float) -> None:
        self.ratio, self.per_second, self.most = ratio, per_second, most
        self.tokens = most
        self._at = 0.0

    def earn(self, requests: int, now: float) -> None:
        earned = self.ratio * requests + self.per_second * (now - self._at)
        self._at = now
        self.tokens = min(self.most, self.tokens + earned)
