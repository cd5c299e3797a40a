"""Which pods a pool may dial: those that could not be opened are left alone for a while."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from math import inf

from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.pooling.slot import Fault, Pod, Slot

HELD_FIRST = 0.5  # seconds without a dial after a failure; doubled at each further one, up to:
HELD_MAX = {Fault.UNREACHABLE: 5.0}  # as long as the engine leaves a failing pod alone
HELD_LONG = 30.0  # for any other fault: a wrong password is not mended in seconds, and each try may lock an account
LOOK_AGAIN = 1.0  # seconds between looks at a set all of whose pods are held back: another one may have come


class Pods:
    """Every endpoint that this pool has to do with, in the order of meeting."""

    __slots__ = ("_pods", "_random")

    def __init__(self, rng: random.Random) -> None:
        self._pods: dict[Key, Pod] = {}
        self._random = rng.random

    def __iter__(self) -> Iterator[Pod]:
        return iter(self._pods.values())

    def get(self, key: Key) -> Pod | None:
        return self._pods.get(key)

    def add(self, key: Key, endpoint: Endpoint) -> Pod:
        pod = self._pods[key] = Pod(key, endpoint)
        return pod

    def blame(self, pod: Pod, fault: Fault, error: BaseException, now: float) -> None:
        """It could not be opened: it gets no other dial for a while."""
        pod.failures += 1
        pod.fault, pod.error, pod.trace, pod.failed_at = fault, error, error.__traceback__, now
        wait = min(HELD_FIRST * 2.0 ** min(pod.failures - 1, 20), HELD_MAX.get(fault, HELD_LONG))
        pod.held_until = now + wait * (1.0 - 0.1 * self._random())

    def praise(self, pod: Pod) -> None:
        pod.failures, pod.held_until, pod.fault, pod.error, pod.trace = 0, -inf, None, None, None

    def to_avoid(self, dials: Iterator[Slot], now: float) -> tuple[Key, ...]:
        """Those that are held back, and those that have a dial under way that takes long."""
        slow = {slot.pod for slot in dials if now >= slot.overdue_at}
        return tuple(pod.key for pod in self if pod.held_until > now or pod in slow)

    def again_at(self, listed: Collection[Key], now: float) -> float:
        """All that are listed are held back: when to look again."""
        until = (pod.held_until for pod in self if pod.key in listed and pod.held_until > now)
        return min(now + LOOK_AGAIN, min(until, default=inf))

    def refusal(self, listed: Collection[Key]) -> Pod | None:
        """The one that said so last, when each one that is listed answers and will not have us."""
        refusing = [pod for pod in self if pod.key in listed and pod.fault is Fault.REFUSES]
        if not listed or len(refusing) < len(listed):
            return None
        return max(refusing, key=lambda pod: pod.failed_at)

    def forget(self, used: Collection[Pod | None], now: float) -> None:
        """Drop those that nothing is known of any more."""
        old = [pod for pod in self if pod not in used and now - pod.failed_at > 2 * HELD_LONG]
        for pod in old:
            del self._pods[pod.key]
