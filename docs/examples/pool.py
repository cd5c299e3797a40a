"""A pool of long-lived connections, for whatever you speak: here a little of Redis' protocol."""

import asyncio
from typing import Any

import headlessconn
from headlessconn.pool import Pool


class Connection:
    """One connection to one pod."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, *words: str) -> str:
        self.writer.write(" ".join(words).encode() + b"\r\n")
        answer = await self.reader.readuntil(b"\r\n")
        return answer.decode().strip()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def connect(endpoint: headlessconn.Endpoint) -> Connection:
    """To this pod and no other. What fails here is tried on another one."""
    reader, writer = await asyncio.open_connection(endpoint.address, endpoint.port)
    connection = Connection(reader, writer)
    try:
        answer = await connection.ask("AUTH", "secret")
        if answer != "+OK":
            raise PermissionError(f"{endpoint} says {answer}")
    except BaseException:
        writer.close()
        raise
    return connection


async def works(connection: Connection) -> bool:
    return await connection.ask("PING") == "+PONG"


async def clean(connection: Connection) -> None:
    await connection.ask("RESET")


def vanished(connection: Connection) -> None:
    """Its pod gives no TCP connection any more: let whoever reads from it go on."""
    connection.writer.transport.abort()


def pool_of(service: headlessconn.Service, **settings: Any) -> Pool[Connection]:
    return service.pool(open=connect, check=works, reset=clean, on_silent=vanished, **settings)


async def main() -> None:
    async with headlessconn.Client() as client:
        async with pool_of(client.service("cache.shop:redis"), max_size=20) as pool:
            async with pool.acquire() as connection:
                print(await connection.ask("GET", "greeting"))
            print(pool.snapshot)


async def by_hand(pool: Pool[Connection]) -> str:
    """Where a block does not fit: give it back in any case."""
    connection = await pool.acquire(timeout=5.0)
    broken = True
    try:
        answer = await connection.ask("PING")
        broken = False
        return answer
    finally:
        pool.release(connection, broken=broken)


if __name__ == "__main__":
    asyncio.run(main())
