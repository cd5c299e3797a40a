"""One connection for SQLAlchemy's pool: which pods are tried for it, in which order, and what is raised in the end.

Told as a generator of steps, which a coroutine carries out on a loop and a function in a thread.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol, TypeAlias

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.driver import Driver
from headlessconn.adapters import _mysql
from headlessconn.core.claim import Claim
from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.pick import Nobody
from headlessconn.core.pooling import Fault
from headlessconn.core.pooling.pods import Pods

log = logging.getLogger("headlessconn")

AnyDriver: TypeAlias = Driver | BlockingDriver

TRIES = 3  # pods for one connection, as for a request that was not sent

_HELD = {
    Fault.REFUSES: "it is left out for up to 30 s at a time",
    Fault.FULL: "it is left out for up to 30 s at a time",
    Fault.UNREACHABLE: "it is tried again, less and less often",
    Fault.OURS: "no pod is to blame",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Claim a place on a pod that `avoid` does not name; `wait` seconds for one to appear, None = as the options say.
    Answered by a `Claim`, or `Nobody`."""

    driver: AnyDriver
    avoid: Collection[Key]
    wait: float | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Connect to it, log in, and ask `greeting`. Answered by the library's connection, and the row."""

    endpoint: Endpoint
    greeting: str | None


@dataclass(frozen=True, slots=True)
class Drop:
    """Close a connection that was opened in vain."""

    raw: Any


@dataclass(frozen=True, slots=True)
class Find:
    """Ask pods for their role, once for all who want to know it now."""


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


Step: TypeAlias = Place | Open | Drop | Find | Pause


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connection, its pod, and the claim that is to be said to be open; None where nobody counts them."""

    raw: Any
    endpoint: Endpoint
    driver: AnyDriver | None = None
    claim: Claim | None = None


Dialling: TypeAlias = Generator[Step, Any, Dialled]


class Wanted(Protocol):
    """Which pods will do. `greeting` is asked of each new connection, `unfit` judges the answer."""

    greeting: str | None

    def avoid(self) -> Collection[Key]:
        """Those that are known not to do."""
        ...

    def unfit(self, endpoint: Endpoint, row: Any) -> str:
        """Why this one does not do; "" if it does."""
        ...


class AnyPod:
    greeting: str | None = None

    def avoid(self) -> Collection[Key]:
        return ()

    def unfit(self, endpoint: Endpoint, row: Any) -> str:
        return ""


class Line:
    """What the dials of one engine have in common. Any thread may use it.

    name      what the pods are behind, for people
    error     the library's class for errors of connections, called with a number and a text
    """

    def __init__(self, name: str, driver: Callable[[], AnyDriver], error: Callable[[int, str], Exception]) -> None:
        self.name = name
        self.driver = driver
        self.error = error
        self._pods = Pods(random.Random(os.urandom(16)))
        self._lock = Lock()

    def held_back(self) -> tuple[Key, ...]:
        """Pods that could not be opened just now."""
        with self._lock:
            return self._pods.to_avoid(iter(()), time.monotonic())

    def worked(self, endpoint: Endpoint) -> None:
        with self._lock:
            pod = self._pods.get(endpoint.key)
            if pod is None or not pod.failures:
                return
            self._pods.praise(pod)
        log.info("%s: %s can be connected to again", self.name, endpoint)

    def failed(self, endpoint: Endpoint, fault: Fault, error: BaseException) -> None:
        with self._lock:
            pod = self._pods.get(endpoint.key) or self._pods.add(endpoint.key, endpoint)
            self._pods.blame(pod, fault, error, time.monotonic())
            first = pod.failures == 1
            self._pods.forget((), time.monotonic())
        if first:
            log.warning("%s: no connection to %s (%s): %s", self.name, endpoint, _mysql.said(error), _HELD[fault])

    def failure(self, tried: list[tuple[Endpoint, str]], last: BaseException) -> BaseException:
        """What to raise: the library's own error as it is when one pod was tried, else one that tells of all."""
        if len(tried) < 2 and _mysql.code_of(last):
            return last
        each = ", ".join(f"{endpoint} ({why})" for endpoint, why in tried)
        code = _mysql.code_of(last) or _mysql.CANNOT_CONNECT
        made = self.error(code, f"no connection to {self.name}: tried {each}")
        made.__cause__ = last
        return made


def dialling(line: Line, wanted: Wanted, wait: float | None = None) -> Dialling:
    """To one of the pods of a service, counted among its connections. Raises what `line.failure` gives, `NoEndpoints`
    when there is nobody, and what `Place` raises."""
    tried: list[tuple[Endpoint, str]] = []
    avoid: list[Key] = []
    last: BaseException | None = None
    while True:
        driver = line.driver()
        found = yield Place(driver, [*wanted.avoid(), *avoid, *line.held_back()], wait)
        if isinstance(found, Nobody) and last is None:  # all that would do are held back: better one of those than none
            found = yield Place(driver, wanted.avoid(), wait)
        if isinstance(found, Nobody) and last is None:
            found = yield Place(
                driver, (), wait
            )  # what is known of the others may be old, so the last resort is asked again
        if isinstance(found, Nobody):
            assert last is not None
            raise line.failure(tried, last)
        endpoint = found.endpoint
        try:
            raw, row = yield Open(endpoint, wanted.greeting)
        except BaseException as error:
            fault, how = _mysql.of_opening(error)
            driver.failed(found, how)
            if not isinstance(error, Exception):
                raise
            line.failed(endpoint, fault, error)
            tried.append((endpoint, _mysql.said(error)))
            last = error
            if fault is Fault.OURS or len(tried) >= TRIES:
                raise line.failure(tried, error) from error.__cause__
        else:
            line.worked(endpoint)
            why = wanted.unfit(endpoint, row)
            if not why:
                return Dialled(raw, endpoint, driver, found)
            driver.failed(found, How.CALLER)
            yield Drop(raw)
            tried.append((endpoint, why))
            last = line.error(_mysql.CANNOT_CONNECT, f"{endpoint} does not do: {why}")
            if len(tried) >= TRIES:
                raise line.failure(tried, last)
        avoid.append(found.key)
