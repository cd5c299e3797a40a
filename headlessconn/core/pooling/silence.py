"""Pods that swallow what they are sent: connections to them are handed out, and do not come back.

A pool does not see requests, only how long connections are away, and a long transaction looks like a dead node. So
silence alone proves nothing; it is a reason to ask the pod for a TCP connection, which costs both sides next to
nothing. Only a pod that twice does not give one is let go. (Measured on MariaDB pools of which one of three servers was
cut off: all eight workers were stuck for 54 s in each library as it comes; with this, for 7 s.)
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from headlessconn.core.pooling.commands import Probe, Silent
from headlessconn.core.pooling.slot import Phase, Pod, Slot

LOOK_EVERY = 1.0  # seconds between two looks, while connections are handed out
TIMES_USUAL = 4.0  # as the silence of requests is judged
OTHERS = 3  # connections to other pods that came back meanwhile: else it is not this pod that is slow
SILENT_TOGETHER = 2  # away from one pod at once; one is enough where the pod has no more
PROBES = 2  # failed ones in a row: a single SYN may be lost
AGAIN_FIRST = 5.0  # seconds after a passed probe until the next one, doubled each time: bare connects are counted by
AGAIN_MAX = 60.0  # some servers (MySQL: `max_connect_errors`)
SILENT = "silent pod"
WEIGHT = 0.1  # of one connection's time away in what is usual


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
            if len(away) < min(SILENT_TOGETHER, held[pod]) or pod.probing or now < pod.probe_after:
                continue
            oldest = min(away, key=lambda slot: slot.since)
            if returned - pod.returned - oldest.mark >= OTHERS:
                probes.append(self._probe(pod, now))
        return probes

    def probed(self, pod: Pod, passed: bool, slots: Iterable[Slot], now: float) -> list[Probe | Silent]:
        """What follows from it. When it was one no too many, `probe_failures` is back at 0 and those who hold a
        connection of the pod since before it was first asked are to be told."""
        pod.probing = False
        if passed:
            pod.probe_failures = 0
            pod.probe_wait = min(2 * pod.probe_wait or AGAIN_FIRST, AGAIN_MAX)
            pod.probe_after = now + pod.probe_wait
            return []
        pod.probe_failures += 1
        if pod.probe_failures < PROBES:
            return [self._probe(pod, now)]
        since, pod.probe_from = pod.probe_from, inf
        pod.probe_failures, pod.probe_wait = 0, 0.0
        pod.probe_after = now + AGAIN_FIRST
        told = [slot for slot in slots if slot.pod is pod and slot.phase is Phase.BUSY and slot.since <= since]
        for slot in told:
            slot.leaving = SILENT
        return [Silent(slot) for slot in told]

    def _probe(self, pod: Pod, now: float) -> Probe:
        if not pod.probe_failures:
            pod.probe_from = now
        pod.probing = True
        return Probe(pod.key, pod.endpoint)
