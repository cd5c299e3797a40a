"""The tier `oldest-dependencies`: what pyproject.toml allows at least is installed, and used, not only written down."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.tiers import note, require

TIER = "oldest-dependencies"
ROOT = Path(__file__).parent.parent
PYTHON = ROOT / ".venv-oldest" / "bin" / "python"
SUITES = ("runtime", "adapters")
# What these say of our rules holds on any version of the libraries; what touches the libraries is in their neighbours.
ELSEWHERE = ("test_mysql_pools.py", "test_mysql_trouble.py", "test_mysql_readwrite.py", "test_sqlalchemy_readwrite.py")
WHAT_RAN = """
import platform
from importlib.metadata import version
print("Python", platform.python_version(), *(f"{name} {version(name)}" for name in
      ("aiohttp", "dnspython", "tenacity", "cachetools")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_it_works_on_the_lowest_allowed_versions(suite: str) -> None:
    require(TIER, PYTHON.exists(), "no .venv-oldest here (make test-oldest)")
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    versions = subprocess.run([PYTHON, "-c", WHAT_RAN], capture_output=True, text=True, check=True).stdout.strip()
    left_out = [f"--ignore={ROOT / 'tests' / 'adapters' / name}" for name in ELSEWHERE]
    run = subprocess.run(
        [PYTHON, "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", *left_out, str(ROOT / "tests" / suite)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280,
    )  # fmt: skip
    if run.returncode != 0:
        pytest.fail(f"on {versions}:\n{run.stdout}", pytrace=False)
    note(TIER, f"{suite}: {run.stdout.strip().splitlines()[-1].strip('= ')} on {versions}")
