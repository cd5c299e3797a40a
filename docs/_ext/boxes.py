"""Boxes and the arrows between them, as SVG in the colours of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from math import hypot, inf

APART = 11  # pixels between an arrow and the middle, where there is one back


@dataclass(frozen=True)
class Drawing:
    """`places`: the middle of each box, by its name; its class in the style sheet is the name in small letters."""

    label: str
    width: int
    height: int
    box: tuple[int, int]
    places: Mapping[str, tuple[int, int]]

    def svg(self, arrows: Mapping[tuple[str, str], str]) -> str:
        """`arrows`: what is written beside the arrow from one box to another."""
        parts = [
            f'<svg class="diagram" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{self.label}">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0L10 5L0 10z"/></marker></defs>',
            *(line for ends, text in arrows.items() for line in self._arrow(*ends, text, ends[::-1] in arrows)),
            *(line for name in self.places for line in self._box(name)),
            "</svg>",
        ]
        return "\n".join(parts)

    def _box(self, name: str) -> Iterator[str]:
        x, y = self.places[name]
        width, height = self.box
        place = f'x="{x - width / 2}" y="{y - height / 2}" width="{width}" height="{height}" rx="8"'
        yield f'<rect class="{name.lower()}" {place}/>'
        yield f'<text class="state" x="{x}" y="{y + 5}">{escape(name)}</text>'

    def _arrow(self, before: str, after: str, text: str, has_return: bool) -> Iterator[str]:
        (x1, y1), (x2, y2) = self.places[before], self.places[after]
        length = hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        aside = APART if has_return else 0
        ox, oy = -dy * aside, dx * aside  # to the right of its direction, so that the two ways lie apart
        start, end = self._to_border(ox, oy, dx, dy), length - self._to_border(ox, oy, -dx, -dy)
        ax, ay, bx, by = x1 + ox + dx * start, y1 + oy + dy * start, x1 + ox + dx * end, y1 + oy + dy * end
        yield f'<path class="move" d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" marker-end="url(#tip)"/>'
        # The label sits beside its arrow, on the arrow's own side, nearer to the end which has more room around it.
        outward = abs(bx - self.width / 2) - abs(ax - self.width / 2)
        part = 0.5 if abs(outward) < self.box[0] or not dy else 0.62 if outward > 0 else 0.38
        lx, ly = ax + (bx - ax) * part - dy * 8, ay + (by - ay) * part + dx * 8
        anchor = "middle" if abs(dy) < 0.2 else "start" if -dy > 0 else "end"
        place = f'x="{lx:.1f}" y="{ly + 4 + dx * 3:.1f}" style="text-anchor:{anchor}"'
        yield f'<text class="cause" {place}>{escape(text)}</text>'

    def _to_border(self, x: float, y: float, dx: float, dy: float) -> float:
        """How far it is from a point in a box, given from its middle, to its border."""
        width, height = self.box
        across = (width / 2 - x * (1 if dx > 0 else -1)) / abs(dx) if dx else inf
        along = (height / 2 - y * (1 if dy > 0 else -1)) / abs(dy) if dy else inf
        return min(across, along) + 2
