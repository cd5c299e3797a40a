"""What a pool wants done: small commands. Each of the first four is one step on one connection, and its end is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headlessconn.core.endpoint import Endpoint, How, Key
from headlessconn.core.pooling.slot import Slot, Waiter


@dataclass(frozen=True, slots=True)
class Open:
    """Dial. Unless `slot.claim` is there already, have the engine place it, avoiding the endpoints in `avoid`.

    Then tell `placed`, and `opened` or `failed`; or, without a place, `all_held` or `nobody`.
    """

    slot: Slot
    avoid: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """See whether it still works, then tell `checked`."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Reset:
    """Clean it for its next user, then tell `was_reset` or `broke`."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Close:
    """Tell the engine that it is over (`how`: what that says about the pod; OK is nothing), close it, tell `closed`."""

    slot: Slot
    reason: str
    how: How = How.OK


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop the step under way on this connection: it took too long, or the pool closes. Nobody waits for it any more,
    but if it was a dial and ends with a connection all the same, tell `opened`: it must be closed."""

    slot: Slot
    why: str


@dataclass(frozen=True, slots=True)
class Hand:
    """Wake this caller: `waiter.slot` is his, or `waiter.error` is raised."""

    waiter: Waiter


@dataclass(frozen=True, slots=True)
class Probe:
    """Connect to this endpoint by TCP, close, and tell `probed(key, passed, now)`."""

    key: Key
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Silent:
    """The pod of this connection, which is handed out, does not answer even a TCP connect: whoever waits on the
    connection may be told."""

    slot: Slot


Command: TypeAlias = Open | Check | Reset | Close | Cancel | Hand | Probe | Silent
