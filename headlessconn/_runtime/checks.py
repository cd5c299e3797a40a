"""Carrying out checks and `verify`: asking one pod, and saying what its answer was. No judgement of pods here."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import NamedTuple
from weakref import WeakKeyDictionary

from headlessconn._runtime import dial
from headlessconn.checks import Http
from headlessconn.core.effects import Probe, Verify
from headlessconn.core.endpoint import Endpoint, How
from headlessconn.core.target import Target
from headlessconn.options import Options

log = logging.getLogger("headlessconn")

# Checks and questions under way at once on one loop, of all its targets: beyond, they would compete with requests for
# file descriptors and for the loop. At 5 ms each, 32 are 6 400 a second.
ABREAST = 32
HEAD_MAX = 8192  # bytes read in search of the status line: what servers allow for a whole head (nginx, Apache)

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


class Outcome(NamedTuple):
    """What `Engine.probed` is told: passed or not, how it ended, and why in words."""

    passed: bool
    how: How = How.OK
    why: str = ""


class Checker:
    """Asks the pods of one target; what is no pod's fault it says once in the log, and then never again."""

    def __init__(self, target: Target, options: Options) -> None:
        self._target = target
        self._verify = options.verify
        self._said: set[str] = set()

    async def probe(self, probe: Probe) -> Outcome:
        """Connect, or ask, as the probe has it. Never raises but when cancelled."""
        async with _turn(0.0 if probe.is_redial else probe.timeout) as is_ours:
            if not is_ours:
                return Outcome(False, How.LOCAL, "too many checks under way")
            try:
                outcome = await _ask(probe, self._target.host)
            except Exception as error:  # a probe must always be answered, or the engine waits for its guard
                outcome = Outcome(False, How.LOCAL, f"{type(error).__name__}: {error}")
        self._note(probe, outcome)
        return outcome

    def probe_blocking(self, probe: Probe) -> Outcome:
        """The same for a thread."""
        try:
            outcome = _ask_blocking(probe, self._target.host)
        except Exception as error:
            outcome = Outcome(False, How.LOCAL, f"{type(error).__name__}: {error}")
        self._note(probe, outcome)
        return outcome

    async def verify(self, wish: Verify) -> bool | None:
        """The word of `Options.verify`; None when it raised, took too long, or said neither yes nor no."""
        async with _turn(wish.timeout) as is_ours:
            if not is_ours or self._verify is None:
                return None
            try:
                async with asyncio.timeout(wish.timeout):
                    word = self._verify(wish.endpoint, self._target.host)
                    return self._word(wish, await word if inspect.isawaitable(word) else word)
            except Exception as error:
                self._no_word(wish, error)
                return None

    def verify_blocking(self, wish: Verify) -> bool | None:
        """The same for a thread, where `verify` must be a plain function and keep its own time-out."""
        if self._verify is None:
            return None
        try:
            word = self._verify(wish.endpoint, self._target.host)
            if inspect.iscoroutine(word):
                word.close()
            return self._word(wish, word)
        except Exception as error:
            self._no_word(wish, error)
            return None

    def _word(self, wish: Verify, word: object) -> bool:
        if not isinstance(word, bool):  # None of a forgotten `return` must not take every pod out
            raise TypeError(f"it returned {word!r}, neither True nor False")
        return word

    def _no_word(self, wish: Verify, error: Exception) -> None:
        what = f"it took more than {wish.timeout:g} s" if isinstance(error, TimeoutError) else repr(error)
        if self._is_news(f"verify {type(error).__name__}"):
            log.warning(
                "%s: verify said nothing about %s (%s): it is used, and asked about again. Said once",
                *(self._target, wish.endpoint, what),
                exc_info=None if isinstance(error, TimeoutError) else error,
            )

    def _note(self, probe: Probe, outcome: Outcome) -> None:
        if outcome.how is How.LOCAL and not probe.is_redial and self._is_news("check"):
            log.warning(
                "%s: %s could not be checked (%s), which says nothing about it. Said once",
                *(self._target, probe.endpoint, outcome.why),
            )

    def _is_news(self, what: str) -> bool:
        is_news = what not in self._said
        self._said.add(what)
        return is_news


@contextlib.asynccontextmanager
async def _turn(seconds: float) -> AsyncIterator[bool]:
    """A turn among all checks of the loop; False when none came within `seconds`. Who waits 0 seconds needs none."""
    if not seconds:
        yield True
        return
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = asyncio.Semaphore(ABREAST)
    try:
        async with asyncio.timeout(seconds):
            await turns.acquire()
    except TimeoutError:
        yield False
        return
    try:
        yield True
    finally:
        turns.release()


# ---- one question ------------------------------------------------------------------------------------------------


async def _ask(probe: Probe, host: str) -> Outcome:
    check = probe.check
    place = _place(probe)
    try:
        sock = await dial.connect(place, probe.timeout)
    except OSError as error:
        return _no_connection(error)
    if not isinstance(check, Http):
        sock.close()
        return Outcome(True)
    try:
        async with asyncio.timeout(check.timeout):
            status = await _status(sock, check, place, host)
    except (OSError, EOFError, ValueError) as error:
        return _no_answer(error, check)
    finally:
        sock.close()
    return _judged(status, check)


async def _status(sock: socket.socket, check: Http, place: Endpoint, host: str) -> int:
    """The status of the answer. Raises `OSError`, `EOFError`, and `ValueError` for what is not HTTP."""
    context, name = _tls(check, place, host)
    reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=name)
    try:
        writer.write(_request(check, place, host))
        head = _Head()
        while (status := head.status) is None:
            head.feed(await reader.read(1024))
        return status
    finally:
        writer.transport.abort()  # without the goodbyes of TLS, for which a frozen pod would be waited for
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _ask_blocking(probe: Probe, host: str) -> Outcome:
    check = probe.check
    place = _place(probe)
    try:
        sock = socket.create_connection((place.address, place.port), timeout=probe.timeout)
    except OSError as error:
        return _no_connection(error)
    with sock:
        if not isinstance(check, Http):
            return Outcome(True)
        deadline = time.monotonic() + check.timeout
        try:
            status = _status_blocking(sock, check, place, host, deadline)
        except (OSError, EOFError, ValueError) as error:
            return _no_answer(error, check)
    return _judged(status, check)


def _status_blocking(sock: socket.socket, check: Http, place: Endpoint, host: str, deadline: float) -> int:
    context, name = _tls(check, place, host)
    sock.settimeout(_left(deadline))
    if context is not None:
        sock = context.wrap_socket(sock, server_hostname=name)
    with sock:
        sock.settimeout(_left(deadline))
        sock.sendall(_request(check, place, host))
        head = _Head()
        while (status := head.status) is None:
            sock.settimeout(_left(deadline))
            head.feed(sock.recv(1024))
        return status


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


# ---- what goes out, and what comes back --------------------------------------------------------------------------


def _place(probe: Probe) -> Endpoint:
    check = probe.check
    if isinstance(check, Http) and check.port is not None:
        return replace(probe.endpoint, port=check.port)
    return probe.endpoint


def _tls(check: Http, place: Endpoint, host: str) -> tuple[ssl.SSLContext | None, str | None]:
    """The context and the name to verify: the Service's, which every pod's certificate has to be for."""
    if check.tls is False:
        return None, None
    context = _system_authorities() if check.tls is True else check.tls
    return context, check.host or host or place.address


@functools.cache
def _system_authorities() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the bundle: tens of milliseconds


def _request(check: Http, place: Endpoint, host: str) -> bytes:
    """As small as HTTP/1.1 allows. The Host header is the Service's, as that of every other request."""
    name = check.host or host or place.address
    if check.host is None and place.port != (443 if check.tls else 80):
        name = f"[{name}]:{place.port}" if ":" in name else f"{name}:{place.port}"
    lines = f"GET {check.path} HTTP/1.1", f"Host: {name}", "User-Agent: headlessconn-check", "Connection: close"
    return "\r\n".join((*lines, "", "")).encode("ascii")


class _Head:
    """Reads bytes until the status of the answer is known, and no more. Interim answers (1xx) are passed over."""

    def __init__(self) -> None:
        self.status: int | None = None
        self._data = b""
        self._read = 0

    def feed(self, data: bytes) -> None:
        """Raises `EOFError` for the end, `ValueError` for what is not HTTP/1 or too long."""
        if not data:
            raise EOFError
        self._read += len(data)
        self._data += data
        while self.status is None and b"\n" in self._data:
            status = _status_in(self._data.partition(b"\n")[0])
            if status >= 200 or status == 101:
                self.status = status
            else:
                _, end, after = self._data.replace(b"\r\n", b"\n").partition(b"\n\n")
                if not end:
                    break
                self._data = after
        if self.status is None and self._read > HEAD_MAX:
            raise ValueError(f"no status in the first {HEAD_MAX} bytes")


def _status_in(line: bytes) -> int:
    version, _, rest = line.strip().partition(b" ")
    digits = rest[:3]
    if not version.startswith(b"HTTP/1.") or not digits.isdigit() or len(digits) < 3 or rest[3:4].strip():
        raise ValueError(f"it answered {line[:40]!r}, which is not HTTP/1.1")
    return int(digits)


def _judged(status: int, check: Http) -> Outcome:
    if status in check.expected:
        return Outcome(True)
    return Outcome(False, How.BAD_STATUS, f"GET {check.path} answered {status}")


def _no_connection(error: OSError) -> Outcome:
    how = dial.how_dial_failed(error)
    return Outcome(False, how, str(error) if how is How.LOCAL else how.value)


def _no_answer(error: Exception, check: Http) -> Outcome:
    what = f"GET {check.path}"
    match error:
        case TimeoutError():
            return Outcome(False, How.TIMEOUT, f"{what} was not answered within {check.timeout:g} s")
        case ssl.SSLError():
            return Outcome(False, How.LOCAL, f"{what}: {error}")  # as with a request: our authorities, as likely as not
        case EOFError() | ConnectionError():
            return Outcome(False, How.RESET, f"{what}: the connection was closed before an answer")
        case ValueError():
            return Outcome(False, How.BAD_STATUS, f"{what}: {error}")
    how = dial.how_request_failed(error)
    return Outcome(False, How.LOCAL if how is How.CALLER else how, f"{what}: {error}")
