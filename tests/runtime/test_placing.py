"""Long-lived connections through the driver: who is called when one should go or be replaced; leases over sockets."""

import asyncio
import contextlib
import logging

import pytest

from headlessconn._runtime.lease import KEEP, Lease, Retire
from headlessconn.core.claim import Claim, ConnId, Reason
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Nobody
from headlessconn.errors import ClosedError, NoEndpoints, Overloaded, PickEnded
from tests.runtime.scripted_source import NXDOMAIN, Stage, records, stage
from tests.runtime.shop import Shop, shop, until
from tests.runtime.virtual_time import in_virtual_time, now


async def claim(on: Stage) -> Claim:
    found = await on.driver.claim()
    assert isinstance(found, Claim)
    return found


def held(on: Stage) -> dict[str, int]:
    return {view.endpoint.address: view.connections for view in on.driver.snapshot().members}


class Holder:
    """A pool that does as it is told."""

    def __init__(self, on: Stage) -> None:
        self.on = on
        self.told: list[tuple[float, str, ConnId]] = []

    async def open(self, **how: bool) -> ConnId:
        return self.opened(await claim(self.on), **how)

    def opened(self, claim: Claim, pushes: bool = False) -> ConnId:
        conn = self.on.driver.opened(claim, pushes=pushes, on_retire=self.retire, on_warm=self.warm)
        if not pushes:
            assert self.on.driver.checked_in(conn) is KEEP
        return conn

    def retire(self, said: Retire) -> None:
        self.told.append((round(now(), 3), said.reason.name, said.conn))
        self.on.driver.gone(said.conn)

    def warm(self, claim: Claim) -> None:
        assert claim.replaces is not None
        self.told.append((round(now(), 3), "WARM", claim.replaces))
        self.opened(claim)


# ---- waiting -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_who_finds_nobody_waits_in_turn_with_the_requests() -> None:
    async with stage(NXDOMAIN) as on:
        order: list[str] = []

        async def wait(name: str, what: str) -> None:
            if what == "place":
                on.driver.failed(await claim(on), How.CANCELLED)
            else:
                found = await on.driver.acquire()
                assert not isinstance(found, Nobody)
                on.driver.ended(found, How.OK)
            order.append(name)

        waiting = [asyncio.ensure_future(wait(str(n), "place" if n % 2 else "pick")) for n in range(6)]
        await asyncio.sleep(1.5)
        on.source.says = records(1)
        await asyncio.gather(*waiting)
        assert order == list("012345")
        assert now() == pytest.approx(2.0, abs=0.11)
        assert held(on) == {"10.0.0.1": 0}


@in_virtual_time
async def test_who_waits_in_vain_is_told_and_who_is_too_many_at_once() -> None:
    async with stage(NXDOMAIN, max_waiting=1) as on:
        first = asyncio.ensure_future(claim(on))
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded):
            await claim(on)
        with pytest.raises(NoEndpoints, match="NXDOMAIN"):
            await first
        assert now() == pytest.approx(5.0)
        with pytest.raises(NoEndpoints):
            await on.driver.claim(wait=0.0)


@in_virtual_time
async def test_a_cancelled_one_leaves_nothing_behind() -> None:
    async with stage(NXDOMAIN) as on:
        waiting = asyncio.ensure_future(claim(on))
        await asyncio.sleep(0.5)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        on.source.says = records(1)
        await asyncio.sleep(2.0)
        view = on.driver.snapshot()
        assert (view.waiting, held(on)) == (0, {"10.0.0.1": 0})


@in_virtual_time
async def test_closing_ends_the_waiting() -> None:
    async with stage(NXDOMAIN) as on:
        waiting = asyncio.ensure_future(claim(on))
        await asyncio.sleep(0.5)
        on.driver.close()
        with pytest.raises(ClosedError):
            await waiting


# ---- being told --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_holder_is_called_to_replace_and_then_to_let_go() -> None:
    async with stage(records(1)) as on:
        holder = Holder(on)
        conns = [await holder.open() for _ in range(4)]
        await asyncio.sleep(20.0)
        on.source.says = records(1, 2)
        await asyncio.sleep(60.0)
        assert held(on) == {"10.0.0.1": 2, "10.0.0.2": 2}
        assert [(what, conn) for _, what, conn in holder.told] == [
            ("WARM", conns[0]),
            ("SURPLUS", conns[0]),
            ("WARM", conns[1]),
            ("SURPLUS", conns[1]),
        ]
        assert len(on.driver.on_retire) == len(on.driver.on_warm) == 4, "what is gone is forgotten"


@in_virtual_time
async def test_idle_ones_and_subscriptions_are_told_when_their_pod_leaves() -> None:
    async with stage(records(1, 2)) as on:
        holder = Holder(on)
        conns = [await holder.open() for _ in range(2)]
        subscription = await holder.open(pushes=True), await holder.open(pushes=True)
        await asyncio.sleep(20.0)
        on.source.says = records(1)
        await asyncio.sleep(5.1)
        assert {what for _, what, _ in holder.told} == {"LEFT"}
        assert len(holder.told) == 2
        assert len({conn for _, _, conn in holder.told} & {*conns}) == 1
        assert len({conn for _, _, conn in holder.told} & {*subscription}) == 1
        assert held(on) == {"10.0.0.1": 2}


@in_virtual_time
async def test_a_holder_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with stage(records(1), rebalance_over=0.0) as on:
        holder = Holder(on)

        def fail(_: object) -> None:
            raise ZeroDivisionError("a bug of the holder")

        bad = on.driver.opened(await claim(on), on_retire=fail, on_warm=fail)
        on.driver.checked_in(bad)
        good = await holder.open()
        on.source.says = records(1, 2)
        with caplog.at_level(logging.ERROR, "headlessconn"):
            await asyncio.sleep(20.0)
            assert "the holder of a connection failed to replace it" in caplog.text
            assert held(on)["10.0.0.2"] == 0, "the place was given back"
            on.source.says = records(2)
            await asyncio.sleep(6.0)
        assert "failed to let it go" in caplog.text
        assert [(what, conn) for _, what, conn in holder.told] == [("LEFT", good)]
        on.driver.gone(bad)


@in_virtual_time
async def test_a_target_with_a_connection_goes_on_asking() -> None:
    async with stage(records(1), idle_after=10.0) as on:
        conn = await Holder(on).open()
        await asyncio.sleep(100.0)
        assert on.keeper.told == []
        on.driver.gone(conn, How.RESET)
        on.driver.gone(conn)
        await asyncio.sleep(30.0)
        assert [what for _, what in on.keeper.told] == ["idle"]


# ---- leases, over sockets ------------------------------------------------------------------------------------------


async def lease_to(on: Shop, lease: Lease) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection(lease.host, lease.port)
    lease.opened()
    return writer


async def test_leases_follow_the_pods() -> None:
    async with shop(pods=2) as on, on.client(rebalance_over=0.0) as client:
        service = client.service("orders.shop")
        leases = [await service.place() for _ in range(6)]
        assert {(lease.host, lease.port) for lease in leases} == on.places
        writers = {lease: await lease_to(on, lease) for lease in leases}
        assert all(lease.checked_in() is KEEP for lease in leases)
        assert all(lease.verdict() is KEEP for lease in leases)
        await on.orders.scale(1)
        left = {pod.address for pod in on.orders.pods}
        await until(lambda: len(service.snapshot.endpoints) == 1)
        for lease in leases:
            said = lease.checked_out()
            assert isinstance(said, Retire) == (lease.host not in left)
            if isinstance(said, Retire):
                assert said.reason is Reason.LEFT
        for lease in leases:
            writers[lease].close()
            lease.closed()
            lease.closed()
        assert sum(view.connections for view in service.snapshot.members) == 0


async def test_a_lease_moves_to_a_new_pod() -> None:
    async with shop(pods=1) as on, on.client(rebalance_over=0.0) as client:
        service = client.service("orders.shop")
        retired: list[Lease] = []
        warmed: list[Lease] = []
        leases = [await service.place() for _ in range(2)]

        def open_here(lease: Lease) -> None:
            warmed.append(lease)
            lease.opened()

        for lease in leases:
            lease.opened(on_retire=lambda _, lease=lease: retired.append(lease), on_warm=open_here)  # type: ignore[misc]
            assert lease.checked_in() is KEEP
        await on.orders.scale(2)
        await until(lambda: len(retired) == 1)
        [new] = warmed
        assert new.host != leases[0].host
        assert repr(new) == f"<headlessconn.Lease {new.endpoint}>"
        assert isinstance(retired[0].checked_out(), Retire)
        for lease in (*leases, new):
            lease.closed()


async def test_what_a_failed_lease_says() -> None:
    async with shop(pods=2) as on, on.client() as client:
        service = client.service("orders.shop")
        for error in (asyncio.CancelledError(), OSError(24, "too many open files"), ValueError("wrong password")):
            (await service.place()).failed(error)
        await service.ready(2)
        lease = await service.place()
        other = await service.place(avoid=[lease.endpoint])
        assert other.host != lease.host
        again = await service.place(avoid=[lease.endpoint, other.endpoint])
        again.failed(asyncio.CancelledError())
        lease.failed(TimeoutError())
        [view] = [view for view in service.snapshot.members if view.endpoint == lease.endpoint]
        assert (view.state.value, view.connections) == ("failing", 0)
        with pytest.raises(PickEnded):
            lease.failed(TimeoutError())
        with pytest.raises(PickEnded, match="call `opened\\(\\)` first"):
            other.verdict()
        other.failed(TimeoutError(), reached=True)
        [view] = [view for view in service.snapshot.members if view.endpoint == other.endpoint]
        assert view.state.value == "ready", "it accepts: one silent login is no outlier yet"
