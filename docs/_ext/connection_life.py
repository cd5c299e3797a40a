"""The life of a pooled connection, from the table of its ways in `headlessconn.core.pooling.slot`."""

from __future__ import annotations

from boxes import Drawing
from markdown_tables import table

from headlessconn.core.pooling.slot import MOVES, Phase

# What it is in, for somebody who reads the log or the snapshot. A phase that is missing here fails the build.
MEANS = {
    Phase.OPENING: "TCP, TLS, login: `open`",
    Phase.CHECKING: "`check` looks whether it works still, before it is handed out",
    Phase.IDLE: "open, and in nobody's hands",
    Phase.BUSY: "handed out",
    Phase.RESETTING: "`reset` cleans it for the next one",
    Phase.CLOSING: "`close`",
    Phase.CLOSED: "it is not the pool's any more",
}
DRAWING = Drawing(
    "The phases of a connection",
    width=760,
    height=400,
    box=(116, 44),
    places={
        "OPENING": (90, 60),
        "BUSY": (380, 60),
        "RESETTING": (670, 60),
        "CHECKING": (90, 200),
        "IDLE": (380, 200),
        "CLOSING": (380, 340),
        "CLOSED": (90, 340),
    },
)


def tables() -> str:
    phases = table(("phase", "meaning"), [(f"**{phase.name}**", MEANS[phase]) for phase in Phase])
    ways = table(("from", "to", "when"), [(before.name, after.name, when) for (before, after), when in MOVES.items()])
    return f"{phases}\n\n{ways}"


def diagram() -> str:
    return DRAWING.svg({(before.name, after.name): "" for before, after in MOVES})
