"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [_row(header), _row(["---"] * len(header))]
    for row in rows:
        assert len(row) == len(header), row
        lines.append(_row(row))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(text: str) -> str:
    kept = re.sub(r"(?<=\d) (?=s\b)", "\N{NO-BREAK SPACE}", text)  # a number and its unit stay on one line
    return kept.replace("|", "\\|").replace("\n", " ")
