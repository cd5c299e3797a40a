"""`python -m benchmarks [NAME…] [--json] [--quick]`: run the benchmarks and print one table.

Each runs in a process of its own, so that no one pays for another's heap. The exit status is 0 however the figures
turn out, and 1 when a benchmark crashed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from benchmarks.figure import Figure, measure, table

NAMES = (
    "requests",
    "engine",
    "fleet",
    "pool",
    "threads",
    "memory",
    "follow",
    "dns",
    "importing",
    "simulation",
    "sqlalchemy_pool",
    "mysql_pools",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; all when none is given")
    parser.add_argument("--json", action="store_true", help="print one JSON array instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: under 90 s, and less to be trusted")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in NAMES]:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    figures: list[tuple[str, Figure]] = []
    crashed = False
    for name in arguments.names or NAMES:
        began = time.monotonic()
        print(f"{name} …", end=" ", file=sys.stderr, flush=True)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            try:
                figures += [(name, figure) for figure in process.submit(measure, name, arguments.quick).result()]
                print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
            except Exception:
                crashed = True
                print("crashed", file=sys.stderr)
                traceback.print_exc()
    if arguments.json:
        print(json.dumps([_plain(name, figure) for name, figure in figures], indent=1, ensure_ascii=False))
    else:
        print("\n".join(table(figures)))
    return int(crashed)


def _plain(name: str, figure: Figure) -> dict[str, object]:
    skipped = figure.verdict == "skipped"
    return {
        "benchmark": name,
        "figure": figure.what,
        "measured": None if skipped else figure.measured,
        "unit": figure.unit,
        "must_reach": figure.limit,
        "at_least": figure.at_least,
        "verdict": figure.verdict,
        "note": figure.note,
    }


if __name__ == "__main__":
    sys.exit(main())
