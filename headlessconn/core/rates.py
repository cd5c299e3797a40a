"""Who answered worse than the others over an interval: gRFC A50's two rules, and one for small sets.

Pure functions over counts; `Health` keeps the counts and ejects. Envoy and gRPC have the same two rules, and both are
blind or rash in sets as small as a headless Service's, so two things are added:

- *All bad.* With k of n members dead the deviation rule's threshold is below zero once k/n > 1/(1 + f²): 22 % for the
  usual f = 1.9, so one of three or four, and two of nine, are never seen. Both rules want five members at least. A
  member without a single good answer is an outlier at any n ≥ 2.
- *Notably.* One imperfect member among n has a deviation of √(n - 1): 2.0 for five, so with f = 1.9 it goes however
  little it errs, once in a thousand is enough. And when everybody fails it is not the pod. So an outlier must also be
  clearly worse than the other members together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from headlessconn.options import Options

# Part of the answers. A pod that fails one request in twenty more than the others do is worth more than the place it
# holds: retries repair that, and of two pods ejecting takes away half.
NOTABLY = 0.05


class Tally(NamedTuple):
    """What one member answered in an interval: how many in all, and how many of them badly."""

    answers: int
    bad: int

    @property
    def success(self) -> float:
        """The part that was good, 0 to 1. Undefined, and not asked for, without answers."""
        return 1.0 - self.bad / self.answers


class Outlier(NamedTuple):
    """A member, by its place in what was given; why, with the numbers; the percentage of such findings to act on."""

    place: int
    why: str
    enforcement: int


def mean_and_deviation(rates: Sequence[float]) -> tuple[float, float]:
    """Of the whole population (÷ n, as gRPC and Envoy do it), not of a sample."""
    mean = sum(rates) / len(rates)
    return mean, sqrt(sum((rate - mean) ** 2 for rate in rates) / len(rates))


def by_success_rate(tallies: Sequence[Tally], options: Options) -> dict[int, str]:
    """Those whose success rate lies below mean - factor x deviation, strictly."""
    factor = options.success_rate_stdev_factor / 1000.0
    rates = {at: t.success for at, t in enumerate(tallies) if t.answers >= max(1, options.success_rate_volume)}
    if not factor or not rates or len(rates) < options.success_rate_minimum_hosts:
        return {}
    mean, deviation = mean_and_deviation(tuple(rates.values()))
    threshold = mean - factor * deviation
    return {
        at: f"{rate:.1%} of {tallies[at].answers} answers were good, fewer than {threshold:.1%} "
        f"(mean {mean:.1%} of {len(rates)} members, less {factor:g} deviations of {deviation:.1%})"
        for at, rate in rates.items()
        if rate < threshold
    }


def by_failure_percentage(tallies: Sequence[Tally], options: Options) -> dict[int, str]:
    """Those of whose answers more than the threshold were bad, strictly (as gRPC and Envoy compare; Envoy's text says
    "at least")."""
    limit = options.failure_percentage_threshold
    counted = {at: t for at, t in enumerate(tallies) if t.answers >= max(1, options.failure_percentage_volume)}
    if len(counted) < options.failure_percentage_minimum_hosts:
        return {}
    return {
        at: f"{tally.success:.1%} of {tally.answers} answers were good, fewer than {100 - limit} %"
        for at, tally in counted.items()
        if tally.bad * 100 > limit * tally.answers
    }


def by_all_bad(tallies: Sequence[Tally], options: Options) -> dict[int, str]:
    """Those that answered nothing well, however few members there are."""
    volume = max(1, options.failure_percentage_volume)
    return {
        at: f"none of {tally.answers} answers was good"
        for at, tally in enumerate(tallies)
        if tally.answers >= volume and tally.bad >= tally.answers
    }


def outliers(tallies: Sequence[Tally], options: Options) -> list[Outlier]:
    """All of them, the worst first, since not all may go; those found by two rules once, the stricter one's."""
    found: dict[int, Outlier] = {}
    answers, bad = sum(tally.answers for tally in tallies), sum(tally.bad for tally in tallies)
    for rule, enforcement in (
        (by_all_bad, options.failure_percentage_enforcement),
        (by_failure_percentage, options.failure_percentage_enforcement),
        (by_success_rate, options.success_rate_enforcement),
    ):
        for place, why in rule(tallies, options).items():
            tally = tallies[place]
            others = Tally(answers - tally.answers, bad - tally.bad)
            if not others.answers or tally.success > others.success - NOTABLY:
                continue
            if place not in found or found[place].enforcement < enforcement:
                found[place] = Outlier(place, f"{why}; of the others' {others.success:.1%} were", enforcement)
    return sorted(found.values(), key=lambda outlier: (tallies[outlier.place].success, outlier.place))
