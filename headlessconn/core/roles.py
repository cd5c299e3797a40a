"""Who takes writes: what pods said of themselves, and which of them is the primary.

A pod's own word counts, since DNS moves seconds after the role does; DNS decides only where two pods claim it. The one
that is in use stays it, so that two claims never make the choice flap.
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

    __slots__ = ("_incumbent", "_said", "primary", "split")

    def __init__(self) -> None:
        self._said: dict[Key, bool] = {}
        self._incumbent: Key | None = None
        self.primary: Key | None = None
        self.split: tuple[Key, ...] = ()

    def told(self, key: Key, writable: bool) -> None:
        """It answered. `settle` draws the conclusion."""
        self._said[key] = writable
        if not writable and key == self.primary:
            self.primary = None

    def lost(self, key: Key) -> None:
        """A connection to it broke, or could not be had: what it said may be old."""
        self._said.pop(key, None)
        if key == self.primary:
            self.primary = None

    def settle(self, listed: Collection[Key], others: Iterable[Key] = ()) -> Key | None:
        """Who is the primary, of those that DNS lists as it and of the others that may have become it."""
        candidates = dict.fromkeys([*listed, *others])
        for key in [key for key in self._said if key not in candidates]:
            del self._said[key]
        writable = sorted(key for key in candidates if self._said.get(key))
        self.split = tuple(writable) if len(writable) > 1 else ()
        best = [key for key in writable if key in listed] or writable
        if not best:
            self.primary = None
        else:
            self.primary = self._incumbent = self._incumbent if self._incumbent in best else best[0]
        return self.primary

    def is_asked_for(self, listed: Collection[Key]) -> bool:
        """Whether somebody should be asked: nobody is known to take writes, or DNS names one that has said nothing."""
        return self.primary is None or any(key not in self._said for key in listed)

    def unwelcome(self, key: Key) -> str:
        """Why no connection for writing may stay on this pod; "" if it may."""
        if key == self.primary:
            return ""
        if self._said.get(key) is False:
            return READ_ONLY
        return "" if self.primary is None else OTHER
