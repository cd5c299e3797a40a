"""What the `host=` of a MySQL pool means: a Service to follow, or a place that is the library's business alone."""

from __future__ import annotations

import os
from typing import Any, Literal

from headlessconn.adapters._routes import HOSTS, PASS, Routes, _HostsFile, _is_address
from headlessconn.client import Client, Service
from headlessconn.core.target import Target
from headlessconn.errors import OptionError, TargetError
from headlessconn.options import Options

PORT = 3306

OPTIONS = Options(refresh_max=1.0, rebalance_over=3.0)
"""Of a client that an adapter makes for itself.

DNS is asked every second, not every five, since a database's Services say who takes writes and who has left, and a
program has few of them. A replica has caught up before it is ready, so it needs no gentle start as a pod with a cold
cache does (30 s), and processes hear of it at moments of their own.
"""

CONNECT_TIMEOUT = 2.5
"""Seconds for TCP to a pod of somebody who waits for a connection, unless the application says otherwise. One lost SYN,
which the kernel repeats after 1 s, is forgiven."""


async def service_of(
    service: str | Target | Service | None, host: str | None, port: int | None, client: Client
) -> Service | Literal["pass"]:
    """The service to follow, or PASS: leave it to the library. `service` names it, else `host` and `port` do."""
    if isinstance(service, Service):
        return service
    if service is not None:
        return client.service(with_port(Target.parse(service)))
    if not host:
        return PASS  # the library's default: this machine
    port = port or PORT
    return await Routes(client, () if _is_plain(host) else [f"{host}:{port}"]).decide(host, port)


def is_off() -> bool:
    """Whether the environment says that nothing is to be followed."""
    return os.environ.get("HEADLESSCONN", "").lower() in ("off", "0", "false", "no")


def place_of(service: str | Target | Service) -> dict[str, Any]:
    """`host` and `port` for the library itself. A static target has none: then it is followed all the same."""
    target = service.target if isinstance(service, Service) else with_port(Target.parse(service))
    return {"host": target.host, "port": target.port or PORT} if target.kind == "dns" else {}


def with_port(target: Target) -> Target:
    """A target without a port means MySQL's, not one that is to be learnt from SRV."""
    if target.kind == "dns" and target.port is None and target.port_name is None:
        return Target.parse(f"{target}:{PORT}")
    return target


def name_to_verify(target: Target, given: str | None, is_wanted: bool) -> str:
    """Whom the certificates must name. Raises `OptionError` when TLS is wanted and there is no name."""
    name = given or target.host
    if is_wanted and not name:
        raise OptionError("server_hostname", f"{target} has no name to verify", 'server_hostname="mysql-read.data"')
    return name


def _is_plain(host: str) -> bool:
    """Whether DNS would not be asked about it."""
    if host == "localhost" or host.endswith(".localhost") or _is_address(host) or host in _HostsFile(HOSTS):
        return True
    try:
        Target.parse(f"{host}:{PORT}")
    except TargetError:
        return True
    return False
