"""A failing seed's schedule, cut down to the events without which it does not fail."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from headlessconn.testing.sim import events
from headlessconn.testing.sim.events import Event
from headlessconn.testing.sim.run import Run

Schedule = tuple[tuple[float, Event], ...]


class Plan(Protocol):
    """One seed's history, of whatever family."""

    @property
    def seed(self) -> int: ...
    @property
    def schedule(self) -> Schedule: ...
    def play(self, schedule: Schedule | None = None) -> Run: ...


Judge = Callable[[Any, Run], list[str]]


def faults(plan: Plan, judge: Judge, schedule: Schedule | None = None) -> list[str]:
    """What is wrong with a plan's run. An exception out of the engine is wrong too; one out of an event is not: the
    schedule lacks an event that it needs."""
    try:
        return judge(plan, plan.play(schedule))
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if schedule is not None and frames[-1].filename == events.__file__:
            return []
        last = frames[-1]
        return [f"it raised {type(error).__name__}: {error} ({last.filename}:{last.lineno})"]


def shrink(plan: Plan, judge: Judge) -> Schedule:
    """The schedule with everything left out without which it still fails in the same way: halves first, then ever
    smaller parts."""
    schedule = plan.schedule
    ways = {_way(fault) for fault in faults(plan, judge)}
    size = max(1, len(schedule) // 2)
    while True:
        index = 0
        while index < len(schedule):
            fewer = schedule[:index] + schedule[index + size :]
            if any(_way(fault) in ways for fault in faults(plan, judge, fewer)):
                schedule = fewer
            else:
                index += size
        if size == 1:
            return schedule
        size = max(1, size // 2)


def _way(fault: str) -> str:
    """A fault without its numbers and names, and without what follows a colon."""
    return re.sub(r"[\w-]*\d[\w.:-]*", "#", fault.split(": ", 1)[-1]).partition(":")[0]
