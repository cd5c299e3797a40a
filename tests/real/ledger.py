"""What a lab made, written down, so that exactly that is taken away again: at its end, or after a crash by the next.

One file a lab, locked while the lab lives; the kernel drops the lock however its process ends. A namespace is known by
its name *and* its inode, a process by its group *and* the namespace it is in, so that neither a stranger's namespace
of the same name nor a process that got the number again is ever touched.

    python -m tests.real.ledger        # take away what crashed labs left on this machine
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path("/run/headlessconn-labs")
NAMESPACES = Path("/run/netns")
PATIENCE = 10.0  # for a killed process to be gone; a busy machine needs some


class LabError(Exception):
    """The lab cannot do what it was asked to. Says what to do by hand, where something is."""


class Ledger:
    """The open record of one lab. Raises `LabError` while another process has a lab of this prefix."""

    def __init__(self, prefix: str) -> None:
        FOLDER.mkdir(mode=0o700, exist_ok=True)
        self.path = FOLDER / f"{prefix}.jsonl"
        self._file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise LabError(f"a lab of the prefix {prefix!r} is running: wait for it, or take another prefix") from None
        self.undo()  # what a crashed one of this prefix left

    def namespace(self, name: str) -> int:
        """A namespace was made: write it down. Returns its inode."""
        inode = inode_of(name)
        assert inode is not None
        self._write({"namespace": name, "inode": inode})
        return inode

    def process(self, pid: int, namespace: str) -> None:
        """A process, the leader of its group, was started in a namespace of this lab."""
        self._write({"process": pid, "inode": inode_of(namespace)})

    def folder(self, path: Path) -> None:
        """A folder was made."""
        self._write({"folder": str(path)})

    def _write(self, entry: dict[str, object]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def undo(self) -> None:
        """Take away everything that is written down, newest first."""
        self._file.seek(0)
        entries = [json.loads(line) for line in self._file if line.endswith("\n")]
        kill_groups({(entry["process"], entry["inode"]) for entry in entries if "process" in entry})
        for entry in reversed(entries):
            if "namespace" in entry and inode_of(entry["namespace"]) == entry["inode"]:
                subprocess.run(["ip", "netns", "del", entry["namespace"]], check=True)
            elif "folder" in entry:
                shutil.rmtree(entry["folder"], ignore_errors=True)
        self._file.truncate(0)

    def close(self) -> None:
        """Take everything away, and the record itself."""
        self.undo()
        self.path.unlink()
        self._file.close()


def inode_of(namespace: str) -> int | None:
    try:
        return os.stat(NAMESPACES / namespace).st_ino
    except FileNotFoundError:
        return None


def kill_groups(groups: set[tuple[int, int]]) -> None:
    """SIGKILL every process of these groups, each given with the inode of its namespace, and wait until it is gone."""
    deadline = time.monotonic() + PATIENCE
    while remaining := [pid for pid in _running() if _where(pid) in groups]:
        if time.monotonic() > deadline:
            raise LabError(f"processes {remaining} survive SIGKILL")
        for pid in remaining:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.002)


def _running() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _where(pid: int) -> tuple[int, int] | None:
    """A process's group and the inode of its network namespace; `None` once it has died, be it still a zombie."""
    try:
        return os.getpgid(pid), os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def sweep() -> list[str]:
    """Clean up after every lab of this machine that has crashed; the living ones hold their locks. Returns prefixes."""
    swept = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        try:
            ledger = Ledger(path.stem)
        except LabError:
            continue
        ledger.close()
        swept.append(path.stem)
    return swept


if __name__ == "__main__":
    sys.stdout.write("".join(f"took away what the lab {prefix} had left\n" for prefix in sweep()))
