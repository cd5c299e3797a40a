"""What CoreDNS answers: the kubernetes plugin's rules over the Services that are published."""

from __future__ import annotations

from ipaddress import ip_address

from headlessconn.testing._records import (
    AAAA,
    CNAME,
    NOERROR,
    NXDOMAIN,
    REFUSED,
    SOA,
    SRV,
    TXT,
    A,
    Answer,
    Host,
    Labels,
    Record,
    Service,
    address_records,
    is_under,
    longest,
    soa_record,
    srv_answer,
    wire_name,
)


class CoreDNS:
    """Everything that is published in one zone, and the answer to any question about it."""

    def __init__(self, apex: Labels, ttl: int) -> None:
        self.apex = apex
        self.ttl = ttl
        self.namespaces = {"default", "kube-system"}
        self.services: dict[Labels, Service] = {}
        self.frozen: dict[Labels, dict[Labels, Service]] = {}  # what is answered instead, under each of these names
        self.records: dict[Labels, list[Record]] = {}
        self.domains: set[Labels] = set()

    def answer(self, name: Labels, rdtype: int, depth: int = 0) -> Answer:
        is_ours = is_under(name, self.apex)
        found = self.records.get(name)
        if found is None and not is_ours:
            above = (name[depth:] for depth in range(1, len(name) + 1))
            found = next((self.records["*", *parent] for parent in above if ("*", *parent) in self.records), None)
        if found is not None:
            return self._from_records(name, rdtype, found, is_ours, depth)
        if is_ours:
            return self._from_services(name, rdtype, depth)
        if (domain := max((d for d in self.domains if is_under(name, d)), key=len, default=None)) is not None:
            return Answer(NXDOMAIN, False, soa=[soa_record(domain, 30)])
        return Answer(REFUSED, False)

    def _from_records(self, name: Labels, rdtype: int, found: list[Record], is_ours: bool, depth: int) -> Answer:
        fitting = [r._replace(owner=name) for r in found if r.rdtype == rdtype]
        aliases = [r._replace(owner=name) for r in found if r.rdtype == CNAME]
        if not fitting and aliases:
            return self._follow(aliases[0], rdtype, is_ours, depth)
        soa = [] if fitting else [soa_record(self.apex if is_ours else name[1:], self.ttl)]
        return Answer(NOERROR, is_ours, records=fitting, soa=soa)

    def _follow(self, alias: Record, rdtype: int, is_ours: bool, depth: int) -> Answer:
        behind = self.answer(alias.target, rdtype, depth + 1) if depth < 8 else Answer()
        return Answer(NOERROR, is_ours, [alias, *behind.chain], behind.records)

    def _from_services(self, name: Labels, rdtype: int, depth: int) -> Answer:
        rest = name[: len(name) - len(self.apex)]
        services = longest(self.frozen, name)
        if services is None:
            services = self.services
        ttl = self.ttl
        hosts: list[Host] = []
        exists = True
        match rest:
            case () if rdtype == SOA:
                return Answer(records=[soa_record(self.apex, ttl)])
            case () | ("svc",):
                pass
            case ("dns-version",):
                if rdtype == TXT:
                    return Answer(records=[Record(name, TXT, 28800, b"\x051.1.0")])
            case (namespace, "svc"):
                exists = namespace in self.namespaces
            case (*inner, service, namespace, "svc") if len(inner) <= 2 and (
                ours := services.get((service, namespace))
            ):
                ttl = ttl if ours.ttl is None else ours.ttl
                if ours.external and not inner:
                    return self._from_external(name, rdtype, ours.external, ttl, depth)
                owner = name[len(inner) :]
                hosts = ours.hosts(owner, inner[0] if len(inner) == 1 else None)
                if len(inner) == 2:
                    wanted = (inner[0].removeprefix("_"), inner[1].removeprefix("_"))
                    hosts = [h for h in hosts if h.port and (h.port.name.lower(), h.port.protocol.lower()) == wanted]
                exists = bool(hosts)
            case _:
                exists = False
        if not exists:
            return Answer(NXDOMAIN, soa=[soa_record(self.apex, ttl)])
        answer = (
            srv_answer(name, hosts, ttl) if rdtype == SRV else Answer(records=address_records(hosts, name, rdtype, ttl))
        )
        return answer if answer.records else Answer(soa=[soa_record(self.apex, ttl)])

    def _from_external(self, name: Labels, rdtype: int, target: Labels, ttl: int, depth: int) -> Answer:
        if _is_address(".".join(target)):
            return Answer(NXDOMAIN, soa=[soa_record(self.apex, ttl)])
        alias = Record(name, CNAME, ttl, wire_name(target), target)
        if rdtype == CNAME:
            return Answer(chain=[alias])
        if rdtype in (A, AAAA):
            answer = self._follow(alias, rdtype, True, depth)
            # CoreDNS keeps the CNAME to itself when its target is in the zone and missing.
            if answer.records or not is_under(target, self.apex):
                return answer
        return Answer(soa=[soa_record(self.apex, ttl)])


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
