"""One figure: what was measured, and what it must reach. A miss is printed, it fails nothing: this is no test.

The machine is shared and others slow it down, by half at times. So what is a ratio or a difference is taken in turns
and is the median of its pairs; a plain time is the best of its repeats, which neighbours disturb least (as timeit has
it), with its middle half beside it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from statistics import median, quantiles


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table. `limit` None is a figure that is only reported, NaN in `measured` one that was skipped."""

    what: str
    measured: float
    unit: str = ""
    limit: float | None = None
    at_least: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.measured != self.measured:
            return "skipped"
        if self.limit is None:
            return ""
        reached = self.measured >= self.limit if self.at_least else self.measured <= self.limit
        return "ok" if reached else "short"


def measure(name: str, quick: bool) -> list[Figure]:
    """The figures of one benchmark. It stands here because a new process cannot import a `__main__`."""
    figures: list[Figure] = import_module(f"benchmarks.{name}").run(quick)
    return figures


def spread(values: Sequence[float], unit: str = "") -> str:
    """The note that tells how far to trust a figure."""
    if len(values) < 4:
        return ""
    low, _, high = quantiles(values, n=4)
    return f"half of {len(values)} within {low:.3g} to {high:.3g}{' ' + unit if unit else ''}"


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep the garbage collector out of short measurements: whose garbage it would find there is chance."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def table(figures: Sequence[tuple[str, Figure]]) -> Iterator[str]:
    """The lines of the one table; `figures` are pairs of a benchmark's name and a figure of it."""
    rows = [("", "figure", "measured", "must reach", "", "")]
    for name, figure in figures:
        sign = "≥" if figure.at_least else "≤"
        limit = "" if figure.limit is None else f"{sign} {_amount(figure.limit, figure.unit)}"
        measured = "" if figure.verdict == "skipped" else _amount(figure.measured, figure.unit)
        rows.append((name, figure.what, measured, limit, figure.verdict, figure.note))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        cells = [
            cell.rjust(width) if column in (2, 3) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        yield "  ".join([*cells, row[5]]).rstrip()


def _amount(value: float, unit: str) -> str:
    digits = f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{digits}{unit}" if unit == "×" else f"{digits} {unit}".rstrip()


__all__ = ["Figure", "measure", "median", "no_collector", "spread", "table"]
