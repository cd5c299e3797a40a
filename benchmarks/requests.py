"""What a balanced request costs: `HeadlessConnector` beside a plain `TCPConnector` in one process and one event loop.

Both spread over the same three pods; the plain one by a resolver that gives all addresses, which aiohttp rotates as it
dials. Closed loop: each worker sends its next request when it has read the answer. A pair is the same number of
requests of each, in short stretches that take turns, so that a busy neighbour, a warm cache or a slow clock hits both.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from benchmarks import processes
from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector

WORKERS = (16, 64)
PODS = 3
TURNS = 12  # stretches of each that make a pair: about 30 ms a stretch, shorter than what neighbours do

# asyncio reads into 256 KiB at a time. glibc gives such a block by mmap and takes it back by munmap, three system calls
# a read, until it has once seen a larger one freed: 20 µs a request, there or not by the luck of the heap.
LARGEST_FREED = 16 << 20


class _All(AbstractResolver):
    """Every pod's address, for any name."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


class _Cost(NamedTuple):
    cpu: float  # seconds of this process
    took: float  # seconds

    def __add__(self, other: _Cost) -> _Cost:  # type: ignore[override]
        return _Cost(self.cpu + other.cpu, self.took + other.took)


async def _stretch(session: aiohttp.ClientSession, url: str, workers: int, each: int) -> _Cost:
    async def work() -> None:
        for _ in range(each):
            async with session.get(url) as response:
                await response.read()

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return _Cost(time.process_time() - cpu, time.perf_counter() - began)


async def _pair(
    ours: aiohttp.ClientSession, plain: aiohttp.ClientSession, url: str, workers: int, each: int
) -> tuple[_Cost, _Cost]:
    """What the same requests cost with us, and without."""
    with_us = without = _Cost(0, 0)
    gc.collect()
    for turn in range(TURNS):
        if turn % 2:
            with_us += await _stretch(ours, url, workers, each)
            without += await _stretch(plain, url, workers, each)
        else:
            without += await _stretch(plain, url, workers, each)
            with_us += await _stretch(ours, url, workers, each)
    return with_us, without


async def _compare(addresses: list[str], port: int, dns: processes.Dns, pairs: int, requests: int) -> list[Figure]:
    url = f"http://orders.shop:{port}/"
    dns.headless("orders.shop", addresses, port)
    figures = []
    async with (
        Client(**dns.options) as client,
        aiohttp.ClientSession(connector=HeadlessConnector(client)) as ours,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_All(addresses))) as plain,
    ):
        for workers in WORKERS:
            each = requests // TURNS // workers
            count = each * workers * TURNS
            await _pair(ours, plain, url, workers, each)  # dials what there is to dial
            costs = [await _pair(ours, plain, url, workers, each) for _ in range(pairs)]
            extra = [(with_us.cpu - without.cpu) / count * 1e6 for with_us, without in costs]
            rates = [without.took / with_us.took for with_us, without in costs]
            base = median([without.cpu for _, without in costs]) / count * 1e6
            note = f"plain takes {base:.0f} µs; {spread(extra, 'µs')}"
            figures += [
                Figure(f"extra client CPU a request, {workers} workers", median(extra), "µs", 8, note=note),
                Figure(f"requests/s over plain, {workers} workers", median(rates), "×", 0.94, True, spread(rates)),
            ]
    return figures


def run(quick: bool) -> list[Figure]:
    pairs, requests = (5, 1536) if quick else (30, 3072)
    bytes(LARGEST_FREED)
    with processes.pods(PODS) as (addresses, port), processes.dns() as dns, no_collector():
        return asyncio.run(_compare(addresses, port, dns, pairs, requests))
