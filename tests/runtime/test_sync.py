"""The blocking API against a real cluster on loopback: picks, readiness, changes, waiting, many threads."""

import sys
import threading

import pytest

from headlessconn import Endpoint, NoEndpoints
from headlessconn._runtime.reading import Changes
from headlessconn.core.effects import Change
from headlessconn.core.member import State
from headlessconn.sync import Client
from tests.runtime.threaded_shop import Callers, exchange, talk, threaded_shop, until

STATIC = "static:///127.0.0.1:1,127.0.0.1:2,127.0.0.1:3"

# ---- picking ----------------------------------------------------------------------------------------------------


def test_requests_are_spread_over_all_pods() -> None:
    with threaded_shop() as world, world.client(policy="least_request") as client:
        service = client.service(world.orders.target)
        service.ready(3)
        seen = {talk(service) for _ in range(30)}
        assert seen == world.places
        assert min(pod.served for pod in world.orders.pods) >= 5


def test_the_first_pick_needs_no_preparation_and_names_a_pod() -> None:
    with threaded_shop(port_name="http") as world, world.client() as client:
        service = client.service(f"{world.orders.name}:http")
        with service.pick() as pick:
            assert (pick.host, pick.port) in world.places
            assert (pick.endpoint.address, pick.endpoint.port) == (pick.host, pick.port)
            assert repr(pick) == f"<headlessconn.sync.Pick {pick.endpoint}>"


def test_a_pod_that_is_added_or_removed_is_followed() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        [new] = world.run(world.orders.add())
        service.ready(3)
        until(lambda: talk(service) == (new.address, new.port))
        gone = world.orders.pods[0]
        world.run(world.orders.remove(gone, grace=0.0))
        until(lambda: len(service.snapshot.endpoints) == 2)
        assert (gone.address, gone.port) not in {talk(service) for _ in range(10)}


def test_a_removed_pod_drains() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        with service.pick() as pick:
            [pod] = [pod for pod in world.orders.pods if pod.address == pick.host and pod.port == pick.port]
            world.call(world.orders.unlist, pod)
            until(lambda: len(service.snapshot.endpoints) == 1)
            assert [view.endpoint for view in service.snapshot.of(State.DRAINING)] == [pick.endpoint]
            assert exchange(pick) == (pod.address, pod.port), "it works on to its end"
        assert service.snapshot.of(State.DRAINING) == ()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConnectionRefusedError(), State.FAILING),
        (ConnectionResetError(), State.READY),
        (ValueError("the caller's own"), State.READY),
        (KeyboardInterrupt(), State.READY),
    ],
    ids=repr,
)
def test_how_a_block_ends_is_evidence(error: BaseException, state: State) -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        picked: list[Endpoint] = []

        def request() -> None:
            with service.pick() as pick:
                picked.append(pick.endpoint)
                raise error

        with pytest.raises(type(error)):
            request()
        [view] = [view for view in service.snapshot.members if [view.endpoint] == picked]
        assert view.state is state
        assert all(view.in_flight == 0 for view in service.snapshot.members)


def test_a_pod_that_refuses_is_avoided_and_comes_back_when_it_accepts() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        dead, alive = world.orders.pods
        world.call(world.orders.crash, dead)
        failed = 0
        while not service.snapshot.of(State.FAILING):
            try:
                talk(service)
            except ConnectionRefusedError:
                failed += 1
        assert failed == 1
        assert {talk(service) for _ in range(10)} == {(alive.address, alive.port)}
        world.run(dead.start())
        service.ready(2)
        until(lambda: talk(service) == (dead.address, dead.port))


def test_bad_answers_eject_a_pod() -> None:
    # In turns: peak EWMA would soon hardly ask it.
    with threaded_shop() as world, world.client(policy="round_robin") as client:
        service = client.service(world.orders.target)
        service.ready(3)
        sick = world.orders.pods[0]
        world.call(sick.fail, 503)
        until(lambda: bool(talk(service)) and bool(service.snapshot.of(State.EJECTED)))
        [view] = service.snapshot.of(State.EJECTED)
        assert (view.endpoint.address, view.endpoint.port) == (sick.address, sick.port)


def test_a_pick_that_streams_counts_as_a_connection() -> None:
    with Client() as client:
        service = client.service("static:///127.0.0.1:1")
        service.ready()
        with service.pick() as pick:
            pick.streams()
            [view] = service.snapshot.members
            assert (view.in_flight, view.connections) == (0, 1)
        [view] = service.snapshot.members
        assert (view.in_flight, view.connections) == (0, 0)


def test_what_fails_while_connecting_is_a_failed_dial_and_what_fails_later_is_not() -> None:
    with Client() as client:
        service = client.service("static:///127.0.0.1:1")
        service.ready()

        def is_not_answered() -> None:
            with service.pick() as pick:
                with pick.connecting() as seconds:
                    assert seconds == client.options.connect_timeout
                assert pick.is_sent
                raise TimeoutError("no answer")

        for _ in range(3):
            with pytest.raises(TimeoutError):
                is_not_answered()
        assert service.snapshot.ready, "three bad answers are too few"
        with pytest.raises(TimeoutError), service.pick() as pick, pick.connecting():
            raise TimeoutError("no connection")
        assert not pick.is_sent
        [view] = service.snapshot.of(State.FAILING)
        assert (view.why, view.in_flight) == ("dial timed out", 0)
        with service.pick() as pick:
            pick.sent()
            pick.responded(bad=True)
            assert (pick.is_sent, pick.is_bad) == (True, True)


def test_connections_that_libraries_own_are_placed() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        leases = [service.place() for _ in range(4)]
        for lease in leases:
            lease.opened()
        assert sorted(view.connections for view in service.snapshot.members) == [2, 2]
        other = service.place(avoid=[leases[0].endpoint])
        assert other.endpoint != leases[0].endpoint
        other.failed(ConnectionRefusedError())
        assert [view.endpoint for view in service.snapshot.of(State.FAILING)] == [other.endpoint]
        assert service.place(avoid=[view.endpoint for view in service.snapshot.members]).endpoint is not None
        told: list[object] = []
        lease = service.place()
        lease.opened(pushes=True, on_retire=told.append)
        [pod] = [pod for pod in world.orders.pods if (pod.address, pod.port) == (lease.host, lease.port)]
        world.call(world.orders.unlist, pod)
        until(lambda: len(told) == 1)
        lease.closed()


# ---- many threads -----------------------------------------------------------------------------------------------


def test_sixteen_threads_pick_evenly_and_every_pick_ends_once() -> None:
    threads, each = 16, 500
    counts: list[dict[int, int]] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # a switch at every other step, in the middle of whatever runs
    try:
        with Client(policy="round_robin") as client:
            service = client.service(STATIC)
            service.ready(3)

            def work() -> None:
                mine: dict[int, int] = {}
                for _ in range(each):
                    with service.pick() as pick:
                        mine[pick.port] = mine.get(pick.port, 0) + 1
                        pick.responded()
                counts.append(mine)

            callers = Callers()
            callers.start(work, threads)
            assert callers.results() == [None] * threads, "a pick that ends twice would be told"
            view = service.snapshot
    finally:
        sys.setswitchinterval(interval)
    assert view.picks == threads * each
    assert [(member.state, member.in_flight, member.connections) for member in view.members] == [
        (State.READY, 0, 0)
    ] * 3
    shares = [sum(mine.get(port, 0) for mine in counts) for port in (1, 2, 3)]
    assert sum(shares) == threads * each
    assert max(shares) - min(shares) <= 1, "in turn, whoever asks"


def test_threads_use_a_service_while_its_pods_come_and_go() -> None:
    with threaded_shop() as world, world.client(wait_for_endpoints=30.0) as client:
        service = client.service(world.orders.target)
        stop = threading.Event()

        def work() -> int:
            done = 0
            while not stop.is_set():
                talk(service)
                done += 1
            return done

        callers = Callers()
        callers.start(work, 4)
        world.run(world.orders.roll(surge=1, grace=1.0))
        service.ready(3)
        new = {(pod.address, pod.port) for pod in world.orders.pods}
        until(lambda: min(pod.served for pod in world.orders.pods) > 0)
        stop.set()
        assert all(isinstance(done, int) and done > 0 for done in callers.results()), callers.ended
        assert {(end.address, end.port) for end in service.snapshot.endpoints} == new


# ---- readiness, changes, seeing ---------------------------------------------------------------------------------


def test_ready_waits_and_gives_up() -> None:
    with threaded_shop(pods=0) as world, world.client(wait_for_endpoints=0.2) as client:
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints):
            service.ready()
        callers = Callers()
        callers.start(lambda: service.ready(2, timeout=30.0))
        world.run(world.orders.add(2))
        assert callers.results() == [None]
        with pytest.raises(NoEndpoints, match="only 2 of 3 endpoints"):
            service.ready(3, timeout=0.0)


def test_changes_are_told_until_the_client_closes() -> None:
    with threaded_shop(pods=1) as world:
        client = world.client()
        service = client.service(world.orders.target)
        service.ready()
        seen: list[Change] = []
        changes = service.changes()
        callers = Callers()

        def read() -> None:
            for change in changes:
                seen.append(change)  # noqa: PERF402 - it is looked at meanwhile

        callers.start(read)
        [new] = world.run(world.orders.add())
        until(lambda: len(seen) == 1)
        world.call(world.orders.unlist, new)
        until(lambda: len(seen) == 2)
        client.close()
        assert callers.results() == [None]
        assert [change.counts() for change in seen] == ["+1 -0 =2", "+0 -1 =1"]
        assert list(changes) == []


def test_a_reader_may_stop_from_anywhere() -> None:
    with Client() as client:
        service = client.service(STATIC)
        with service.changes() as changes:
            callers = Callers()
            callers.start(lambda: list(changes))
            service.ready(3)
        assert callers.results()[0] is not None
        assert list(changes) == []
    with Client() as client:
        changes = client.service(STATIC).changes()
        client.service(STATIC).ready(3)
    assert [change.counts() for change in changes] == ["+3 -0 =3"], "what was told before the end is heard"


def test_a_reader_that_does_not_keep_up_misses_the_oldest() -> None:
    changes = Changes("orders.shop:80")
    for at in range(1003):
        changes.put(Change(at, (), (), (), 0))
    assert next(changes).at == 3


def test_what_is_known_can_be_read() -> None:
    with threaded_shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        service.ready(2)
        view = service.snapshot
        assert {(endpoint.address, endpoint.port) for endpoint in view.endpoints} == world.places
        lines = service.explain().splitlines()
        assert lines[0] == f"{world.orders.target} has 2 endpoints: 2 ready."
        assert lines[1].startswith("DNS said NOERROR for ")
        assert repr(service) == f"<headlessconn.sync.Service {world.orders.target}>"


# ---- nobody -----------------------------------------------------------------------------------------------------


def test_nobody_is_told_with_the_last_answer_and_what_to_check() -> None:
    with threaded_shop(pods=0) as world, world.client(wait_for_endpoints=0.3) as client:
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints) as caught, service.pick():
            pass
        error = caught.value
        assert (error.target, error.said) == (world.orders.target, "NXDOMAIN")
        assert error.waited >= 0.3
        assert "check" in str(error)
        assert service.snapshot.waiting == 0


@pytest.mark.parametrize(("trouble", "said"), [({"rcode": "SERVFAIL"}, "SERVFAIL"), ({"silent": True}, "timeout")])
def test_trouble_with_dns_is_told_as_such(trouble: dict[str, object], said: str) -> None:
    with threaded_shop(pods=1) as world, world.client(wait_for_endpoints=0.5, lookup_timeout=0.1) as client:
        world.call(lambda: world.cluster.zone.trouble(**trouble))  # type: ignore[arg-type]
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints) as caught, service.pick():
            pass
        assert (caught.value.said, caught.value.age) == (said, None)


def test_zero_does_not_wait() -> None:
    with threaded_shop(pods=0) as world, world.client() as client:
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints, match=r"after waiting 0\.0 s"), service.pick(wait=0):
            pass


def test_callers_wait_for_the_first_pod_and_are_served_in_their_order() -> None:
    with threaded_shop(pods=0) as world, world.client(wait_for_endpoints=30.0, max_in_flight=1) as client:
        service = client.service(world.orders.target)
        order: list[int] = []

        def waits(number: int) -> None:
            with service.pick():
                order.append(number)

        callers = Callers()
        for number in range(5):
            callers.start(lambda number=number: waits(number))  # type: ignore[misc]
            until(lambda: service.snapshot.waiting == number + 1)  # noqa: B023 - called at once
        world.run(world.orders.add())
        assert callers.results() == [None] * 5
        assert order == [0, 1, 2, 3, 4]
        assert service.snapshot.waiting == 0
