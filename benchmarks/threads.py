"""What the blocking client costs a caller: a pick and its end, from one thread and from four; a pool's turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from benchmarks.figure import Figure, no_collector, spread
from headlessconn import Endpoint
from headlessconn.sync import Client, Pool, Service

BATCH = 5000  # turns between two looks at the clock
THREADS = 4
TARGET = "static:///" + ",".join(f"10.0.0.{n}:3306" for n in range(1, 4))


class Connection:
    """Nothing at all: what the connections themselves cost is not measured here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def close(self) -> None:
        pass


def _picks(service: Service) -> None:
    for _ in range(BATCH):
        with service.pick():
            pass


def _turns(pool: Pool[Connection]) -> None:
    for _ in range(BATCH):
        with pool.acquire():
            pass


def _from_one(work: Callable[[], None]) -> float:
    """µs of CPU a turn."""
    began = time.process_time()
    work()
    return (time.process_time() - began) / BATCH * 1e6


def _from_many(work: Callable[[], None]) -> float:
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    began = time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - began) / (BATCH * THREADS) * 1e6


def run(quick: bool) -> list[Figure]:
    costs: dict[str, list[float]] = {}
    with no_collector(), Client() as client:
        service = client.service(TARGET)
        service.ready(3)
        with service.pool(open=Connection, min_size=6, max_size=6) as pool:
            pool.ready()
            for repeat in range(3 + (5 if quick else 15)):
                taken = {
                    "pick + end, one thread": _from_one(lambda: _picks(service)),
                    f"pick + end, {THREADS} threads": _from_many(lambda: _picks(service)),
                    "pool, acquire + release, one thread": _from_one(lambda: _turns(pool)),
                    f"pool, acquire + release, {THREADS} threads": _from_many(lambda: _turns(pool)),
                }
                for what, cost in taken.items() if repeat >= 3 else ():
                    costs.setdefault(what, []).append(cost)
    limits = (8.0, 10.0, 8.0, 10.0)
    return [
        Figure(f"threads: {what}", min(cost), "µs", limit, note=spread(cost, "µs"))
        for (what, cost), limit in zip(costs.items(), limits, strict=True)
    ]
