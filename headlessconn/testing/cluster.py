"""A whole small cluster in this process: the DNS server, Services, and pods that come and go as Kubernetes has it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Self

from aiohttp import web

from headlessconn.testing.pod import Handler, Pod
from headlessconn.testing.zone import Listed, Port, Zone

__all__ = ["EmbeddedCluster", "EmbeddedService"]

# Below the range from which Linux (32768) and macOS (49152) give ports to outgoing connections: there a client's own
# connection could hold a pod's port while the pod is down, and a dial to the dead pod could even reach itself.
PORTS = range(20000, 32000)


class EmbeddedService:
    """A Service and its pods, made by `EmbeddedCluster.service`. DNS and pods change in the order Kubernetes has."""

    def __init__(
        self,
        cluster: EmbeddedCluster,
        name: str,
        namespace: str,
        *,
        port: int | None,
        port_name: str,
        ttl: float | None,
        headless: bool,
        stateful: bool,
        handler: Handler | None,
        app: Callable[[Pod], web.Application] | None,
        ssl_context: ssl.SSLContext | None,
        keepalive_timeout: float,
    ) -> None:
        self.name = f"{name}.{namespace}"
        self.fqdn = f"{name}.{namespace}.svc.{cluster.zone.domain}."
        self.port = port
        self.port_name = port_name
        self._cluster = cluster
        self._short_name = name
        self._ttl = ttl
        self._virtual = None if headless else cluster._next_virtual()
        self._stateful = stateful
        self._handler = handler
        self._app = app
        self._ssl = ssl_context
        self._keepalive_timeout = keepalive_timeout
        self._every: list[Pod] = []
        self._listed: list[Pod] = []

    def __repr__(self) -> str:
        return f"<EmbeddedService {self.target}: {len(self.pods)} pods, {len(self._listed)} in DNS>"

    # --- what it is called

    @property
    def target(self) -> str:
        """`"orders.shop:20123"`; `"orders.shop:http"` where every pod has a port of its own, published by SRV."""
        return f"{self.name}:{self.port or self.port_name}"

    @property
    def url(self) -> str:
        """`"http://orders.shop:20123"`; without a port where the pods' ports differ: a URL cannot name one."""
        port = f":{self.port}" if self.port else ""
        return f"http{'s' if self._ssl else ''}://{self.name}{port}"

    # --- who serves it

    @property
    def pods(self) -> tuple[Pod, ...]:
        """The pods that run and are in DNS, oldest first."""
        return tuple(pod for pod in self._listed if pod.is_running)

    @property
    def listed(self) -> tuple[Pod, ...]:
        """The pods in DNS, dead or alive."""
        return tuple(self._listed)

    @property
    def every(self) -> tuple[Pod, ...]:
        """Every pod there ever was, oldest first; the gone ones keep their counters."""
        return tuple(self._every)

    @property
    def served(self) -> dict[str, int]:
        """Requests served so far, by pod name, of every pod there ever was."""
        return {pod.name: pod.served for pod in self._every}

    def pod(self, name: str) -> Pod:
        for pod in reversed(self._every):
            if pod.name == name:
                return pod
        raise LookupError(f"{self.name} has no pod {name!r}; there were {', '.join(self.served) or 'none'}")

    # --- what happens to it

    async def add(self, n: int = 1, *, listed: bool = True) -> tuple[Pod, ...]:
        """Start `n` pods and put them into DNS, which is where readiness shows. Returns the new ones."""
        new = [await self._start_pod() for _ in range(n)]
        if listed:
            self._listed += new
            self._publish()
        return tuple(new)

    async def remove(
        self,
        pod: Pod,
        *,
        grace: float = 0.2,
        close_listener_at_once: bool = False,
        dns_lag: float = 0.0,
        finish: float = 5.0,
    ) -> None:
        """Delete a pod: out of DNS and SIGTERM at the same moment; returns when it is gone (`Pod.drain`).

        dns_lag: seconds the record outlives SIGTERM. In a cluster that is milliseconds without caches and up to the
        cache's time with them.
        """
        if dns_lag <= 0:
            self.unlist(pod)
            await pod.drain(grace, close_listener_at_once=close_listener_at_once, finish=finish)
            return
        unlisting = asyncio.get_running_loop().call_later(dns_lag, self.unlist, pod)
        try:
            await pod.drain(grace, close_listener_at_once=close_listener_at_once, finish=finish)
            if (left := unlisting.when() - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(left)
        finally:
            unlisting.cancel()
            self.unlist(pod)

    async def scale(self, n: int, *, grace: float = 0.2, finish: float = 5.0) -> None:
        """Have `n` pods: new ones are added at once; of too many the last ones go, all at the same time."""
        if n < 0:
            raise ValueError(f"cannot scale {self.name} to {n} pods")
        surplus = self.pods[n:]
        await self.add(n - len(self.pods) if n > len(self.pods) else 0)
        await asyncio.gather(*(self.remove(pod, grace=grace, finish=finish) for pod in surplus))

    async def roll(
        self,
        *,
        surge: int = 1,
        grace: float = 0.2,
        close_listener_at_once: bool = False,
        dns_lag: float = 0.0,
        finish: float = 5.0,
    ) -> None:
        """Replace every pod as a Deployment does: `surge` new ones up and in DNS, then as many old ones out.

        A stateful Service rolls as a StatefulSet does: from the highest number down, the old pod out before the new one
        comes.
        The other arguments are those of `remove`.
        """
        if surge < 1:
            raise ValueError(f"cannot roll {self.name} with surge {surge}: at least one new pod must be allowed")

        async def leave(pod: Pod) -> None:
            await self.remove(
                pod, grace=grace, close_listener_at_once=close_listener_at_once, dns_lag=dns_lag, finish=finish
            )

        old = self.pods
        if self._stateful:
            for pod in reversed(old):
                await leave(pod)
                await self.add()
            return
        for first in range(0, len(old), surge):
            leaving = old[first : first + surge]
            await self.add(len(leaving))
            await asyncio.gather(*map(leave, leaving))

    def crash(self, pod: Pod) -> None:
        """Kill a pod. DNS goes on listing it, as a cluster's does until a probe notices; `pod.start()` restarts it."""
        pod.kill()

    def unlist(self, pod: Pod) -> None:
        """Take a pod out of DNS, as a failed readiness probe does; the pod serves on."""
        if pod in self._listed:
            self._listed.remove(pod)
            self._publish()

    def list(self, pod: Pod) -> None:
        """Put a pod (back) into DNS."""
        if pod not in self._listed:
            self._listed.append(pod)
            self._publish()

    async def _start_pod(self) -> Pod:
        if not self._cluster.is_running:
            raise RuntimeError(
                f"no pod of {self.name} can start: the cluster does not run (enter it with `async with`)"
            )
        taken = {pod.name for pod in self._every if not self._stateful or pod.is_running or pod in self._listed}
        names = (f"{self._short_name}-{number}" for number in range(len(self._every) + 1))
        name = next(name for name in names if name not in taken)
        for address, port in self._cluster._places(self.port):
            pod = Pod(
                *(name, address, port),
                handler=self._handler,
                app=self._app,
                ssl_context=self._ssl,
                keepalive_timeout=self._keepalive_timeout,
            )
            self._every.append(pod)
            try:
                await pod.start()
            except OSError:  # somebody else has that port on that address: the next address will do
                self._every.remove(pod)
                await pod.stop()
                continue
            return pod
        raise OSError(f"no loopback address left for a pod of {self.name}")

    def _publish(self) -> None:
        if self._stateful:
            self._listed.sort(key=lambda pod: int(pod.name.rpartition("-")[2]))
        listed = [
            Listed(pod.address, (Port(self.port_name, pod.port),), pod.name if self._stateful else None)
            for pod in self._listed
        ]
        if self._virtual is None:
            self._cluster.zone.headless(self.name, listed, ttl=self._ttl)
        else:
            own = Port(self.port_name, self.port or 80)
            self._cluster.zone.cluster_ip(self.name, (self._virtual,), (own,), listed, ttl=self._ttl)


class EmbeddedCluster:
    """A cluster on loopback, for tests and demonstrations. Everything is in this process and ends with `async with`.

    domain: the cluster's zone.
    namespace: where the client is thought to run; it heads the search list.
    ttl: whole seconds, of every record without its own; 5 is CoreDNS's default.
    seed: of the order in which DNS lists the pods.
    one_address: every pod is on 127.0.0.1, with a port of its own, published by SRV. Otherwise each has an address of
        its own, 127.0.0.2 and up, and all share one port. `None` finds out: macOS has only the one address.

        async with EmbeddedCluster() as cluster:
            orders = await cluster.service("orders", pods=3)
            client = headlessconn.Client(**cluster.resolver)
            ...
            await orders.roll(surge=1, grace=0.2)
            orders.crash(orders.pods[0])
            with cluster.zone.trouble(rcode="SERVFAIL"):
                ...
    """

    ndots = 5

    def __init__(
        self,
        domain: str = "cluster.local",
        *,
        namespace: str = "shop",
        ttl: float = 5.0,
        seed: int = 0,
        one_address: bool | None = None,
    ) -> None:
        self.zone = Zone(domain, ttl=ttl, seed=seed)
        self.zone.namespace(namespace)
        self.namespace = namespace
        self.search = (f"{namespace}.svc.{self.zone.domain}", f"svc.{self.zone.domain}", self.zone.domain)
        self.one_address = one_address
        self.is_running = False
        self._port: int | None = None
        self._last_address = 1
        self._last_virtual = 0
        self._services: dict[str, EmbeddedService] = {}

    def __repr__(self) -> str:
        return f"<EmbeddedCluster {self.zone!r} {list(self._services.values())}>"

    @property
    def nameserver(self) -> str:
        """`"127.0.0.1:PORT"` of the cluster's DNS."""
        return self.zone.nameserver

    @property
    def resolver(self) -> dict[str, Any]:
        """What a pod's resolv.conf would say, as keyword arguments: `nameservers`, `search`, `ndots`."""
        return {"nameservers": [self.nameserver], "search": list(self.search), "ndots": self.ndots}

    @property
    def services(self) -> tuple[EmbeddedService, ...]:
        return tuple(self._services.values())

    async def service(
        self,
        name: str,
        *,
        namespace: str | None = None,
        pods: int = 1,
        port_name: str = "http",
        port: int | None = None,
        ttl: float | None = None,
        headless: bool = True,
        stateful: bool = False,
        handler: Handler | None = None,
        app: Callable[[Pod], web.Application] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        keepalive_timeout: float = 75.0,
    ) -> EmbeddedService:
        """Create a Service and start its pods.

        pods: how many; 0 is a Service that exists and has nobody, which DNS answers with NXDOMAIN.
        port: of all the pods; `None` is one free port for the whole cluster. With `one_address` it is not used.
        ttl: seconds, of this Service's records; `None` is the cluster's.
        headless: `False` publishes one virtual address, as a ClusterIP has. Nothing listens there.
        stateful: pods are called `db-0`, `db-1` …, by DNS too, and a replaced one gets its name again.
        handler, app, ssl_context, keepalive_timeout: of each pod, see `Pod`.
        """
        service = EmbeddedService(
            self,
            name,
            namespace or self.namespace,
            port=None if self._has_one_address() else port or self._shared_port(),
            port_name=port_name,
            ttl=ttl,
            headless=headless,
            stateful=stateful,
            handler=handler,
            app=app,
            ssl_context=ssl_context,
            keepalive_timeout=keepalive_timeout,
        )
        if service.name in self._services:
            raise ValueError(f"this cluster has a Service {service.name} already")
        if not self.is_running:
            raise RuntimeError(f"no Service {service.name} yet: enter the cluster with `async with` first")
        self._services[service.name] = service
        await service.add(pods)
        return service

    async def start(self) -> None:
        """What `async with` does first. Does nothing when the cluster runs."""
        await self.zone.start()
        self.is_running = True

    async def stop(self) -> None:
        """What `async with` does last: every pod is stopped, then DNS. Nothing is left, no task and no socket."""
        self.is_running = False
        try:
            await asyncio.gather(*(pod.stop() for service in self.services for pod in service.every))
        finally:
            await self.zone.stop()

    def kill(self) -> None:
        """Close every port at once and wait for nothing: for whoever finds the cluster running after its loop's end."""
        self.is_running = False
        for service in self.services:
            for pod in service.every:
                pod.kill()
        self.zone.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def _has_one_address(self) -> bool:
        if self.one_address is None:
            self.one_address = not _is_free("127.0.0.2", 0)
        return self.one_address

    def _shared_port(self) -> int:
        """One port that is free on the first addresses; later ones are checked by binding, and left out if taken."""
        if self._port is None:
            first = [f"127.0.0.{last}" for last in range(2, 12)]
            for port in random.SystemRandom().sample(PORTS, 200):
                if all(_is_free(address, port) for address in first):
                    self._port = port
                    break
            else:
                raise OSError(f"no port in {PORTS} is free on 127.0.0.2 to 127.0.0.11")
        return self._port

    def _places(self, port: int | None) -> Iterator[tuple[str, int]]:
        """Where the next pod may listen. An address is never given twice: a new pod is not taken for an old one."""
        if port is None:
            for candidate in random.SystemRandom().sample(PORTS, 200):
                yield "127.0.0.1", candidate
            return
        while self._last_address < 0xFFFE:
            self._last_address += 1
            yield f"127.0.{self._last_address >> 8}.{self._last_address & 0xFF}", port

    def _next_virtual(self) -> str:
        self._last_virtual += 1
        return f"10.96.{self._last_virtual >> 8}.{self._last_virtual & 0xFF}"


def _is_free(address: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
