"""The tier `oldest-dependencies`: what pyproject.toml allows at least is installed, and used, not only written down."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.tiers import note, require

TIER = "oldest-dependencies"
ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-oldest" / "bin" / "python"
SUITE = [str(path) for path in (ROOT / "tests" / "runtime", ROOT / "tests" / "adapters") if path.is_dir()]
WHAT_RAN = """
import platform
from importlib.metadata import version
print("Python", platform.python_version(), *(f"{name} {version(name)}" for name in
      ("aiohttp", "dnspython", "tenacity", "cachetools")))
"""


@pytest.mark.slow
def test_the_runtime_and_the_adapters_work_on_the_lowest_allowed_versions() -> None:
    require(TIER, PYTHON.exists(), "no .venv-oldest here (make test-oldest)")
    require(TIER, SUITE, "neither tests/runtime nor tests/adapters exists")
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    versions = subprocess.run([PYTHON, "-c", WHAT_RAN], capture_output=True, text=True, check=True).stdout.strip()
    run = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", *SUITE],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280,
    )  # fmt: skip
    if run.returncode != 0:
        pytest.fail(f"on {versions}:\n{run.stdout}", pytrace=False)
    note(TIER, f"{run.stdout.strip().splitlines()[-1].strip('= ')} on {versions}")
