"""Idle connections of a pool, and which one goes out next."""

from __future__ import annotations

from collections.abc import Iterator

from headlessconn.core.endpoint import Key
from headlessconn.core.pooling.slot import Phase, Pod, Slot

LOOKED_AT = 16  # pods looked at for the least busy one: more would cost more than they even out

_IDLE = Phase.IDLE


class Shelf:
    """Idle connections by pod.

    The next one leads to the pod with the fewest connections handed out, and among equals to the one whose turn was
    longest ago: so even a single caller uses all pods, and a pod that hangs does not collect all callers, which is how
    queues over all connections fail (FIFO pools were at a standstill 5 s after one of three servers had hung). Of a
    pod's idle connections the one used last is taken: those that nobody needs grow old, and can be closed.
    """

    __slots__ = ("_pods",)

    def __init__(self) -> None:
        self._pods: dict[Key, Pod] = {}  # those with idle connections, the one whose turn was longest ago first

    def __bool__(self) -> bool:
        return bool(self._pods)

    def __iter__(self) -> Iterator[Slot]:
        """All of them, the one that is idle for longest first."""
        return iter(sorted((slot for pod in self._pods.values() for slot in pod.idle), key=lambda slot: slot.since))

    def next(self) -> Slot | None:
        """Whose turn it is; it stays here until `take`."""
        best: Pod | None = None
        for looked, pod in enumerate(self._pods.values()):
            if not pod.busy:
                return pod.idle[-1]
            if best is None or pod.busy < best.busy:
                best = pod
            if looked == LOOKED_AT:
                break
        return None if best is None else best.idle[-1]

    def take(self, slot: Slot) -> None:
        """This one goes out, or is checked; it was its pod's turn."""
        pod = slot.pod
        assert pod is not None
        idle = pod.idle
        if idle[-1] is slot:
            del idle[-1]
        else:
            idle.remove(slot)
        del self._pods[pod.key]
        if idle:
            self._pods[pod.key] = pod

    def put(self, slot: Slot, now: float) -> None:
        pod = slot.pod
        assert pod is not None
        slot.phase = _IDLE
        slot.since = now
        pod.idle.append(slot)
        self._pods.setdefault(pod.key, pod)

    def remove(self, slot: Slot) -> None:
        """This one is closed; its pod keeps its turn."""
        pod = slot.pod
        assert pod is not None
        pod.idle.remove(slot)
        if not pod.idle:
            del self._pods[pod.key]
