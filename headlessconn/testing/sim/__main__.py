"""Play seeds of a family of plans, print what fails and how often what they are for has occurred.

python -m headlessconn.testing.sim trouble --seeds 10000 --jobs 2
python -m headlessconn.testing.sim trouble --seed 4711

A failing seed prints its schedule, cut down to what it takes. Exits with 1 when a seed fails, or when a fault or a move
of the state table occurs in fewer than one seed of a hundred.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter

from headlessconn.testing.sim.branches import Branches
from headlessconn.testing.sim.seeds import FAMILIES, play, play_all
from headlessconn.testing.sim.shrinking import shrink
from headlessconn.testing.sim.tallies import LEAST, Tally

ENOUGH = 500  # seeds without which "below one in a hundred" says nothing
SAMPLE = 20  # seeds that are traced when many are played: twenty times slower than playing
SHOWN = 5  # faults of one seed that are printed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m headlessconn.testing.sim",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("plan", choices=sorted(FAMILIES))
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with its schedule")
    parser.add_argument("--first-fault", action="store_true", help="stop at the first that fails")
    parser.add_argument("--no-shrink", action="store_true", help="print a failing seed's schedule as it is")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default: two)")
    parser.add_argument(
        "--branches", type=int, metavar="N", help="trace which branches of core/ N seeds take (20 when many are played)"
    )
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds) if asked.seed is None else range(asked.seed, asked.seed + 1)
    began = time.monotonic()
    tally, failed = Tally(), 0
    for batch in play_all(asked.plan, seeds, asked.jobs):
        tally.add(batch.tally)
        for seed, wrong in batch.failed:
            failed += 1
            _print_failed(asked.plan, seed, wrong, not asked.no_shrink)
            if asked.first_fault:
                break
        if failed and asked.first_fault:
            break
    seconds = time.monotonic() - began
    if asked.seed is not None:
        sys.stdout.write(f"{FAMILIES[asked.plan].plan(asked.seed)}\n")
    rare = _print_tally(asked.plan, tally)
    sample = asked.branches if asked.branches is not None else SAMPLE if tally.seeds >= ENOUGH else 0
    if sample:
        _print_branches(asked.plan, range(asked.first, asked.first + sample))
    rate = tally.requests / max(seconds, 1e-9)
    sys.stdout.write(
        f"{tally.seeds} seeds, {tally.requests} requests, {failed} failed, {seconds:.1f} s ({rate:.0f}/s)\n"
    )
    return 1 if failed or rare else 0


def _print_failed(family: str, seed: int, wrong: list[str], shrunk: bool) -> None:
    kind = FAMILIES[family]
    plan = kind.plan(seed)
    shown = "\n  ".join(wrong[:SHOWN])
    sys.stdout.write(f"{plan}\n  {shown}\n")
    if not shrunk:
        return
    schedule = "\n".join(f"    ({at:.3f}, {event!r})," for at, event in shrink(plan, kind.judge))
    sys.stdout.write(f"shrunk to\n{schedule or '    (nothing: it takes no event)'}\n")
    sys.stdout.flush()


def _print_tally(family: str, tally: Tally) -> list[str]:
    wanted = FAMILIES[family].wanted
    for title, counts in (("outcomes", tally.outcomes), ("failed for a reason", tally.excused)):
        if counts:
            sys.stdout.write(f"{title}: {_line(counts)}\n")
    for line in tally.lines(wanted):
        sys.stdout.write(f"{line}\n")
    rare = tally.rare(wanted) if tally.seeds >= ENOUGH else []
    for what in rare:
        sys.stdout.write(f"{what!r} occurs in fewer than {LEAST:.0%} of seeds: they cannot judge it\n")
    return rare


def _line(counts: Counter[str]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.most_common())


def _print_branches(family: str, seeds: range) -> None:
    branches = Branches()
    with branches.tracing():
        play(family, seeds)
    never = len(branches.missing())
    sys.stdout.write(
        f"branches of core/ in {len(seeds)} of the seeds: {len(branches.taken)} steps from line to line were taken, "
        f"and {never} never (for options and kinds of target that are not simulated, too):\n"
    )
    for line in branches.lines():
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
