"""How well an aiohttp session follows pods that come, go and die, under 400 requests a second, with real DNS and pods.

Cluster and client share one process here: times are of DNS's TTL, not of the processor.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp

from benchmarks.figure import Figure, median
from benchmarks.load import Load
from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.core.member import State
from headlessconn.testing import EmbeddedCluster, Pod
from headlessconn.testing.cluster import EmbeddedService

TTL = 5.0
WATCHED = 5.0  # seconds over which the new pod's share is counted
LAG = 2.0  # seconds that DNS goes on listing a pod which has closed its port
IN_FLIGHT = 200
BOTH = ("GET", "POST")


@asynccontextmanager
async def _shop(**options: Any) -> AsyncIterator[tuple[EmbeddedService, Client, aiohttp.ClientSession]]:
    """Three pods and a session that knows them."""
    socket_factory = options.pop("socket_factory", None)
    async with (
        EmbeddedCluster(ttl=TTL) as cluster,
        Client(**cluster.resolver, **options) as client,
        aiohttp.ClientSession(connector=HeadlessConnector(client, limit=0, socket_factory=socket_factory)) as session,
    ):
        orders = await cluster.service("orders", pods=3)
        await client.service(orders.target).ready(3)
        yield orders, client, session


# ---- a pod more ------------------------------------------------------------------------------------------------


class _Arrival(NamedTuple):
    first_after: float  # seconds from the record's appearance to the first request
    share: float  # of fair, over the WATCHED seconds after that


async def _scale_out(times: int, watched: float, **options: Any) -> list[_Arrival]:
    arrivals = []
    async with _shop(**options) as (orders, _, session), Load(session, orders.url):
        await asyncio.sleep(1.0)
        for _ in range(times):
            (pod,) = await orders.add()
            appeared = _now()  # it is published last
            await pod.until(lambda pod=pod: bool(pod.requests))  # type: ignore[misc]
            first = pod.requests[0].at
            await asyncio.sleep(watched)
            counts = Counter(each.name for each in orders.pods for request in each.requests if request.at >= first)
            fair = counts.total() / len(orders.pods)
            arrivals.append(_Arrival(first - appeared, counts[pod.name] / fair))
    return arrivals


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _arrivals(times: int) -> list[Figure]:
    usual = await _scale_out(times, WATCHED)
    prompt = await _scale_out(2 * times, 0.2, refresh_max=1.0)
    shares = [arrival.share for arrival in usual]
    latest, soonest = max(arrival.first_after for arrival in usual), max(arrival.first_after for arrival in prompt)
    what = "scale-out: new pod's first request after its record appears, worst of"
    return [
        Figure(f"{what} {times}, TTL 5 s", latest, "s", TTL + 0.5),
        Figure("scale-out: new pod's share over the 5 s after, of fair", median(shares), "×", 0.9, True),
        Figure(f"{what} {2 * times}, refresh_max=1", soonest, "s", 1.5),
    ]


# ---- pods that leave -------------------------------------------------------------------------------------------


async def _departure(what: str, how: Any, times: int) -> Figure:
    """`how(orders)` is done `times` times under load; every failed request counts."""
    async with _shop() as (orders, _, session), Load(session, orders.url, methods=BOTH) as load:
        await asyncio.sleep(1.0)
        for _ in range(times):
            await how(orders)
            await asyncio.sleep(0.5)
    note = f"of {load.requests}" + "".join(f"; {count} {name}" for name, count in sorted(load.failures.items()))
    return Figure(f"failed requests, half of them POST: {what}", load.failed, "", 0, note=note)


async def _scale_in(orders: EmbeddedService) -> None:
    """A pod that serves on for a TTL and a little after it left DNS, as with a preStop pause."""
    (pod,) = await orders.add()
    await pod.until(lambda: bool(pod.requests))
    await orders.remove(orders.pods[0], grace=TTL + 1.0)


async def _departures(quick: bool) -> list[Figure]:
    async def roll(orders: EmbeddedService) -> None:
        await orders.roll(surge=1, grace=2.0)

    async def abrupt(orders: EmbeddedService) -> None:
        await orders.roll(surge=1, close_listener_at_once=True, dns_lag=LAG)

    times = 1 if quick else 2
    rolled = "rolling restart"
    return [
        await _departure("graceful scale-in", _scale_in, times),
        await _departure(f"{rolled} with grace", roll, times),
        await _departure(f"{rolled}, pods close at SIGTERM, DNS lags {LAG:g} s", abrupt, times),
    ]


# ---- a pod that dies -------------------------------------------------------------------------------------------


async def _crash(seconds: float) -> list[Figure]:
    """One of three pods dies with GETs in flight at all of them, and the load goes on; DNS goes on listing it."""
    dials: list[tuple[str, float]] = []

    def dialling(info: tuple[Any, ...]) -> socket.socket:
        dials.append((info[4][0], _now()))
        return socket.socket(*info[:3])

    async with _shop(socket_factory=dialling) as (orders, client, session):
        failing: list[float] = []
        corpse = orders.pods[0]
        watching = asyncio.create_task(_watch(client, orders, corpse, failing))
        async with Load(session, f"{orders.url}/slow?seconds=2", count=IN_FLIGHT) as burst:
            while sum(pod.in_flight for pod in orders.pods) < IN_FLIGHT:  # noqa: ASYNC110  three pods, no one event
                await asyncio.sleep(0.01)
            lost, waiting = corpse.in_flight, sum(pod.in_flight for pod in orders.pods)
            orders.crash(corpse)
        async with Load(session, orders.url) as after:
            await asyncio.sleep(seconds)
        watching.cancel()
    since = min(failing, default=float("inf"))
    at_corpse = sum(address == corpse.address and at > since for address, at in dials)
    told = f"{lost} of {waiting} were at the dead pod" + "".join(f"; {n} {e}" for e, n in burst.failures.items())
    return [
        Figure(f"crash with {IN_FLIGHT} GETs in flight: failed", burst.failed, note=told),
        Figure(f"crash: failed in the {seconds:g} s after", after.failed, note=f"of {after.requests}"),
        Figure("crash: requests' dials at the dead pod after the first refused one", at_corpse, "", 0),
    ]


async def _watch(client: Client, orders: EmbeddedService, pod: Pod, failing: list[float]) -> None:
    """Write down when the pod is known not to take connections."""
    async for change in client.service(orders.target).changes():
        moves = [move for move in change.moves if move.endpoint.address == pod.address]
        failing.extend(change.at for move in moves if move.after is State.FAILING)


async def _all(quick: bool) -> list[Figure]:
    return [*await _arrivals(1 if quick else 3), *await _departures(quick), *await _crash(5.0 if quick else 15.0)]


def run(quick: bool) -> list[Figure]:
    return asyncio.run(_all(quick))
