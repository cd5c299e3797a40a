"""What befalls the pods in the fault lab: each scenario is a short script against a running Service.

Times are seconds after the load's start. `TROUBLE_AT` is when the first thing happens in all of them. A pod that is
broken stays listed until the end: the harshest case, that of a dead node, which Kubernetes lists for 40 to 50 s.
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.real.lab import Lab, Pod

TROUBLE_AT = 2.0
GRACE = 7.0
"""Seconds that a terminating pod serves on: more than the TTL (5 s), as a preStop sleep is chosen."""
SERVICE_PORT = 8080


class World:
    """A Service of the lab, its pods, and the time of the load."""

    _numbers = itertools.count(1)

    def __init__(self, lab: Lab, name: str, pods: int, spare: int = 0, service_time: float = 0.0) -> None:
        self.lab = lab
        self.name = f"{name}-{next(self._numbers)}"
        self.service = f"{self.name}.shop"
        self.service_time = service_time
        self.start = 0.0
        self.new: list[Pod] = []  # those that came during the load
        self.slow: Pod | None = None
        self.news_at: float | None = None  # when the first new pod could be found in DNS
        self.pods: list[Pod] = []
        self.listed = [self._pod() for _ in range(pods)]
        self._spare = [self._pod() for _ in range(spare)]  # up, and known to nobody yet
        for pod in self.pods:
            pod.wait_listening(SERVICE_PORT)
        self.publish()

    def _pod(self) -> Pod:
        name = f"{self.name}-{len(self.pods)}"
        flags = ["--log", str(self.received_at(name)), "--service-time", f"{self.service_time}", "--grace", f"{GRACE}"]
        command = [sys.executable, "-m", "tests.real.http_pod", name, "--port", str(SERVICE_PORT), *flags]
        pod = self.lab.pod(name, command=command)
        self.pods.append(pod)
        return pod

    def received_at(self, pod: str) -> Path:
        """Where a pod writes down what it received."""
        return self.lab.folder / f"{pod}.requests"

    def publish(self) -> None:
        self.lab.dns.headless(self.service, [(pod.address, SERVICE_PORT) for pod in self.listed])

    def at(self, seconds: float) -> None:
        """Wait until so long after the load's start."""
        time.sleep(max(0.0, self.start + seconds - time.monotonic()))

    def add(self, *, visible: bool = True) -> None:
        """Publish one of the spare pods. `visible`: DNS tells it at once."""
        pod = self._spare.pop(0)
        self.listed.append(pod)
        self.new.append(pod)
        self.publish()
        if visible and self.news_at is None:
            self.news_at = time.monotonic()

    def heal_dns(self) -> None:
        self.lab.dns.heal()
        if self.new and self.news_at is None:
            self.news_at = time.monotonic()

    def retire(self, pod: Pod, *, closing_at_once: bool = False) -> None:
        """Kubernetes deletes a pod: out of DNS, and SIGTERM, at the same time."""
        self.listed.remove(pod)
        self.publish()
        if closing_at_once:
            pod.send_signal(signal.SIGUSR2)
        pod.terminate()

    def end(self) -> None:
        self.lab.dns.heal()
        self.lab.dns.headless(self.service, [])
        for pod in self.pods:
            pod.remove()


@dataclass(frozen=True)
class Scenario:
    """`play` runs beside the load.

    seconds   how long the load lasts by default
    spare     pods that appear during it; the first request at the first of them is of interest
    pods      before the load starts
    burst     more requests at once, at TROUBLE_AT
    alone     one client at a time, and at high rates only: what is measured is the client's own speed
    """

    name: str
    says: str
    play: Callable[[World], None]
    seconds: float = 10.0
    spare: int = 0
    pods: int = 3
    service_time: float = 0.0
    burst: int = 0
    alone: bool = False


def _break(how: Callable[[Pod], None]) -> Callable[[World], None]:
    def play(world: World) -> None:
        world.at(TROUBLE_AT)
        how(world.listed[0])

    return play


def _nothing(world: World) -> None:
    pass


def _scale_out(world: World) -> None:
    world.at(TROUBLE_AT)
    world.add()


def _scale_in(world: World) -> None:
    world.at(TROUBLE_AT)
    world.retire(world.listed[0])


def _roll(*, closing_at_once: bool) -> Callable[[World], None]:
    def play(world: World) -> None:
        olds = list(world.listed)
        for number, old in enumerate(olds):
            world.at(TROUBLE_AT + 1.5 * number)  # real rollouts are slower: 0.9 s a pod was the fastest seen
            world.add()
            world.retire(old, closing_at_once=closing_at_once)

    return play


def _dns_outage(trouble: Callable[[World], None]) -> Callable[[World], None]:
    """DNS fails, and meanwhile two of three pods are replaced; one old pod remains."""

    def play(world: World) -> None:
        olds = list(world.listed)
        world.at(TROUBLE_AT)
        trouble(world)
        for number in range(2):
            world.at(TROUBLE_AT + 1 + number)
            world.add(visible=False)
            world.retire(olds[number], closing_at_once=True)
        world.at(TROUBLE_AT + 4.5)
        world.heal_dns()

    return play


def _dns_truncating(world: World) -> None:
    """Half an answer over UDP, the whole one over TCP: what a Service of many pods looks like."""
    world.at(TROUBLE_AT - 1)
    world.lab.dns.trouble(truncate=True, transport="udp")
    world.at(TROUBLE_AT)
    world.add()


def _slow_pod(world: World) -> None:
    world.at(TROUBLE_AT)
    world.slow = world.listed[0]
    world.slow.send_signal(signal.SIGUSR1)


SCENARIOS = (
    Scenario("steady", "nothing happens", _nothing, 4, alone=True),
    Scenario("scale-out", "a pod is added", _scale_out, 8.5, spare=1),
    Scenario("scale-in", f"a pod leaves DNS and serves {GRACE:g} s on", _scale_in, 11),
    Scenario("crash", "kill -9; stays listed", _break(Pod.kill), 8),
    Scenario("hang", "SIGSTOP; stays listed", _break(Pod.freeze), 8),
    Scenario("black-hole", "every packet dropped; stays listed", _break(lambda pod: pod.black_hole(SERVICE_PORT)), 8),
    Scenario("reset", "every packet answered by a reset; stays listed", _break(lambda pod: pod.reset(SERVICE_PORT)), 8),
    Scenario("link-down", "the cable is pulled; stays listed", _break(Pod.link_down), 8),
    Scenario("rolling", f"each pod replaced, the old serves {GRACE:g} s on", _roll(closing_at_once=False), 13, 3),
    Scenario("rolling-close", "each pod replaced, the old closes at SIGTERM", _roll(closing_at_once=True), 10, 3),
    Scenario(
        "dns-silent",
        "no answers for 4.5 s; two of three pods replaced",
        _dns_outage(lambda world: world.lab.dns.trouble(silent=True)),
        12,
        2,
    ),
    Scenario(
        "dns-servfail",
        "SERVFAIL for 4.5 s; two of three pods replaced",
        _dns_outage(lambda world: world.lab.dns.trouble(rcode="SERVFAIL")),
        12,
        2,
    ),
    Scenario(
        "dns-stale",
        "old answers for 4.5 s; two of three pods replaced",
        _dns_outage(lambda world: world.lab.dns.freeze()),
        12,
        2,
    ),
    Scenario("dns-truncating", "UDP answers cut, TCP whole; a pod is added", _dns_truncating, 8.5, 1),
    Scenario("slow-pod", "one of five pods answers 20 times slower", _slow_pod, 9, pods=5, service_time=0.005),
    Scenario("burst", "a thousand requests at once", _nothing, 4, burst=1000, alone=True),
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
