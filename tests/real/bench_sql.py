"""`python -m tests.real.bench_sql`: MariaDB under every pool at once, and what becomes of each when servers change.

A process a set-up, all in the client's namespace, all on the same servers at the same moment. Reads: 8 workers a
set-up, each query holds its connection for 0.4 s, over pools of 16 opened beforehand. Writes: 4 workers, an INSERT
about every 0.3 s. `tests.real.sql_setup` says how to have another set-up compared. Needs root and two minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tests.real import mariadb
from tests.real.lab import Lab, missing
from tests.real.mysql_cluster import PRIMARY, READ, ZONE, MySQLCluster, in_namespaces
from tests.real.sql_load import Job, encode
from tests.real.sql_results import Result, judge, read, table
from tests.real.sql_scenarios import BY_NAME, SCENARIOS, Scenario, World
from tests.real.sql_setup import SETUPS, Where

HEAD_START = 0.5
"""Seconds from telling the loads to start to the start."""


def where(cluster: MySQLCluster, scenario: Scenario) -> Where:
    """The Service as an application in the cluster names it."""
    service = PRIMARY if scenario.writes else READ
    return Where(f"{service}.{ZONE}", cluster.port, **cluster.login, ca=str(cluster.ca))


def trial(lab: Lab, scenario: Scenario, setups: Sequence[str]) -> dict[str, Result]:
    """Play a scenario once under the loads of these set-ups; a set-up that cannot begin is left out, and said."""
    with in_namespaces(lab, scenario.replicas) as cluster:
        world = World(cluster)
        loads = {setup: _Load(lab, setup) for setup in setups}
        for setup, load in loads.items():
            target = where(cluster, scenario)
            load.tell(
                encode(Job(setup, target, scenario.statement, scenario.seconds, scenario.workers, scenario.pause))
            )
        for setup in setups:
            if loads[setup].hear() is None:
                sys.stderr.write(f"\nwithout {setup}: {loads.pop(setup).log()}\n")
        world.start = time.monotonic() + HEAD_START
        for load in loads.values():
            load.tell(json.dumps({"start": world.start}).encode() + b"\n")
        scenario.play(world)
        answers = {setup: load.hear() for setup, load in loads.items()}
        return {
            setup: judge(read(answer), world, scenario.seconds)
            for setup, answer in answers.items()
            if answer is not None
        }


class _Load:
    """One load process."""

    def __init__(self, lab: Lab, setup: str) -> None:
        self._log = lab.folder / f"load-{list(SETUPS).index(setup)}.log"
        with self._log.open("wb") as log:
            self._process = lab.client(
                [sys.executable, "-m", "tests.real.sql_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
            )

    def tell(self, line: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any] | None:
        """Its next answer; `None` when it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] | None = json.loads(line) if line else None
        return answer

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-1000:]


def play(
    scenarios: Sequence[Scenario],
    setups: Sequence[str],
    *,
    prefix: str = "hcsql",
    tell: Callable[[str], None] = lambda text: None,
) -> dict[tuple[str, str], Result]:
    """Every scenario once, each in a lab and a cluster of its own: results by scenario and set-up."""
    found = {}
    for scenario in scenarios:
        tell(f"{scenario.name}: {scenario.says}")
        with Lab(prefix, search="data") as lab:
            for setup, result in trial(lab, scenario, setups).items():
                found[scenario.name, setup] = result
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.bench_sql", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="SCENARIO", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--setups", nargs="+", choices=list(SETUPS), metavar="SET-UP", help=f"of {'; '.join(SETUPS)}")
    parser.add_argument("--json", action="store_true", help="a line for each result, instead of the table")
    arguments = parser.parse_args()
    if reason := missing() or mariadb.missing():
        parser.error(reason)
    scenarios = [scenario for scenario in SCENARIOS if not arguments.only or scenario.name in arguments.only]
    setups = arguments.setups or list(SETUPS)
    began = time.monotonic()

    def tell(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{time.monotonic() - began:5.0f} s  {text}")
        sys.stderr.flush()

    found = play(scenarios, setups, tell=tell)
    tell("over\n")
    if arguments.json:
        lines = [
            json.dumps({"scenario": scenario, "setup": setup}) + " " + result.json()
            for (scenario, setup), result in found.items()
        ]
    else:
        lines = [
            f"MariaDB {mariadb.version()}; pools of 16, 8 readers or 4 writers each; TTL 5 s",
            *(f"  {scenario.name}: {scenario.says}" for scenario in scenarios),
            "",
            *table(scenarios, found, setups),
        ]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
