"""The thread of a blocking client: when it is called, and what it does beside asking DNS."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_hub import BlockingHub
from headlessconn._runtime.workers import Workers
from headlessconn.checks import Http
from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.member import State
from headlessconn.core.pick import Pick
from headlessconn.errors import NoEndpoints, Overloaded
from headlessconn.sync import Client
from tests.runtime.silent import accepting_port, refusing_port
from tests.runtime.threaded_shop import Callers, talk, threaded_shop, until

STATIC = "static:///127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"
IDLE_SOON = {"idle_after": 1, "refresh_min": 0.05, "refresh_max": 0.05}


def taken(driver: BlockingDriver) -> Pick:
    found = driver.pick()
    assert isinstance(found, Pick)
    return found


# ---- who is called, and when ------------------------------------------------------------------------------------


def test_requests_that_change_nothing_do_not_call_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call costs a switch of threads; looks for silence are planned a quarter of a second ahead, and that is all."""
    with Client() as client:
        service = client.service(STATIC)
        service.ready(3)
        calls: list[float] = []
        call = BlockingHub.call

        def counted(hub: BlockingHub, driver: BlockingDriver) -> None:
            calls.append(time.monotonic())
            call(hub, driver)

        monkeypatch.setattr(BlockingHub, "call", counted)
        began = time.monotonic()
        for _ in range(5000):
            with service.pick() as pick:
                pick.responded()
        assert len(calls) <= 2 + (time.monotonic() - began) / 0.2


def test_an_exception_of_whoever_forgets_connections_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        forgotten: list[Key] = []

        def fails(key: Key) -> None:
            forgotten.append(key)
            raise ValueError("a mistake of an adapter's")

        service.driver().on_forget.add(fails)
        changes = service.changes()
        for pods in (1, 2, 1):
            world.run(world.orders.scale(pods, grace=0.0))
            until(lambda: len(service.snapshot.endpoints) == pods)  # noqa: B023 - called at once
        until(lambda: len(forgotten) == 2)
        assert [next(changes).counts() for _ in range(3)] == ["+0 -1 =1", "+1 -0 =2", "+0 -1 =1"]
        assert "a mistake of an adapter's" in caplog.text
        assert talk(service) in world.places


def test_a_change_of_the_set_is_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "headlessconn")
    with Client() as client:
        client.service("static:///127.0.0.1:1").ready()
        until(lambda: bool(caplog.messages))
    assert caplog.messages == ["static:///127.0.0.1:1: +1 -0 =1 +127.0.0.1:1"]


def test_the_first_word_is_waited_for() -> None:
    with threaded_shop(pods=0) as world, world.client() as client:
        driver = client.service(world.orders.target).driver()
        driver.first_word(30.0)
        assert driver.snapshot().answer is not None
        with world.cluster.zone.trouble(silent=True):
            silent = world.client(lookup_timeout=60.0)
            driver = silent.service(world.orders.target).driver()
            driver.first_word(0.05)
            assert driver.snapshot().answer is None
            silent.close()


# ---- waiting for room -------------------------------------------------------------------------------------------


def test_room_goes_to_those_who_wait_in_their_order_and_not_to_whoever_comes() -> None:
    with Client(max_in_flight=1, wait_for_endpoints=60.0) as client:
        service = client.service("static:///127.0.0.1:1")
        service.ready()
        order: list[str] = []

        def waits(name: str) -> None:
            with service.pick():
                order.append(name)

        callers = Callers()
        with service.pick():
            for number in range(8):
                callers.start(lambda number=number: waits(f"waiting {number}"))  # type: ignore[misc]
                until(lambda: service.snapshot.waiting == number + 1)  # noqa: B023 - called at once
        waits("came last")
        assert callers.results() == [None] * 8
        assert order == [*(f"waiting {number}" for number in range(8)), "came last"]
        assert service.snapshot.waiting == 0


def test_too_many_who_wait_and_those_who_wait_in_vain_are_told_of_the_load() -> None:
    with Client(max_in_flight=1, max_waiting=1, wait_for_endpoints=0.2) as client:
        service = client.service("static:///127.0.0.1:1")
        service.ready()
        with service.pick():
            callers = Callers()
            callers.start(lambda: service.pick().__enter__())
            until(lambda: service.snapshot.waiting == 1)
            with pytest.raises(Overloaded, match=r"1 callers? waiting of at most 1; gave up after 0\.0 s"):
                service.pick().__enter__()
            [error] = callers.results()
            assert isinstance(error, Overloaded)
            assert error.waited >= 0.2
        with service.pick():
            pass


def test_who_has_tried_all_there_are_is_told_so_and_keeps_nobody_waiting() -> None:
    with Client() as client:
        driver = client.service("static:///127.0.0.1:1").driver()
        first = driver.acquire()
        assert isinstance(first, Pick)
        assert getattr(driver.acquire({first.key}), "all_avoided", False)
        driver.ended(first, How.OK)


# ---- idle targets -----------------------------------------------------------------------------------------------


def test_idle_targets_beyond_the_limit_are_forgotten_and_come_back() -> None:
    with threaded_shop(pods=1) as world:
        others = [world.run(world.cluster.service(f"svc-{number}", pods=1)) for number in range(3)]
        with world.client(**IDLE_SOON, idle_targets=2) as client:
            services = [client.service(other.target) for other in others]
            drivers = []
            for service in services:
                service.ready()
                drivers.append(service.driver())
            until(lambda: sum(driver.closed for driver in drivers) == 1)
            [forgotten] = [at for at, driver in enumerate(drivers) if driver.closed]
            kept = next(at for at in range(3) if at != forgotten)
            until(lambda: all(driver.closed or driver.engine.idle for driver in drivers))
            assert len(client.hub().drivers()) == 2
            with services[forgotten].pick() as pick:
                assert pick.endpoint is not None
            assert services[forgotten].driver() is not drivers[forgotten]
            with services[kept].pick():
                assert services[kept].driver() is drivers[kept] or drivers[kept].closed


def test_a_target_in_use_is_never_forgotten() -> None:
    with threaded_shop(pods=1) as world:
        other = world.run(world.cluster.service("other", pods=1))
        with world.client(**IDLE_SOON, idle_targets=1) as client:
            service, idle = client.service(world.orders.target), client.service(other.target)
            with service.pick():
                driver = service.driver()
                idle.ready()
                until(lambda: idle.driver().engine.idle)
                assert not driver.closed
                assert not driver.engine.idle


# ---- our own stall ----------------------------------------------------------------------------------------------


def test_a_stall_of_our_own_voids_what_was_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial that timed out while the process stood still says nothing about the pod."""
    with Client() as client:
        service = client.service(STATIC)
        service.ready(3)
        driver = service.driver()
        heard = threading.Event()
        overslept = BlockingDriver.overslept

        def note(driver: BlockingDriver, seconds: float) -> None:
            overslept(driver, seconds)
            heard.set()

        monkeypatch.setattr(BlockingDriver, "overslept", note)
        pick = taken(driver)
        real = client.hub()._poll.run

        def late(until: float) -> None:  # as if the thread had been kept from running for a second
            real(until)
            time.sleep(1.0)

        monkeypatch.setattr(client.hub()._poll, "run", late)
        assert heard.wait(30.0)
        driver.dialled(pick, How.DIAL_TIMEOUT)
        driver.ended(pick, How.DIAL_TIMEOUT)
        assert {view.state for view in service.snapshot.members} == {State.READY}


# ---- probes, checks, verify -------------------------------------------------------------------------------------


def test_a_pod_that_refused_is_dialled_again_in_the_background() -> None:
    with refusing_port() as refusing, accepting_port() as good, Client() as client:
        service = client.service(f"static:///127.0.0.1:{refusing},127.0.0.1:{good}")
        service.ready(2)
        driver = service.driver()
        picks = [taken(driver) for _ in range(4)]
        for pick in picks:
            driver.dialled(pick, How.REFUSED)
            driver.ended(pick, How.REFUSED)
        until(lambda: [view.endpoint.port for view in service.snapshot.ready] == [good])
        [failing] = service.snapshot.of(State.FAILING)
        assert failing.endpoint.port == refusing


def test_quiet_pods_are_checked_by_http() -> None:
    check = Http("/healthz", timeout=30.0)
    with threaded_shop(pods=2) as world, world.client(check=check, check_interval=0.05) as client:
        service = client.service(world.orders.target)
        service.ready(2)
        sick = world.orders.pods[0]
        world.call(sick.fail, 503)
        until(lambda: bool(service.snapshot.of(State.EJECTED)))
        [view] = service.snapshot.of(State.EJECTED)
        assert (view.endpoint.address, view.endpoint.port) == (sick.address, sick.port)
        assert "GET /healthz answered 503" in view.why
        world.call(sick.recover)
        until(lambda: len(service.snapshot.ready) == 2)


def test_endpoints_are_verified_without_keeping_the_thread() -> None:
    asked: list[tuple[str, str]] = []
    goes_on = threading.Event()

    def verify(endpoint: Endpoint, host: str) -> bool:
        asked.append((str(endpoint), host))
        goes_on.wait(30.0)
        return endpoint.port != 2

    with Client(verify=verify) as client:
        service = client.service("static:///127.0.0.1:1,127.0.0.1:2")
        service.driver()
        until(lambda: len(asked) == 2)
        other = client.service(STATIC.replace("127.0.0.1:3", "127.0.0.1:4"))
        until(lambda: other.snapshot.answer is not None)  # the thread goes on meanwhile
        goes_on.set()
        service.ready(1, timeout=30.0)
        until(lambda: {pick_port(client) for _ in range(8)} == {1})


def pick_port(client: Client) -> int:
    try:
        with client.service("static:///127.0.0.1:1,127.0.0.1:2").pick(wait=0) as pick:
            return pick.port
    except NoEndpoints:
        return 0


# ---- workers ----------------------------------------------------------------------------------------------------


def count() -> int:
    return sum(thread.name == "test-worker" for thread in threading.enumerate())


def test_workers_are_few_start_when_there_is_work_and_survive_it(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(2, "test-worker")
    assert count() == 0
    together, released = threading.Semaphore(0), threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        together.release()
        released.wait(30.0)
        done.append(number)

    for number in range(6):
        workers.submit(lambda number=number: work(number))  # type: ignore[misc]
    for _ in range(2):
        assert together.acquire(timeout=30.0)
    assert not together.acquire(blocking=False), "two at once"
    released.set()
    until(lambda: len(done) == 6)
    workers.submit(lambda: 1 // 0)
    workers.submit(lambda: done.append(6))
    until(lambda: len(done) == 7)
    assert "ZeroDivisionError" in caplog.text
    assert count() == 2
    workers.close()
    assert workers.join(30.0)
    workers.submit(lambda: done.append(7))
    assert count() == 0
    assert len(done) == 7


def test_workers_that_have_nothing_to_do_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headlessconn._runtime.workers.STAYS", 0.01)
    workers = Workers(1, "test-worker")
    for _ in range(3):
        done = threading.Event()
        workers.submit(done.set)
        assert done.wait(30.0)
        until(lambda: count() == 0)
