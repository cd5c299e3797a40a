"""`python -m tests.mutants.plant [WORD…]`: plant each wrong change of mutants.toml in a copy, and see what notices it.

Prints which test or seed killed each, and exits with 1 when one survives. Words select mutants by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("mutants.toml")
SEEDS = {"refresh": "300", "trouble": "1000"}  # families of seeds, and how many of each must do to notice
DEFAULT_TESTS = ("tests/core",)
HANG = 120.0  # seconds after which a mutant counts as killed because everything stands still
LONG = 1200.0  # seconds that many seeds may take, on a busy machine


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    before: str
    after: str
    tests: Sequence[str] | None
    seeds: str | None

    def planted(self, text: str) -> str:
        found = text.count(self.before)
        if found != 1:
            raise LookupError(f"{self.name!r}: its place occurs {found} times in {self.file}, it must occur once")
        return text.replace(self.before, self.after)


def mutants() -> Iterator[Mutant]:
    for entry in tomllib.loads(LIST.read_text(encoding="utf-8"))["mutant"]:
        yield Mutant(
            entry["name"], entry["file"], entry["before"], entry["after"], entry.get("tests"), entry.get("seeds")
        )


def killer(mutant: Mutant) -> str | None:
    """What noticed a mutant: a seed, a test, or a stand-still; None when it survives."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as box:
        copy = Path(box)
        for name in ("headlessconn", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "headlessconn" / mutant.file
        path.write_text(mutant.planted(path.read_text(encoding="utf-8")), encoding="utf-8")
        family = mutant.seeds or ("refresh" if mutant.tests is None else None)
        if family is not None:
            play = ["-m", "headlessconn.testing.sim", family, "--seeds", SEEDS[family], "--first-fault", "--no-shrink"]
            said = _run(copy, play, LONG)
            if said is not None:
                line = next((line for line in said.splitlines() if line.startswith("seed ")), "seed ? (it crashes)")
                return f"{family} {line.partition(':')[0]}"
            if mutant.seeds is not None:
                return None
        tests = mutant.tests or DEFAULT_TESTS
        said = _run(copy, ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests])
        if said is None:
            return None
        failed = [line for line in said.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))]
        return failed[0].split(" ")[1] if failed else said.strip().splitlines()[-1]


def _run(copy: Path, arguments: list[str], limit: float = HANG) -> str | None:
    """The output of a run that failed; None of one that passed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"a stand-still of {limit:g} s"
    return done.stdout + done.stderr if done.returncode else None


def main() -> int:
    words = sys.argv[1:]
    chosen = [mutant for mutant in mutants() if not words or any(word in mutant.name for word in words)]
    survivors = 0
    for mutant in chosen:
        began = time.monotonic()
        by = killer(mutant)
        survivors += by is None
        sys.stdout.write(f"{'killed ' if by else 'SURVIVED'} {mutant.name} ({mutant.file})\n")
        sys.stdout.write(f"         by {by or 'nobody'}, {time.monotonic() - began:.0f} s\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - survivors} of {len(chosen)} killed\n")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
