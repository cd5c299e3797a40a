"""An engine on a stage: a clock moved by hand, a DNS that says what it is told to, pods that a test calls a, b, c.

It obeys the law of drivers and has no opinions: `until(t)` fires the timers due by then, questions are answered
at once with `says` (None: never), probes by whether the pod is in `refusing` (or never, if in `mute`).
"""

from __future__ import annotations

from collections.abc import Iterable

from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Probe
from headlessconn.core.endpoint import Answer, How, Key, address_of, pack
from headlessconn.core.engine import Engine
from headlessconn.core.member import State
from headlessconn.core.pick import Nobody, Pick
from headlessconn.core.snapshot import MemberView
from headlessconn.core.target import Target
from headlessconn.options import Options
from tests.core.dice import Loaded

TARGET = Target.parse("web.shop:80")


def key(name: str) -> Key:
    return pack(f"10.0.0.{ord(name) - 96}", 80)


def name_of(packed: Key) -> str:
    return chr(int(address_of(packed).rpartition(".")[2]) + 96)


def records(names: Iterable[str], ttl: float | None = 5.0) -> Answer:
    return Answer("dns", "records", frozenset(map(key, names)), ttl=ttl, why="NOERROR", name="web.shop.svc.")


def nobody(why: str = "NXDOMAIN", ttl: float | None = 5.0) -> Answer:
    return Answer("dns", "nobody", ttl=ttl, why=why, name="web.shop.svc.")


def no_news(why: str = "timeout") -> Answer:
    return Answer("dns", "no_news", why=why)


class Play:
    def __init__(
        self,
        pods: str = "abc",
        *,
        dice: Loaded | None = None,
        options: Options | None = None,
        says: Answer | None = None,
        silent: bool = False,
    ) -> None:
        self.now = 0.0
        self.log: list[tuple[float, Effect]] = []
        self.says: Answer | None = None if silent else says or records(pods)
        self.refusing: set[str] = set()
        self.mute: set[str] = set()
        self._dice = dice or Loaded()
        self.engine = Engine(TARGET, options or Options(), self._dice, 0.0)
        self.until(0.0)

    # ---- time

    def until(self, at: float) -> None:
        """Let time pass."""
        while self.engine.wakeup_at <= at:
            self.now = max(self.now, self.engine.wakeup_at)
            self.engine.wake(self.now)
            self.obey()
        self.now = at

    def obey(self) -> None:
        while self.engine.outbox:
            for effect in self.engine.take():
                self.log.append((self.now, effect))
                match effect:
                    case Ask(id=ask) if self.says is not None:
                        self.engine.answered(self.says, self.now, ask)
                    case Probe(id=probe, endpoint=endpoint) if (name := name_of(endpoint.key)) not in self.mute:
                        self.engine.probed(probe, name not in self.refusing, self.now)

    # ---- requests

    def try_to_pick(self, *, avoid: str = "", safe: bool = True) -> Pick | Nobody:
        found = self.engine.pick(self.now, frozenset(map(key, avoid)), safe)
        self.obey()
        return found

    def pick(self, name: str | None = None, *, safe: bool = True) -> Pick:
        """A pick; with a name, of that pod: all others are avoided."""
        others = {view.endpoint.key for view in self.engine.snapshot(self.now).members} if name else set()
        found = self.engine.pick(self.now, others - {key(name)} if name else (), safe)
        self.obey()
        assert isinstance(found, Pick), f"nobody was picked at {self.now}: {found}"
        return found

    def dialled(self, pick: Pick, how: How) -> None:
        self.engine.dialled(pick, how, self.now)
        self.obey()

    def responded(self, pick: Pick, bad: bool = False) -> None:
        self.engine.responded(pick, bad, self.now)
        self.obey()

    def ended(self, pick: Pick, how: How = How.OK) -> None:
        self.engine.ended(pick, how, self.now)
        self.obey()

    def refuse(self, name: str, how: How = How.REFUSED) -> None:
        """A request is sent to this pod, which does not let it in."""
        pick = self.pick(name)
        self.dialled(pick, how)
        self.ended(pick, how)

    def request(self, name: str, how: How = How.OK, *, bad: bool = False) -> None:
        """A request on an open connection to this pod, as short as can be."""
        pick = self.pick(name)
        if how is How.OK:
            self.responded(pick, bad)
        self.ended(pick, how)

    def sour(self, name: str, times: int = 5) -> None:
        for _ in range(times):
            self.request(name, bad=True)

    def picked(self, count: int = 60) -> set[str]:
        """The pods that requests go to now, none of them a trial: with each throw that the dice may give."""
        found = set()
        loaded = self._dice.value
        for throw in range(count):
            self._dice.value = throw / count
            pick = self.pick(safe=False)
            found.add(name_of(pick.key))
            self.ended(pick, How.LOCAL)
        self._dice.value = loaded
        return found

    # ---- what happened

    def view(self, name: str) -> MemberView | None:
        views = self.engine.snapshot(self.now).members
        return next((view for view in views if view.endpoint.key == key(name)), None)

    def state(self, name: str) -> State:
        """GONE when it is not known any more."""
        view = self.view(name)
        return State.GONE if view is None else view.state

    @property
    def states(self) -> dict[str, str]:
        views = self.engine.snapshot(self.now).members
        return {name_of(view.endpoint.key): view.state.value for view in views}

    @property
    def listed(self) -> set[str]:
        return {name_of(endpoint.key) for endpoint in self.engine.snapshot(self.now).endpoints}

    @property
    def asked(self) -> list[float]:
        return [at for at, effect in self.log if isinstance(effect, Ask)]

    def probes(self, name: str) -> list[float]:
        return [at for at, effect in self.log if isinstance(effect, Probe) and effect.endpoint.key == key(name)]

    @property
    def forgotten(self) -> list[tuple[float, str]]:
        return [(at, name_of(effect.key)) for at, effect in self.log if isinstance(effect, Forget)]

    @property
    def admitted(self) -> list[tuple[float, int]]:
        return [(at, effect.count) for at, effect in self.log if isinstance(effect, Admit)]

    @property
    def moves(self) -> list[str]:
        """As lines: "12.5 b: ready -> failing (refused)"."""
        return [
            f"{at:g} {name_of(move.endpoint.key)}: {move.before.value if move.before else 'new'} -> "
            f"{move.after.value} ({move.why})"
            for at, effect in self.log
            if isinstance(effect, Changed)
            for move in effect.change.moves
        ]
