"""headlessconn for threads: the same clients, services, picks and pools, without an event loop.

with headlessconn.sync.Client() as client:
    with client.service("orders.shop:8080").pick() as pick:
        ...  # pick.host, pick.port
"""

from headlessconn.errors import NoEndpoints
from headlessconn.sync.client import Client, Service
from headlessconn.sync.pick import Pick
from headlessconn.sync.pool import Pool, PoolSnapshot

__all__ = ["Client", "NoEndpoints", "Pick", "Pool", "PoolSnapshot", "Service"]
