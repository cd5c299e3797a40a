"""The shop of `shop.py` for tests that block: the cluster runs on a loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from headlessconn.sync import Client, Pick, Service
from headlessconn.testing import EmbeddedCluster, EmbeddedService
from tests.runtime.shop import OFTEN

Result = TypeVar("Result")

LIMIT = 60.0  # seconds a step may take before the test is taken to hang


class ThreadedShop:
    """`run` does something to the cluster on its loop; the rest is read only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cluster: EmbeddedCluster, orders: EmbeddedService) -> None:
        self.cluster = cluster
        self.orders = orders
        self._loop = loop

    def run(self, step: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(step, self._loop).result(LIMIT)

    def call(self, step: Callable[..., Result], *arguments: object) -> Result:
        async def called() -> Result:
            return step(*arguments)

        return self.run(called())

    def client(self, **settings: Any) -> Client:
        resolver: dict[str, Any] = self.cluster.resolver
        return Client(**{**resolver, **OFTEN, **settings})

    @property
    def places(self) -> set[tuple[str, int]]:
        return {(pod.address, pod.port) for pod in self.orders.pods}


@contextlib.contextmanager
def threaded_shop(pods: int = 3, **service: Any) -> Iterator[ThreadedShop]:
    """It ends with nothing of the client's left: no thread."""
    before = set(threading.enumerate())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="cluster")
    thread.start()

    def run(step: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(step, loop).result(LIMIT)

    cluster = EmbeddedCluster(ttl=1)
    try:
        run(cluster.start())
        yield ThreadedShop(loop, cluster, run(cluster.service("orders", pods=pods, **service)))
    finally:
        run(cluster.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LIMIT)
        loop.close()
    until(lambda: set(threading.enumerate()) <= before)


def until(condition: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


def talk(service: Service) -> tuple[str, int]:
    """One request to one pod, as an application would send it; where it went."""
    with service.pick() as pick:
        return exchange(pick)


def exchange(pick: Pick) -> tuple[str, int]:
    with socket.create_connection((pick.host, pick.port), LIMIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        status = sock.recv(12)
        pick.responded(bad=status[9:10] == b"5")
        while sock.recv(65536):
            pass
    return pick.host, pick.port


def descriptors() -> set[str]:
    """What this process has open, as the kernel names it."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
    return found


class Callers:
    """Threads that do something each, and what came of it, in the order in which they ended."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, Any]] = []
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object], count: int = 1) -> None:
        for number in range(len(self._threads), len(self._threads) + count):
            thread = threading.Thread(target=self._run, args=(number, work))
            self._threads.append(thread)
            thread.start()

    def _run(self, number: int, work: Callable[[], object]) -> None:
        try:
            came = work()
        except BaseException as error:
            came = error
        self.ended.append((number, came))

    def results(self) -> list[Any]:
        """What came of each, in the order of their starting."""
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive(), "a caller hangs"
        return [came for _, came in sorted(self.ended, key=lambda one: one[0])]
