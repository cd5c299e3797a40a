"""The 69 cases of what a client of Kubernetes DNS must end up with (tests/data/dns-cases.json; its `meta` explains the
fields and names the sources), by how they are tried."""

import json
from pathlib import Path
from typing import Any

Case = dict[str, Any]

CASES: list[Case] = json.loads((Path(__file__).parent.parent / "data" / "dns-cases.json").read_text())["cases"]

WIRE = [case for case in CASES if "wire" in case]
TRANSPORT = [case for case in CASES if "transport" in case]
STEPS = [case for case in CASES if "steps" in case]
LATER = [case for case in CASES if case["query"]["mode"] == "endpointslice"]
"""EndpointSlice cases: they are news from a watch of the Kubernetes API, not from DNS, and wait for that source."""

FAMILIES = {"ipv4": "4", "ipv6": "6", "any": "auto"}


def name_of(case: Case) -> str:
    return str(case["id"])


def target_of(case: Case) -> str:
    """What an application would write. A port over UDP can only be written as the name of its SRV record."""
    query = case["query"]
    name = query["name"]
    if query["port"] is not None:
        return f"{name}:{query['port']}"
    if query["port_name"] is None:
        return str(name)
    if query["proto"] == "udp":
        return f"_{query['port_name']}._udp.{name}"
    return f"{name}:{query['port_name']}"


def listed(endpoints: list[dict[str, Any]]) -> set[tuple[str, Any]]:
    return {(one["address"], one["port"]) for one in endpoints}
