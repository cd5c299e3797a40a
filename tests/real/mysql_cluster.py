"""A MariaDB primary and its replicas as an operator runs them: a StatefulSet, and two Services that follow the roles.

    mysql-0.mysql.data.svc.cluster.local    each pod under its own name, whatever its address
    mysql-primary.data.svc.cluster.local    who takes writes
    mysql-read.data.svc.cluster.local       who is read from: the replicas

`on_loopback` needs no root; names are answered by `cluster.resolver` only, not by the system. `in_namespaces` runs
the same pods in a `Lab`, whose processes resolve the names as in a cluster. `tests.real.mariadb` shows both in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import trustme

from headlessconn.testing.zone import Zone
from tests.real.lab import DNS, Lab, Node
from tests.real.loopback import Loopback
from tests.real.mariadb import LOGIN, Place, Server
from tests.real.nameserver import Nameserver, obey

NAMESPACE = "data"
PODS, PRIMARY, READ = f"mysql.{NAMESPACE}", f"mysql-primary.{NAMESPACE}", f"mysql-read.{NAMESPACE}"
ZONE = "svc.cluster.local"
SEARCH = [f"{NAMESPACE}.{ZONE}", ZONE, "cluster.local"]
TTL = 5


class Directory(Protocol):
    """Who answers the names: a lab's `Nameserver`, or one on a thread of ours."""

    def headless(
        self, service: str, pods: Any, *, port_name: str = ..., hostnames: Any = ..., ttl: float | None = ...
    ) -> None: ...


class MySQLCluster:
    """Servers, their roles, and what DNS says of them. The primary is `mysql-0` at first, the replicas come after it.

    `place` gives each pod an address that none had before. Everything here blocks; call it from a thread beside a loop.
    """

    def __init__(
        self, folder: Path, place: Callable[[str], Place], port: int, dns: Directory, *, names_resolve: bool
    ) -> None:
        self.port = port
        self.dns = dns
        self.login: dict[str, Any] = dict(LOGIN)
        self.nameserver = ""
        self._folder = folder
        self._place = place
        self._names_resolve = names_resolve
        self._tls = _certificates(folder)
        self.servers: dict[str, Server] = {}
        self.primary = self._server()
        self.replicas: list[Server] = []
        self._unready: set[str] = set()

    def __repr__(self) -> str:
        return f"<MySQLCluster {self.primary!r}, replicas {self.replicas!r}>"

    # --- how clients find it

    @property
    def write(self) -> str:
        """The target of who takes writes."""
        return f"{PRIMARY}:{self.port}"

    @property
    def read(self) -> str:
        """The target of the replicas."""
        return f"{READ}:{self.port}"

    def pod(self, server: Server) -> str:
        """The target of one pod, by its StatefulSet name."""
        return f"{server.name}.{PODS}:{self.port}"

    @property
    def ca(self) -> Path:
        """The CA's certificate. Servers have certificates for the names of the Services and of their pods."""
        return self._tls / "ca.pem"

    @property
    def resolver(self) -> dict[str, Any]:
        """What a pod's resolv.conf would say, as keyword arguments of `Options`."""
        return {"nameservers": [self.nameserver], "search": list(SEARCH), "ndots": 5}

    # --- what happens to it

    def start(self, replicas: int) -> None:
        """The primary and so many replicas, caught up, and in DNS."""
        new = [self._server() for _ in range(replicas)]
        for server in self.servers.values():
            server.launch()
        self.primary.wait_ready()
        self.primary.promote()
        self._publish_pods()
        for server in new:
            server.wait_ready()
            self._attach(server)
        self.replicas += new
        self._all_caught_up()
        self.publish()

    def add_replica(self, *, listed: bool = True) -> Server:
        """One more pod: started, attached by GTID, caught up; then ready, which is when DNS lists it."""
        server = self._server()
        server.start()
        self._publish_pods()
        self._attach(server)
        server.catch_up(self.primary)
        self.replicas.append(server)
        if listed:
            self.publish()
        else:
            self._unready.add(server.name)
        return server

    def leave(self, server: Server, *, grace: float = 0.0) -> None:
        """Kubernetes deletes a replica: out of DNS at once; SIGTERM follows `grace` seconds later (a preStop sleep)."""
        self.replicas.remove(server)
        del self.servers[server.name]
        self.publish()
        time.sleep(grace)
        server.stop()

    def crash(self, server: Server) -> None:
        """SIGKILL. DNS goes on listing it, until `unready`."""
        server.crash()

    def unready(self, server: Server) -> None:
        """A failed readiness probe: out of the Services. Its pod name stays."""
        self._unready.add(server.name)
        self.publish()

    def ready(self, server: Server) -> None:
        """Back into the Services."""
        self._unready.discard(server.name)
        self.publish()

    def recreate(self, server: Server) -> None:
        """The pod is deleted and made again: same name, same data, another address. DNS knows once it is ready."""
        server.stop()
        server.place = self._place(server.name)
        server.start()
        self.publish()
        if server is self.primary and not self._names_resolve:
            for replica in self.replicas:  # they knew it by its address
                self._attach(replica)

    def switch_over(
        self, to: Server | None = None, *, dns_lag: float = 0.0, promoted: Callable[[], None] = lambda: None
    ) -> Server:
        """The planned change: the old primary stays up, read-only, and keeps its connections. Returns the new one.

        dns_lag    seconds from promotion until the Services say so; 4.7 s were measured with an operator
        promoted   called when the new primary takes writes
        """
        old, new = self.primary, to or self.replicas[0]
        old.demote()
        new.catch_up(old)
        self._promote(new)
        promoted()
        time.sleep(dns_lag)
        self.publish()
        self._follow_primary()
        self.replicas.append(old)
        self._attach(old)
        self.publish()
        return new

    def fail_over(self, to: Server | None = None, *, dns_lag: float = 0.0) -> Server:
        """The primary has died: the most advanced replica takes over. The dead one is not in the cluster any more."""
        old, new = self.primary, to or max(self.replicas, key=_transactions)
        del self.servers[old.name]
        self._promote(new)
        time.sleep(dns_lag)
        self.publish()
        self._follow_primary()
        return new

    def publish(self) -> None:
        """Tell DNS who has which role."""
        ready = [server for server in self.replicas if server.name not in self._unready]
        self._publish_pods()
        self.dns.headless(READ, self._listed(ready), port_name="mysql")
        self.dns.headless(PRIMARY, self._listed([self.primary]), port_name="mysql")

    # --- what it is built of

    def _server(self) -> Server:
        number = next(number for number in range(100) if f"mysql-{number}" not in self._names())
        name = f"mysql-{number}"
        server = Server(
            name, self._folder / name, self._place(name), port=self.port, server_id=number + 1, tls=self._tls
        )
        self.servers[name] = server
        return server

    def _names(self) -> set[str]:
        """Also those that are gone: a new pod never takes over a dead one's server id."""
        return {path.name for path in self._folder.glob("mysql-*")}

    def _publish_pods(self) -> None:
        servers = [server for server in self.servers.values() if server.is_running]
        names = [server.name for server in servers]
        self.dns.headless(PODS, self._listed(servers), port_name="mysql", hostnames=names)

    def _listed(self, servers: list[Server]) -> list[tuple[str, int]]:
        return [(server.address, self.port) for server in servers]

    def _promote(self, server: Server) -> None:
        server.promote()
        self.replicas.remove(server)
        self.primary = server

    def _follow_primary(self) -> None:
        for replica in self.replicas:
            if replica.is_running:
                self._attach(replica)

    def _attach(self, replica: Server) -> None:
        # By the pod's name, as operators do: mysql-primary leads to the old one until DNS has heard of the new.
        name = f"{self.primary.name}.{PODS}.{ZONE}"
        replica.follow(name if self._names_resolve else self.primary.address, self.port)

    def _all_caught_up(self) -> None:
        for replica in self.replicas:
            replica.catch_up(self.primary)


@contextlib.contextmanager
def on_loopback(replicas: int = 2) -> Iterator[MySQLCluster]:
    """Servers on addresses of 127.0.0.0/8 with one port; DNS at `cluster.nameserver`, on a thread of this process."""
    with Loopback() as loopback, _ZoneOnAThread() as dns:
        cluster = MySQLCluster(loopback.folder, lambda name: loopback.place(), loopback.port, dns, names_resolve=False)
        cluster.nameserver = dns.nameserver
        cluster.start(replicas)
        yield cluster


@contextlib.contextmanager
def in_namespaces(lab: Lab, replicas: int = 2) -> Iterator[MySQLCluster]:
    """The same as pods of a lab; `node(server)` has the faults of the network. Clients run by `lab.client`.

    The lab ends the servers. One cluster a lab.
    """

    def place(name: str) -> Node:
        number = lab.next_number()
        return Node(lab, f"{name}-{number}", f"10.244.2.{number}")

    cluster = MySQLCluster(lab.folder, place, 3306, lab.dns, names_resolve=True)
    cluster.nameserver = DNS
    cluster.start(replicas)
    yield cluster


def node(server: Server) -> Node:
    """The namespace in which a server of a lab runs: `node(server).black_hole(3306)`."""
    assert isinstance(server.place, Node), f"{server} is not in a lab"
    return server.place


def _transactions(replica: Server) -> int:
    """How many transactions it has received: the last part of a GTID such as `0-1-42`."""
    return int(replica.received.rpartition("-")[2] or 0)


def _certificates(folder: Path) -> Path:
    tls = folder / "tls"
    tls.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tls / "ca.pem"))
    names = [f"{service}{suffix}" for service in (PRIMARY, READ, PODS, f"*.{PODS}") for suffix in ("", f".{ZONE}")]
    authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(tls / "server.pem"))
    return tls


class _ZoneOnAThread(Nameserver):
    """The lab's nameserver without its process: for tests whose own loop comes and goes while the servers stay."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="zone", daemon=True)
        self._zone = Zone(ttl=TTL)

    def __enter__(self) -> _ZoneOnAThread:
        self._thread.start()
        self._run(self._zone.start())
        self._zone.namespace(NAMESPACE)
        self.nameserver = self._zone.nameserver
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self._zone.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _tell(self, *order: Any) -> Any:
        async def told() -> Any:
            return obey(self._zone, list(order))

        return self._run(told())
