"""Two pods, then three, then one: a small cluster, and a client that follows its pods."""

import asyncio
from collections import Counter

import aiohttp

import headlessconn
from headlessconn.adapters.aiohttp import HeadlessConnector
from headlessconn.testing import EmbeddedCluster


async def ask(session: aiohttp.ClientSession, url: str, times: int = 300) -> dict[str, int]:
    """Who answers? Each pod of the embedded cluster says its name."""
    names: Counter[str] = Counter()
    for _ in range(times):
        async with session.get(url) as response:
            names[(await response.json())["pod"]] += 1
    return dict(sorted(names.items()))


async def main() -> None:
    async with EmbeddedCluster(ttl=1) as cluster:  # a DNS server and pods, on loopback
        orders = await cluster.service("orders", pods=2)

        client = headlessconn.Client(**cluster.resolver)  # in a pod: Client()
        connector = HeadlessConnector(client)
        async with client, aiohttp.ClientSession(connector=connector) as session:
            print("two pods:  ", await ask(session, orders.url))

            await orders.add()  # kubectl scale --replicas=3
            await client.service(orders.target).ready(min_endpoints=3)
            print("three pods:", await ask(session, orders.url))
            print(client.service(orders.target).explain())

            await orders.scale(1)  # kubectl scale --replicas=1
            print("one pod:   ", await ask(session, orders.url))


if __name__ == "__main__":
    asyncio.run(main())
