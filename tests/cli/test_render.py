"""Numbers to lines: no process, no cluster."""

import io

import pytest
from rich.console import Console

from headlessconn.cli.render import (
    Frame,
    Measured,
    PodRow,
    bar,
    frame_line,
    frame_table,
    resolution_head,
    resolution_lines,
    summary_lines,
    summary_rows,
)

FRAME = Frame(
    at=7.04,
    total=40,
    ttl=5,
    most=100,
    clients=("plain aiohttp", "headlessconn"),
    pods=(
        PodRow("orders-0", "ready", (100, 67)),
        PodRow("orders-1", "crashed", (100, 0)),
        PodRow("orders-2", "terminating", (0, 133)),
        PodRow("orders-3", "gone", (0, 0)),
    ),
    requests=(1400, 1399),
    failed=(3, 0),
    events=tuple((float(at), f"event {at} " + "and so on " * 12) for at in range(6)),
)


@pytest.mark.parametrize(
    ("value", "drawn"),
    [(0, ""), (0.5, "▌"), (5, "█████"), (9.99, "█" * 10), (10, "█" * 10), (99, "█" * 10), (-1, "")],
)
def test_a_bar_has_eighths_and_two_ends(value: float, drawn: str) -> None:
    assert bar(value, 10, 10) == drawn


def test_a_frame_is_one_line_where_pods_that_are_gone_are_left_out() -> None:
    assert frame_line(FRAME) == (
        "  7.0 s    orders-0 100 | 67   orders-1 100 | 0   orders-2 0 | 133   failed 3 | 0"
    )


@pytest.mark.parametrize("width", [72, 80, 100, 200])
def test_a_frame_fits_into_a_terminal_of_24_lines(width: int) -> None:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(frame_table(FRAME, width=width))
    lines = stream.getvalue().splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for said in ("100/s", "133/s", "crashed", "terminating", "3 of 1400 failed", "7 of 40 s", "event 5"):
        assert said in text


def test_a_summary_says_never_and_percent() -> None:
    both = (Measured(None, 0.0, 88, 7992), Measured(0.983, 0.3341, 0, 7990))
    rows = list(summary_rows(both, watched=13.2, window=5.0))
    text = "\n".join(summary_lines(FRAME.clients, rows))
    for said in ("never, in 13 s", "after 1.0 s", "0 %", "33 %", "88", "7992", "7990"):
        assert said in text


def test_a_resolution_is_a_head_and_aligned_columns() -> None:
    head = resolution_head("web.shop.svc.cluster.local.", "ok", "NOERROR", 2, 5, "udp")
    assert list(resolution_lines(head, [("10.0.0.9", "80", "a."), ("10.0.0.10", "", "")])) == [
        "web.shop.svc.cluster.local.  2 endpoints, TTL 5 s, by udp",
        "ADDRESS    PORT  TARGET",
        "10.0.0.9   80    a.",
        "10.0.0.10",
    ]
    assert "SERVFAIL" in resolution_head("web.", "temporary_failure", "SERVFAIL", 0, None, None)
