"""The settings, each with its unit, its default and the reason for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from headlessconn.errors import OptionError

Family = Literal["auto", "4", "6"]
Policy = Literal["peak_ewma", "least_request", "round_robin"]

NDOTS_MAX = 15  # resolv.conf(5) silently caps it there


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client looks up, picks and judges. Immutable; spans are seconds.

    Raises `OptionError` (a `ValueError`) for a value that is out of range or contradicts another.

        Options(refresh_max=1.0)        # notice a new pod within about a second, at one query a second and target
    """

    refresh_min: float = 1.0
    """Never ask DNS for one name more often than this. Asking more than once a second mostly buys load: a thousand
    clients at 0.5 s are two thousand queries a second for one name."""

    refresh_max: float = 5.0
    """Ask at least this often, whatever the TTL. kubeadm answers with TTL 30 though CoreDNS knows a new pod after
    9 ms; Envoy and Finagle ask every 5 s."""

    hold_nx: float = 10.0
    """How long healthy members outlive an answer "nobody". Kubernetes says NXDOMAIN both for "no ready pod" and for
    "no such Service"; grpc-go and Envoy drop at once, grpc-java never does, HAProxy holds 30 s."""

    wait_for_endpoints: float = 5.0
    """How long a caller waits for a first endpoint before `NoEndpoints`. 0 = fail at once."""

    idle_after: float = 60.0
    """A target unused for this long, without connections, stops asking DNS; its next use asks first."""

    stale_after: float = 60.0
    """While DNS has said nothing for this long, a member that fails for as long is taken to be gone."""

    lookup_timeout: float = 3.0
    """All tries of one look-up together: every server, UDP and TCP. glibc waits 5 s for the first server alone."""

    connect_timeout: float = 2.5
    """TCP alone, one pod. The kernel repeats a lost SYN after 1 s, so one loss is forgiven; aiohttp waits 30 s."""

    race_after: float = 0.25
    """A dial without an answer for this long gets a second, different pod beside it (Happy Eyeballs, RFC 8305)."""

    policy: Policy = "peak_ewma"
    """Which of two random members is less loaded: `peak_ewma` (latency × in flight), `least_request` (in flight
    alone), or `round_robin` (no load at all)."""

    consecutive_failures: int = 5
    """Bad responses in a row before a member is ejected (Finagle 5, Envoy 5). 0 = never eject."""

    eject_base: float = 1.0
    """First ejection, doubled at each further one (linkerd 1 s). A trial is one request, so an early one is cheap."""

    eject_max: float = 60.0
    """The longest ejection (linkerd 60 s; Envoy and Finagle 300 s, too long for a set that changes by itself)."""

    family: Family = "auto"
    """`4` or `6` pins one; "auto" asks A first, and AAAA when there is no A. Never both: a dual-stack pod would count
    twice."""

    cluster_zone: str | None = None
    """The cluster's DNS zone. Default: from the search entry that starts with `svc.`, else `cluster.local`."""

    nameservers: tuple[str, ...] | None = None
    """`("10.96.0.10", "127.0.0.1:5353", "[fd00::a]:53")` instead of those in resolv.conf."""

    search: tuple[str, ...] | None = None
    """Search domains instead of those in resolv.conf."""

    ndots: int | None = None
    """Names with fewer dots are tried with the search list first. Default: from resolv.conf (5 in a pod)."""

    resolv_conf: str = "/etc/resolv.conf"
    """Where the three above come from when they are not given. Re-read when it changes."""

    idle_targets: int = 1024
    """How many idle targets keep their last set and history; beyond, the least recently used is forgotten."""

    def __post_init__(self) -> None:
        for name, low, high, example in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:  # NaN neither
                raise OptionError(name, f"{value!r} is not between {low:,g} and {high:,g}", f"{name}={example}")
        if self.refresh_min > self.refresh_max:
            raise OptionError(
                "refresh_min",
                f"{self.refresh_min:g} is more than refresh_max={self.refresh_max:g}",
                "refresh_min=1.0, refresh_max=5.0",
            )
        if self.eject_base > self.eject_max:
            raise OptionError(
                "eject_base",
                f"{self.eject_base:g} is more than eject_max={self.eject_max:g}",
                "eject_base=1.0, eject_max=60.0",
            )
        for name, example in (("consecutive_failures", "5"), ("idle_targets", "1024")):
            if not isinstance(getattr(self, name), int):
                raise OptionError(name, f"{getattr(self, name)!r} is not a whole number", f"{name}={example}")
        for name, choices in (("policy", get_args(Policy)), ("family", get_args(Family))):
            if getattr(self, name) not in choices:
                raise OptionError(name, f"{getattr(self, name)!r} is not one of {choices}", f"{name}={choices[0]!r}")
        self._check_dns()

    def _check_dns(self) -> None:
        for name, example in (("nameservers", '("10.96.0.10",)'), ("search", '("shop.svc.cluster.local",)')):
            value: object = getattr(self, name)
            if isinstance(value, str):
                raise OptionError(name, f"{value!r} is a single string, not several", f"{name}={example}")
            if value is None:
                continue
            several = tuple(value) if isinstance(value, Iterable) else (value,)
            if not all(isinstance(text, str) for text in several):
                raise OptionError(name, f"{value!r} is not several strings", f"{name}={example}")
            object.__setattr__(self, name, several)
        if self.nameservers == ():
            raise OptionError("nameservers", "it is empty", 'nameservers=("10.96.0.10",)')
        ndots: object = self.ndots
        if ndots is not None and (isinstance(ndots, bool) or not isinstance(ndots, int) or not 0 <= ndots <= NDOTS_MAX):
            raise OptionError("ndots", f"{ndots!r} is not a whole number between 0 and {NDOTS_MAX}", "ndots=5")
        zone: object = self.cluster_zone
        if zone is not None and (not isinstance(zone, str) or not zone.strip(".")):
            raise OptionError("cluster_zone", f"{zone!r} is not a domain", 'cluster_zone="cluster.local"')
        if not isinstance(self.resolv_conf, str | os.PathLike):
            raise OptionError("resolv_conf", f"{self.resolv_conf!r} is not a path", 'resolv_conf="/etc/resolv.conf"')
        object.__setattr__(self, "resolv_conf", os.fspath(self.resolv_conf))

    @classmethod
    def of(cls, options: Options | None, changes: dict[str, object]) -> Options:
        """`options` (or the defaults) with some settings changed. Raises `OptionError` for a name it does not know."""
        base = options or cls()
        if not changes:
            return base
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(changes) - known):
            raise OptionError(unknown[0], "there is no such option", f"one of {', '.join(sorted(known))}")
        values = {name: getattr(base, name) for name in known} | changes
        return cls(**values)


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("refresh_min", 0.05, 3600, "1.0"),
    ("refresh_max", 0.05, 86400, "5.0"),
    ("hold_nx", 0, 86400, "10.0"),
    ("wait_for_endpoints", 0, 3600, "5.0"),
    ("idle_after", 1, 86400, "60.0"),
    ("stale_after", 1, 86400, "60.0"),
    ("lookup_timeout", 0.05, 60, "3.0"),
    ("connect_timeout", 0.05, 300, "2.5"),
    ("race_after", 0.01, 300, "0.25"),
    ("consecutive_failures", 0, 10_000, "5"),
    ("eject_base", 0.05, 3600, "1.0"),
    ("eject_max", 0.05, 86400, "60.0"),
    ("idle_targets", 1, 1_000_000, "1024"),
)
