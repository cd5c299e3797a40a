"""The resolver of the demo's plain aiohttp session: as any other, but it asks the embedded cluster's DNS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
from aiohttp.abc import AbstractResolver, ResolveResult

from headlessconn._runtime.resolvconf import Server


class ClusterResolver(AbstractResolver):
    """Asks one DNS server, by way of the search list. aiohttp calls it when it wants a new connection, and only then.

    by_srv: learn each pod's port, too, from SRV records of the port named `http`.
    """

    def __init__(self, nameserver: str, search: Sequence[str], ndots: int, *, by_srv: bool) -> None:
        server = Server.parse(nameserver)
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = [server.address]
        self._resolver.port = server.port
        self._resolver.search = [dns.name.from_text(domain) for domain in search]
        self._resolver.ndots = ndots
        self._by_srv = by_srv

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            if not self._by_srv:
                return [_result(host, address, port) for address in await self._addresses(host)]
            services = list(await self._resolver.resolve(f"_http._tcp.{host}", "SRV", search=True))
            found = await asyncio.gather(*(self._addresses(str(service.target)) for service in services))
        except dns.exception.DNSException as error:
            raise OSError(None, str(error)) from error
        return [
            _result(host, address, service.port)
            for service, addresses in zip(services, found, strict=True)
            for address in addresses
        ]

    async def _addresses(self, host: str) -> list[str]:
        answer = await self._resolver.resolve(host, dns.rdatatype.A, search=True)
        return [record.address for record in answer]

    async def close(self) -> None:
        """Nothing is kept open between questions."""


def _result(host: str, address: str, port: int) -> ResolveResult:
    return ResolveResult(
        hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
    )
