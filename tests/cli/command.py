"""The command as a person starts it: a process of its own, with pipes or on a terminal."""

import asyncio
import os
import pty
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-W", "error", "-m", "headlessconn")

# Of the tests' own surroundings nothing may colour the output, or make it plain.
SURROUNDINGS = {
    name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
} | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}


class Run(NamedTuple):
    code: int
    stdout: str
    stderr: str


async def headlessconn(*arguments: str, env: dict[str, str] | None = None) -> Run:
    """Run it to its end, with pipes."""
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=SURROUNDINGS | (env or {}),
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Run(process.returncode, stdout.decode(), stderr.decode())


async def on_a_terminal(*arguments: str, env: dict[str, str] | None = None) -> Run:
    """Run it to its end with stdout and stdin on a terminal, 80 by 24."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, *arguments),
        stdin=theirs,
        stdout=theirs,
        stderr=asyncio.subprocess.PIPE,
        env=SURROUNDINGS | {"COLUMNS": "80", "LINES": "24"} | (env or {}),
    )
    shown = bytearray()

    def read() -> None:
        try:
            shown.extend(os.read(ours, 65536))
        except OSError:  # the other end is closed (EIO), or there is nothing more
            asyncio.get_running_loop().remove_reader(ours)

    asyncio.get_running_loop().add_reader(ours, read)
    try:
        _, stderr = await process.communicate()
        read()
    finally:
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)
        os.close(theirs)
    assert process.returncode is not None
    return Run(process.returncode, shown.decode(), stderr.decode())
