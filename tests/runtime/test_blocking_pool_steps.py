"""The blocking pool over real sockets: how connections are given back, and steps that hang."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headlessconn import Endpoint
from headlessconn.errors import NotHeld
from headlessconn.sync import Client
from tests.runtime.fake_connections import STATIC, Fake, Made, dial, pool_of
from tests.runtime.silent import accepting_port
from tests.runtime.threaded_shop import LIMIT, descriptors, until


@pytest.fixture
def client() -> Iterator[Client]:
    with Client() as opened:
        yield opened


# ---- how it is given back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (None, True),
        (ValueError("the caller's own"), True),
        (ConnectionResetError(), False),
        (EOFError(), False),
        (TimeoutError(), False),
        (KeyboardInterrupt(), False),
    ],
    ids=repr,
)
def test_how_a_block_ends_says_what_becomes_of_the_connection(
    client: Client, error: BaseException | None, stays: bool
) -> None:
    made = Made()
    with pool_of(client, made) as pool:
        first = pool.take()
        pool.release(first)
        with pytest.raises(type(error)) if error is not None else contextlib.nullcontext(), pool.acquire() as again:
            assert again is first
            if error is not None:
                raise error
        assert pool.snapshot.busy == 0
        until(lambda: pool.snapshot.closing == 0)
        assert (first not in made.closed) is stays


def test_what_was_taken_is_given_back_once(client: Client) -> None:
    made = Made()
    with pool_of(client, made) as pool, pool_of(client, made) as other:
        with pytest.raises(NotHeld, match="has not handed out anything"):
            client.service(STATIC).pool(open=made.open).release(Fake(Endpoint("127.0.0.1", 1)))
        fake = pool.take()
        other.release(other.take())
        with pytest.raises(NotHeld, match="has not handed out this connection"):
            other.release(fake)
        pool.release(fake)
        with pytest.raises(NotHeld, match="was given back already: it is idle now"):
            pool.release(fake)
        with pool.acquire() as fake, pytest.raises(NotHeld, match=r"was taken by `with pool.acquire\(\)`"):
            pool.release(fake)
        fake = pool.take()
        pool.release(fake, broken=True)
        with pool.acquire() as another:
            pool.discard(another)
        with pytest.raises(NotHeld):
            pool.discard(another)
        until(lambda: {id(fake), id(another)} <= set(map(id, made.closed)))


def test_a_connection_is_cleaned_before_its_next_caller(client: Client) -> None:
    made = Made()
    broken: list[Fake] = []

    def reset(fake: Fake) -> None:
        assert threading.current_thread() is not threading.main_thread()
        if fake in broken:
            raise ConnectionResetError
        fake.cleaned += 1

    with pool_of(client, made, reset=reset, max_size=1) as pool:
        for times in range(3):
            with pool.acquire() as fake:
                assert fake.cleaned == times
        with pool.acquire() as fake:
            broken.append(fake)
        with pool.acquire() as other:
            assert other is not fake
    assert fake in made.closed


def test_a_connection_that_was_idle_is_checked_in_a_thread_of_the_pools(client: Client) -> None:
    made, dead, checked = Made(), set[Fake](), list[Fake]()

    def check(fake: Fake) -> bool:
        assert threading.current_thread() is not threading.main_thread()
        checked.append(fake)
        return fake not in dead

    with pool_of(client, made, check=check, check_after=0.0, max_size=1) as pool:
        first = pool.take()
        pool.release(first)
        assert pool.take() is first
        dead.add(first)
        pool.release(first)
        with pool.acquire() as second:
            assert second is not first
    assert checked.count(first) == 2
    assert first in made.closed


# ---- steps that hang --------------------------------------------------------------------------------------------


def test_a_dial_that_hangs_is_given_up_and_what_it_ends_with_is_closed(client: Client) -> None:
    made = Made()
    goes_on = threading.Event()
    hangs: list[str] = []

    def open_(endpoint: Endpoint) -> Fake:
        if not hangs:
            hangs.append(str(endpoint))
            goes_on.wait(LIMIT)
        return made.open(endpoint)

    with pool_of(client, made, open=open_, open_timeout=0.1) as pool:
        with pool.acquire() as fake:
            assert str(fake.endpoint) not in hangs, "another pod is tried"
        assert pool.snapshot.failed == 1
        assert pool.snapshot.last_failure.endswith("no connection within 0.1 s (open_timeout)")
        assert made.closed == []
        goes_on.set()
        until(lambda: [str(closed.endpoint) for closed in made.closed] == hangs)


def test_a_dial_that_ends_after_the_pool_is_closed_leaves_no_connection(client: Client) -> None:
    """The pool's threads take no more work by then."""
    made, may_go_on, begun = Made(), threading.Event(), threading.Event()

    def slow(endpoint: Endpoint) -> Fake:
        begun.set()
        assert may_go_on.wait(LIMIT)
        return made.open(endpoint)

    pool = pool_of(client, made, open=slow, min_size=2)
    with contextlib.suppress(Exception):
        pool.take(timeout=0.01)
    assert begun.wait(LIMIT)
    closing = threading.Thread(target=pool.close)
    closing.start()
    until(lambda: pool._runner is not None and pool._runner.closed)
    may_go_on.set()
    closing.join(LIMIT)
    until(lambda: bool(made.opened) and set(made.opened) == set(made.closed))


def test_more_dials_than_threads_may_hang(client: Client) -> None:
    """Each is left to itself, and another thread stands in for its own."""
    made, goes_on, hung = Made(), threading.Event(), list[int]()

    def open_(endpoint: Endpoint) -> Fake:
        if len(hung) < 30:
            hung.append(endpoint.port)
            goes_on.wait(LIMIT)
        return made.open(endpoint)

    with Client() as many:
        target = "static:///" + ",".join(f"127.0.0.1:{port}" for port in range(1, 51))
        with many.service(target).pool(open=open_, close=made.close, open_timeout=0.02, max_size=20) as pool:
            with pool.acquire(LIMIT) as fake:
                assert fake.endpoint.port not in hung
            goes_on.set()
            until(lambda: len(made.closed) == 30)


@pytest.mark.parametrize("step", ["check", "reset", "close"])
def test_a_step_that_hangs_on_a_socket_is_cut_off(client: Client, step: str) -> None:
    """A thread cannot be cancelled; what it reads from can be shut down."""
    before = descriptors() if sys.platform == "linux" else set()
    ended: list[bytes] = []

    def hangs(sock: socket.socket) -> None:
        ended.append(sock.recv(1))
        if step == "close":
            sock.close()

    settings: dict[str, Any] = {step: hangs, f"{step}_timeout": 0.1}
    if step == "check":
        settings["check_after"] = 0.0
    with accepting_port() as port:
        service = client.service(f"static:///127.0.0.1:{port}")
        with service.pool(open=dial, max_size=1, **settings) as pool:
            with pool.acquire():
                pass
            if step == "close":
                pool.close()
            else:
                with pool.acquire(LIMIT):
                    pass
                assert pool.snapshot.closed == {f"{step} timed out": 1}
            until(lambda: len(ended) == 1)
            assert ended == [b""]
    if sys.platform == "linux":
        until(lambda: descriptors() <= before)


def test_the_pool_keeps_the_time_of_what_is_idle(client: Client) -> None:
    made = Made()
    with pool_of(client, made, idle_timeout=0.05) as pool:
        began = time.monotonic()
        with pool.acquire() as fake:
            pass
        until(lambda: made.closed == [fake])
        assert time.monotonic() - began >= 0.05
        assert pool.snapshot.closed == {"idle_timeout": 1}
