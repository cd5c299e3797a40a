"""Who takes writes: what pods said of themselves, and which of them is the primary.

A pod's own word counts, since DNS moves seconds after the role does; DNS decides only where two pods claim it. The one
that is in use stays it, and before another is taken in its place it must have said no, or be out of reach: else one
broken connection, in a split brain, would be enough to write to the other half.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from headlessconn.core.endpoint import Key

READ_ONLY = "it takes no writes"
OTHER = "another pod is the primary"


class Roles:
    """The roles behind one application's database. Told the facts; never asks.

    primary   who takes writes; None while nobody is known to
    split     the pods that claim it, when there are several
    """

    __slots__ = ("_incumbent", "_said", "_unreachable", "primary", "split")

    def __init__(self) -> None:
        self._said: dict[Key, bool] = {}
        self._unreachable: set[Key] = set()
        self._incumbent: Key | None = None
        self.primary: Key | None = None
        self.split: tuple[Key, ...] = ()

    def told(self, key: Key, writable: bool) -> None:
        """It answered. `settle` draws the conclusion."""
        self._said[key] = writable
        self._unreachable.discard(key)
        if not writable and key == self.primary:
            self.primary = None

    def lost(self, key: Key) -> None:
        """A connection to it broke: what it said may be old."""
        self._said.pop(key, None)
        if key == self.primary:
            self.primary = None

    def unreachable(self, key: Key) -> None:
        """It was asked, and did not answer."""
        self.lost(key)
        self._unreachable.add(key)

    def settle(self, listed: Collection[Key], others: Iterable[Key] = ()) -> Key | None:
        """Who is the primary, of those that DNS lists as it and of the others that may have become it."""
        candidates = dict.fromkeys([*listed, *others])
        for key in [key for key in self._said if key not in candidates]:
            del self._said[key]
        self._unreachable.intersection_update(candidates)
        writable = sorted(key for key in candidates if self._said.get(key))
        self.split = tuple(writable) if len(writable) > 1 else ()
        best = [key for key in writable if key in listed] or writable
        found = self._incumbent if self._incumbent in best else best[0] if best else None
        first = [key for key in candidates if key in listed or key == self._incumbent]
        if found != self.primary and found not in first and not all(map(self._is_known, first)):
            found = None  # those come first, and have not been heard yet
        if found is not None:
            self._incumbent = found
        self.primary = found
        return found

    def to_ask(self, listed: Collection[Key], others: Iterable[Key] = ()) -> list[Key]:
        """Whom to ask now: all, while nobody is known to take writes; else those that DNS names and that are silent."""
        if self.primary is None:
            return list(dict.fromkeys([*listed, *others]))
        return [key for key in listed if key not in self._said]

    def _is_known(self, key: Key) -> bool:
        return key in self._said or key in self._unreachable

    def unwelcome(self, key: Key) -> str:
        """Why no connection for writing may stay on this pod; "" if it may."""
        if key == self.primary:
            return ""
        if self._said.get(key) is False:
            return READ_ONLY
        return "" if self.primary is None else OTHER
