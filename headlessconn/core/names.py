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

    def namespace_name(self, host: str) -> str | None:
        """`<namespace>.svc.<zone>` of a written name: an empty non-terminal, there exactly when the namespace is.

        `orders.shop` and `db-0.db.data` name their namespace last; a single label means the search list's own.
        """
        zone = self.zone
        name = absolute_name(host)
        inner = name.removesuffix(zone) if is_under(name, zone) else name
        labels = [label for label in inner.split(".") if label]
        if labels and labels[-1] == "svc":
            labels.pop()
        if len(labels) >= 2:
            return f"{labels[-1]}.svc.{zone}"
        own = next((domain for domain in self.domains if domain.endswith(f".svc.{zone}")), None)
        return own


def absolute_name(name: str) -> str:
    return name.lower().strip(".") + "."


def is_under(name: str, zone: str) -> bool:
    return name == zone or name.endswith("." + zone)
