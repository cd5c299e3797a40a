"""What befalls a MariaDB cluster while pools work on it. Times are seconds after the load's start."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.real.mariadb import Server
from tests.real.mysql_cluster import MySQLCluster, node

TROUBLE_AT = 2.0
GRACE = 7.0
"""Seconds that a leaving server serves on: TTL 5 s, a client's second, and the longest query: a preStop sleep."""
DNS_LAG = 4.0
"""Seconds from a promotion until the Service leads to the new primary; with an operator 4.7 s were measured."""

READ = "SELECT @@server_id, MASTER_GTID_WAIT('9-99-999', 0.4)"
"""It waits 0.4 s for what never comes, so that whoever goes takes queries with it.

Not SLEEP: a server that is told to shut down may wait 2 s for each session in it, and hold them all that long.
"""
WRITE = "INSERT INTO orders (note, made_on) VALUES ('bench', @@server_id) RETURNING @@server_id"


@dataclass
class World:
    """The cluster, the load's time, and what happened when (seconds of the load)."""

    cluster: MySQLCluster
    start: float = 0.0
    new: int = 0
    """Server id of who came, or took over."""
    known_at: float = 0.0
    """When DNS could tell of it."""
    promoted_at: float = 0.0

    def at(self, seconds: float) -> None:
        time.sleep(max(0.0, self.start + seconds - time.monotonic()))

    @property
    def now(self) -> float:
        return time.monotonic() - self.start

    @property
    def victim(self) -> Server:
        return self.cluster.replicas[0]


@dataclass(frozen=True)
class Scenario:
    """`play` runs beside the load. `replicas` before it; `shows` is the kind of figure in the table."""

    name: str
    says: str
    play: Callable[[World], None]
    seconds: float
    shows: str = "faults"
    replicas: int = 2
    writes: bool = False

    @property
    def statement(self) -> str:
        return WRITE if self.writes else READ

    @property
    def workers(self) -> int:
        return 4 if self.writes else 8

    @property
    def pause(self) -> float:
        return 0.3 if self.writes else 0.0


def _added(world: World) -> None:
    world.at(TROUBLE_AT)
    new = world.cluster.add_replica(listed=False)
    world.new = new.server_id
    world.cluster.ready(new)
    world.known_at = world.now


def _leaves(world: World) -> None:
    world.at(TROUBLE_AT)
    world.cluster.leave(world.victim, grace=GRACE)


def _killed(world: World) -> None:
    """A readiness probe takes it out of DNS two seconds later; it is not started again."""
    world.at(TROUBLE_AT)
    victim = world.victim
    world.cluster.crash(victim)
    world.at(TROUBLE_AT + 2)
    world.cluster.unready(victim)


def _black_hole(world: World) -> None:
    """Listed until the end: a dead node is, for 40 to 50 s."""
    world.at(TROUBLE_AT)
    node(world.victim).black_hole(world.cluster.port)


def _switch_over(world: World) -> None:
    world.at(TROUBLE_AT)
    new = world.cluster.replicas[0]
    world.new = new.server_id

    def promoted() -> None:
        world.promoted_at = world.now

    world.cluster.switch_over(new, dns_lag=DNS_LAG, promoted=promoted)


def _moves(world: World) -> None:
    """A StatefulSet's pod is replaced: out of DNS, a grace, gone; then the same name at another address."""
    world.at(TROUBLE_AT)
    victim = world.victim
    world.new = victim.server_id
    world.cluster.unready(victim)
    world.at(TROUBLE_AT + GRACE)
    world.cluster.recreate(victim)
    world.cluster.ready(victim)
    world.known_at = world.now


SCENARIOS = (
    Scenario("added", "a third replica joins two", _added, 17, "new", 2),
    Scenario("leaves", f"one of three leaves DNS and serves {GRACE:g} s on", _leaves, 13, replicas=3),
    Scenario("killed", "SIGKILL of one of three; out of DNS 2 s later", _killed, 10, replicas=3),
    Scenario("black hole", "every packet of one of three is dropped; it stays listed", _black_hole, 20, replicas=3),
    Scenario(
        "switch-over",
        f"old primary stays up read-only; DNS says so {DNS_LAG:g} s after the promotion",
        _switch_over,
        20,
        "writes",
        writes=True,
    ),
    Scenario("moves", f"one of three is recreated at a new address after {GRACE:g} s", _moves, 17, "new", replicas=3),
)

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
