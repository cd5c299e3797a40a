"""Where the demo shows what happens: a live table on a terminal, lines on stderr otherwise."""

from __future__ import annotations

import sys
from typing import Protocol, Self

from headlessconn.cli.render import Frame, frame_line, frame_table, legend


class View(Protocol):
    def event(self, at: float, text: str) -> None: ...

    def frame(self, frame: Frame) -> None: ...


class Lines:
    """One line an event and one a second, on stderr: stdout is for the result."""

    def __init__(self) -> None:
        self._second = -1

    def event(self, at: float, text: str) -> None:
        print(f"{at:5.1f} s  * {text}", file=sys.stderr, flush=True)

    def frame(self, frame: Frame) -> None:
        if self._second < 0:
            print(f"{'':9} {legend(frame.clients)}", file=sys.stderr, flush=True)
            self._second = 0
        if int(frame.at) > self._second:
            self._second = int(frame.at)
            print(frame_line(frame), file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Screen:
    """rich's live display. It is drawn when a frame comes: rich's own thread would look at half a frame."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False)

    def event(self, at: float, text: str) -> None:
        """Frames carry the latest events themselves."""

    def frame(self, frame: Frame) -> None:
        self._live.update(frame_table(frame, width=self._console.width), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
