"""Pods that swallow what they are sent: connections to them are handed out, and do not come back.

(Measured on MariaDB pools of which one of three servers was cut off: all eight workers were stuck for 54 s in each
library as it comes.)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from headlessconn.core.pooling.commands import Probe, Silent
from headlessconn.core.pooling.slot import Phase, Pod, Slot
from headlessconn.core.probing import LOOK_EVERY, TIMES_USUAL, WEIGHT

OTHERS = 3  # connections to other pods that came back meanwhile: else it is not this pod that is slow
SILENT_TOGETHER = 2  # away from one pod at once; one is enough where the pod has no more
SILENT = "silent pod"


class Silence:
    """Watches the connections that are handed out."""

    __slots__ = ("_after", "usual")

    def __init__(self, after: float) -> None:
        self._after = after
        self.usual = 0.0  # seconds that a connection is away, as a moving average

    def returned(self, seconds: float) -> None:
        self.usual += (seconds - self.usual) * WEIGHT

    def next_look(self, now: float) -> float:
        return now + LOOK_EVERY

    def look(self, slots: Iterable[Slot], returned: int, now: float) -> list[Probe]:
        """The pods to ask now. `returned` is how many connections have come back in all."""
        limit = max(self._after, TIMES_USUAL * self.usual)
        held: dict[Pod, int] = {}
        silent: dict[Pod, list[Slot]] = {}
        for slot in slots:
            if slot.pod is not None and slot.phase is not Phase.CLOSING:
                held[slot.pod] = held.get(slot.pod, 0) + 1
                if slot.phase is Phase.BUSY and now - slot.since >= limit and slot.leaving != SILENT:
                    silent.setdefault(slot.pod, []).append(slot)
        probes = []
        for pod, away in silent.items():
            if len(away) < min(SILENT_TOGETHER, held[pod]) or not pod.probing.is_due(now):
                continue
            oldest = min(away, key=lambda slot: slot.since)
            if returned - pod.returned - oldest.mark >= OTHERS:
                probes.append(self._probe(pod, now))
        return probes

    def probed(self, pod: Pod, passed: bool, slots: Iterable[Slot], now: float) -> list[Probe | Silent]:
        """What follows from it. When it was one no too many, those who hold a connection of the pod since before it was
        first asked are to be told."""
        since = pod.probing.ended(passed, now)
        if since is None:
            return []
        if since == inf:
            return [self._probe(pod, now)]
        told = [slot for slot in slots if slot.pod is pod and slot.phase is Phase.BUSY and slot.since <= since]
        for slot in told:
            slot.leaving = SILENT
        return [Silent(slot) for slot in told]

    def _probe(self, pod: Pod, now: float) -> Probe:
        pod.probing.begin(now)
        return Probe(pod.key, pod.endpoint)
