"""What a trial's records come to, and the table of it: scenario by client, the worst of several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, nan
from typing import Any

from tests.real.load import Record

WARM_UP = 1.0
"""Seconds at a load's start whose latencies do not count, for they dial; failures count always."""


@dataclass
class Result:
    """One client in one run of a scenario, or the worst of several. Requests are GETs unless posts are named."""

    requests: int
    failed: int
    posts_failed: int
    posts_twice: int
    """POSTs which pods received more than once: never a lesser evil."""
    first: float
    """Seconds from when DNS could tell of a new pod to the first request that any new one received; NaN: never."""
    p50: float
    p99: float
    slowest: float
    p99_before: float
    """Before the trouble began."""
    extra: float
    """Requests that pods received beyond those which were sent, as a share of them."""
    slow_share: float
    """Of the requests sent after the trouble began, those which the slow pod answered."""
    late: float
    """The most that the load itself was late: this machine's own doing."""
    errors: dict[str, int]

    def json(self) -> dict[str, Any]:
        return {name: None if value != value else value for name, value in asdict(self).items()}


def judge(
    records: Sequence[Record],
    received: Mapping[str, Sequence[tuple[float, str]]],
    *,
    new: Collection[str],
    news_at: float | None,
    slow: str | None,
    trouble_at: float,
    late: float,
) -> Result:
    """`received`: for each pod when it received which request of this client. `new`, `slow`: names of pods."""
    gets = [record for record in records if record.method == "GET"]
    took = sorted(record.took for record in gets if record.at >= WARM_UP)
    before = sorted(record.took for record in gets if WARM_UP <= record.at < trouble_at)
    after = [record for record in records if record.at >= trouble_at and record.outcome == "ok"]
    counts = Counter(ident for requests in received.values() for _, ident in requests)
    first = min((at for pod in new for at, _ in received.get(pod, ())), default=nan)
    return Result(
        requests=len(gets),
        failed=sum(record.outcome != "ok" for record in gets),
        posts_failed=sum(record.outcome != "ok" for record in records if record.method == "POST"),
        posts_twice=sum(count > 1 for ident, count in counts.items() if ident.endswith("/POST")),
        first=first - news_at if news_at is not None else nan,
        p50=quantile(took, 0.5),
        p99=quantile(took, 0.99),
        slowest=took[-1] if took else nan,
        p99_before=quantile(before, 0.99),
        extra=max(0, sum(counts.values()) - len(records)) / max(1, len(records)),
        slow_share=sum(record.pod == slow for record in after) / len(after) if slow and after else nan,
        late=late,
        errors=dict(Counter(record.outcome for record in records if record.outcome != "ok")),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else nan


def worst(results: Sequence[Result]) -> Result:
    """The greatest of each figure; of the requests, the fewest; of the first request, never if ever never."""
    figures: dict[str, Any] = {}
    for field in fields(Result):
        values = [getattr(result, field.name) for result in results]
        known = [value for value in values if value == value]
        if field.name == "errors":
            figures["errors"] = dict(sum(map(Counter, values), Counter[str]()))
        elif field.name == "requests":
            figures["requests"] = min(values)
        elif field.name == "first":
            figures["first"] = max(known) if len(known) == len(values) else nan
        else:
            figures[field.name] = max(known, default=nan)
    return Result(**figures)


HEADINGS = ("scenario", "client", "requests", "failed", "POSTs failed", "twice", "new pod", "p50", "p99", "slowest", "")


def table(rows: Iterable[tuple[str, bool, str, Result]]) -> Iterator[str]:
    """Lines for rows of scenario, whether a new pod appears in it, client, result. Latencies in ms."""
    cells: list[tuple[str, ...]] = [HEADINGS]
    previous = ""
    for scenario, finds, client, result in rows:
        first = "" if not finds else "never" if result.first != result.first else f"{result.first:.2f} s"
        counts = (result.requests, result.failed, result.posts_failed, result.posts_twice)
        times = (f"{value * 1000:.{2 if value < 0.01 else 0}f}" for value in (result.p50, result.p99, result.slowest))
        shown = "" if scenario == previous else scenario
        cells.append((shown, client, *map(str, counts), first, *times, _note(result)))
        previous = scenario
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        columns = enumerate(zip(row, widths, strict=True))
        fitted = (cell.rjust(width) if 2 <= at < 10 else cell.ljust(width) for at, (cell, width) in columns)
        yield "  ".join(fitted).rstrip()


def _note(result: Result) -> str:
    notes = []
    if result.slow_share == result.slow_share:
        notes.append(f"slow pod's share {result.slow_share:.1%}, p99 before {result.p99_before * 1000:.1f}")
    if result.extra >= 0.0005:
        notes.append(f"sent again {result.extra:.1%}")
    notes += [f"{name} {count}" for name, count in sorted(result.errors.items(), key=lambda item: -item[1])[:3]]
    return ", ".join(notes)
