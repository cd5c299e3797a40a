"""What headlessconn is tested with, for your own tests: a cluster in this process, with real DNS and real pods.

    async with EmbeddedCluster() as cluster:
        orders = await cluster.service("orders", pods=3)
        ...

`Zone` is the DNS server and `Pod` one server, each usable alone. In pytest use the fixture `headless_cluster`
(`headlessconn.testing.plugin`). Nothing here imports the rest of headlessconn: any client can be tested with it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headlessconn.testing.cluster import EmbeddedCluster, EmbeddedService
    from headlessconn.testing.pod import Pod
    from headlessconn.testing.zone import Zone

__all__ = ["EmbeddedCluster", "EmbeddedService", "Pod", "Zone"]

# Loaded when first asked for: pytest imports this package in every run, on behalf of the plugin.
_HOMES = {"EmbeddedCluster": "cluster", "EmbeddedService": "cluster", "Pod": "pod", "Zone": "zone"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
