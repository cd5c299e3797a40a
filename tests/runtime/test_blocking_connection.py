"""`service.open_connection()` of a blocking client: the race, TLS, and what is left at the end."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from headlessconn.core.member import State
from headlessconn.core.snapshot import MemberView
from headlessconn.errors import DialFailed, OptionError
from headlessconn.sync import Client
from tests.runtime.silent import LINUX, accepting_port, refusing_port, silent_port
from tests.runtime.test_open_connection import contexts
from tests.runtime.threaded_shop import Callers, descriptors, threaded_shop, until

SOON: dict[str, Any] = {"race_after": 0.02, "connect_timeout": 30.0}


class Racer:
    """A client of some places on 127.0.0.1."""

    def __init__(self, client: Client, *ports: int) -> None:
        self.service = client.service("static:///" + ",".join(f"127.0.0.1:{port}" for port in ports))
        self.service.ready(len(ports))

    def open(self) -> int:
        """Open a connection and close it; the port it went to."""
        with self.service.open_connection() as sock:
            port: int = sock.getpeername()[1]
            return port

    def view(self, port: int) -> MemberView:
        [found] = [view for view in self.service.snapshot.members if view.endpoint.port == port]
        return found

    @property
    def dials(self) -> int:
        return sum(view.in_flight for view in self.service.snapshot.members)

    def nothing_is_open(self) -> bool:
        return all(view.in_flight == view.connections == 0 for view in self.service.snapshot.members)


@contextlib.contextmanager
def no_descriptor_lost() -> Iterator[None]:
    before = descriptors() if sys.platform == "linux" else set()
    yield
    if sys.platform == "linux":
        until(lambda: descriptors() <= before)


# ---- the race ---------------------------------------------------------------------------------------------------


@LINUX
def test_beside_a_silent_pod_another_one_is_dialled() -> None:
    with silent_port() as silent, accepting_port() as good, no_descriptor_lost(), Client(**SOON) as client:
        racer = Racer(client, silent, good)
        assert [racer.open() for _ in range(4)] == [good] * 4, "in turns: at least once the silent one first"
        assert racer.service.driver().engine.budget.spent >= 1, "a race is paid for like a retry"
        assert racer.nothing_is_open()
        assert racer.view(good).state is State.READY


@LINUX
def test_three_at_once_and_no_more_and_an_interrupted_race_leaves_nothing() -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(silent_port()) for _ in range(4)]
        stack.enter_context(no_descriptor_lost())
        client = stack.enter_context(Client(**SOON))
        racer = Racer(client, *ports)
        seen: list[int] = []
        main = threading.main_thread().ident
        assert main is not None

        def interrupt(main: int = main) -> None:
            while 3 not in seen or len(seen) < 60:
                seen.append(racer.dials)
                time.sleep(0.005)
            signal.pthread_kill(main, signal.SIGINT)

        callers = Callers()
        callers.start(interrupt)
        with pytest.raises(KeyboardInterrupt):
            racer.open()
        callers.results()
        assert max(seen) == 3
        assert racer.nothing_is_open()


@LINUX
def test_a_silent_pod_alone_is_a_time_out() -> None:
    with silent_port() as silent, no_descriptor_lost(), Client(race_after=0.02, connect_timeout=0.1) as client:
        racer = Racer(client, silent)
        with pytest.raises(DialFailed) as caught:
            racer.open()
        assert caught.value.tried == ((f"127.0.0.1:{silent}", "dial timed out"),)
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert racer.view(silent).state is State.FAILING


def test_a_pod_that_refuses_is_replaced_at_once() -> None:
    with refusing_port() as refusing, accepting_port() as good, Client(race_after=300.0) as client:
        racer = Racer(client, refusing, good)
        assert [racer.open() for _ in range(4)] == [good] * 4
        assert racer.view(refusing).state is State.FAILING
        assert racer.view(refusing).why == "refused"
        assert racer.nothing_is_open()


def test_when_nobody_lets_us_in_it_says_who_was_tried_and_why() -> None:
    with refusing_port() as a, refusing_port() as b, no_descriptor_lost(), Client() as client:
        racer = Racer(client, a, b)
        with pytest.raises(DialFailed) as caught:
            racer.open()
        assert sorted(caught.value.tried) == sorted((f"127.0.0.1:{port}", "refused") for port in (a, b))
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert racer.nothing_is_open()


def test_when_nearly_all_pods_are_dead_the_callers_learn_from_one_another() -> None:
    """Eight are tried for one connection, then it is told."""
    with contextlib.ExitStack() as stack:
        dead = [stack.enter_context(refusing_port()) for _ in range(30)]
        good = stack.enter_context(accepting_port())
        client = stack.enter_context(Client())
        racer = Racer(client, *dead, good)
        tried: list[int] = []
        while good not in tried:
            try:
                tried.append(racer.open())
            except DialFailed as error:
                tried.append(len(error.tried))
        assert tried in ([good], [8, good], [8, 8, good], [8, 8, 8, good])


# ---- against pods -----------------------------------------------------------------------------------------------


def test_a_connection_to_one_of_the_pods() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        with service.open_connection() as sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            assert sock.gettimeout() is None
            assert sock.getpeername()[:2] in world.places
            sock.sendall(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"
        with service.open_connection(timeout=7.0) as sock:
            assert sock.gettimeout() == 7.0
        assert all(view.in_flight == 0 for view in service.snapshot.members)


def test_a_crashed_pod_is_passed_over_and_dialled_again_when_it_is_back() -> None:
    with threaded_shop(pods=2) as world, world.client(race_after=60.0) as client:
        service = client.service(world.orders.target)
        service.ready(2)
        dead, alive = world.orders.pods
        world.call(world.orders.crash, dead)
        for _ in range(6):
            with service.open_connection() as sock:
                assert sock.getpeername()[:2] == (alive.address, alive.port)
        world.run(dead.start())
        service.ready(2)


def test_tls_verifies_the_services_name_though_an_address_is_dialled() -> None:
    server, trusting = contexts("orders.shop")
    with threaded_shop(pods=2, ssl_context=server) as world, world.client() as client:
        service = client.service(world.orders.target)
        with service.open_connection(ssl=trusting, timeout=30.0) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            assert sock.server_hostname == "orders.shop"
            sock.sendall(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.1 200"


def test_a_certificate_for_another_name_is_refused_and_is_no_evidence() -> None:
    server, trusting = contexts("payments.shop")
    with threaded_shop(pods=2, ssl_context=server) as world, world.client() as client, no_descriptor_lost():
        service = client.service(world.orders.target)
        for _ in range(6):
            with pytest.raises(ssl.SSLCertVerificationError, match=r"orders\.shop"):
                service.open_connection(ssl=trusting)
        assert len(service.snapshot.ready) == 2
        assert all(view.in_flight == 0 for view in service.snapshot.members)
        service.open_connection(ssl=trusting, server_hostname="payments.shop").close()


def test_a_handshake_that_never_ends_is_given_up() -> None:
    _, trusting = contexts("orders.shop")
    with accepting_port() as port, no_descriptor_lost(), Client() as client:
        racer = Racer(client, port)
        with pytest.raises(TimeoutError):
            racer.service.open_connection(ssl=trusting, server_hostname="orders.shop", timeout=0.1)
        assert racer.nothing_is_open()


def test_a_static_target_has_no_name_to_verify() -> None:
    _, trusting = contexts("orders.shop")
    with Client() as client:
        service = client.service("static:///127.0.0.1:1")
        with pytest.raises(OptionError, match=r"option server_hostname: static:///127\.0\.0\.1:1 has no name"):
            service.open_connection(ssl=trusting)
