"""The public API against a real cluster on loopback: picks, readiness, changes, closing, and how it is misused."""

import asyncio
import pickle
from typing import Any

import pytest

import headlessconn
from headlessconn import Client, Endpoint, HeadlessError, NoEndpoints, Options
from headlessconn.core.effects import Change
from headlessconn.core.member import State
from headlessconn.errors import ClosedError, OptionError, TargetError
from tests.runtime.shop import Shop, shop, until

# ---- picking ----------------------------------------------------------------------------------------------------


async def talk(world: Shop, service: headlessconn.Service) -> tuple[str, int]:
    """One request to one pod, as an application would send it; where it went."""
    async with service.pick() as pick:
        reader, writer = await asyncio.open_connection(pick.host, pick.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        status = await reader.readline()
        pick.responded(bad=b" 5" in status)
        await reader.read()
        writer.close()
        await writer.wait_closed()
    return pick.host, pick.port


async def test_requests_are_spread_over_all_pods() -> None:
    # By requests in flight alone: on a busy machine latencies differ, and peak EWMA would heed them.
    async with shop() as world, world.client(policy="least_request") as client:
        service = client.service(world.orders.target)
        await service.ready(3)
        seen = {await talk(world, service) for _ in range(30)}
        assert seen == world.places
        assert sum(pod.served for pod in world.orders.pods) == 30
        assert min(pod.served for pod in world.orders.pods) >= 5


async def test_the_first_pick_needs_no_preparation() -> None:
    async with shop() as world, world.client() as client:
        assert await talk(world, client.service(world.orders.target)) in world.places


async def test_a_pod_that_is_added_or_removed_is_followed() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        [new] = await world.orders.add()
        await service.ready(3)
        while (new.address, new.port) != await talk(world, service):
            pass
        gone = world.orders.pods[0]
        await world.orders.remove(gone, grace=0.0)
        await until(lambda: len(service.snapshot.endpoints) == 2)
        assert (gone.address, gone.port) not in {await talk(world, service) for _ in range(10)}


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ConnectionRefusedError(), State.FAILING),
        (ConnectionResetError(), State.READY),
        (ValueError("the caller's own"), State.READY),
        (asyncio.CancelledError(), State.READY),
    ],
    ids=repr,
)
async def test_how_a_block_ends_is_evidence(error: BaseException, state: State) -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        picked: list[Endpoint] = []

        async def request() -> None:
            async with service.pick() as pick:
                picked.append(pick.endpoint)
                raise error

        with pytest.raises(type(error)):
            await request()
        [view] = [view for view in service.snapshot.members if [view.endpoint] == picked]
        assert view.state is state
        assert all(view.in_flight == 0 for view in service.snapshot.members)


async def test_bad_answers_eject_a_pod() -> None:
    async with shop(pods=3) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(3)
        sick = world.orders.pods[0]
        sick.fail(503)
        while not service.snapshot.of(State.EJECTED):
            await talk(world, service)
        [view] = service.snapshot.of(State.EJECTED)
        assert (view.endpoint.address, view.endpoint.port) == (sick.address, sick.port)


async def test_a_pick_that_streams_counts_as_a_connection() -> None:
    async with shop(pods=1) as world, world.client() as client:
        service = client.service(world.orders.target)
        async with service.pick() as pick:
            [view] = service.snapshot.members
            assert (view.in_flight, view.connections) == (1, 0)
            pick.streams()
            [view] = service.snapshot.members
            assert (view.in_flight, view.connections) == (0, 1)
            assert repr(pick) == f"<headlessconn.Pick {pick.endpoint}>"
        [view] = service.snapshot.members
        assert (view.in_flight, view.connections) == (0, 0)


# ---- readiness, changes, seeing ---------------------------------------------------------------------------------


async def test_ready_waits_and_gives_up() -> None:
    async with shop(pods=0) as world, world.client(wait_for_endpoints=0.2) as client:
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints):
            await service.ready()
        waiting = asyncio.create_task(service.ready(2, timeout=30.0))
        await world.orders.add(2)
        await waiting
        with pytest.raises(NoEndpoints):
            await service.ready(3, timeout=0.0)


async def test_changes_are_told_until_the_client_closes() -> None:
    async with shop(pods=1) as world:
        client = world.client()
        service = client.service(world.orders.target)
        await service.ready()
        seen: list[Change] = []

        async def read() -> None:
            async for change in service.changes():
                seen.append(change)  # noqa: PERF401 - it is looked at meanwhile

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        [new] = await world.orders.add()
        await until(lambda: len(seen) == 1)
        assert [(endpoint.address, endpoint.port) for endpoint in seen[0].added] == [(new.address, new.port)]
        world.orders.unlist(new)
        await until(lambda: len(seen) == 2)
        assert [change.counts() for change in seen] == ["+1 -0 =2", "+0 -1 =1"]
        await client.aclose()
        await reading


async def test_a_reader_that_stops_early_leaves_nothing() -> None:
    async with shop(pods=1) as world, world.client() as client:
        service = client.service(world.orders.target)
        changes = service.changes()
        assert (await anext(changes)).counts() == "+1 -0 =1"
        await changes.aclose()  # type: ignore[attr-defined]
        await world.orders.add()
        await service.ready(2)


async def test_what_is_known_can_be_read() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        assert service.snapshot.endpoints == ()
        assert "DNS has not answered yet; asked in 0.0 s." in service.explain()
        await service.ready(2)
        view = service.snapshot
        assert {(endpoint.address, endpoint.port) for endpoint in view.endpoints} == world.places
        assert (view.target, view.waiting, view.trouble) == (world.orders.target, 0, "")
        assert view.answer is not None
        assert view.answer.why == "NOERROR"
        lines = service.explain().splitlines()
        assert lines[0] == f"{world.orders.target} has 2 endpoints: 2 ready."
        assert lines[1].startswith("DNS said NOERROR for ")
        assert str(view) == f"{world.orders.target}: 2 ready"


async def test_reprs_never_raise() -> None:
    async with shop(pods=1) as world:
        client = world.client()
        service = client.service(world.orders.target)
        seen = [repr(client), repr(service), repr(service.target), repr(client.options)]
        await client.__aenter__()
        seen += [repr(client), repr(service), repr(service.snapshot), repr(service.driver()), repr(client.hub())]
        picking = service.pick()
        seen.append(repr(picking))
        async with picking as pick:
            seen += [repr(pick), repr(pick.endpoint), repr(picking), repr(service.snapshot.members)]
        await client.aclose()
        seen += [repr(client), repr(service), repr(pick), repr(picking)]
        assert all(seen)
        assert [repr(client), seen[0], seen[4]] == [
            "<headlessconn.Client closed>",
            "<headlessconn.Client not opened yet>",
            "<headlessconn.Client open>",
        ]


# ---- nobody -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "said"),
    [({}, "NXDOMAIN"), ({"rcode": "SERVFAIL"}, "SERVFAIL"), ({"silent": True}, "timeout")],
    ids=lambda value: str(value),
)
async def test_nobody_is_told_with_the_last_answer_and_what_to_check(trouble: dict[str, Any], said: str) -> None:
    async with shop(pods=0) as world, world.client(wait_for_endpoints=0.3, lookup_timeout=0.1) as client:
        if trouble:
            world.cluster.zone.trouble(**trouble)
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints) as caught:
            async with service.pick():
                pass
        error = caught.value
        assert (error.target, error.said) == (world.orders.target, said)
        assert error.waited >= 0.3
        assert (error.age is None) is bool(trouble)
        assert f"no endpoints behind {world.orders.target} after waiting 0." in str(error)
        assert "check" in str(error)
        assert isinstance(error, ConnectionError)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        assert service.snapshot.waiting == 0


async def test_a_service_that_exists_and_lists_no_address() -> None:
    async with shop(pods=0) as world, world.client(wait_for_endpoints=0.2) as client:
        world.cluster.zone.records("api.shop.svc.cluster.local.", "TXT nothing-else")
        service = client.service("api.shop:80")
        with pytest.raises(NoEndpoints, match=r"the last answer was NODATA, .* is headless \(clusterIP: None\)"):
            await service.open_connection()


async def test_dns_that_answered_once_and_then_fell_silent() -> None:
    async with shop(pods=0) as world, world.client(wait_for_endpoints=0.3) as client:
        service = client.service(world.orders.target)
        await service.driver().first_word()
        world.cluster.zone.trouble(rcode="SERVFAIL")
        await until(lambda: service.snapshot.trouble == "SERVFAIL")
        with pytest.raises(NoEndpoints) as caught:
            await service.ready()
        assert caught.value.said == "SERVFAIL"
        assert caught.value.age is None, "the age is not that of another answer"
        assert "DNS does not answer for it any more (SERVFAIL)" in str(caught.value)


async def test_fewer_than_wanted_are_counted() -> None:
    async with shop(pods=2) as world, world.client() as client:
        service = client.service(world.orders.target)
        await service.ready(2)
        with pytest.raises(NoEndpoints, match=f"2 of 3 endpoints behind {world.orders.target} are ready"):
            await service.ready(3, timeout=0.0)


async def test_zero_does_not_wait() -> None:
    async with shop(pods=1) as world, world.client() as client:
        service = client.service(world.orders.target)
        with pytest.raises(NoEndpoints, match=r"after waiting 0\.0 s; the last answer was nothing yet"):
            async with service.pick(wait=0):
                pass
        await service.ready()
        async with service.pick(wait=0):
            pass


async def test_callers_wait_for_the_first_pod() -> None:
    async with shop(pods=0) as world, world.client(wait_for_endpoints=30.0) as client:
        service = client.service(world.orders.target)
        waiting = [asyncio.create_task(talk(world, service)) for _ in range(5)]
        await until(lambda: service.snapshot.waiting == 5)
        waiting[2].cancel()
        await until(lambda: service.snapshot.waiting == 4)
        await world.orders.add()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [end in world.places for end in ended] == [True, True, False, True, True]
        assert service.snapshot.waiting == 0


# ---- closing ----------------------------------------------------------------------------------------------------


async def test_closing_twice_is_right_and_using_it_after_is_told() -> None:
    async with shop(pods=1) as world:
        client = world.client()
        service = client.service(world.orders.target)
        await service.ready()
        pick = await service.pick().__aenter__()
        await client.aclose()
        await client.aclose()
        pick.responded()
        pick.finish(None)  # what was open may end after the end
        uses = [
            service.ready(),
            service.open_connection(),
            service.pick().__aenter__(),
            anext(service.changes()),
            client.__aenter__(),
        ]
        for use in uses:
            with pytest.raises(ClosedError, match="this client was closed: make a new one"):
                await use
        for look in (lambda: service.snapshot, service.explain, client.hub):
            with pytest.raises(ClosedError):
                look()
        assert client.service("orders.shop:80").target.port == 80, "naming a target opens nothing"


async def test_closing_a_client_that_was_never_opened() -> None:
    client = Client()
    await client.aclose()
    with pytest.raises(ClosedError):
        await client.service("orders.shop:80").ready()


async def test_closing_while_callers_wait() -> None:
    async with shop(pods=0) as world:
        client = world.client(wait_for_endpoints=60.0)
        service = client.service(world.orders.target)
        waiting = [asyncio.create_task(talk(world, service)) for _ in range(3)]
        waiting.append(asyncio.create_task(service.open_connection()))  # type: ignore[arg-type]
        await until(lambda: service.snapshot.waiting == 4)
        await client.aclose()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ended] == [ClosedError] * 4
        assert str(ended[0]) == f"the client of {world.orders.target} was closed"


async def test_closing_while_dns_is_silent() -> None:
    async with shop(pods=1) as world:
        world.cluster.zone.trouble(silent=True)
        client = world.client()
        client.service(world.orders.target).driver()
        await until(lambda: bool(world.cluster.zone.queries))
        await client.aclose()
        await asyncio.sleep(0)
        ours = [task for task in asyncio.all_tasks() if "headlessconn._runtime" in repr(task)]
        assert ours == []


# ---- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["orders.shop:0", "orders.shop:70000", "http://orders.shop", "", "a b", "10.0.0.1:80"])
def test_a_malformed_target(text: str) -> None:
    with pytest.raises(TargetError) as caught:
        Client().service(text)
    assert isinstance(caught.value, ValueError)
    assert "a right one looks like" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"refresh_min": 10.0}, "refresh_min"),
        ({"refresh": 1.0}, "refresh"),
        ({"policy": "best"}, "policy"),
        ({"nameservers": ["dns.google"]}, "nameservers"),
        ({"nameservers": ["10.96.0.10:0"]}, "nameservers"),
        ({"nameservers": ["10.96.0.10:70000"]}, "nameservers"),
        ({"nameservers": ["10.96.0.10:dns"]}, "nameservers"),
        ({"nameservers": [""]}, "nameservers"),
        ({"nameservers": "10.96.0.10"}, "nameservers"),
    ],
)
def test_options_that_are_wrong_are_told_when_the_client_is_built(settings: dict[str, Any], option: str) -> None:
    with pytest.raises(OptionError) as caught:
        Client(**settings)
    assert caught.value.option == option
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, HeadlessError)


def test_settings_change_the_options_given() -> None:
    base = Options(refresh_max=2.0)
    client = Client(base, policy="round_robin")
    assert (client.options.refresh_max, client.options.policy) == (2.0, "round_robin")
    assert Client(base).options is base


def test_the_front_door() -> None:
    assert set(headlessconn.__all__) <= set(dir(headlessconn))
    for name in headlessconn.__all__:
        assert getattr(headlessconn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'headlessconn' has no attribute 'Nothing'"):
        _ = headlessconn.Nothing
