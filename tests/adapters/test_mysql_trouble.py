"""Pools of MySQL libraries in trouble: pods that are full, misconfigured, hang or vanish; what callers do."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from headlessconn.errors import NotHeld
from tests.adapters.mysql_pools import THREADS, code_of, error_of, every_async, every_kind, every_pool, mysql_pool
from tests.adapters.sql_world import WAITS, load, until
from tests.adapters.swallowing import proxies
from tests.real.mariadb import Server
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real


@contextlib.contextmanager
def filled(cluster: MySQLCluster, server: Server) -> Iterator[None]:
    """A server whose every place is taken: one more client hears 1040."""
    server.ask("SET GLOBAL max_connections = 10")
    taken: list[Any] = []

    def take_all() -> None:
        while True:
            taken.append(pymysql.connect(**cluster.login, host=server.address, port=cluster.port, ssl_disabled=True))

    with pytest.raises(pymysql.err.OperationalError, match="1040"):
        take_all()
    try:
        yield
    finally:
        server.ask("SET GLOBAL max_connections = 500")  # before the places are free: the pool takes them at once
        for connection in taken:
            connection.close()


# --- pods that do not let us in


@every_kind
async def test_a_full_pod_is_left_for_another(mysql: MySQLCluster, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    full, other = mysql.replicas
    with filled(mysql, full):
        async with mysql_pool(mysql, kind, size=4) as made:
            assert await made.fill(4) == [other.server_id] * 4
    assert "1040" in caplog.text
    said = [record for record in caplog.records if "no connection to" in record.message]
    assert len(said) == 1  # once, however often it is tried


@every_kind
async def test_when_all_are_full_the_caller_is_told_the_librarys_way(mysql: MySQLCluster, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        for server in mysql.replicas:
            stack.enter_context(filled(mysql, server))
        patience: dict[str, Any] = {} if kind == "dbutils" else {"timeout": 1.0}
        async with mysql_pool(mysql, kind, size=4, **patience) as made:
            with pytest.raises((error_of(kind), TimeoutError), match=r"1040|Too many connections"):
                await made.query()


@every_kind
async def test_a_wrong_password_on_one_pod_costs_nobody_an_error(mysql: MySQLCluster, kind: str) -> None:
    wrong, other = mysql.replicas
    wrong.ask("SET SESSION sql_log_bin = 0", "SET PASSWORD FOR app@'%' = PASSWORD('another')")
    async with mysql_pool(mysql, kind, size=4) as made:
        assert await made.fill(4) == [other.server_id] * 4


@every_kind
async def test_a_wrong_password_everywhere_is_the_librarys_own_error_at_once(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=4, password="wrong") as made:
        with pytest.raises(error_of(kind)) as caught:
            await made.query()
        assert code_of(caught.value) == 1045


@every_kind
async def test_a_pod_that_accepts_and_says_nothing_keeps_nobody(mysql: MySQLCluster, kind: str) -> None:
    hangs, other = mysql.replicas
    async with mysql_pool(mysql, kind, size=4) as made:
        hangs.freeze()
        try:
            async with load(made.query, workers=2) as under:
                await under.more(12)
            assert under.errors == []
            assert set(under.servers()) == {other.server_id}
        finally:
            hangs.thaw()


@every_pool
async def test_a_pod_that_vanished_is_left_and_its_callers_are_cut_off(steady: MySQLCluster, kind: str) -> None:
    """The kernel of this machine goes on acknowledging, so it is the watch that notices."""
    addresses = [f"127.77.{steady.port % 250}.{number}" for number in (1, 2, 3)]
    server = steady.replicas[0]
    async with proxies(*addresses, port=steady.port, to=server.address) as pods:
        target = "static:///" + ",".join(f"{one}:{steady.port}" for one in addresses)
        async with mysql_pool(steady, kind, size=9, target=target, server_hostname="mysql-read.data") as made:
            await made.fill(9)
            async with load(lambda: made.query(WAITS), workers=6) as under:
                await under.more(24)
                await pods[0].vanish()
                await under.until(lambda: under.errors)
                await until(lambda: addresses[0] not in made.shares())
                await under.more(24)
            assert len(under.errors) <= 6
            assert under.under_way == 0


async def test_so_is_it_where_dbutils_has_the_connections(steady: MySQLCluster) -> None:
    """It executes a statement again by itself once its connection is cut: its callers wait, and have no error."""
    addresses = [f"127.78.{steady.port % 250}.{number}" for number in (1, 2, 3)]
    server = steady.replicas[0]
    async with proxies(*addresses, port=steady.port, to=server.address) as pods:
        target = "static:///" + ",".join(f"{one}:{steady.port}" for one in addresses)
        given: dict[str, Any] = {"target": target, "server_hostname": "mysql-read.data"}
        async with mysql_pool(steady, "dbutils", size=9, **given) as made:
            await made.fill(9)
            async with load(lambda: made.query(WAITS), workers=6) as under:
                await under.more(24)
                await pods[0].vanish()
                service = made.client.service(target)
                await until(lambda: len(service.snapshot.ready) == 2)
                await under.more(24)
            assert under.errors == []
            assert under.under_way == 0


# --- what callers do


@every_kind
async def test_a_connection_that_breaks_in_use_is_not_kept(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        taken = await made.take()
        number = await taken.query("SELECT CONNECTION_ID()")
        server_id = await taken.query()
        where = next(one for one in steady.replicas if one.server_id == server_id)
        where.ask(f"KILL {number}")
        if kind != "dbutils":  # which executes again by itself
            with pytest.raises(error_of(kind)):
                await taken.query("SELECT 1")
        await taken.give_back()
        assert await made.query("SELECT CONNECTION_ID()") != number
        assert await made.query() in (2, 3)


@every_pool
async def test_one_that_its_server_closed_while_it_was_idle_is_never_handed_out(
    steady: MySQLCluster, kind: str
) -> None:
    async with mysql_pool(steady, kind, size=4) as made:
        await made.fill(4)
        for server in steady.replicas:
            server.kill_connections()
        await until(lambda: not any(server.connections() for server in steady.replicas))
        await asyncio.sleep(0.05)  # what the servers have to say of it reaches this loop
        assert sorted(await made.fill(4)) == [2, 2, 3, 3]


@every_kind
async def test_one_that_comes_back_in_a_transaction_does_not_take_it_to_its_next_user(
    steady: MySQLCluster, kind: str
) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        taken = await made.take()
        await taken.query("SET @mark = 1")
        await taken.query("BEGIN")
        await taken.query("SELECT COUNT(*) FROM orders")
        await taken.give_back()
        assert await made.query("SELECT @@in_transaction") == 0


@every_kind
async def test_a_reader_who_forgets_to_commit_leaves_no_old_snapshot_to_the_next(
    mysql: MySQLCluster, kind: str
) -> None:
    count = "SELECT COUNT(*) FROM orders"
    async with mysql_pool(mysql, kind, size=1, autocommit=False) as made:
        before = await made.query(count)
        mysql.primary.ask("INSERT INTO shop.orders (note, made_on) VALUES ('new', 1)")
        for replica in mysql.replicas:
            replica.catch_up(mysql.primary)
        number = await made.query("SELECT CONNECTION_ID()")
        assert await made.query(count) == before + 1
        assert await made.query("SELECT CONNECTION_ID()") == number  # rolled back, not replaced


@every_kind
async def test_one_that_its_user_closed_is_replaced(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        taken = await made.take()
        raw = getattr(taken.connection, "dbapi_connection", taken.connection)
        raw.close()
        await taken.give_back()
        assert await made.query() in (2, 3)


@every_async
async def test_a_waiter_that_is_cancelled_takes_no_connection_with_it(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        taken = await made.take()
        waiting = [asyncio.create_task(made.query()) for _ in range(3)]
        await until(lambda: made.pool.snapshot.waiting == 3)
        waiting[0].cancel()
        await taken.give_back()
        assert [await one for one in waiting[1:]] == [await made.query()] * 2
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert (made.pool.size, made.pool.freesize) == (1, 1)


@every_async
async def test_a_user_who_is_cancelled_in_a_query_leaves_no_half_read_connection(
    steady: MySQLCluster, kind: str
) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await made.query("SELECT SLEEP(30)")
        assert await made.query("SELECT 'fresh'") == "fresh"


@pytest.mark.parametrize("kind", THREADS)
async def test_giving_back_twice_is_refused_and_harms_nobody(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=1) as made:
        taken = await made.take()
        await taken.give_back()
        with pytest.raises(NotHeld):
            await taken.give_back()
        assert await made.query() in (2, 3)
