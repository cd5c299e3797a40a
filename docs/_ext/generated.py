"""What the manual does not say by itself, because the code says it: each directive asks the code, writes Markdown, and
has it read like the page around it.

    ```{dns-answers}        what each reply means to the set: the engine and the look-up are run for each row
    ```{dns-walk}           which names are asked for a written name, and what comes of it
    ```{dns-schedule}       when DNS is asked again while nobody is listed, or nothing is said
    ```{life-diagram}       the states of an endpoint, drawn from the table of moves
    ```{life-table}         the same as a table
    ```{connection-diagram}  the phases of a pooled connection, drawn from the table of its ways
    ```{connection-table}   the same as a table
    ```{options}            every option, with unit, default, range and reason
    ```{errors}             every error, with an example of its message
    ```{advice}             what to check, by what DNS said last
    ```{explained}          what `service.explain()` says in a few situations
    ```{faults}             what clients did under real faults, from `faults.json`
    ```{command-help} NAME  the help of a command, as it prints it; without a name, that of the program
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import command_line
import connection_life
import dns_answers
import errors_page
import faults_plot
import lifecycle
import options_page
import plain_docstrings
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx

MARKDOWN: dict[str, Callable[[], str]] = {
    "dns-answers": dns_answers.answers,
    "dns-walk": dns_answers.walk,
    "dns-schedule": dns_answers.schedule,
    "explained": dns_answers.explained,
    "life-table": lifecycle.tables,
    "connection-table": connection_life.tables,
    "options": options_page.options,
    "errors": errors_page.entries,
    "advice": errors_page.advice_table,
    "faults": faults_plot.faults,
}


class Generated(SphinxDirective):
    """Markdown made when the page is read."""

    def run(self) -> list[nodes.Node]:
        return [nodes.container("", *self.parse_text_to_nodes(MARKDOWN[self.name]()), classes=[self.name])]


DIAGRAMS: dict[str, Callable[[], str]] = {
    "life-diagram": lifecycle.diagram,
    "connection-diagram": connection_life.diagram,
}


class Diagram(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", DIAGRAMS[self.name](), format="html")]


class CommandHelp(SphinxDirective):
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        return list(self.parse_text_to_nodes(command_line.help_of(*self.arguments)))


def setup(app: Sphinx) -> dict[str, Any]:
    for name in MARKDOWN:
        app.add_directive(name, Generated)
    for name in DIAGRAMS:
        app.add_directive(name, Diagram)
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-docstring", plain_docstrings.on_docstring)
    app.connect("missing-reference", plain_docstrings.on_missing_reference)
    # A page made from the code is old as soon as the code is: Sphinx cannot see that, so it reads everything each time.
    app.connect("env-get-outdated", lambda app, env, added, changed, removed: sorted(env.found_docs))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
