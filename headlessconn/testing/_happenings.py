"""What happens at the embedded zone: questions, changes of the sets, and troubles made on purpose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from headlessconn.testing._records import Labels, Listed, is_under


class Query(NamedTuple):
    """One question as it came in. `at` is `time.monotonic()`; `name` is absolute and in lower case."""

    at: float
    name: str
    type: str
    transport: str
    client: tuple[str, int]


class Change(NamedTuple):
    """The published set of a Service changed. Replies show it from then on, unless frozen or cached."""

    at: float
    service: str
    added: tuple[Listed, ...]
    removed: tuple[Listed, ...]


@dataclass(eq=False, slots=True)
class Trouble:
    """What goes wrong, from `Zone.trouble()` until `end()`, the end of its `with`, or `times` queries.

    rcode: answered instead of the records: `"SERVFAIL"`, `"REFUSED"`, `"NXDOMAIN"` …
    silent: no reply at all.
    delay: seconds until the reply, whatever it is.
    truncate: TC=1 and half of the records.
    wrong_id: the reply carries another id, as one to an older question or a forged one would.
    lie: records to give instead, as master-file lines: `"A 192.0.2.7"`, `"other.name. 60 IN A 192.0.2.7"`.
    types: only these questions, e.g. `("AAAA",)`; none given: all of them.
    transport: only over `"udp"` or only over `"tcp"`; `None`: both.
    times: the trouble ends by itself after so many queries; `None`: it lasts.
    """

    scope: Labels
    rcode: str | None = None
    silent: bool = False
    delay: float = 0.0
    truncate: bool = False
    wrong_id: bool = False
    lie: tuple[str, ...] | None = None
    types: tuple[str, ...] = ()
    transport: str | None = None
    times: int | None = None
    _among: list[Trouble] = field(default_factory=list, repr=False)

    def covers(self, name: Labels, rdtype: str, transport: str) -> bool:
        return (
            is_under(name, self.scope)
            and (not self.types or rdtype in self.types)
            and self.transport in (None, transport)
        )

    def end(self) -> None:
        if self in self._among:
            self._among.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end()
