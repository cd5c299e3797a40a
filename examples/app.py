"""A web application that calls another Service of its cluster, each request balanced over that Service's pods.

    ORDERS=orders.shop:8080 python examples/app.py
    curl localhost:8000/                # an order, from one of the pods
    curl localhost:8000/ready           # for the readiness probe: 200 as soon as there is a pod to ask
    curl localhost:8000/explain         # what is known about the pods, in sentences

In a cluster it needs no more than that. Elsewhere, point it at a DNS server that knows the Service:
NAMESERVERS=127.0.0.1:5353 SEARCH=shop.svc.cluster.local,svc.cluster.local
"""

import os
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

import headlessconn
from headlessconn.adapters.aiohttp import HeadlessConnector

ORDERS = os.environ.get("ORDERS", "orders.shop:8080")
ORDERS_URL = os.environ.get("ORDERS_URL", f"http://{ORDERS}")
NAMESERVERS = os.environ.get("NAMESERVERS")
SEARCH = os.environ.get("SEARCH")

orders_key = web.AppKey("orders", headlessconn.Service)
session_key = web.AppKey("session", aiohttp.ClientSession)


async def clients(app: web.Application) -> AsyncIterator[None]:
    """One client and one session for the life of the application."""
    async with (
        headlessconn.Client(
            nameservers=NAMESERVERS.split(",") if NAMESERVERS else None,  # None: as resolv.conf says
            search=SEARCH.split(",") if SEARCH else None,
        ) as client,
        aiohttp.ClientSession(connector=HeadlessConnector(client, targets=[ORDERS])) as session,
    ):
        app[orders_key] = client.service(ORDERS)
        app[session_key] = session
        yield


async def order(request: web.Request) -> web.Response:
    """Nothing here knows of pods: the session is an ordinary one."""
    try:
        async with request.app[session_key].get(f"{ORDERS_URL}/v1/orders/7") as response:
            return web.json_response(await response.json(), status=response.status)
    except aiohttp.ClientError as error:
        return web.json_response({"error": str(error)}, status=502)


async def ready(request: web.Request) -> web.Response:
    """Ready when there is somebody to call."""
    try:
        await request.app[orders_key].ready(timeout=1)
    except headlessconn.NoEndpoints as nobody:
        return web.Response(text=f"{nobody}\n", status=503)
    return web.Response(text="ready\n")


async def explain(request: web.Request) -> web.Response:
    return web.Response(text=request.app[orders_key].explain() + "\n")


def build() -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(clients)
    app.add_routes([web.get("/", order), web.get("/ready", ready), web.get("/explain", explain)])
    return app


if __name__ == "__main__":
    web.run_app(build(), host=os.environ.get("HOST", "localhost"), port=int(os.environ.get("PORT", "8000")))
