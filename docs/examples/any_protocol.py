"""Any protocol: one pod for one request, or one connection to one of the pods."""

import asyncio

import headlessconn


async def ping(service: headlessconn.Service) -> str:
    """One request, one pick. How the block ends is what the balancer learns."""
    async with service.pick() as pick:
        reader, writer = await asyncio.open_connection(pick.host, pick.port)
        try:
            writer.write(b"PING\r\n")
            line = await reader.readuntil(b"\r\n")
            pick.responded(bad=line.startswith(b"-"))  # its latency is taken here
            return line.decode().strip()
        finally:
            writer.close()


async def ping_simply(service: headlessconn.Service) -> str:
    """As asyncio.open_connection, to one of the pods that can be connected to."""
    reader, writer = await service.open_connection()
    try:
        writer.write(b"PING\r\n")
        return (await reader.readuntil(b"\r\n")).decode().strip()
    finally:
        writer.close()


async def main() -> None:
    async with headlessconn.Client() as client:
        cache = client.service("cache.shop:redis")  # the port called "redis", by SRV
        await cache.ready()
        print(await ping(cache))


if __name__ == "__main__":
    asyncio.run(main())
