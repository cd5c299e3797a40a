"""What a simulated application sends: kinds of requests, each request's fate, and its exchanges with pods."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from headlessconn.core.attempts import Attempts, Rules
from headlessconn.core.endpoint import How
from headlessconn.core.lane import Lane

if TYPE_CHECKING:
    from headlessconn.core.pick import Pick
    from headlessconn.testing.sim.client import SimClient
    from headlessconn.testing.sim.world import Pod

DECK = 40  # kinds are dealt from a shuffled deck of so many cards: shares come out right, and a deal costs nothing


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one client sends.

    rate         requests a second
    patience     seconds after which the application gives a request up
    jitter       whether the gaps are drawn at random
    repeatable   the part of requests that may be sent twice
    lanes        kinds of request, by how many times longer than a pod's latency each takes
    streams      the part of requests whose answers become long-lived connections
    gives_up     how an answer that does not come in time ends: TIMEOUT where a library times out,
                 CANCELLED where the application does
    cancelled    the part of requests whose caller goes away
    hedge_after  seconds of silence after which a copy goes to another pod
    holds        long-lived connections that it holds beside
    """

    rate: float = 100.0
    patience: float = 5.0
    jitter: bool = False
    repeatable: float = 0.0
    lanes: tuple[float, ...] = (1.0,)
    streams: float = 0.0
    gives_up: How = How.TIMEOUT
    cancelled: float = 0.0
    hedge_after: float | None = None
    holds: int = 0

    def deal(self, lanes: list[Lane], rng: random.Random) -> Iterator[Kind]:
        """Kinds for request after request."""
        repeatable, streams = round(self.repeatable * DECK), round(self.streams * DECK)
        places = [card * len(lanes) // DECK for card in range(DECK)]
        rng.shuffle(places)
        deck = [
            Kind(lanes[place], self.lanes[place], card < repeatable, card >= DECK - streams)
            for card, place in enumerate(places)
        ]
        rng.shuffle(deck)
        return cycle(deck)


class Kind(NamedTuple):
    """A kind of request: its lane, how many times a pod's latency it takes, whether it may be sent twice, and whether
    its answer is a stream."""

    lane: Lane
    times: float
    repeatable: bool
    streams: bool


class Trouble(NamedTuple):
    """An exchange that ended otherwise than well: `sent_at` is `inf` for one that was never sent."""

    pod: str
    began_at: float
    sent_at: float
    ended_at: float
    how: How


class Request:
    """One request of the application. `outcome`: "" while it is open, "ok", or what went wrong."""

    # Millions are made, so what is seldom touched is written only when it is: these are the values until then.
    outcome = ""
    ended_at = inf
    pod = ""
    attempts: Attempts | None = None
    timed = False  # whether its deadline is in the world's calendar
    troubles: tuple[Trouble, ...] = ()
    open: tuple[Exchange, ...] = ()

    def __init__(self, number: int, at: float, deadline: float, kind: Kind) -> None:
        self.id = number
        self.at = at
        self.deadline = deadline
        self.kind = kind

    def company(self, first: Exchange, hedge_after: float | None) -> Attempts:
        """Its attempts, made when the first one needs company."""
        if self.attempts is None:
            rules = Rules(self.kind.repeatable, self.deadline, hedge_after)
            self.attempts = Attempts(first.client.engine, rules, first.pick)
            if first.sent_at != inf:
                self.attempts.went(first.pick)
        return self.attempts


class Exchange:
    """A request on a pod, from its pick to its end."""

    sent_at = inf
    over = False
    streaming = False

    def __init__(self, client: SimClient, request: Request, pick: Pick, pod: Pod, now: float) -> None:
        self.client = client
        self.request = request
        self.pick = pick
        self.pod = pod
        self.generation = pod.generation
        self.began_at = now

    def trouble(self, how: How) -> Trouble:
        """What to write down when it ends now, otherwise than well."""
        return Trouble(self.pod.name, self.began_at, self.sent_at, self.client.world.now, how)

    def hurry(self) -> None:
        """The engine says that its pod has fallen silent."""
        self.client.hurried(self)
