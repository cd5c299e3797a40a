"""Our docstrings are plain text with few habits; here these are read, and written as reStructuredText or Markdown.

    name        text after at least two spaces: one row of a list of definitions; so is `name: text`
    indented    after an empty line: code
    `name`      code, and a link when it is a name of the public API
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_SPACED = re.compile(r"(?P<term>\S(?:.*?\S)?)  +(?P<text>\S.*)")
_COLONED = re.compile(r"(?P<term>[a-z_]+(?:, [a-z_]+)*): +(?P<text>\S.*)")
INDENT = "    "
_CODE = re.compile(r"`([^`]+)`")

# Where a name is documented, by the name that docstrings use for it.
HOMES = {
    **{name: f"headlessconn.{name}" for name in ("Client", "Service", "Pick", "Options", "Target", "Endpoint")},
    **{
        name: f"headlessconn.errors.{name}"
        for name in (
            *("HeadlessError", "TargetError", "OptionError", "NoEndpoints", "DialFailed"),
            *("ClosedError", "WrongLoop", "PickEnded"),
        )
    },
    **{name: f"headlessconn.core.snapshot.{name}" for name in ("Snapshot", "MemberView")},
    **{name: f"headlessconn.core.effects.{name}" for name in ("Change", "Move")},
    **{name: f"headlessconn.checks.{name}" for name in ("Tcp", "Http")},
    "State": "headlessconn.core.member.State",
    "Answer": "headlessconn.core.endpoint.Answer",
    "HeadlessConnector": "headlessconn.adapters.aiohttp.HeadlessConnector",
    "EmbeddedCluster": "headlessconn.testing.EmbeddedCluster",
    "EmbeddedService": "headlessconn.testing.EmbeddedService",
    "Client.service": "headlessconn.Client.service",
    "Service.pick": "headlessconn.Service.pick",
}
# Where the code defines what is documented under a shorter name, for the types in signatures.
MOVED = {
    "headlessconn.client.": "headlessconn.",
    "headlessconn.core.endpoint.Endpoint": "headlessconn.Endpoint",
    "headlessconn.core.target.Target": "headlessconn.Target",
    "headlessconn.options.Options": "headlessconn.Options",
    "headlessconn.testing.cluster.": "headlessconn.testing.",
    "headlessconn.testing.pod.": "headlessconn.testing.",
    "headlessconn.testing.zone.": "headlessconn.testing.",
    "headlessconn.testing.sim.run.": "headlessconn.testing.sim.",
    "headlessconn.testing.sim.world.": "headlessconn.testing.sim.",
    "headlessconn.testing.sim.zone.": "headlessconn.testing.sim.",
}


class Block(NamedTuple):
    """A part of a docstring. `rows` are (term, text) of definitions; `lines` what the others consist of."""

    kind: Literal["text", "code", "rows"]
    lines: Sequence[str]
    rows: Sequence[tuple[str, str]] = ()


def blocks(lines: Sequence[str]) -> Iterator[Block]:
    """The parts of a docstring whose common indentation has been taken away."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            parts[-1].append(line)
        elif parts[-1]:
            parts.append([])
    code: list[str] = []
    for part in filter(None, parts):
        if part[0].startswith(INDENT):  # an empty line in the middle of code does not end it
            code += ["", *part] if code else part
            continue
        if code:
            yield _code(code)
            code = []
        yield _block(part)
    if code:
        yield _code(code)


def _code(part: list[str]) -> Block:
    return Block("code", [line.removeprefix(INDENT) for line in part])


def _block(part: list[str]) -> Block:
    if part[0].startswith(">>>"):
        return Block("code", part)
    for row in (_SPACED, _COLONED):
        rows = _rows(part, row)
        if rows:
            return Block("rows", (), rows)
    return Block("text", part)


def _rows(part: list[str], row: re.Pattern[str]) -> list[tuple[str, str]]:
    """The rows of a part, or none when it is not all rows. A long term may leave one space before the column."""
    first = row.fullmatch(part[0])
    if first is None:
        return []
    column = first.start("text")
    rows: list[tuple[str, str]] = []
    for line in part:
        if line.startswith(" "):
            term, text = rows.pop()
            rows.append((term, f"{text} {line.strip()}"))
        elif found := row.fullmatch(line):
            rows.append((found["term"].strip("`"), found["text"]))
        elif row is _SPACED and line[column - 1 : column] == " ":
            rows.append((line[: column - 1].strip("`"), line[column:]))
        else:
            return []
    return rows


def to_rst(lines: Sequence[str]) -> list[str]:
    out: list[str] = []
    for block in blocks(lines):
        match block.kind:
            case "code":
                out += [f".. code-block:: {language(block.lines)}", "", *(f"    {line}" for line in block.lines)]
            case "rows":
                for term, text in block.rows:
                    out += [_terms(term, "``"), f"    {_rst_inline(text)}"]
            case "text":
                out += _rst_inline("\n".join(block.lines)).split("\n")
        out.append("")
    return out


def to_markdown(lines: Sequence[str]) -> str:
    out: list[str] = []
    for block in blocks(lines):
        match block.kind:
            case "code":
                out += [f"```{language(block.lines)}", *block.lines, "```"]
            case "rows":
                for term, text in block.rows:
                    out += [_terms(term, "`"), f": {markdown_inline(text)}", ""]
            case "text":
                out.append(markdown_inline("\n".join(block.lines)))
        out.append("")
    return "\n".join(out)


def markdown_inline(text: str) -> str:
    """One backtick is code in Markdown too; public names become links."""
    return _CODE.sub(lambda found: f"{{py:obj}}`{_link(found[1])}`" if found[1] in HOMES else found[0], text)


def _rst_inline(text: str) -> str:
    pieces = _CODE.split(text)
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            pieces[i] = piece.replace("\\", "\\\\").replace("|", "\\|")
        elif piece in HOMES:
            pieces[i] = f":py:obj:`{_link(piece)}`"
        else:
            pieces[i] = f"``{piece}``"
        if i % 2 == 0 and i > 0 and piece[:1].isalnum():
            pieces[i] = "\\ " + pieces[i]  # the end of code wants a border
    return "".join(pieces)


def _link(name: str) -> str:
    return f"{name} <{HOMES[name]}>"


def _terms(term: str, quote: str) -> str:
    return ", ".join(f"{quote}{name}{quote}" for name in term.split(", "))


def language(code: Sequence[str]) -> str:
    text = "\n".join(code)
    if ">>>" in text:
        return "pycon"
    return "text" if set("├│└…") & set(text) else "python"


def on_docstring(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """autodoc has a docstring: put it into reStructuredText."""
    lines[:] = to_rst(lines)


def on_missing_reference(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement
) -> nodes.reference | None:
    """A name that is documented under a shorter one."""
    target = node.get("reftarget", "")
    new = HOMES.get(target)
    for old, shorter in MOVED.items():
        if target.startswith(old):
            new = shorter + target.removeprefix(old)
    if node.get("refdomain") != "py" or new is None or new == target:
        return None
    python = env.domains.python_domain
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", new, node, contents)
