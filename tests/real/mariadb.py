"""MariaDB servers as pods: made from one cached data folder, started, replicated, promoted, demoted, killed.

How a test gets a primary and two replicas on loopback, without root, in about a second:

    from tests.real.mysql_cluster import MySQLCluster, on_loopback

    @pytest.fixture(scope="module")
    def mysql() -> Iterator[MySQLCluster]:
        require("mariadb", not missing(), missing())
        with on_loopback(replicas=2) as cluster:
            yield cluster

    cluster.read, cluster.write         # targets: "mysql-read.data:20123", "mysql-primary.data:20123"
    cluster.resolver                    # keyword arguments for `headlessconn.Options`: nameservers, search, ndots
    cluster.login                       # user=, password=, database=: as every MySQL driver of Python names them
    cluster.ca                          # path of the CA; servers have certificates for the Services' names
    cluster.primary, cluster.replicas   # `Server`s; `Server.address`, `.name` ("mysql-0"), `.server_id`
    cluster.add_replica(), .leave(server), .crash(server), .switch_over(), .fail_over(), .move(server)

`SELECT @@server_id, @@report_host` tells which server answered: 1 and "mysql-0" for the pod mysql-0.
In network namespaces, with black holes (root): `in_namespaces(lab)`, the same otherwise.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pymysql
import pymysql.cursors

LOGIN = {"user": "app", "password": "app", "database": "shop"}
PATIENCE = 30.0
"""Seconds for a server to start, to stop, to catch up: limits for a busy machine. They take about 0.1 s."""

# `app` must not have ALL: READ ONLY ADMIN is in it, and with that it would write to a demoted primary.
_SETUP = """
CREATE DATABASE shop;
CREATE TABLE shop.orders
    (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, note VARCHAR(64) NOT NULL, made_on INT UNSIGNED NOT NULL);
FLUSH PRIVILEGES;
CREATE USER app@'%' IDENTIFIED BY 'app';
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.* TO app@'%';
CREATE USER repl@'%' IDENTIFIED BY 'repl';
GRANT REPLICATION SLAVE ON *.* TO repl@'%';
"""
# FEEDBACK would report to its maker's server after five minutes. The log file's size is part of the data folder.
_ALWAYS = ("--no-defaults", "--loose-feedback=OFF", "--innodb-log-file-size=8M")
_FLAGS = (
    # Small: a server takes about 60 MiB with these.
    *("--innodb-buffer-pool-size=16M", "--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M"),
    "--innodb-flush-log-at-trx-commit=2",  # a killed process loses nothing by it, a machine may
    # The default name of the relay log comes from the pid file's, and is not found in a copied data folder.
    *("--log-bin=binlog", "--binlog-format=ROW", "--relay-log=relay", "--log-slave-updates=1"),
    "--gtid-strict-mode=1",  # a diverged replica stops with a reason instead of going on
    "--slave-net-timeout=4",  # by default a replica waits a minute for a silent primary
    "--skip-name-resolve",
    "--max-connections=500",
)


class ServerError(Exception):
    """A server did not do what it was told. Says what, with the end of its log."""


class Place(Protocol):
    """Where a server runs: a place of `tests.real.loopback`, or a node of `tests.real.lab`."""

    address: str

    def spawn(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]: ...


def missing() -> str:
    """What this machine lacks for a server; empty when it can have one. For `tests.tiers.require`."""
    programs = ("mariadbd", "mariadb-install-db", "my_print_defaults")
    lacking = [program for program in programs if not _find(program)]
    where = "Debian: apt-get install mariadb-server-core mariadb-client-core"
    return f"not on the PATH: {', '.join(lacking)} ({where})" if lacking else ""


def version() -> str:
    """`"10.11.19-MariaDB-0+deb12u1"`."""
    said = subprocess.run([_program("mariadbd"), "--version"], check=True, capture_output=True, text=True, timeout=30)
    return said.stdout.split()[2]


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _program(name: str) -> str:
    found = _find(name)
    assert found is not None, missing()
    return found


def _as_whom() -> list[str]:
    """mariadbd refuses to run as root unless it is told to. It is told so here: its data is in a root's folder."""
    return ["--user=root"] if os.geteuid() == 0 else []


def template() -> Path:
    """The data folder that every server starts as a copy of: the users and one empty table. Made once a version."""
    recipe = hashlib.sha256("\n".join((version(), _SETUP, *_ALWAYS)).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headlessconn"
    made = cache / f"mariadb-{recipe}"
    if made.is_dir():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="mariadb-making-") as folder:
        data = Path(folder) / "data"
        flags = [*_ALWAYS, *_as_whom(), f"--datadir={data}"]
        how = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
        _quietly([_program("mariadb-install-db"), *flags, *how])
        _quietly([_program("mariadbd"), *flags, "--bootstrap"], _SETUP)
        try:
            data.rename(made)
        except OSError:  # another run was faster
            if not made.is_dir():
                raise
    return made


def _quietly(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise ServerError(f"`{' '.join(command)}` failed: {(done.stdout + done.stderr)[-2000:]}")


class Server:
    """One mariadbd with its own data folder. It is told what to do over its Unix socket, whatever the network does.

    name        of the pod, `mysql-0`; also what `@@report_host` says
    folder      for data, socket and log; made here. Short: a socket's path has at most 107 bytes
    place       where it runs, with its address; may be changed while it is stopped
    tls         folder with `ca.pem`, `server.pem` (key and certificate)
    """

    def __init__(
        self, name: str, folder: Path, place: Place, *, port: int, server_id: int, tls: Path | None = None
    ) -> None:
        self.name = name
        self.place = place
        self.port = port
        self.server_id = server_id
        self.read_only = True
        self._tls = tls
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copytree(template(), folder / "data")

    def __repr__(self) -> str:
        how = ("read-only" if self.read_only else "writable") if self.is_running else "stopped"
        return f"<Server {self.name} at {self.address}:{self.port}, {how}>"

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        """The end of its log."""
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    # --- its life

    def start(self) -> None:
        """Run it, and wait until it answers. A replica goes on replicating, read-only is what it was."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Run it without waiting: several start faster beside each other."""
        keys = {"ca": "ca.pem", "cert": "server.pem", "key": "server.pem"} if self._tls else {}
        command = [
            *(_program("mariadbd"), *_ALWAYS, *_as_whom(), *_FLAGS),
            *(f"--datadir={self._folder / 'data'}", f"--socket={self._socket}", f"--pid-file={self._folder / 'pid'}"),
            *(f"--bind-address={self.address}", f"--port={self.port}"),
            *(f"--server-id={self.server_id}", f"--report-host={self.name}", f"--read-only={self.read_only:d}"),
            *(f"--ssl-{what}={self._tls}/{file}" for what, file in keys.items()),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = self.place.spawn(command, stdout=log, stderr=log)

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if not self.is_running:
                raise ServerError(f"{self.name} ended as it started: {self.log()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} does not listen after {PATIENCE:g} s: {self.log()}")
            time.sleep(0.005)
        self.ask("SELECT 1")

    def _listens(self) -> bool:
        """Tried with a bare socket: PyMySQL leaves its own open when nobody listens."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def stop(self) -> None:
        """SIGTERM: it ends what it does, and goes. Queries in flight die with 2013."""
        self._signal(signal.SIGTERM)
        self._wait_ended()

    def crash(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL)
        self._wait_ended()

    def freeze(self) -> None:
        """SIGSTOP: the kernel goes on accepting connections, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:  # unreaped, so the number is still its own
            assert self._process is not None
            self._process.send_signal(number)

    def _wait_ended(self) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise ServerError(f"{self.name} still runs {PATIENCE:g} s after it was told to end: {self.log()}") from None

    # --- what it is told, over its socket

    @property
    def _socket(self) -> Path:
        return self._folder / "socket"

    def ask(self, *statements: str) -> list[dict[str, Any]]:
        """Run statements as root; returns the rows of the last one. Raises PyMySQL's errors; OSError while down."""
        try:
            connection = pymysql.connect(
                unix_socket=str(self._socket),
                user="root",
                autocommit=True,
                ssl_disabled=True,  # or every order builds a TLS context
                connect_timeout=5,
                read_timeout=PATIENCE + 10,  # some wait for PATIENCE by themselves
                cursorclass=pymysql.cursors.DictCursor,
            )
        except pymysql.err.OperationalError as error:
            raise ConnectionError(f"{self.name} does not listen at {self._socket}: {error}") from error
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def value(self, expression: str) -> Any:
        """`value("@@GLOBAL.read_only")`."""
        return self.ask(f"SELECT {expression} AS value")[0]["value"]

    def follow(self, host: str, port: int) -> None:
        """Replicate from there, by GTID. `host` should be a name: an address is stale once the primary has moved.

        A former primary goes on from the last transaction that it wrote itself.
        """
        self.ask(
            "STOP SLAVE",
            "SET GLOBAL gtid_slave_pos = @@GLOBAL.gtid_current_pos",
            # Without CONNECT_RETRY it tries again after a minute.
            f"CHANGE MASTER TO MASTER_HOST='{host}', MASTER_PORT={port}, MASTER_USER='repl', MASTER_PASSWORD='repl', "
            "MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        )

    def promote(self) -> None:
        """Apply what has been received, stop replicating, and take writes."""
        self.apply()
        self.ask("STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL read_only = 0")
        self.read_only = False

    def demote(self) -> None:
        """Refuse writes with error 1290; connections stay. Waits for the statements that write at this moment."""
        self.ask("SET GLOBAL read_only = 1")
        self.read_only = True

    @property
    def position(self) -> str:
        """The GTID of the last transaction in its own log: `"0-1-42"`; empty before the first."""
        return str(self.value("@@GLOBAL.gtid_binlog_pos"))

    @property
    def received(self) -> str:
        """The GTID of the last transaction that it got from its primary, applied or not."""
        status = self.ask("SHOW SLAVE STATUS")
        return str(status[0]["Gtid_IO_Pos"]) if status else ""

    def catch_up(self, source: Server, timeout: float = PATIENCE) -> None:
        """Wait until all that `source` has written so far is here. Raises `ServerError` when it does not come."""
        self._wait_for(source.position, timeout)

    def apply(self) -> None:
        """Wait until all that has been received is applied. Raises `ServerError` when it is not."""
        self._wait_for(self.received)

    def _wait_for(self, position: str, timeout: float = PATIENCE) -> None:
        if position and self.value(f"MASTER_GTID_WAIT('{position}', {timeout:g})") != 0:
            raise ServerError(f"{self.name} has not reached {position}: {self.replication()}; {self.log()}")

    def replication(self) -> str:
        """`"Yes/Yes"` when both of its threads run, otherwise with the errors; empty when it follows nobody."""
        rows = self.ask("SHOW SLAVE STATUS")
        columns = ("Last_IO_Error", "Last_SQL_Error")
        return " ".join(
            part
            for row in rows
            for part in (f"{row['Slave_IO_Running']}/{row['Slave_SQL_Running']}", *(row[column] for column in columns))
            if part
        )

    def connections(self, user: str = LOGIN["user"]) -> int:
        """How many connections clients hold here at this moment."""
        return int(self.value(f"(SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{user}')"))

    def kill_connections(self, user: str = LOGIN["user"]) -> None:
        """End every connection of a user, as an operator does who cannot make a client let go."""
        self.ask(f"KILL USER '{user}'")

    def opened(self) -> int:
        """Connections made here since it started, ours for orders included."""
        return int(self.ask("SHOW GLOBAL STATUS LIKE 'Connections'")[0]["Value"])
