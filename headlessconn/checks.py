"""Active health checks, as `Options(check=…)` takes them: what to ask a pod from which nothing was heard for a while.

They are data: `headlessconn.core.checking` decides whom to ask and when, and what an answer says.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from headlessconn.errors import OptionError

if TYPE_CHECKING:
    import ssl

# What may stand in a request line without being quoted (RFC 9112, RFC 3986): no blank and no control character, so that
# a path from somebody's configuration cannot smuggle in a header.
_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9._:\[\]-]+")


@dataclass(frozen=True, slots=True)
class Tcp:
    """Connect, and hang up, within `connect_timeout`.

    It sees whether the port listens, and nothing else: a process that is frozen still accepts, since the kernel does it
    on its behalf. So a pass lifts FAILING, never EJECTED; a failure is that of a dial.

        Client(check=Tcp())
    """


@dataclass(frozen=True, slots=True)
class Http:
    """`GET path` by HTTP/1.1; passed when the answer's status is an expected one.

    path      as in a readiness probe: `/healthz`. Ask for something cheap that goes through the same server and event
              loop as real requests; one process asks every quiet pod every `check_interval` seconds
    expected  statuses that pass; 200 to 399, as the kubelet has it. Redirects are not followed
    timeout   seconds for the answer, once connected (a kubelet's probe waits 1 s; a pod under load may take longer)
    port      another port than the Service's, for pods that serve their health elsewhere. One that refuses there has
              given a bad answer; it is not failing, since requests go to the other port
    host      of the Host header and the certificate; default: the Service's name
    tls       True for HTTPS with the system's trusted authorities, or a context of your own; the certificate is
              verified for `host`

    The answer's body is not read. Raises `OptionError`.

        Client(check=Http("/healthz"), check_interval=10.0)
        Client(check=Http("/", expected=[200, 401]))
    """

    path: str = "/"
    expected: Collection[int] = range(200, 400)
    timeout: float = 2.0
    port: int | None = None
    host: str | None = None
    tls: bool | ssl.SSLContext = False

    def __post_init__(self) -> None:
        path: object = self.path
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise _wrong(f"the path {self.path!r} does not begin with a slash, or holds what must be quoted")
        expected: object = self.expected
        if not isinstance(expected, Iterable) or isinstance(expected, str | bytes):
            raise _wrong(f"expected={expected!r} is not several statuses", 'Http("/healthz", expected=range(200, 400))')
        if not isinstance(expected, range):
            object.__setattr__(self, "expected", frozenset(expected))  # options are compared and hashed
        statuses = self.expected
        if not statuses or not all(type(status) is int and 200 <= status <= 599 for status in statuses):
            raise _wrong(f"expected={expected!r} holds no status from 200 to 599, or something else")
        if not _is_number(self.timeout) or not 0.05 <= self.timeout <= 300:
            raise _wrong(f"timeout={self.timeout!r} is not between 0.05 and 300", 'Http("/healthz", timeout=2.0)')
        if self.port is not None and (type(self.port) is not int or not 1 <= self.port <= 65535):
            raise _wrong(f"port={self.port!r} is not between 1 and 65535", 'Http("/healthz", port=8081)')
        host: object = self.host
        if host is not None and (not isinstance(host, str) or not _HOST.fullmatch(host)):
            raise _wrong(f"host={self.host!r} is not a host", 'Http("/healthz", host="orders.shop")')
        if not isinstance(self.tls, bool) and not hasattr(self.tls, "wrap_socket"):  # ssl itself is not imported for it
            raise _wrong(f"tls={self.tls!r} is neither True nor an `ssl.SSLContext`", 'Http("/healthz", tls=True)')


Check: TypeAlias = Tcp | Http

Verifier: TypeAlias = Callable[[Any, str], bool | Awaitable[bool]]
"""What `Options.verify` may be: it gets a `headlessconn.Endpoint` and the Service's name as the target has it."""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong(problem: str, example: str = 'Http("/healthz")') -> OptionError:
    return OptionError("check", problem, f"check={example}")
