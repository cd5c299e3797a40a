"""Dialling one pod, and several against each other: what failures say, keep-alive, and who wins."""

import asyncio
import errno
import socket
import ssl
import sys
from typing import Any

import pytest

from headlessconn import Client
from headlessconn._runtime import dial
from headlessconn._runtime.driver import Driver
from headlessconn._runtime.race import connect
from headlessconn.core.endpoint import Endpoint, How, pack
from headlessconn.core.member import State
from headlessconn.core.snapshot import MemberView
from headlessconn.errors import DialFailed
from tests.runtime.silent import LINUX, accepting_port, refusing_port, silent_port

# ---- what a failure says ----------------------------------------------------------------------------------------

OURS = [
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EADDRNOTAVAIL,
    errno.EACCES,
    errno.EPERM,
    errno.EAFNOSUPPORT,
]


def os_error(number: int) -> OSError:
    """As Python raises it: the subclass that belongs to the number."""
    return OSError(number, "said the kernel")


DIALS: list[tuple[BaseException, How]] = [
    (os_error(errno.ECONNREFUSED), How.REFUSED),
    (os_error(errno.ECONNRESET), How.REFUSED),
    (os_error(errno.ECONNABORTED), How.REFUSED),
    (os_error(errno.EPIPE), How.REFUSED),
    (os_error(errno.EHOSTUNREACH), How.UNREACHABLE),
    (os_error(errno.ETIMEDOUT), How.DIAL_TIMEOUT),
    (TimeoutError(), How.DIAL_TIMEOUT),
    (asyncio.CancelledError(), How.CANCELLED),
    (ssl.SSLError("bad record"), How.LOCAL),
    (ssl.SSLCertVerificationError("unknown authority"), How.LOCAL),
    (OSError("without a number"), How.LOCAL),
    *[(os_error(number), How.LOCAL) for number in OURS],
    (ValueError("a bug"), How.CALLER),
    (KeyboardInterrupt(), How.CALLER),
]

REQUESTS: list[tuple[BaseException, How]] = [
    (os_error(errno.ECONNREFUSED), How.REFUSED),
    (os_error(errno.ECONNRESET), How.RESET),
    (os_error(errno.EPIPE), How.RESET),
    (EOFError(), How.RESET),
    (asyncio.IncompleteReadError(b"", 5), How.RESET),
    (os_error(errno.EHOSTUNREACH), How.UNREACHABLE),
    (os_error(errno.ETIMEDOUT), How.TIMEOUT),
    (TimeoutError(), How.TIMEOUT),
    (asyncio.CancelledError(), How.CANCELLED),
    *[(os_error(number), How.LOCAL) for number in OURS],
    (os_error(errno.ENOENT), How.CALLER),
    (ValueError("no JSON"), How.CALLER),
    (GeneratorExit(), How.CALLER),
]


@pytest.mark.parametrize(("error", "how"), DIALS, ids=repr)
def test_what_a_failed_dial_says(error: BaseException, how: How) -> None:
    assert dial.how_dial_failed(error) is how


@pytest.mark.parametrize(("error", "how"), REQUESTS, ids=repr)
def test_what_an_exception_in_an_exchange_says(error: BaseException, how: How) -> None:
    assert dial.how_request_failed(error) is how


# ---- one pod ----------------------------------------------------------------------------------------------------


def endpoint(port: int, address: str = "127.0.0.1") -> Endpoint:
    return Endpoint.of(pack(address, port))


async def test_a_connection_has_keep_alive_on() -> None:
    with accepting_port() as port:
        sock = await dial.connect(endpoint(port), 5.0)
        with sock:
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0
            assert not sock.getblocking()
            if sys.platform == "linux":
                kept = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]
                assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in kept] == [15, 5, 3, 0]


@LINUX
def test_a_bound_on_unacknowledged_bytes_only_when_asked_for() -> None:
    """It also kills a living peer that reads slowly: never for streams."""
    with socket.socket() as sock:
        dial.keep_alive(sock, user_timeout=True)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


async def test_a_refusal_is_told_at_once() -> None:
    with refusing_port() as port:
        with pytest.raises(ConnectionRefusedError):
            await dial.connect(endpoint(port), 5.0)
        assert not await dial.answers(endpoint(port), 5.0)


async def test_whoever_accepts_answers() -> None:
    with accepting_port() as port:
        assert await dial.answers(endpoint(port), 5.0)


@LINUX
async def test_silence_is_a_time_out() -> None:
    with silent_port() as port:
        with pytest.raises(TimeoutError):
            await dial.connect(endpoint(port), 0.05)
        assert not await dial.answers(endpoint(port), 0.05)


async def test_an_address_of_the_other_family() -> None:
    if not has_ipv6():
        pytest.skip("no IPv6 on this machine's loopback")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        sock = await dial.connect(endpoint(listener.getsockname()[1], "::1"), 5.0)
        with sock:
            assert sock.family is socket.AF_INET6


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# ---- one service: the race --------------------------------------------------------------------------------------


class Racer:
    """A client of some places on 127.0.0.1, whose second dial comes soon."""

    def __init__(self, client: Client, *ports: int) -> None:
        self.service = client.service("static:///" + ",".join(f"127.0.0.1:{port}" for port in ports))

    @property
    def driver(self) -> Driver:
        return self.service.driver()

    async def open(self) -> int:
        """Open a connection and close it; the port it went to."""
        await self.service.ready()
        _, writer = await self.service.open_connection()
        port: int = writer.get_extra_info("peername")[1]
        writer.close()
        await writer.wait_closed()
        return port

    def view(self, port: int) -> MemberView:
        [found] = [view for view in self.service.snapshot.members if view.endpoint.port == port]
        return found

    @property
    def dials(self) -> int:
        return sum(view.in_flight for view in self.service.snapshot.members)

    async def until_dials(self, count: int) -> None:
        for _ in range(12_000):
            if self.dials >= count:
                return
            await asyncio.sleep(0.005)
        raise TimeoutError(f"only {self.dials} dials under way, not {count}")

    def nothing_is_open(self) -> bool:
        return all(view.in_flight == view.connections == 0 for view in self.service.snapshot.members)


SOON: dict[str, Any] = {"race_after": 0.02, "connect_timeout": 30.0}


@LINUX
async def test_beside_a_silent_pod_another_one_is_dialled() -> None:
    with silent_port() as silent, accepting_port() as good:
        async with Client(**SOON) as client:
            racer = Racer(client, silent, good)
            assert [await racer.open() for _ in range(4)] == [good] * 4, "in turns: at least once the silent one first"
            assert racer.driver.engine.budget.spent >= 1, "a race is paid for like a retry"
            assert racer.nothing_is_open()
            assert racer.view(good).state is State.READY


@LINUX
async def test_three_silent_losers_in_a_row_are_evidence() -> None:
    """A cancelled dial is weak evidence. Three while another answered count as one that timed out."""
    with silent_port() as silent, accepting_port() as good:
        async with Client(**SOON, policy="least_request") as client:  # peak EWMA would soon leave it alone
            racer = Racer(client, silent, good)
            for _ in range(20):
                await racer.open()
                if racer.view(silent).state is State.FAILING:
                    break
            assert racer.view(silent).state is State.FAILING
            assert racer.view(silent).why == "no connection until its callers gave up"


@LINUX
async def test_three_at_once_and_no_more() -> None:
    with silent_port() as a, silent_port() as b, silent_port() as c, silent_port() as d:
        async with Client(**SOON) as client:
            racer = Racer(client, a, b, c, d)
            await racer.service.ready()
            opening = asyncio.create_task(racer.service.open_connection())
            most = 0
            for _ in range(40):
                await asyncio.sleep(0.005)
                most = max(most, racer.dials)
            assert most <= 3
            await racer.until_dials(3)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert racer.nothing_is_open()


@LINUX
async def test_without_budget_nobody_is_dialled_beside() -> None:
    with silent_port() as silent, silent_port() as other:
        async with Client(race_after=0.02, connect_timeout=0.2) as client:
            racer = Racer(client, silent, other)
            await racer.service.ready()
            engine = racer.driver.engine
            while engine.may_spend(asyncio.get_running_loop().time()):
                pass
            with pytest.raises(DialFailed) as caught:
                await racer.service.open_connection()
            assert [why for _, why in caught.value.tried] == ["dial timed out"] * 2, "one after the other"
            assert racer.driver.engine.budget.refused >= 2


async def test_a_pod_that_refuses_is_replaced_at_once() -> None:
    with refusing_port() as refusing, accepting_port() as good:
        async with Client(race_after=300.0) as client:
            racer = Racer(client, refusing, good)
            assert [await racer.open() for _ in range(4)] == [good] * 4
            assert racer.view(refusing).state is State.FAILING
            assert racer.view(refusing).why == "refused"
            assert racer.nothing_is_open()


async def test_when_nobody_lets_us_in_it_says_who_was_tried_and_why() -> None:
    with refusing_port() as a, refusing_port() as b:
        async with Client() as client:
            racer = Racer(client, a, b)
            await racer.service.ready()
            with pytest.raises(DialFailed) as caught:
                await racer.service.open_connection()
            error = caught.value
            assert sorted(error.tried) == sorted((f"127.0.0.1:{port}", "refused") for port in (a, b))
            assert f"127.0.0.1:{a} (refused)" in str(error)
            assert error.target == str(racer.service.target)
            assert isinstance(error.__cause__, ConnectionRefusedError)
            assert isinstance(error, ConnectionError)
            assert racer.nothing_is_open()


@LINUX
@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_a_cancelled_race_leaves_nothing(cancellations: int) -> None:
    """Whoever gives up twice, or thrice, must not leave a pick or a socket either."""
    with silent_port() as silent, silent_port() as other:
        async with Client(**SOON) as client:
            racer = Racer(client, silent, other)
            await racer.service.ready()
            before = asyncio.all_tasks()
            racing = asyncio.create_task(connect(racer.driver))
            await racer.until_dials(2)
            for _ in range(cancellations):
                racing.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await racing
            for _ in range(3):
                await asyncio.sleep(0)
            assert racer.nothing_is_open()
            left = asyncio.all_tasks() - before
            assert all("Driver._probe" in repr(task) for task in left), "what was silent is probed"
        assert asyncio.all_tasks() == {asyncio.current_task()}


@LINUX
async def test_a_cancellation_while_the_losers_end_loses_no_connection() -> None:
    """At every step of the way: the winner is had, and its taker is gone."""
    with silent_port() as silent, accepting_port() as good:
        for steps in range(40):
            async with Client(**SOON) as client:
                racer = Racer(client, silent, good)
                await racer.service.ready()
                racing = asyncio.create_task(connect(racer.driver))
                for _ in range(steps):
                    await asyncio.sleep(0.001)
                racing.cancel()
                try:
                    pick, sock = await racing
                except asyncio.CancelledError:
                    pass
                else:
                    sock.close()
                    racer.driver.ended(pick, How.OK)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert racer.nothing_is_open(), steps
