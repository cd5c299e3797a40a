"""A pod that vanishes while connections to it are out: it is asked for a TCP connection, and let go. Virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headlessconn._runtime import dial
from headlessconn.core.member import State
from tests.runtime.pool_stage import Connection, Pooled, pods, pooled
from tests.runtime.virtual_time import in_virtual_time, now


class Wire:
    """What TCP connects meet with: nothing from the pods in `cut`, and a connection from the others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cut: set[str] = set()
        self.asked: list[tuple[float, str]] = []
        monkeypatch.setattr(dial, "connect", self.connect)

    async def connect(self, endpoint: Any, seconds: float) -> Any:
        self.asked.append((round(now(), 3), endpoint.address))
        if endpoint.address in self.cut:
            await asyncio.sleep(seconds)
            raise TimeoutError
        return self

    def close(self) -> None:
        pass


async def work(world: Pooled, wire: Wire, until: float) -> list[tuple[int, float, bool]]:
    """Eight callers for so long; each exchange with a pod that is cut hangs until the connection is cut off."""
    told: list[tuple[int, float, bool]] = []

    async def caller() -> None:
        while now() < until:
            began = now()
            async with world.pool.acquire() as connection:
                await asyncio.sleep(0.4)
                while f"127.0.0.{connection.number}" in wire.cut and not connection.cut:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                told.append((connection.number, now() - began, connection.cut))
                if connection.cut:
                    world.pool.discard(connection)

    await asyncio.gather(*[caller() for _ in range(8)])
    return told


def cut(connection: Connection) -> None:
    connection.cut = True


@in_virtual_time
async def test_callers_stuck_on_a_vanished_pod_are_freed_and_the_others_never_stop() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        wire = Wire(monkeypatch)
        async with pooled(pods(1, 2, 3), max_size=16, on_silent=cut) as world:
            asyncio.get_running_loop().call_later(10.0, wire.cut.add, "127.0.0.1")
            told = await work(world, wire, 60.0)
            stuck = [(number, seconds) for number, seconds, was_cut in told if was_cut]
            assert 2 <= len(stuck) <= 4
            assert {number for number, _ in stuck} == {1}
            # 3 s of silence, at most 1 s until it is looked at, and two dials of 2.5 s
            assert max(seconds for _, seconds in stuck) < 0.4 + 3.0 + 1.0 + 5.0 + 0.2
            assert len([told for told in told if not told[2]]) > 5 * 50 / 0.4 * 0.8
            assert {number for number, _, _ in told[-20:]} == {2, 3}
            members = world.stage.driver.snapshot().members
            assert [member.state for member in members if member.endpoint.address == "127.0.0.1"] == [State.FAILING]
            assert 1 not in world.database.spread
            wire.cut.clear()
            await asyncio.sleep(60.0)
            assert 1 in {(await world.use(0.0)).number for _ in range(20)}, "it is back"


@in_virtual_time
async def test_long_work_on_a_pod_that_is_well_is_not_disturbed() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        wire = Wire(monkeypatch)
        async with pooled(pods(1, 2, 3), max_size=16, on_silent=cut) as world:
            held = [await world.pool.acquire() for _ in range(6)]
            slow = [connection for connection in held if connection.number == 1]
            assert len(slow) == 2
            for connection in held:
                if connection not in slow:
                    world.pool.release(connection)
            await work(world, wire, 60.0)
            assert wire.asked, "it was asked"
            assert len(wire.asked) < 8
            assert not any(connection.cut for connection in slow)
            for connection in slow:
                world.pool.release(connection)
            assert world.pool.snapshot.closed == {}
