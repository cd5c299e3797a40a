"""Picks, for threads."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.dial import how_request_failed
from headlessconn._runtime.sending import Sending
from headlessconn.core import pick as core
from headlessconn.core.endpoint import NO_DIAL, Endpoint, How

if TYPE_CHECKING:
    from headlessconn.sync.client import Service

_OK = How.OK


class Picking:
    """The `with` of `Service.pick`."""

    __slots__ = ("_pick", "_safe", "_service", "_wait")

    def __init__(self, service: Service, wait: float | None, safe: bool) -> None:
        self._service = service
        self._wait = wait
        self._safe = safe
        self._pick: Pick | None = None

    def __enter__(self) -> Pick:
        driver = self._service.driver()
        found = driver.pick((), self._safe)
        if not isinstance(found, core.Pick):
            driver, found = self._waited()
        pick = self._pick = Pick(driver, found)
        return pick

    def _waited(self) -> tuple[BlockingDriver, core.Pick]:
        def wait(driver: BlockingDriver) -> tuple[BlockingDriver, core.Pick]:
            found = driver.acquire((), self._safe, self._wait)
            assert isinstance(found, core.Pick)  # nothing was avoided
            return driver, found

        return self._service.use(wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._pick is not None
        self._pick.finish(error)


class Pick:
    """One pod, taken for one request.

    host, port   where to connect
    endpoint     the same, with the pod's hostname when DNS knows it
    """

    __slots__ = ("_driver", "_endpoint", "_pick", "_sending", "is_bad")

    def __init__(self, driver: BlockingDriver, pick: core.Pick) -> None:
        self._driver = driver
        self._pick = pick
        self._endpoint: Endpoint | None = None  # spelled out when it is looked at
        self._sending: Sending | None = None  # only of those who say something on the way
        self.is_bad = False  # whether the answer was said to be bad

    @property
    def endpoint(self) -> Endpoint:
        found = self._endpoint
        if found is None:
            found = self._endpoint = self._pick.endpoint
        return found

    @property
    def host(self) -> str:
        return self.endpoint.address

    @property
    def port(self) -> int:
        return self.endpoint.port

    def connecting(self) -> Connecting:
        """Put around what makes the connection:

            with pick.connecting() as seconds:
                sock = socket.create_connection((pick.host, pick.port), seconds)

        Whatever fails in the block is a connection that could not be had, and evidence of that. `seconds` is
        `connect_timeout` (2.5): nothing here could end the block after it. The end of the block says `sent()`.
        """
        return Connecting(self._way(), self._driver.engine.options.connect_timeout)

    def sent(self) -> None:
        """From here on the pod may have seen the request: its latency, and its silence, count from now.

        Only needed without `connecting()`, as on a connection that was kept.
        """
        self._way().sent()

    @property
    def is_sent(self) -> bool:
        """Whether `sent()` was said."""
        return self._sending is not None and self._sending.is_sent

    def responded(self, bad: bool = False) -> None:
        """The answer has begun: its latency is taken now. `bad`: it says that the pod is in trouble (a 5xx)."""
        self.is_bad = self.is_bad or bad
        self._driver.responded(self._pick, bad)

    def streams(self) -> None:
        """It became a long-lived exchange (a subscription, a server's events): no longer a request in flight."""
        self._driver.streams(self._pick)

    def finish(self, error: BaseException | None) -> None:
        """The end of the block."""
        if self._sending is not None:
            self._sending.finish(error)
            return
        how = _OK if error is None else how_request_failed(error)
        if how in NO_DIAL:
            self._driver.dialled(self._pick, how)
        self._driver.ended(self._pick, how)

    def _way(self) -> Sending:
        if self._sending is None:
            self._sending = Sending(self._driver, self._pick)
        return self._sending

    def __repr__(self) -> str:
        return f"<headlessconn.sync.Pick {self.endpoint}>"


class Connecting:
    """The `with` of `Pick.connecting`."""

    __slots__ = ("_seconds", "_sending")

    def __init__(self, sending: Sending, seconds: float) -> None:
        self._sending = sending
        self._seconds = seconds

    def __enter__(self) -> float:
        return self._seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._sending.sent()
        else:
            self._sending.dial_failed(error)


__all__ = ["Connecting", "Pick", "Picking"]
