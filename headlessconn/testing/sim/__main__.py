"""`python -m headlessconn.testing.sim refresh [--seeds N] [--from K] [--seed N]`: run seeds, print what fails.

`--first-fault` stops at the first one.
"""

from __future__ import annotations

import argparse
import sys
import time

from headlessconn.testing.sim import refreshing

PLANS = {"refresh": refreshing}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m headlessconn.testing.sim", description=__doc__)
    parser.add_argument("plan", choices=sorted(PLANS))
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first of them")
    parser.add_argument("--seed", type=int, help="this one alone, with its schedule")
    parser.add_argument("--first-fault", action="store_true", help="stop at the first that fails")
    asked = parser.parse_args()
    plans = PLANS[asked.plan]
    seeds = range(asked.first, asked.first + asked.seeds) if asked.seed is None else (asked.seed,)
    began, failed, requests = time.monotonic(), 0, 0
    for seed in seeds:
        plan = plans.Plan.of(seed)
        run = plan.play()
        requests += len(run.requests)
        faults = plans.judge(plan, run)
        if asked.seed is not None:
            sys.stdout.write(f"{plan}\n{run.outcomes}\n")
        if faults:
            failed += 1
            schedule = "\n".join(f"    ({at:.3f}, {event!r})," for at, event in plans.shrink(plan))
            wrong = "\n  ".join(faults[:5])
            sys.stdout.write(f"{plan}\n  {wrong}\nshrunk to\n{schedule}\n")
            if asked.first_fault:
                break
    seconds = time.monotonic() - began
    sys.stdout.write(f"{len(seeds)} seeds, {requests} requests, {failed} failed, {seconds:.1f} s\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
