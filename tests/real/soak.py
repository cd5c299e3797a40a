"""`python -m tests.real.soak [--minutes 20] [--seed N]`: random faults under load, and what is left at the end.

A cluster on loopback in a process of its own adds, drains, rolls, kills, freezes, slows its pods and makes its DNS go
wrong, all drawn from a seed; at least two pods are well at any time. The client in this process sends requests of many
kinds through two connectors, one of them hedged. Once a minute the load pauses, and the books must balance: no pick in
flight, no task, no descriptor beyond those of the connections kept. At the end memory must be flat.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.testing import EmbeddedCluster, EmbeddedService, Pod

WELL = 2  # pods that no fault touches, at any time
TIMEOUT = 5.0  # seconds for a whole request
PERIOD = 60.0  # seconds between two looks at the books
GROWTH = 0.10  # of resident memory from a third of the time on: what is above is a leak, or nearly
WORKERS = 24
PAUSE = 0.05  # seconds between two requests of a worker


def tell(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


# ---- the world -------------------------------------------------------------------------------------------------------


class Trouble:
    """What befalls the cluster, one thing after the other."""

    def __init__(self, orders: EmbeddedService, cluster: EmbeddedCluster, dice: random.Random) -> None:
        self._orders = orders
        self._cluster = cluster
        self._dice = dice
        self.happened: Counter[str] = Counter()

    async def go_on(self) -> None:
        kinds = [self._scale, self._roll, self._kill, self._freeze, self._fail, self._slow, self._flap, self._dns]
        while True:
            kind = self._dice.choice(kinds)
            self.happened[kind.__name__.strip("_")] += 1
            await kind()
            for pod in self._orders.every:
                pod.requests.clear()
            await asyncio.sleep(self._dice.uniform(0.2, 1.5))

    def _victim(self) -> Pod | None:
        pods = self._orders.pods
        return self._dice.choice(pods) if len(pods) > WELL else None

    async def _scale(self) -> None:
        await self._orders.scale(self._dice.randint(WELL + 1, 7), grace=1.5)

    async def _roll(self) -> None:
        await self._orders.roll(grace=1.5, close_listener_at_once=self._dice.random() < 0.5)

    async def _kill(self) -> None:
        if pod := self._victim():
            self._orders.crash(pod)
            await asyncio.sleep(self._dice.uniform(0.1, 4.0))
            self._orders.unlist(pod)
            await self._orders.add()

    async def _freeze(self) -> None:
        await self._ail(lambda pod: pod.freeze())

    async def _fail(self) -> None:
        await self._ail(lambda pod: pod.fail(self._dice.choice((500, 502, 503))))

    async def _slow(self) -> None:
        await self._ail(lambda pod: pod.slow(self._dice.uniform(0.05, 2.0)))

    async def _ail(self, ailment: Any) -> None:
        if pod := self._victim():
            ailment(pod)
            await asyncio.sleep(self._dice.uniform(0.5, 6.0))
            pod.recover()

    async def _flap(self) -> None:
        if pod := self._victim():
            self._orders.unlist(pod)
            await asyncio.sleep(self._dice.uniform(0.1, 3.0))
            self._orders.list(pod)

    async def _dns(self) -> None:
        trouble: dict[str, Any] = self._dice.choice(
            ({"rcode": "SERVFAIL"}, {"silent": True}, {"truncate": True, "transport": "udp"}, {"delay": 1.0})
        )
        with self._cluster.zone.trouble(**trouble):
            await asyncio.sleep(self._dice.uniform(0.5, 8.0))


async def world(seed: int) -> None:
    """Until stdin ends."""
    async with EmbeddedCluster(ttl=1) as cluster:
        orders = await cluster.service("orders", pods=4, port=8080)
        trouble = Trouble(orders, cluster, random.Random(seed))
        tell(json.dumps({"resolver": cluster.resolver, "target": orders.target, "url": orders.url}))
        going_on = asyncio.create_task(trouble.go_on())
        await asyncio.to_thread(sys.stdin.read)
        going_on.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going_on
        tell(json.dumps(trouble.happened))


# ---- the client ------------------------------------------------------------------------------------------------------


class Soak:
    def __init__(self, place: dict[str, Any], dice: random.Random) -> None:
        self._url: str = place["url"]
        self._dice = dice
        self.outcomes: Counter[str] = Counter()
        self.running = asyncio.Event()
        self.busy = 0
        self.quiet = asyncio.Event()

    async def work(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self.running.wait()
            self.busy += 1
            try:
                await self._request(session)
            finally:
                self.busy -= 1
                if not self.busy:
                    self.quiet.set()
            await asyncio.sleep(PAUSE * self._dice.uniform(0.5, 1.5))

    async def _request(self, session: aiohttp.ClientSession) -> None:
        kind = self._dice.choices(("get", "put", "stream", "post", "cancelled"), (60, 15, 10, 10, 5))[0]
        try:
            async with asyncio.timeout(0.002 if kind == "cancelled" else None):
                match kind:
                    case "put" | "post":
                        async with session.request(kind, f"{self._url}/echo", data=b"x" * 2000) as response:
                            status, whole = response.status, len(await response.read()) == 2000
                    case "stream":
                        async with session.get(f"{self._url}/stream?chunks=5&seconds=0.01") as response:
                            status, whole = response.status, (await response.read()).count(b"\n") == 5
                    case _:
                        async with session.get(self._url) as response:
                            status, whole = response.status, bool(await response.read())
            outcome = "ok" if whole and status == 200 else f"status {status}"
        except Exception as error:
            outcome = type(error).__name__
        self.outcomes[f"{kind}: {outcome}"] += 1

    async def pause(self) -> None:
        """Wait until nothing is under way."""
        self.running.clear()
        self.quiet.clear()
        if self.busy:
            await self.quiet.wait()


def resident() -> float:
    """MiB."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def soak(seconds: float, seed: int, child: subprocess.Popen[str], period: float = PERIOD) -> list[str]:
    """What is wrong; nothing when all is well."""
    assert child.stdout is not None
    place = json.loads(await asyncio.to_thread(child.stdout.readline))
    place["resolver"]["nameservers"] = tuple(place["resolver"]["nameservers"])
    load = Soak(place, random.Random(seed))
    wrong: list[str] = []
    tasks_before, open_before = len(asyncio.all_tasks()), descriptors()
    memory: list[float] = []
    began = time.monotonic()
    async with Client(refresh_min=0.2, refresh_max=1.0, **place["resolver"]) as client:
        service = client.service(place["target"])
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with (
            aiohttp.ClientSession(connector=HeadlessConnector(client), timeout=timeout) as plain,
            aiohttp.ClientSession(connector=HeadlessConnector(client, hedge_after=0.1), timeout=timeout) as hedged,
        ):
            workers = [asyncio.create_task(load.work(s)) for s in (plain, hedged) for _ in range(WORKERS // 2)]
            while time.monotonic() - began < seconds:
                load.running.set()
                await asyncio.sleep(min(period, seconds - (time.monotonic() - began)) + 0.01)
                await load.pause()
                held: list[tuple[str, int]] = []
                for _ in range(100):  # copies and dials that were cancelled end within a few turns of the loop
                    await asyncio.sleep(0.02)
                    held = [(str(m.endpoint), m.in_flight) for m in service.snapshot.members if m.in_flight]
                    if not held:
                        break
                else:
                    wrong.append(f"after {time.monotonic() - began:.0f} s: picks in flight at {held}")
                memory.append(resident())
                driver = service.driver()
                budget = driver.engine.budget
                tell(
                    f"{time.monotonic() - began:6.0f} s  {sum(load.outcomes.values()):7d} requests  "
                    f"{len(asyncio.all_tasks()) - tasks_before - len(workers):3d} tasks  "
                    f"{descriptors():4d} descriptors  "
                    f"{memory[-1]:6.1f} MiB  {budget.spent} repeated, {budget.refused} refused by the budget",
                )
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    await asyncio.sleep(0.3)
    if (left := len(asyncio.all_tasks()) - tasks_before) > 0:
        wrong.append(f"{left} tasks are left: {[task.get_coro() for task in asyncio.all_tasks()]}")
    if (left := descriptors() - open_before) > 0:
        wrong.append(f"{left} descriptors are left")
    settled = memory[len(memory) // 3]
    if len(memory) >= 6 and memory[-1] > settled * (1 + GROWTH):
        wrong.append(f"memory grew from {settled:.1f} to {memory[-1]:.1f} MiB")
    for outcome, count in sorted(load.outcomes.items()):
        tell(f"{count:8d}  {outcome}")
        kind, _, what = outcome.partition(": ")
        if kind in ("get", "put") and what not in ("ok", "status 500"):
            wrong.append(f"{count} × {outcome}, though {WELL} pods were well all the time")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--period", type=float, default=PERIOD, help="seconds between two looks at the books")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--world", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.world:
        asyncio.run(world(arguments.seed))
        return 0
    command = [sys.executable, "-m", "tests.real.soak", "--world", "--seed", str(arguments.seed)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            wrong = asyncio.run(soak(arguments.minutes * 60, arguments.seed, child, arguments.period))
            happened, _ = child.communicate(timeout=60)
            tell("what befell the pods:", happened.strip())
        finally:
            child.kill()
    tell("\n".join(f"WRONG: {line}" for line in wrong) or "nothing is left, and memory is flat")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
