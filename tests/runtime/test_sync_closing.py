"""The blocking API against a real cluster on loopback: how it closes, and what is left then."""

import gc
import os
import socket
import sys
import threading

import pytest

from headlessconn.errors import ClosedError, OptionError, TargetError
from headlessconn.sync import Client, Service
from tests.runtime.threaded_shop import Callers, descriptors, talk, threaded_shop, until

STATIC = "static:///127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"


def test_closing_twice_is_right_and_using_it_after_is_told() -> None:
    client = Client()
    service = client.service(STATIC)
    service.ready()
    picking = service.pick()
    pick = picking.__enter__()
    assert repr(client) == "<headlessconn.sync.Client open>"
    client.close()
    client.close()
    assert repr(client) == "<headlessconn.sync.Client closed>"
    pick.responded()
    picking.__exit__(None, None, None)  # what was open may end after the end
    for use in (service.ready, service.open_connection, service.pick().__enter__, service.changes, client.__enter__):
        with pytest.raises(ClosedError, match="this client was closed: make a new one"):
            use()
    for look in (lambda: service.snapshot, service.explain, client.hub):
        with pytest.raises(ClosedError):
            look()


def test_closing_a_client_that_was_never_opened() -> None:
    client = Client()
    assert repr(client) == "<headlessconn.sync.Client not opened yet>"
    client.close()
    with pytest.raises(ClosedError):
        client.service(STATIC).ready()


def test_closing_while_callers_wait() -> None:
    with threaded_shop(pods=0) as world:
        client = world.client(wait_for_endpoints=60.0)
        service = client.service(world.orders.target)
        callers = Callers()
        callers.start(lambda: talk(service), 3)
        callers.start(service.open_connection)
        callers.start(lambda: service.ready(timeout=60.0))
        changes = service.changes()
        callers.start(lambda: next(changes))
        until(lambda: service.snapshot.waiting == 4)
        closing = Callers()
        closing.start(client.close, 3)  # from anywhere, by several at once
        assert closing.results() == [None] * 3
        assert [type(end) for end in callers.results()] == [ClosedError] * 5 + [StopIteration]


def test_nothing_is_left_after_closing() -> None:
    before = set(threading.enumerate())
    with threaded_shop(pods=2) as world:
        world.cluster.zone.trouble(truncate=False)
        opened = descriptors() if sys.platform == "linux" else set()
        client = world.client()
        service = client.service(world.orders.target)
        service.ready(2)
        service.open_connection().close()
        silent = world.client(lookup_timeout=30.0)
        with world.cluster.zone.trouble(silent=True):
            silent.service(world.orders.target).driver()
            until(lambda: bool(silent.hub()._resolver.queries))
            client.close()
            silent.close()
        assert {thread.name for thread in set(threading.enumerate()) - before} == {"cluster"}
        if sys.platform == "linux":
            until(lambda: descriptors() <= opened)


def test_a_client_that_was_dropped_ends_by_itself() -> None:
    before = set(threading.enumerate())
    client = Client()
    service = client.service(STATIC)
    service.ready()
    assert set(threading.enumerate()) > before
    del client, service
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)


def test_a_client_lives_as_long_as_somebody_reads_its_changes() -> None:
    with threaded_shop(pods=1) as world:

        def read() -> list[str]:
            changes = world.client().service(world.orders.target).changes()
            gc.collect()
            first = next(changes)
            world.run(world.orders.add())
            return [first.counts(), next(changes).counts()]

        assert read() == ["+1 -0 =1", "+1 -0 =2"]
        gc.collect()


# ---- bad input --------------------------------------------------------------------------------------------------


def test_bad_input_is_told_at_once() -> None:
    with pytest.raises(TargetError):
        Client().service("orders.shop:0")
    with pytest.raises(OptionError):
        Client(nameservers=["dns.google"])


def test_building_a_client_starts_nothing() -> None:
    before = set(threading.enumerate()), len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    service: Service = Client().service("orders.shop:8080")
    after = set(threading.enumerate()), len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    assert before == after
    assert str(service.target) == "orders.shop:8080"
    assert socket.getdefaulttimeout() is None
