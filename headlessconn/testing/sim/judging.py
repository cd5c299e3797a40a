"""The judge of `trouble` seeds: what must hold whatever happens, by the world's log, never by the engine's snapshot."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from math import inf

from headlessconn.core.endpoint import Key
from headlessconn.core.member import State
from headlessconn.testing.sim.client import SimClient
from headlessconn.testing.sim.excuses import Case
from headlessconn.testing.sim.holding import PAUSE, USE
from headlessconn.testing.sim.knowing import Bucket, Known, was_ill, was_well, well_since
from headlessconn.testing.sim.promises import BURST, PER_SECOND, RATIO, REDIAL_MAX, SAVED, SENT, SILENT_MIN
from headlessconn.testing.sim.run import Run
from headlessconn.testing.sim.troubles import SECONDS, Plan
from headlessconn.testing.sim.world import World

INSTANT = 1e-6  # seconds: the same moment, rounded otherwise
SLACK = 0.05  # seconds for a look-up's own latency and what is under way at a boundary
MEMORY = 12.0  # seconds: an interval of the statistical rules, and what was under way when it began
TRIALS = (
    5  # of an ejected member in a row: the first come after 1, 2, 4 and 8 s, and some are given up by their callers
)
TRIALS_EVERY = 2.0  # seconds between those beyond, at least
QUIET = 20.0  # requests: so many may arrive before one is picked that may be a trial
LEFT = 64  # entries an engine may keep beyond what is under way


def judge(plan: Plan, run: Run, excused: Counter[str] | None = None) -> list[str]:
    """What is wrong with a run; nothing when all is well. `excused` counts the failures that had to be."""
    excused = Counter() if excused is None else excused
    faults: list[str] = []
    for client in run.clients:
        known = Known.of(client, plan.options.hold_nx)
        rules = (
            _gone(run, client, known),
            _not_ours(run, client),
            _let_go(client, known),
            told_the_law(client),
            _ended(client),
            asked_in_time(client, SECONDS),
            _ejected(plan, client),
            _left_alone(client),
            _comes_back(plan, run, client),
            _with_cause(plan, run, client),
            within_budget(client),
            _bounded(plan, client),
            _not_failed(plan, run, client, Known.of(client, plan.options.hold_nx, surely=True), excused),
        )
        faults += [f"client {client.number}: {fault}" for rule in rules for fault in rule]
    faults += _once(run)
    return faults


def _gone(run: Run, client: SimClient, known: Known) -> Iterator[str]:
    """Nobody is used or even dialled who is not in the set as DNS told it."""
    for pod in run.world.pods.values():
        probed = [at for at, who in pod.dialled if who == client.number]
        for begins, ends in known.lacks(pod.key):
            late = [*_within(client.picked[pod], begins, ends), *_within(probed, begins, ends)]
            if late:
                yield f"{pod.name} was used at {min(late):.3f}, when it was gone"
                break


def _within(times: list[float], begins: float, ends: float) -> list[float]:
    """Those after `begins` and before `ends`, of times in their order."""
    return times[bisect_right(times, begins) : bisect_left(times, ends)]


def _not_ours(run: Run, client: SimClient) -> Iterator[str]:
    """Who was found to be another Service's gets nothing until it is found otherwise, or is listed anew."""
    for at, key, meant in client.verdicts:
        if meant is not False:
            continue
        until = min((when for when, whom, _ in client.verdicts if whom == key and when > at), default=SECONDS)
        moved = min((when for when, move in client.moves if move.endpoint.key == key and when > at), default=SECONDS)
        until = min(until, moved)
        for pod in run.world.pods.values():
            if pod.key == key and (late := _within(client.picked[pod], at, until)):
                yield f"{pod.name} is another Service's, which was known at {at:.3f}, and was used at {late[0]:.3f}"


def _let_go(client: SimClient, known: Known) -> Iterator[str]:
    """Long-lived connections leave a pod that left the set, when they are used next."""
    if client.holder is None:
        return
    most = USE + PAUSE + SLACK + sum(ends - begins for begins, ends in client.stalls)
    for begins, ends, key in client.holder.spans:
        for left_at, back_at in known.without(key):
            if begins <= left_at and min(ends, back_at) > left_at + most:
                name = client.world.by_key[key].name
                yield f"{name} left at {left_at:.3f}, and a connection to it of {begins:.3f} was open until {ends:.3f}"


def told_the_law(client: SimClient) -> Iterator[str]:
    if client.unarmed:
        yield f"no wake-up was armed after {client.unarmed} calls"
    begun = sum(map(len, client.picked.values()))
    if not begun == client.finished == client.engine.picks:
        yield f"{client.engine.picks} picks, of which {begun} were begun and {client.finished} ended"


def _ended(client: SimClient) -> Iterator[str]:
    """Every caller is answered or refused by its deadline, or as soon as our loop runs again."""
    for request in client.requests:
        if not request.outcome:
            yield f"request {request.id} of {request.at:.3f} was never answered"
        elif request.ended_at > request.deadline + INSTANT:
            runs_at = request.deadline
            for begins, ends in client.stalls:
                if begins <= runs_at < ends:
                    runs_at = ends
            if runs_at == request.deadline or request.ended_at > runs_at + SLACK:
                yield f"request {request.id} of {request.at:.3f} waited until {request.ended_at:.3f}"


def asked_in_time(client: SimClient, seconds: float) -> Iterator[str]:
    """Look-ups: one at a time, never closer than refresh_min, never further apart than refresh_max."""
    if client.overlapping:
        yield f"{client.overlapping} look-ups began while another was under way"
    for before, after in itertools.pairwise(client.asked):
        if after - before < client.options.refresh_min - 1e-6:
            yield f"look-ups at {before:.3f} and {after:.3f}: closer than refresh_min"
    still = sum(ends - begins for begins, ends in client.stalls)
    for (ended, _), after in zip(client.told, client.asked[1:], strict=False):
        if after - ended > client.options.refresh_max + SLACK + still:
            yield f"a look-up ended at {ended:.3f}, the next began at {after:.3f}: further than refresh_max"
    last = client.asked[-1] if client.asked else 0.0
    if seconds - last > client.options.refresh_max + client.options.lookup_timeout + SLACK + still:
        yield f"no look-up after {last:.3f}"


def _ejected(plan: Plan, client: SimClient) -> Iterator[str]:
    """At most half of the members, at least one, and never the last READY: counted when one more goes."""
    if plan.options.verify is not None:
        return  # a no from `verify` is knowledge, and has no cap
    states: dict[Key, State] = {}
    for at, move in client.moves:
        key = move.endpoint.key
        if move.after is State.EJECTED:
            ready = sum(state is State.READY for other, state in states.items() if other != key)
            ejected = sum(state is State.EJECTED for other, state in states.items() if other != key)
            most = max(1, (ready + 1 + ejected) // 2)
            if not ready:
                yield f"{move.endpoint} was ejected at {at:.3f}, the last one READY"
            elif ejected + 1 > most:
                yield f"{move.endpoint} was ejected at {at:.3f} beside {ejected} others, with {ready} READY left"
        states[key] = move.after


def _left_alone(client: SimClient) -> Iterator[str]:
    """An ejected member is tried ever more seldom while one of the READY ones is well: else a trial costs nothing."""
    states: dict[Key, State] = {}
    since: dict[Key, float] = {}
    tried: Counter[Key] = Counter()
    trials = client.trials[::-1]
    for at, move in [*client.moves, (client.world.now, None)]:
        ready = [key for key, state in states.items() if state is State.READY]
        while trials and trials[-1][0] < at:
            when, whom = trials.pop()
            if whom in since and any(_is_well(client.world, key, when) for key in ready):
                tried[whom] += 1
        for key, began in list(since.items()):
            if move is None or move.endpoint.key == key or (move.before is State.READY and len(ready) == 1):
                del since[key]
                if tried[key] > TRIALS + (at - began) / TRIALS_EVERY:
                    name = client.world.by_key[key].name
                    yield f"{name} was ejected at {began:.3f}, and tried {tried[key]} times until {at:.3f}"
        if move is not None:
            states[move.endpoint.key] = move.after
            if move.after is State.EJECTED and State.READY in states.values():
                since[move.endpoint.key] = at
                tried[move.endpoint.key] = 0


def _is_well(world: World, key: Key, at: float) -> bool:
    """Whether the pod that had this address then was as it should be."""
    pod = [pod for pod in world.pods.values() if pod.key == key and pod.history[0].at <= at][-1]
    return was_well(pod, at, at)


def _comes_back(plan: Plan, run: Run, client: SimClient) -> Iterator[str]:
    """Who is well again is used again: a FAILING member by its next re-dial, an EJECTED one by its next trial, and at
    the latest by the first of them that goes well."""
    if plan.options.verify is not None or client.lacked_sockets:
        return
    stalls = sum(ends - begins for begins, ends in client.stalls)
    answered = {(r.at, r.pod): r.ended_at for r in client.requests if r.outcome == "ok" and not r.troubles}
    failed: Counter[Key] = Counter()  # ejections, trials and checks: each doubles the next sentence
    out: dict[Key, tuple[float, State]] = {}
    for at, move in [*client.moves, (SECONDS, None)]:
        for key, (began, state) in list(out.items()):
            if move is not None and move.endpoint.key != key:
                continue
            del out[key]
            pod = run.world.by_key[key]
            since = max(began, well_since(pod, at))
            most = REDIAL_MAX + plan.options.connect_timeout
            if state is State.EJECTED:
                trials = [when for when, whom in client.trials if whom == key and began < when < at]
                in_vain = [when for when, whom in client.checked_badly if whom == key and began <= when < at]
                if client.holder is not None:
                    in_vain += [when for when, whom in client.holder.failures if whom == key and began < when < at]
                for trial in trials:
                    good = answered.get((trial, pod.name))
                    if good is None or good > trial + SILENT_MIN:  # it was silent first, which counts
                        in_vain.append(trial)
                    if good is not None and good < at - SLACK and was_well(pod, trial, good):
                        yield f"{pod.name} was tried at {trial:.3f}, answered well, and was still ejected at {at:.3f}"
                failed[key] += _times(in_vain, plan.options.eject_base / 2.0)
                sentence = plan.options.eject_base * 2.0 ** (failed[key] - 1)
                most = min(sentence, plan.options.eject_max) + plan.traffic.patience + QUIET / plan.traffic.rate
                if client.holder is not None:
                    most += 2.0 * plan.options.connect_timeout  # a trial may be a dial, with a login that hangs
            if at - since > most + stalls + SLACK:
                yield f"{pod.name} was well from {since:.3f} on, and still {state.value} at {at:.3f}"
        if move is not None and move.after in (State.FAILING, State.EJECTED):
            failed[move.endpoint.key] += move.after is State.EJECTED
            out[move.endpoint.key] = (at, move.after)


def _times(moments: list[float], apart: float) -> int:
    """How many, where those that are closer than `apart` count once."""
    count, last = 0, -inf
    for at in sorted(moments):
        if at >= last + apart:
            count, last = count + 1, at
    return count


def _with_cause(plan: Plan, run: Run, client: SimClient) -> Iterator[str]:
    """Nobody is taken out who was well: a move to FAILING or EJECTED has a cause in the world."""
    for at, move in client.moves:
        if move.before is State.READY and move.after in (State.FAILING, State.EJECTED):
            begins = at - MEMORY - plan.traffic.patience
            key = move.endpoint.key
            pods = [pod for pod in run.world.pods.values() if pod.key == key and pod.history[0].at <= at]
            if all(not was_ill(pod, begins, at) for pod in pods[-1:]) and pods[-1].history[0].at < begins:
                yield f"{pods[-1].name} was well, and became {move.after.value} at {at:.3f}: {move.why}"


def within_budget(client: SimClient) -> Iterator[str]:
    """Attempts beyond those asked for: 20 % of requests and one a second, saved up for ten seconds at most."""
    times = client.firsts
    busiest = max((bisect_left(times, at + 1.0) - index for index, at in enumerate(times)), default=0)
    bucket = Bucket(RATIO, PER_SECOND, max(BURST, RATIO * SAVED * (busiest + 1)))
    earned = 0
    for at, extra in sorted([(at, False) for at in times] + [(at, True) for at in client.extras]):
        earned += not extra
        if extra:
            bucket.earn(earned, at)
            earned = 0
            bucket.tokens -= 1.0
            if bucket.tokens < -1e-6:
                yield f"the attempt at {at:.3f} is more than the budget allows"
                return


def _bounded(plan: Plan, client: SimClient) -> Iterator[str]:
    """Nothing grows: neither the queue of callers nor what the engine keeps of them."""
    engine = client.engine
    if client.longest > plan.options.max_waiting:
        yield f"{client.longest} callers waited, more than max_waiting={plan.options.max_waiting}"
    if engine.waiting:
        yield f"{engine.waiting} callers wait still, though all have ended"
    if client.holder is not None:
        holder = client.holder
        if holder.claims != holder.ended or holder.opened != len(holder.spans):
            yield (
                f"{holder.claims} connections were dialled, {holder.ended} of the dials ended; "
                f"{holder.opened} were open, {len(holder.spans)} closed"
            )
    last = {move.endpoint: move.after for _, move in client.moves}
    for endpoint in [endpoint for endpoint, state in last.items() if state is State.DRAINING]:
        yield f"{endpoint} is still draining, though nothing is open on it any more"
    if engine._owed:
        yield f"{len(engine._owed)} answers are still owed, though all have ended"
    timers = len(engine._health._timers) + len(engine._health._probes)
    if timers > LEFT + len(client.moves):
        yield f"{timers} timers are kept"
    if client.wakes > SECONDS * 40.0 + 2 * len(client.requests):
        yield f"its timer fired {client.wakes} times"


def _not_failed(plan: Plan, run: Run, client: SimClient, known: Known, excused: Counter[str]) -> Iterator[str]:
    """No request fails while a healthy listed pod is there, but for the reasons in `excuses.py`."""
    for request, excuse in Case(run.world, client, plan.options, known).judged():
        if excuse:
            excused[excuse] += 1
        else:
            steps = "; ".join(
                f"{t.pod} from {t.began_at:.3f}, sent {t.sent_at:.3f}, {t.how.value} at {t.ended_at:.3f}"
                for t in request.troubles
            )
            may = "repeatable" if request.kind.repeatable else "not repeatable"
            yield (
                f"request {request.id} of {request.at:.3f} ({may}) ended as {request.outcome!r} at "
                f"{request.ended_at:.3f} although a healthy pod was there: {steps or 'it was tried nowhere'}"
            )


def _once(run: Run) -> Iterator[str]:
    """A request that may not be sent twice is received once at most; any other, three times."""
    counts = Counter((number, request) for pod in run.world.pods.values() for _, number, request in pod.received)
    for (number, request), count in counts.items():
        if count > SENT:
            yield f"client {number}: request {request} was received {count} times"
        if count > 1 and not run.clients[number].requests[request].kind.repeatable:
            yield f"client {number}: request {request} was received {count} times, and may not be repeated"
