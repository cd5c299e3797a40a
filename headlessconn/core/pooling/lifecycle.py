"""Every move of a connection from one phase to another. Nothing else moves one, so that the counts stay right."""

from __future__ import annotations

import random
from collections import OrderedDict
from math import inf
from types import TracebackType

from headlessconn.core.endpoint import How
from headlessconn.core.pooling.commands import Cancel, Close, Command, Hand, Open
from headlessconn.core.pooling.figures import Figures
from headlessconn.core.pooling.pods import LOOK_AGAIN, Pods
from headlessconn.core.pooling.rules import PoolRules
from headlessconn.core.pooling.shelf import Shelf
from headlessconn.core.pooling.silence import Silence
from headlessconn.core.pooling.slot import Fault, Phase, Place, Pod, Slot, Waiter
from headlessconn.core.pooling.steps import Steps

MAX_AGE = "max_age"

_OPENING, _BUSY, _IDLE, _CLOSING = Phase.OPENING, Phase.BUSY, Phase.IDLE, Phase.CLOSING


class Lifecycle:
    """What a pool has and keeps; `Pooling` adds what it is told and asked."""

    __slots__ = (
        "_fresh_for",
        "_numbers",
        "_random",
        "_refused_by",
        "_retry_at",
        "_returned",
        "_shelf",
        "_silence",
        "_steps",
        "_upkeep_at",
        "_watch_at",
        "closing",
        "figures",
        "outbox",
        "pods",
        "rules",
        "size",
        "slots",
        "waiting",
        "wakeup_at",
    )

    def __init__(self, rules: PoolRules, rng: random.Random, now: float, *, checks: bool = False) -> None:
        """`checks`: whether connections can be checked at all."""
        self.rules = rules
        self.outbox: list[Command] = []
        self.size = 0
        self.slots: dict[Slot, None] = {}
        self.waiting: OrderedDict[Waiter, None] = OrderedDict()
        self.pods = Pods(rng)
        self.figures = Figures()
        self.closing = False
        self._random = rng.random
        self._fresh_for = rules.check_after if checks else inf
        self._numbers = 0
        self._returned = 0  # connections that came back, in all
        self._shelf = Shelf()
        self._steps = Steps()
        self._silence = Silence(rules.silent_after)
        self._retry_at = now  # before which no dial is begun: all failed
        self._refused_by: Pod | None = None  # until then: the pod that said last what all of them say
        self._upkeep_at = inf
        self._watch_at = inf
        self.wakeup_at = now if rules.min_size else inf

    # ---- into somebody's hands, and back -----------------------------------------------------------------------

    def _give(self, slot: Slot, place: Place | None, now: float) -> None:
        pod = slot.pod
        assert pod is not None
        slot.phase = _BUSY
        slot.since = now
        slot.taken_by = place
        slot.how_many += 1
        slot.mark = self._returned - pod.returned
        pod.busy += 1
        if self._watch_at == inf:
            self._watch_at = self._silence.next_look(now)

    def _came_back(self, slot: Slot, now: float) -> None:
        pod = slot.pod
        assert pod is not None
        assert slot.phase is _BUSY, slot
        pod.busy -= 1
        pod.returned += 1
        self._returned += 1
        self._silence.returned(now - slot.since)
        slot.taken_by = None

    def _settle(self, slot: Slot, now: float, leaving: str = "") -> None:
        """Where one goes that is fit for use and in nobody's hands: out of the pool, to the next caller, or idle."""
        leaving = leaving or slot.leaving or ("pool closed" if self.closing else "")
        if not leaving and now >= slot.expires_at:
            leaving = MAX_AGE
        if leaving:
            self.size -= 1
            self._end(slot, leaving, How.OK, now)
        elif self.waiting:
            self._hand(slot, now)
        else:
            self._shelf.put(slot, now)
            self._plan_upkeep(slot, now)

    def _hand(self, slot: Slot, now: float) -> None:
        waiter, _ = self.waiting.popitem(last=False)
        waiter.slot = slot
        self._give(slot, waiter.place, now)
        self._plan_upkeep(slot, now)
        self.figures.served(now - waiter.since)
        self.outbox.append(Hand(waiter))

    def _turn_away(self, error: BaseException, trace: TracebackType | None = None) -> None:
        waiter, _ = self.waiting.popitem(last=False)
        waiter.error, waiter.trace = error, trace
        self.figures.turned_away += 1
        self.outbox.append(Hand(waiter))

    # ---- dials -------------------------------------------------------------------------------------------------

    def _dial(self, now: float, replaces: Slot | None = None, why: str = "") -> Slot:
        self._numbers += 1
        slot = Slot(self._numbers, now)
        slot.replaces, slot.why = replaces, why
        if replaces is None:
            self.size += 1
        avoid = self.pods.to_avoid(self._steps.dials(), now)
        self.slots[slot] = None
        self._steps.begin(slot, _OPENING, now, inf, inf)  # its time runs from where it is placed
        self.outbox.append(Open(slot, avoid))
        return slot

    def _drop(self, slot: Slot) -> None:
        """A dial is over, without a connection."""
        if slot.replaces is None:
            self.size -= 1
        self._forget(slot)

    def _give_up(self, slot: Slot, why: str) -> None:
        self._drop(slot)
        self.outbox.append(Cancel(slot, why))

    def _blame(self, slot: Slot, fault: Fault, error: BaseException, now: float) -> None:
        self.figures.failure(slot.endpoint, error, now)
        if slot.pod is None or fault is Fault.OURS:
            self._retry_at = now + LOOK_AGAIN
        else:
            self.pods.blame(slot.pod, fault, error, now)

    # ---- the end -----------------------------------------------------------------------------------------------

    def _let_go(self, slot: Slot, reason: str, now: float) -> None:
        """At once when it is idle, else as soon as it is in nobody's hands."""
        if slot.phase is _IDLE:
            self._close(slot, reason, How.OK, now)
        elif slot.phase in (_BUSY, Phase.CHECKING, Phase.RESETTING):
            slot.leaving = slot.leaving or reason

    def _close(self, slot: Slot, reason: str, how: How, now: float) -> None:
        """Now, whatever it is doing."""
        assert slot.pod is not None
        if slot.phase is _IDLE:
            self._shelf.remove(slot)
        elif slot.phase is _BUSY:
            slot.pod.busy -= 1
        elif self._steps.end(slot):
            self.outbox.append(Cancel(slot, reason))
        self.size -= 1
        self._end(slot, reason, how, now)

    def _end(self, slot: Slot, reason: str, how: How, now: float) -> None:
        for dial in self._steps.dials():
            if dial.replaces is slot:  # gone before its replacement came, which stands for it from now on
                dial.replaces = None
                self.size += 1
        self.figures.end(reason)
        self._steps.begin(slot, _CLOSING, now, self.rules.close_timeout)
        self.outbox.append(Close(slot, reason, how))

    def _forget(self, slot: Slot) -> None:
        self._steps.end(slot)
        slot.phase = Phase.CLOSED
        slot.replaces = None
        del self.slots[slot]

    # ---- time --------------------------------------------------------------------------------------------------

    def _overran(self, slot: Slot, now: float) -> None:
        """A step did not end in time."""
        match slot.phase:
            case Phase.OPENING:
                self._give_up(slot, "open_timeout")
                error = TimeoutError(f"no connection within {self.rules.open_timeout:g} s (open_timeout)")
                self._blame(slot, Fault.UNREACHABLE, error, now)
            case Phase.CHECKING:
                self._close(slot, "check timed out", How.TIMEOUT, now)
            case Phase.RESETTING:
                self._close(slot, "reset timed out", How.TIMEOUT, now)
            case _:
                self.figures.abandoned += 1
                self._forget(slot)
                self.outbox.append(Cancel(slot, "close_timeout"))

    def _plan_upkeep(self, slot: Slot, now: float) -> None:
        idle = self.rules.idle_timeout
        old_at = slot.expires_at if slot.expires_at > now else inf  # else it is out, and ends when it comes back
        self._upkeep_at = min(self._upkeep_at, old_at, inf if idle is None else now + idle)

    def _upkeep(self, now: float) -> None:
        """Close what nobody needs, and replace what is too old."""
        rules = self.rules
        idle_timeout = inf if rules.idle_timeout is None else rules.idle_timeout
        for slot in self._shelf:
            spare = self.size > rules.min_size
            if now >= slot.expires_at and not spare:
                self._dial(now, slot, MAX_AGE)
                slot.expires_at = now + rules.open_timeout + LOOK_AGAIN  # if that fails, again then
            elif spare and (now >= slot.expires_at or now - slot.since >= idle_timeout):
                self._close(slot, MAX_AGE if now >= slot.expires_at else "idle_timeout", How.OK, now)
        self._upkeep_at = inf
        for slot in self.slots:
            if slot.phase is _IDLE:
                spare_at = slot.since + idle_timeout if self.size > rules.min_size else inf
                self._upkeep_at = min(self._upkeep_at, slot.expires_at, spare_at)
            elif slot.phase is not _CLOSING:
                self._plan_upkeep(slot, now)
