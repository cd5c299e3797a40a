"""Every option, from the fields of `Options`: default and type as they are, the reason from the docstring below each,
and what it may be from the error that an impossible value gets."""

from __future__ import annotations

import ast
import inspect
import json
import re
from dataclasses import MISSING, Field, fields
from itertools import pairwise

from markdown_tables import table
from plain_docstrings import markdown_inline

from headlessconn import options as module
from headlessconn.errors import OptionError
from headlessconn.options import Options

# `Options` says: spans are seconds. A number that is none is named here.
NO_SPANS: dict[str, str] = {
    "success_rate_stdev_factor": "thousandths of a standard deviation, a whole number",
    "success_rate_enforcement": "percent, a whole number",
    "failure_percentage_threshold": "percent, a whole number",
    "failure_percentage_enforcement": "percent, a whole number",
}


class Impossible:
    """No option may be this."""

    def __repr__(self) -> str:
        return "this"


def options() -> str:
    reasons = _reasons()
    rows, entries = [], []
    for option in fields(Options):
        default, unit, must = _default(option), _unit(option), _must_be(option)
        rows.append((f"{{py:attr}}`~headlessconn.Options.{option.name}`", f"`{default}`", unit or "", must))
        entries.append(_entry(option, default, unit, must, reasons[option.name]))
    here = "```{py:currentmodule} headlessconn\n```"
    return "\n\n".join([here, table(("option", "default", "unit", "must be"), rows), *entries])


def _entry(option: Field[object], default: str, unit: str, must: str, reason: str) -> str:
    facts = ", ".join(filter(None, (unit, must)))
    head = [f"```{{py:attribute}} Options.{option.name}", f":value: {json.dumps(default)}"]
    return "\n".join([*head, "", f"*{facts}*", "", markdown_inline(reason), "```"])


def _reasons() -> dict[str, str]:
    """The string that stands below each field."""
    tree = ast.parse(inspect.getsource(module))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Options")
    found = {}
    for field, below in pairwise(body):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text)
    return found


def _default(option: Field[object]) -> str:
    if option.default is not MISSING:
        return repr(option.default)
    assert option.default_factory is not MISSING
    return repr(option.default_factory())


def _unit(option: Field[object]) -> str:
    if option.name in NO_SPANS:
        return NO_SPANS[option.name]
    return {"float": "seconds", "float | None": "seconds", "int": "a whole number", "int | None": "a whole number"}.get(
        str(option.type), ""
    )


def _must_be(option: Field[object]) -> str:
    try:
        Options(**{option.name: Impossible()})  # type: ignore[arg-type]
    except OptionError as error:
        must = error.problem.removeprefix("this is not ").removeprefix("a whole number ")
        return re.sub(r"'(\w+)'", r"`\1`", must).replace("(", "").replace(")", "")
    raise AssertionError(f"option {option.name} takes anything")
