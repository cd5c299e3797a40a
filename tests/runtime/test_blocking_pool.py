"""The blocking pool over real sockets: many threads, pods that come and go, the end, forks."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from headlessconn import Endpoint, NoEndpoints
from headlessconn.errors import ClosedError, NotHeld, OptionError, PoolTimeout
from headlessconn.sync import Client, Pool
from tests.runtime.fake_connections import STATIC, Fake, Made, dial, pool_of, request, where
from tests.runtime.silent import accepting_port, refusing_port
from tests.runtime.threaded_shop import LIMIT, Callers, ThreadedShop, descriptors, threaded_shop, until


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as opened:
        yield opened


# ---- threads ----------------------------------------------------------------------------------------------------


def test_many_threads_share_few_connections_and_none_is_in_two_hands(client: Client) -> None:
    made, interval = Made(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # a switch at every other step, in the middle of whatever runs
    try:
        with pool_of(client, made, max_size=6, timeout=LIMIT) as pool:

            def work() -> int:
                done = 0
                for _ in range(200):
                    with pool.acquire() as fake:
                        fake.users += 1
                        assert fake.users == 1, "it is somebody else's"
                        fake.users -= 1
                        done += 1
                return done

            callers = Callers()
            callers.start(work, 16)
            assert callers.results() == [200] * 16
            view = pool.snapshot
            assert (view.busy, view.waiting, view.opening) == (0, 0, 0)
            assert view.size == len(made.opened) - len(made.closed) <= 6
            by_pod = Counter(fake.endpoint.port for fake in made.opened)
            assert max(by_pod.values()) - min(by_pod.values()) <= 1, "evenly over the pods"
    finally:
        sys.setswitchinterval(interval)
    assert sorted(map(id, made.closed)) == sorted(map(id, made.opened)), "each is closed once"


def test_callers_wait_in_line_and_those_whose_time_is_over_are_told_who_holds_what(client: Client) -> None:
    with pool_of(client, Made(), max_size=1, timeout=LIMIT) as pool:
        order: list[int] = []

        def wait(number: int) -> None:
            with pool.acquire():
                order.append(number)

        callers = Callers()
        with pool.acquire() as fake:
            for number in range(5):
                callers.start(lambda number=number: wait(number))  # type: ignore[misc]
                until(lambda: pool.snapshot.waiting == number + 1)  # noqa: B023 - called at once
            with pytest.raises(PoolTimeout) as caught:
                pool.take(0.05)
        assert callers.results() == [None] * 5
        assert order == [0, 1, 2, 3, 4]
    error = caught.value
    assert error.waited >= 0.05
    assert (error.size, error.limit, error.waiting) == (1, 1, 5)
    [holder] = error.holders
    assert "runtime/test_blocking_pool.py:" in holder
    assert f"(to {fake.endpoint})" in holder


def test_a_caller_who_is_interrupted_while_waiting_loses_nothing(client: Client) -> None:
    with pool_of(client, Made(), max_size=1, timeout=LIMIT) as pool:
        main = threading.main_thread().ident
        assert main is not None

        def interrupt(main: int = main) -> None:
            until(lambda: pool.snapshot.waiting == 1)
            signal.pthread_kill(main, signal.SIGINT)

        callers = Callers()
        held = pool.take()
        callers.start(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.take()
        callers.results()
        assert pool.snapshot.waiting == 0
        pool.release(held)
        assert pool.take(0) is held
        pool.release(held)


def test_min_size_is_kept_open_and_waited_for(client: Client) -> None:
    made = Made()
    with pool_of(client, made, min_size=6) as pool:
        pool.ready()
        assert Counter(fake.endpoint.port for fake in made.opened) == {1: 2, 2: 2, 3: 2}
        assert str(pool.snapshot) == "0 busy, 6 idle, 0 opening of 10, 0 waiting"
        assert repr(pool) == f"<headlessconn.sync.Pool of {STATIC}: {pool.snapshot}>"


# ---- pods -------------------------------------------------------------------------------------------------------


def pods_of(pool: Pool[Any]) -> dict[str, int]:
    return {str(view.endpoint): view.idle + view.busy for view in pool.snapshot.pods if view.idle + view.busy}


def names(world: ThreadedShop) -> set[str]:
    return {f"{pod.address}:{pod.port}" for pod in world.orders.pods}


def test_a_new_pod_gets_its_share_and_a_removed_one_is_left() -> None:
    with threaded_shop(pods=2) as world, world.client(rebalance_over=0.2) as client:
        service = client.service(world.orders.target)
        service.ready(2)
        with service.pool(open=dial, max_size=6) as pool:
            for sock in [pool.take() for _ in range(6)]:
                pool.release(sock)
            assert sorted(pods_of(pool).values()) == [3, 3]
            world.run(world.orders.add())
            until(lambda: pods_of(pool) == dict.fromkeys(names(world), 2))
            gone = world.orders.pods[0]
            with_it = [pool.take() for _ in range(6)]
            [one, *others] = sorted(with_it, key=lambda sock: where(sock) != (gone.address, gone.port))
            for other in others:
                pool.release(other)
            world.call(world.orders.unlist, gone)
            until(lambda: len(service.snapshot.endpoints) == 2)
            request(one)  # it works on to its end
            pool.release(one)
            until(lambda: pods_of(pool).keys() == names(world))


def test_a_pod_that_refuses_is_passed_over() -> None:
    with refusing_port() as refusing, accepting_port() as good, Client() as client:
        service = client.service(f"static:///127.0.0.1:{refusing},127.0.0.1:{good}")
        with service.pool(open=dial, max_size=4) as pool:
            socks = [pool.take() for _ in range(4)]
            assert {where(sock)[1] for sock in socks} == {good}
            assert [view.endpoint.port for view in service.snapshot.ready] == [good]
            for sock in socks:
                pool.release(sock)


def test_when_every_pod_refuses_the_login_callers_get_what_was_said(client: Client) -> None:
    def open_(endpoint: Endpoint) -> Fake:
        raise PermissionError("access denied for user 'shop'")

    pool = pool_of(client, Made(), open=open_, timeout=LIMIT)
    with pytest.raises(PermissionError, match="access denied for user 'shop'"):
        pool.take()


def test_without_endpoints_callers_are_told() -> None:
    with threaded_shop(pods=0) as world, world.client(wait_for_endpoints=0.1) as client:
        pool = client.service(world.orders.target).pool(open=dial, timeout=LIMIT)
        with pytest.raises(NoEndpoints):
            pool.take()
        world.run(world.orders.add())
        with pool.acquire() as sock:
            assert where(sock) in world.places


# ---- the end ----------------------------------------------------------------------------------------------------


def test_closing_waits_for_what_is_out_then_cuts_it_and_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    with threaded_shop(pods=2) as world, world.client() as client:
        opened = descriptors() if sys.platform == "linux" else set()
        service = client.service(world.orders.target)
        pool = service.pool(open=dial, max_size=2)
        held = [pool.take(), pool.take()]
        callers = Callers()
        callers.start(lambda: pool.take(LIMIT), 2)
        until(lambda: pool.snapshot.waiting == 2)
        closing = Callers()
        closing.start(lambda: pool.close(LIMIT))
        assert [type(end) for end in callers.results()] == [ClosedError] * 2
        pool.release(held[0])
        closing.start(lambda: pool.close(0.0))
        assert closing.results() == [None, None]
        assert caplog.text.count("closed while a connection was out, taken at runtime/test_blocking_pool.py:") == 1
        for use in (pool.take, pool.ready, pool.__enter__):
            with pytest.raises(ClosedError, match=r"the pool of orders\.shop:.* was closed: make a new one"):
                use()
        pool.close()
        assert repr(pool) == f"<headlessconn.sync.Pool of {world.orders.target}: closed>"
        client.close()
        until(lambda: {thread.name for thread in set(threading.enumerate()) - before} == {"cluster"})
        if sys.platform == "linux":
            until(lambda: descriptors() <= opened)


def test_closing_the_client_closes_its_pools() -> None:
    made = Made()
    client = Client()
    pool = pool_of(client, made, min_size=3)
    pool.ready()
    fake = pool.take()
    client.close()
    assert len(made.closed) == 3
    with pytest.raises(ClosedError):
        pool.take()
    with pytest.raises(NotHeld):
        pool.release(fake)
    client = Client()
    never = pool_of(client, made)
    client.close()
    with pytest.raises(ClosedError):
        never.take()


def test_a_pool_that_was_never_used_opens_nothing_and_closes() -> None:
    before = threading.active_count()
    pool = pool_of(Client(), Made(), min_size=2)
    assert pool.snapshot.size == 0
    pool.close()
    assert threading.active_count() == before


def test_functions_that_do_not_block_and_unknown_rules_are_refused(client: Client) -> None:
    async def open_(endpoint: Endpoint) -> Fake:
        return Fake(endpoint)

    with pytest.raises(OptionError, match=r"option open: .* is no function that blocks"):
        pool_of(client, Made(), open=open_)
    with pytest.raises(OptionError):
        pool_of(client, Made(), maximum=3)


# ---- fork -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_opens_its_own_and_leaves_its_parents_alone() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        with service.pool(open=dial, max_size=2, min_size=2) as pool:
            pool.ready()
            held, other = pool.take(), pool.take()
            ours = {held.getsockname(), other.getsockname()}
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    signal.alarm(int(LIMIT))
                    socks = [pool.take(), pool.take()]
                    for sock in socks:
                        request(sock)
                        assert sock.getsockname() not in ours
                    with pytest.raises(NotHeld):
                        pool.release(held)
                    for sock in socks:
                        pool.release(sock)
                    pool.close()
                    client.close()
                    os.write(writing, b"well")
                    status = 0
                finally:
                    os._exit(status)
            os.close(writing)
            with open(reading, "rb") as pipe:
                assert pipe.read() == b"well"
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert pool.snapshot.busy == 2
            for sock in (held, other):
                request(sock)  # nobody has spoken on it, or closed it
                pool.release(sock)
