"""The life of an endpoint, from the table of moves in `headlessconn.core.member` and the comments beside it."""

from __future__ import annotations

import ast
import inspect

from boxes import Drawing
from markdown_tables import table

from headlessconn.core import member
from headlessconn.core.member import MOVES, State

# What a cause of the table is, in the world. A cause that is missing here fails the build.
CAUSES = {
    "refuse": "a dial was refused, found no route, or timed out",
    "connect": "a dial or a probe succeeded",
    "reconnect": "a dial or a probe succeeded",
    "eject": "`consecutive_failures` bad answers in a row, and not the last one that is ready",
    "readmit": "its time is over, and the one request that tried it went well",
    "leave": "DNS no longer lists it",
    "expire": "`stale_after` seconds of silence, and it is not the last one",
    "return": "DNS lists it again",
    "drained": "nothing is open any more",
}

# Where each state stands. A state that is missing here fails the build.
DRAWING = Drawing(
    "The states of an endpoint",
    width=760,
    height=420,
    box=(116, 44),
    places={
        "READY": (90, 210),
        "FAILING": (380, 50),
        "EJECTED": (380, 210),
        "DRAINING": (380, 370),
        "GONE": (670, 210),
    },
)


def table_of_states() -> str:
    comments = _comments()
    return table(("state", "meaning"), [(f"**{state.name}**", comments[state.name]) for state in State])


def table_of_moves() -> str:
    comments = _comments()
    rows = []
    for (before, cause), after in MOVES.items():
        note = comments.get(f"{before.name} {cause}", "")
        rows.append((before.name, f"*{cause}*", "; ".join(filter(None, (CAUSES[cause], note))), after.name))
    return table(("from", "move", "when", "to"), rows)


def tables() -> str:
    return f"{table_of_states()}\n\n{table_of_moves()}"


def _comments() -> dict[str, str]:
    """The comment behind each line of the enumeration (`READY`) and of the table (`READY refuse`)."""
    source = inspect.getsource(member)
    lines = source.splitlines()
    found = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str())):
                found[name] = _behind(lines, node)
            case ast.Tuple(elts=[ast.Attribute(attr=before), ast.Constant(value=str(cause))]):
                found[f"{before} {cause}"] = _behind(lines, node)
    return found


def _behind(lines: list[str], node: ast.stmt | ast.expr) -> str:
    return lines[node.lineno - 1].partition("  # ")[2]


def diagram() -> str:
    """The states and the moves between them."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for (before, cause), after in MOVES.items():
        arrows.setdefault((before.name, after.name), []).append(cause)
    return DRAWING.svg({ends: ", ".join(causes) for ends, causes in arrows.items()})
