"""A place for one long-lived connection: the thin seam for pools that libraries own."""

from __future__ import annotations

from collections.abc import Callable

from headlessconn._runtime.dial import how_dial_failed, how_request_failed
from headlessconn._runtime.placing import OnRetire, Placing
from headlessconn.core.claim import KEEP, Claim, ConnId, Keep, Retire
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.errors import PickEnded


class Lease:
    """One pod, for one connection that a library's pool opens, keeps and closes itself. Made by `Service.place`.

        lease = await service.place()
        try:
            connection = await library.connect(lease.host, lease.port)
        except BaseException as error:
            lease.failed(error)  # evidence against the pod, or not
            raise
        lease.opened()
        ...
        if lease.checked_in() is not KEEP:  # when the pool takes it back
            await connection.close()
            lease.closed()

    host, port   where to connect
    endpoint     the same, with the pod's hostname when DNS knows it

    It is counted from the moment it is made, so it must end: by `failed`, or by `opened` and, later, `closed`. Whoever
    is cancelled in between says `failed` with the `CancelledError`.
    """

    __slots__ = ("_claim", "_conn", "_driver", "endpoint", "host", "port")

    def __init__(self, driver: Placing, claim: Claim) -> None:
        self._driver = driver
        self._claim = claim
        self._conn: ConnId | None = None
        self.endpoint: Endpoint = claim.endpoint
        self.host = self.endpoint.address
        self.port = self.endpoint.port

    def opened(
        self,
        *,
        pushes: bool = False,
        on_retire: OnRetire | None = None,
        on_warm: Callable[[Lease], None] | None = None,
    ) -> None:
        """The connection is open, its login included, and in use.

        pushes      it is never checked in (a subscription, a replication stream), so its holder must be told
        on_retire   called with a `Retire` when it should go: an idle one, or one that `pushes`. Without it the answer
                    to the next question says so
        on_warm     called with a `Lease` on the pod to which this connection is to move: open one there, and say
                    `opened` or `failed` of that lease. Then this one is told to go. Without it this one just goes

        They are called on the loop, must not block, and are not called after `closed`. Raises `PickEnded` when the
        lease has ended, or the connection was said to be open, before.
        """
        driver = self._driver
        warm = None if on_warm is None else lambda claim: on_warm(Lease(driver, claim))
        self._conn = driver.opened(self._claim, pushes=pushes, on_retire=on_retire, on_warm=warm)

    def failed(self, error: BaseException, *, reached: bool = False) -> None:
        """There is no connection, and this is why. A refusal or a time-out is evidence against the pod, and lets DNS be
        asked again; our own trouble (no descriptors, our certificates), a cancellation and what is no error of a
        connection (a wrong password) are none.

        reached   the pod had accepted by TCP: a time-out then is an application's that does not answer

        Raises `PickEnded` when the lease has ended before.
        """
        self._driver.failed(self._claim, how_request_failed(error) if reached else how_dial_failed(error))

    def verdict(self) -> Keep | Retire:
        """Whether the connection may stay, for a pool that does not say when it is idle. Ask when it comes back or goes
        out, not in a transaction. After a `Retire` close it, by its `by` (the loop's time) at the latest."""
        return self._driver.verdict(self._open)

    def checked_out(self) -> Keep | Retire:
        """It leaves the pool, if it may stay; with `Retire`, close it and give the caller another one."""
        return self._driver.checked_out(self._open)

    def checked_in(self) -> Keep | Retire:
        """It is back in the pool, idle, if it may stay; with `Retire`, close it."""
        return self._driver.checked_in(self._open)

    def closed(self, error: BaseException | None = None) -> None:
        """It is closed. `error`: what it broke with, maybe evidence against its pod. Saying so twice is right."""
        how = How.OK if error is None else how_request_failed(error)
        self._driver.gone(self._open, how)

    @property
    def _open(self) -> ConnId:
        if self._conn is None:
            raise PickEnded(f"the connection to {self.endpoint} was not said to be open: call `opened()` first")
        return self._conn

    def __repr__(self) -> str:
        return f"<headlessconn.Lease {self.endpoint}>"


__all__ = ["KEEP", "Keep", "Lease", "Retire"]
