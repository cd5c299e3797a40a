"""The engine in virtual time: seeded dice, scripted pods and DNS, and a log that judges.

    from headlessconn.testing.sim import crash, simulate

    run = simulate(pods="abc", rate=100, seconds=30, script=[(12.0, crash("b"))])
    assert run.failed == 0 and run.attempts("b")[-1] < 12.1
    assert run == run.again()                    # same seed, same trace

The engine is the one that runs in production; the driver obeys the same law; the world is made up. What happened is
read from the world's own log, never from the engine's snapshot. A minute of a hundred requests a second takes about
50 ms.
"""

from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.events import (
    Event,
    add,
    black_hole,
    crash,
    dns,
    drain,
    freeze,
    hang_up,
    lose,
    mend,
    no_sockets,
    recover,
    relist,
    replace,
    set_clock,
    slow,
    sour,
    stall,
    take_over,
    thaw,
    unlist,
)
from headlessconn.testing.sim.run import Run, simulate
from headlessconn.testing.sim.world import Pod, World
from headlessconn.testing.sim.zone import Zone

__all__ = [
    "Event",
    "Pod",
    "Run",
    "SimClient",
    "World",
    "Zone",
    "add",
    "black_hole",
    "crash",
    "dns",
    "drain",
    "freeze",
    "hang_up",
    "lose",
    "mend",
    "no_sockets",
    "recover",
    "relist",
    "replace",
    "set_clock",
    "simulate",
    "slow",
    "sour",
    "stall",
    "take_over",
    "thaw",
    "unlist",
]
