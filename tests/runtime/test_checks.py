"""Checks and `verify` on real sockets: pods that freeze, fail, refuse, and one whose address somebody else got."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headlessconn import Endpoint
from headlessconn._runtime.checks import ABREAST, HEAD_MAX, Checker, Outcome
from headlessconn.checks import Check, Http, Tcp
from headlessconn.core.effects import Probe
from headlessconn.core.endpoint import How, pack
from headlessconn.core.member import State
from headlessconn.core.target import Target
from headlessconn.options import Options
from headlessconn.testing import Pod
from tests.adapters.conftest import Authority
from tests.runtime.shop import shop, until
from tests.runtime.silent import LINUX, accepting_port, refusing_port, silent_port
from tests.runtime.unused import QUICK, member, unused

ORDERS = Target.parse("orders.shop:8080")
# ---- pods in trouble, found without a request -------------------------------------------------------------------


async def test_a_frozen_pod_is_found_by_an_http_check_and_returns_when_it_answers() -> None:
    async with shop() as world, unused(world, check=Http("/healthz", timeout=0.2)) as service:
        frozen = world.orders.pods[1]
        frozen.freeze()
        await until(lambda: member(service, frozen).state is State.EJECTED)
        assert "its check: GET /healthz was not answered within 0.2 s" in member(service, frozen).why
        async with service.pick() as pick:
            assert (pick.host, pick.port) != (frozen.address, frozen.port)
        frozen.thaw()
        await until(lambda: member(service, frozen).state is State.READY)


async def test_a_frozen_pod_passes_a_tcp_check() -> None:
    async with shop() as world, unused(world, check=Tcp()) as service:
        frozen = world.orders.pods[1]
        frozen.freeze()
        checked = world.orders.pods[0].accepted
        await until(lambda: world.orders.pods[0].accepted > checked + 5)
        assert {view.state for view in service.snapshot.members} == {State.READY}


async def test_a_pod_that_answers_503_and_then_200() -> None:
    async with shop() as world, unused(world, check=Http("/healthz")) as service:
        ailing = world.orders.pods[1]
        ailing.fail(503)
        await until(lambda: member(service, ailing).state is State.EJECTED)
        assert "its check: GET /healthz answered 503" in member(service, ailing).why
        ailing.recover()
        await until(lambda: member(service, ailing).state is State.READY)


@pytest.mark.parametrize("check", [Tcp(), Http("/healthz")], ids=repr)
async def test_a_pod_that_refuses_is_failing_before_any_request_meets_it(check: Check) -> None:
    async with shop() as world, unused(world, check=check) as service:
        refusing = world.orders.pods[1]
        refusing.refuse()
        await until(lambda: member(service, refusing).state is State.FAILING)
        assert member(service, refusing).why in ("its check: refused", "refused")
        refusing.recover()
        await until(lambda: member(service, refusing).state is State.READY)


async def test_a_pod_asked_is_asked_as_a_request_of_the_service_and_let_go() -> None:
    async with shop(pods=1) as world, unused(world, check=Http("/healthz?deep=1")):
        [pod] = world.orders.pods
        await until(lambda: len(pod.requests) >= 3)
        asked = pod.requests[0]
        assert (asked.method, asked.path) == ("GET", "/healthz")
        assert asked.host == f"orders.shop:{pod.port}"
        assert asked.headers["Connection"] == "close"
    await until(lambda: pod.connections == 0)


async def test_without_a_check_nobody_is_asked() -> None:
    async with shop() as world, unused(world), world.client(check=Tcp(), **QUICK) as other:
        await other.service(world.orders.target).ready()
        await until(lambda: world.orders.pods[0].accepted > 3)  # so much time has passed
        assert not [request for pod in world.orders.pods for request in pod.requests]


# ---- one question, by the loop and by a thread ------------------------------------------------------------------

Ask = Callable[[Checker, Probe], Any]


async def by_the_loop(checker: Checker, probe: Probe) -> Outcome:
    return await checker.probe(probe)


async def by_a_thread(checker: Checker, probe: Probe) -> Outcome:
    return await asyncio.to_thread(checker.probe_blocking, probe)


both = pytest.mark.parametrize("ask", [by_the_loop, by_a_thread])


def probe_of(port: int, check: Check, timeout: float = 5.0, number: int = -1) -> Probe:
    return Probe(number, Endpoint.of(pack("127.0.0.1", port)), timeout, check)


@contextlib.asynccontextmanager
async def saying(*pieces: bytes, then_wait: bool = False, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says these pieces to whatever it is asked, and hangs up unless it is to wait."""
    end = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if then_wait:
                await end.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        end.set()
    await asyncio.sleep(0)


@both
@pytest.mark.parametrize(
    ("said", "status"),
    [
        ([b"HTTP/1.1 200 OK\r\n\r\n"], 200),
        ([b"HTTP/1.0 204 No Content\r\n\r\n"], 204),
        ([b"HTTP/1.1 302\r\nLocation: /\r\n\r\n"], 302),
        ([b"HTTP/1.1 200 OK\n\n"], 200),
        ([b"HTT", b"P/1.", b"1 20", b"0 O", b"K\r", b"\n"], 200),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"], 200),
        ([b"HTTP/1.1 103 Early Hints\r\n", b"Link: </x>\r\n\r", b"\nHTTP/1.1 2", b"04 No\r\n\r\n"], 204),
        ([b"HTTP/1.1 404 Not Found\r\n\r\n"], 404),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], 503),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], 101),
    ],
    ids=lambda value: repr(value)[:50],
)
async def test_the_status_decides_however_it_arrives(ask: Ask, said: list[bytes], status: int) -> None:
    async with saying(*said, then_wait=True) as port:
        outcome = await ask(Checker(ORDERS, Options()), probe_of(port, Http("/healthz")))
    if 200 <= status < 400:
        assert outcome == Outcome(True, How.OK, "")
    else:
        assert outcome == Outcome(False, How.BAD_STATUS, f"GET /healthz answered {status}")


@both
async def test_other_statuses_may_be_the_expected_ones(ask: Ask) -> None:
    check = Http(expected=[401, 503])
    for status, passes in ((401, True), (503, True), (200, False)):
        async with saying(b"HTTP/1.1 %d x\r\n\r\n" % status) as port:
            assert (await ask(Checker(ORDERS, Options()), probe_of(port, check))).passed is passes


@both
@pytest.mark.parametrize(
    ("said", "how"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], How.BAD_STATUS),
        ([b"HTTP/2 200\r\n\r\n"], How.BAD_STATUS),
        ([b"HTTP/1.1 2000 x\r\n\r\n"], How.BAD_STATUS),
        ([b"HTTP/1.1 OK\r\n\r\n"], How.BAD_STATUS),
        ([b"\xff" * 100 + b"\r\n"], How.BAD_STATUS),
        ([b"x" * (2 * HEAD_MAX)], How.BAD_STATUS),
        ([b"HTTP/1.1 100 x\r\n\r\n" * HEAD_MAX], How.BAD_STATUS),
        ([], How.RESET),
        ([b"HTTP/1.1 20"], How.RESET),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_no_answer(ask: Ask, said: list[bytes], how: How) -> None:
    async with saying(*said) as port:
        outcome = await ask(Checker(ORDERS, Options()), probe_of(port, Http("/healthz")))
    assert (outcome.passed, outcome.how) == (False, how)
    assert outcome.why.startswith("GET /healthz")


@both
async def test_silence_is_a_time_out_of_the_answer_not_of_the_dial(ask: Ask) -> None:
    checker = Checker(ORDERS, Options())
    with accepting_port() as port:
        outcome = await ask(checker, probe_of(port, Http("/healthz", timeout=0.1)))
        assert outcome == Outcome(False, How.TIMEOUT, "GET /healthz was not answered within 0.1 s")
        assert await ask(checker, probe_of(port, Tcp())) == Outcome(True)
    async with saying(b"HTTP/1.1", then_wait=True) as port:
        assert (await ask(checker, probe_of(port, Http(timeout=0.1)))).how is How.TIMEOUT


@both
@pytest.mark.parametrize("check", [Tcp(), Http()], ids=repr)
async def test_a_port_that_refuses(ask: Ask, check: Check) -> None:
    with refusing_port() as port:
        assert await ask(Checker(ORDERS, Options()), probe_of(port, check)) == Outcome(False, How.REFUSED, "refused")


@LINUX
@both
@pytest.mark.parametrize("check", [Tcp(), Http()], ids=repr)
async def test_a_port_that_is_a_black_hole(ask: Ask, check: Check) -> None:
    with silent_port() as port:
        outcome = await ask(Checker(ORDERS, Options()), probe_of(port, check, timeout=0.1))
    assert outcome == Outcome(False, How.DIAL_TIMEOUT, "dial timed out")


@both
async def test_health_on_a_port_of_its_own(ask: Ask) -> None:
    async with saying(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        with refusing_port() as other:
            assert (await ask(Checker(ORDERS, Options()), probe_of(other, Http(port=port)))).passed


@both
@pytest.mark.parametrize(
    ("target", "check", "host"),
    [
        ("orders.shop:8080", Http(), "orders.shop:{port}"),
        ("orders.shop:8080", Http(host="health.example"), "health.example"),
        ("static:///127.0.0.1:80", Http(), "127.0.0.1:{port}"),
    ],
    ids=str,
)
async def test_the_host_header(ask: Ask, target: str, check: Check, host: str) -> None:
    async with Pod() as pod:
        assert (await ask(Checker(Target.parse(target), Options()), probe_of(pod.port, check))).passed
        assert pod.requests[0].host == host.format(port=pod.port)


@both
async def test_tls_is_verified_for_the_services_name(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority()
    async with Pod(ssl_context=authority.serving("orders.shop")) as pod:
        trusting = Http(tls=authority.trusting)
        assert (await ask(Checker(ORDERS, Options()), probe_of(pod.port, trusting))).passed
        assert pod.requests[0].host == f"orders.shop:{pod.port}"
        assert not caplog.records

        # A certificate that we do not trust may be our own fault, so it is no evidence; but it is said, once.
        checker = Checker(Target.parse("billing.shop:443"), Options())
        for check in (trusting, Http(tls=True)):
            outcome = await ask(checker, probe_of(pod.port, check))
            assert (outcome.passed, outcome.how) == (False, How.LOCAL)
        [record] = caplog.records
        assert record.getMessage().startswith(f"billing.shop:443: 127.0.0.1:{pod.port} could not be checked (GET /: ")


@both
async def test_nothing_is_left_open(ask: Ask) -> None:
    checker = Checker(ORDERS, Options())
    async with Pod() as pod, saying(b"junk\r\n", then_wait=True) as port:
        await ask(checker, probe_of(pod.port, Http()))
        await ask(checker, probe_of(pod.port, Tcp()))
        await ask(checker, probe_of(port, Http()))
        await until(lambda: pod.connections == 0)
    gc.collect()  # a socket that was left to the collector warns, and warnings fail the suite


async def test_a_check_that_is_cancelled_leaves_nothing() -> None:
    with accepting_port() as port:
        task = asyncio.create_task(Checker(ORDERS, Options()).probe(probe_of(port, Http(timeout=60.0))))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    gc.collect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_all_checks_of_a_loop_share_one_bound_and_redials_do_not_wait_for_it() -> None:
    open_now = most = 0
    arrived = asyncio.Event()
    leave = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now >= ABREAST:
            arrived.set()
        await leave.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        open_now -= 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=200)
    async with server:
        port = server.sockets[0].getsockname()[1]
        checkers = [Checker(ORDERS, Options()), Checker(Target.parse("billing.shop:80"), Options())]
        asked = [
            asyncio.create_task(checkers[n % 2].probe(probe_of(port, Http(timeout=30.0), 30.0))) for n in range(100)
        ]
        await arrived.wait()
        late = await checkers[0].probe(probe_of(port, Tcp(), timeout=0.05))
        assert late == Outcome(False, How.LOCAL, "too many checks under way"), "which says nothing about the pod"
        assert await checkers[0].probe(probe_of(port, Tcp(), number=1)) == Outcome(True)
        most = 0
        leave.set()
        assert all(outcome.passed for outcome in await asyncio.gather(*asked))
        assert most <= ABREAST
