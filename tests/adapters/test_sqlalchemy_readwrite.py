"""The read/write split: who gets what, what becomes of it when roles change, and that readers see what was written."""

import asyncio
import time

import pytest
import sqlalchemy.exc

from headlessconn import errors
from headlessconn.adapters.sqlalchemy import NoEndpoints, NoPrimary, ReadWrite, Token
from headlessconn.errors import OptionError
from tests.adapters.split_world import COUNT, INSERT, WHO, split
from tests.adapters.sql_world import every_driver, load, until
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real

names = pytest.mark.parametrize("one_name", [False, True], ids=["two-names", "one-name"])


# --- roles


@names
@every_driver
async def test_writes_go_to_the_primary_and_reads_to_the_replicas(
    steady: MySQLCluster, driver: str, one_name: bool
) -> None:
    async with split(steady, driver, one_name=one_name) as db:
        assert {await db.write() for _ in range(4)} == {1}
        await db.fill(4)
        assert await db.readers(8) == {2, 3}
        assert sorted(db.replica_pods().values()) == [2, 2]


@pytest.mark.parametrize(("one_name", "probe_role"), [(False, False), (False, True), (True, True)])
@every_driver
async def test_a_demoted_primary_gets_no_second_write(
    mysql: MySQLCluster, driver: str, one_name: bool, probe_role: bool
) -> None:
    old = mysql.primary
    async with split(mysql, driver, one_name=one_name, size=3, probe_role=probe_role) as db:
        async with load(db.caller().write, workers=1) as first:
            await first.more(3)
        assert first.errors == []
        marked: list[object] = []

        async def write() -> object:
            try:
                return await db.caller().write()
            except sqlalchemy.exc.OperationalError as error:
                marked.append(getattr(error, "retryable", False))
                raise

        async with load(write, workers=3) as under:
            await under.more(12)
            promoted: list[float] = []
            moving = asyncio.to_thread(
                mysql.switch_over, dns_lag=2.0, promoted=lambda: promoted.append(time.monotonic())
            )
            task = asyncio.create_task(moving)
            await under.until(lambda: promoted)
            new_id = mysql.primary.server_id
            await under.until(lambda: under.servers()[new_id] >= 6)
            went_on = next(record.at for record in under.records if record.server == new_id)
            published = promoted[0] + 2.0
            if probe_role:
                assert went_on < published  # it did not wait for DNS
            await task
            await under.more(6)
        assert len(under.errors) <= 3 + 3, under.errors  # in flight, and one for each connection to the old one
        assert under.errors == [error for error in under.errors if "1290" in error]
        assert all(marked)
        assert len(marked) == len(under.errors)
        await until(lambda: db.primary_pods() == {mysql.primary.address})
        assert old.address not in db.primary_pods()


@every_driver
async def test_without_a_primary_a_caller_waits_and_is_told_what_each_pod_says(
    mysql: MySQLCluster, driver: str
) -> None:
    mysql.primary.demote()
    async with split(mysql, driver, probe_role=True, options={"wait_for_endpoints": 0.6}) as db:
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            await db.write()
        assert isinstance(caught.value, NoPrimary)
        assert isinstance(caught.value, errors.NoPrimary)
        assert caught.value.retryable
        assert caught.value.waited >= 0.6
        servers = [mysql.primary, *mysql.replicas]
        assert dict(caught.value.asked) == {
            f"{server.address}:{mysql.port}": "it takes no writes" for server in servers
        }
        writing = asyncio.create_task(db.write())
        await asyncio.sleep(0.2)
        mysql.primary.promote()
        assert await writing == 1


@every_driver
async def test_a_primary_that_dies_is_followed_by_whoever_is_promoted(mysql: MySQLCluster, driver: str) -> None:
    dead = mysql.primary
    async with split(mysql, driver, probe_role=True, size=3) as db:
        async with load(lambda: db.caller().write(), workers=3) as under:
            await under.more(9)
            await asyncio.to_thread(mysql.crash, dead)
            new = await asyncio.to_thread(mysql.fail_over, dns_lag=0.5)
            await under.until(lambda: under.servers()[new.server_id] > 6)
        assert dead.address not in db.primary_pods()


@every_driver
async def test_two_that_claim_it_are_said_and_the_choice_does_not_flap(
    mysql: MySQLCluster, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with split(mysql, driver, probe_role=True) as db:
        assert await db.write() == 1
        mysql.replicas[0].ask("SET GLOBAL read_only = 0")
        for _ in range(3):  # connections that break have everybody asked again
            mysql.primary.kill_connections()
            await until(lambda: not mysql.primary.connections())
            await asyncio.sleep(0.05)  # what the server has to say of it reaches this loop
            assert await db.write() == 1
        await until(lambda: "split brain" in caplog.text)
        assert caplog.text.count("split brain") == 1


# --- replicas


@every_driver
async def test_without_a_replica_the_primary_is_read_from_or_the_caller_is_told(
    mysql: MySQLCluster, driver: str
) -> None:
    for replica in mysql.replicas:
        mysql.unready(replica)
    async with split(mysql, driver, options={"wait_for_endpoints": 0.5, "hold_nx": 0.0}) as db:
        assert await db.readers(3) == {1}
    async with split(mysql, driver, options={"wait_for_endpoints": 0.5, "hold_nx": 0.0}, on_no_replica="fail") as db:
        with pytest.raises(NoEndpoints, match="no endpoints behind mysql-read"):
            await db.read()


@every_driver
async def test_where_the_primary_is_alone_behind_the_one_name_it_is_read_from(mysql: MySQLCluster, driver: str) -> None:
    async with split(mysql, driver, one_name=True) as db:
        await db.write()
        assert await db.readers(4) <= {2, 3}
        for replica in list(mysql.replicas):
            mysql.leave(replica)
        await until(lambda: len(db.db._services[0].snapshot.endpoints) == 1)
        assert await db.readers(4) == {1}


@names
@every_driver
async def test_a_replica_that_stops_is_left_out_but_never_the_last(
    mysql: MySQLCluster, driver: str, one_name: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, other = mysql.replicas
    caplog.set_level("INFO", "headlessconn")
    async with split(mysql, driver, one_name=one_name, max_lag=1.0, size=4) as db:
        await db.write()
        await db.fill(4)
        assert set(db.replica_pods()) == {stopped.address, other.address}
        stopped.ask("STOP SLAVE")
        await until(lambda: f"{stopped.address}:{mysql.port} has stopped replicating" in caplog.text)
        await db.fill(4)  # each is looked at as it goes out
        assert set(db.replica_pods()) == {other.address}
        other.ask("STOP SLAVE")
        await asyncio.sleep(1.5)
        assert await db.read() in {stopped.server_id, other.server_id}  # both are as old; the primary is not asked
        stopped.ask("START SLAVE")
        await until(lambda: f"{other.address}:{mysql.port} has stopped replicating" in caplog.text)
        await db.fill(4)
        assert set(db.replica_pods()) == {stopped.address}


@every_driver
async def test_a_replica_that_left_is_not_asked_any_more(mysql: MySQLCluster, driver: str) -> None:
    """Neither is the connection kept by which it was asked how far it is."""
    left, _ = mysql.replicas
    async with split(mysql, driver, max_lag=1.0, size=4) as db:
        await db.write()
        await db.fill(4)
        await until(lambda: left.connections() > 2)  # two of four readers', and one for questions
        mysql.unready(left)
        await until(lambda: left.address not in {one.address for one in db.db._all_replicas()})
        await db.fill(4)  # each is looked at as it goes out
        await until(lambda: left.connections() == 0)


# --- readers see what was written


@pytest.mark.parametrize("after_write", ["gtid", "sticky"])
@every_driver
async def test_a_context_reads_what_it_wrote(steady: MySQLCluster, driver: str, after_write: str) -> None:
    async with split(steady, driver, after_write=after_write) as db:
        stale = 0
        for _ in range(25):
            await db.write()
            there = steady.primary.ask("SELECT COUNT(*) AS n FROM shop.orders")[0]["n"]
            stale += await db.read(COUNT) < there
        assert stale == 0
        if after_write == "gtid":
            assert await db.read() in (2, 3)
        else:
            assert await db.read() == 1


@every_driver
async def test_without_after_write_a_replica_that_is_behind_shows_it(mysql: MySQLCluster, driver: str) -> None:
    """What the tests above would look like if nothing waited."""
    for replica in mysql.replicas:
        replica.ask("STOP SLAVE SQL_THREAD")
    async with split(mysql, driver) as db:
        await db.write()
        assert await db.read(COUNT) == 0
        assert db.token() == ""


@every_driver
async def test_a_replica_that_does_not_come_so_far_leaves_it_to_the_primary(mysql: MySQLCluster, driver: str) -> None:
    async with split(mysql, driver, after_write="gtid", gtid_timeout=0.1) as db:
        for replica in mysql.replicas:
            replica.ask("STOP SLAVE SQL_THREAD")
        await db.write()
        assert await db.read() == 1
        assert await db.read(COUNT) == 1
        reader = db.caller()
        assert await reader.read(COUNT) == (1 if driver != "pymysql" else 0)  # a task's own context; a thread's is new


@every_driver
async def test_a_token_travels_to_another_process(mysql: MySQLCluster, driver: str) -> None:
    async with split(mysql, driver, after_write="gtid", gtid_timeout=0.1) as db:
        await db.write()
        token = db.token()
        assert token.startswith("seen=0-1-")
    for replica in mysql.replicas:
        replica.catch_up(mysql.primary)
        replica.ask("STOP SLAVE SQL_THREAD")
    async with split(mysql, driver, gtid_timeout=0.1) as db:  # another, which has written nothing
        assert await db.read(WHO, after=token) in (2, 3)
        later = str(Token.parse(token).with_(Token.parse("seen=0-1-999999")))
        assert await db.read(WHO, after=later) == 1
        with pytest.raises(OptionError, match="it is no token"):
            await db.read(WHO, after="seen=1; DROP TABLE orders")


@every_driver
async def test_an_uncommitted_write_is_rolled_back_and_leaves_no_token(steady: MySQLCluster, driver: str) -> None:
    if driver == "pymysql":
        return  # the same code
    async with split(steady, driver, after_write="gtid") as db:
        before = await db.read(COUNT)
        assert isinstance(db.db, ReadWrite)
        async with db.db.primary() as connection:
            await connection.exec_driver_sql(INSERT)
        assert await db.read(COUNT) == before


# --- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "probe_role"),
        ({"replicas": "mysql.data"}, "probe_role"),
        ({"replicas": "mysql-read.data", "after_write": "always"}, "after_write"),
        ({"replicas": "mysql-read.data", "on_no_replica": "wait"}, "on_no_replica"),
        ({"replicas": "mysql-read.data", "max_lag": 0}, "max_lag"),
        ({"replicas": "mysql-read.data", "gtid_timeout": True}, "gtid_timeout"),
    ],
)
def test_settings_are_read_strictly(settings: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        ReadWrite(pytest.fail, primary="mysql.data:3306", **settings)  # type: ignore[arg-type]
    assert caught.value.option == said
