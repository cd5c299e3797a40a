"""How many connections each member should hold, and which one has the most room. Pure arithmetic over counts.

With n members and c connections each gets ⌊c ÷ n⌋, and the remainder goes to those that rank highest in this
process's own order (rendezvous hashing: a keyed hash of the member). The order differs from process to process, so a
fleet whose processes hold one connection each still spreads evenly, and moves when pods are added: "only what is above
the ceiling moves" moves nothing there. It is the same before and after a change, so what moves is the least that can.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol

from headlessconn.core.endpoint import Key
from headlessconn.core.member import Member


class Counted(Protocol):
    """What a member holds. `live` are those that count: open and not about to go, or being dialled."""

    live: int


def rank(seed: bytes, key: Key) -> bytes:
    """The place of a member in the order that `seed` gives; the smallest is first."""
    return blake2b(key, key=seed, digest_size=8).digest()


def quotas(total: int, members: int) -> tuple[int, int]:
    """How many each gets, and to how many of the first in rank one more.

    >>> quotas(16, 6)
    (2, 4)
    """
    return divmod(total, members)


def surplus(held: Mapping[Member, Counted], places: Mapping[Member, int], by_rank: bool) -> list[tuple[Member, int]]:
    """The members that hold more than their quota, and by how many.

    `places` gives the place in the order of each member that counts. With `by_rank` the remainder belongs to the first
    in rank; else to those who have it: after mere closings a spread of one is nothing to move a connection for.
    """
    holding = [(member, counted.live) for member, counted in held.items() if member in places]
    if not holding:
        return []
    each, more = quotas(sum(live for _, live in holding), len(places))
    if not by_rank:
        holding.sort(key=lambda one: (-one[1], places[one[0]]))
    over = []
    for seat, (member, live) in enumerate(holding):
        quota = each + ((places[member] if by_rank else seat) < more)
        if live > quota:
            over.append((member, live - quota))
    return over


def roomiest(held: Mapping[Member, Counted], order: Sequence[Member], avoid: Collection[Key] = ()) -> Member | None:
    """Where one more should go: the member that lacks most to its quota; among equals the one that holds least, then
    the one with fewer connections of any kind, then the first in rank. None when `avoid` names all of `order`, or there
    is nobody."""
    if not order:
        return None
    found = [held[member].live if member in held else 0 for member in order]
    each, more = quotas(sum(found) + 1, len(order))
    best: Member | None = None
    best_by = (0, 0, 0)
    for place, member in enumerate(order):
        if avoid and member.key in avoid:
            continue
        live = found[place]
        by = (live - each - (place < more), live, member.connections)
        if best is None or by < best_by:
            best, best_by = member, by
            if live == 0 and place < more and not member.connections:
                break  # nobody lacks more than all of the largest quota
    return best
