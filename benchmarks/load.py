"""A steady load, open loop: a request goes out when it is due, whether or not those before have come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import cycle
from math import inf
from types import TracebackType
from typing import Self

import aiohttp

PATIENCE = aiohttp.ClientTimeout(total=15)


class Load:
    """So many requests a second, from `async with` on, or until there were `count`; those under way at its end are
    waited for.

    requests, failures   how many there were, and how those that failed did, by error and method
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        rate: float = 400.0,
        methods: tuple[str, ...] = ("GET",),
        count: float = inf,
    ) -> None:
        self.requests = 0
        self.failures: Counter[str] = Counter()
        self._session = session
        self._url = url
        self._period = 1.0 / rate
        self._methods = cycle(methods)
        self._count = count

    @property
    def failed(self) -> int:
        return self.failures.total()

    async def __aenter__(self) -> Self:
        self._pace = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count = 0
        await self._pace

    async def _run(self) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        async with asyncio.TaskGroup() as under_way:
            while self.requests < self._count:
                while due <= now() and self.requests < self._count:
                    due += self._period
                    self.requests += 1
                    under_way.create_task(self._request(next(self._methods)))
                await asyncio.sleep(due - now())

    async def _request(self, method: str) -> None:
        try:
            async with self._session.request(method, self._url, timeout=PATIENCE) as response:
                await response.read()
                if response.status >= 500:
                    self.failures[f"{response.status} {method}"] += 1
        except (aiohttp.ClientError, OSError) as error:
            self.failures[f"{type(error).__name__} {method}"] += 1
