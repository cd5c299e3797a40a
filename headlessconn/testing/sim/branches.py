"""Which branches of `core/` a run takes: measured on a sample, since tracing costs twenty times the run itself.

An arc is a step from one line to another of the same function, as the interpreter makes it. The arcs that could be
taken are read from the bytecode: every line that ends in a jump leads to two others.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from headlessconn import core

CORE = str(Path(core.__file__).parent)

Arc = tuple[str, int, int]


class Branches:
    """The arcs that were taken while `tracing`."""

    def __init__(self) -> None:
        self.taken: set[Arc] = set()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(CORE):
            frame.f_trace_lines = False
            return None
        last = frame.f_lineno
        taken = self.taken

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                taken.add((name, last, frame.f_lineno))
                last = frame.f_lineno
            elif event == "return":
                taken.add((name, last, -1))
            return line

        return line

    def missing(self) -> list[Arc]:
        """Branching lines of modules that are loaded, with a target that was never reached: (file, line, target)."""
        found: set[Arc] = set()
        for module in sorted(name for name in sys.modules if name.startswith("headlessconn.core.")):
            file = sys.modules[module].__file__
            if file is None:
                continue
            code = compile(Path(file).read_text(encoding="utf-8"), file, "exec")
            for line, target in _arcs(code):
                ran = any((file, before, line) in self.taken for before in range(line - 40, line + 40))
                if ran and (file, line, target) not in self.taken:
                    found.add((file, line, target))
        return sorted(found)

    def lines(self) -> Iterator[str]:
        """Where it was never gone, file by file: `health.py: 72 > 73, 150 > 151`."""
        by_file: dict[str, list[str]] = {}
        for file, line, target in self.missing():
            by_file.setdefault(Path(file).name, []).append(f"{line} > {target}")
        for file, arcs in by_file.items():
            yield f"  {file}: {', '.join(arcs)}"


def _arcs(code: CodeType) -> Iterator[tuple[int, int]]:
    """From a line that ends in a conditional jump, to each line that it may lead to."""
    instructions = list(dis.get_instructions(code))
    lines: dict[int, int] = {}
    line = code.co_firstlineno
    for instruction in instructions:
        if instruction.starts_line is not None:
            line = instruction.starts_line
        lines[instruction.offset] = line
    for index, instruction in enumerate(instructions[:-1]):
        if "JUMP" in instruction.opname and "_IF_" in instruction.opname:
            here = lines[instruction.offset]
            for offset in (instruction.argval, instructions[index + 1].offset):
                if lines[offset] != here:
                    yield here, lines[offset]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _arcs(constant)
