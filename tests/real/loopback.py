"""Server processes on this machine's loopback, without root, taken away again also after a crash.

A folder a user, one record a run in it, locked while the run lives; the kernel drops the lock however it ends. The
next run ends what a crashed one left: processes known by their number *and* their start, so that nobody who got the
number again is ever touched. `tests.real.ledger` does the same for network namespaces, which need root.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

# Below the range from which Linux gives ports to outgoing connections (32768): none of those can sit on ours.
PORTS = range(20000, 32000)
PATIENCE = 10.0  # for a killed process to be gone
_RECORD = "processes"


def missing() -> str:
    """What this machine lacks; empty when servers may run here."""
    if not sys.platform.startswith("linux"):
        return "only Linux has all of 127.0.0.0/8, and /proc"
    return ""


class Place:
    """An address on which one process at a time serves."""

    def __init__(self, loopback: Loopback, address: str) -> None:
        self._loopback = loopback
        self.address = address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    def spawn(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        return self._loopback.spawn(command, **popen)


class Loopback:
    """Places for servers: addresses of 127.0.0.0/8 that no other run uses, one port which is free on all of them.

    with Loopback() as loopback:
        process = loopback.place().spawn(["my-server"])
    """

    def __enter__(self) -> Self:
        root = _root()
        for folder in root.iterdir():
            _sweep(folder)
        self.folder = Path(tempfile.mkdtemp(dir=root))
        self._record = (self.folder / _RECORD).open("a")
        fcntl.flock(self._record, fcntl.LOCK_EX)
        self._children: list[subprocess.Popen[bytes]] = []
        # Two runs at a time seldom share an address; where they do, the port decides.
        self._net, self._last = random.SystemRandom().randrange(1, 255), 1
        self.port = self._free_port()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._children:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)
        shutil.rmtree(self.folder)
        self._record.close()

    def place(self) -> Place:
        """An address never given before in this run."""
        self._last += 1
        return Place(self, f"127.0.{self._net}.{self._last}")

    def spawn(self, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[bytes]:
        """Start a process in a group of its own, and write it down."""
        defaults: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*map(str, command)], start_new_session=True, **(defaults | popen)
        )
        self._record.write(f"{process.pid} {_started(process.pid)}\n")
        self._record.flush()
        self._children.append(process)
        return process

    def _free_port(self) -> int:
        for port in random.SystemRandom().sample(PORTS, 200):
            if all(_is_free(f"127.0.{self._net}.{last}", port) for last in range(2, 12)):
                return port
        raise OSError(f"no port in {PORTS} is free on 127.0.{self._net}.2 to 127.0.{self._net}.11")


def _root() -> Path:
    root = Path(tempfile.gettempdir()) / f"headlessconn-loopback-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise OSError(f"{root} belongs to somebody else: remove it, or set TMPDIR")
    return root


def _sweep(folder: Path) -> None:
    """End and remove what a crashed run left; nothing while the run lives."""
    try:
        with (folder / _RECORD).open() as record:
            fcntl.flock(record, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for line in record:
                pid, started = line.split()
                _end(int(pid), started)
    except FileNotFoundError:  # it is being made, or taken away, at this moment; or it crashed just there
        if not folder.exists() or time.time() - folder.stat().st_mtime < 60:
            return
    except BlockingIOError:
        return
    shutil.rmtree(folder, ignore_errors=True)


def _end(pid: int, started: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while _started(pid) == started and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks since boot; empty once it has ended, be it still a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] in "ZX" else stat[19]


def _is_free(address: str, port: int) -> bool:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
