"""What clients did under real faults, from `docs/faults.json`: a plot and a table for each rate of requests.

The file is what `python -m tests.real.faults --json` prints. Nobody edits it; by which command it was made is told by
what is in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from math import log10, nan
from pathlib import Path
from typing import Any

from markdown_tables import table

from tests.real.load import TIMEOUT
from tests.real.results import Result, worst
from tests.real.scenarios import BY_NAME

SOURCE = Path(__file__).parents[1] / "faults.json"
OURS = ("headlessconn", "hedged", "refresh 1 s")

FASTEST, SLOWEST = 0.001, 10.0  # seconds, the ends of the axis
TICKS = ((0.001, "1 ms"), (0.01, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s"))
LEFT, RIGHT, WIDTH = 205, 610, 720
TOP, ROW, APART = 46, 13, 11
GOOD, BAD = "#2e9e5b", "#d6453d"  # as in the diagrams: seen on white and on black

Runs = Mapping[str, Mapping[str, Result]]


def faults() -> str:
    """For each rate: the plot, and what it was drawn from."""
    rows = json.loads(SOURCE.read_text(encoding="utf-8"))
    rates = list(dict.fromkeys(row["rate"] for row in rows))
    runs = 1 + max(row["run"] for row in rows)
    words = "python -m tests.real.faults --json --rates " + " ".join(f"{rate:g}" for rate in rates)
    told = f"Made by `{words} --runs {runs}`; of several runs each figure is the worst."
    return "\n\n".join([told, *(_at(rate, _worst(rows, rate)) for rate in rates)])


def _at(rate: float, found: Runs) -> str:
    svg = "\n".join(_plot(rate, found))
    return f"**{rate:g} requests a second**\n\n```{{raw}} html\n{svg}\n```\n\n{_table(found)}"


def _worst(rows: Sequence[Mapping[str, Any]], rate: float) -> Runs:
    """By scenario and client, in the order of the file."""
    each: dict[str, dict[str, list[Result]]] = {}
    for row in rows:
        if row["rate"] == rate:
            facts = {name: nan if row[name] is None else row[name] for name in Result.__dataclass_fields__}
            each.setdefault(row["scenario"], {}).setdefault(row["client"], []).append(Result(**facts))
    return {scenario: {name: worst(all_) for name, all_ in clients.items()} for scenario, clients in each.items()}


# ---- the table ---------------------------------------------------------------------------------------------------


def _table(found: Runs) -> str:
    header = ("", "client", "requests", "failed", "POSTs failed", "new pod after", "p50", "p99", "slowest")
    rows = []
    for scenario, clients in found.items():
        name = f"**{scenario}**: {BY_NAME[scenario].says}" if scenario in BY_NAME else f"**{scenario}**"
        spare = scenario in BY_NAME and BY_NAME[scenario].spare > 0
        for client, result in clients.items():
            first = "" if not spare else "never" if result.first != result.first else f"{result.first:.2f} s"
            counts = (str(result.requests), _count(result.failed), _count(result.posts_failed))
            times = (_ms(result.p50), _ms(result.p99), _ms(result.slowest))
            rows.append((name, client, *counts, first, *times))
            name = ""
    return table(header, rows)


def _count(failed: int) -> str:
    return f"**{failed}**" if failed else "0"


def _ms(seconds: float) -> str:
    return "" if seconds != seconds else f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


# ---- the plot ----------------------------------------------------------------------------------------------------


def _plot(rate: float, found: Runs) -> Iterator[str]:
    """The slowest request of each client in each scenario, on a logarithmic axis, as SVG in the colours of the page."""
    height = TOP + sum(len(clients) * ROW + APART for clients in found.values()) + 4
    label = f"The slowest request of each client in each scenario, at {rate:g} requests a second"
    yield (
        f'<svg class="faults-plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}" fill="currentColor" '
        'style="width:100%;max-width:46rem;height:auto;font-family:var(--font-stack)" font-size="10.5">'
    )
    yield f"<title>{label}</title>"
    yield f'<text x="{LEFT}" y="14">the slowest request of each client (logarithmic)</text>'
    for seconds, words in TICKS:
        yield from _line(seconds, height, words, 'stroke-opacity="0.2"')
    yield from _line(TIMEOUT, height, f"time-out {TIMEOUT:g} s", 'stroke-opacity="0.6" stroke-dasharray="3 3"')
    y = TOP
    for scenario, clients in found.items():
        yield f'<text x="4" y="{y + ROW - 3}" font-size="12" font-weight="600">{escape(scenario)}</text>'
        for client, result in clients.items():
            yield from _bar(y, client, result)
            y += ROW
        y += APART
    yield "</svg>"


def _x(seconds: float) -> float:
    part = log10(min(max(seconds, FASTEST), SLOWEST) / FASTEST) / log10(SLOWEST / FASTEST)
    return LEFT + (RIGHT - LEFT) * part


def _line(seconds: float, height: int, words: str, how: str) -> Iterator[str]:
    x, is_timeout = _x(seconds), seconds == TIMEOUT
    yield f'<path d="M{x:.1f} {TOP - 6}V{height}" stroke="currentColor" {how}/>'
    yield f'<text x="{x:.1f}" y="{TOP - 20 if is_timeout else TOP - 9}" text-anchor="middle">{words}</text>'


def _bar(y: int, client: str, result: Result) -> Iterator[str]:
    """One client: its name, a bar as long as its slowest request, and how many failed, if any did."""
    weight = ' font-weight="600"' if client in OURS else ""
    yield f'<text x="{LEFT - 6}" y="{y + ROW - 3}" text-anchor="end"{weight}>{escape(client)}</text>'
    end = LEFT if result.slowest != result.slowest else _x(result.slowest)
    colour, strength = (GOOD, "0.9") if client in OURS else ("currentColor", "0.45")
    place = f'x="{LEFT}" y="{y + 2}" width="{max(end - LEFT, 1):.1f}" height="{ROW - 4}"'
    yield f'<rect {place} fill="{colour}" fill-opacity="{strength}"/>'
    if failed := result.failed + result.posts_failed:
        cross = f"M{end - 4:.1f} {y + 2}l8 {ROW - 4}m0 -{ROW - 4}l-8 {ROW - 4}"
        yield f'<path d="{cross}" stroke="{BAD}" stroke-width="2" fill="none"/>'
        place = f'x="{end + 7:.1f}" y="{y + ROW - 3}"'
        yield f'<text {place} fill="{BAD}" font-weight="600">{failed} failed</text>'
