"""Whatever happens to pods and connections, in whatever order: the counts are right, nobody is told twice, and when
it is quiet again all is even. Hypothesis throws the facts."""

from __future__ import annotations

import random
from collections import Counter
from math import isfinite

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headlessconn.core.claim import KEEP, Claim, ConnId, Reason, Retire
from headlessconn.core.effects import Ask, Probe, Warm
from headlessconn.core.endpoint import How
from headlessconn.core.engine import Engine
from headlessconn.core.member import State
from headlessconn.options import Options
from tests.core.dice import repeatable
from tests.core.play import TARGET, name_of, records

PODS = "abcdef"
GAPS = st.sampled_from([0.0, 0.01, 0.5, 1.0, 4.0, 10.0, 35.0, 61.0])
LEFT = (State.DRAINING, State.GONE)
HOWS = st.sampled_from(list(How))
SETS = st.sets(st.sampled_from(PODS), min_size=1).map(lambda pods: "".join(sorted(pods)))


class Facts(RuleBasedStateMachine):
    @initialize(
        seed=st.integers(0, 1000),
        pods=SETS,
        max_age=st.sampled_from([None, 20.0]),
        idle_timeout=st.sampled_from([None, 30.0]),
        over=st.sampled_from([0.0, 30.0]),
    )
    def begin(self, seed: int, pods: str, max_age: float | None, idle_timeout: float | None, over: float) -> None:
        self.options = Options(max_age=max_age, idle_timeout=idle_timeout, rebalance_over=over)
        self.now = 100.0
        self.engine = Engine(TARGET, self.options, random.Random(seed), self.now)
        self.pods = pods
        self.claims: list[Claim] = []
        self.open: dict[ConnId, Claim] = {}
        self.busy: set[ConnId] = set()
        self.pushing: set[ConnId] = set()
        self.told: dict[ConnId, Reason] = {}
        self.replacing: set[ConnId] = set()
        self.pass_time(0.0)

    # ---- the law

    def obey(self) -> None:
        while self.engine.outbox:
            for effect in self.engine.take():
                match effect:
                    case Ask(id=ask):
                        self.engine.answered(records(self.pods), self.now, ask)
                    case Probe(id=probe):
                        self.engine.probed(probe, True, self.now)
                    case Warm(claim=claim, replaces=old):
                        assert old in self.open, "what is closed is not replaced"
                        assert old not in self.told, "what is told to go is not replaced"
                        assert old not in self.replacing, "one replacement at a time"
                        assert claim.replaces == old
                        self.replacing.add(old)
                        self.claims.append(claim)
                    case Retire(conn=conn, reason=reason):
                        assert conn in self.open
                        assert conn not in self.told, "once is enough"
                        assert conn not in self.busy or conn in self.pushing, "who has it in hand will ask"
                        self.judge(effect)
                        self.told[conn] = reason

    def judge(self, said: Retire) -> None:
        """A connection to a pod that is well goes only for a reason that has to do with itself or with its share."""
        state = self.open[said.conn].member.state
        if said.reason is Reason.LEFT:
            assert state in LEFT
        if said.reason is Reason.OLD:
            assert self.options.max_age is not None
        if said.reason is Reason.IDLE:
            assert self.options.idle_timeout is not None
        if said.reason is Reason.SUSPECT:
            assert state in (State.FAILING, State.EJECTED)

    def pick(self, number: int, among: list[ConnId]) -> ConnId:
        return among[number % len(among)]

    # ---- facts

    @rule(gap=GAPS)
    def pass_time(self, gap: float) -> None:
        until = self.now + gap
        while self.engine.wakeup_at <= until:
            self.now = max(self.now, self.engine.wakeup_at)
            self.engine.wake(self.now)
            self.obey()
        self.now = until

    @rule(pods=SETS)
    def change(self, pods: str) -> None:
        self.pods = pods
        self.engine.answered(records(pods), self.now)
        self.obey()

    @rule(count=st.integers(1, 5))
    def place(self, count: int) -> None:
        for _ in range(count):
            found = self.engine.place(self.now)
            self.obey()
            if isinstance(found, Claim):
                self.claims.append(found)

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0), pushes=st.booleans(), warms=st.booleans())
    def connect(self, number: int, pushes: bool, warms: bool) -> None:
        claim = self.claims.pop(number % len(self.claims))
        self.replacing.discard(claim.replaces or 0)
        conn = self.engine.opened(claim, self.now, pushes, warms)
        assert conn not in self.open
        self.open[conn] = claim
        self.busy.add(conn)
        if pushes:
            self.pushing.add(conn)
        self.obey()

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0), how=HOWS)
    def fail(self, number: int, how: How) -> None:
        claim = self.claims.pop(number % len(self.claims))
        self.replacing.discard(claim.replaces or 0)
        self.engine.failed(claim, how, self.now)
        self.obey()

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0), out=st.booleans())
    def use(self, number: int, out: bool) -> None:
        conn = self.pick(number, list(self.open))
        if conn in self.pushing:
            return
        found = (self.engine.checked_out if out else self.engine.checked_in)(conn, self.now)
        (self.busy.add if out else self.busy.discard)(conn)
        if isinstance(found, Retire):
            assert found.conn == conn
            if conn not in self.told:
                self.judge(found)
            assert self.told.setdefault(conn, found.reason) is found.reason, "what was said stays said"
        else:
            assert found is KEEP
            assert self.open[conn].member.state not in LEFT
            assert conn not in self.told
        self.obey()

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0), how=HOWS)
    def close(self, number: int, how: How) -> None:
        conn = self.pick(number, list(self.open))
        self.forget(conn)
        self.engine.closed(conn, self.now, how)
        self.engine.closed(conn, self.now, how)
        self.obey()

    def forget(self, conn: ConnId) -> None:
        del self.open[conn]
        self.busy.discard(conn)
        self.pushing.discard(conn)
        self.told.pop(conn, None)
        self.replacing.discard(conn)

    @precondition(lambda self: self.open)
    @rule(number=st.integers(0))
    def refuse(self, number: int) -> None:
        """Somebody else finds that a pod refuses."""
        claim = self.engine.place(self.now)
        if isinstance(claim, Claim):
            self.engine.failed(claim, How.REFUSED, self.now)
        self.obey()

    # ---- what must hold

    @invariant()
    def is_counted(self) -> None:
        if not hasattr(self, "engine"):
            return
        view = self.engine.snapshot(self.now)
        expected = Counter(name_of(claim.key) for claim in [*self.claims, *self.open.values()])
        gone = {claim.member for claim in [*self.claims, *self.open.values()] if claim.member.state is State.GONE}
        for member in view.members:
            name = name_of(member.endpoint.key)
            again = sum(
                claim.member in gone for claim in [*self.claims, *self.open.values()] if name_of(claim.key) == name
            )
            assert member.connections == expected[name] - again
        for found in gone:
            assert found.connections == sum(c.member is found for c in [*self.claims, *self.open.values()])
        assert view.moving == len(self.replacing)
        assert isfinite(self.engine.wakeup_at)

    def teardown(self) -> None:
        """Everybody does as he is told, for long enough: then all connections are on pods that are listed, evenly."""
        if not hasattr(self, "engine"):
            return
        self.give_up_dials()
        end = self.now + 700.0
        while self.now < end:
            for conn in list(self.open):
                if conn not in self.pushing:
                    self.use(list(self.open).index(conn), False)
            for conn in list(self.told):
                self.forget(conn)
                self.engine.closed(conn, self.now)
                self.obey()
            for claim in list(self.claims):
                pushes = claim.replaces in self.pushing
                self.claims.remove(claim)
                self.replacing.discard(claim.replaces or 0)
                conn = self.engine.opened(claim, self.now, pushes, True)
                self.open[conn] = claim
                self.busy.add(conn)
                if pushes:
                    self.pushing.add(conn)
                self.obey()
            self.pass_time(2.5)
        counts = Counter(name_of(claim.key) for claim in self.open.values())
        assert set(counts) <= set(self.pods)
        settled = [counts[name] for name in self.pods]
        assert max(settled) - min(settled) <= 1 or self.options.max_age or self.options.idle_timeout, counts
        for conn in list(self.open):
            self.engine.closed(conn, self.now)
        self.give_up_dials()
        assert all(member.connections == 0 for member in self.engine.snapshot(self.now).members)

    def give_up_dials(self) -> None:
        for claim in self.claims:
            self.engine.failed(claim, How.CANCELLED, self.now)
        self.claims.clear()
        self.replacing.clear()
        self.obey()


TestFacts = Facts.TestCase
TestFacts.settings = settings(repeatable, max_examples=60, stateful_step_count=40)
