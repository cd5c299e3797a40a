"""The suite's own net holds: a tier that cannot run is named, or fails; a hanging test and a lost task fail."""

import shutil
from pathlib import Path

import pytest

from tests.tiers import require

pytest_plugins = ["pytester"]

TESTS = Path(__file__).parent
SUITE = """
import asyncio
import pytest
from tests.tiers import require

def test_unicorn():
    require("real-unicorn", False, "unicorn is not on the PATH (make unicorn)")

@pytest.fixture
def seven():
    return 7

@pytest.mark.parametrize("x", [7, 8])
async def test_fixture(seven, x):
    await asyncio.sleep(0)
    assert seven == x

@pytest.mark.limit(0.01)
async def test_hang():
    await asyncio.Event().wait()

async def test_lost_task():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project that has our conftest, our tiers and SUITE, and nothing else."""
    monkeypatch.delenv("HEADLESSCONN_REQUIRE", raising=False)
    folder = pytester.mkdir("tests")
    for name in ("conftest.py", "tiers.py"):
        shutil.copy(TESTS / name, folder / name)
    (folder / "test_it.py").write_text(SUITE)
    pytester.makeini("[pytest]\npythonpath = .\naddopts = --import-mode=importlib\nmarkers = limit")
    return pytester


def test_trouble_is_seen(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=3, skipped=1)
    assert result.outlines.count("SKIPPED TIER real-unicorn: unicorn is not on the PATH (make unicorn) (1 test)") == 1
    result.stdout.fnmatch_lines_random(
        ["*assert 7 == 8*", "*still running after 0.01 s*", "*nobody saw this fail*", "*ZeroDivisionError*"]
    )


@pytest.mark.parametrize("required", ["all", "real-unicorn", "other, real-unicorn"])
def test_a_required_tier_fails_instead(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("HEADLESSCONN_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match="required tier real-unicorn cannot run: no unicorn"):
        require("real-unicorn", False, "no unicorn")


@pytest.mark.parametrize("required", ["", "other", "real"])
def test_a_tier_that_nobody_requires_is_skipped(monkeypatch: pytest.MonkeyPatch, required: str) -> None:
    monkeypatch.setenv("HEADLESSCONN_REQUIRE", required)
    with pytest.raises(pytest.skip.Exception, match="SKIPPED TIER real-unicorn: no unicorn"):
        require("real-unicorn", False, "no unicorn")


def test_a_tier_that_has_what_it_needs_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADLESSCONN_REQUIRE", "all")
    require("real-unicorn", "/usr/bin/unicorn", "no unicorn")
