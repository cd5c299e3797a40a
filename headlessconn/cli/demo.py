"""`headlessconn demo`: a script of events in the embedded cluster, and two clients who live through it side by side."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from dataclasses import asdict, dataclass

import aiohttp

from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.cli import render
from headlessconn.cli.load import Load
from headlessconn.cli.render import Frame, Measured, PodRow
from headlessconn.cli.screen import View
from headlessconn.cli.stock import ClusterResolver
from headlessconn.client import Client
from headlessconn.options import Options
from headlessconn.testing.cluster import EmbeddedCluster, EmbeddedService
from headlessconn.testing.pod import Pod

WORK = 0.02  # seconds a pod takes for a request: long enough that several are under way at once
WORKERS = 8
FRAMES = 4  # a second
EVENTS = 6  # shown at a time: all fits into 24 lines
NAMES = ("plain aiohttp", "headlessconn")


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how fast, how fresh. Spans are seconds; `seconds` is the whole without `gap`."""

    ttl: int = 5
    rate: float = 200.0
    seconds: float = 40.0
    gap: float = 0.0

    @property
    def steady(self) -> float:
        return 0.10 * self.seconds

    @property
    def scaled_out(self) -> float:
        """From the new pod's record to the rolling restart, the gap not counted."""
        return 0.33 * self.seconds

    @property
    def rolling(self) -> float:
        return 0.22 * self.seconds

    @property
    def crashed(self) -> float:
        return 0.22 * self.seconds

    @property
    def scaled_in(self) -> float:
        return 0.13 * self.seconds

    @property
    def window(self) -> float:
        """The share of the new pod is taken over so much of the end of `scaled_out`."""
        return min(5.0, self.scaled_out / 2)

    @property
    def shortest(self) -> float:
        """The least `seconds` in which a client that follows DNS is sure to have found the new pod in time."""
        return math.ceil((min(self.ttl, Options().refresh_max) + 1.0) / 0.33)

    @property
    def workers(self) -> int:
        """Twice as many as requests are under way on average, so that each comes in time."""
        return max(WORKERS, math.ceil(2 * self.rate * WORK))


@dataclass(frozen=True, slots=True)
class Result:
    plan: Plan
    plain: Measured
    headlessconn: Measured


async def run(plan: Plan, view: View) -> Result:
    """The whole demo. Cancelled, it closes all it opened: sessions, clients, pods, DNS."""
    timeout = aiohttp.ClientTimeout(total=10)
    async with EmbeddedCluster(ttl=plan.ttl) as cluster:
        orders = await cluster.service("orders", pods=2)
        stock = ClusterResolver(cluster.nameserver, cluster.search, cluster.ndots, by_srv=orders.port is None)
        options = Options(nameservers=(cluster.nameserver,), search=cluster.search, ndots=cluster.ndots)
        url = f"{orders.url}/slow?seconds={WORK}"
        async with (
            Client(options) as client,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=stock), timeout=timeout) as plain,
            aiohttp.ClientSession(
                connector=HeadlessConnector(client, targets=[orders.target]), timeout=timeout
            ) as balanced,
        ):
            loads = [
                Load(name, session, url, rate=plan.rate, workers=plan.workers)
                for name, session in zip(NAMES, (plain, balanced), strict=True)
            ]
            return await _Stage(plan, orders, loads, view).play()


class _Stage:
    """One performance."""

    def __init__(self, plan: Plan, orders: EmbeddedService, loads: list[Load], view: View) -> None:
        self._plan = plan
        self._orders = orders
        self._loads = loads
        self._view = view
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._events: list[tuple[float, str]] = []
        self._crashed: Pod | None = None

    async def play(self) -> Result:
        async with asyncio.TaskGroup() as tasks:
            for load in self._loads:
                tasks.create_task(load.run())
            showing = tasks.create_task(self._show())
            measured = await self._script()
            for load in self._loads:
                load.stop()
            showing.cancel()
        counted = [
            Measured(first, round(share, 4), load.failed, len(load.log))
            for (first, share), load in zip(measured, self._loads, strict=True)
        ]
        return Result(self._plan, *counted)

    async def _script(self) -> list[tuple[float | None, float]]:
        plan, orders = self._plan, self._orders
        self._say(f"{orders.name} has 2 pods")
        end = self._began + plan.steady
        await self._until(end)

        (new,) = await orders.add()
        listed_at = self._now()
        self._say(f"scale-out 2 → 3: {new.name} is ready and in DNS")
        if plan.gap:
            await self._pause()
        end = self._now() + plan.scaled_out
        await self._until(end)
        measured = [
            (self._since(load.first_at(new.name, end), listed_at), load.share(new.name, end - plan.window, end))
            for load in self._loads
        ]

        lag = plan.rolling / 6  # three pods, one after the other, in half of the time
        self._say(f"rolling restart: each pod closes its port at SIGTERM, DNS lists it {lag:.1f} s longer")
        await orders.roll(close_listener_at_once=True, dns_lag=lag)
        self._say("all pods are replaced")
        end += plan.rolling
        await self._until(end)

        await self._crash(orders.pods[0], plan.crashed / 6)
        end += plan.crashed
        await self._until(end)

        self._say(f"scale-in 3 → 2: {orders.pods[-1].name} is out of DNS and gets SIGTERM")
        await orders.scale(2, grace=min(1.0, plan.scaled_in / 4))
        await self._until(end + plan.scaled_in)
        return measured

    async def _pause(self) -> None:
        self._say(f"the load pauses for {self._plan.gap:g} s; plain aiohttp closes connections idle for 15 s")
        for load in self._loads:
            load.pause()
        await asyncio.sleep(self._plan.gap)
        for load in self._loads:
            load.resume()
        self._say("the load resumes")

    async def _crash(self, pod: Pod, lag: float) -> None:
        """The container dies, its pod is found not ready a little later, and the kubelet starts it again."""
        self._crashed = pod
        self._orders.crash(pod)
        self._say(f"{pod.name} crashes; DNS goes on listing it for {lag:.1f} s")
        await asyncio.sleep(lag)
        self._orders.unlist(pod)
        await asyncio.sleep(lag)
        await pod.start()
        self._orders.list(pod)
        self._crashed = None
        self._say(f"{pod.name} was started again and is in DNS")

    # ---- time and words ----------------------------------------------------------------------------------------

    async def _until(self, end: float) -> None:
        await asyncio.sleep(max(0.0, end - self._now()))

    def _since(self, at: float | None, listed_at: float) -> float | None:
        """A request may have been made just before the record appeared and sent after."""
        return None if at is None else round(max(0.0, at - listed_at), 3)

    def _say(self, text: str) -> None:
        at = self._now() - self._began
        self._events.append((at, text))
        self._view.event(at, text)

    async def _show(self) -> None:
        while True:
            self._view.frame(self._frame())
            await asyncio.sleep(1 / FRAMES)

    def _frame(self) -> Frame:
        plan, now = self._plan, self._now()
        rates = [load.rates(now) for load in self._loads]
        return Frame(
            at=now - self._began,
            total=plan.seconds + plan.gap,
            ttl=plan.ttl,
            most=plan.rate / 2,
            clients=NAMES,
            pods=tuple(
                PodRow(pod.name, self._state(pod), tuple(each[pod.name] for each in rates))
                for pod in self._orders.every
            ),
            requests=tuple(len(load.log) for load in self._loads),
            failed=tuple(load.failed for load in self._loads),
            events=tuple(self._events[-EVENTS:]),
        )

    def _state(self, pod: Pod) -> str:
        if pod.is_draining:
            return "terminating"
        if pod.is_running:
            return "ready"
        return "crashed" if pod is self._crashed else "gone"


def show(result: Result, *, as_json: bool, rich: bool) -> None:
    """The result to stdout."""
    plan, both = result.plan, (result.plain, result.headlessconn)
    if as_json:
        print(
            json.dumps({"ttl": plan.ttl, "plain": asdict(result.plain), "headlessconn": asdict(result.headlessconn)})
        )
        return
    rows = list(render.summary_rows(both, watched=plan.scaled_out + plan.gap, window=plan.window))
    if rich:
        from rich.console import Console

        Console().print(render.summary_table(NAMES, rows))
    else:
        for line in render.summary_lines(NAMES, rows):
            print(line)
    sys.stdout.flush()
    if result.plain.first_request_at_new_pod_s is None and not plan.gap:
        print(
            "Its connections stayed busy, so plain aiohttp had no reason to ask DNS again; "
            "watch it recover from a rest: headlessconn demo --gap 20",
            file=sys.stderr,
        )
