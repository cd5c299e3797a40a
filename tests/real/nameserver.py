"""The cluster's DNS of a lab: the embedded `Zone`, as a process in the hub's namespace, edited over its stdin.

One JSON object a line asks, one answers. The end of stdin ends it, so it never outlives the lab.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from headlessconn.testing.zone import Listed, Port, Trouble, Zone

PORT = 1053
"""On the hub's loopback, where `Zone` listens. The hub's nftables lead 10.96.0.10:53 here."""

Pods = Iterable[tuple[str, int]]


class Nameserver:
    """The lab's end of the line. Every method returns once the server has done as told."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answer = process.stdin, process.stdout
        self._tell("ready")

    def headless(
        self,
        service: str,
        pods: Pods,
        *,
        port_name: str = "http",
        hostnames: Sequence[str] | None = None,
        ttl: float | None = None,
    ) -> None:
        """Publish the whole set of a headless Service: `headless("orders.shop", [("10.244.1.10", 8080)])`."""
        listed = [(address, port, port_name) for address, port in pods]
        self._tell("headless", service, listed, list(hostnames or ()), ttl)

    def records(self, owner: str, *lines: str) -> None:
        """The records of an absolute name, as `Zone.records` takes them."""
        self._tell("records", owner, lines)

    def trouble(self, name: str | None = None, **what: Any) -> None:
        """Let replies go wrong until `heal`, as `Zone.trouble` describes."""
        self._tell("trouble", name, what)

    def freeze(self) -> None:
        """Go on giving the answers of this moment, as CoreDNS does while the API server is away, until `heal`."""
        self._tell("freeze")

    def heal(self) -> None:
        """End every trouble and freeze."""
        self._tell("heal")

    def queries(self) -> list[tuple[float, str, str, str, str]]:
        """Every question so far: `time.monotonic()`, name, type, transport, who asked."""
        return [tuple(query) for query in self._tell("queries")]

    def _tell(self, *order: Any) -> Any:
        self._ask.write(json.dumps(order).encode() + b"\n")
        self._ask.flush()
        reply = json.loads(self._answer.readline() or '{"error": "it has died; its log says why"}')
        if "error" in reply:
            raise RuntimeError(f"the lab's DNS server: {reply['error']}")
        return reply["done"]


def obey(zone: Zone, order: list[Any]) -> Any:
    match order:
        case ["ready"]:
            return zone.nameserver
        case ["headless", service, listed, hostnames, ttl]:
            names = hostnames or [None] * len(listed)
            pods = [
                Listed(address, (Port(name, port),), hostname)
                for (address, port, name), hostname in zip(listed, names, strict=True)
            ]
            return zone.headless(service, pods, ttl=ttl)
        case ["records", owner, lines]:
            return zone.records(owner, *lines)
        case ["trouble", name, what]:
            assert isinstance(zone.trouble(name, **what), Trouble)
            return None
        case ["freeze"]:
            return zone.freeze()
        case ["heal"]:
            return zone.heal()
        case ["queries"]:
            return [(query.at, query.name, query.type, query.transport, query.client[0]) for query in zone.queries]
    raise ValueError(f"it does not know {order!r}")


async def serve() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=2**22)  # a Service of thousands of pods is one line
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    async with Zone(ttl=5, port=PORT) as zone:
        zone.namespace("shop")
        while line := await orders.readline():
            reply: dict[str, Any]
            try:
                reply = {"done": obey(zone, json.loads(line))}
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(reply) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve())
