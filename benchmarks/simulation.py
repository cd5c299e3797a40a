"""How fast the simulator is: requests a second of real time, without anybody looking on."""

from __future__ import annotations

import time
from importlib.util import find_spec
from math import nan

from benchmarks.figure import Figure, no_collector

WHAT = "simulation, bare: requests in a real second"
LIMIT = 200_000


def run(quick: bool) -> list[Figure]:
    if find_spec("headlessconn.testing.sim") is None:
        return [Figure(WHAT, nan, note="there is no headlessconn.testing.sim")]
    from headlessconn.testing.sim import simulate

    rates = []
    for seed in range(3 if quick else 9):
        with no_collector():
            began = time.process_time()
            run = simulate(pods="abc", rate=2000.0, seconds=30.0, seed=seed)
            rates.append(len(run.requests) / (time.process_time() - began))
    return [Figure(WHAT, max(rates), "", LIMIT, at_least=True, note="three pods, 2000 requests/s, by CPU time")]
