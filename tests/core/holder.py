"""A holder of long-lived connections on the stage of `Play`: it opens, checks out and in, and closes as it is told.

Dice give 0.0 unless told otherwise, so the first of the moves that are planned together comes at once.
"""

from __future__ import annotations

from typing import Any

from headlessconn.core.claim import KEEP, Claim, ConnId, Keep, Reason, Retire
from headlessconn.core.effects import Warm
from headlessconn.core.endpoint import How
from headlessconn.core.pick import Nobody
from tests.core.play import Play, key, name_of, records

SHUN = 30.0  # seconds a pod that left must be READY before connections are moved there: rebalance_over


class Holder(Play):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.where: dict[ConnId, str] = {}
        self._seen = 0
        super().__init__(*args, **kwargs)

    # ---- dials

    def place(self, avoid: str = "") -> Claim | Nobody:
        found = self.engine.place(self.now, frozenset(map(key, avoid)))
        self.obey()
        return found

    def claim(self, avoid: str = "") -> Claim:
        found = self.place(avoid)
        assert isinstance(found, Claim), f"nobody at {self.now}"
        return found

    def opened(self, claim: Claim, *, idle: bool = True, pushes: bool = False, warms: bool = True) -> ConnId:
        conn = self.engine.opened(claim, self.now, pushes, warms)
        self.where[conn] = name_of(claim.key)
        self.obey()
        if idle and not pushes:
            self.check_in(conn)
        return conn

    def open(self, count: int = 1, **how: bool) -> list[ConnId]:
        return [self.opened(claim, **how) for claim in [self.claim() for _ in range(count)]]

    def open_at(self, name: str, **how: bool) -> ConnId:
        """One on this pod, wherever the engine would have it."""
        others = "".join(one for one in self.states if one != name)
        return self.opened(self.claim(others), **how)

    def failed(self, claim: Claim, how: How) -> None:
        self.engine.failed(claim, how, self.now)
        self.obey()

    # ---- while it is open

    def check_in(self, conn: ConnId) -> Keep | Retire:
        found = self.engine.checked_in(conn, self.now)
        self.obey()
        return found

    def check_out(self, conn: ConnId) -> Keep | Retire:
        found = self.engine.checked_out(conn, self.now)
        self.obey()
        return found

    def verdict(self, conn: ConnId) -> Keep | Retire:
        found = self.engine.verdict(conn, self.now)
        self.obey()
        return found

    def close(self, conn: ConnId, how: How = How.OK) -> None:
        self.where.pop(conn, None)
        self.engine.closed(conn, self.now, how)
        self.obey()

    def comply(self) -> None:
        """Do all that was wished since the last time: open replacements, then close what is to go."""
        while self._seen < len(self.log):
            new, self._seen = self.log[self._seen :], len(self.log)
            for _, effect in new:
                if isinstance(effect, Warm):
                    if not effect.claim.ended:
                        self.opened(effect.claim)
                elif isinstance(effect, Retire) and effect.conn in self.where:
                    self.close(effect.conn)

    def calm(self, until: float) -> None:
        """Let time pass, and comply with each wish when it comes."""
        while self.engine.wakeup_at <= until:
            self.until(self.engine.wakeup_at)
            self.comply()
        self.until(until)

    # ---- what happened

    @property
    def held(self) -> dict[str, int]:
        """By the engine's count: open ones and those that are dialled."""
        views = self.engine.snapshot(self.now).members
        return {name_of(view.endpoint.key): view.connections for view in views}

    @property
    def warmed(self) -> list[tuple[float, ConnId, str]]:
        """When which connection was to be replaced, and by one to whom."""
        return [(at, wish.replaces, name_of(wish.claim.key)) for at, wish in self.log if isinstance(wish, Warm)]

    @property
    def retired(self) -> list[tuple[float, ConnId, Reason]]:
        """What was told by an effect."""
        return [(at, wish.conn, wish.reason) for at, wish in self.log if isinstance(wish, Retire)]

    def pending(self) -> Claim:
        """The replacement that was wished for last."""
        return [wish.claim for _, wish in self.log if isinstance(wish, Warm)][-1]

    def scale(self, pods: str) -> None:
        """DNS says so from now on, and the engine hears it now."""
        self.says = records(pods)
        self.engine.answered(self.says, self.now)
        self.obey()


def order(pods: str) -> str:
    """The pods in the order of this stage's dice: each process has one of its own."""
    holder = Holder(pods)
    return "".join(holder.where[conn] for conn in holder.open(len(pods)))


def is_told(found: Keep | Retire, reason: Reason) -> bool:
    return found is not KEEP and isinstance(found, Retire) and found.reason is reason
