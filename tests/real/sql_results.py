"""What a load's records come to, and the table: set-ups down, scenarios across."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, nan
from typing import Any

from tests.real.sql_load import UNFINISHED, Record
from tests.real.sql_scenarios import Scenario, World

LATE = 2.0
"""Errors in so many seconds before the load's end mean that it did not recover."""


@dataclass(frozen=True)
class Result:
    """One set-up in one scenario. Spans in seconds."""

    queries: int
    errors: int
    kinds: dict[str, int]
    stall: float
    """The longest that one statement took, with the wait for a connection; one that had not ended counts so far."""
    stuck: int
    """Workers that still waited a second after the load's end."""
    first: float
    """From when DNS could tell of the new server to the first answer from it; NaN: none."""
    share: float
    """Of the new server, among the answers from then to the end."""
    writes_after: float
    """From the promotion to the end of the last failed statement, when writes were whole again; infinite: never."""

    def json(self) -> str:
        return json.dumps({key: None if value != value else value for key, value in asdict(self).items()})


def judge(records: Sequence[Record], world: World, seconds: float) -> Result:
    done = [record for record in records if not record.error]
    failed = [record for record in records if record.error not in ("", UNFINISHED)]
    stuck = [record for record in records if record.error == UNFINISHED]
    ended = [(record.at + record.took, record.server) for record in done]
    after = [(at, server) for at, server in ended if at >= world.known_at]
    first = min((at for at, server in after if server == world.new), default=nan)
    last_error = max((record.at + record.took for record in [*failed, *stuck]), default=0.0)
    return Result(
        queries=len(done),
        errors=len(failed),
        kinds=dict(Counter(record.error for record in failed)),
        stall=max((record.took for record in records), default=nan),
        stuck=len(stuck),
        first=first - world.known_at,
        share=sum(server == world.new for _, server in after) / len(after) if after else nan,
        writes_after=inf if last_error > seconds - LATE else max(0.0, last_error - world.promoted_at),
    )


def cell(shows: str, result: Result | None) -> str:
    if result is None:
        return "-"
    errors = f"{result.errors} error{'s' * (result.errors != 1)}"
    if shows == "new":
        first = "never" if result.first != result.first else f"first {result.first:.1f} s"
        return ", ".join([f"{result.share:.0%}", first, *([errors] if result.errors else [])])
    if shows == "writes":
        return f"{errors}, " + ("never whole" if result.writes_after == inf else f"whole {result.writes_after:.1f} s")
    stuck = f"{result.stuck} stuck ({result.queries} queries), " if result.stuck else ""
    return f"{errors}, {stuck}longest {'>' * bool(result.stuck)}{result.stall:.1f} s"


def table(
    scenarios: Sequence[Scenario], found: Mapping[tuple[str, str], Result], setups: Sequence[str]
) -> Iterator[str]:
    """`found`: by scenario and set-up."""
    rows = [
        ["", *(scenario.name for scenario in scenarios)],
        *(
            [setup, *(cell(scenario.shows, found.get((scenario.name, setup))) for scenario in scenarios)]
            for setup in setups
        ),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def read(answer: dict[str, Any]) -> list[Record]:
    return [Record(*record) for record in answer["records"]]
