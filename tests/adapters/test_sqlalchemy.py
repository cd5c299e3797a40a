"""Engines of SQLAlchemy that follow the pods: what is dialled, kept, retired, and what an application sees of it."""

import asyncio
import socket
import ssl

import pytest
import sqlalchemy.exc
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import headlessconn
from headlessconn import sync
from headlessconn.adapters.sqlalchemy import NoEndpoints, attach
from headlessconn.errors import OptionError
from tests.adapters.sql_world import WAITS, every_driver, load, pool, trusting, until, url
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real


# --- placement


@every_driver
async def test_connections_are_spread_evenly_and_counted_until_they_are_closed(
    steady: MySQLCluster, driver: str
) -> None:
    async with pool(steady, driver, size=8) as made:
        assert sorted(await made.fill(8)) == [2] * 4 + [3] * 4
        assert sorted(made.shares().values()) == [4, 4]
        members = made.attached.service.snapshot.members
        assert sorted(member.connections for member in members) == [4, 4]
        await made.dispose()
        assert made.shares() == {}
        assert sorted(member.connections for member in made.attached.service.snapshot.members) == [0, 0]


@every_driver
async def test_a_new_replica_gets_its_share_of_a_full_pool(mysql: MySQLCluster, driver: str) -> None:
    async with pool(mysql, driver, size=9) as made:
        await made.fill(9)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            new = await asyncio.to_thread(mysql.add_replica)
            await under.until(lambda: under.servers()[new.server_id])
            await under.until(lambda: sorted(made.shares().values()) == [3, 3, 3])
            since = await under.more(120)
        share = under.servers(since)[new.server_id] / under.servers(since).total()
        assert 0.25 < share < 0.42
        assert under.errors == []


@every_driver
async def test_a_replica_that_leaves_is_drained_without_an_error(mysql: MySQLCluster, driver: str) -> None:
    leaving, staying = mysql.replicas
    async with pool(mysql, driver, size=6) as made:
        await made.fill(6)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            await asyncio.to_thread(mysql.unready, leaving)
            await under.until(lambda: set(made.shares()) == {staying.address})
            await asyncio.to_thread(leaving.stop)
            await under.more(20)
        assert under.errors == []


@every_driver
async def test_a_connection_in_use_is_not_moved_before_it_comes_back(mysql: MySQLCluster, driver: str) -> None:
    async with pool(mysql, driver, size=2) as made:
        one, two = await made.take(), await made.take()
        number = await one.query()
        leaving = next(server for server in mysql.replicas if server.server_id == number)
        await asyncio.to_thread(mysql.unready, leaving)
        await until(lambda: len(made.attached.service.snapshot.endpoints) == 1)
        assert await one.query() == leaving.server_id
        await two.give_back()
        await one.give_back()
        assert leaving.address not in made.shares()
        assert await made.query() != leaving.server_id


@every_driver
async def test_replicas_are_replaced_one_after_the_other_at_new_addresses(mysql: MySQLCluster, driver: str) -> None:
    async with pool(mysql, driver, size=6) as made:
        await made.fill(6)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            for server in list(mysql.replicas):
                old = server.address
                await asyncio.to_thread(mysql.unready, server)
                await under.until(lambda old=old: old not in made.shares())  # type: ignore[misc]
                await asyncio.to_thread(mysql.recreate, server)
                await asyncio.to_thread(mysql.ready, server)
                await under.until(lambda server=server: server.address in made.shares())  # type: ignore[misc]
            await under.more(20)
        assert under.errors == []


@every_driver
async def test_a_connection_that_is_too_old_is_replaced(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, size=1, options={"max_age": 1.0}) as made:
        which = "SELECT CONNECTION_ID() * 10 + @@server_id"
        first = await made.query(which)
        await asyncio.sleep(1.2)  # its age, and the tenth by which ages differ
        await made.query(which)  # it goes out a last time, or is replaced already
        assert await made.query(which) != first
        assert sum(made.shares().values()) == 1


# --- trouble


@every_driver
async def test_a_killed_pod_costs_no_more_than_what_was_in_flight(mysql: MySQLCluster, driver: str) -> None:
    victim, other = mysql.replicas
    async with pool(mysql, driver, size=8) as made:
        await made.fill(8)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            await asyncio.to_thread(mysql.crash, victim)
            await under.more(40)
            await under.until(lambda: set(made.shares()) == {other.address})
        assert len(under.errors) <= 4, under.errors  # four workers, one query each
        assert set(under.servers(under.records[-10].at)) == {other.server_id}


@every_driver
async def test_idle_connections_of_a_pod_that_has_died_are_given_to_nobody(mysql: MySQLCluster, driver: str) -> None:
    victim, other = mysql.replicas
    async with pool(mysql, driver, size=6) as made:
        await made.fill(6)
        await asyncio.to_thread(mysql.crash, victim)
        await asyncio.sleep(0.05)  # what the kernel has to say of it reaches this loop
        assert await made.fill(6) == [other.server_id] * 6


@every_driver
async def test_one_lost_connection_does_not_cost_the_pool(mysql: MySQLCluster, driver: str) -> None:
    async with pool(mysql, driver, size=4, target=mysql.write) as made:
        taken = [await made.take() for _ in range(4)]
        numbers = [await one.query("SELECT CONNECTION_ID()") for one in taken]
        await asyncio.to_thread(mysql.primary.ask, f"KILL {numbers[0]}")
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            await taken[0].query()
        assert caught.value.connection_invalidated
        await asyncio.sleep(0.3)  # the pod is asked whether it is there; until then none of the same age is handed out
        for one in taken:
            await one.give_back()
        again = [await made.take() for _ in range(4)]
        after = {await one.query("SELECT CONNECTION_ID()") for one in again}
        assert len(after & set(numbers[1:])) == 3
        for one in again:
            await one.give_back()


@every_driver
async def test_a_pod_that_swallows_everything_is_left_and_its_callers_are_cut_off(
    mysql: MySQLCluster, driver: str
) -> None:
    """Its process is frozen and its queue for connections is full, so that the kernel drops whoever knocks: what a
    black hole looks like to TCP, without root."""
    victim, other = mysql.replicas
    async with pool(mysql, driver, size=6, silent_after=0.5) as made:
        await made.fill(6)
        async with load(lambda: made.query(WAITS), workers=4) as under:
            await under.more(8)
            victim.freeze()
            knocking = knock(victim.address, mysql.port)
            try:
                await under.until(lambda: under.errors)
                await under.until(lambda: set(made.shares()) == {other.address})
                await under.more(20)
                assert len(under.errors) <= 4, under.errors
                assert all("2013" in error for error in under.errors), under.errors
            finally:
                for sock in knocking:
                    sock.close()
                victim.thaw()


def knock(address: str, port: int) -> list[socket.socket]:
    """Connections that nobody accepts, until one is not even answered."""
    made: list[socket.socket] = []
    while True:
        sock = socket.socket()
        sock.settimeout(0.3)
        made.append(sock)
        try:
            sock.connect((address, port))
        except TimeoutError:
            return made


@every_driver
async def test_a_pod_that_accepts_and_lets_nobody_in_is_left_for_another(mysql: MySQLCluster, driver: str) -> None:
    victim, other = mysql.replicas
    victim.freeze()
    try:
        async with pool(mysql, driver, size=2, open_timeout=0.5) as made:
            assert await made.fill(2) == [other.server_id] * 2
    finally:
        victim.thaw()


@every_driver
async def test_a_full_pod_is_left_for_another(
    mysql: MySQLCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    full, other = mysql.replicas
    full.ask("SET GLOBAL max_connections = 10")
    async with pool(mysql, driver, size=10, target=mysql.pod(full)) as hogs, pool(mysql, driver, size=4) as made:
        held = [await hogs.take() for _ in range(10)]
        assert await made.fill(4) == [other.server_id] * 4
        for one in held:
            await one.give_back()
    assert f"no connection to {full.address}:{mysql.port} (1040 Too many connections)" in caplog.text


@every_driver
async def test_a_pod_with_another_password_is_left_out_and_said(
    mysql: MySQLCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, right = mysql.replicas
    wrong.ask("SET sql_log_bin = 0", "ALTER USER app@'%' IDENTIFIED BY 'another'")
    async with pool(mysql, driver, size=4) as made:
        assert await made.fill(4) == [right.server_id] * 4
        assert caplog.text.count(f"no connection to {wrong.address}:{mysql.port} (1045 Access denied") == 1


@every_driver
async def test_a_password_that_is_wrong_everywhere_is_the_librarys_own_error(steady: MySQLCluster, driver: str) -> None:
    login = steady.login
    steady.login = login | {"password": "wrong"}
    try:
        async with pool(steady, driver, size=2) as made:
            for _ in range(2):  # once while nothing is known, once while both are held back
                with pytest.raises(sqlalchemy.exc.OperationalError, match="1045") as caught:
                    await made.query()
                assert caught.value.orig.args[0] == 1045  # type: ignore[union-attr]
            assert all(member.state.name == "READY" for member in made.attached.service.snapshot.members)
    finally:
        steady.login = login


@every_driver
async def test_nobody_behind_the_name_is_an_operational_error(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, target="nobody.data:3306", options={"wait_for_endpoints": 0.2}) as made:
        with pytest.raises(sqlalchemy.exc.OperationalError, match=r"no endpoints behind nobody\.data") as caught:
            await made.query()
        assert isinstance(caught.value, NoEndpoints)
        assert isinstance(caught.value, headlessconn.NoEndpoints)


# --- TLS


@every_driver
async def test_tls_verifies_the_services_name_though_an_address_is_dialled(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver) as made:
        assert str(await made.query("SHOW STATUS LIKE 'Ssl_version'")) == "Ssl_version"
        version = await made.query(
            "SELECT VARIABLE_VALUE FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_version'"
        )
        assert version.startswith("TLS")


@every_driver
async def test_a_certificate_for_another_name_is_refused(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, server_hostname="mysql-read.elsewhere") as made:
        with pytest.raises(sqlalchemy.exc.OperationalError, match=r"certificate|tried"):
            await made.query()


@every_driver
async def test_a_pod_is_not_taken_at_its_address_where_the_name_cannot_be_verified(
    steady: MySQLCluster, driver: str
) -> None:
    """The address is in no certificate: whoever verified what is dialled could not connect."""
    context = trusting(steady)
    assert context.check_hostname
    async with pool(steady, driver, engine={"connect_args": {"ssl": context}}) as made:
        assert await made.query() in (2, 3)


@every_driver
async def test_ssl_may_be_given_as_a_dict_of_files(steady: MySQLCluster, driver: str) -> None:
    given = {"ca": str(steady.ca)}
    async with pool(steady, driver, engine={"connect_args": {"ssl": given}}) as made:
        assert await made.query() in (2, 3)
    async with pool(
        steady, driver, engine={"connect_args": {"ssl": given}}, server_hostname="mysql-read.elsewhere"
    ) as made:
        with pytest.raises(sqlalchemy.exc.OperationalError):
            await made.query()


@every_driver
async def test_without_ssl_there_is_no_tls_to_verify(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, tls=False, server_hostname="mysql-read.elsewhere") as made:
        assert await made.query() in (2, 3)


# --- the engine's life


@every_driver
async def test_detached_the_engine_goes_the_librarys_way(steady: MySQLCluster, driver: str) -> None:
    address = steady.replicas[0].address
    async with pool(steady, driver, engine={"connect_args": {}, "pool_size": 1}) as made:
        await made.query()
        made.attached.detach()
        assert made.attached.connections == {}
        for member in made.attached.service.snapshot.members:
            assert member.connections == 0
        stock = made.engine.url.set(host=address)
    assert stock.host == address


@every_driver
async def test_a_connection_that_was_there_before_is_said_not_to_follow(
    steady: MySQLCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = url(steady, driver, steady.replicas[0].address)
    if driver == "pymysql":
        with sync.Client(**steady.resolver) as client:
            engine = create_engine(address)
            engine.connect().close()
            attach(engine, client.service(steady.read))
            for _ in range(2):
                engine.connect().close()
            engine.dispose()
    else:
        async with headlessconn.Client(**steady.resolver) as aclient:
            aengine = create_async_engine(address)
            await (await aengine.connect()).close()
            attach(aengine, aclient.service(steady.read))
            for _ in range(2):
                await (await aengine.connect()).close()
            await aengine.dispose()
    assert caplog.text.count("were not dialled here") == 1


async def test_the_wrong_kind_of_service_or_driver_is_refused() -> None:
    for engine, client in (
        (create_engine("mysql+pymysql://"), headlessconn.Client()),
        (create_async_engine("mysql+aiomysql://"), sync.Client()),
    ):
        with pytest.raises(OptionError, match=r"option service: an Engine needs one for threads"):
            attach(engine, client.service("mysql-read.data:3306"))
    with pytest.raises(OptionError, match="its driver is pysqlite"):
        attach(create_engine("sqlite://"), "mysql-read.data:3306")


def test_by_default_the_url_names_the_service() -> None:
    engine = create_engine("mysql+pymysql://app@mysql-read.data/shop")
    attached = attach(engine)
    assert str(attached.service.target) == "mysql-read.data:3306"
    attached.detach()


def test_the_context_that_is_given_stays_as_it_is(steady: MySQLCluster) -> None:
    context = trusting(steady)
    with sync.Client(**steady.resolver) as client:
        engine = create_engine(url(steady, "pymysql"), connect_args={"ssl": context})
        attach(engine, client.service(steady.read))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    assert type(context) is ssl.SSLContext
    assert context.check_hostname
