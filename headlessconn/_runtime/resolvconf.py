"""What resolv.conf says, read by dnspython, and read again when the file changes (also when it is replaced)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.resolver

from headlessconn.core.names import Search
from headlessconn.errors import OptionError
from headlessconn.options import Options

MAX_SERVERS = 3  # glibc's MAXNS: what every other resolver on the machine uses too


@dataclass(frozen=True, slots=True)
class Server:
    address: str
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Server:
        """`10.96.0.10`, `127.0.0.1:5353`, `fd00::a`, `[fd00::a]:53`. Raises `OptionError`."""
        host, port = text, "53"
        if text.startswith("["):
            host, _, rest = text[1:].partition("]")
            port = rest.removeprefix(":") or "53"
        elif text.count(":") == 1:
            host, _, port = text.partition(":")
        try:
            number = int(port)
            if not 1 <= number <= 65535:
                raise ValueError(port)
            return cls(str(ip_address(host)), number)
        except ValueError:
            raise OptionError(
                "nameservers", f"{text!r} is not an address with or without a port", '("10.96.0.10", "127.0.0.1:5353")'
            ) from None


@dataclass(frozen=True, slots=True)
class Setting:
    """Servers to ask, and how names are searched."""

    servers: tuple[Server, ...]
    search: Search


class ResolvConf:
    """The setting of one client: options first, the file for what they leave open."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._servers = tuple(Server.parse(text) for text in options.nameservers or ())
        self._stamp: object = None
        self._setting: Setting | None = None

    def setting(self) -> Setting:
        """The setting now. One `stat` a call; the file is parsed only when it is another one than before."""
        options = self._options
        if self._servers and options.search is not None and options.ndots is not None:
            if self._setting is None:
                search = Search.of(options.search, options.ndots, options.cluster_zone)
                self._setting = Setting(self._servers, search)
            return self._setting
        stamp = _stamp(options.resolv_conf)
        if self._setting is None or stamp != self._stamp:
            self._setting, self._stamp = self._read(), stamp
        return self._setting

    def _read(self) -> Setting:
        options = self._options
        resolver = dns.resolver.Resolver(configure=False)
        try:
            resolver.read_resolv_conf(options.resolv_conf)
        except (OSError, dns.exception.DNSException):
            # No file, or none with a nameserver in it: what was known stays; at first glibc's default, localhost.
            if self._setting is not None:
                return self._setting
        found = [str(server) for server in resolver.nameservers if _is_address(server)][:MAX_SERVERS]
        servers = self._servers or tuple(Server(address) for address in found) or (Server("127.0.0.1"),)
        domains = options.search
        if domains is None:
            domains = tuple(name.to_text() for name in resolver.search)
            if not domains and resolver.domain and resolver.domain.to_text() != ".":
                domains = (resolver.domain.to_text(),)
        # Without an `ndots` line glibc takes 1. With a search list of our own, short names are what it is for.
        ndots = options.ndots if options.ndots is not None else resolver.ndots
        if ndots is None:
            ndots = 5 if options.search is not None else 1
        return Setting(servers, Search.of(domains, ndots, options.cluster_zone))


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _is_address(server: object) -> bool:
    try:
        ip_address(str(server).partition("%")[0])
    except ValueError:
        return False
    return True
