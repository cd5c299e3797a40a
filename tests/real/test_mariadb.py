"""The MariaDB servers of our tests: they replicate, change roles, move and fail as those of an operator do."""

import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import dns.resolver
import pymysql
import pymysql.cursors
import pytest

from tests.real import lab, loopback, mariadb
from tests.real.lab import Lab
from tests.real.loopback import Loopback
from tests.real.mariadb import Server, ServerError
from tests.real.mysql_cluster import PODS, PRIMARY, READ, ZONE, MySQLCluster, in_namespaces, node, on_loopback
from tests.tiers import note, require

pytestmark = pytest.mark.real

INSERT = "INSERT INTO orders (note, made_on) VALUES ('test', @@server_id)"
READ_ONLY = 1290
TIMEOUT = 10.0
Connection: TypeAlias = "pymysql.Connection[pymysql.cursors.Cursor]"  # generic for mypy only


@pytest.fixture(scope="module", autouse=True)
def _needs_mariadb() -> None:
    require("mariadb", not mariadb.missing(), mariadb.missing())
    require("mariadb", not loopback.missing(), loopback.missing())
    note("mariadb", f"MariaDB {mariadb.version()}")


@pytest.fixture
def mysql() -> Iterator[MySQLCluster]:
    with on_loopback(replicas=2) as cluster:
        yield cluster


def connect(cluster: MySQLCluster, server: Server, **arguments: Any) -> Connection:
    defaults: dict[str, Any] = {"host": server.address, "port": cluster.port, "autocommit": True}
    limits: dict[str, Any] = {"connect_timeout": 5, "read_timeout": TIMEOUT, "ssl_disabled": True}
    connection: Connection = pymysql.connect(**cluster.login, **(defaults | limits | arguments))
    return connection


def ask(connection: Connection, statement: str) -> tuple[tuple[Any, ...], ...]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchall())


def write(cluster: MySQLCluster, server: Server) -> None:
    with connect(cluster, server) as connection:
        ask(connection, INSERT)


def writes_refused(connection: Connection) -> bool:
    with pytest.raises(pymysql.err.OperationalError) as caught:
        ask(connection, INSERT)
    return bool(caught.value.args[0] == READ_ONLY)


def orders(server: Server) -> list[int]:
    """On which server each order was made, oldest first, as far as this one knows."""
    return [row["made_on"] for row in server.ask("SELECT made_on FROM shop.orders ORDER BY id")]


def names_lead_to(cluster: MySQLCluster, service: str) -> set[str]:
    resolver = dns.resolver.Resolver(configure=False)
    host, _, port = cluster.nameserver.partition(":")
    resolver.nameservers, resolver.port = [host], int(port or 53)
    return {record.to_text() for record in resolver.resolve(f"{service}.{ZONE}.", "A")}


# --- roles


def test_replicas_get_what_the_primary_writes_and_refuse_writes(mysql: MySQLCluster) -> None:
    write(mysql, mysql.primary)
    assert len(mysql.replicas) == 2
    for replica in mysql.replicas:
        replica.catch_up(mysql.primary)
        assert orders(replica) == [mysql.primary.server_id]
        with connect(mysql, replica) as connection:
            assert ask(connection, "SELECT @@server_id, @@report_host") == ((replica.server_id, replica.name),)
            assert writes_refused(connection)
    assert names_lead_to(mysql, PRIMARY) == {mysql.primary.address}
    assert names_lead_to(mysql, READ) == {replica.address for replica in mysql.replicas}


def test_a_new_replica_has_everything_before_dns_lists_it(mysql: MySQLCluster) -> None:
    write(mysql, mysql.primary)
    new = mysql.add_replica(listed=False)
    assert orders(new) == [1]
    assert new.address not in names_lead_to(mysql, READ)
    mysql.ready(new)
    assert new.address in names_lead_to(mysql, READ)


def test_a_replica_that_leaves_is_out_of_dns_and_gone(mysql: MySQLCluster) -> None:
    leaving, staying = mysql.replicas
    mysql.leave(leaving)
    assert names_lead_to(mysql, READ) == {staying.address}
    assert not leaving.is_running
    with pytest.raises(pymysql.err.OperationalError, match="refused"):
        connect(mysql, leaving)


def test_after_a_switch_over_the_old_primary_lives_on_read_only(mysql: MySQLCluster) -> None:
    """What pools do not notice: the connection is well, its ping succeeds, and every write fails."""
    old = mysql.primary
    with connect(mysql, old) as connection:
        ask(connection, INSERT)
        new = mysql.switch_over()
        connection.ping(reconnect=False)
        assert writes_refused(connection)
    assert names_lead_to(mysql, PRIMARY) == {new.address}
    assert old.address in names_lead_to(mysql, READ)
    write(mysql, new)
    old.catch_up(new)
    assert orders(old) == [old.server_id, new.server_id]
    assert old.replication() == "Yes/Yes"
    back = mysql.switch_over(old)
    write(mysql, back)
    new.catch_up(back)
    assert orders(new) == [1, new.server_id, 1]


def test_dns_hears_of_a_promotion_after_the_lag_only(mysql: MySQLCluster) -> None:
    old, heard = mysql.primary, []
    new = mysql.switch_over(dns_lag=0.1, promoted=lambda: heard.append(names_lead_to(mysql, PRIMARY)))
    assert heard == [{old.address}]
    assert names_lead_to(mysql, PRIMARY) == {new.address}


def test_after_the_primarys_death_a_replica_takes_over_and_loses_nothing_it_had(mysql: MySQLCluster) -> None:
    write(mysql, mysql.primary)
    for replica in mysql.replicas:
        replica.catch_up(mysql.primary)
    dead = mysql.primary
    mysql.crash(dead)
    assert names_lead_to(mysql, PRIMARY) == {dead.address}  # nobody has noticed yet
    new = mysql.fail_over()
    write(mysql, new)
    [other] = mysql.replicas
    other.catch_up(new)
    assert orders(other) == [dead.server_id, new.server_id]
    assert names_lead_to(mysql, PRIMARY) == {new.address}


def test_the_replica_that_received_more_takes_over(mysql: MySQLCluster) -> None:
    behind, ahead = mysql.replicas
    behind.ask("STOP SLAVE")
    write(mysql, mysql.primary)
    ahead.catch_up(mysql.primary)
    mysql.crash(mysql.primary)
    assert mysql.fail_over() is ahead
    behind.catch_up(ahead)
    assert orders(behind) == [1]


def test_a_stopped_replication_is_said(mysql: MySQLCluster) -> None:
    replica = mysql.replicas[0]
    replica.ask("STOP SLAVE")
    write(mysql, mysql.primary)
    with pytest.raises(ServerError, match=r"mysql-1 has not reached 0-1-\d+: No/No"):
        replica.catch_up(mysql.primary, timeout=0.1)


@pytest.mark.parametrize("role", ["primary", "replica"])
def test_a_pod_comes_back_at_another_address_under_its_name(mysql: MySQLCluster, role: str) -> None:
    server = mysql.primary if role == "primary" else mysql.replicas[0]
    write(mysql, mysql.primary)
    before = server.address
    mysql.recreate(server)
    assert server.address != before
    assert names_lead_to(mysql, f"{server.name}.{PODS}") == {server.address}
    assert names_lead_to(mysql, PRIMARY) == {mysql.primary.address}
    assert names_lead_to(mysql, READ) == {replica.address for replica in mysql.replicas}
    write(mysql, mysql.primary)
    for replica in mysql.replicas:
        replica.catch_up(mysql.primary)
        assert orders(replica) == [1, 1]


def test_connections_of_clients_can_be_counted_and_killed(mysql: MySQLCluster) -> None:
    server = mysql.replicas[0]
    with connect(mysql, server) as connection:
        assert server.connections() == 1
        server.kill_connections()
        with pytest.raises(pymysql.err.OperationalError):
            ask(connection, "SELECT 1")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [(f"{READ}.{ZONE}", True), (READ, True), (f"mysql-1.{PODS}.{ZONE}", True), ("mysql-read.elsewhere", False)],
)
def test_tls_names_the_service(mysql: MySQLCluster, name: str, accepted: bool) -> None:
    server = mysql.replicas[0]
    context = ssl.create_default_context(cafile=str(mysql.ca))
    connection = connect(mysql, server, host=name, ssl_disabled=False, ssl=context, defer_connect=True)
    with socket.create_connection((server.address, mysql.port), timeout=5) as dialled:
        if accepted:
            connection.connect(dialled)
            with connection:
                assert ask(connection, "SHOW STATUS LIKE 'Ssl_version'")[0][1].startswith("TLS")
        else:
            with pytest.raises(pymysql.err.OperationalError, match="not valid for"):
                connection.connect(dialled)


# --- tidiness


def test_a_server_that_cannot_start_says_why(mysql: MySQLCluster) -> None:
    server = mysql.replicas[0]
    server.stop()
    server.place = mysql.primary.place
    with pytest.raises(ServerError, match=r"(?s)mysql-1 ended as it started.*Address already in use"):
        server.start()


CRASHING = """
import os, sys
from tests.real.mysql_cluster import on_loopback
with on_loopback(replicas=0) as cluster:
    print(cluster.ca.parents[1], cluster.primary.value("@@pid_file"), flush=True)
    sys.stdin.read()
"""


def test_what_a_crashed_run_left_is_taken_away_by_the_next() -> None:
    run = subprocess.Popen([sys.executable, "-c", CRASHING], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert run.stdin is not None
    assert run.stdout is not None
    with run.stdin, run.stdout:
        folder, pid_file = map(Path, run.stdout.readline().decode().split())
        pid = int(pid_file.read_text())
        with Loopback():  # the other run lives: nothing of it is touched
            assert Path(f"/proc/{pid}").exists()
            assert folder.is_dir()
        run.send_signal(signal.SIGKILL)
        run.wait()
        assert Path(f"/proc/{pid}").exists()
        with Loopback():
            assert not folder.exists()
            assert not _is_alive(pid)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- in network namespaces


@pytest.fixture
def network() -> Iterator[Lab]:
    require("real-network", not lab.missing(), lab.missing())
    with Lab("hcmysql", search="data") as made:
        yield made


def test_in_namespaces_names_resolve_and_replicas_follow_the_primary_to_a_new_address(network: Lab) -> None:
    with in_namespaces(network, replicas=1) as mysql:
        program = f"import socket; print(*socket.gethostbyname_ex('{READ}')[2])"
        said = network.client([sys.executable, "-c", program], stdout=subprocess.PIPE).communicate()[0]
        assert said.decode().split() == [mysql.replicas[0].address]
        mysql.recreate(mysql.primary)
        with network.inside():
            write(mysql, mysql.primary)
        mysql.replicas[0].catch_up(mysql.primary)  # nobody told it where its primary went
        assert orders(mysql.replicas[0]) == [1]


def test_a_black_holed_server_is_silent_and_still_does_as_told(network: Lab) -> None:
    with in_namespaces(network, replicas=0) as mysql:
        server = mysql.primary
        with network.inside():
            connection = connect(mysql, server, read_timeout=0.5)
        node(server).black_hole(mysql.port)
        with pytest.raises(pymysql.err.OperationalError, match="timed out"):
            ask(connection, "SELECT 1")
        assert server.connections() == 1  # it has not heard of the client's leaving
        node(server).pass_all()
        with network.inside():
            write(mysql, server)
        assert os.path.exists(f"/run/netns/{node(server).namespace}")
