"""What a pool keeps: slots (one connection's life each), the pods they lead to, and callers that wait."""

from __future__ import annotations

from enum import Enum
from math import inf
from types import TracebackType
from typing import Any, TypeAlias

from headlessconn.core.endpoint import Endpoint, Key
from headlessconn.core.probing import Probing

Place: TypeAlias = tuple[str, int]
"""Where in the application a connection was taken: file and line. Two loads from a frame; a traceback costs 100 times
as much."""

FOLDERS = 2  # of a path that are shown: enough to tell `orders/db.py` from `users/db.py`


def spelled(place: Place | None) -> str:
    """`orders/db.py:42`"""
    if place is None:
        return "an unknown place"
    path, line = place
    return f"{'/'.join(path.replace(chr(92), '/').split('/')[-FOLDERS:])}:{line}"


class Phase(Enum):
    OPENING = "opening"
    CHECKING = "checking"  # was idle for long: looked at before it is handed out
    IDLE = "idle"
    BUSY = "busy"  # handed out
    RESETTING = "resetting"  # came back, is being cleaned
    CLOSING = "closing"
    CLOSED = "closed"  # or given up: its `close` never ended

    __hash__ = object.__hash__


MOVES: dict[tuple[Phase, Phase], str] = {
    (Phase.OPENING, Phase.BUSY): "open, and somebody waits",
    (Phase.OPENING, Phase.IDLE): "open, and nobody waits",
    (Phase.OPENING, Phase.CLOSED): "there is no connection, or not in time",
    (Phase.IDLE, Phase.BUSY): "taken",
    (Phase.IDLE, Phase.CHECKING): "wanted, after a long rest",
    (Phase.IDLE, Phase.CLOSING): "not needed, too old, lost, or to be elsewhere",
    (Phase.CHECKING, Phase.BUSY): "it works",
    (Phase.CHECKING, Phase.IDLE): "it works, and nobody waits any more",
    (Phase.CHECKING, Phase.CLOSING): "it does not work, or must go",
    (Phase.BUSY, Phase.IDLE): "came back",
    (Phase.BUSY, Phase.RESETTING): "came back, and is to be cleaned",
    (Phase.BUSY, Phase.CLOSING): "broke, or came back and must go",
    (Phase.RESETTING, Phase.IDLE): "clean again",
    (Phase.RESETTING, Phase.BUSY): "clean again, and somebody waits",
    (Phase.RESETTING, Phase.CLOSING): "not to be cleaned, or must go",
    (Phase.CLOSING, Phase.CLOSED): "closed, or given up",
    (Phase.CLOSED, Phase.CLOSING): "open after all, but too late",
}
"""Every way of a connection. The documentation draws this table, and the tests go all of it, and nowhere else."""


class Fault(Enum):
    """Why there is no connection, as far as the pool must know."""

    UNREACHABLE = "unreachable"  # no connection to this pod; the engine judges its health
    REFUSES = "refuses"  # the pod answers, and will not have us: a wrong password, an unknown database
    FULL = "full"  # the pod has no room for one more connection
    OURS = "ours"  # no file descriptors, no network: no pod is to blame

    __hash__ = object.__hash__


class Slot:
    """One connection from its dial to its end. Made by `Pooling`, which alone changes it.

    connection   what `open` gave; the machine never looks into it
    since        when its phase began
    leaving      why it will not be handed out again, or ""
    replaces     the connection that goes when this one is open, and `why`
    claim, conn  for the runtime: the engine's claim of the dial, then its number of the connection, and `driver`
                 which asks that engine
    """

    __slots__ = (
        "claim",
        "conn",
        "connection",
        "driver",
        "expires_at",
        "how_many",
        "leaving",
        "mark",
        "number",
        "opened_at",
        "overdue_at",
        "phase",
        "pod",
        "replaces",
        "since",
        "taken_by",
        "why",
    )

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.phase = Phase.OPENING
        self.since = now
        self.pod: Pod | None = None
        self.connection: Any = None
        self.opened_at = inf
        self.expires_at = inf
        self.overdue_at = inf  # when a step has taken so long that another one is begun for the same caller
        self.how_many = 0  # times it was handed out
        self.mark = 0  # how many connections to other pods had come back when this one was handed out
        self.leaving = ""
        self.replaces: Slot | None = None
        self.why = ""
        self.taken_by: Place | None = None
        self.claim: Any = None
        self.conn: Any = None
        self.driver: Any = None

    @property
    def key(self) -> Key:
        assert self.pod is not None
        return self.pod.key

    @property
    def endpoint(self) -> Endpoint | None:
        return self.pod.endpoint if self.pod else None

    def __repr__(self) -> str:
        where = f" to {self.endpoint}" if self.pod else ""
        return f"<connection {self.number}{where}, {self.phase.value}{f', {self.leaving}' if self.leaving else ''}>"


class Pod:
    """What the pool knows about one endpoint, beside what the engine knows: who may open connections to it, and
    whether those handed out come back."""

    __slots__ = (
        "busy",
        "endpoint",
        "error",
        "failed_at",
        "failures",
        "fault",
        "held_until",
        "idle",
        "key",
        "probing",
        "returned",
        "trace",
    )

    def __init__(self, key: Key, endpoint: Endpoint) -> None:
        self.key = key
        self.endpoint = endpoint
        self.idle: list[Slot] = []  # the last one came back last
        self.busy = 0
        self.returned = 0
        self.failures = 0  # in a row, of opening a connection
        self.held_until = -inf  # no dial before
        self.fault: Fault | None = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
        self.failed_at = -inf
        self.probing = Probing()


class Waiter:
    """A caller in the queue.

    slot   the connection that it was given
    error  what it gets instead, with the traceback `trace`: an error that every pod gives is raised again and again
    turn   for the runtime: what wakes it
    """

    __slots__ = ("error", "place", "since", "slot", "trace", "turn")

    def __init__(self, place: Place | None, now: float, turn: Any) -> None:
        self.place = place
        self.since = now
        self.turn = turn
        self.slot: Slot | None = None
        self.error: BaseException | None = None
        self.trace: TracebackType | None = None
