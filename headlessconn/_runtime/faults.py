"""What an exception of somebody's client library says about a connection of a pool.

Libraries wrap what the socket said (pymysql's 2003 hides a refusal), so the whole chain of causes is looked at. Who
knows the library's own exceptions better names them by `is_lost` and `is_full`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from typing import TypeAlias

from headlessconn._runtime.dial import how_dial_failed, how_request_failed
from headlessconn.core.endpoint import NO_DIAL, How
from headlessconn.core.pooling import Fault

IsLost: TypeAlias = Callable[[BaseException], bool | None]
IsFull: TypeAlias = Callable[[BaseException], bool]

DEPTH = 8  # causes looked at: chains may be circles

_ENDED = {How.RESET: How.RESET, How.TIMEOUT: How.TIMEOUT, How.REFUSED: How.OK, How.UNREACHABLE: How.TIMEOUT}
# A refusal is nothing that an open connection can meet with: something else was dialled in the middle of its use.


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, the nearest first."""
    found: BaseException | None = error
    for _ in range(DEPTH):
        if found is None:
            return
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def of_opening(error: BaseException, is_lost: IsLost | None, is_full: IsFull | None) -> tuple[Fault, How]:
    """Why `open` failed: what the pool must know, and what the engine is told of the pod."""
    if is_full is not None and is_full(error):
        return Fault.FULL, How.CALLER
    for cause in chain(error):
        if isinstance(cause, ssl.SSLError):
            return Fault.REFUSES, How.LOCAL  # this pod's certificate, or our list of authorities; others may do
        how = how_dial_failed(cause)
        if how in NO_DIAL:
            return Fault.UNREACHABLE, how
        if how is How.LOCAL and isinstance(cause, OSError):
            # Only those that name our own side: FileNotFoundError for a key file is nothing to wait for.
            return (Fault.OURS if how_request_failed(cause) is How.LOCAL else Fault.REFUSES), How.LOCAL
        if isinstance(cause, EOFError):
            return Fault.UNREACHABLE, How.RESET  # it accepted, and hung up before the login was done
        if isinstance(cause, asyncio.CancelledError):
            return Fault.UNREACHABLE, How.CANCELLED
    if is_lost is not None and is_lost(error):
        return Fault.UNREACHABLE, How.RESET
    return Fault.REFUSES, How.CALLER


def of_using(error: BaseException, is_lost: IsLost | None) -> tuple[str, How]:
    """What an exception in the middle of its use says: ("", …) when the connection may go to the next caller, else why
    not, and what the engine is told of the pod."""
    if is_lost is not None and isinstance(error, Exception):
        lost = is_lost(error)
        if lost is not None:
            how = _ended(error)
            return ("broken", How.RESET if how is None else how) if lost else ("", How.OK)
    if not isinstance(error, Exception):
        return "cancelled in use", How.OK  # in the middle of an exchange, as like as not: the answer is yet to come
    how = _ended(error)
    return ("", How.OK) if how is None else ("broken", how)


def of_checking(error: BaseException) -> How:
    """A connection that was idle and is dead: its server closed it, or some box on the way forgot it. Only silence is
    evidence against the pod."""
    return How.TIMEOUT if any(isinstance(cause, TimeoutError) for cause in chain(error)) else How.RESET_REUSED


def _ended(error: BaseException) -> How | None:
    for cause in chain(error):
        how = _ENDED.get(how_request_failed(cause))
        if how is not None:
            return how
    return None
