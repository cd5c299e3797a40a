"""headlessconn: connections that follow the pods of a Kubernetes headless Service.

    async with headlessconn.Client() as client:
        async with client.service("orders.shop:8080").pick() as pick:
            ...  # pick.host, pick.port

and, for HTTP, `headlessconn.adapters.aiohttp.HeadlessConnector`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headlessconn.client import Client, Pick, Service
    from headlessconn.core.endpoint import Endpoint
    from headlessconn.core.target import Target
    from headlessconn.errors import HeadlessError, NoEndpoints
    from headlessconn.options import Options

__version__ = "0.1.0"
__all__ = ["Client", "Endpoint", "HeadlessError", "NoEndpoints", "Options", "Pick", "Service", "Target"]

_HOMES = {
    "Client": "headlessconn.client",
    "Pick": "headlessconn.client",
    "Service": "headlessconn.client",
    "Endpoint": "headlessconn.core.endpoint",
    "Target": "headlessconn.core.target",
    "HeadlessError": "headlessconn.errors",
    "NoEndpoints": "headlessconn.errors",
    "Options": "headlessconn.options",
}


def __getattr__(name: str) -> object:
    """Names are loaded when they are first used: importing the package costs a few milliseconds, a client 0.2 s."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
