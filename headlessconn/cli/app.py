"""The commands and their options: what people type, and nothing of what is done then."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import typer

from headlessconn import __version__
from headlessconn.errors import OptionError, TargetError

T = TypeVar("T")

USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def is_terminal() -> bool:
    """Whether somebody looks at stdout, on a terminal that can do more than lines."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


app = typer.Typer(
    help="Client-side load balancing over the pods of Kubernetes headless Services.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if is_terminal() else None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"headlessconn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Say which version this is.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # A terminal whose encoding has no bars or arrows gets question marks instead of a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


@app.command()
def resolve(
    target: Annotated[
        str, typer.Argument(help="orders.shop:8080, orders.shop:http, orders.shop, static:///10.0.0.1:80")
    ],
    nameserver: Annotated[
        list[str] | None,
        typer.Option(help="IP[:PORT] to ask; may be repeated. Default: those of resolv.conf.", metavar="IP[:PORT]"),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            help="Search domain; may be repeated, '.' is none. Default: those of resolv.conf.", metavar="DOMAIN"
        ),
    ] = None,
    ndots: Annotated[
        int | None, typer.Option(min=0, help="Names with fewer dots are tried with the search list first.")
    ] = None,
    family: Annotated[Literal["4", "6", "auto"], typer.Option(help="IPv4, IPv6, or IPv4 and else IPv6.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the endpoints behind a target.

    It is looked up once, as the library does it. Exit code 1 when there are no endpoints.
    """
    from headlessconn.cli import resolve as command
    from headlessconn.core.target import Target
    from headlessconn.options import Options

    try:
        parsed = Target.parse(target)
        options = Options(
            nameservers=tuple(nameserver) if nameserver else None,
            search=tuple(search) if search else None,
            ndots=ndots,
            family=family,
        )
        found = _run(command.look_up(parsed, options))
    except (TargetError, OptionError) as wrong:
        _misused(str(wrong))
    command.show(found, as_json=json, rich=is_terminal())
    raise typer.Exit(0 if found.outcome == "ok" else 1)


@app.command()
def demo(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object when it is over.")] = False,
    gap: Annotated[
        float, typer.Option(min=0, help="Let the load pause for so long after the scale-out.", metavar="SECONDS")
    ] = 0.0,
    ttl: Annotated[int, typer.Option(min=1, max=300, help="TTL of the DNS records, in seconds.")] = 5,
    rate: Annotated[float, typer.Option(min=10, max=1000, help="Requests a second, of each client.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=5, max=3600, help="Length of the whole, without the gap.")] = 40.0,
) -> None:
    """Compare plain aiohttp with headlessconn, live.

    Both send the same steady load while the pods behind a Service change. DNS, pods and clients run in this process,
    on loopback. Ctrl-C ends it.

    Plain aiohttp does not notice a new pod while its connections stay busy. Let them rest for longer than the 15 s
    after which it closes idle ones (--gap 20), and it does.
    """
    from headlessconn.cli import demo as command
    from headlessconn.cli.screen import Lines, Screen

    plan = command.Plan(ttl=ttl, rate=rate, seconds=seconds, gap=gap)
    if seconds < plan.shortest:
        _misused(
            f"--seconds {seconds:g} is too short for --ttl {ttl}: a new pod may be noticed as late as the TTL allows, "
            f"and is watched for a third of the time; give --seconds {plan.shortest:.0f} or more, or a smaller --ttl"
        )
    rich = is_terminal() and not json
    with Screen() if rich else Lines() as view:
        result = _run(command.run(plan, view))
    command.show(result, as_json=json, rich=rich)


def _run(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end. On Ctrl-C it is cancelled, closes what it opened, and the exit code is 130."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _misused(problem: str) -> NoReturn:
    print(f"headlessconn: {problem}", file=sys.stderr)
    raise typer.Exit(USAGE)
