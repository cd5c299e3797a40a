"""What an application writes to name a service, read once and strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from headlessconn.core.endpoint import Key, pack
from headlessconn.errors import TargetError

# A DNS label as Kubernetes allows it, plus the underscore that SRV and some hosts use. Names are compared in lower
# case, but read before that: the lower case of U+212A, the Kelvin sign, would pass for a plain k.
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# IANA service names (RFC 6335), which Kubernetes port names are: at most 15 characters, a letter among them.
_PORT_NAME = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_EXAMPLE = {"dns": "orders.shop:8080", "static": "10.0.0.1:80,10.0.0.2:80"}


@dataclass(frozen=True, slots=True)
class Target:
    """A service, read from text by `Target.parse`. Compares and hashes by what it means, so it can be a key.

    kind       "dns" or "static"
    host       the name without its final dot, in lower case ("" for static)
    absolute   the name ended with a dot: the search list is not used
    port       a number, or None when it is to be learnt from SRV
    port_name  the name of a port ("http"), resolved by SRV `_http._tcp.<host>`
    addresses  packed keys of a static target
    text       as it was written, for people; two spellings of one target are equal
    """

    kind: Literal["dns", "static"]
    host: str
    absolute: bool = False
    port: int | None = None
    port_name: str | None = None
    addresses: frozenset[Key] = frozenset()
    text: str = field(default="", compare=False)

    @staticmethod
    def parse(text: str | Target) -> Target:
        """Read `orders.shop:8080`, `orders.shop:http`, `orders.shop`, `db-0.db.data:3306`, an absolute
        `orders.shop.svc.cluster.local.:8080`, `dns:///orders.shop:8080` or `static:///10.0.0.1:80,[fd00::1]:80`.

        Raises `TargetError` (a `ValueError`) that names the wrong part.
        """
        if isinstance(text, Target):
            return text
        if not isinstance(text, str):
            raise TargetError(str(text), f"it is a {type(text).__name__}, not a string")
        scheme, separator, rest = text.partition("://")
        if not separator:
            return _dns(text, text)
        read = {"dns": _dns, "static": _static}.get(scheme)
        if read is None:
            hint = "a target is a host and a port, not a URL" if scheme in ("http", "https") else "known: dns, static"
            raise TargetError(text, f"unknown scheme {scheme!r} ({hint})")
        if not rest.startswith("/"):
            example = f"{scheme}:///{_EXAMPLE[scheme]}"
            raise TargetError(text, f"after {scheme}:// a slash is missing (an authority is not supported)", example)
        return read(text, rest[1:])

    def __str__(self) -> str:
        return self.text


def _dns(text: str, rest: str) -> Target:
    if not rest or rest != rest.strip() or any(c.isspace() for c in rest):
        raise TargetError(text, "it is empty or has white space in it")
    if "/" in rest or "@" in rest:
        raise TargetError(text, "a target is a host and a port, without path or user")
    host, colon, port_text = rest.partition(":")
    if rest.startswith("[") or ":" in port_text or _is_address(host.removesuffix(".")):
        raise TargetError(text, "it is an address, not a name", "static:///10.0.0.1:80,[fd00::1]:80")
    absolute = host.endswith(".")
    host = host.removesuffix(".")
    for label in host.split("."):
        if not _LABEL.fullmatch(label):
            what = "an empty label" if not label else f"the label {label!r}"
            raise TargetError(text, f"{what} is not a DNS label (letters, digits, '-', at most 63)")
    host = host.lower()
    if len(host) > 253:
        raise TargetError(text, f"the name has {len(host)} characters, 253 are allowed")
    if not colon:
        return Target("dns", host, absolute, text=text)
    if not port_text.lstrip("-") or port_text.lstrip("-").isdecimal():
        return Target("dns", host, absolute, port=_port(text, port_text), text=text)
    if not _PORT_NAME.fullmatch(port_text.lower()):
        raise TargetError(text, f"the port {port_text!r} is neither a number nor a port's name", "orders.shop:http")
    return Target("dns", host, absolute, port_name=port_text.lower(), text=text)


def _static(text: str, rest: str) -> Target:
    keys = set()
    for part in rest.split(","):
        host, colon, port_text = part.rpartition(":")
        if not colon:
            raise TargetError(text, f"{part!r} has no port", "static:///10.0.0.1:80,10.0.0.2:80")
        address = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not _is_address(address) or (":" in address and not host.startswith("[")):
            raise TargetError(text, f"{host!r} is not an IP address", "static:///10.0.0.1:80,[fd00::1]:80")
        keys.add(pack(address, _port(text, port_text)))
    return Target("static", "", addresses=frozenset(keys), text=text)


def _port(text: str, port_text: str) -> int:
    # int() alone would take " 80", "8_0", "+80" and the digits of every script.
    if not re.fullmatch(r"-?[0-9]{1,20}", port_text):
        raise TargetError(text, f"the port {port_text!r} is not a number")
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise TargetError(text, f"the port {port} is not between 1 and 65535")
    return port


def _is_address(text: str) -> bool:
    try:
        return "%" not in ip_address(text).compressed  # a link-local address with its interface is none for a key
    except ValueError:
        return False
