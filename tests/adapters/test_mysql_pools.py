"""Pools of MySQL libraries that follow the pods: what an application sees when they come, go, move and fail."""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from headlessconn.errors import OptionError
from tests.adapters.mysql_pools import MySQLPool, error_of, every_kind, every_pool, mysql_pool
from tests.adapters.sql_world import WAITS, cluster_of, load, trusting, until
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real


# --- pods come and go


@every_kind
async def test_connections_are_spread_evenly_and_counted_until_they_are_closed(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=8) as made:
        assert sorted(await made.fill(8)) == [2] * 4 + [3] * 4
        members = made.client.service(steady.read).snapshot.members
        assert sorted(member.connections for member in members) == [4, 4]
        if kind == "dbutils":
            await asyncio.to_thread(made.pool.close)
            members = made.client.service(steady.read).snapshot.members
            assert sorted(member.connections for member in members) == [0, 0]


@every_kind
async def test_a_new_replica_gets_its_share_of_a_full_pool(mysql: MySQLCluster, kind: str) -> None:
    async with mysql_pool(mysql, kind, size=9) as made:
        await made.fill(9)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            new = await asyncio.to_thread(mysql.add_replica)
            await under.until(lambda: under.servers()[new.server_id])
            service = made.client.service(mysql.read)
            await under.until(lambda: [one.connections for one in service.snapshot.members] == [3, 3, 3])
            since = await under.more(120)
        share = under.servers(since)[new.server_id] / under.servers(since).total()
        assert 0.25 < share < 0.42
        assert under.errors == []


@every_kind
async def test_a_replica_that_leaves_is_drained_without_an_error(mysql: MySQLCluster, kind: str) -> None:
    leaving, staying = mysql.replicas
    async with mysql_pool(mysql, kind, size=6) as made:
        await made.fill(6)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            await asyncio.to_thread(mysql.unready, leaving)
            await under.until(lambda: leaving.connections() == 0)
            await asyncio.to_thread(leaving.stop)
            await under.more(20)
        assert under.errors == []
        assert set(under.servers(since=under.records[-20].at)) == {staying.server_id}


@every_kind
async def test_a_pod_that_comes_back_at_another_address_costs_nobody_an_error(mysql: MySQLCluster, kind: str) -> None:
    moving, _ = mysql.replicas
    async with mysql_pool(mysql, kind, size=6) as made:
        await made.fill(6)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            await asyncio.to_thread(mysql.unready, moving)
            await under.until(lambda: moving.connections() == 0)
            await asyncio.to_thread(mysql.recreate, moving)
            await asyncio.to_thread(mysql.ready, moving)
            since = await under.more(1)
            await under.until(lambda: under.servers(since)[moving.server_id] > 8)
        assert under.errors == []


@every_kind
async def test_a_killed_replica_costs_no_more_than_what_was_in_flight(mysql: MySQLCluster, kind: str) -> None:
    dead, living = mysql.replicas
    async with mysql_pool(mysql, kind, size=8) as made:
        await made.fill(8)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            await asyncio.to_thread(mysql.crash, dead)
            since = await under.more(40)
        assert len(under.errors) <= 4, under.errors
        assert set(under.servers(since)) == {living.server_id}


# --- TLS


@every_kind
async def test_the_services_name_is_verified_though_an_address_is_dialled(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=2) as made:
        assert await made.query() in (2, 3)
        await made.query("SELECT 1")


@every_kind
async def test_a_certificate_for_another_name_is_refused(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=2, server_hostname="mysql-read.elsewhere") as made:
        with pytest.raises((error_of(kind), ssl.SSLError)) as caught:
            await made.query()
        chain: list[BaseException] = [caught.value]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        assert "mysql-read.elsewhere" in " ".join(map(str, chain)), chain


@pytest.mark.parametrize("kind", ["aiomysql", "asyncmy", "pymysql"])
async def test_a_server_without_tls_is_refused_where_tls_was_asked_for(kind: str) -> None:
    with cluster_of(1) as plain:
        trust = trusting(plain)
        server = plain.replicas[0]
        server.stop()
        server._tls = None
        server.start()
        async with mysql_pool(plain, kind, size=2, tls=False, ssl=trust) as made:
            with pytest.raises((error_of(kind), ssl.SSLError, OSError)):
                await made.query()


@every_pool
async def test_a_static_target_has_no_name_to_verify_so_one_must_be_given(steady: MySQLCluster, kind: str) -> None:
    target = f"static:///{steady.replicas[0].address}:{steady.port}"
    with pytest.raises(OptionError, match="server_hostname"):
        async with mysql_pool(steady, kind, target=target):
            pass
    async with mysql_pool(steady, kind, target=target, server_hostname="mysql-read.data") as made:
        assert await made.query() == steady.replicas[0].server_id


# --- what cannot be moved


@every_kind
async def test_a_transaction_stays_where_it_is_though_its_pod_has_left(mysql: MySQLCluster, kind: str) -> None:
    leaving = mysql.replicas[0]
    async with mysql_pool(mysql, kind, size=2) as made:
        held = [await made.take() for _ in range(2)]
        where = [await one.query() for one in held]
        one = held[where.index(leaving.server_id)]
        await one.query("BEGIN")
        await asyncio.to_thread(mysql.unready, leaving)
        service = made.client.service(mysql.read)
        await until(lambda: len(service.snapshot.endpoints) == 1)
        assert await one.query() == leaving.server_id
        await one.query("COMMIT")
        for other in held:
            await other.give_back()
        assert {await made.query() for _ in range(4)} == {mysql.replicas[1].server_id}
        await until(lambda: leaving.connections() == 0)


# --- numbers that the kernel is told


@every_kind
async def test_the_kernel_is_told_to_notice_a_pod_that_vanishes(steady: MySQLCluster, kind: str) -> None:
    async with mysql_pool(steady, kind, size=2) as made:
        taken = await made.take()
        sock = _socket_of(made, taken.connection)
        read = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_USER_TIMEOUT)
        ]
        assert read == [1, 1, 2500]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        await taken.give_back()


def _socket_of(made: MySQLPool, connection: Any) -> Any:
    if made.kind in ("aiomysql", "asyncmy"):
        transport = made.pool.library.transport(connection)
        return transport.get_extra_info("socket")
    raw = getattr(connection, "dbapi_connection", connection)
    return raw.wire._sock
