"""The helps of the command line, as the program prints them into a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COLUMNS = "88"
# Of the surroundings nothing may colour the output or make it wider.
SURROUNDINGS = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "NO_COLOR")}


def help_of(*command: str) -> str:
    program = (sys.executable, "-m", "headlessconn", *command, "--help")
    env = SURROUNDINGS | {"COLUMNS": COLUMNS, "TERM": "dumb", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(program, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"`headlessconn {' '.join(command)} --help` failed: {ran.stderr}")
    words = " ".join(["headlessconn", *command])
    return f"```console\n$ {words} --help\n{ran.stdout.strip()}\n```"
