"""`python -m tests.real.faults`: real pods, real faults, and every client under the same of them; prints one table.

The clients run beside each other against the same pods, so they meet the same fault at the same moment, and share the
machine: compare latencies in the rows `steady` and `burst`, where each runs alone, or say `--together 1`.

At a high rate the runs come one after the other; at a low one they run at once, as sessions that know nothing of each
other (each with a proxy of its own, too): five at 5 requests/s are a small load, and waiting would be all the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tests.real.columns import COLUMNS, DOOR, Column
from tests.real.lab import Lab, missing
from tests.real.load import TIMEOUT, Job, Record, encode
from tests.real.results import Result, judge, table, worst
from tests.real.scenarios import BY_NAME, SCENARIOS, SERVICE_PORT, TROUBLE_AT, Scenario, World

SPARSE = 50
"""Requests a second up to which several runs fit beside each other."""
HEAD_START = 0.5
"""Seconds from handing out the jobs to the first request."""


class Bench:
    """A lab with the load processes of some columns in it, for one trial after another."""

    def __init__(self, lab: Lab, columns: Sequence[Column]) -> None:
        self._lab = lab
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, "-m", "tests.real.load"]
        self._loads = {column.name: lab.client(command, **pipes) for column in columns}

    def trial(
        self,
        scenario: Scenario,
        rate: float,
        columns: Sequence[Column],
        *,
        seconds: float | None = None,
        sessions: int = 1,
        seed: int = 0,
    ) -> dict[str, list[Result]]:
        """Play the scenario once under the loads of `columns`: for each a result of each session."""
        world = World(self._lab, scenario.name, scenario.pods, scenario.spare, scenario.service_time)
        with contextlib.ExitStack() as stack:
            stack.callback(world.end)
            urls = [stack.enter_context(self._doors(column, world, sessions)) for column in columns]
            world.start = time.monotonic() + HEAD_START
            for column, its_urls in zip(columns, urls, strict=True):
                job = Job(
                    kind=column.kind,
                    urls=its_urls,
                    start=world.start,
                    rate=rate,
                    seconds=seconds or scenario.seconds,
                    label=column.label,
                    options=column.options,
                    limit=column.limit,
                    burst=scenario.burst,
                    burst_at=TROUBLE_AT,
                    seed=seed,
                )
                into = self._loads[column.name].stdin
                assert into is not None
                into.write(encode(job))
                into.flush()
            scenario.play(world)
            answers = [(column, self._read(self._loads[column.name])) for column in columns]
            return {column.name: self._judge(world, column, answer) for column, answer in answers}

    @contextlib.contextmanager
    def _doors(self, column: Column, world: World, sessions: int) -> Iterator[list[str]]:
        """The URLs of a column's sessions, with a proxy behind each where the column has one."""
        if column.proxy is None:
            yield [f"http://{world.service}:{SERVICE_PORT}/whoami"] * sessions
            return
        first, proxies = DOOR + 100 * COLUMNS.index(column), []
        service = f"{world.service}.svc.cluster.local"
        try:
            for number in range(sessions):
                name = f"{column.label}-{number}"
                proxies.append((name, column.proxy.start(self._lab, name, first + number, service, SERVICE_PORT)))
            for number, (name, process) in enumerate(proxies):
                self._lab.wait_listening(process, first + number, name)
            yield [f"http://127.0.0.1:{first + number}/whoami" for number in range(sessions)]
        finally:
            for _, process in proxies:
                process.kill()
                process.wait()

    def _read(self, load: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert load.stdout is not None
        line = load.stdout.readline()
        if not line:
            raise RuntimeError(f"a load process died: {self._lab.log('client')}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _judge(self, world: World, column: Column, answer: dict[str, Any]) -> list[Result]:
        results = []
        for number, records in enumerate(answer["records"]):
            received: dict[str, list[tuple[float, str]]] = defaultdict(list)
            for pod in world.pods:
                for line in world.received_at(pod.name).read_text().splitlines():
                    moment, ident, method = line.split(" ")
                    if ident.startswith(f"{column.label}/{number}/"):
                        received[pod.name].append((float(moment), f"{ident}/{method}"))
            results.append(
                judge(
                    [Record(*record) for record in records],
                    received,
                    new=[pod.name for pod in world.new],
                    news_at=world.news_at,
                    slow=world.slow.name if world.slow else None,
                    trouble_at=TROUBLE_AT,
                    late=answer["latest"],
                )
            )
        return results


def play(
    columns: Sequence[Column],
    scenarios: Sequence[Scenario],
    rates: Sequence[float],
    runs: int,
    *,
    seconds: float | None = None,
    together: int = 0,
    prefix: str = "hcfaults",
    tell: Callable[[str], None] = lambda text: None,
) -> dict[tuple[float, str, str], list[Result]]:
    """Every run of every scenario at every rate: results by rate, scenario, column. `together`: 0 is all columns."""
    found: dict[tuple[float, str, str], list[Result]] = defaultdict(list)
    with Lab(prefix) as lab:
        bench = Bench(lab, columns)
        for rate in rates:
            rounds, sessions = (1, runs) if rate <= SPARSE else (runs, 1)
            for round_ in range(rounds):
                for scenario in scenarios:
                    if scenario.alone and rate <= SPARSE:
                        continue
                    tell(f"{rate:g}/s, {scenario.name}, {round_ + 1} of {rounds}")
                    wanted = [column for column in columns if not column.only or scenario.name in column.only]
                    for some in _groups(wanted, 1 if scenario.alone else together):
                        outcome = bench.trial(scenario, rate, some, seconds=seconds, sessions=sessions, seed=round_)
                        for column, results in outcome.items():
                            found[rate, scenario.name, column] += results
    return found


def _groups(columns: Sequence[Column], size: int) -> Iterator[Sequence[Column]]:
    size = size or len(columns) or 1
    for first in range(0, len(columns), size):
        yield columns[first : first + size]


def report(found: dict[tuple[float, str, str], list[Result]], runs: int) -> Iterator[str]:
    for rate in dict.fromkeys(rate for rate, _, _ in found):
        yield ""
        yield f"{rate:g} requests/s, time-out {TIMEOUT:g} s, TTL 5 s; the worst of {runs}; latencies in ms"
        rows = [
            (scenario, BY_NAME[scenario].spare > 0, column, worst(results))
            for (at, scenario, column), results in found.items()
            if at == rate
        ]
        yield from table(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[400, 5], metavar="R", help="requests a second")
    parser.add_argument("--runs", type=int, default=5, help="of each scenario; the worst is shown")
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), metavar="SCENARIO", help=f"of {', '.join(BY_NAME)}")
    parser.add_argument("--clients", nargs="+", metavar="CLIENT", help=f"of {', '.join(c.name for c in COLUMNS)}")
    parser.add_argument("--seconds", type=float, help="of each load, instead of the scenario's own")
    parser.add_argument("--together", type=int, default=0, help="clients beside each other; 1 is quiet, and long")
    parser.add_argument("--json", action="store_true", help="every run as one JSON array instead of the table")
    arguments = parser.parse_args()
    if reason := missing():
        parser.error(reason)
    columns = []
    for column in COLUMNS:
        if arguments.clients and column.name not in arguments.clients:
            continue
        if reason := column.lacks():
            sys.stderr.write(f"without the column {column.name}: {reason}\n")
        else:
            columns.append(column)
    if not columns:
        parser.error("no client is left")
    scenarios = [scenario for scenario in SCENARIOS if not arguments.only or scenario.name in arguments.only]
    began = time.monotonic()

    def tell(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{time.monotonic() - began:5.0f} s  {text}")
        sys.stderr.flush()

    how = {"seconds": arguments.seconds, "together": arguments.together}
    found = play(columns, scenarios, arguments.rates, arguments.runs, **how, tell=tell)
    tell("over\n")
    if arguments.json:
        rows = [
            {"rate": rate, "scenario": scenario, "client": column, "run": run, **result.json()}
            for (rate, scenario, column), results in found.items()
            for run, result in enumerate(results)
        ]
        lines = iter([json.dumps(rows, indent=1)])
    else:
        lines = report(found, arguments.runs)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
