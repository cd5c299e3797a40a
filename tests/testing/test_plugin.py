"""The fixture works without any asyncio plugin and tells when a test leaves its cluster running."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def pytest_run(tests: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run tests in a project of its own, which has no other plugin than ours."""
    (folder / "test_it.py").write_text(tests)
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "headlessconn.testing.plugin", "test_it.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_fixture_needs_no_asyncio_plugin(tmp_path: Path) -> None:
    run = pytest_run(
        """
import asyncio

def test_with_asyncio_run(headless_cluster):
    async def scenario():
        async with headless_cluster as cluster:
            orders = await cluster.service("orders", pods=2)
            assert len(orders.pods) == 2
    asyncio.run(scenario())

def test_not_entered_at_all(headless_cluster):
    assert not headless_cluster.is_running
""",
        tmp_path,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_cluster_left_running_is_an_error_and_is_stopped(tmp_path: Path) -> None:
    run = pytest_run(
        """
import asyncio
import socket
import pytest

ports = []

@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_forgetful(headless_cluster):
    async def scenario():
        await headless_cluster.start()
        orders = await headless_cluster.service("orders", pods=1)
        ports.append((orders.pods[0].address, orders.pods[0].port))
        ports.append(("127.0.0.1", headless_cluster.zone.port))
    asyncio.run(scenario())

def test_what_it_left():
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(port)
    assert len(ports) == 2
""",
        tmp_path,
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "use `async with headless_cluster as cluster:`" in run.stdout
    assert "2 passed, 1 error" in run.stdout


def test_the_names_of_the_package_come_when_asked_for() -> None:
    program = """
import sys
import headlessconn.testing as testing
assert not {"aiohttp", "dns"} & set(sys.modules)
assert testing.__all__ == ["EmbeddedCluster", "EmbeddedService", "Pod", "Zone"]
assert set(testing.__all__) <= set(dir(testing))
for name in testing.__all__:
    assert getattr(testing, name).__name__ == name
assert not hasattr(testing, "Nothing")
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
