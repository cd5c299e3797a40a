"""What looking up costs: the loop's longest stall, the walk beside dnspython's parse, a look-up whole, 500 targets."""

from __future__ import annotations

import asyncio
import time
from asyncio import events
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import dns.asyncresolver
import dns.message
import dns.rrset

from benchmarks import processes
from benchmarks.figure import Figure, median, no_collector, spread
from headlessconn import Client, Options, Target
from headlessconn._runtime import wire
from headlessconn._runtime.dns import Resolver
from headlessconn._runtime.source import source_of
from headlessconn.core.lookup import Question, Reply

MANY = 1000
SERVICES = 800  # SRV records with their glue that still fit into one reply over TCP
TARGETS = 500
WINDOW = 0.1  # seconds


def _addresses(count: int) -> list[str]:
    return [f"10.1.{number >> 8}.{number & 255}" for number in range(count)]


# ---- the longest stall -----------------------------------------------------------------------------------------


@contextmanager
def _callbacks() -> Iterator[list[float]]:
    """ms of this thread's time that each callback of the loop took, the running one excepted.

    A task's first step is left out: there a look-up asks, all that comes later is reading and applying.
    """
    took: list[float] = []
    begun: set[asyncio.Task[Any]] = set()
    run = events.Handle._run

    def timed(handle: events.Handle) -> None:
        task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
        began = time.thread_time()
        run(handle)
        if isinstance(task, asyncio.Task) and task not in begun:
            begun.add(task)
        else:
            took.append((time.thread_time() - began) * 1000)

    events.Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield took
    finally:
        events.Handle._run = run  # type: ignore[method-assign]


async def _stall(dns: processes.Dns, target: str, count: int, rounds: int) -> list[float]:
    """The longest callback of each of several first look-ups of a client, from the question to the set in use."""
    longest = []
    for number in range(rounds + 1):
        async with Client(**dns.options) as client:
            with no_collector(), _callbacks() as took:
                service = client.service(target)
                await service.ready(count, 10.0)
                async with service.pick():
                    pass
            if number:  # the first one imports and warms
                longest.append(max(took))
    return longest


async def _stalls(dns: processes.Dns, rounds: int) -> list[Figure]:
    dns.headless("many.shop", _addresses(MANY), 8080)
    dns.headless("named.shop", _addresses(SERVICES), 8080)
    by_a = await _stall(dns, "many.shop:8080", MANY, rounds)
    by_srv = await _stall(dns, "named.shop:http", SERVICES, rounds)
    what = "longest callback, reading and applying"
    return [
        Figure(f"{what} {MANY} A", min(by_a), "ms", 0.5, note=spread(by_a, "ms")),
        Figure(f"{what} {SERVICES} SRV with glue", min(by_srv), "ms", 1, note=spread(by_srv, "ms")),
    ]


# ---- the walk --------------------------------------------------------------------------------------------------


def _walk(repeats: int) -> Figure:
    name = "many.shop.svc.cluster.local."
    query = dns.message.make_query(name, "A")
    response = dns.message.make_response(query)
    response.answer = [dns.rrset.from_text_list(name, 5, "IN", "A", _addresses(MANY))]
    data, size, question = response.to_wire(), len(wire.question_of(query.to_wire())), Question(name, "A")

    def ours() -> None:
        reply = _whole(wire.read(data, question, size, "tcp"))
        assert len(reply.addresses) == MANY

    ratios, took = [], []
    with no_collector():
        for _ in range(repeats):
            mine, theirs = _clocked(ours), _clocked(lambda: dns.message.from_wire(data))
            ratios.append(theirs / mine)
            took.append(mine)
    note = f"{median(took) * 1000:.2f} ms; {spread(ratios)}"
    return Figure(f"dnspython's parse of {MANY} A over the walk", median(ratios), "×", 50, True, note)


def _whole(walk: Generator[None, None, Reply]) -> Reply:
    """What a walk returns, without its pauses."""
    while True:
        try:
            next(walk)
        except StopIteration as done:
            reply: Reply = done.value
            return reply


def _clocked(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


# ---- a look-up whole -------------------------------------------------------------------------------------------


async def _look_up(dns_: processes.Dns, pods: int, limit: float, repeats: int) -> Figure:
    """Both ask the same server in turns, and both have asked before: ours knows by then that a long one needs TCP."""
    dns_.headless("asked.shop", _addresses(pods), 8080)
    options = Options(**dns_.options)
    now = asyncio.get_running_loop().time
    source = source_of(Target.parse("asked.shop:8080"), options, Resolver(options), now)
    theirs = dns.asyncresolver.Resolver(configure=False)
    address, _, port = dns_.nameserver.rpartition(":")
    theirs.nameservers, theirs.port = [address], int(port)
    ratios, took = [], []
    with no_collector():
        for number in range(repeats + 2):
            began = time.perf_counter()
            answer = await source.look_up()
            between = time.perf_counter()
            records = await theirs.resolve("asked.shop.svc.cluster.local.", "A")
            ended = time.perf_counter()
            assert len(answer.keys) == len(records) == pods
            if number >= 2:
                ratios.append((between - began) / (ended - between))
                took.append((between - began) * 1000)
    note = f"{median(took):.2f} ms; {spread(ratios)}"
    return Figure(f"a look-up of {pods} pods over dns.asyncresolver's", median(ratios), "×", limit, note=note)


# ---- many targets ----------------------------------------------------------------------------------------------


async def _many_targets(dns_: processes.Dns, seconds: float) -> Figure:
    """All targets are first used at once, the worst case. The first look-ups cannot wait; from then on they spread."""
    names = [f"spread-{number}.shop" for number in range(TARGETS)]
    for name in names:
        dns_.headless(name, ["10.2.0.1", "10.2.0.2"], 8080)
    async with Client(**dns_.options) as client:
        services = [client.service(f"{name}:8080") for name in names]
        await asyncio.gather(*(service.ready(2, 10.0) for service in services))
        await asyncio.sleep(0.5)
        since = time.monotonic()
        await asyncio.sleep(seconds)
    times = [at for at in dns_.query_times() if since <= at < since + seconds]
    most = max(bisect_left(times, at + WINDOW) - index for index, at in enumerate(times))
    mean = len(times) / seconds * WINDOW
    note = f"at most {most}, mean {mean:.1f}, over the {seconds:g} s after the first answers"
    return Figure(f"{TARGETS} targets, TTL 5: look-ups in any 100 ms over the mean", most / mean, "×", 3, note=note)


async def _all(dns_: processes.Dns, quick: bool) -> list[Figure]:
    return [
        *await _stalls(dns_, 8 if quick else 30),
        _walk(10 if quick else 40),
        await _look_up(dns_, 3, 0.7, 50 if quick else 300),
        await _look_up(dns_, MANY, 0.2, 8 if quick else 40),
        await _many_targets(dns_, 10.0 if quick else 30.0),
    ]


def run(quick: bool) -> list[Figure]:
    with processes.dns() as dns_:
        return asyncio.run(_all(dns_, quick))
