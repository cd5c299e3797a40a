"""The set-ups that are compared work on a healthy cluster, and what their records come to."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from math import inf, isnan

import pytest

from tests.real import lab, loopback, mariadb
from tests.real.bench_sql import play
from tests.real.lab import CHECKOUT
from tests.real.mysql_cluster import PRIMARY, ZONE, MySQLCluster, on_loopback
from tests.real.sql_load import UNFINISHED, Job, Record, encode, name_of, run_async, run_blocking
from tests.real.sql_results import Result, cell, judge, read, table
from tests.real.sql_scenarios import BY_NAME, WRITE, World
from tests.real.sql_setup import SETUPS, AsyncSetUp, Where, make
from tests.tiers import require


@pytest.fixture(scope="module")
def mysql() -> Iterator[MySQLCluster]:
    require("mariadb", not mariadb.missing(), mariadb.missing())
    require("mariadb", not loopback.missing(), loopback.missing())
    with on_loopback(replicas=0) as cluster:
        yield cluster


def job(cluster: MySQLCluster, setup: str, statement: str = WRITE, seconds: float = 0.3) -> Job:
    where = Where(
        f"{PRIMARY}.{ZONE}" if setup.startswith("ours") else cluster.primary.address,
        cluster.port,
        **cluster.login,
        size=3,
        resolver=cluster.resolver,
        ca=str(cluster.ca),
    )
    return Job(setup, where, statement, seconds=seconds, workers=2, pause=0.02)


@pytest.mark.real
@pytest.mark.parametrize("name", list(SETUPS))
def test_a_set_up_writes_and_commits_and_leaves_no_connection(mysql: MySQLCluster, name: str) -> None:
    before = mysql.primary.ask("SELECT COUNT(*) AS orders FROM shop.orders")[0]["orders"]
    task = job(mysql, name)
    setup = make(name, task.where)
    if isinstance(setup, AsyncSetUp):
        records = asyncio.run(_run(setup, task))
    else:
        setup.open()
        records = run_blocking(setup, task, time.monotonic())
        setup.close()
    assert {(record.server, record.error) for record in records} == {(1, "")}
    after = mysql.primary.ask("SELECT COUNT(*) AS orders FROM shop.orders")[0]["orders"]
    assert after - before == len(records)
    deadline = time.monotonic() + 10  # the server notices an end of file when it gets to it
    while mysql.primary.connections() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert mysql.primary.connections() == 0


async def _run(setup: AsyncSetUp, task: Job) -> list[Record]:
    await setup.open()
    try:
        return await run_async(setup, task, time.monotonic())
    finally:
        await setup.close()


@pytest.mark.real
@pytest.mark.parametrize("name", ["aiomysql", "DBUtils, PyMySQL"])
def test_a_load_process_fills_its_pool_waits_and_tells_also_of_what_hangs(mysql: MySQLCluster, name: str) -> None:
    command = [sys.executable, "-m", "tests.real.sql_load"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(job(mysql, name, "SELECT MASTER_GTID_WAIT('9-99-999', 100)")))
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"ready": True}
        assert mysql.primary.connections() == 3
        process.stdin.write(json.dumps({"start": time.monotonic()}).encode() + b"\n")
        process.stdin.flush()
        records = read(json.loads(process.stdout.readline()))
    mysql.primary.kill_connections()  # the server has not noticed that its clients are gone
    assert [(record.server, record.error) for record in records] == [(0, UNFINISHED)] * 2
    assert process.returncode == 0


@pytest.mark.real
def test_an_error_is_named_with_its_number(mysql: MySQLCluster) -> None:
    for name in ("aiomysql", "SQLAlchemy, PyMySQL"):
        task = job(mysql, name, "INSERT INTO nowhere VALUES (1)", seconds=0.1)
        setup = make(name, task.where)
        if isinstance(setup, AsyncSetUp):
            records = asyncio.run(_run(setup, task))
        else:
            setup.open()
            records = run_blocking(setup, task, time.monotonic())
            setup.close()
        assert {record.error for record in records} == {"ProgrammingError 1146"}
    assert name_of(TimeoutError()) == "TimeoutError"


# --- what records come to


class _NoCluster(World):
    def __init__(self, **moments: float) -> None:
        self.new, self.known_at, self.promoted_at = 3, moments.get("known_at", 0.0), moments.get("promoted_at", 0.0)


def test_first_and_share_count_answers_since_dns_knew() -> None:
    records = [Record(at, 0.5, server, "") for at, server in ((0.0, 1), (2.0, 1), (2.2, 3), (2.4, 3), (2.6, 1))]
    result = judge(records, _NoCluster(known_at=2.2), seconds=5)
    assert result.first == pytest.approx(0.5)  # 2.2 + 0.5 - 2.2
    assert result.share == 0.5
    assert cell("new", result) == "50%, first 0.5 s"


def test_a_server_that_never_answered_has_no_first() -> None:
    result = judge([Record(1.0, 0.5, 1, "")], _NoCluster(), seconds=5)
    assert isnan(result.first)
    assert cell("new", result) == "0%, never"


def test_an_unfinished_statement_is_a_stall_and_no_error() -> None:
    records = [Record(0.0, 0.5, 1, ""), Record(1.0, 9.0, 0, UNFINISHED), Record(1.0, 2.0, 0, "OperationalError 2013")]
    result = judge(records, _NoCluster(), seconds=9)
    assert (result.errors, result.stuck, result.stall) == (1, 1, 9.0)
    assert result.kinds == {"OperationalError 2013": 1}
    assert cell("faults", result) == "1 error, 1 stuck (1 queries), longest >9.0 s"


@pytest.mark.parametrize(
    ("last_error_at", "after", "said"), [(3.0, 1.1, "1 error, whole 1.1 s"), (9.0, inf, "1 error, never whole")]
)
def test_writes_are_whole_after_the_last_error(last_error_at: float, after: float, said: str) -> None:
    records = [Record(1.0, 0.1, 1, ""), Record(last_error_at, 0.1, 0, "OperationalError 1290")]
    result = judge(records, _NoCluster(promoted_at=2.0), seconds=10)
    assert result.writes_after == pytest.approx(after)
    assert cell("writes", result) == said


def test_the_table_has_a_row_a_set_up_and_a_column_a_scenario() -> None:
    result = judge([Record(0.0, 0.5, 1, "")], _NoCluster(), seconds=5)
    found: dict[tuple[str, str], Result] = {("killed", "mine"): result}
    lines = list(table([BY_NAME["added"], BY_NAME["killed"]], found, ["mine", "theirs"]))
    assert [line.split() for line in lines] == [
        ["added", "killed"],
        ["mine", "-", "0", "errors,", "longest", "0.5", "s"],
        ["theirs", "-", "-"],
    ]


# --- one scenario, whole


@pytest.mark.real
@pytest.mark.slow
def test_the_bench_sees_that_a_stock_pool_keeps_writing_to_the_demoted_primary() -> None:
    require("mariadb", not mariadb.missing(), mariadb.missing())
    require("real-network", not lab.missing(), lab.missing())
    # Until well after DNS has moved: 2 s + 4 s of its lag.
    scenario = replace(BY_NAME["switch-over"], seconds=9.0)
    found = play([scenario], ["aiomysql"], prefix="hcsqltest")
    result = found["switch-over", "aiomysql"]
    assert set(result.kinds) == {"OperationalError 1290"}
    assert result.writes_after == inf
    assert result.queries > 0
