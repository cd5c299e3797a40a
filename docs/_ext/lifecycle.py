"""The life of an endpoint, from the table of moves in `headlessconn.core.member` and the comments beside it."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from html import escape
from math import hypot, inf

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

WIDTH, HEIGHT = 760, 420
BOX = 116, 44
# Where each state stands. A state that is missing here fails the build.
PLACES = {
    State.READY: (90, 210),
    State.FAILING: (380, 50),
    State.EJECTED: (380, 210),
    State.DRAINING: (380, 370),
    State.GONE: (670, 210),
}
APART = 11  # pixels between an arrow and the middle, where there is one back


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


# ---- the diagram -------------------------------------------------------------------------------------------------


def diagram() -> str:
    """The states and the moves between them, as SVG in the colours of the page."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (before, cause), after in MOVES.items():
        arrows.setdefault((before, after), []).append(cause)
    parts = [
        f'<svg class="diagram" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="The states of an endpoint">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z"/></marker></defs>',
        *(line for ends, causes in arrows.items() for line in _arrow(*ends, causes, ends[::-1] in arrows)),
        *(line for state in State for line in _box(state)),
        "</svg>",
    ]
    return "\n".join(parts)


def _box(state: State) -> Iterator[str]:
    x, y = PLACES[state]
    width, height = BOX
    place = f'x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="8"'
    yield f'<rect class="{state.value}" {place}/>'
    yield f'<text class="state" x="{x}" y="{y + 5}">{escape(state.name)}</text>'


def _arrow(before: State, after: State, causes: list[str], has_return: bool) -> Iterator[str]:
    (x1, y1), (x2, y2) = PLACES[before], PLACES[after]
    length = hypot(x2 - x1, y2 - y1)
    dx, dy = (x2 - x1) / length, (y2 - y1) / length
    aside = APART if has_return else 0
    ox, oy = -dy * aside, dx * aside  # to the right of its direction, so that the two ways lie apart
    start, end = _to_border(ox, oy, dx, dy), length - _to_border(ox, oy, -dx, -dy)
    ax, ay, bx, by = x1 + ox + dx * start, y1 + oy + dy * start, x1 + ox + dx * end, y1 + oy + dy * end
    yield f'<path class="move" d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" marker-end="url(#tip)"/>'
    # The label sits beside its arrow, on the arrow's own side, nearer to the end which has more room around it.
    outward = abs(bx - WIDTH / 2) - abs(ax - WIDTH / 2)
    part = 0.5 if abs(outward) < BOX[0] or not dy else 0.62 if outward > 0 else 0.38
    lx, ly = ax + (bx - ax) * part - dy * 8, ay + (by - ay) * part + dx * 8
    anchor = "middle" if abs(dy) < 0.2 else "start" if -dy > 0 else "end"
    place = f'x="{lx:.1f}" y="{ly + 4 + dx * 3:.1f}" style="text-anchor:{anchor}"'
    yield f'<text class="cause" {place}>{escape(", ".join(causes))}</text>'


def _to_border(x: float, y: float, dx: float, dy: float) -> float:
    """How far it is from a point in a box, given from its middle, to its border."""
    width, height = BOX
    across = (width / 2 - x * (1 if dx > 0 else -1)) / abs(dx) if dx else inf
    along = (height / 2 - y * (1 if dy > 0 else -1)) / abs(dy) if dy else inf
    return min(across, along) + 2
