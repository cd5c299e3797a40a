"""Gray failure: a pod that accepts and says nothing, while others answer.

A frozen process, a full disk, a black hole behind a kept connection: nothing fails, so nothing counts failures. What
can be seen is silence. A pod is suspected when two answers that it owes are overdue, or a single one by four times the
patience, while it says nothing at all and others answer; else all are slow, and copies would make that worse.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

from headlessconn.core.member import Member
from headlessconn.core.pick import CONNECTED, HURRIED, TRIAL, Pick

SILENT_MIN = 0.25  # seconds; a hiccup of a collector or one retransmission is shorter (RFC 8305 waits as long)
SLOWER = 4.0  # times the 99th percentile of that kind of request
ALONE = 4.0  # times more patience where only one answer is owed
# Answers of others to requests that began since the pod fell silent. Those that were under way when all became slow at
# once say nothing: at 400/s five of them may come after the last of one pod's.
OTHERS = 5
NEVER_SENT = 60.0  # seconds after which a pick that says nothing of a connection is not looked at any more


@dataclass(slots=True)
class Found:
    """What a look found: members to suspect, with the seconds of their silence and the answers they owe; and picks
    whose holders may hurry. `next_at`: when to look again."""

    suspects: list[tuple[Member, float, int]] = field(default_factory=list)
    hurry: list[Pick] = field(default_factory=list)
    next_at: float = inf


class Silence:
    """The answers that one target's members owe. Costs a request two stores; the look is every quarter of a second, and
    only while something is owed.

    owed     picks without an answer yet, in the order of picking
    began    when the requests began that were answered last, of all members
    look_at  when `look` wants to be called; `inf` while nothing is owed
    """

    __slots__ = ("began", "look_at", "owed")

    def __init__(self) -> None:
        self.owed: dict[Pick, None] = {}
        self.began: deque[float] = deque([-inf] * OTHERS, OTHERS)
        self.look_at = inf

    def look(self, now: float) -> Found:
        found = Found()
        owing: dict[Member, list[Pick]] = {}
        for pick in list(self.owed):
            if pick.flags & CONNECTED:
                owing.setdefault(pick.member, []).append(pick)
            elif now - pick.started_at > NEVER_SENT:
                del self.owed[pick]
        found.next_at = now + SILENT_MIN if self.owed else inf
        for member, picks in owing.items():
            self._look_at(member, picks, now, found)
        self.look_at = found.next_at
        return found

    def _look_at(self, member: Member, picks: list[Pick], now: float, found: Found) -> None:
        oldest = min(picks, key=_started_at)
        silent_since = max(oldest.started_at, member.heard_at)
        # Instants are compared, never spans: what is rounded otherwise would be looked at again in the same instant.
        due = silent_since + SILENT_MIN
        if now < due:
            found.next_at = min(found.next_at, due)
            return
        trial = any(pick.flags & TRIAL for pick in picks)
        if not member.suspected and not trial:
            if min(self.began) < silent_since:
                return
            due = _overdue_at(picks, member.heard_at)
            if now < due:
                found.next_at = min(found.next_at, due)
                return
            found.suspects.append((member, now - silent_since, len(picks)))
        for pick in picks:
            if pick.flags & HURRIED:
                continue
            # Each by its own kind: a heavy one that holds up light ones would hold up the next pod too, and a third.
            due = (pick.started_at if trial else silent_since) + patience(pick)
            if now < due:
                found.next_at = min(found.next_at, due)
            else:
                pick.flags |= HURRIED
                found.hurry.append(pick)


def _overdue_at(picks: list[Pick], heard_at: float) -> float:
    """When two of these are overdue, or one by far. Each counts from its own beginning: behind a heavy request, rightly
    silent for long, a light one has only begun."""
    waits = [(max(pick.started_at, heard_at), patience(pick)) for pick in picks]
    due = sorted(since + wait for since, wait in waits)
    alone = min(since + ALONE * wait for since, wait in waits)
    return alone if len(due) == 1 else min(alone, due[1])


def _started_at(pick: Pick) -> float:
    return pick.started_at


def patience(pick: Pick) -> float:
    """Seconds after which an answer to this pick is overdue; `inf` while its kind is not known well enough."""
    # The latest: when all became slow at once, the five answers of others a suspicion takes were slow too, and five
    # of 256 make the 99th percentile. An older one would suspect the pod that happens to be the last to answer.
    usual = None if pick.lane is None else pick.lane.quantile(0.99, latest=True)
    return inf if usual is None else max(SILENT_MIN, SLOWER * usual)
