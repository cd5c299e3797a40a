"""What resolv.conf says, read by dnspython, and read again when the file changes (also when it is replaced)."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.name
import dns.resolver

from headlessconn.core.names import Search
from headlessconn.errors import OptionError
from headlessconn.options import Options

_BRACKETED = re.compile(r"\[(.*)\](?::(.*))?")  # [fd00::a], [fd00::a]:53
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
        if bracketed := _BRACKETED.fullmatch(text):
            host, port = bracketed[1], port if bracketed[2] is None else bracketed[2]
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
        options, before = self._options, self._setting
        try:
            with open(options.resolv_conf, encoding="utf-8", errors="replace") as file:
                resolver = _parsed(file)
        except OSError:
            if before is not None:
                return before  # what was known stays
            resolver = _parsed(())
        servers = self._servers or tuple(Server(str(address)) for address in resolver.nameservers)[:MAX_SERVERS]
        if not servers:
            # It names no server: perhaps it is being written at this moment. At first glibc's default, localhost.
            if before is not None:
                return before
            servers = (Server("127.0.0.1"),)
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


def _parsed(lines: Iterable[str]) -> dns.resolver.Resolver:
    """What dnspython reads in the lines, without the words at which it would give up on the whole file."""
    resolver = dns.resolver.Resolver(configure=False)
    text = io.StringIO("\n".join(" ".join(_readable(line.split())) for line in lines))
    try:
        resolver.read_resolv_conf(text)
    except dns.resolver.NoResolverConfiguration:
        pass  # no nameserver in it; the rest was read
    return resolver


def _readable(words: list[str]) -> list[str]:
    match words:
        case ["nameserver", address, *_]:
            return words[:2] if _is_address(address) else []
        case ["search" | "domain" as keyword, *domains]:
            return [keyword, *filter(_is_name, domains)]
    return words


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)  # also with a scope: fe80::1%eth0
    except ValueError:
        return False
    return True


def _is_name(text: str) -> bool:
    try:
        dns.name.from_text(text)
    except dns.exception.DNSException:
        return False
    return True
