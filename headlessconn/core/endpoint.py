"""One pod's address and port: packed for comparing, spelled out only when somebody looks.

An answer may hold ten thousand addresses and mostly says what the one before said. So identity is a packed key
(4 or 16 address bytes, then 2 port bytes): sets of keys are compared before any `Endpoint` is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv6Address, ip_address
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

Key: TypeAlias = bytes


def pack(address: str, port: int) -> Key:
    """The key of `10.244.1.7` and 8080. Raises `ValueError` for what is not an IP address."""
    return ip_address(address).packed + port.to_bytes(2, "big")


def address_of(key: Key) -> str:
    """The address in a key, as people write it: `10.244.1.7`, `fd00::7`."""
    if len(key) == 6:
        return f"{key[0]}.{key[1]}.{key[2]}.{key[3]}"
    return str(IPv6Address(key[:16]))


def port_of(key: Key) -> int:
    return (key[-2] << 8) | key[-1]


class Facts(NamedTuple):
    """What a source knows about an endpoint beside its address. Not part of its identity."""

    hostname: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod as a client sees it. `str()` gives `10.244.1.7:8080` or `[fd00::7]:8080`."""

    address: str
    port: int
    hostname: str = field(default="", compare=False)
    key: Key = field(default=b"", compare=False, repr=False)

    @classmethod
    def of(cls, key: Key, facts: Facts | None = None) -> Endpoint:
        return cls(address_of(key), port_of(key), facts.hostname if facts else "", key)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class How(Enum):
    """How an attempt ended, as far as the pod is concerned."""

    # Evidence against the pod, and a hint that the set in hand may be old:
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    DIAL_TIMEOUT = "dial timed out"
    RESET = "reset"
    TIMEOUT = "timed out"
    BAD_STATUS = "bad status"
    # Not evidence:
    OK = "ok"
    RESET_REUSED = "reset on a reused connection"  # a keep-alive race: the server closed it while we chose it
    CANCELLED = "cancelled"  # censored latency: at least what had elapsed
    LOCAL = "our own trouble"  # EMFILE, ENETUNREACH, no buffers, our certificates
    CALLER = "the caller's own exception"

    __hash__ = object.__hash__  # by identity: Enum's own hashes the name, in Python, in the hot path


NO_DIAL = frozenset({How.REFUSED, How.UNREACHABLE, How.DIAL_TIMEOUT})
"""The endings that say: no connection could be had."""

_NO_FACTS: Mapping[Any, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source says, whole: a full set, never a delta, so that a lost update heals itself.

    kind    "records" (the new set), "nobody" (the name has none: NXDOMAIN or NODATA), "no_news" (time-out, SERVFAIL,
            a truncated answer … says nothing about the set and never empties it)
    ttl     seconds the answer may be used (for "nobody": the negative TTL); None when it has none
    why     the rcode or the trouble, for people: "NOERROR", "NXDOMAIN", "timeout", "truncated over TCP"
    name    the absolute name that was answered for
    outside the records come from outside the cluster's zone, or nothing shows that the missing name is the cluster's
    """

    source: Literal["dns", "static"]
    kind: Literal["records", "nobody", "no_news"]
    keys: frozenset[Key] = frozenset()
    about: Mapping[Key, Facts] = field(default_factory=lambda: _NO_FACTS)
    ttl: float | None = None
    why: str = ""
    name: str = ""
    transport: str = ""
    outside: bool = False


class Changes(NamedTuple):
    added: frozenset[Key]
    removed: frozenset[Key]


def diff(old: frozenset[Key], new: frozenset[Key]) -> Changes:
    """What came and what went between two whole sets.

    >>> diff(frozenset({b"a", b"b"}), frozenset({b"b", b"c"}))
    Changes(added=frozenset({b'c'}), removed=frozenset({b'a'}))
    """
    return Changes(new - old, old - new)
