"""`create_pool` of the aiomysql and asyncmy adapters: the names and the manners of the libraries' own pools."""

import asyncio
import pickle
from typing import Any

import aiomysql  # type: ignore[import-untyped]
import asyncmy
import asyncmy.errors
import asyncmy.pool
import pytest

import headlessconn
from headlessconn import errors
from headlessconn.adapters import aiomysql as over_aiomysql
from headlessconn.adapters import asyncmy as over_asyncmy
from headlessconn.adapters._mysql_pool import FollowingPool
from headlessconn.options import Options
from tests.adapters.mysql_pools import adapter, ask, every_async, mysql_pool
from tests.adapters.sql_world import QUICK, until
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real

STOCK = {"aiomysql": aiomysql.Pool, "asyncmy": asyncmy.pool.Pool}
ERROR = {"aiomysql": aiomysql.OperationalError, "asyncmy": asyncmy.errors.OperationalError}


def login(cluster: MySQLCluster, **more: Any) -> dict[str, Any]:
    given = dict(cluster.login)
    return {"user": given["user"], "password": given["password"], "db": given["database"], "autocommit": True} | more


def options(cluster: MySQLCluster, **more: Any) -> Options:
    return Options(**cluster.resolver, **(QUICK | more))


@every_async
async def test_host_and_port_name_the_service(steady: MySQLCluster, kind: str) -> None:
    create_pool = adapter(kind).create_pool
    arguments = login(steady, host="mysql-read.data", port=steady.port, options=options(steady))
    async with create_pool(maxsize=4, **arguments) as pool:
        assert isinstance(pool, FollowingPool)
        held = [await pool.acquire() for _ in range(4)]
        assert sorted([await ask(one, "SELECT @@server_id") for one in held]) == [2, 2, 3, 3]
        for one in held:
            pool.release(one)


@every_async
async def test_it_has_every_public_name_of_the_librarys_pool(steady: MySQLCluster, kind: str) -> None:
    public = {name for name in dir(STOCK[kind]) if not name.startswith("_")}
    inherited = set(dir(asyncio.AbstractServer))
    own = {"fill_free_pool", "cond"} | inherited  # of asyncmy's own making
    assert public - own - set(dir(FollowingPool)) == set()
    assert {"acquire", "release", "close", "terminate", "wait_closed", "clear", "size", "freesize"} <= public


@every_async
async def test_sizes_are_what_they_are_in_the_librarys_pool(steady: MySQLCluster, kind: str) -> None:
    stock_of: dict[str, Any] = {"aiomysql": aiomysql.create_pool, "asyncmy": asyncmy.create_pool}
    address = steady.replicas[0].address
    arguments = login(steady, minsize=1, maxsize=3)

    async def story(pool: Any) -> list[Any]:
        seen = [pool.minsize, pool.maxsize, pool.echo]
        async with pool.acquire() as one:
            two = await pool.acquire()
            seen += [pool.size, pool.freesize]
            done = pool.release(two)
            await done
            seen += [pool.size, pool.freesize]
            assert await ask(one, "SELECT 1") == 1
        seen += [pool.size, pool.freesize]
        begun = await pool.acquire()
        await begun.begin()
        pool.release(begun)  # which the pool does not keep
        await asyncio.sleep(0.1)
        seen += [pool.size, pool.freesize]
        await pool.clear()
        await asyncio.sleep(0.1)
        pool.close()
        with pytest.raises(RuntimeError, match="after closing pool"):
            await pool.acquire()
        await pool.wait_closed()
        await pool.wait_closed()
        return [*seen, pool.size, pool.freesize]

    stock = await story(await stock_of[kind](host=address, port=steady.port, **arguments))
    async with headlessconn.Client(options(steady)) as client:
        service = client.service(f"static:///{address}:{steady.port}")
        ours = await story(await adapter(kind).create_pool(service=service, **arguments))
    assert ours == stock


@every_async
async def test_wait_closed_waits_for_those_that_are_out(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=2) as made:
        one = await made.pool.acquire()
        with pytest.raises(RuntimeError, match=r"after \.close"):
            await made.pool.wait_closed()
        made.pool.close()
        closing = asyncio.create_task(made.pool.wait_closed())
        await asyncio.sleep(0.05)
        assert not closing.done()
        assert await ask(one, "SELECT 1") == 1
        made.pool.release(one)
        await closing
        assert made.pool.closed


@every_async
async def test_terminate_closes_those_that_are_out_and_release_does_not_mind(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=2) as made:
        one = await made.pool.acquire()
        made.pool.terminate()
        await made.pool.wait_closed()
        with pytest.raises(Exception):  # noqa: B017 - each library has another one for what is closed
            await ask(one, "SELECT 1")
        made.pool.release(one)


@every_async
async def test_what_is_no_service_goes_to_the_librarys_own_pool(
    steady: MySQLCluster, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_pool = adapter(kind).create_pool
    address = steady.replicas[0].address
    async with create_pool(host=address, port=steady.port, timeout=3.0, **login(steady)) as pool:
        assert isinstance(pool, STOCK[kind])
        async with pool.acquire() as connection:
            assert await ask(connection, "SELECT @@server_id") == steady.replicas[0].server_id
    async with create_pool(unix_socket="/nowhere", host="mysql-read.data", minsize=0, **login(steady)) as pool:
        assert isinstance(pool, STOCK[kind])
    monkeypatch.setenv("HEADLESSCONN", "off")
    async with create_pool(host="mysql-read.data", minsize=0, **login(steady)) as pool:
        assert isinstance(pool, STOCK[kind])
    async with create_pool(service="mysql-read.data", minsize=0, **login(steady)) as pool:
        assert isinstance(pool, STOCK[kind])


@every_async
async def test_nobody_behind_the_name_is_the_librarys_error_too(steady: MySQLCluster, kind: str) -> None:
    settings = login(steady, options=options(steady, wait_for_endpoints=0.2))
    with pytest.raises(ERROR[kind]) as caught:
        await adapter(kind).create_pool(service="nobody.data", **settings)
    assert caught.value.args[0] == 2003
    assert "nobody.data" in caught.value.args[1]
    if kind == "aiomysql":
        assert isinstance(caught.value, over_aiomysql.NoEndpoints)
        assert isinstance(caught.value, headlessconn.NoEndpoints)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again), again.args) == (type(caught.value), str(caught.value), caught.value.args)
    else:
        assert isinstance(caught.value, over_asyncmy.NoConnection)
        assert isinstance(caught.value.__cause__, headlessconn.NoEndpoints)
        assert not caught.value.retryable


@every_async
async def test_waiting_in_vain_names_who_holds_what(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1, timeout=0.1) as made:
        one = await made.pool.acquire()
        with pytest.raises(ERROR[kind], match=r"test_mysql_names\.py:\d+ for") as caught:
            await made.query()
        cause = caught.value if kind == "aiomysql" else caught.value.__cause__
        assert isinstance(cause, errors.PoolTimeout)
        made.pool.release(one)


@every_async
async def test_the_first_of_minsize_is_opened_at_once_and_the_others_follow(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=6, minsize=4) as made:
        assert made.pool.size == 4
        await until(lambda: made.pool.freesize == 4)
        assert sorted(made.shares().values()) == [2, 2]


@every_async
async def test_sizes_that_contradict_each_other_are_refused(kind: str) -> None:
    for sizes in ({"minsize": -1}, {"minsize": 5, "maxsize": 4}):
        with pytest.raises(ValueError, match="should be"):
            await adapter(kind).create_pool(service="mysql-read.data", **sizes)
    with pytest.raises(errors.OptionError, match="silent_after"):
        await adapter(kind).create_pool(service="mysql-read.data", silent_after=-1.0)


@every_async
async def test_a_connection_of_another_pool_is_refused(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1) as made, mysql_pool(steady, kind, size=1) as other:
        one = await made.pool.acquire()
        with pytest.raises(errors.NotHeld):
            other.pool.release(one)
        made.pool.release(one)
        with pytest.raises(errors.NotHeld):
            made.pool.release(one)
