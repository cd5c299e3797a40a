"""Each of SQLAlchemy's events that the adapter stands on, and what happens around it: listeners that raise, detached
connections, disposal, forks."""

import asyncio
import gc
import os
import time
from typing import Any

import pytest
import sqlalchemy.exc
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from headlessconn import sync
from headlessconn.adapters.sqlalchemy import attach
from tests.adapters.sql_world import Pool, every_driver, pool, until, url
from tests.real.mysql_cluster import MySQLCluster

pytestmark = pytest.mark.real


def core(made: Pool) -> Any:
    return made.engine.sync_engine if isinstance(made.engine, AsyncEngine) else made.engine


@every_driver
async def test_every_event_is_heard(steady: MySQLCluster, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What SQLAlchemy renames or stops calling fails here, by its name."""
    async with pool(steady, driver, size=1) as made:
        hooks = made.attached._hooks
        names = {name for name, _, _ in hooks._listeners}
        heard: list[str] = []
        for name in names:
            event.listen(core(made), name, lambda *_, name=name: heard.append(name), **_how(name))
        assert await made.query() in (2, 3)
        assert heard == ["do_connect", "checkout", "checkin"] or heard == ["checkout", "checkin"]  # ours ends that one
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            await made.query("SELECT nothing FROM nowhere")
        await made.dispose()
        assert {"checkout", "checkin", "handle_error", "close"} <= set(heard)
        assert names == {"do_connect", "handle_error", "checkout", "checkin", "close", "detach"}


def _how(name: str) -> dict[str, bool]:
    return {"retval": True} if name == "do_connect" else {}


@every_driver
async def test_an_error_of_the_applications_own_costs_no_connection(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, size=1) as made:
        number = await made.query("SELECT CONNECTION_ID() * 10 + @@server_id")
        with pytest.raises(sqlalchemy.exc.ProgrammingError):
            await made.query("SELECT nothing FROM nowhere")
        assert await made.query("SELECT CONNECTION_ID() * 10 + @@server_id") == number


@every_driver
async def test_a_listener_that_raises_leaves_no_connection_counted(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, size=2) as made:
        await made.query()  # the dialect has been set up

        def refuse(dbapi_connection: Any, record: Any) -> None:
            raise LookupError("no")

        event.listen(core(made), "connect", refuse)
        one = await made.take()
        with pytest.raises(LookupError):
            await made.take()
        # The exception holds the pool's record of it, and is freed when a thread gets to it.
        await until(lambda: gc.collect() >= 0 and sum(made.shares().values()) == 1)
        event.remove(core(made), "connect", refuse)
        two = await made.take()
        assert sum(made.shares().values()) == 2
        assert sum(member.connections for member in made.attached.service.snapshot.members) == 2
        await one.give_back()
        await two.give_back()


def test_a_detached_connection_is_nobodys_any_more(steady: MySQLCluster) -> None:
    with sync.Client(**steady.resolver) as client:
        engine = create_engine(url(steady, "pymysql"), pool_size=1)
        attached = attach(engine, client.service(steady.read))
        with engine.connect() as connection:
            connection.detach()
            assert attached.connections == {}
            assert connection.execute(text("SELECT 1")).scalar() == 1
        engine.dispose()


@every_driver
async def test_after_dispose_the_engine_goes_on_following(steady: MySQLCluster, driver: str) -> None:
    async with pool(steady, driver, size=2) as made:
        held = await made.take()
        await made.dispose()
        assert sorted(await made.fill(2)) == [2, 3]
        assert sum(made.shares().values()) == 3
        await held.give_back()
        await until(lambda: sum(made.shares().values()) == 2)  # that pool is gone, and its records with it


def test_off_switches_it_off(steady: MySQLCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLESSCONN", "off")
    replica = steady.replicas[0]
    engine = create_engine(url(steady, "pymysql", replica.address))
    with sync.Client(**steady.resolver) as client:
        attached = attach(engine, client.service("nobody.data:3306"))
        with engine.connect() as connection:
            assert connection.execute(text("SELECT @@server_id")).scalar() == replica.server_id
        assert attached.connections == {}
    engine.dispose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_dials_for_itself(steady: MySQLCluster) -> None:
    with sync.Client(**steady.resolver) as client:
        engine = create_engine(url(steady, "pymysql"), pool_size=2)
        attached = attach(engine, client.service(steady.read))
        with engine.connect() as connection:
            mine = connection.execute(text("SELECT CONNECTION_ID() * 10 + @@server_id")).scalar()
        child = os.fork()
        if not child:
            code = 1
            try:
                engine.dispose(close=False)  # as SQLAlchemy tells to
                with engine.connect() as connection:
                    other = connection.execute(text("SELECT CONNECTION_ID() * 10 + @@server_id")).scalar()
                code = 0 if other != mine and sum(attached.connections.values()) == 1 else 2
            finally:
                os._exit(code)
        deadline = time.monotonic() + 20
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            assert time.monotonic() < deadline, "the child hangs"
            time.sleep(0.02)
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        with engine.connect() as connection:
            assert connection.execute(text("SELECT CONNECTION_ID() * 10 + @@server_id")).scalar() == mine
        engine.dispose()


async def test_a_cancelled_query_costs_its_connection_and_no_blame(steady: MySQLCluster) -> None:
    async with pool(steady, "aiomysql", size=1) as made:
        await made.query()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await made.query("SELECT MASTER_GTID_WAIT('9-99-999', 5)")
        assert await made.query() in (2, 3)
        assert all(member.state.name == "READY" for member in made.attached.service.snapshot.members)
