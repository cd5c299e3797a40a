"""Every error that headlessconn raises.

    HeadlessError
    ├── TargetError        (ValueError)       a target that cannot be read: says which part, and shows a right one
    ├── OptionError        (ValueError)       an option out of range, or two that contradict each other
    ├── NoEndpoints        (ConnectionError)  nobody is behind the name: what DNS said last, and what to check
    ├── Overloaded         (ConnectionError)  every endpoint is at its limit, or too many callers wait: how many of each
    ├── DialFailed         (ConnectionError)  every pod that was tried could not be connected to: which, and why
    ├── NoPrimary          (ConnectionError)  no pod takes writes at the moment: what each one said. Try again
    ├── DeadlineExceeded   (TimeoutError)     no pod answered `service.run` in time: which were tried, and what of each
    ├── PoolTimeout        (TimeoutError)     no connection of a pool came free in time: who holds which
    ├── NotHeld            (RuntimeError)     a connection given back to a pool that had not handed it out
    ├── ClosedError        (RuntimeError)     the client or the pool was closed
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


class Overloaded(HeadlessError, ConnectionError):
    """There are endpoints, but no room on them: this request was not sent, and was nobody's fault but the load's.

    Raised at once when `max_waiting` callers wait already, else when a caller has waited its time in vain.

    target         the name as the application wrote it
    endpoints      how many there are to send to
    in_flight      requests under way on them
    max_in_flight  the limit of each, None when there is none
    waiting        callers that wait
    max_waiting    the limit of those
    waited         seconds this caller waited
    """

    def __init__(
        self,
        target: str,
        endpoints: int,
        in_flight: int,
        max_in_flight: int | None,
        waiting: int,
        max_waiting: int,
        waited: float = 0.0,
    ) -> None:
        super().__init__(target, endpoints, in_flight, max_in_flight, waiting, max_waiting, waited)
        self.target, self.endpoints, self.in_flight, self.max_in_flight = target, endpoints, in_flight, max_in_flight
        self.waiting, self.max_waiting, self.waited = waiting, max_waiting, waited

    def __reduce__(self) -> tuple[object, ...]:
        facts = (self.target, self.endpoints, self.in_flight, self.max_in_flight)
        return type(self), (*facts, self.waiting, self.max_waiting, self.waited)

    def __str__(self) -> str:
        limit = "without a limit" if self.max_in_flight is None else f"of at most {self.max_in_flight} each"
        pods = "1 endpoint" if self.endpoints == 1 else f"{self.endpoints} endpoints"
        requests = "1 request" if self.in_flight == 1 else f"{self.in_flight} requests"
        callers = "1 caller" if self.waiting == 1 else f"{self.waiting} callers"
        return (
            f"{self.target} is overloaded: {requests} in flight on {pods} ({limit}), {callers} "
            f"waiting of at most {self.max_waiting}; gave up after {self.waited:.1f} s. Add pods, send less at "
            "once, or raise max_in_flight if the pods can take more (max_waiting only makes the queue longer)."
        )


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


class NoPrimary(HeadlessError, ConnectionError):
    """No pod of a database takes writes. Nothing was sent, so trying again is right: between the end of one primary and
    the promotion of the next there is none.

    target     the name as the application wrote it
    waited     seconds this caller waited
    asked      the pods with what each said last: `(("10.244.1.7:3306", "it takes no writes"), …)`
    retryable  True, as errors are marked that a demoted primary gives
    """

    retryable = True

    def __init__(self, target: str, waited: float, asked: Sequence[tuple[str, str]]) -> None:
        super().__init__(target, waited, tuple(asked))
        self.target, self.waited, self.asked = target, waited, tuple(asked)

    def __reduce__(self) -> tuple[object, ...]:  # OSError keeps two arguments only
        return type(self), (self.target, self.waited, self.asked)

    def __str__(self) -> str:
        each = ", ".join(f"{endpoint} ({what})" for endpoint, what in self.asked) or "DNS lists none"
        return (
            f"no pod behind {self.target} takes writes, after {self.waited:.1f} s: {each}. Try again: one may be "
            "promoted any moment. `SELECT @@read_only` tells of each"
        )


class DeadlineExceeded(HeadlessError, TimeoutError):
    """The deadline of `service.run` came before an answer.

    target   the name as the application wrote it
    seconds  that have passed
    tried    the pods with what became of each, in order: `(("10.244.1.7:8080", "reset"), ("10.244.2.9:8080",
             "no answer in 0.52 s"))`
    """

    def __init__(self, target: str, seconds: float, tried: Sequence[tuple[str, str]]) -> None:
        super().__init__(target, seconds, tuple(tried))
        self.target, self.seconds, self.tried = target, seconds, tuple(tried)

    def __reduce__(self) -> tuple[object, ...]:  # OSError keeps two arguments only
        return type(self), (self.target, self.seconds, self.tried)

    def __str__(self) -> str:
        each = ", ".join(f"{endpoint} ({why})" for endpoint, why in self.tried) or "nobody yet"
        return (
            f"{self.target} did not answer within {self.seconds:.2f} s: tried {each}. Give it a later deadline, or see "
            "why these pods are slow; `repeatable=True` lets a silent one be left for another"
        )


class PoolTimeout(HeadlessError, TimeoutError):
    """No connection of a pool came free within the caller's time.

    target        the name as the application wrote it
    waited        seconds this caller waited
    size, limit   connections that the pool had, and may have
    holders       who holds them, the longest first: `("orders/db.py:42 for 31.0 s (to 10.244.1.7:3306)", …)`
    waiting       callers that wait beside this one
    opening       dials under way
    last_failure  what the last dial that failed failed with, or ""; `failures` is how many failed in all
    """

    SHOWN = 5  # holders in the sentence; `holders` has all

    def __init__(
        self,
        target: str,
        waited: float,
        size: int,
        limit: int,
        holders: Sequence[str],
        waiting: int,
        opening: int,
        last_failure: str = "",
        failures: int = 0,
    ) -> None:
        super().__init__(target, waited, size, limit, tuple(holders), waiting, opening, last_failure, failures)
        self.target, self.waited, self.size, self.limit, self.holders = target, waited, size, limit, tuple(holders)
        self.waiting, self.opening, self.last_failure, self.failures = waiting, opening, last_failure, failures

    def __reduce__(self) -> tuple[object, ...]:  # OSError keeps two arguments only
        facts = (self.target, self.waited, self.size, self.limit, self.holders)
        return type(self), (*facts, self.waiting, self.opening, self.last_failure, self.failures)

    def __str__(self) -> str:
        shown = ", ".join(self.holders[: self.SHOWN])
        more = f" and {len(self.holders) - self.SHOWN} more" if len(self.holders) > self.SHOWN else ""
        held = f", {len(self.holders)} of them handed out: {shown}{more}" if self.holders else ", none handed out"
        failed = f"; {self.failures} dials failed, the last with {self.last_failure}" if self.last_failure else ""
        if len(self.holders) >= self.limit:
            what = "Return them sooner, or raise max_size if the server can take more"
        elif self.last_failure:
            what = "See why the pods cannot be connected to"
        else:
            what = "See whether the pods answer: dials that say nothing end after open_timeout"
        return (
            f"no connection to {self.target} within {self.waited:.1f} s: {self.size} of {self.limit} connections"
            f"{held}; {self.opening} being opened, {self.waiting} other callers waiting{failed}. {what}."
        )


class NotHeld(HeadlessError, RuntimeError):
    """A connection was given back to a pool that had not handed it out: given back twice, or another pool's."""


class ClosedError(HeadlessError, RuntimeError):
    """The client or the pool was closed."""


class WrongLoop(HeadlessError, RuntimeError):
    """A client used from another event loop, or in a forked child while its loop stayed in the parent."""


class PickEnded(HeadlessError, RuntimeError):
    """A pick was ended a second time. Each ends exactly once, or loads would be counted wrong for ever."""
