"""A pool of connections as a machine: who gets one, and what to open, check, clean, close or move next.

It is told facts and what time it is; wishes come out as small commands. After *every* call whoever drives it obeys one
law: carry out `take()` if `outbox` is not empty, and re-arm the timer if `wakeup_at` moved earlier.

Callers only ever wait; no step on a connection runs on their behalf. So a caller who gives up, at whatever moment,
can neither lose a connection nor leave one half checked (asyncpg and psycopg_pool both learnt that from bug reports).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import inf
from typing import Any

from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.pooling.commands import Check, Command, Reset
from headlessconn.core.pooling.lifecycle import MAX_AGE, Lifecycle
from headlessconn.core.pooling.pods import LOOK_AGAIN
from headlessconn.core.pooling.silence import SILENT
from headlessconn.core.pooling.slot import Fault, Phase, Place, Slot, Waiter
from headlessconn.errors import ClosedError

ABREAST = 10  # dials at once: a stampede of logins is what takes a database down (MySQL's listen queue holds 80)
MOVES = 10  # at most one connection in so many, and always one, may have its replacement under way: they come on top
AGE_JITTER = 0.1  # of max_age

_OPENING, _BUSY, _IDLE, _CLOSING = Phase.OPENING, Phase.BUSY, Phase.IDLE, Phase.CLOSING


class Pooling(Lifecycle):
    """One pool.

    outbox     commands to carry out; `take()` returns and clears them
    wakeup_at  when `wake` wants to be called; `inf` when it need not be; may move earlier in any call
    size       connections that are open or being dialled; replacements under way and those being closed are not in it
    slots      all of them, in the order of their dials
    waiting    callers in the queue, the first one first
    """

    __slots__ = ()

    def take(self) -> list[Command]:
        commands, self.outbox = self.outbox, []
        return commands

    # ---- callers -----------------------------------------------------------------------------------------------

    def acquire(self, place: Place | None, now: float) -> Slot | None:
        """A connection that is fit for use, at once; None when the caller must `queue`."""
        if self.waiting:
            return None  # first come, first served
        slot = self._shelf.next()
        if slot is None or now - slot.since > self._fresh_for:
            return None
        self._shelf.take(slot)
        self._give(slot, place, now)
        if self._watch_at < self.wakeup_at:
            self.wakeup_at = self._watch_at
        return slot

    def queue(self, place: Place | None, now: float, turn: Any = None) -> Waiter:
        """Wait in line. `Hand(waiter)` ends it; whoever stops waiting before tells `left`."""
        waiter = Waiter(place, now, turn)
        self.waiting[waiter] = None
        if self.closing:
            self._turn_away(ClosedError("the pool was closed"))
        self._refuse(now)
        self._act(now)
        return waiter

    def left(self, waiter: Waiter, now: float) -> None:
        """A caller stopped waiting before it was his turn. (With a `waiter.slot` it *was*: tell `released`.) What was
        begun for him goes on, and whoever comes next has it."""
        if waiter in self.waiting:
            del self.waiting[waiter]
            self.figures.gave_up += 1
        self._act(now)

    def released(self, slot: Slot, now: float, leaving: str = "") -> None:
        """It came back and is fit for the next caller. `leaving`: why it should not be kept all the same."""
        self._came_back(slot, now)
        if leaving or slot.leaving or self.waiting or self.closing or now >= slot.expires_at:
            self._settle(slot, now, leaving)
            self._act(now)
        else:
            self._shelf.put(slot, now)

    def resetting(self, slot: Slot, now: float) -> None:
        """It came back and must be cleaned first: `Reset` follows, then `was_reset` or `broke`."""
        self._came_back(slot, now)
        if slot.leaving or self.closing:
            self._settle(slot, now)
        else:
            self._steps.begin(slot, Phase.RESETTING, now, self.rules.reset_timeout)
            self.outbox.append(Reset(slot))
        self._act(now)

    def broke(self, slot: Slot, reason: str, how: How, now: float) -> None:
        """It is lost, or must not be used again: in somebody's hands, while it was checked or reset, or idle."""
        if slot.phase not in (_OPENING, _CLOSING, Phase.CLOSED):
            self._close(slot, reason, how, now)
        self._act(now)

    # ---- steps that ended --------------------------------------------------------------------------------------

    def placed(self, slot: Slot, key: Key, endpoint: Endpoint, now: float) -> bool:
        """The engine said where this dial goes. False: nobody wants it any more, and the claim must be given back."""
        if slot.phase is not _OPENING:
            return False
        pod = self.pods.get(key)
        if pod is None:
            self.pods.forget({other.pod for other in self.slots}, now)
            pod = self.pods.add(key, endpoint)
        slot.pod = pod
        began = slot.since
        self._steps.begin(slot, _OPENING, now, self.rules.open_timeout)
        slot.since = began
        self._act(now)
        return True

    def opened(self, slot: Slot, connection: Any, now: float) -> None:
        """A dial ended well. Whoever waits longest gets it, should the one it was begun for be gone."""
        slot.connection = connection
        if slot.phase is not _OPENING:  # its time was over
            self.slots[slot] = None
            self._end(slot, "came too late", How.OK, now)
        else:
            assert slot.pod is not None
            self._steps.end(slot)
            self.pods.praise(slot.pod)
            self._refused_by = None
            self.figures.opened += 1
            slot.opened_at = now
            if self.rules.max_age is not None:
                slot.expires_at = now + self.rules.max_age * (1.0 + AGE_JITTER * (2.0 * self._random() - 1.0))
            old, slot.replaces = slot.replaces, None
            self.figures.moves += slot.why not in ("", MAX_AGE)
            if old is not None:
                self.size += 1
                self._let_go(old, slot.why, now)
            self._settle(slot, now)
        self._act(now)

    def failed(self, slot: Slot, fault: Fault, error: BaseException, now: float) -> None:
        """A dial ended without a connection. The pod gets no other one for a while; another pod is tried at once."""
        if slot.phase is _OPENING:
            self._drop(slot)
            self._blame(slot, fault, error, now)
        self._act(now)

    def all_held(self, slot: Slot, listed: Collection[Key], now: float) -> None:
        """A dial found no place but pods that are held back; `listed` are all there are.

        When each of them says that it will not have us, and no connection is left that could come back, there is
        nothing to wait for: callers get what was said last.
        """
        if slot.phase is _OPENING:
            self._drop(slot)
            self._retry_at = self.pods.again_at(listed, now)
            self._refused_by = self.pods.refusal(listed)
            self._refuse(now)
        self._act(now)

    def nobody(self, slot: Slot, error: BaseException, now: float) -> None:
        """A dial found no endpoint at all, for as long as a caller may be kept waiting for one."""
        if slot.phase is _OPENING:
            self._drop(slot)
            self.figures.failure(None, error, now)
            self._retry_at = now + LOOK_AGAIN
            first = next(iter(self.waiting), None)
            if first is not None and first.since <= slot.since:  # he has waited for as long as this dial
                self._turn_away(error)
        self._act(now)

    def checked(self, slot: Slot, now: float) -> None:
        """It works. (If it does not, tell `broke`.)"""
        if slot.phase is Phase.CHECKING:
            self._steps.end(slot)
            self._settle(slot, now)
        self._act(now)

    def was_reset(self, slot: Slot, now: float, leaving: str = "") -> None:
        """It is clean again; `leaving` as in `released`."""
        if slot.phase is Phase.RESETTING:
            self._steps.end(slot)
            self._settle(slot, now, leaving)
        self._act(now)

    def closed(self, slot: Slot, now: float) -> None:
        if slot.phase is _CLOSING:
            self._forget(slot)
        self._act(now)

    def probed(self, key: Key, passed: bool, now: float) -> None:
        """A pod that had fallen silent gives a TCP connection, or does not. At the second no it is let go."""
        pod = self.pods.get(key)
        if pod is not None:
            self.outbox += self._silence.probed(pod, passed, self.slots, now)
            if not (passed or pod.probing.under_way):
                error = TimeoutError("it fell silent, and gives no TCP connection")
                self.pods.blame(pod, Fault.UNREACHABLE, error, now)
                self.figures.failure(pod.endpoint, error, now)
                for slot in list(pod.idle):
                    self._close(slot, SILENT, How.DIAL_TIMEOUT, now)
        self._act(now)

    # ---- the engine's wishes -----------------------------------------------------------------------------------

    def retire(self, slot: Slot, reason: str, now: float) -> None:
        """It should go: at once when it is idle, else as soon as it is in nobody's hands."""
        self._let_go(slot, reason, now)
        self._act(now)

    def replace(self, slot: Slot, key: Key, endpoint: Endpoint, why: str, now: float) -> Slot | None:
        """A move: open another connection, at that endpoint, and let this one go when it is open. The new one, with its
        `Open` in the outbox; None when the pool will not: it closes, as many are moving already as may be, or the
        endpoint could not be opened a moment ago."""
        stays = slot.phase not in (_OPENING, _CLOSING, Phase.CLOSED) and not slot.leaving
        pod = self.pods.get(key)
        held_back = pod is not None and pod.held_until > now
        many = self._steps.moves() >= max(1, self.rules.max_size // MOVES)
        if self.closing or not stays or held_back or many:
            return None
        dial = self._dial(now, slot, why)
        self.placed(dial, key, endpoint, now)
        self._act(now)
        return dial

    # ---- time --------------------------------------------------------------------------------------------------

    def wake(self, now: float) -> None:
        for slot in self._steps.overran(now):
            self._overran(slot, now)
        if now >= self._watch_at:
            self.outbox += self._silence.look(self.slots, self._returned, now)
            self._watch_at = self._silence.next_look(now) if any(pod.busy for pod in self.pods) else inf
        if now >= self._upkeep_at:
            self._upkeep(now)
        self._act(now)

    def close(self, now: float) -> None:
        """No new callers, and `ClosedError` for those that wait. Idle connections close; busy ones when they return."""
        self.closing = True
        while self.waiting:
            self._turn_away(ClosedError("the pool was closed"))
        for slot in list(self.slots):
            if slot.phase is _OPENING:
                self._give_up(slot, "the pool closes")
            else:
                self._let_go(slot, "pool closed", now)
        self._act(now)

    def cut(self, now: float) -> None:
        """Close what is handed out, checked or reset still: it has had its time."""
        for slot in list(self.slots):
            if slot.phase not in (_OPENING, _CLOSING):
                self._close(slot, "pool closed", How.OK, now)
        self._act(now)

    @property
    def held(self) -> Iterator[Slot]:
        """Connections that are handed out, the one that is away longest first."""
        return iter(sorted((slot for slot in self.slots if slot.phase is _BUSY), key=lambda slot: slot.since))

    # ---- what to begin, and when to look again ------------------------------------------------------------------

    def _act(self, now: float) -> None:
        """After every fact: begin what waiting callers and `min_size` lack, and set the alarm.

        A step that takes long is joined by another one, to another pod, so that a pod which is silent keeps nobody
        waiting who could be served.
        """
        if not self.closing and (self.waiting or self.size < self.rules.min_size):
            self._supply(now)
        at = self._steps.next_at(bool(self.waiting), now)
        if not self.closing:
            at = min(at, self._upkeep_at, self._watch_at)
            if self._retry_at > now and (self.waiting or self.size < self.rules.min_size):
                at = min(at, self._retry_at)
        self.wakeup_at = at

    def _refuse(self, now: float) -> None:
        """Send callers away for whom there is nothing to wait."""
        pod = self._refused_by
        if pod is None or pod.error is None or now >= self._retry_at:
            return
        if all(slot.phase in (_OPENING, _CLOSING) for slot in self.slots):
            while self.waiting:
                self._turn_away(pod.error, pod.trace)

    def _supply(self, now: float) -> None:
        coming = self._steps.coming(now)
        while self.waiting and (slot := self._shelf.next()) is not None:
            if now - slot.since <= self._fresh_for:
                self._shelf.take(slot)
                self._hand(slot, now)
            elif coming < len(self.waiting):
                self._shelf.take(slot)
                self._steps.begin(slot, Phase.CHECKING, now, self.rules.check_timeout)
                self.outbox.append(Check(slot))
                coming += 1
            else:
                break
        if now < self._retry_at:
            return
        dials = sum(1 for _ in self._steps.dials())
        rules = self.rules
        while coming < len(self.waiting) or self.size < rules.min_size:
            if self.size >= rules.max_size or dials >= ABREAST:
                break
            self._dial(now)
            coming += 1
            dials += 1
