"""A steady load through one aiohttp session, and what became of each request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple

import aiohttp


class Sent(NamedTuple):
    """A request: when it was made and when it ended (loop time), and the pod that answered, or None when it failed."""

    at: float
    ended: float
    pod: str | None


class Load:
    """`workers` workers which together send `rate` GETs a second, until `stop`.

    Whenever the load begins or resumes all workers send at once, and a pod takes its time to answer; so each opens a
    connection, and since no more than that many requests are ever under way, no worker needs a new one later. From
    then on they take turns. A worker that is late goes on from where it is: a stall is not followed by a burst.
    """

    def __init__(self, name: str, session: aiohttp.ClientSession, url: str, *, rate: float, workers: int) -> None:
        self.name = name
        self.log: list[Sent] = []
        self.failed = 0
        self._session = session
        self._url = url
        self._workers = workers
        self._period = workers / rate  # seconds between two requests of one worker
        self._flowing = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        """Send until `stop`; returns when the last request has ended."""
        self._flowing.set()
        await asyncio.gather(*map(self._work, range(self._workers)))

    def pause(self) -> None:
        """Send nothing more; connections become idle."""
        self._flowing.clear()

    def resume(self) -> None:
        self._flowing.set()

    def stop(self) -> None:
        self._stopped = True
        self._flowing.set()

    async def _work(self, number: int) -> None:
        now = asyncio.get_running_loop().time
        while not self._stopped:
            await self._flowing.wait()
            due = now() + self._period * number / self._workers
            while self._flowing.is_set() and not self._stopped:
                await self._send(now())
                due = max(due + self._period, now())
                await asyncio.sleep(due - now())

    async def _send(self, at: float) -> None:
        pod = None
        try:
            async with self._session.get(self._url) as response:
                await response.read()
                if response.status < 500:
                    pod = response.headers.get("X-Pod")
        except (aiohttp.ClientError, OSError):  # TimeoutError and headlessconn's NoEndpoints are OSErrors, too
            pass
        self.log.append(Sent(at, asyncio.get_running_loop().time(), pod))
        self.failed += pod is None

    # ---- what became of them -----------------------------------------------------------------------------------

    def first_at(self, pod: str, until: float) -> float | None:
        """When the first request that `pod` answered was made, if it was before `until`."""
        return min((sent.at for sent in self.log if sent.pod == pod and sent.at < until), default=None)

    def share(self, pod: str, since: float, until: float) -> float:
        """The part of the answered requests of that time which `pod` answered: 0.0 to 1.0."""
        answered = [sent.pod for sent in self.log if since <= sent.at < until and sent.pod is not None]
        return answered.count(pod) / len(answered) if answered else 0.0

    def rates(self, now: float, over: float = 1.0) -> Counter[str]:
        """Requests answered by each pod in the last `over` seconds, as a rate a second."""
        counts: Counter[str] = Counter()
        for sent in reversed(self.log):
            if sent.ended < now - over:  # the log is in the order of the ends
                break
            if sent.pod is not None:
                counts[sent.pod] += 1
        return Counter({pod: round(count / over) for pod, count in counts.items()})
