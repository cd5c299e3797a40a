"""Threads that wait for an endpoint, or for room on one: first come, first served.

Who is next is given what there is, under the lock, before anybody is woken: were the callers to take it themselves,
the scheduler would say who comes first, and whoever has just come could be quicker than all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Event
from typing import TypeAlias

from headlessconn.core.claim import Claim
from headlessconn.core.effects import Admit
from headlessconn.core.endpoint import How
from headlessconn.core.engine import Engine
from headlessconn.core.pick import Nobody, Pick

Found: TypeAlias = Pick | Claim | Nobody
Question: TypeAlias = Callable[[float], Found]


class Turn:
    """One caller's place in the queue. `came` is set when it has `found` something, or when the queue `ended`."""

    __slots__ = ("came", "ended", "found", "is_choosy", "question")

    def __init__(self, question: Question, is_choosy: bool) -> None:
        self.question = question
        self.is_choosy = is_choosy
        self.came = Event()
        self.found: Found | None = None
        self.ended = False


class Turns:
    """The queue of one engine. Every method is called under the lock of that engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: deque[Turn] = deque()

    def join(self, turn: Turn, now: float) -> None:
        self._waiting.append(turn)
        self._engine.queued(now)

    def serve(self, now: float) -> list[Turn]:
        """Give to each in their order, as long as there is something to give; they are returned, to be woken.

        One that is choosy, because it has tried some endpoints, does not keep those behind it waiting.
        """
        engine, served = self._engine, []
        for turn in tuple(self._waiting):
            engine.left(now)
            found = turn.question(now)
            if isinstance(found, Nobody) and not found.all_avoided:
                engine.queued(now)
                if not turn.is_choosy:
                    break
            else:
                turn.found = found
                self._waiting.remove(turn)  # one of the first
                served.append(turn)
        # Whom it asked to admit in between has been served, or cannot be.
        engine.outbox = tuple(effect for effect in engine.outbox if type(effect) is not Admit)
        return served

    def leave(self, turn: Turn, now: float) -> Found | None:
        """It waits no longer: what there is for it in this very moment. None when the queue has ended."""
        if turn.found is None and turn in self._waiting:
            self._waiting.remove(turn)
            self._engine.left(now)
            turn.found = turn.question(now)
        return turn.found

    def abandon(self, turn: Turn, now: float) -> None:
        """Its caller was interrupted: nobody is left to take anything."""
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._engine.left(now)
        elif isinstance(turn.found, Pick):
            self._engine.ended(turn.found, How.CALLER, now)
        elif isinstance(turn.found, Claim):
            self._engine.failed(turn.found, How.CALLER, now)

    def end(self, now: float) -> list[Turn]:
        """There will be no more turns."""
        ended = list(self._waiting)
        self._waiting.clear()
        for turn in ended:
            turn.ended = True
            self._engine.left(now)
        return ended
