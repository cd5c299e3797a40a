"""Engines are shared on a loop, end with their last user, and stay in the process and on the loop they belong to."""

import asyncio
import gc
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from headlessconn import Client
from headlessconn._runtime.driver import Driver
from headlessconn.core.endpoint import How
from headlessconn.core.member import State
from headlessconn.core.pick import Pick
from headlessconn.errors import ClosedError, WrongLoop
from tests.runtime.shop import shop, until

ROOT = Path(__file__).parent.parent.parent
STATIC = "static:///127.0.0.1:1,127.0.0.1:2"


# ---- shared -----------------------------------------------------------------------------------------------------


async def test_two_clients_share_an_engine_and_its_questions() -> None:
    async with shop() as world, world.client(refresh_max=3600) as one, world.client(refresh_max=3600) as other:
        target = world.orders.target
        first, second = one.service(target), other.service(target.upper() if world.orders.port else target)
        await asyncio.gather(first.ready(3), second.ready(3), one.service(target).ready(3))
        assert first.driver() is second.driver()
        assert world.questions == 1
        async with first.pick() as pick:
            [view] = [view for view in second.snapshot.members if view.endpoint == pick.endpoint]
            assert view.in_flight == 1, "what one loads the other knows"


async def test_clients_with_other_options_or_targets_share_nothing() -> None:
    async with Client() as one, Client(policy="round_robin") as other:
        assert one.service(STATIC).driver() is not other.service(STATIC).driver()
        assert one.service(STATIC).driver() is one.service("static:///127.0.0.1:2,127.0.0.1:1").driver()
        assert one.service(STATIC).driver() is not one.service("static:///127.0.0.1:1").driver()
        assert one.hub() is not other.hub()


async def test_the_last_user_to_close_ends_it() -> None:
    one, other = Client(), Client()
    await one.service(STATIC).ready()
    driver = other.service(STATIC).driver()
    assert driver is one.service(STATIC).driver()
    await one.aclose()
    assert isinstance(driver.pick(), Pick), "the other one still uses it"
    await other.aclose()
    assert driver.closed
    third = Client()
    assert third.service(STATIC).driver() is not driver
    await third.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closing_one_of_two_twice_does_not_end_the_other() -> None:
    async with Client() as stays:
        driver = stays.service(STATIC).driver()
        leaves = Client()
        leaves.service(STATIC).driver()
        await leaves.aclose()
        await leaves.aclose()
        assert not driver.closed


# ---- idle targets -----------------------------------------------------------------------------------------------

IDLE_SOON = {"idle_after": 1, "refresh_min": 0.05, "refresh_max": 0.05}


async def test_idle_targets_beyond_the_limit_are_forgotten_and_come_back() -> None:
    async with shop(pods=1) as world:
        names = [f"svc-{number}" for number in range(3)]
        for name in names:
            await world.cluster.service(name, pods=1)
        targets = [service.target for service in world.cluster.services[1:]]
        async with world.client(**IDLE_SOON, idle_targets=2) as client:
            services = [client.service(target) for target in targets]
            drivers: list[Driver] = []
            for service in services:
                await service.ready()
                drivers.append(service.driver())
            await until(lambda: sum(driver.closed for driver in drivers) == 1)
            assert all(driver.closed or driver.engine.idle for driver in drivers)
            [(forgotten, old)] = [(s, d) for s, d in zip(services, drivers, strict=True) if d.closed]
            assert len(client.hub().drivers()) == 2
            async with forgotten.pick() as pick:
                assert pick.endpoint is not None
            assert forgotten.driver() is not old
            [kept, _] = [d for d in drivers if not d.closed]
            [service] = [s for s, d in zip(services, drivers, strict=True) if d is kept]
            async with service.pick():
                assert service.driver() is kept, "its set and history were kept"


async def test_a_target_in_use_is_never_forgotten() -> None:
    async with shop(pods=1) as world:
        other = await world.cluster.service("other", pods=1)
        async with world.client(**IDLE_SOON, idle_targets=1) as client:
            service, idle = client.service(world.orders.target), client.service(other.target)
            async with service.pick():
                driver = service.driver()
                await idle.ready()
                await until(lambda: idle.driver().engine.idle)
                assert not driver.closed
                assert not driver.engine.idle


# ---- our own stall ----------------------------------------------------------------------------------------------


async def test_a_stall_of_our_own_voids_what_was_observed() -> None:
    """A dial that timed out while the loop stood still says nothing about the pod."""
    async with Client() as client:
        service = client.service(STATIC)
        await service.ready(2)
        driver = service.driver()
        pick = driver.pick()
        assert isinstance(pick, Pick)
        time.sleep(0.7)  # noqa: ASYNC251 - the stall itself
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        driver.dialled(pick, How.DIAL_TIMEOUT)
        driver.ended(pick, How.DIAL_TIMEOUT)
        assert {view.state for view in service.snapshot.members} == {State.READY}


# ---- loops and threads ------------------------------------------------------------------------------------------


def test_a_client_belongs_to_the_loop_that_opened_it() -> None:
    client = Client()

    async def use() -> None:
        await client.service(STATIC).ready()

    async def leave() -> None:
        await client.aclose()

    asyncio.run(use())
    with pytest.raises(WrongLoop, match=r"another event loop: make one client a loop \(asyncio.run makes a new loop"):
        asyncio.run(use())
    asyncio.run(leave())  # its loop is gone, so nothing of it runs any more
    with pytest.raises(ClosedError):
        asyncio.run(use())


async def test_from_another_loop_that_lives_beside_it() -> None:
    async with Client() as client:
        service = client.service(STATIC)
        await service.ready()
        said: list[BaseException] = []

        async def misuse() -> None:
            for wrong in (service.ready(), client.aclose(), service.open_connection(), service.pick().__aenter__()):
                try:
                    await wrong
                except WrongLoop as error:
                    said.append(error)

        await asyncio.to_thread(asyncio.run, misuse())
        assert len(said) == 4
        async with service.pick(wait=0):
            pass  # and it works on here


async def test_outside_of_any_loop() -> None:
    async with Client() as client:
        service = client.service(STATIC)
        await service.ready()
        said: list[BaseException] = []

        def misuse() -> None:
            for wrong in (lambda: service.snapshot, service.explain, Client().hub):
                try:
                    wrong()
                except WrongLoop as error:
                    said.append(error)

        thread = threading.Thread(target=misuse)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert ["no event loop runs here" in str(error) for error in said] == [True] * 3


def test_loops_of_clients_that_were_never_closed_are_freed() -> None:
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def forgetful() -> None:
        await Client().service(STATIC).ready()
        loops.append(weakref.ref(asyncio.get_running_loop()))

    for _ in range(5):
        asyncio.run(forgetful())
    gc.collect()
    assert [loop() is None for loop in loops[:-1]] == [True] * 4, "the last one is freed by the next"


def test_building_a_client_needs_no_loop_and_opens_nothing() -> None:
    client = Client(refresh_max=2.0)
    service = client.service("orders.shop:8080")
    assert repr(client) == "<headlessconn.Client not opened yet>"
    assert repr(service) == "<headlessconn.Service orders.shop:8080>"


# ---- fork -------------------------------------------------------------------------------------------------------

FORK = """
import asyncio, json, os, sys
from headlessconn import Client
from headlessconn.errors import WrongLoop

TARGET = "static:///" + ",".join(f"10.0.0.{n}:80" for n in range(1, 101))
built, opened, used = Client(), Client(idle_after=61.0), Client(idle_after=62.0)

async def picks(client):
    service = client.service(TARGET)
    await service.ready()
    found = []
    for _ in range(8):
        async with service.pick() as pick:
            found.append(pick.host)
    return found

async def child():
    said = {"built": await picks(built)}
    for name, client in (("opened", opened), ("used", used)):
        try:
            await picks(client)
        except WrongLoop as error:
            said[name] = str(error)
        await client.aclose()
        await client.aclose()
    await built.aclose()
    return said

async def main():
    async with opened, used:
        await picks(used)
        pids, pipes = [], []
        for _ in range(3):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    os.close(reading)
                    # The parent's loop is not the child's: the mark that it runs came along with the fork.
                    asyncio._set_running_loop(None)
                    said = asyncio.run(child())
                    os.write(writing, json.dumps(said).encode())
                    status = 0
                finally:
                    os._exit(status)
            os.close(writing)
            pids.append(pid)
            pipes.append(reading)
        children = []
        for pid, reading in zip(pids, pipes):
            with open(reading, "rb") as pipe:
                children.append(json.loads(pipe.read() or b"{}"))
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        return {"children": children, "parent": await picks(used)}

print(json.dumps(asyncio.run(main())))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_after_a_fork() -> None:
    """Built before and opened after: right. Opened before: told. And each child throws dice of its own."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert len(said["children"]) == 3
    for child in said["children"]:
        assert len(child["built"]) == 8
        for name in ("opened", "used"):
            assert "opened before a fork, in the parent process" in child[name]
            assert "use it only after" in child[name]
    picks = [tuple(child["built"]) for child in said["children"]] + [tuple(said["parent"])]
    assert len(set(picks)) == 4, "three children with inherited dice would pick the same pods in the same order"
