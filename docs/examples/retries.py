"""Retries and hedging: an exchange of your own protocol, and what to say to the connector for HTTP."""

import asyncio
from typing import Any

import aiohttp
from yarl import URL

import headlessconn
from headlessconn.adapters.aiohttp import HeadlessConnector


class Busy(Exception):
    """The server will not answer this now."""


async def ask(pick: headlessconn.Pick, question: bytes = b"PING") -> str:
    """One whole exchange with one pod: connect, ask, read, hang up."""
    async with pick.connecting():  # what fails in here was not sent
        reader, writer = await asyncio.open_connection(pick.host, pick.port)
    try:
        writer.write(question + b"\r\n")
        line = await reader.readuntil(b"\r\n")
        if line.startswith(b"-BUSY"):
            pick.responded(bad=True)  # another pod may do better
            raise Busy(line.decode().strip())
        return line.decode().strip()
    finally:
        writer.close()


async def once(service: headlessconn.Service) -> str:
    """Goes to another pod only as long as nothing was sent."""
    return await service.run(ask, deadline=2.0)


async def until_answered(service: headlessconn.Service) -> str:
    """Asking twice does no harm, so it is asked again when a pod breaks, is in trouble, or falls silent."""
    return await service.run(ask, repeatable=True, deadline=2.0)


async def soon(service: headlessconn.Service) -> str:
    """The slowest of twenty gets company: whichever pod answers first."""
    return await service.run(ask, repeatable=True, hedge_after="p95")


def hedging_session(client: headlessconn.Client, **arguments: Any) -> aiohttp.ClientSession:
    """A GET that the pod leaves unanswered for 50 ms is sent to another one as well."""
    return aiohttp.ClientSession(connector=HeadlessConnector(client, hedge_after=0.05, lane=kind, **arguments))


def kind(method: str, url: URL) -> str:
    """Searches by how much they search; all else by its first word."""
    first = url.path.split("/")[1]
    return f"{method} {first} {url.query.get('pages', '')}" if first == "search" else f"{method} {first}"


async def place_order(session: aiohttp.ClientSession, url: str, key: str) -> int:
    """A POST that the server recognises when it comes twice."""
    async with session.post(url, json={"item": 42}, headers={"Idempotency-Key": key}) as response:
        return response.status
