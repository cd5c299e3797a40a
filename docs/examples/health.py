"""Health: pods asked while nobody else asks them, and pods that are asked who they are."""

from typing import Any

import aiohttp

import headlessconn
from headlessconn.checks import Http


def checking(seconds: float = 10.0, **settings: Any) -> headlessconn.Client:
    """A pod from which nothing was heard for so long is asked `GET /healthz`."""
    return headlessconn.Client(check=Http("/healthz"), check_interval=seconds, **settings)


async def is_ours(endpoint: headlessconn.Endpoint, host: str) -> bool:
    """Every pod of ours says at /whoami to which Service it belongs."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{endpoint}/whoami") as response:
        return response.headers.get("X-Service") == host


def verifying(**settings: Any) -> headlessconn.Client:
    return headlessconn.Client(verify=is_ours, **settings)


def unwell(service: headlessconn.Service) -> list[str]:
    """The pods that are not READY, and why."""
    view = service.snapshot
    others = [member for member in view.members if member not in view.ready]
    return [f"{member.endpoint} {member.state.value}: {member.why}" for member in others]
