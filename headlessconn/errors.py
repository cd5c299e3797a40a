"""Every error that headlessconn raises.

    HeadlessError
    ├── TargetError        (ValueError)       a target that cannot be read: says which part, and shows a right one
    ├── OptionError        (ValueError)       an option out of range, or two that contradict each other
    ├── NoEndpoints        (ConnectionError)  nobody is behind the name: what DNS said last, and what to check
    ├── DialFailed         (ConnectionError)  every pod that was tried could not be connected to: which, and why
    ├── ClosedError        (RuntimeError)     the client was closed
    ├── WrongLoop          (RuntimeError)     the client belongs to another event loop, or to the parent process
    └── PickEnded          (RuntimeError)     a pick was ended twice: a bug in the caller

Catch `HeadlessError` for all of them. Each is a built-in error too, so that an `except` that stands today goes on
working. Facts are attributes; the sentence is `str(error)`; causes are chained.
"""

from __future__ import annotations

from collections.abc import Sequence


class HeadlessError(Exception):
    """The root: whatever headlessconn raises on purpose."""


class TargetError(HeadlessError, ValueError):
    """A target string that cannot be read.

    `text` is what was given, `problem` names the part that is wrong. The message ends with a right example.
    """

    def __init__(self, text: str, problem: str, example: str = "orders.shop:8080") -> None:
        super().__init__(text, problem, example)
        self.text, self.problem, self.example = text, problem, example

    def __str__(self) -> str:
        return f"target {self.text!r}: {self.problem}; a right one looks like {self.example!r}"


class OptionError(HeadlessError, ValueError):
    """An option that is out of range or contradicts another one. `option` is its name."""

    def __init__(self, option: str, problem: str, example: str) -> None:
        super().__init__(option, problem, example)
        self.option, self.problem, self.example = option, problem, example

    def __str__(self) -> str:
        return f"option {self.option}: {self.problem}; a right one looks like {self.example}"


class NoEndpoints(HeadlessError, ConnectionError):
    """Nobody to send this request to. Raised after `wait_for_endpoints` seconds; until then callers wait.

    target    the name as the application wrote it
    waited    seconds this caller waited
    said      what DNS said last: "NXDOMAIN", "NODATA", "timeout", "SERVFAIL" … or "nothing yet"
    age       seconds since that answer, or None when there was none
    advice    what to check
    ready     how many endpoints there were, of the `wanted` ones (`service.ready(3)`)
    """

    def __init__(
        self, target: str, waited: float, said: str, age: float | None, advice: str, ready: int = 0, wanted: int = 1
    ) -> None:
        super().__init__(target, waited, said, age, advice)
        self.target, self.waited, self.said, self.age, self.advice = target, waited, said, age, advice
        self.ready, self.wanted = ready, wanted

    def __reduce__(self) -> tuple[object, ...]:  # OSError keeps two arguments only
        return type(self), (self.target, self.waited, self.said, self.age, self.advice, self.ready, self.wanted)

    def __str__(self) -> str:
        when = "" if self.age is None else f", {self.age:.1f} s ago"
        if 0 < self.ready < self.wanted:
            lacking = f"only {self.ready} of {self.wanted} endpoints behind {self.target} are ready"
        else:
            lacking = f"no endpoints behind {self.target}"
        return f"{lacking} after waiting {self.waited:.1f} s; the last answer was {self.said}{when}. {self.advice}"


class DialFailed(HeadlessError, ConnectionError):
    """No connection to any of the pods that were tried.

    `target` is the name, `tried` the pods with the reason of each, in order: `(("10.244.1.7:8080", "refused"), …)`.
    The last socket error is the cause.
    """

    def __init__(self, target: str, tried: Sequence[tuple[str, str]]) -> None:
        super().__init__(target, tuple(tried))
        self.target, self.tried = target, tuple(tried)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target, self.tried)

    def __str__(self) -> str:
        each = ", ".join(f"{endpoint} ({why})" for endpoint, why in self.tried)
        return (
            f"could not connect to {self.target}: tried {each}. Pods that DNS still lists may be gone: "
            "a dead node stays listed for up to 50 s; see the pods with `kubectl get endpointslices`"
        )


class ClosedError(HeadlessError, RuntimeError):
    """The client was closed."""


class WrongLoop(HeadlessError, RuntimeError):
    """A client used from another event loop, or in a forked child while its loop stayed in the parent."""


class PickEnded(HeadlessError, RuntimeError):
    """A pick was ended a second time. Each ends exactly once, or loads would be counted wrong for ever."""
