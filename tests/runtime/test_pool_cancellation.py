"""A cancelled caller of a pool loses nothing: each scenario is cancelled at every place where it waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from headlessconn import Client
from headlessconn.errors import PoolTimeout
from headlessconn.pool import Pool
from tests.adapters.sweep import LeftBehind, sweep
from tests.runtime.test_pool_sockets import Echo, Streams, dial, echoes, say, target


class Caller:
    """What one performance has to itself. Its pool it closes itself, as far as it comes."""

    def __init__(self, client: Client, pool: Pool[Streams]) -> None:
        self.client = client
        self.pool = pool


async def checked(streams: Streams) -> bool:
    streams[1].write(b"check\n")
    return await streams[0].readuntil(b"\n") == b"check\n"


async def reset(streams: Streams) -> None:
    streams[1].write(b"reset\n")
    await streams[0].readuntil(b"\n")


async def swept(act: Callable[[Caller], Coroutine[Any, Any, object]], *, steps: bool = False, **settings: Any) -> int:
    """`steps`: connections are checked and reset at every turn."""
    hooks: dict[str, Any] = {"check": checked, "reset": reset, "check_after": 0} if steps else {}

    async with echoes(2) as servers:

        @contextlib.asynccontextmanager
        async def stage() -> AsyncIterator[Caller]:
            ports: list[Echo] = servers
            async with Client() as client:
                service = client.service(target(*[echo.port for echo in ports]))
                pool = service.pool(open=dial, **hooks, **settings)
                yield Caller(client, pool)

        async def played(caller: Caller) -> None:
            try:
                await act(caller)
            finally:
                if caller.pool.snapshot.busy:
                    raise LeftBehind(f"{caller.pool.snapshot}: {caller.pool.snapshot.holders}")
                await caller.pool.aclose()

        return await sweep(stage, played, client=lambda caller: caller.client)


async def test_a_first_connection() -> None:
    async def act(caller: Caller) -> None:
        assert await say(caller.pool) == b"hello\n"

    assert await swept(act) >= 3


async def test_connections_that_are_checked_and_reset() -> None:
    async def act(caller: Caller) -> None:
        for _ in range(3):
            assert await say(caller.pool) == b"hello\n"

    assert await swept(act, steps=True, max_size=1) >= 6


async def test_a_caller_in_the_queue() -> None:
    async def act(caller: Caller) -> None:
        held = await caller.pool.acquire()
        asyncio.get_running_loop().call_later(0.002, give_back, held)
        assert await say(caller.pool) == b"hello\n"

        async with caller.pool.acquire():
            pass

    def give_back(held: Streams) -> None:
        for pool in pools:
            with contextlib.suppress(Exception):
                pool.release(held)

    pools: list[Pool[Streams]] = []

    async def noted(caller: Caller) -> None:
        pools[:] = [caller.pool]
        try:
            await act(caller)
        finally:
            for slot in list(caller.pool._taken.values()):
                caller.pool.release(slot.connection)

    assert await swept(noted, max_size=1) >= 4


async def test_a_caller_whose_time_is_over() -> None:
    async def act(caller: Caller) -> None:
        async with caller.pool.acquire():
            with contextlib.suppress(PoolTimeout):
                async with caller.pool.acquire(timeout=0.002):
                    raise AssertionError("there is only one")

    assert await swept(act, max_size=1) >= 3


async def test_many_callers_at_once_of_whom_one_is_cancelled() -> None:
    async def act(caller: Caller) -> None:
        others = [asyncio.ensure_future(say(caller.pool)) for _ in range(4)]
        try:
            assert await say(caller.pool) == b"hello\n"
        finally:
            done = await asyncio.gather(*others)
        assert done == [b"hello\n"] * 4, "the others have what is theirs"

    assert await swept(act, max_size=2) >= 3


async def test_ready() -> None:
    async def act(caller: Caller) -> None:
        await caller.pool.ready()

    assert await swept(act, min_size=2) >= 2
