"""`headlessconn resolve`: one look-up, through the code that the clients use."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Literal

from headlessconn._runtime.dns import Resolver
from headlessconn._runtime.source import source_of
from headlessconn.cli import render
from headlessconn.core.endpoint import Answer, address_of, port_of
from headlessconn.core.explain import advice
from headlessconn.core.target import Target
from headlessconn.options import Options

Outcome = Literal["ok", "nodata", "nxdomain", "no_endpoints", "temporary_failure", "partial"]


@dataclass(frozen=True, slots=True)
class Found:
    """One endpoint. The port is None when neither the target nor SRV gave one; the target is that of an SRV record."""

    address: str
    port: int | None
    target: str | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What a look-up ended with; its fields are those of the JSON form.

    name          the absolute name that was answered for
    outcome       "ok"; "nodata": the name exists, without records; "nxdomain": no such name, or no ready pod
                  (Kubernetes says the same to both); "no_endpoints": the same, but the namespace exists, so the name
                  means a Service of this cluster; "temporary_failure": no server gave an answer; "partial": there are
                  more endpoints than fit into an answer, so none is shown
    rcode         of the answer; None when no answer came
    ttl           seconds, of the records; `negative_ttl` is that of the answer "nobody"
    transport     "udp" or "tcp"; None when no answer came, or none was asked for
    """

    name: str
    outcome: Outcome
    rcode: str | None
    endpoints: tuple[Found, ...]
    ttl: float | None
    negative_ttl: float | None
    transport: str | None


@dataclass(frozen=True, slots=True)
class Looked:
    """A resolution, and what to tell the person who asked."""

    resolution: Resolution
    note: str = ""

    @property
    def outcome(self) -> Outcome:
        return self.resolution.outcome


async def look_up(target: Target, options: Options) -> Looked:
    """Look it up once, with fresh eyes: nothing is pinned, no server is known. Raises `OptionError`."""
    resolver = Resolver(options)
    answer = await source_of(target, options, resolver, time.monotonic).look_up()
    note = _note(answer, target)
    if answer.kind == "nobody" and target.kind == "dns" and target.port is None and target.port_name is None:
        # No port can be learnt. A Service without ports, or with several, has addresses all the same.
        bare = Target("dns", target.host, target.absolute, port=0, text=target.text)
        addresses = await source_of(bare, options, resolver, time.monotonic).look_up()
        if addresses.kind == "records":
            ports = answer.why if answer.why.startswith("several ports") else "no port: add one"
            note = f"SRV lists {ports}, as in {target}:8080"
        else:
            note = _note(addresses, target)
        answer = addresses
    return Looked(resolution(answer, target), note)


def resolution(answer: Answer, target: Target) -> Resolution:
    """An answer in the words of the command line."""
    outcome = _outcome(answer, target)
    name = answer.name or str(target)
    match answer.kind:
        case "records":
            return Resolution(
                name,
                outcome,
                answer.why if answer.source == "dns" else None,
                tuple(
                    Found(address_of(key), port_of(key) or None, (facts.hostname or None) if facts else None)
                    for key in sorted(answer.keys, key=lambda key: (len(key), key))
                    for facts in [answer.about.get(key)]
                ),
                _whole(answer.ttl),
                None,
                answer.transport or None,
            )
        case "nobody":
            rcode = "NXDOMAIN" if answer.why == "NXDOMAIN" else "NOERROR"
            return Resolution(name, outcome, rcode, (), None, _whole(answer.ttl), answer.transport or None)
        case "no_news":
            # The why of no news is an rcode ("SERVFAIL"), or a trouble in small letters ("timeout").
            rcode_of = answer.why if answer.why.isupper() and answer.why.isalnum() else None
            if outcome == "partial":
                return Resolution(name, outcome, "NOERROR", (), None, None, "tcp")
            return Resolution(name, outcome, rcode_of, (), None, None, None)


def _outcome(answer: Answer, target: Target) -> Outcome:
    match answer.kind:
        case "records":
            return "ok"
        case "nobody" if answer.why != "NXDOMAIN":
            return "nodata"
        case "nobody":
            # A relative name ran through the whole search list. Nobody has it, but it was shown to be the cluster's.
            return "nxdomain" if target.absolute or answer.outside else "no_endpoints"
        case "no_news":
            return "partial" if answer.why.startswith("truncated") else "temporary_failure"


def _note(answer: Answer, target: Target) -> str:
    if answer.kind == "records":
        return ""
    if answer.kind == "nobody":
        return advice(answer, "", str(target))
    if answer.why.startswith("truncated"):
        return "DNS cannot carry so many endpoints in one answer: 65 535 bytes hold 4 092 addresses."
    return advice(None, answer.why, str(target))


def _whole(seconds: float | None) -> float | None:
    """TTLs are whole numbers of seconds: 5, not 5.0, in JSON."""
    return int(seconds) if seconds is not None and seconds == int(seconds) else seconds


def show(looked: Looked, *, as_json: bool, rich: bool) -> None:
    """The resolution to stdout, what to make of it to stderr."""
    found = looked.resolution
    count = len(found.endpoints)
    head = render.resolution_head(found.name, found.outcome, found.rcode, count, found.ttl, found.transport)
    rows = [(one.address, "" if one.port is None else str(one.port), one.target or "") for one in found.endpoints]
    if as_json:
        print(json.dumps(asdict(found)))
    elif rich:
        from rich.console import Console

        Console().print(render.resolution_table(head, rows))
    else:
        for line in render.resolution_lines(head, rows):
            print(line)
    if looked.note:
        sys.stdout.flush()
        print(f"headlessconn: {looked.note}", file=sys.stderr)
