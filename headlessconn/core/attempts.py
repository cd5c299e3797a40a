"""One request's attempts beyond its first: where a failed dial goes, whether a broken exchange is repeated, what runs
beside a silent one.

Sans-IO, like the engine: the aiohttp adapter, `service.run`, dial races and the simulator ask the same questions and
get the same answers. The rules:

- what was not sent may always go elsewhere, and costs nothing;
- what was sent is repeated only if that is safe, on another pod first, never after the caller's deadline, and never
  once a byte of an answer has reached the caller;
- whatever runs beside an attempt, or repeats one that was sent, is paid from the engine's budget.

A further attempt is never a pod's trial: this request is in trouble already.
"""

from __future__ import annotations

from dataclasses import dataclass

from headlessconn.core.endpoint import Key
from headlessconn.core.engine import Engine
from headlessconn.core.pick import HURRIED, Pick

DIALS = 8  # pods dialled for one request: with one READY left among many dead, the dead are FAILING after one refusal
ABREAST = 3  # dials under way at once for one request (design: up to three)
COPIES = 2  # under way at once, unless all of them are silent
SENT = 3  # copies that may have reached a pod, for one request (Envoy tuned: three retries; gRPC: five attempts)
RETRIED = frozenset({502, 503, 504})  # the pod, or what it needs, is in trouble; another may do better (RFC 9110 15.6)


@dataclass(frozen=True, slots=True)
class Rules:
    """What one request allows.

    repeatable   sending it twice does no harm (an idempotent method, or the caller says so), and its body can be sent
                 again
    deadline     when its caller stops waiting, in the engine's time; None when unknown
    hedge_after  seconds of silence after which a copy goes to another pod; None = only when its own pod is suspected
    """

    repeatable: bool = False
    deadline: float | None = None
    hedge_after: float | None = None


ONCE = Rules()


class Attempts:
    """The attempts of one request. Made when the first one needs company: most requests never have one.

    tried   endpoints that were taken
    open    picks under way, in the order of their beginning
    sent    how many copies may have reached a pod
    """

    __slots__ = ("_engine", "_in_trouble", "_is_refused", "_rules", "_unreachable", "open", "sent", "tried")

    def __init__(self, engine: Engine, rules: Rules, first: Pick) -> None:
        self._engine = engine
        self._rules = rules
        self.tried: set[Key] = {first.key}
        self.open: dict[Pick, bool] = {first: False}  # whether it was sent
        self.sent = 0
        self._unreachable: set[Key] = set()  # whose dials failed
        self._in_trouble: set[Key] = set()  # who answered so
        self._is_refused = False  # it has been counted as one for which there was no budget

    def went(self, pick: Pick) -> None:
        """It has a connection: from now on it may have reached the pod."""
        if not self.open.get(pick, True):
            self.open[pick] = True
            self.sent += 1

    def took(self, pick: Pick) -> None:
        """It is one of them from now on: a pick for which its caller waited."""
        self.tried.add(pick.key)
        self.open[pick] = False

    def left(self, pick: Pick) -> None:
        """It is over, and nothing shall come of that."""
        self.open.pop(pick, None)

    def after_dial(self, pick: Pick, now: float) -> Pick | None:
        """Its dial failed, nothing was sent: another pod. None when another dial is under way, or all were tried."""
        self.open.pop(pick, None)
        self._unreachable.add(pick.key)
        if not all(self.open.values()):  # another dial is under way
            return None
        found = self.another(now)
        if found is None and not self.open and self.sent and self._may_send(now):
            self.tried = set(self._unreachable)  # one whose exchange broke may be well again, as after a restart
            found = self.another(now)
        return found

    def beside_dial(self, now: float) -> Pick | None:
        """Its dial is silent: a different pod beside it, if the budget allows."""
        if len(self.open) >= ABREAST or len(self.tried) >= DIALS or any(self.open.values()) or self._is_late(now):
            return None
        found = self._paid(now)
        if found is None and self.sent and self._may_send(now) and self._engine.could_spend(now):
            self.tried = self._unreachable | {pick.key for pick in self.open}  # as after a dial that failed
            found = self._paid(now)
        return found

    def after_break(self, pick: Pick, now: float) -> Pick | None:
        """It was sent, and broke without a byte of an answer: once more, on another pod first, if that is safe."""
        self._left(pick)
        if self._is_enough() or not self._may_send(now):
            return None
        if not self._may_pay(now):
            return None
        found = self._paid_for(now)
        if found is None:
            self.tried.clear()  # all were tried; the same one may be well again, as after a restart
            found = self._paid_for(now)
        return found

    def after_bad(self, pick: Pick, now: float) -> Pick | None:
        """The pod answered that it is in trouble: another one, if that is safe and there is one."""
        self._left(pick)
        self._in_trouble.add(pick.key)
        if self._is_enough() or not self._may_send(now):
            return None
        return self._paid_anew(now)

    def beside(self, now: float) -> Pick | None:
        """It was sent, and its pod is silent: a copy to another pod, if that is safe."""
        if (len(self.open) >= COPIES and self._is_enough()) or not self._may_send(now):
            return None
        return self._paid_anew(now)

    def won(self, pick: Pick) -> list[Pick]:
        """This one is answered. The others, which the driver cancels and ends, are returned."""
        losers = [other for other in self.open if other is not pick]
        self.open.clear()
        return losers

    def _left(self, pick: Pick) -> None:
        if not self.open.pop(pick, True):
            self.sent += 1

    def _is_enough(self) -> bool:
        """Whether those under way may be waited for: not if all of them are known to be silent."""
        return any(not pick.flags & HURRIED for pick in self.open)

    def _may_send(self, now: float) -> bool:
        return self._rules.repeatable and self.sent < SENT and not self._is_late(now)

    def _is_late(self, now: float) -> bool:
        deadline = self._rules.deadline
        return deadline is not None and now >= deadline

    def _paid(self, now: float) -> Pick | None:
        """Another pod, if there is one, and if the budget allows."""
        return self._paid_for(now) if self._may_pay(now) else None

    def _paid_anew(self, now: float) -> Pick | None:
        """The same; when all were tried, one whose exchange broke may be well again, as after a restart."""
        found = self._paid(now)
        if found is None and self._engine.could_spend(now):
            self.tried = self._unreachable | self._in_trouble | {pick.key for pick in self.open}
            found = self._paid(now)
        return found

    def _may_pay(self, now: float) -> bool:
        if self._engine.could_spend(now):
            return True
        if not self._is_refused:
            self._is_refused = True
            self._engine.budget.refused += 1
        return False

    def _paid_for(self, now: float) -> Pick | None:
        found = self._another(now)
        if found is not None:
            self._engine.may_spend(now)
        return found

    def another(self, now: float) -> Pick | None:
        """A pod that was not tried, at no cost: nothing has been sent."""
        if len(self.tried) >= DIALS or self._is_late(now):
            return None
        return self._another(now)

    def _another(self, now: float) -> Pick | None:
        found = self._engine.pick(now, self.tried, safe=False, again=True)
        if not isinstance(found, Pick):
            return None
        self.took(found)
        return found
