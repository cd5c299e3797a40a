"""Tiers: groups of tests that need something which not every machine has.

A test says what it needs before it starts; what is missing is skipped by name, and the run ends with one loud line a
tier (`tests/conftest.py` prints them). `HEADLESSCONN_REQUIRE=all`, or a comma-separated list of tiers, turns the
skip into a failure: that is how continuous integration notices that it tested less than it thought.

    @pytest.fixture
    def coredns() -> Path:
        binary = shutil.which("coredns")
        require("real-coredns", binary, "coredns is not on the PATH (https://coredns.io/manual/installation/)")
        return Path(binary)

Call it from a fixture or from the test itself, not while a module is imported.
"""

import os

import pytest

MARK = "SKIPPED TIER"
RAN = "TIER"

#: What the tiers that ran want to say at the end, e.g. which versions they ran on.
notes: list[str] = []


def required(tier: str) -> bool:
    """Whether `HEADLESSCONN_REQUIRE` says that this tier must run."""
    names = {name.strip() for name in os.environ.get("HEADLESSCONN_REQUIRE", "").split(",")}
    return "all" in names or tier in names


def require(tier: str, condition: object, what_is_missing: str) -> None:
    """Go on if `condition` is true; otherwise skip the test, or fail it where the tier is required.

    `what_is_missing` says what was looked for and how to get it: it is all that the reader of the last lines sees.
    """
    if condition:
        return
    if required(tier):
        pytest.fail(f"required tier {tier} cannot run: {what_is_missing}", pytrace=False)
    pytest.skip(f"{MARK} {tier}: {what_is_missing}")


def note(tier: str, text: str) -> None:
    """Say something about a tier that ran, in the summary."""
    notes.append(f"{RAN} {tier}: {text}")
