"""The settings, each with its unit, its default and the reason for it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Literal, get_args

from headlessconn.checks import Check, Http, Tcp, Verifier
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
    alone), or `round_robin` (no load at all). With one of five pods 20 times slower, the 99th percentile of all
    requests is what it was with the first, 18 times that with the second, 52 with the third (benchmarks/loads.py)."""

    consecutive_failures: int = 5
    """Bad responses in a row before a member is ejected (Finagle 5, Envoy 5). 0 = never eject."""

    eject_base: float = 1.0
    """First ejection, doubled at each further one (linkerd 1 s). A trial is one request, so an early one is cheap."""

    eject_max: float = 60.0
    """The longest ejection (linkerd 60 s; Envoy and Finagle 300 s, too long for a set that changes by itself)."""

    outlier_interval: float = 10.0
    """Members are compared by the answers of this long, begun by a bad one (gRFC A50 and Envoy: 10 s, on a clock). By
    success rate and by failure percentage; an outlier must also be 5 points worse than the others together. What
    answers nothing well is caught sooner, by `consecutive_failures`."""

    success_rate_stdev_factor: int = 1900
    """Thousandths of a standard deviation below the members' mean success rate that make an outlier (A50 1900,
    Envoy 1900). 0 = never."""

    success_rate_minimum_hosts: int = 5
    """So many members must have `success_rate_volume`, or there is no mean to compare with (A50 5, Envoy 5)."""

    success_rate_volume: int = 100
    """Answers a member must have given in the interval for its success rate to count (A50 100, Envoy 100)."""

    success_rate_enforcement: int = 100
    """Percentage of such outliers that are really ejected; the rest is only counted (A50 100, Envoy 100). 0 = watch."""

    failure_percentage_threshold: int = 85
    """A member of whose answers more than this percentage was bad is an outlier (A50 85, Envoy 85)."""

    failure_percentage_minimum_hosts: int = 5
    """So many members must have `failure_percentage_volume` (A50 5, Envoy 5). With fewer, a member without *one* good
    answer still is an outlier: most headless Services have two to four pods."""

    failure_percentage_volume: int = 50
    """Answers a member must have given in the interval for its failure percentage to count (A50 50, Envoy 50)."""

    failure_percentage_enforcement: int = 100
    """Percentage of such outliers that are really ejected (A50 and grpc-java 100; Envoy and grpc-go 0, which leaves a
    rule switched on that does nothing)."""

    max_in_flight: int | None = None
    """Requests under way on one endpoint at most; beyond that callers wait for one to end. Default: no limit, since the
    pod's own is not known here (Envoy allows 1024 for a whole cluster)."""

    max_waiting: int = 1024
    """Callers of one service that wait at most, for an endpoint or for room on one; the next gets `Overloaded` at once
    (Envoy 1024, linkerd 10 000). A queue longer than its time-out can serve only delays the same failure."""

    check: Check | None = None
    """What to ask a pod from which nothing was heard for `check_interval`: `Tcp()`, or `Http("/healthz")`. Default:
    nothing, since requests tell more than any check does, and a pod that is not ready leaves DNS by itself."""

    check_interval: float = 5.0
    """How long a pod may be quiet before it is checked, and between checks of one pod; up to 10 % sooner, so that many
    clients do not ask in step. As often as DNS is asked (Finagle pings every 5 s, a kubelet probes every 10 s)."""

    verify: Verifier | None = None
    """`verify(endpoint, host)`, a function or a coroutine function, says whether a pod is one of the Service `host`.
    Asked once for each endpoint that is new, or that was reached again after a failure or a long absence: its address
    may be another Service's by then. False leaves it out, and asks again later; an exception says nothing."""

    rebalance_over: float = 30.0
    """When the set has changed, the long-lived connections that are to move do so at random moments within this time. A
    thousand processes learn of a new pod within five seconds; at once, they would all dial it while it warms up."""

    max_age: float | None = None
    """A long-lived connection older than this is replaced, at its check-in or while it is idle; each at ±10 % of it.
    Only needed for what cannot be seen, such as the pods behind a ClusterIP. Default: never (HikariCP 30 min)."""

    idle_timeout: float | None = None
    """A long-lived connection unused for this long is closed. Default: never, since whoever holds it mostly has a rule
    of its own (HikariCP 10 min, and never below its minimum)."""

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
        for name, _, _, example in _RANGES:
            if example.isdigit() and not isinstance(getattr(self, name), int):
                raise OptionError(name, f"{getattr(self, name)!r} is not a whole number", f"{name}={example}")
        for name, choices in (("policy", get_args(Policy)), ("family", get_args(Family))):
            if getattr(self, name) not in choices:
                raise OptionError(name, f"{getattr(self, name)!r} is not one of {choices}", f"{name}={choices[0]!r}")
        limit: object = self.max_in_flight
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise OptionError("max_in_flight", f"{limit!r} is not a whole number above 0", "max_in_flight=100")
        for name, example in (("max_age", "1800.0"), ("idle_timeout", "600.0")):
            span: object = getattr(self, name)
            if span is not None and (
                isinstance(span, bool) or not isinstance(span, int | float) or not 1 <= span <= 86400 * 365
            ):
                raise OptionError(name, f"{span!r} is not between 1 and {86400 * 365:,}", f"{name}={example}")
        check: object = self.check
        if check is not None and not isinstance(check, Tcp | Http):
            raise OptionError("check", f"{check!r} is not a check: `Tcp()` or `Http()`", 'check=Http("/healthz")')
        if self.verify is not None and not callable(self.verify):
            raise OptionError("verify", f"{self.verify!r} is not a function", "verify=is_ours")
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
    ("outlier_interval", 0.05, 3600, "10.0"),
    ("success_rate_stdev_factor", 0, 1_000_000, "1900"),
    ("success_rate_minimum_hosts", 0, 1_000_000, "5"),
    ("success_rate_volume", 0, 1_000_000, "100"),
    ("success_rate_enforcement", 0, 100, "100"),
    ("failure_percentage_threshold", 0, 100, "85"),
    ("failure_percentage_minimum_hosts", 0, 1_000_000, "5"),
    ("failure_percentage_volume", 0, 1_000_000, "50"),
    ("failure_percentage_enforcement", 0, 100, "100"),
    ("max_waiting", 0, 1_000_000, "1024"),
    ("check_interval", 0.05, 3600, "5.0"),
    ("rebalance_over", 0, 86400, "30.0"),
    ("idle_targets", 1, 1_000_000, "1024"),
)
