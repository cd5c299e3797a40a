"""Whatever facts come, in whatever order: hypothesis throws them at one engine and looks at what must always hold."""

from __future__ import annotations

import random
from math import isfinite

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headlessconn.core.effects import Admit, Ask, Changed, Effect, Forget, Probe
from headlessconn.core.endpoint import Answer, How
from headlessconn.core.engine import FAR, Engine
from headlessconn.core.member import MOVES, State
from headlessconn.core.pick import Pick
from headlessconn.core.refresh import GUARD
from headlessconn.errors import PickEnded
from headlessconn.options import Options, Policy
from tests.core.dice import repeatable
from tests.core.play import TARGET, key, name_of

PODS = "abcdef"
GAPS = st.sampled_from([0.0, 0.001, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 61.0, 1100.0])
POLICIES = st.sampled_from(["peak_ewma", "least_request", "round_robin"])
HOWS = st.sampled_from(list(How))


class Facts(RuleBasedStateMachine):
    """The driver here is as bad as one may be: it wakes the engine late, or not at all, and answers when it likes."""

    @initialize(policy=POLICIES, limit=st.sampled_from([0, 1, 2, 5]), hold=st.sampled_from([0.0, 10.0]))
    def begin(self, policy: Policy, limit: int, hold: float) -> None:
        self.options = Options(policy=policy, consecutive_failures=limit, hold_nx=hold)
        self.now = 100.0
        self.engine = Engine(TARGET, self.options, random.Random(7), self.now)
        self.open: list[Pick] = []
        self.over: list[Pick] = []
        self.streaming: set[Pick] = set()
        self.ask: int | None = None
        self.ask_at = 0.0
        self.asked_at: list[float] = []
        self.probes: list[int] = []
        self.waiting = 0
        self.listed: set[str] = set()
        self.states: dict[str, State] = {}
        self.forgotten: list[str] = []

    # ---- the law

    def obey(self) -> None:
        for effect in self.engine.take():
            self.carry_out(effect)
        assert self.engine.outbox == ()

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Ask(id=ask):
                overdue = self.now >= self.ask_at + self.options.lookup_timeout + GUARD
                assert self.ask is None or overdue, "one question at a time, unless it was given up"
                if self.asked_at:
                    assert self.now - self.asked_at[-1] >= self.options.refresh_min - 1e-6
                self.ask, self.ask_at = ask, self.now
                self.asked_at.append(self.now)
            case Probe(id=probe, endpoint=endpoint, timeout=timeout):
                assert probe not in self.probes
                assert timeout == self.options.connect_timeout
                [view] = [m for m in self.engine.snapshot(self.now).members if m.endpoint == endpoint]
                assert view.state is State.FAILING, "who is well, or gone, is not probed"
                self.probes.append(probe)
            case Forget(key=gone):
                self.forgotten.append(name_of(gone))
            case Admit(count=count):
                assert count == self.waiting
            case Changed(change=change):
                ejected = sum(state is State.EJECTED for state in self.states.values())
                serving = ejected + sum(state is State.READY for state in self.states.values())
                for move in change.moves:
                    if (move.before, move.after) == (State.READY, State.EJECTED):
                        assert ejected < max(1, serving // 2)
                        assert serving - ejected > 1, "the last one that is ready stays"
                    name = name_of(move.endpoint.key)
                    assert self.states.pop(name, None) is move.before, "every move is told, in order"
                    assert move.before is None or move.after in {
                        after for (before, _), after in MOVES.items() if before is move.before
                    }
                    if move.after is not State.GONE:
                        self.states[name] = move.after
                self.listed |= {name_of(endpoint.key) for endpoint in change.added}
                removed = [name_of(endpoint.key) for endpoint in change.removed]
                self.listed -= set(removed)
                assert change.size == len(self.listed)
                assert sorted(self.forgotten) == sorted(removed), "connections of whoever leaves are forgotten, once"
                self.forgotten = []
            case _:
                raise AssertionError(f"an effect that nobody knows: {effect!r}")

    # ---- time

    @rule(gap=GAPS)
    def time_passes(self, gap: float) -> None:
        self.now += gap

    @rule()
    def the_alarm_rings(self) -> None:
        self.now = max(self.now, self.engine.wakeup_at)
        self.engine.wake(self.now)
        self.obey()
        assert self.engine.wakeup_at > self.now, "what was due is done: it would ring for ever"
        held_for = self.engine.snapshot(self.now).held_for
        assert held_for is None or held_for > 0.0

    @rule()
    def it_is_woken_for_nothing(self) -> None:
        self.engine.wake(self.now)
        self.obey()

    @rule(seconds=st.floats(0.5, 5.0))
    def our_loop_stalled(self, seconds: float) -> None:
        self.now += seconds
        self.engine.overslept(seconds, self.now)
        self.obey()

    # ---- the source

    @rule(
        kind=st.sampled_from(["records", "records", "nobody", "no_news"]),
        names=st.sets(st.sampled_from(PODS), min_size=1),
        ttl=st.sampled_from([0.0, 1.0, 5.0, 30.0]),
        late=st.booleans(),
    )
    def an_answer(self, kind: str, names: set[str], ttl: float, late: bool) -> None:
        if self.ask is None:
            return
        ask = self.ask - 1 if late else self.ask
        keys = frozenset(map(key, names)) if kind == "records" else frozenset()
        answer = Answer("dns", kind, keys, ttl=None if kind == "no_news" else ttl, why="said")  # type: ignore[arg-type]
        given_up = self.engine.refresh.asking != self.ask
        self.engine.answered(answer, self.now, ask)
        self.obey()
        if late or given_up:
            return
        self.ask = None
        if kind == "records":
            assert self.listed == names
            assert self.engine.snapshot(self.now).held_for is None
        if kind == "nobody" and self.options.hold_nx == 0.0:
            assert not self.listed

    @rule(names=st.sets(st.sampled_from(PODS), min_size=1))
    def a_source_pushes(self, names: set[str]) -> None:
        self.engine.answered(Answer("dns", "records", frozenset(map(key, names)), ttl=5.0, why="pushed"), self.now)
        self.ask = None  # its answer will be dropped
        self.obey()
        assert self.listed == names

    # ---- requests

    @rule(avoid=st.sets(st.sampled_from(PODS)), safe=st.booleans())
    def a_pick(self, avoid: set[str], safe: bool) -> None:
        found = self.engine.pick(self.now, frozenset(map(key, avoid)), safe)
        self.obey()
        if isinstance(found, Pick):
            assert name_of(found.key) in self.listed - avoid
            self.open.append(found)
        elif found.all_avoided:
            assert self.listed
            assert self.listed <= avoid

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), how=HOWS)
    def a_dial_ended(self, which: int, how: How) -> None:
        self.engine.dialled(self.open[which % len(self.open)], how, self.now)
        self.obey()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), bad=st.booleans())
    def a_head_came(self, which: int, bad: bool) -> None:
        self.engine.responded(self.open[which % len(self.open)], bad, self.now)
        self.obey()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99))
    def it_streams(self, which: int) -> None:
        pick = self.open[which % len(self.open)]
        self.engine.streams(pick)
        self.streaming.add(pick)
        self.obey()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0, 99), how=HOWS)
    def a_pick_ended(self, which: int, how: How) -> None:
        pick = self.open.pop(which % len(self.open))
        self.engine.ended(pick, how, self.now)
        self.obey()
        self.over.append(pick)

    def request_to(self, name: str) -> Pick | None:
        """A pick of one pod: all others are avoided."""
        others = frozenset(key(other) for other in PODS if other != name)
        pick = self.engine.pick(self.now, others)
        self.obey()
        return pick if isinstance(pick, Pick) else None

    @rule(name=st.sampled_from(PODS), times=st.sampled_from([1, 5]))
    def a_pod_answers_badly(self, name: str, times: int) -> None:
        for _ in range(times):
            if pick := self.request_to(name):
                self.engine.responded(pick, True, self.now)
                self.obey()
                self.engine.ended(pick, How.OK, self.now)
                self.obey()

    @rule(name=st.sampled_from(PODS))
    def a_pod_refuses(self, name: str) -> None:
        if pick := self.request_to(name):
            self.engine.dialled(pick, How.REFUSED, self.now)
            self.obey()
            self.engine.ended(pick, How.REFUSED, self.now)
            self.obey()
            assert self.states.get(name) in (State.FAILING, None)

    @rule(name=st.sampled_from(PODS))
    def a_pod_lets_one_in(self, name: str) -> None:
        if pick := self.request_to(name):
            self.engine.dialled(pick, How.OK, self.now)
            self.obey()
            self.open.append(pick)
            assert self.states[name] is not State.FAILING

    @precondition(lambda self: self.over)
    @rule(which=st.integers(0, 99), how=HOWS)
    def a_pick_ended_twice(self, which: int, how: How) -> None:
        try:
            self.engine.ended(self.over[which % len(self.over)], how, self.now)
        except PickEnded:
            self.obey()
        else:
            raise AssertionError("it ended twice, and nobody complained")

    # ---- probes and waiting callers

    @precondition(lambda self: self.probes)
    @rule(which=st.integers(0, 99), passed=st.booleans())
    def a_probe_ended(self, which: int, passed: bool) -> None:
        self.engine.probed(self.probes.pop(which % len(self.probes)), passed, self.now)
        self.obey()

    @rule()
    def a_caller_queues(self) -> None:
        self.waiting += 1
        self.engine.queued(self.now)
        self.obey()

    @precondition(lambda self: self.waiting)
    @rule()
    def a_caller_leaves(self) -> None:
        self.waiting -= 1
        self.engine.left(self.now)
        self.obey()

    @rule()
    def somebody_looks(self) -> None:
        self.engine.needed(self.now)
        self.obey()

    # ---- what always holds

    @invariant()
    def the_alarm_is_set(self) -> None:
        assert isfinite(self.engine.wakeup_at)
        assert self.engine.wakeup_at <= self.now + FAR

    @invariant()
    def the_counts_are_right(self) -> None:
        view = self.engine.snapshot(self.now)
        assert view.waiting == self.waiting >= 0
        for member in view.members:
            here = [p for p in self.open if p.key == member.endpoint.key and p.member.state is not State.GONE]
            assert member.in_flight == sum(pick not in self.streaming for pick in here)
            assert member.connections == sum(pick in self.streaming for pick in here)
        assert self.engine.ready == len([state for state in self.states.values() if state is State.READY])
        assert self.engine.size == len(self.listed)

    @invariant()
    def what_was_told_is_what_is_there(self) -> None:
        view = self.engine.snapshot(self.now)
        assert {name_of(member.endpoint.key): member.state for member in view.members} == self.states
        assert {name_of(endpoint.key) for endpoint in view.endpoints} == self.listed
        for name, state in self.states.items():
            assert (name in self.listed) is (state is not State.DRAINING)
        for member in view.members:
            assert (member.state is not State.DRAINING) or member.in_flight or member.connections
            assert member.latency is None or 0.0 <= member.latency < 1e6

    @invariant()
    def a_question_under_way_is_told(self) -> None:
        if self.engine.refresh.asking:
            assert self.engine.refresh.asking == self.ask


TestFacts = Facts.TestCase
TestFacts.settings = settings(repeatable, max_examples=150, stateful_step_count=50)
