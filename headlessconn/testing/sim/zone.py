"""The DNS that simulated clients ask: one Service, a TTL, and the ways in which DNS goes wrong."""

from __future__ import annotations

from typing import Literal

from headlessconn.core.lookup import Question, Reply
from headlessconn.testing.sim.world import Pod, World

Trouble = Literal["", "servfail", "silent", "nxdomain", "stale", "truncated", "refused"]

LATENCY = 0.001  # seconds for a reply inside the cluster
SERVICE = "web.shop.svc.cluster.local."
NAMESPACE = "shop.svc.cluster.local."


class Zone:
    """What is listed, and what is said about it.

    trouble    what goes wrong now; "stale" freezes the set that is answered while the real one goes on
    cache      seconds that an answer stays in a cache between: TTLs count down, and "nobody" is cached too
    replicas   how many such caches there are, asked in turn; each was filled at a time of its own, so they disagree
    truth      every change of the real set: (time, names); asked: when each look-up's question came, by client
    """

    def __init__(self, world: World, ttl: float = 5.0, cache: float = 0.0, replicas: int = 1) -> None:
        self.ttl = ttl
        self.cache = cache
        self.trouble: Trouble = ""
        self.latency = LATENCY
        self.listed: dict[str, Pod] = {}
        self.truth: list[tuple[float, frozenset[str]]] = []
        self.troubles: list[tuple[float, Trouble]] = []
        self.asked: list[tuple[float, int]] = []
        self._world = world
        self._frozen: dict[str, Pod] | None = None
        self._cached: list[tuple[float, dict[str, Pod]]] = [(0.0, {})] * replicas

    def list(self, *pods: Pod) -> None:
        for pod in pods:
            self.listed[pod.name] = pod
        self._note()

    def unlist(self, *pods: Pod) -> None:
        for pod in pods:
            self.listed.pop(pod.name, None)
        self._note()

    def go_wrong(self, trouble: Trouble) -> None:
        """From now on; "" ends it."""
        self._frozen = dict(self.listed) if trouble == "stale" else None
        self.trouble = trouble
        self.troubles.append((self._world.now, trouble))

    def reply(self, question: Question, client: int) -> tuple[float, Reply | None]:
        """When the reply comes (seconds from now), and what it says; None when it never comes."""
        now = self._world.now
        self.asked.append((now, client))
        match self.trouble:
            case "silent":
                return 0.0, None
            case "servfail":
                return self.latency, Reply("SERVFAIL")
            case "refused":
                return self.latency, Reply("REFUSED")
        if question.name == NAMESPACE:
            return self.latency, Reply("NOERROR", negative_ttl=self.ttl)
        if question.name != SERVICE or self.trouble == "nxdomain":
            return self.latency, Reply("NXDOMAIN", negative_ttl=self.ttl)
        listed, ttl = self._served(now)
        if question.type != "A":
            return self.latency, Reply("NOERROR" if listed else "NXDOMAIN", negative_ttl=ttl)
        if not listed:
            return self.latency, Reply("NXDOMAIN", negative_ttl=ttl)
        addresses = frozenset(pod.key[:4] for pod in listed.values())
        if self.trouble == "truncated":
            part = frozenset(sorted(addresses)[: max(1, len(addresses) // 2)])
            return self.latency, Reply("NOERROR", part, ttl=ttl, truncated=True)
        return self.latency, Reply("NOERROR", addresses, ttl=ttl)

    def _served(self, now: float) -> tuple[dict[str, Pod], float]:
        live = self.listed if self._frozen is None else self._frozen
        if not self.cache:
            return live, self.ttl
        replica = len(self.asked) % len(self._cached)
        until, kept = self._cached[replica]
        if now >= until:
            until, kept = self._cached[replica] = (now + min(self.cache, self.ttl), dict(live))
        return kept, float(int(until - now) or 1)

    def _note(self) -> None:
        self.truth.append((self._world.now, frozenset(self.listed)))
