"""One client of the fault lab, in a process of its own: an open-loop load, and what became of each request.

A job is a line of JSON on stdin, its records are a line on stdout; the end of stdin ends the process. Open loop: a
request starts when its time has come, however many are still waiting, as independent users do. Latency counts from
the moment a request really started, so a late timer on a busy machine is not the client's; how late they were is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import aiohttp

from headlessconn import Client
from headlessconn.adapters.aiohttp import HeadlessConnector

TIMEOUT = 5.0
"""Seconds for a whole request, as in every table of this kind."""

HEDGE_AFTER = 0.05
"""Seconds of silence after which the hedged column sends a copy: far above what a pod of the lab takes (1 ms)."""


@dataclass(frozen=True)
class Job:
    """What to do. `sessions` are independent of each other: own connections, own client, own dice.

    kind       "plain", "ours", "hedged"
    options    of `headlessconn.Options`, for ours
    urls       one for each session
    start      `time.monotonic()` of the first request
    rate       requests a second, of each session
    burst_at   seconds after `start` at which `burst` more requests start at once
    posts      share of POSTs; the rest are GETs
    """

    kind: str
    urls: list[str]
    start: float
    rate: float
    seconds: float
    label: str
    options: dict[str, Any]
    limit: int = 100
    posts: float = 0.1
    burst: int = 0
    burst_at: float = 0.0
    seed: int = 0


class Record(NamedTuple):
    """One request. `at` is relative to the job's start, `outcome` is "ok", a status, or the name of an exception."""

    at: float
    took: float
    outcome: str
    method: str
    pod: str


@contextlib.asynccontextmanager
async def open_session(job: Job) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    if job.kind == "plain":
        connector = aiohttp.TCPConnector(limit=job.limit)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session
        return
    hedge_after = HEDGE_AFTER if job.kind == "hedged" else None
    async with Client(**job.options) as client:
        connector = HeadlessConnector(client, limit=job.limit, hedge_after=hedge_after)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session


class Load:
    """The load of one session."""

    def __init__(self, job: Job, number: int) -> None:
        self._job = job
        self._url = job.urls[number]
        self._label = f"{job.label}/{number}"
        self._dice = random.Random(job.seed * 1000 + number)
        self._pending: set[asyncio.Task[None]] = set()
        self._sent = 0
        self.records: list[Record] = []
        self.errors: dict[str, str] = {}  # the first of each kind, in its own words
        self.latest = 0.0

    async def run(self) -> None:
        job = self._job
        step = 1 / job.rate
        first = job.start + self._dice.random() * step
        times = [first + step * count for count in range(int(job.seconds * job.rate))]
        times += [job.start + job.burst_at] * job.burst
        async with open_session(job) as session:
            for due in sorted(times):
                now = time.monotonic()
                if due > now:
                    await asyncio.sleep(due - now)
                    self.latest = max(self.latest, time.monotonic() - due)
                task = asyncio.create_task(self._request(session))
                self._pending.add(task)
                task.add_done_callback(self._pending.discard)
            await asyncio.gather(*self._pending)

    async def _request(self, session: aiohttp.ClientSession) -> None:
        self._sent += 1
        method = "POST" if self._dice.random() < self._job.posts else "GET"
        headers = {"X-Request-Id": f"{self._label}/{self._sent}"}
        began, pod = time.monotonic(), ""
        try:
            body = b"x" * 64 if method == "POST" else None
            async with session.request(method, self._url, headers=headers, data=body) as response:
                pod = (await response.read()).decode()
                outcome = "ok" if response.status == 200 else str(response.status)
        except Exception as error:
            outcome = type(error).__name__
            self.errors.setdefault(outcome, str(error))
        took = time.monotonic() - began
        self.records.append(Record(began - self._job.start, took, outcome, method, pod if outcome == "ok" else ""))


async def do(job: Job) -> dict[str, Any]:
    loads = [Load(job, number) for number in range(len(job.urls))]
    await asyncio.gather(*(load.run() for load in loads))
    return {
        "records": [load.records for load in loads],
        "errors": [load.errors for load in loads],
        "latest": max(load.latest for load in loads),
    }


def encode(job: Job) -> bytes:
    return json.dumps(asdict(job)).encode() + b"\n"


def main() -> None:
    for line in sys.stdin:
        json.dump(asyncio.run(do(Job(**json.loads(line)))), sys.stdout)
        sys.stdout.write("\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
