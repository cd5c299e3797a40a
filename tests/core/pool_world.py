"""A pool's machine in virtual time, and the pods that it dials, which behave as the test says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

from headlessconn.core.endpoint import Endpoint, How, Key, pack
from headlessconn.core.pooling import (
    Cancel,
    Check,
    Close,
    Fault,
    Hand,
    Open,
    Phase,
    Pooling,
    PoolRules,
    PoolSnapshot,
    Probe,
    Reset,
    Silent,
    Slot,
    Waiter,
    picture,
)
from headlessconn.core.probing import PROBE_TIMEOUT

PLACE = ("shop/orders.py", 7)


def key(pod: str) -> Key:
    return pack(f"10.0.0.{ord(pod) - ord('a') + 1}", 3306)


def name(of: Slot) -> str:
    return chr(of.key[3] - 1 + ord("a"))


class WrongPassword(Exception):
    """What a server says that is well and will not have us."""


class World:
    """pods      what a dial to each meets with: ok, late, refuses, hangs, wrong password, full
    checks    what a check of a connection to each meets with: ok, dead, hangs; `closes` and `resets` likewise
    dial, step   seconds that a dial and any other step take
    """

    def __init__(self, pods: str = "abc", *, checked: bool = False, reset: bool = False, **rules: Any) -> None:
        self.now = 0.0
        self.pods = dict.fromkeys(pods, "ok")
        self.checks: dict[str, str] = {}
        self.closes: dict[str, str] = {}
        self.resets: dict[str, str] = {}
        self.probes: dict[str, bool] = {}
        self.dial, self.step = 0.05, 0.001
        self.reset = reset
        self.log: list[tuple[float, str]] = []
        self.served: dict[Slot | Waiter, float] = {}
        self.cancelled: list[Slot] = []
        self.said: list[tuple[Slot, How]] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._count = 0
        self.pool = Pooling(PoolRules(**rules), random.Random(1), 0.0, checks=checked)

    # ---- what callers do ---------------------------------------------------------------------------------------

    def take(self) -> Slot | Waiter:
        """A connection at once, or a place in the queue."""
        found = self.pool.acquire(PLACE, self.now) or self.pool.queue(PLACE, self.now)
        self.obey()
        return found

    def taken(self, *waiters: Slot | Waiter) -> list[Slot]:
        """What each of them has by now."""
        found = [waiter if isinstance(waiter, Slot) else waiter.slot for waiter in waiters]
        assert all(found), [waiter.error for waiter in waiters if isinstance(waiter, Waiter)]
        return [slot for slot in found if slot]

    def fill(self, count: int, seconds: float = 1.0) -> list[Slot]:
        """So many connections, all handed out."""
        waiters = [self.take() for _ in range(count)]
        self.run(self.now + seconds)
        return self.taken(*waiters)

    def give_back(self, *slots: Slot, leaving: str = "") -> None:
        for slot in slots:
            if self.reset:
                self.pool.resetting(slot, self.now)
            else:
                self.pool.released(slot, self.now, leaving)
            self.obey()

    def leave_any(self, one: Slot | Waiter) -> None:
        """Give up, or give back what was had at once."""
        if isinstance(one, Slot):
            self.give_back(one)
        elif one.error is None:
            self.leave(one)

    def leave(self, waiter: Slot | Waiter) -> None:
        assert isinstance(waiter, Waiter)
        if waiter.slot is not None:
            self.give_back(waiter.slot)
        else:
            self.pool.left(waiter, self.now)
        self.obey()

    def tell(self, fact: Callable[..., object], *facts: Any) -> Any:
        told = fact(*facts, self.now)
        self.obey()
        return told

    # ---- time --------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        self.obey()
        while True:
            at = min(self._events[0][0] if self._events else inf, self.pool.wakeup_at)
            if at > until:
                break
            self.now = max(self.now, at)
            if self._events and self._events[0][0] <= self.now:
                heappop(self._events)[2]()
            else:
                self.pool.wake(self.now)
                assert self.pool.wakeup_at > self.now or self.pool.outbox, "it would wake for ever"
            self.obey()
        self.now = until

    def _after(self, seconds: float, fact: Callable[..., object], *facts: Any) -> None:
        self._count += 1
        heappush(self._events, (self.now + seconds, self._count, lambda: fact(*facts, self.now)))

    # ---- what the pool wants -----------------------------------------------------------------------------------

    def obey(self) -> None:
        while self.pool.outbox:
            for command in self.pool.take():
                self._carry_out(command)
            self.balanced()

    def _carry_out(self, command: object) -> None:
        pool = self.pool
        match command:
            case Open(slot=slot, avoid=avoid):
                if slot.pod is None and not self._place(slot, avoid):
                    return
                self._say(f"open {name(slot)}")
                self._answer(self.pods[name(slot)], slot)
            case Check(slot=slot):
                self._say(f"check {name(slot)}")
                self._step(self.checks.get(name(slot), "ok"), slot, pool.checked, "failed its check")
            case Reset(slot=slot):
                self._say(f"reset {name(slot)}")
                self._step(self.resets.get(name(slot), "ok"), slot, pool.was_reset, "reset failed")
            case Close(slot=slot, reason=reason, how=how):
                self._say(f"close {name(slot)}: {reason}")
                self.said.append((slot, how))
                if self.closes.get(name(slot)) != "hangs":
                    self._after(self.step, pool.closed, slot)
            case Cancel(slot=slot):
                self.cancelled.append(slot)
            case Hand(waiter=waiter):
                assert waiter not in self.served
                self.served[waiter] = self.now
            case Probe(key=asked, endpoint=endpoint):
                pod = chr(asked[3] - 1 + ord("a"))
                self._say(f"probe {pod}")
                assert endpoint.key == asked
                passed = self.probes.get(pod, True)
                self._after(self.step if passed else PROBE_TIMEOUT, pool.probed, asked, passed)
            case Silent(slot=slot):
                self._say(f"silent {name(slot)}")
            case _:
                raise AssertionError(command)

    def _place(self, slot: Slot, avoid: tuple[Key, ...]) -> bool:
        """As the engine would: the pod with the fewest connections, dials included."""
        if not self.pods:
            self.pool.nobody(slot, ConnectionError("nobody"), self.now)
            return False
        held = Counter(name(one) for one in self.pool.slots if one.pod is not None and one.phase is not Phase.CLOSING)
        free = [pod for pod in self.pods if key(pod) not in avoid]
        if not free:
            self.pool.all_held(slot, [key(pod) for pod in self.pods], self.now)
            return False
        pod = min(free, key=lambda pod: held[pod])
        return self.pool.placed(slot, key(pod), Endpoint.of(key(pod)), self.now)

    def _answer(self, how: str, slot: Slot) -> None:
        pool = self.pool
        match how:
            case "ok":
                self._after(self.dial, pool.opened, slot, f"connection {slot.number}")
            case "late":
                self._after(pool.rules.open_timeout + 1.0, pool.opened, slot, f"connection {slot.number}")
            case "refuses":
                self._after(self.step, pool.failed, slot, Fault.UNREACHABLE, ConnectionRefusedError(name(slot)))
            case "wrong password":
                self._after(self.dial, pool.failed, slot, Fault.REFUSES, WrongPassword(name(slot)))
            case "full":
                self._after(self.dial, pool.failed, slot, Fault.FULL, ConnectionError("too many connections"))
            case "no descriptors":
                self._after(0.0, pool.failed, slot, Fault.OURS, OSError(24, "too many open files"))
            case _:
                assert how == "hangs"

    def _step(self, how: str, slot: Slot, well: Callable[..., object], badly: str) -> None:
        if how == "ok":
            self._after(self.step, well, slot)
        elif how == "dead":
            self._after(self.step, self.pool.broke, slot, badly, How.RESET_REUSED)

    def _say(self, what: str) -> None:
        self.log.append((round(self.now, 3), what))

    # ---- what is looked at -------------------------------------------------------------------------------------

    def what(self, since: float = 0.0) -> list[str]:
        """What was wanted, in order, without the times."""
        return [what for at, what in self.log if at >= since]

    @property
    def view(self) -> PoolSnapshot:
        return picture(self.pool, self.now)

    @property
    def spread(self) -> dict[str, int]:
        """Open connections by pod."""
        phases = (Phase.OPENING, Phase.CLOSING)
        return dict(sorted(Counter(name(slot) for slot in self.pool.slots if slot.phase not in phases).items()))

    def balanced(self) -> None:
        """The counts are those of the slots, whatever has happened."""
        view = self.view
        open_ones = view.idle + view.busy + view.checking + view.resetting
        dials = sum(1 for slot in self.pool.slots if slot.phase is Phase.OPENING and slot.replaces is None)
        assert view.size == open_ones + dials
        assert sum(pod.busy for pod in view.pods) == view.busy
        assert sum(pod.idle for pod in view.pods) == view.idle
        assert not (view.waiting and self.pool.closing)
