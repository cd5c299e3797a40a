"""Numbers to lines and tables. Nothing here prints, asks, or looks at a clock.

Each thing has two forms: plain lines, and a rich renderable for terminals. rich is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

EIGHTHS = " ▏▎▍▌▋▊▉█"


# ---- resolve -----------------------------------------------------------------------------------------------------

OUTCOMES = {
    "ok": "",
    "nodata": "no endpoints: the name exists without such records",
    "nxdomain": "no endpoints: no such name, or no ready pod",
    "no_endpoints": "no endpoints: the namespace exists, the name does not, or it has no ready pod",
    "temporary_failure": "no answer",
    "partial": "only a part of the endpoints fits into the answer",
}


def resolution_head(
    name: str, outcome: str, rcode: str | None, count: int, ttl: float | None, transport: str | None
) -> str:
    """`orders.shop.svc.cluster.local.  3 endpoints, TTL 5 s, by udp`."""
    said = OUTCOMES[outcome] or f"{count} endpoint{'' if count == 1 else 's'}"
    parts = [said, *([rcode] if rcode and outcome != "ok" else [])]
    parts += [f"TTL {ttl:g} s"] if ttl is not None else []
    parts += [f"by {transport}"] if transport else []
    return f"{name}  {', '.join(parts)}"


def resolution_lines(head: str, rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    yield head
    if rows:
        yield from _aligned([("ADDRESS", "PORT", "TARGET"), *rows])


def resolution_table(head: str, rows: Sequence[tuple[str, str, str]]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return Text(head, style="yellow")
    table = Table("address", "port", "target", box=None, header_style="dim", pad_edge=False)
    for address, port, target in rows:
        table.add_row(Text(address, style="cyan"), Text(port), Text(target))
    return Group(Text(head, style="bold"), table)


# ---- the demo while it runs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PodRow:
    """A pod now: its name, what it is doing, and the requests a second that it answers to each client."""

    name: str
    state: str
    rates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """The demo at one moment, `at` of `total` seconds. `most` is the rate of a full bar; lists go as `clients` does."""

    at: float
    total: float
    ttl: float
    most: float
    clients: tuple[str, ...]
    pods: tuple[PodRow, ...]
    requests: tuple[int, ...]
    failed: tuple[int, ...]
    events: tuple[tuple[float, str], ...]


STATES = {"ready": "", "terminating": "yellow", "crashed": "red", "gone": "dim"}


def bar(value: float, most: float, width: int) -> str:
    """A bar of `width` cells when `value` is `most`, in steps of an eighth of a cell; what is more is cut.

    >>> bar(3.5, 10, 10)
    '███▌'
    """
    eighths = round(max(0.0, min(1.0, value / most)) * width * 8)
    return "█" * (eighths // 8) + (EIGHTHS[eighths % 8] if eighths % 8 else "")


def frame_line(frame: Frame) -> str:
    """`  7.0 s    orders-0 100 | 67   orders-1 100 | 66   orders-2 0 | 67   failed 0 | 0`."""
    pods = [f"{pod.name} {_each(pod.rates)}" for pod in frame.pods if pod.state != "gone"]
    return "   ".join([f"{frame.at:5.1f} s ", *pods, f"failed {_each(frame.failed)}"])


def legend(clients: Sequence[str]) -> str:
    """What the columns of `frame_line` are."""
    return f"requests a second at each pod: {' | '.join(clients)}"


def frame_table(frame: Frame, *, width: int) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    cells = max(6, min(36, (width - 26) // len(frame.clients) - 9))
    colours = ("yellow", "green")
    table = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    table.add_column("pod", no_wrap=True, min_width=9)
    table.add_column("", no_wrap=True, min_width=11)
    for name in frame.clients:
        table.add_column(name, no_wrap=True, min_width=cells + 7)
    for pod in frame.pods:
        row = [Text(pod.name, style="dim" if pod.state == "gone" else ""), Text(pod.state, style=STATES[pod.state])]
        for rate, colour in zip(pod.rates, colours, strict=True):
            shown = Text(bar(rate, frame.most, cells).ljust(cells), style=colour)
            row.append(shown if pod.state == "gone" and not rate else shown.append(f" {rate:>3}/s", style="default"))
        table.add_row(*row)
    totals = [
        Text(f"{failed} of {requests} failed", style="red" if failed else "dim")
        for requests, failed in zip(frame.requests, frame.failed, strict=True)
    ]
    table.add_row()
    table.add_row("", "", *totals)
    head = Text.assemble(
        (f"{frame.at:4.0f} of {frame.total:.0f} s", "bold"),
        ("   the same load for both; DNS records live for ", "dim"),
        (f"{frame.ttl:g} s", "dim"),
    )
    events = [Text(f"{at:5.1f} s  {text}", style="dim", no_wrap=True, overflow="ellipsis") for at, text in frame.events]
    if events:
        events[-1].stylize("not dim")
    return Group(Text(), head, Text(), table, Text(), *events)


# ---- the demo's end ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measured:
    """What the demo found out about one client; its fields are those of the JSON form.

    first_request_at_new_pod_s  seconds from the new pod's record in DNS to the first request it got; None: none came
                                before the rolling restart, which breaks old connections and so brings new ones
    share_of_new_pod            of the requests of the last seconds before the rolling restart, 0.0 to 1.0
    failed, requests            over the whole run
    """

    first_request_at_new_pod_s: float | None
    share_of_new_pod: float
    failed: int
    requests: int


def summary_rows(clients: Sequence[Measured], *, watched: float, window: float) -> Iterator[tuple[str, ...]]:
    """The rows of the last table, the first cell of each says what it is."""
    yield ("first request at the new pod", *(_first(one, watched) for one in clients))
    share = f"its share in the last {window:.0f} s (fair: 33 %)"
    yield (share, *(f"{one.share_of_new_pod:.0%}".replace("%", " %") for one in clients))
    yield ("failed requests", *(f"{one.failed}" for one in clients))
    yield ("requests", *(f"{one.requests}" for one in clients))


def summary_lines(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield from _aligned([("", *names), *rows])


def summary_table(names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> RenderableType:
    from rich import box
    from rich.table import Table

    table = Table("", *names, box=box.SIMPLE_HEAD, pad_edge=False)
    for what, *cells in rows:
        table.add_row(what, *cells)
    return table


def _first(one: Measured, watched: float) -> str:
    if one.first_request_at_new_pod_s is None:
        return f"never, in {watched:.0f} s"
    return f"after {one.first_request_at_new_pod_s:.1f} s"


def _each(numbers: Sequence[int]) -> str:
    return " | ".join(map(str, numbers))


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
