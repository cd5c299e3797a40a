"""The Service of a client that sends no request: whatever is found out is found out by checks, or by `verify`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from headlessconn import Service
from headlessconn.core.endpoint import pack
from headlessconn.core.snapshot import MemberView
from headlessconn.testing import Pod
from tests.runtime.shop import Shop

QUICK: dict[str, Any] = {"check_interval": 0.05, "consecutive_failures": 2, "eject_base": 0.05, "eject_max": 0.2}


def member(service: Service, pod: Pod) -> MemberView:
    key = pack(pod.address, pod.port)
    return next(view for view in service.snapshot.members if view.endpoint.key == key)


@contextlib.asynccontextmanager
async def unused(world: Shop, **settings: Any) -> AsyncIterator[Service]:
    async with world.client(**{**QUICK, **settings}) as client:
        service = client.service(world.orders.target)
        await service.ready(len(world.orders.pods))
        yield service
