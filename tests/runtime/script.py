"""What an exchange of `service.run` does, attempt by attempt, and the pods that it believes in.

Nothing is sent anywhere but the probes of failing pods, to ports of this machine that refuse.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from headlessconn import Client, Pick, Service
from tests.runtime.silent import refusing_port
from tests.runtime.virtual_time import now

Act = Callable[[Pick], Awaitable[str]]


class Own(Exception):
    """The caller's own exception."""


async def answers(pick: Pick, after: float = 0.01) -> str:
    async with pick.connecting():
        pass
    await asyncio.sleep(after)
    return f"{pick.host}:{pick.port}"


async def refuses(pick: Pick) -> str:
    async with pick.connecting():
        raise ConnectionRefusedError


async def breaks(pick: Pick, after: float = 0.01) -> str:
    async with pick.connecting():
        pass
    await asyncio.sleep(after)
    raise ConnectionResetError("reset by peer")


async def is_in_trouble(pick: Pick) -> str:
    pick.sent()
    pick.responded(bad=True)
    raise Own("503")


async def raises(pick: Pick) -> str:
    pick.sent()
    raise Own("404")


async def is_mute(pick: Pick) -> str:
    async with pick.connecting():
        pass
    await asyncio.sleep(3600.0)
    raise AssertionError("nobody waits that long")


class Script:
    """What each attempt does, in order; the last one does it again and again."""

    def __init__(self, service: Service, *acts: Act) -> None:
        self.service = service
        self.acts = list(acts)
        self.began: list[tuple[float, str]] = []
        self.open = self.most = 0

    async def fn(self, pick: Pick) -> str:
        act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
        self.began.append((round(now(), 3), str(pick.endpoint)))
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await act(pick)
        finally:
            self.open -= 1

    async def run(self, **rules: Any) -> str:
        try:
            return await self.service.run(self.fn, **rules)
        finally:
            assert self.open == 0, "all have ended, those too that lost"
            assert all(view.in_flight == 0 for view in self.service.snapshot.members)

    @property
    def pods(self) -> list[str]:
        return [pod for _, pod in self.began]

    @property
    def spent(self) -> int:
        return self.service.driver().engine.budget.spent


@contextlib.asynccontextmanager
async def pods(count: int = 3, **settings: Any) -> AsyncIterator[Service]:
    before = asyncio.all_tasks()
    with contextlib.ExitStack() as ports:
        places = [f"127.0.0.1:{ports.enter_context(refusing_port())}" for _ in range(count)]
        async with Client(**settings) as client:
            service = client.service("static:///" + ",".join(places))
            await service.ready()
            yield service
    assert asyncio.all_tasks() == before


@contextlib.contextmanager
def takes(seconds: float) -> Iterator[None]:
    began = now()
    yield
    assert now() - began == pytest.approx(seconds, abs=0.005)
