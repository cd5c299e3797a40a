"""When to look a target up again. Told the time; never asks.

The engine alone spaces look-ups, and it always re-arms: whatever happens, `due_at` is set again by the next fact.
"""

from __future__ import annotations

import random
from math import inf

from headlessconn.options import Options

EMPTY_EAGER = 30.0  # seconds after the set became empty during which it is asked for every refresh_min
HINT_FORGOTTEN = 60.0  # seconds without a hint after which the next one is prompt again
EARLY = 0.10  # constant TTLs: up to this much early, so that a fleet started together spreads
LATE = 0.05  # TTLs that count down (a cache in between): asking early only gets the old answer with TTL 1
GUARD = 1.0  # seconds beyond lookup_timeout after which a look-up that never reported is given up


class Refresh:
    """The schedule of one target.

    due_at    when the next look-up is due; `inf` while one is under way or the target is idle
    asking    the id of the look-up under way, 0 when there is none
    asked_at  when the last one began
    """

    __slots__ = (
        "_failures",
        "_hint_at",
        "_hint_wait",
        "_hinted",
        "_last_ttl",
        "_options",
        "_random",
        "_sequence",
        "asked_at",
        "asking",
        "counts_down",
        "due_at",
        "empty_since",
    )

    def __init__(self, options: Options, rng: random.Random, now: float) -> None:
        self._options = options
        self._random = rng.random
        self._sequence = 0
        self._failures = 0
        self._hinted = False
        self._hint_at = -inf
        self._hint_wait = 0.0
        self._last_ttl: float | None = None
        self.counts_down = False
        self.asking = 0
        self.asked_at = -inf
        self.due_at = now
        self.empty_since: float | None = None

    def ask(self, now: float) -> int:
        """A look-up begins; its id is returned. At most one is under way."""
        assert not self.asking, "two look-ups under way"
        self._sequence += 1
        self.asking = self._sequence
        self.asked_at = now
        self.due_at = inf
        return self.asking

    @property
    def give_up_at(self) -> float:
        """When the look-up under way is taken for lost, so that even a driver that died of a bug re-arms us."""
        return self.asked_at + self._options.lookup_timeout + GUARD if self.asking else inf

    def records(self, ttl: float | None, changed: bool, now: float) -> None:
        """The answer was a set. `ttl` None means: no need to ask again (a static set)."""
        self._answered(changed)
        self.empty_since = None
        if ttl is None:
            self.due_at = inf
            return
        first = self._last_ttl is None
        self.counts_down = not first and ttl != self._last_ttl
        self._last_ttl = ttl
        self._plan(ttl, now, late=self.counts_down, spread=first)

    def nobody(self, ttl: float | None, waiters: int, changed: bool, now: float) -> None:
        """The answer was "nobody"; `ttl` is the negative TTL."""
        self._answered(changed)
        if self.empty_since is None:
            self.empty_since = now
        if waiters or now - self.empty_since < EMPTY_EAGER:
            ttl = self._options.refresh_min
        self._plan(self._options.refresh_max if ttl is None else ttl, now)

    def no_news(self, waiters: int, now: float) -> None:
        """The look-up brought nothing: back off 1, 2, 4 … but not beyond the TTL known last, so that the set is right
        again as soon after an outage as after a change; keep on asking while callers wait."""
        self.asking = 0
        wait = self._options.refresh_min * 2.0 ** min(self._failures, 20)
        if self._last_ttl is not None:
            wait = min(wait, self._last_ttl)
        self._failures += 1
        self._plan(self._options.refresh_min if waiters else wait, now)

    def hint(self, now: float) -> None:
        """A pod refused us, so the set in hand may be old: ask sooner, but not in a storm.

        A dead node stays listed for 40-50 s, so a hint whose answer changed nothing doubles the wait of the next.
        """
        if self.asking:
            return
        if now - self._hint_at > HINT_FORGOTTEN:
            self._hint_wait = 0.0
        at = max(now, self.asked_at + max(self._options.refresh_min, self._hint_wait))
        if at < self.due_at:
            self.due_at = at
            self._hinted = True
            self._hint_at = now

    def hurry(self, now: float) -> None:
        """Callers wait for a first endpoint: ask as soon as refresh_min allows."""
        if not self.asking:
            self.due_at = min(self.due_at, max(now, self.asked_at + self._options.refresh_min))

    def sleep(self) -> None:
        """Nobody uses the target: stop asking."""
        self.due_at = inf

    def _answered(self, changed: bool) -> None:
        self.asking = 0
        self._failures = 0
        if changed:
            self._hint_wait = 0.0
        elif self._hinted:
            low, high = self._options.refresh_min, self._options.refresh_max
            self._hint_wait = min(max(2.0 * self._hint_wait, 2.0 * low), high)
        self._hinted = False

    def _plan(self, wait: float, now: float, late: bool = False, spread: bool = False) -> None:
        low, high = self._options.refresh_min, self._options.refresh_max
        late = late and wait < high
        wait = min(max(wait, low), high)
        if spread:
            # Five hundred targets opened together would be asked for together, round after round: the jitter alone
            # takes minutes to part them. So the first wait is drawn from all that are allowed.
            wait -= (wait - low) * self._random()
        else:
            wait *= 1.0 + LATE * self._random() if late else 1.0 - EARLY * self._random()
        self.due_at = max(now + min(wait, high), self.asked_at + low)
