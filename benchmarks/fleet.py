"""Long-lived connections: how few of a fleet's move when three pods become six, how even they are then, how gently the
new pods are dialled (in virtual time), and what a check-out and a check-in cost (in real time)."""

from __future__ import annotations

import random
import time

from benchmarks.engine import keys
from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Options, Target
from headlessconn.core.claim import Claim, ConnId
from headlessconn.core.endpoint import Answer
from headlessconn.core.engine import Engine
from headlessconn.testing.sim.fleet import Fleet

PROCESSES = 1000
# Processes with one or two connections choose pods like so many throws of dice, so how even their fleet is depends on
# the seed: the limits are those for the middle one of the seeds.
UNEVEN = {1: 1.5, 2: 1.15, 5: 1.15, 20: 1.15}
OUT = 12.0  # when the pods become more
DONE = OUT + 42.0  # a look-up, rebalance_over, and 7 s
BATCH = 1000


def _fleets(connections: int, seeds: int) -> list[Figure]:
    moves, uneven, dials = [], [], []
    for seed in range(1, seeds + 1):
        fleet = Fleet(PROCESSES, connections, pods=3, pause=80.0, seed=seed)
        fleet.run(OUT)
        fleet.scale(6)
        fleet.run(DONE)
        moves.append(fleet.moved(OUT) / fleet.least_moves(OUT))
        uneven.append(fleet.busiest_to_idlest())
        dials.append(100.0 * max(fleet.worst_second(pod, OUT) for pod in "456"))
    what = f"{PROCESSES} processes × {connections}, 3 → 6 pods"
    return [
        Figure(f"{what}: moves over the fewest possible", median(moves), "×", 1.05, note=spread(moves)),
        Figure(f"{what}: busiest pod over idlest", median(uneven), "×", UNEVEN[connections], note=spread(uneven)),
        # The worst of them, since it is the worst second that a new pod has to bear.
        Figure(f"{what}: a new pod's worst second", max(dials), "%", 10.0, note=spread(dials, "%")),
    ]


def _costs(repeats: int) -> list[Figure]:
    engine = Engine(Target.parse("db.shop:3306"), Options(), random.Random(1), 0.0)
    engine.answered(Answer("dns", "records", keys(10 << 24, 3), ttl=5.0, why="NOERROR"), 0.0)
    conns: list[ConnId] = []
    for _ in range(16):
        claim = engine.place(0.0)
        assert isinstance(claim, Claim)
        conns.append(engine.opened(claim, 0.0, warms=True))
    pairs, verdicts, lives = [], [], []
    for _ in range(repeats):
        began = time.process_time()
        for number in range(BATCH):
            conn = conns[number & 15]
            engine.checked_out(conn, 1.0)
            engine.checked_in(conn, 1.0)
        pairs.append((time.process_time() - began) / BATCH * 1e6)
        began = time.process_time()
        for number in range(BATCH):
            engine.verdict(conns[number & 15], 1.0)
        verdicts.append((time.process_time() - began) / BATCH * 1e6)
        began = time.process_time()
        for _ in range(BATCH):
            claim = engine.place(1.0)
            assert isinstance(claim, Claim)
            engine.closed(engine.opened(claim, 1.0), 1.0)
        lives.append((time.process_time() - began) / BATCH * 1e6)
    return [
        Figure("connections: check-out + check-in, 16 on 3 pods", min(pairs), "µs", 2.0, note=spread(pairs, "µs")),
        Figure("connections: verdict", min(verdicts), "µs", 1.0, note=spread(verdicts, "µs")),
        Figure("connections: place + opened + closed", min(lives), "µs", note=spread(lives, "µs")),
    ]


def run(quick: bool) -> list[Figure]:
    with no_collector():
        figures = _costs(20 if quick else 200)
    for connections in UNEVEN:
        figures += _fleets(connections, 1 if quick else 9 if connections < 20 else 3)
    return figures
