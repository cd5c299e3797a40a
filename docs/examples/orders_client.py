"""A part of an application, as it might be: it asks another Service for orders."""

from typing import Any, Self

import aiohttp

import headlessconn
from headlessconn.adapters.aiohttp import HeadlessConnector


class Orders:
    def __init__(self, url: str, client: headlessconn.Client | None = None) -> None:
        self._session = aiohttp.ClientSession(url, connector=HeadlessConnector(client))

    async def get(self, number: int) -> Any:
        async with self._session.get(f"/v1/orders/{number}") as response:
            response.raise_for_status()
            return await response.json()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
