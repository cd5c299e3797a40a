"""Which hosts of an application are ours to balance. First, do no harm.

Named targets are ours. Of all other hosts only names that DNS answers from inside the cluster's zone are; IP literals,
localhost, names in /etc/hosts, names outside the zone, and names for which DNS has never answered go the plain
library's way, untouched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Final, Literal

from cachetools import TLRUCache

from headlessconn.client import Client, Service
from headlessconn.core.target import Target
from headlessconn.errors import TargetError

log = logging.getLogger("headlessconn")

PASS: Final = "pass"
OUTSIDE_FOR = 300.0  # seconds a host that is not the cluster's stays so: zones do not move
SILENT_FOR = 5.0  # seconds until DNS is asked again about a host for which it said nothing, or "nobody"
VERDICTS = 4096
HOSTS = "/etc/hosts"


class Routes:
    """The verdicts of one adapter. `targets`: names to balance always, or a mapping from hosts to targets."""

    def __init__(self, client: Client, targets: Iterable[str] | Mapping[str, str] = ()) -> None:
        self._client = client
        self._off = os.environ.get("HEADLESSCONN", "").lower() in ("off", "0", "false", "no")
        self._named: dict[tuple[str, int | None], Target] = {}
        if isinstance(targets, str):
            raise TargetError(targets, "targets= takes several, not a single string", 'targets=["orders.shop:8080"]')
        pairs = targets.items() if isinstance(targets, Mapping) else ((text, text) for text in targets)
        for host, text in pairs:
            target = Target.parse(text)
            named = target if host == text else Target.parse(host)
            if named.kind != "dns":
                raise TargetError(text, "it has no host that a URL could name", '{"orders": "static:///10.0.0.1:80"}')
            self._named[named.host, named.port] = target
        self._passed: TLRUCache[tuple[str, int], float] = TLRUCache(VERDICTS, lambda _, seconds, now: now + seconds)
        self._warned: set[str] = set()
        self._hosts = _HostsFile(HOSTS)

    async def decide(self, host: str, port: int) -> Service | Literal["pass"]:
        """The service behind a host and port of the application, or PASS."""
        if self._off or (host, port) in self._passed:
            return PASS
        name = host.removesuffix(".")
        named = self._named.get((name, port)) or self._named.get((name, None))
        if named is not None:
            if named.kind == "dns" and named.port is None and named.port_name is None:
                named = Target("dns", named.host, named.absolute, port=port, text=f"{named}:{port}")
            return await self._unless_silent(self._client.service(named), host, port)
        target = self._candidate(host, port)
        if target is None:
            return self._pass(host, port, OUTSIDE_FOR)
        service = self._client.service(target)
        driver = service.driver()
        await driver.first_word()
        answer = driver.engine.answer
        if answer is None:
            return await self._unless_silent(service, host, port)
        if answer.kind == "records" and answer.outside:
            return self._pass(host, port, OUTSIDE_FOR, target)
        if answer.kind == "nobody" and (answer.outside or "." not in host):
            # A single label may be a host of the node's own domain as well as a Service without a pod: not ours until
            # it was seen in the zone. Name it in `targets=` and it is.
            return self._pass(host, port, SILENT_FOR, target)
        return service

    async def _unless_silent(self, service: Service, host: str, port: int) -> Service | Literal["pass"]:
        """If DNS has never answered us, the plain library may know better: its resolver may go another way. With
        nameservers of our own it would ask others than it was told to."""
        if self._client.options.nameservers is not None or service.target.kind != "dns":
            return service
        driver = service.driver()
        await driver.first_word()
        if driver.engine.answer is not None:
            return service
        if host not in self._warned:
            self._warned.add(host)
            log.warning(
                "%s: DNS has never answered (%s), so requests go the plain way, unbalanced; asked again in %g s",
                service.target,
                driver.engine.trouble,
                SILENT_FOR,
            )
        return self._pass(host, port, SILENT_FOR)

    def _candidate(self, host: str, port: int) -> Target | None:
        """The target that a host may mean, if it may be the cluster's at all. Asks nobody."""
        if host == "localhost" or host.endswith(".localhost") or _is_address(host) or host in self._hosts:
            return None
        try:
            target = Target.parse(f"{host}:{port}")
        except TargetError:
            return None
        search = self._client.hub().resolver.conf.setting().search
        return target if search.may_be_inside(target.host, target.absolute) else None

    def _pass(self, host: str, port: int, seconds: float, target: Target | None = None) -> Literal["pass"]:
        self._passed[host, port] = seconds
        if target is not None:
            self._client.hub().forget(target)
        return PASS


class _HostsFile:
    """The names in /etc/hosts, read again when the file changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: frozenset[str] = frozenset()

    def __contains__(self, host: str) -> bool:
        try:
            found = os.stat(self._path)
            stamp = (found.st_mtime_ns, found.st_ino)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as lines:
                    entries = [line.partition("#")[0].split()[1:] for line in lines]
                self._names = frozenset(name.lower() for names in entries for name in names)
                self._stamp = stamp
        except OSError:
            return False
        return host.removesuffix(".") in self._names


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
