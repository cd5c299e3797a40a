"""Every error of `headlessconn.errors`, with its docstring and a message as it reads; and the advice by DNS answer."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
from collections.abc import Callable

from dns_answers import World, pods
from markdown_tables import table
from plain_docstrings import to_markdown

from headlessconn import Client, errors
from headlessconn.core.endpoint import Answer, How
from headlessconn.core.explain import advice
from headlessconn.core.pick import Pick
from headlessconn.core.target import Target
from headlessconn.errors import HeadlessError
from headlessconn.options import Options

TARGET = "orders.shop:8080"


def _no_endpoints() -> None:
    said = Answer("dns", "nobody", why="NXDOMAIN")
    raise errors.NoEndpoints(TARGET, 5.0, said.why, 0.4, advice(said, "", TARGET))


def _dial_failed() -> None:
    tried = (("10.244.1.7:8080", How.REFUSED.value), ("10.244.2.9:8080", How.DIAL_TIMEOUT.value))
    raise errors.DialFailed(TARGET, tried)


def _deadline_exceeded() -> None:
    tried = (("10.244.1.7:8080", How.RESET.value), ("10.244.2.9:8080", "no answer in 1.52 s"))
    raise errors.DeadlineExceeded(TARGET, 2.0, tried)


def _pool_timeout() -> None:
    holders = [f"shop/orders.py:{line} for 3{line % 7}.0 s (to 10.244.1.7:3306)" for line in (42, 57)]
    raise errors.PoolTimeout("db.data:3306", 30.0, 2, 2, holders, 3, 0)


def _given_back_twice() -> None:
    async def use() -> None:
        async def connect(endpoint: object) -> object:
            return socket.socket()  # never connected: nothing is sent

        async with Client() as client, client.service("static:///127.0.0.1:3306").pool(open=connect) as pool:
            connection = await pool.acquire()
            pool.release(connection)
            pool.release(connection)

    asyncio.run(use())


def _closed() -> None:
    async def use_after_close() -> None:
        client = Client(nameservers=("127.0.0.1",))
        await client.aclose()
        client.hub()

    asyncio.run(use_after_close())


def _wrong_loop() -> None:
    client = Client(nameservers=("127.0.0.1",))

    async def use() -> None:
        client.hub()

    asyncio.run(use())
    asyncio.run(use())


def _ended_twice() -> None:
    engine = World(pods(1, 2, 3)).engine
    pick = engine.pick(0.0)
    assert isinstance(pick, Pick)
    engine.ended(pick, How.OK, 0.1)
    engine.ended(pick, How.OK, 0.2)


# How to come by each error. An error that is missing here is shown without a message.
TRIGGERS: dict[str, Callable[[], object]] = {
    "TargetError": lambda: Target.parse("orders.shop:70000"),
    "OptionError": lambda: Options(refresh_max=-1),
    "NoEndpoints": _no_endpoints,
    "DialFailed": _dial_failed,
    "DeadlineExceeded": _deadline_exceeded,
    "PoolTimeout": _pool_timeout,
    "NotHeld": _given_back_twice,
    "ClosedError": _closed,
    "WrongLoop": _wrong_loop,
    "PickEnded": _ended_twice,
}


def classes() -> list[type[HeadlessError]]:
    """The errors, in the order of the file."""
    return [
        error
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, HeadlessError) and error.__module__ == errors.__name__
    ]


def entries() -> str:
    return "\n\n".join([_tree(), *map(_entry, classes())])


def _tree() -> str:
    """The drawing at the head of the file."""
    lines = inspect.cleandoc(errors.__doc__ or "").splitlines()
    drawn = [line.removeprefix("    ") for line in lines if line.startswith("    ")]
    drawn = [re.sub(r"(?<=\))  +.*", "", line) for line in drawn]  # what each means is said below
    return "\n".join(["```none", *drawn, "```"])


def _entry(error: type[HeadlessError]) -> str:
    bases = [base for base in error.__bases__ if base.__module__ == "builtins" and base is not Exception]
    builtins = [f"`{base.__name__}`" for base in bases]
    also = f"\nIt is a {' and a '.join(builtins)} too.\n" if builtins else ""
    text = to_markdown(inspect.cleandoc(error.__doc__ or "").splitlines())
    return "\n".join(
        [f"````{{py:exception}} headlessconn.errors.{error.__name__}", "", text, also, _message(error), "````"]
    )


def _message(error: type[HeadlessError]) -> str:
    trigger = TRIGGERS.get(error.__name__)
    if trigger is None:
        return ""
    try:
        trigger()
    except error as raised:
        return f"```text\n{error.__name__}: {raised}\n```"
    raise AssertionError(f"{error.__name__} was not raised")


def advice_table() -> str:
    """What to check, by what was said last."""
    several = Answer("dns", "nobody", why="several ports (8080, 9090): name one")
    said: tuple[tuple[str, Answer | None, str], ...] = (
        ("nothing yet", None, ""),
        ("time-out, SERVFAIL, REFUSED, and never anything else", None, "timeout"),
        ("NXDOMAIN", Answer("dns", "nobody", why="NXDOMAIN"), ""),
        ("NODATA", Answer("dns", "nobody", why="NODATA"), ""),
        (several.why, several, ""),
    )
    return table(("the last answer", "what to check"), [(text, advice(a, t, TARGET)) for text, a, t in said])
