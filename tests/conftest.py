"""Two things for every test: `async def` tests run, and tiers that were skipped are named at the end.

There is no asyncio plugin here. headlessconn ships a pytest plugin itself, which has to live beside every one of
them, and its own suite needs little: one loop a test, a limit, and no failure swallowed by the loop.
"""

import asyncio
import inspect
import signal
import traceback
from collections.abc import Awaitable
from typing import Any

import pytest

from tests import tiers

# A shell that starts us in the background has us ignore Ctrl-C, and then Python does too: the tests that interrupt
# themselves need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LIMIT = 60.0
"""Seconds an async test may take. A hang detector, not a measurement: a busy machine must not come near it."""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test in a loop of its own; its fixtures are ordinary, sync ones."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("limit")
    limit = marker.args[0] if marker else LIMIT
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    # Debug mode off, whatever PYTHONASYNCIODEBUG says: it slows the loop several times over.
    asyncio.run(_run(pyfuncitem.obj(**arguments), limit), debug=False)
    return True


async def _run(test: Awaitable[None], limit: float) -> None:
    """Await the test under a limit; what the loop would only have logged (a lost task's exception) fails it."""
    swallowed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: swallowed.append(context))
    timeout = asyncio.timeout(limit)
    try:
        async with timeout:
            await test
    except TimeoutError as error:
        if not timeout.expired():
            raise
        raise TimeoutError(
            f"the test was still running after {limit:g} s, at the place where this trace begins"
        ) from error
    if swallowed:
        pytest.fail("nobody saw this fail:\n" + "\n".join(map(_describe, swallowed)), pytrace=False)


def _describe(context: dict[str, Any]) -> str:
    error = context.get("exception")
    trace = "".join(traceback.format_exception(error)) if error else ""
    return f"{context['message']} {context.get('task') or context.get('handle') or ''}\n{trace}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a tier that could not run, with what it lacks; then what the tiers that ran have to say."""
    lacking: dict[str, int] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if (start := reason.find(tiers.MARK)) >= 0:
            lacking[reason[start:]] = lacking.get(reason[start:], 0) + 1
    for line, count in sorted(lacking.items()):
        terminalreporter.write_line(f"{line} ({count} test{'s' if count > 1 else ''})", yellow=True, bold=True)
    for line in tiers.notes:
        terminalreporter.write_line(line)
