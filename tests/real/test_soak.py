"""A third of a minute of what `make soak` does for twenty."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_random_faults_leave_nothing_behind_and_fail_nothing() -> None:
    command = [sys.executable, "-m", "tests.real.soak", "--minutes", "0.3", "--period", "6", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "what befell the pods" in done.stdout
