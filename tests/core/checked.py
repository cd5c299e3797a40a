"""A play with active checks: what each pod says to one, and when it says it."""

from __future__ import annotations

from headlessconn.checks import Check, Http
from headlessconn.core.effects import Probe
from headlessconn.core.endpoint import Answer, How
from headlessconn.options import Options
from tests.core.dice import Loaded
from tests.core.play import Play, name_of

HTTP = Http("/healthz")


class Checked(Play):
    """A play whose checks pass at once, but of pods in `fails` (which fail so) and in `holds` (kept in `held`)."""

    def __init__(
        self,
        pods: str = "abc",
        *,
        check: Check | None = HTTP,
        dice: Loaded | None = None,
        says: Answer | None = None,
        **settings: float,
    ) -> None:
        self.fails: dict[str, How] = {}
        self.holds: set[str] = set()
        self.held: dict[str, int] = {}
        options = Options(check=check, **settings)  # type: ignore[arg-type]
        super().__init__(pods, dice=dice, options=options, says=says)

    def obey(self) -> None:
        checks = [effect for effect in self.engine.outbox if isinstance(effect, Probe) and not effect.is_redial]
        if checks:
            self.log += [(self.now, probe) for probe in checks]
            rest = tuple(effect for effect in self.engine.take() if effect not in checks)
            self.engine.outbox = rest
            for probe in checks:
                name = name_of(probe.endpoint.key)
                if name in self.holds:
                    self.held[name] = probe.id
                else:
                    how = self.fails.get(name, How.OK)
                    self.engine.probed(probe.id, how is How.OK, self.now, how, "GET /healthz answered 503")
        super().obey()
        if any(isinstance(effect, Probe) and not effect.is_redial for effect in self.engine.outbox):
            self.obey()

    def report(self, name: str, how: How = How.OK) -> None:
        """The check that was held ends now."""
        self.engine.probed(self.held.pop(name), how is How.OK, self.now, how, "")
        self.obey()

    def checks(self, name: str) -> list[float]:
        return [
            at
            for at, effect in self.log
            if isinstance(effect, Probe) and not effect.is_redial and name_of(effect.endpoint.key) == name
        ]

    def use(self, until: float, names: str = "", every: float = 0.5) -> None:
        """A good answer of each pod named, every so often: the target stays in use and these are no quiet ones."""
        while self.now < until:
            self.until(min(until, self.now + every))
            for name in names:
                self.request(name)
