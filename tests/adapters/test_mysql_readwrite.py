"""`ReadWrite` over aiomysql's and asyncmy's connections: who gets what, and what becomes of it when roles change."""

import asyncio
import importlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from headlessconn import errors
from headlessconn.core.endpoint import pack
from headlessconn.options import Options
from tests.adapters.mysql_pools import adapter, ask, error_of, every_async
from tests.adapters.sql_world import QUICK, load, trusting, until
from tests.real.mariadb import Server
from tests.real.mysql_cluster import PODS, MySQLCluster

pytestmark = pytest.mark.real

INSERT = "INSERT INTO orders (note, made_on) VALUES ('test', @@server_id) RETURNING @@server_id"


names = pytest.mark.parametrize("one_name", [False, True], ids=["two-names", "one-name"])


def delay(replica: Server, seconds: int) -> None:
    """Have it apply what it gets so much later."""
    replica.ask("STOP SLAVE", f"CHANGE MASTER TO MASTER_DELAY={seconds}", "START SLAVE")


class Database:
    def __init__(self, db: Any) -> None:
        self.db = db
        self.marked: list[bool] = []

    async def write(self) -> Any:
        try:
            async with self.db.primary() as connection:
                return await ask(connection, INSERT)
        except Exception as error:
            self.marked.append(bool(getattr(error, "retryable", False)))
            raise

    async def read(self) -> Any:
        async with self.db.replica() as connection:
            return await ask(connection, "SELECT @@server_id")

    async def fill(self, count: int) -> None:
        """Have so many readers at once."""
        async with AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(self.db.replica())

    def replica_pods(self) -> set[str]:
        """Addresses that the replicas' pool is connected to."""
        pods = self.db._replica_pool.snapshot.pods
        return {pod.endpoint.address for pod in pods if pod.busy + pod.idle}


@asynccontextmanager
async def database(
    cluster: MySQLCluster, kind: str, *, one_name: bool = False, options: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Database]:
    names = (f"{PODS}:{cluster.port}",) if one_name else (cluster.write, cluster.read)
    given = {"db" if kind == "aiomysql" and name == "database" else name: to for name, to in cluster.login.items()}
    given |= {"autocommit": True, "ssl": trusting(cluster), "maxsize": 3, "probe_role": one_name}
    knowing = Options(**cluster.resolver, **(QUICK | {"connect_timeout": 0.3} | (options or {})))
    async with adapter(kind).ReadWrite(*names, options=knowing, **(given | settings)) as db:
        yield Database(db)


@every_async
async def test_writes_go_to_the_primary_and_reads_to_the_replicas(steady: MySQLCluster, kind: str) -> None:
    async with database(steady, kind) as db:
        assert {await db.write() for _ in range(4)} == {1}
        assert {await db.read() for _ in range(8)} <= {2, 3}
        assert db.db.primary_endpoint.address == steady.primary.address


@every_async
async def test_with_one_name_the_pods_say_who_is_who(steady: MySQLCluster, kind: str) -> None:
    async with database(steady, kind, one_name=True) as db:
        assert {await db.write() for _ in range(4)} == {1}
        assert {await db.read() for _ in range(8)} <= {1, 2, 3}


@pytest.mark.parametrize(("one_name", "probe_role"), [(False, False), (False, True), (True, True)])
@every_async
async def test_a_demoted_primary_gets_no_second_write(
    mysql: MySQLCluster, kind: str, one_name: bool, probe_role: bool
) -> None:
    async with database(mysql, kind, one_name=one_name, probe_role=probe_role) as db:
        async with load(db.write, workers=3) as under:
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
            if probe_role:
                assert went_on < promoted[0] + 2.0  # it did not wait for DNS
            await task
            await under.more(6)
        assert len(under.errors) <= 3 + 3, under.errors  # in flight, and one for each connection to the old one
        assert under.errors == [error for error in under.errors if "1290" in error]
        assert db.marked == [True] * len(under.errors)
        assert mysql.replicas[-1].connections() == 0 or one_name  # the old primary has none of ours for writing


@every_async
async def test_without_a_primary_a_caller_waits_and_is_told_what_each_pod_says(mysql: MySQLCluster, kind: str) -> None:
    mysql.primary.demote()
    async with database(mysql, kind, probe_role=True, options={"wait_for_endpoints": 3.0}) as db:
        with pytest.raises(error_of(kind)) as caught:
            await db.write()
        error = caught.value if kind == "aiomysql" else caught.value.__cause__
        assert isinstance(error, errors.NoPrimary)
        assert db.marked == [True]
        servers = [mysql.primary, *mysql.replicas]
        assert dict(error.asked) == {f"{server.address}:{mysql.port}": "it takes no writes" for server in servers}
        writing = asyncio.create_task(db.write())
        await asyncio.sleep(0.2)
        mysql.primary.promote()
        assert await writing == 1


@every_async
async def test_a_primary_that_dies_is_followed_by_whoever_is_promoted(mysql: MySQLCluster, kind: str) -> None:
    dead = mysql.primary
    async with database(mysql, kind, probe_role=True) as db:
        async with load(db.write, workers=3) as under:
            await under.more(9)
            await asyncio.to_thread(mysql.crash, dead)
            new = await asyncio.to_thread(mysql.fail_over, dns_lag=0.5)
            await under.until(lambda: under.servers()[new.server_id] > 6)
        assert db.db.primary_endpoint.address == new.address


@every_async
async def test_a_primary_that_dies_while_nobody_writes_is_left_by_the_next_one_who_does(
    mysql: MySQLCluster, kind: str
) -> None:
    dead = mysql.primary
    async with database(mysql, kind, probe_role=True) as db:
        assert await db.write() == 1
        await asyncio.to_thread(mysql.crash, dead)
        new = await asyncio.to_thread(mysql.fail_over, dns_lag=0.0)
        await asyncio.sleep(0.05)  # what the kernel has to say of it reaches this loop
        assert await db.write() == new.server_id
        assert db.marked == []


@every_async
async def test_two_that_claim_it_are_said_and_the_choice_does_not_flap(
    mysql: MySQLCluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with database(mysql, kind, probe_role=True) as db:
        assert await db.write() == 1
        mysql.replicas[0].ask("SET GLOBAL read_only = 0")
        for _ in range(3):
            db.db._monitor.look_again()
            await asyncio.sleep(0.1)
            assert await db.write() == 1
        await until(lambda: "split brain" in caplog.text)
        assert caplog.text.count("split brain") == 1


@every_async
async def test_without_a_replica_the_primary_is_read_from_or_the_caller_is_told(mysql: MySQLCluster, kind: str) -> None:
    for replica in mysql.replicas:
        mysql.unready(replica)
    quick = {"hold_nx": 0.0, "wait_for_endpoints": 0.3}
    async with database(mysql, kind, options=quick) as db:
        assert await db.read() == 1
        assert await db.read() == 1
    async with database(mysql, kind, options=quick, on_no_replica="fail") as db:
        with pytest.raises(error_of(kind)):
            await db.read()


@every_async
async def test_an_error_of_the_statement_changes_nothing(steady: MySQLCluster, kind: str) -> None:
    async with database(steady, kind, maxsize=1) as db:
        async with db.db.primary() as connection:
            number = await ask(connection, "SELECT CONNECTION_ID()")

        async def stumble() -> None:
            async with db.db.primary() as connection:
                await ask(connection, "SELECT nonsense")

        with pytest.raises(error_of(kind)) as caught:
            await stumble()
        assert not hasattr(caught.value, "retryable")
        async with db.db.primary() as connection:
            assert await ask(connection, "SELECT CONNECTION_ID()") == number


@every_async
async def test_a_transaction_that_was_begun_read_only_is_not_taken_for_a_demotion(
    steady: MySQLCluster, kind: str
) -> None:
    async with database(steady, kind, maxsize=1) as db:

        async def write_read_only() -> None:
            async with db.db.primary() as connection:
                await ask(connection, "START TRANSACTION READ ONLY")
                await ask(connection, INSERT)

        with pytest.raises(error_of(kind), match="1792") as caught:
            await write_read_only()
        assert not hasattr(caught.value, "retryable")
        assert await db.write() == 1


@every_async
@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_reader_sees_what_he_has_written(steady: MySQLCluster, kind: str, autocommit: bool) -> None:
    stale = 0
    async with database(steady, kind, after_write="gtid", gtid_timeout=20.0, autocommit=autocommit) as db:
        before = steady.primary.value("(SELECT COUNT(*) FROM shop.orders)")
        assert db.db.token() == ""
        for number in range(1, 41):
            async with db.db.primary() as connection:
                await ask(connection, INSERT)
                await connection.commit()
            async with db.db.replica() as connection:
                assert await ask(connection, "SELECT @@server_id") in (2, 3)
                stale += await ask(connection, "SELECT COUNT(*) FROM orders") != before + number
        assert stale == 0
        assert db.db.token().startswith("seen=0-1-")


@every_async
async def test_a_token_is_carried_to_another_request_and_strangers_learn_nothing(
    mysql: MySQLCluster, kind: str
) -> None:
    for replica in mysql.replicas:
        replica.ask("STOP SLAVE SQL_THREAD")

    async def another_request(db: Database, token: str | None) -> Any:
        async with db.db.replica(after=token) as connection:
            return await ask(connection, "SELECT @@server_id")

    async with database(mysql, kind, after_write="gtid", gtid_timeout=0.1) as db:
        reading = asyncio.create_task(another_request(db, None))

        async def write() -> str:
            await db.write()
            return str(db.db.token())

        token = await asyncio.create_task(write())  # a context of its own
        assert db.db.token() == ""
        assert await reading in (2, 3)
        assert await another_request(db, token) == 1  # no replica has it within `gtid_timeout`
        with pytest.raises(errors.OptionError, match="no token"):
            await another_request(db, "nonsense")


@every_async
async def test_a_sticky_context_reads_from_the_primary_for_a_while(steady: MySQLCluster, kind: str) -> None:
    async with database(steady, kind, after_write="sticky", sticky=3600.0) as db:
        assert await db.read() in (2, 3)
        await db.write()
        assert await db.read() == 1
    async with database(steady, kind, after_write="sticky", sticky=0.0) as db:
        await db.write()
        assert await db.read() in (2, 3)


@every_async
async def test_an_applications_own_cursor_class_is_no_hindrance(steady: MySQLCluster, kind: str) -> None:
    name = {"aiomysql": "cursorclass", "asyncmy": "cursor_cls"}[kind]
    module = importlib.import_module(f"{kind}.cursors")
    async with database(steady, kind, after_write="gtid", **{name: module.DictCursor}) as db:
        async with db.db.primary() as connection, connection.cursor() as cursor:
            await cursor.execute(INSERT)
            assert await cursor.fetchone() == {"@@server_id": 1}
        assert db.db.token()


@every_async
async def test_who_waits_for_a_connection_while_it_closes_is_told(steady: MySQLCluster, kind: str) -> None:
    async with database(steady, kind, maxsize=1) as db:
        async with db.db.primary():
            [pool] = db.db._pools.values()
            waiting = asyncio.create_task(db.write())
            await until(lambda: pool.snapshot.waiting)
            closing = asyncio.create_task(db.db.aclose())
            with pytest.raises(errors.ClosedError, match="make a new ReadWrite"):
                await waiting
        await closing
    with pytest.raises(errors.ClosedError):
        await db.read()


@names
@every_async
async def test_a_replica_that_stops_is_left_out_but_never_the_last(
    mysql: MySQLCluster, kind: str, one_name: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stopped, other = mysql.replicas
    caplog.set_level("INFO", "headlessconn")
    async with database(mysql, kind, one_name=one_name, max_lag=1.0, maxsize=4) as db:
        await db.write()  # with one name the primary is known from here on, and not read from
        await until(lambda: db.db.primary_endpoint is not None)
        await db.fill(4)
        await until(lambda: db.replica_pods() == {stopped.address, other.address})
        stopped.ask("STOP SLAVE")
        await until(lambda: f"{stopped.address}:{mysql.port} has stopped replicating" in caplog.text)
        await until(lambda: db.replica_pods() == {other.address})  # its idle connections go, though nobody reads
        assert {await db.read() for _ in range(8)} == {other.server_id}
        other.ask("STOP SLAVE")
        await until(lambda: f"{stopped.address}:{mysql.port} is read from again" in caplog.text)
        await db.fill(4)
        assert {await db.read() for _ in range(8)} <= {stopped.server_id, other.server_id}  # both are as old
        stopped.ask("START SLAVE")
        await until(lambda: f"{other.address}:{mysql.port} has stopped replicating" in caplog.text)
        await until(lambda: other.address not in db.replica_pods())
        await db.fill(4)
        assert db.replica_pods() == {stopped.address}
        other.ask("START SLAVE")
        await until(lambda: f"{other.address}:{mysql.port} is read from again" in caplog.text)
    for server in (mysql.primary, *mysql.replicas):
        await until(lambda server=server: server.connections() == 0)  # type: ignore[misc]


@every_async
async def test_a_replica_that_is_behind_is_left_out_until_it_has_caught_up(
    mysql: MySQLCluster, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    late, other = mysql.replicas
    delay(late, 3600)  # it replicates, and applies nothing
    caplog.set_level("INFO", "headlessconn")
    async with database(mysql, kind, max_lag=0.5) as db:
        await db.write()
        await until(lambda: re.search(rf"{late.address}:{mysql.port} is \d+\.\d s behind", caplog.text))
        await db.fill(3)
        assert {await db.read() for _ in range(6)} == {other.server_id}
        delay(late, 0)
        await until(lambda: f"{late.address}:{mysql.port} is read from again" in caplog.text)


@every_async
async def test_a_primary_that_is_alone_behind_the_one_name_is_read_from(mysql: MySQLCluster, kind: str) -> None:
    async with database(mysql, kind, one_name=True, max_lag=5.0, options={"hold_nx": 60.0}) as db:
        await db.write()
        assert {await db.read() for _ in range(6)} <= {2, 3}
        for replica in list(mysql.replicas):
            mysql.leave(replica)
        await until(lambda: len(db.db._monitor._all_replicas()) == 1)
        assert db.db._monitor.has_no_replica()  # though those that have left are held for a while
        assert {await db.read() for _ in range(4)} == {1}


@every_async
async def test_each_pod_is_asked_how_far_it_is_by_one_connection(mysql: MySQLCluster, kind: str) -> None:
    replica = mysql.replicas[0]
    async with database(mysql, kind, max_lag=0.2) as db:
        seen = db.db._replication.lag._at
        key = pack(replica.address, mysql.port)
        await until(lambda: key in seen)
        before = replica.opened()
        for _ in range(5):
            last = seen[key]
            await db.write()
            await until(lambda last=last: seen[key] != last)  # type: ignore[misc]
        assert replica.opened() == before + 1  # that of this question
    await until(lambda: replica.connections() == 0)


@every_async
async def test_a_pod_that_hangs_holds_up_neither_the_word_of_others_nor_the_end(
    mysql: MySQLCluster, kind: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headlessconn.adapters._mysql_monitor.ASK_TIMEOUT", 3600.0)  # its answer never comes
    hung, other = mysql.replicas
    try:
        async with database(mysql, kind, max_lag=1.0) as db:
            await db.write()
            await until(lambda: len(db.db._monitor._kept) == 3)  # each pod has been asked
            hung.freeze()
            other.ask("STOP SLAVE")
            await until(lambda: f"{other.address}:{mysql.port} has stopped replicating" in caplog.text)
    finally:
        hung.thaw()
    await until(lambda: hung.connections() == 0)


@every_async
async def test_what_contradicts_itself_is_refused(kind: str) -> None:
    with pytest.raises(errors.OptionError, match="probe_role"):
        adapter(kind).ReadWrite("mysql.data:3306")
    with pytest.raises(errors.OptionError, match="on_no_replica"):
        adapter(kind).ReadWrite("mysql-primary.data", "mysql-read.data", on_no_replica="wait")
    for max_lag in (0, 0.05, 86401.0, True, "10"):
        with pytest.raises(errors.OptionError, match=r"is not between 0\.1 and 86400") as caught:
            adapter(kind).ReadWrite("mysql-primary.data", "mysql-read.data", max_lag=max_lag)
        assert caught.value.option == "max_lag"
