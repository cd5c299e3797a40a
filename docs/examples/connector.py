"""The aiohttp connector: as it is, with settings, with names that are not the cluster's."""

from typing import Any

import aiohttp

import headlessconn
from headlessconn.adapters.aiohttp import HeadlessConnector


async def simply(url: str = "http://orders.shop:8080/v1/orders") -> str:
    async with aiohttp.ClientSession(connector=HeadlessConnector()) as session:
        async with session.get(url) as response:
            return await response.text()


async def with_settings(url: str = "http://orders.shop:8080/v1/orders", **dns: Any) -> str:
    """Settings belong to a client. All arguments of TCPConnector are there too."""
    async with headlessconn.Client(refresh_max=1.0, **dns) as client:
        connector = HeadlessConnector(client, limit=200)
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(url) as response:
                return await response.text()


async def with_targets(
    url: str = "http://orders/v1/orders", target: str = "static:///10.0.0.1:80,10.0.0.2:80"
) -> str:
    """A host as the URLs have it, and the target that it stands for."""
    connector = HeadlessConnector(targets={"orders": target})
    async with aiohttp.ClientSession(connector=connector) as session:
        async with session.get(url) as response:
            return await response.text()
