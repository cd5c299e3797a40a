"""Why a request may fail although a healthy pod was there. The list is closed, and each has to hold by the world's log.

A pod is *healthy listed* for a request when, from its arrival to its end, DNS as this client was told listed it, it
accepted, answered well and as fast as usual, and its process was the same. (A request that comes within a moment after
a recovery may fail: nobody can know yet.) Then a request may still fail because

  sent once        it was sent, and may not be sent twice; or it was written to a kept connection whose other end had
                   gone without a word: nobody received it, which its sender cannot know
  no sockets       we had no file descriptor for another attempt (EMFILE)
  three copies     three copies of it broke or were answered badly: the limit that keeps one poisonous request from
                   bringing down a fleet pod by pod
  budget           there was no token: help must not become an attack
  no time          too little was left of its deadline for another attempt
  eight dials      eight pods refused it, one after the other
  silent dials     three dials at once were silent
  silent copies    two copies of it were silent at once, or a third of its copies was
  not yet silent   its pod's silence said nothing yet: too few answers of its kind were known, or of other pods' since
  stood still      our own loop did, and the deadline passed meanwhile
  full             `max_in_flight` let nobody more in
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from headlessconn.core.endpoint import How, Key
from headlessconn.core.lane import Lane
from headlessconn.options import Options
from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.knowing import Bucket, Known, was_well
from headlessconn.testing.sim.promises import (
    ABREAST,
    ALONE,
    BURST,
    COPIES,
    DIALS,
    ENOUGH,
    KEPT,
    OTHERS,
    PER_SECOND,
    RATIO,
    SENT,
    SILENT_MIN,
    SLOWER,
)
from headlessconn.testing.sim.traffic import Request, Trouble
from headlessconn.testing.sim.world import World

LOOK = 2.0 * SILENT_MIN  # seconds: the engine looks for silence as often as SILENT_MIN, and a copy needs a connection
INSTANT = 1e-9  # seconds: just after
FAILURES = frozenset({"bad status", "reset", "timed out", "no pod accepts", "no endpoints", "overloaded"})


class _Answer(NamedTuple):
    """When which pod answered, when its request had come at the latest, and of what kind that was."""

    at: float
    pod: str
    asked_at: float
    lane: Lane


@dataclass(frozen=True)
class Case:
    """One client's side of a run."""

    world: World
    client: SimClient
    options: Options
    known: Known

    def judged(self) -> Iterator[tuple[Request, str]]:
        """Every request that failed with its excuse; "" where there is none."""
        for request in self.client.requests:
            if request.outcome in FAILURES:
                yield request, self.excuse(request)

    def healthy(self, request: Request) -> list[Key]:
        keys = sorted(self.known.throughout(request.at, request.ended_at))
        return [key for key in keys if was_well(self.world.by_key[key], request.at, request.ended_at)]

    def excuse(self, request: Request) -> str:
        if not self.healthy(request):
            return "nobody healthy"
        if self.options.max_in_flight is not None:
            return "full"
        if self._stood_still(request):
            return "stood still"
        if any(trouble.how is How.LOCAL for trouble in request.troubles):
            return "no sockets"
        match request.outcome:
            case "no pod accepts":
                return "eight dials" if len({t.pod for t in request.troubles}) >= DIALS else ""
            case "no endpoints" | "overloaded":
                return ""
        copies = [trouble for trouble in request.troubles if trouble.sent_at != inf or trouble.how is How.RESET_REUSED]
        if copies and not request.kind.repeatable:
            return "sent once"
        if len(copies) >= SENT:
            return "three copies"
        if self._was_poor(request):
            return "budget"
        if request.outcome != "timed out":
            return ""
        return self._silent(request)

    # ---- time-outs ---------------------------------------------------------------------------------------------

    def _silent(self, request: Request) -> str:
        left = [trouble for trouble in request.troubles if trouble.ended_at >= request.ended_at]
        if not left:
            last = max((trouble.ended_at for trouble in request.troubles), default=request.at)
            return "no time" if request.ended_at - last < SILENT_MIN else ""
        newest = max(left, key=lambda trouble: trouble.began_at)
        dials = [trouble for trouble in left if trouble.sent_at == inf]
        copies = [trouble for trouble in left if trouble.sent_at != inf]
        if request.ended_at - newest.began_at < self.options.race_after + LOOK:
            return "no time"
        if len(dials) >= ABREAST:
            return "silent dials"
        if len(left) >= COPIES and copies:
            return "silent copies"
        if dials:
            return ""
        return "" if self._is_suspicious(request, newest) else "not yet silent"

    def _is_suspicious(self, request: Request, copy: Trouble) -> bool:
        """Whether this silence must have been noticed in time for another copy."""
        hedge = self.client.traffic.hedge_after
        if hedge is not None:
            return copy.sent_at + hedge + LOOK < request.ended_at
        answers = [answer for answer in self._answers() if copy.sent_at <= answer.at <= request.ended_at]
        since = max([copy.sent_at, *(answer.at for answer in answers if answer.pod == copy.pod)])
        noticed = since + ALONE * self._patience(request.kind.lane, request.ended_at) + LOOK
        others = sum(answer.asked_at > since and answer.at < noticed - LOOK for answer in answers)
        return noticed < request.ended_at and others >= OTHERS

    def _patience(self, lane: Lane, until: float) -> float:
        """The longest that an answer of this kind could be waited for: by the slowest that was remembered."""
        took = [answer.at - answer.asked_at for answer in self._answers() if answer.lane is lane and answer.at <= until]
        return inf if len(took) < 2 * ENOUGH else max(SILENT_MIN, SLOWER * max(took[-2 * KEPT :]))

    def _answers(self) -> list[_Answer]:
        """All that this client heard, in the order of time."""
        heard = [
            _Answer(request.ended_at, request.pod, request.at, request.kind.lane)
            for request in self.client.requests
            if request.outcome == "ok"
        ]
        heard += [
            _Answer(trouble.ended_at, trouble.pod, trouble.sent_at, request.kind.lane)
            for request in self.client.requests
            for trouble in request.troubles
            if trouble.how is How.BAD_STATUS
        ]
        return sorted(heard, key=lambda answer: answer.at)

    # ---- our own means -----------------------------------------------------------------------------------------

    def _stood_still(self, request: Request) -> bool:
        """Whether our own loop took the time that would have been needed."""
        return request.outcome == "timed out" and any(
            begins < request.ended_at and ends > request.at for begins, ends in self.client.stalls
        )

    def _was_poor(self, request: Request) -> bool:
        """Whether the budget may have had no token at a moment at which this request wanted one."""
        wanted = [request.ended_at]
        for trouble in request.troubles:
            wanted.append(trouble.ended_at)
            at = trouble.began_at + self.options.race_after
            while trouble.sent_at == inf and at < trouble.ended_at:
                wanted.append(at)
                at += self.options.race_after
            if trouble.sent_at != inf:
                hedge = self.client.traffic.hedge_after
                first = trouble.sent_at + (SILENT_MIN if hedge is None else min(hedge, SILENT_MIN))
                extras = self.client.extras
                wanted.append(first)
                wanted += [at for at in extras[bisect_left(extras, first) :] if at < trouble.ended_at]
        return any(self._tokens(at + INSTANT) < 1.0 for at in wanted)  # others may have asked at the same instant

    def _tokens(self, until: float) -> float:
        """How little this client's budget may have held at that moment, before it was asked."""
        bucket = Bucket(RATIO, PER_SECOND, BURST)
        firsts, extras = self.client.firsts, self.client.extras
        seen = 0
        for at in extras[: bisect_left(extras, until)]:
            count = bisect_right(firsts, at)
            bucket.earn(count - seen, at)
            seen = count
            bucket.tokens = max(0.0, bucket.tokens - 1.0)
        bucket.earn(bisect_right(firsts, until) - seen, until)
        return bucket.tokens
