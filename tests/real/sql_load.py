"""Workers on one set-up, in a process of its own: each checks a connection out, runs one statement, checks it in.

Told over stdin, one JSON object a line: first a job, answered by `{"ready": true}` once the pool is full; then
`{"start": T}` (monotonic clock), answered by the records when the job's seconds are over. The process then ends hard:
a thread that waits for a dead server cannot be stopped otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from tests.real.sql_setup import AsyncSetUp, BlockingSetUp, Where, make

FILL = "SELECT @@server_id, MASTER_GTID_WAIT('9-99-999', 2)"
"""It waits 2 s. Run by as many at once as the pool has places: none finds a connection that another gave back.

So long, because some pools dial one after the other, and a first connection may take 0.1 s.
"""
PAUSE_AFTER_ERROR = 0.1
"""Seconds: an application has a back-off, and a refused connection fails in a millisecond."""
UNFINISHED = "unfinished"
"""The error of a statement that had not ended when the load did."""


class Record(NamedTuple):
    """One statement: when it began (seconds since the start), how long it took, `@@server_id` or 0, the error or ""."""

    at: float
    took: float
    server: int
    error: str


@dataclass(frozen=True)
class Job:
    """`pause`: seconds between two statements of a worker."""

    setup: str
    where: Where
    statement: str
    seconds: float
    workers: int
    pause: float = 0.0

    @classmethod
    def of(cls, told: dict[str, Any]) -> Job:
        return cls(**{**told, "where": Where(**told["where"])})


def name_of(error: BaseException) -> str:
    """`"OperationalError 2013"`, also of the error which SQLAlchemy wraps."""
    inner = getattr(error, "orig", None) or error
    code = getattr(inner, "errno", None) or next((part for part in inner.args if isinstance(part, int)), None)
    return f"{type(inner).__name__} {code}" if code else type(inner).__name__


class _Log:
    """What the workers did, and what each is doing."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.records: list[Record] = []
        self._began: dict[int, float] = {}

    def begin(self, worker: int) -> None:
        self._began[worker] = time.monotonic()

    def end(self, worker: int, server: int, error: str = "") -> None:
        began = self._began.pop(worker)
        self.records.append(Record(began - self.start, time.monotonic() - began, server, error))

    def unfinished(self) -> list[Record]:
        now = time.monotonic()
        return [Record(began - self.start, now - began, 0, UNFINISHED) for began in self._began.copy().values()]


async def run_async(setup: AsyncSetUp, job: Job, start: float) -> list[Record]:
    log, end = _Log(start), start + job.seconds

    async def work(worker: int) -> None:
        while time.monotonic() < end:
            log.begin(worker)
            try:
                log.end(worker, await setup.query(job.statement))
            except Exception as error:
                log.end(worker, 0, name_of(error))
                await asyncio.sleep(PAUSE_AFTER_ERROR)
            await asyncio.sleep(job.pause)

    await asyncio.sleep(max(0.0, start - time.monotonic()))
    workers = [asyncio.create_task(work(worker)) for worker in range(job.workers)]
    _, pending = await asyncio.wait(workers, timeout=end + 1.0 - time.monotonic())
    records = log.records + log.unfinished()
    for worker in pending:
        worker.cancel()
    return records


def run_blocking(setup: BlockingSetUp, job: Job, start: float) -> list[Record]:
    log, end = _Log(start), start + job.seconds

    def work(worker: int) -> None:
        while time.monotonic() < end:
            log.begin(worker)
            try:
                log.end(worker, setup.query(job.statement))
            except Exception as error:
                log.end(worker, 0, name_of(error))
                time.sleep(PAUSE_AFTER_ERROR)
            time.sleep(job.pause)

    time.sleep(max(0.0, start - time.monotonic()))
    threads = [threading.Thread(target=work, args=[worker], daemon=True) for worker in range(job.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end + 1.0 - time.monotonic()))
    return log.records + log.unfinished()


def main() -> None:
    job = Job.of(json.loads(sys.stdin.readline()))
    setup = make(job.setup, job.where)
    if isinstance(setup, AsyncSetUp):
        asyncio.run(_async(setup, job))
    else:
        _blocking(setup, job)


async def _async(setup: AsyncSetUp, job: Job) -> None:
    await setup.open()
    await asyncio.gather(*(setup.query(FILL) for _ in range(job.where.size)))
    start = await asyncio.to_thread(_told_to_start)
    _report(await run_async(setup, job, start))


def _blocking(setup: BlockingSetUp, job: Job) -> None:
    setup.open()
    with ThreadPoolExecutor(job.where.size) as threads:
        list(threads.map(setup.query, [FILL] * job.where.size))
    _report(run_blocking(setup, job, _told_to_start()))


def _told_to_start() -> float:
    _say({"ready": True})
    return float(json.loads(sys.stdin.readline())["start"])


def _report(records: list[Record]) -> None:
    _say({"records": records})
    os._exit(0)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def encode(job: Job) -> bytes:
    return json.dumps(asdict(job)).encode() + b"\n"


if __name__ == "__main__":
    main()
