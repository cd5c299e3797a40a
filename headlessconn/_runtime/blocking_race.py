"""Dialling a service in the caller's thread: one pod, a second beside it when the first is silent, another when it
refuses. `Attempts` decides who runs in the race; this file waits for sockets."""

from __future__ import annotations

import select
import socket
import ssl
import time
from functools import partial

from headlessconn._runtime import dial
from headlessconn._runtime.blocking import BlockingDriver
from headlessconn._runtime.blocking_probe import socket_to
from headlessconn._runtime.poll import WRITE, check_connected, milliseconds
from headlessconn.core.attempts import DIALS, ONCE, Attempts
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Pick
from headlessconn.errors import DialFailed

HANDSHAKE = 60.0  # seconds for TLS when the caller names no time-out, as asyncio has it


def open_connection(
    driver: BlockingDriver, context: ssl.SSLContext | None, name: str | None, seconds: float | None
) -> socket.socket:
    """A connection to one of the pods. TLS begins only with the winner; `seconds` is the time-out of the socket."""
    pick, sock = connect(driver)
    try:
        if context is not None:
            sock.settimeout(HANDSHAKE if seconds is None else seconds)
            sock = context.wrap_socket(sock, server_hostname=name)
        sock.settimeout(seconds)
    except BaseException as error:
        sock.close()
        driver.ended(pick, dial.how_dial_failed(error))
        raise
    driver.ended(pick, How.OK)
    return sock


def connect(driver: BlockingDriver) -> tuple[Pick, socket.socket]:
    """The first of the pods to accept. Losers are given up, which is weak evidence: silence while another answered.

    Raises `NoEndpoints`, `DialFailed`.
    """
    race = _Race(driver)
    try:
        return race.first()
    finally:
        race.end()


class _Dial:
    __slots__ = ("error", "pick", "sock", "until")

    def __init__(self, pick: Pick, sock: socket.socket, until: float) -> None:
        self.pick, self.sock, self.until = pick, sock, until
        self.error: OSError | None = None


class _Race:
    """The dials under way for one connection."""

    def __init__(self, driver: BlockingDriver) -> None:
        self._driver = driver
        self._options = driver.engine.options
        self._racing: dict[int, _Dial] = {}  # by descriptor, in the order of their beginning
        self._tried: list[tuple[str, str]] = []

    def first(self) -> tuple[Pick, socket.socket]:
        """The race itself. Whoever still runs at its end is left to `end`."""
        driver = self._driver
        first = driver.acquire()
        assert isinstance(first, Pick)  # nothing was avoided
        pick: Pick | None = first
        attempts = Attempts(driver.engine, ONCE, first)
        error = self._start(first)
        while True:
            if error is not None and pick is not None:
                pick = self._after(attempts, pick, error)
                error = None if pick is None else self._start(pick)
                continue
            ended = self._wait(time.monotonic() + self._options.race_after)
            if ended is None:
                pick = driver.ask(attempts.beside_dial)
                error = None if pick is None else self._start(pick)
                continue
            pick, error = ended.pick, ended.error
            if error is None:
                driver.dialled(pick, How.OK)
                return pick, ended.sock

    def _after(self, attempts: Attempts, pick: Pick, error: OSError) -> Pick | None:
        """A dial has failed: who is next. None: one of those under way. Raises `DialFailed`, `NoEndpoints`."""
        driver = self._driver
        how = dial.how_dial_failed(error)
        self._tried.append((str(pick.endpoint), how.value))
        driver.dialled(pick, how)
        driver.ended(pick, how)
        found = driver.ask(partial(attempts.after_dial, pick))
        if found is None and self._racing:
            return driver.ask(attempts.beside_dial)  # those under way may be silent ones
        if found is None and len(attempts.tried) < DIALS:
            # All that were tried have failed. When that has emptied the set, wait for somebody as any caller would.
            other = driver.acquire(attempts.tried)
            if isinstance(other, Pick):
                attempts.took(other)
                found = other
        if found is None:
            raise DialFailed(str(driver.engine.target), self._tried) from error
        return found

    def end(self) -> None:
        """Give up what is left."""
        while self._racing and (ended := self._wait(0.0)) is not None:
            ended.sock.close()
            how = How.OK if ended.error is None else dial.how_dial_failed(ended.error)
            self._driver.dialled(ended.pick, how)
            self._driver.ended(ended.pick, how)
        for one in self._racing.values():
            one.sock.close()
            self._driver.ended(one.pick, How.CANCELLED)
        self._racing.clear()

    def _start(self, pick: Pick) -> OSError | None:
        """Begin a dial; what it failed with at once."""
        endpoint = pick.endpoint
        try:
            sock = socket_to(endpoint)
        except OSError as error:
            return error
        try:
            sock.connect((endpoint.address, endpoint.port))
        except BlockingIOError:
            pass
        except OSError as error:
            sock.close()
            return error
        self._racing[sock.fileno()] = _Dial(pick, sock, time.monotonic() + self._options.connect_timeout)
        return None

    def _wait(self, until: float) -> _Dial | None:
        """Wait for the first dial to end, or to be overdue; None when it is `until` before that."""
        poll = select.poll()
        for number in self._racing:
            poll.register(number, WRITE)
        first = min((one.until for one in self._racing.values()), default=until)
        ready = {number for number, _ in poll.poll(milliseconds(min(until, first) - time.monotonic()))}
        now = time.monotonic()
        for number, one in self._racing.items():
            if number in ready or now >= one.until:
                try:
                    if number not in ready:
                        one.error = TimeoutError(f"{one.pick.endpoint} did not answer")
                    else:
                        check_connected(one.sock)
                except OSError as error:
                    one.error = error
                if one.error is not None:
                    one.sock.close()
                del self._racing[number]
                return one
        return None
