"""Which absolute names a written name may mean, and which of them lie in the cluster."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ZONE = "cluster.local"


@dataclass(frozen=True, slots=True)
class Search:
    """What resolv.conf says about names: search domains and ndots, and the zone of the cluster.

    Names are kept lower case and end with a dot.
    """

    domains: tuple[str, ...] = ()
    ndots: int = 1
    zone: str = DEFAULT_ZONE + "."
    in_cluster: bool = False  # the search list names the cluster, so that short names may mean Services

    @classmethod
    def of(cls, domains: tuple[str, ...], ndots: int, zone: str | None = None) -> Search:
        """`zone` defaults to that of the search entry that starts with `svc.`: it need not be `cluster.local`."""
        absolute = tuple(absolute_name(domain) for domain in domains if domain.strip("."))
        found = next((domain[4:] for domain in absolute if domain.startswith("svc.")), None)
        chosen = absolute_name(zone) if zone else found or absolute_name(DEFAULT_ZONE)
        in_cluster = any(is_under(domain, chosen) for domain in absolute)
        return cls(absolute, ndots, chosen, in_cluster)

    def candidates(self, host: str, absolute: bool) -> tuple[str, ...]:
        """Absolute names in the order to ask them: the search list first when the name has fewer dots than ndots."""
        own = absolute_name(host)
        if absolute or not self.domains:
            return (own,)
        expanded = tuple(f"{own}{domain}" for domain in self.domains)
        return (own, *expanded) if host.count(".") >= self.ndots else (*expanded, own)

    def is_inside(self, name: str) -> bool:
        """Whether an absolute name lies in the cluster's zone."""
        return is_under(name, self.zone)

    def may_be_inside(self, host: str, absolute: bool) -> bool:
        """Whether any candidate lies in the zone; what cannot is none of our business, and costs no query."""
        return any(self.is_inside(name) for name in self.candidates(host, absolute))

    def namespace_names(self, host: str) -> tuple[str, ...]:
        """Names of which one exists exactly when a written name is the cluster's, whether or not it has a ready pod.

        `orders.shop` and `db-0.db.data` name their namespace last, and `<namespace>.svc.<zone>` exists when that does
        (an empty non-terminal); a single label means the search list's own. Two labels may also be a pod and its
        Service in the own namespace (`db-0.db`): then the Service's name exists while any of its pods is ready.
        """
        zone = self.zone
        own = next((domain for domain in self.domains if domain.endswith(f".svc.{zone}")), None)
        name = absolute_name(host)
        if is_under(name, zone):
            own, name = None, name.removesuffix(zone)
        labels = [label for label in name.split(".") if label]
        if labels and labels[-1] == "svc":
            own = None
            labels.pop()
        if len(labels) < 2:
            return (own,) if own else ()
        namespace = f"{labels[-1]}.svc.{zone}"
        return (namespace, f"{labels[-1]}.{own}") if own and len(labels) == 2 else (namespace,)


def absolute_name(name: str) -> str:
    return name.lower().strip(".") + "."


def is_under(name: str, zone: str) -> bool:
    return name == zone or name.endswith("." + zone)
