"""headlessconn.sync, for programs that have threads and no event loop: here with the standard library's HTTP."""

import http.client
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from headlessconn import Endpoint, sync


def get(orders: sync.Service, path: str) -> bytes:
    """One request, one pod."""
    with orders.pick() as pick:
        with pick.connecting() as seconds:
            connection = http.client.HTTPConnection(pick.host, pick.port, timeout=seconds)
            connection.connect()
        try:
            connection.sock.settimeout(10.0)  # seconds, for the answer
            connection.request("GET", path, headers={"Host": orders.target.host})
            response = connection.getresponse()
            pick.responded(bad=response.status >= 500)  # its latency is taken here
            return response.read()
        finally:
            connection.close()


def get_all(orders: sync.Service, paths: Iterable[str]) -> list[bytes]:
    """Any number of threads may share a service."""
    with ThreadPoolExecutor(max_workers=8) as threads:
        return list(threads.map(lambda path: get(orders, path), paths))


def connect(endpoint: Endpoint) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(endpoint.address, endpoint.port, timeout=10.0)
    connection.connect()
    return connection


def get_kept(pool: sync.Pool[http.client.HTTPConnection], path: str) -> bytes:
    """The same over connections that are kept, and follow the pods."""
    with pool.acquire() as connection:
        connection.request("GET", path)
        return connection.getresponse().read()


def main() -> None:
    with sync.Client() as client:
        orders = client.service("orders.shop:8080")
        print(get_all(orders, ["/v1/orders/1", "/v1/orders/2"]))
        with orders.pool(open=connect, max_size=20) as pool:
            print(get_kept(pool, "/v1/orders/3"))


if __name__ == "__main__":
    main()
