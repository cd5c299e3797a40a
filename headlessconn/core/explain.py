"""A snapshot in sentences: what is known, since when, and what happens next."""

from __future__ import annotations

from headlessconn.core.endpoint import Answer
from headlessconn.core.member import State
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.verifying import WHY


def explain(view: Snapshot) -> str:
    """The text behind `service.explain()`: an answer for somebody who was woken at night.

    >>> print(service.explain())                                          # doctest: +SKIP
    orders.shop:8080 has 2 endpoints: 2 ready.
    DNS said NOERROR for orders.shop.svc.cluster.local. 3.1 s ago, TTL 30 s; asked again in 1.6 s.
    """
    return "\n".join([_set(view), _answer(view), *_members(view), *_waiting(view)])


def advice_on(view: Snapshot) -> str:
    """What to check when this target has nobody to give."""
    foreign = sum(member.why == WHY for member in view.of(State.EJECTED))
    if foreign and foreign == len(view.endpoints):
        all_of_them = "the one endpoint" if foreign == 1 else f"all {foreign} endpoints"
        return f"`verify` said no to {all_of_them}: check what it looks at, and whether DNS lags behind."
    return advice(view.answer, view.trouble, view.target)


def advice(answer: Answer | None, trouble: str, target: str) -> str:
    """What to check when there is nobody, by what DNS said last."""
    if trouble:
        said = "DNS has never answered for it" if answer is None else "DNS does not answer for it any more"
        return (
            f"{said} ({trouble}): check the nameservers in resolv.conf, and that this pod may reach their port 53 "
            "by UDP and TCP."
        )
    if answer is None:
        return "DNS has not answered yet: give it longer with wait_for_endpoints."
    if answer.why == "NXDOMAIN":
        return (
            "Kubernetes says NXDOMAIN both for a Service that does not exist and for one without a ready pod: check "
            f"`kubectl get service,endpointslices` for {target}, its namespace and selector, and the pods' readiness."
        )
    if answer.why == "NODATA":
        return (
            "The name exists but lists no address: check that the Service is headless (clusterIP: None), that its pods "
            "are ready, and its IP family."
        )
    if answer.why.startswith("several ports"):
        return "Say which port is meant, by its name (orders.shop:http) or its number."
    return "Check the name, the port, and the Service's pods."


def _set(view: Snapshot) -> str:
    listed = view.endpoints
    states = ", ".join(f"{len(found)} {state.value}" for state in State if (found := view.of(state)))
    noun = "endpoint" if len(listed) == 1 else "endpoints"
    return f"{view.target} has {len(listed)} {noun}{': ' + states if states else ''}."


def _answer(view: Snapshot) -> str:
    if view.answer is None or view.answer_age is None:
        said = "DNS has not answered yet"
    else:
        ttl = "" if view.answer.ttl is None else f", TTL {view.answer.ttl:g} s"
        who = "DNS" if view.answer.source == "dns" else "The target"
        name = view.answer.name or view.target
        said = f"{who} said {view.answer.why} for {name} {view.answer_age:.1f} s ago{ttl}"
    if view.trouble:
        said += f"; the last look-up failed ({view.trouble})"
    if view.idle:
        return f"{said}; nobody uses it, so nobody asks: the next use asks first."
    if view.asking:
        return f"{said}; asking now."
    if view.next_look_in is None:
        return f"{said}; it never changes."
    again = " again" if view.answer is not None or view.trouble else ""
    return f"{said}; asked{again} in {max(0.0, view.next_look_in):.1f} s."


def _members(view: Snapshot) -> list[str]:
    lines = []
    if view.held_for is not None:
        lines.append(f"DNS lists nobody: those that still work are held for {view.held_for:.1f} s more.")
    for member in sorted(view.members, key=lambda member: member.endpoint.key):
        if member.state is State.READY:
            continue
        again = "" if member.retry_in is None else f"; tried again in {max(0.0, member.retry_in):.1f} s"
        connections = "1 connection" if member.connections == 1 else f"{member.connections} connections"
        lines.append(
            f"{member.endpoint} is {member.state.value} for {member.since:.1f} s: {member.why}; "
            f"{member.in_flight} in flight, {connections}{again}."
        )
    return lines


def _waiting(view: Snapshot) -> list[str]:
    if not view.waiting:
        return []
    callers = "1 caller waits" if view.waiting == 1 else f"{view.waiting} callers wait"
    return [f"{callers}. {advice_on(view)}"]
