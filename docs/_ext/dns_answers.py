"""What DNS answers mean, found out by asking: for each row the look-up and the engine of the library are run in virtual
time on the replies of that row, and the row says what they did."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise

from markdown_tables import table

from headlessconn.core.effects import Ask, Changed, Probe
from headlessconn.core.endpoint import Answer, How
from headlessconn.core.engine import Engine
from headlessconn.core.explain import explain
from headlessconn.core.lookup import Lookup, Memory, Question, RecordType, Reply
from headlessconn.core.member import State
from headlessconn.core.names import Search
from headlessconn.core.pick import Pick
from headlessconn.core.snapshot import Snapshot
from headlessconn.core.target import Target
from headlessconn.options import Options

OPTIONS = Options()
SEARCH = Search.of(("shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"), ndots=5)
NAME = "orders.shop.svc.cluster.local."
BY_PORT_NAME = f"_http._tcp.{NAME}"
MOMENT = 0.001  # seconds

Server = Callable[[Question], Reply]


# ---- replies -----------------------------------------------------------------------------------------------------


def packed(*numbers: int, family: RecordType = "A") -> frozenset[bytes]:
    """The addresses of pods by number: 10.244.0.N, or fd00::N."""
    before = bytes([10, 244, 0]) if family == "A" else bytes([0xFD, *[0] * 14])
    return frozenset(before + bytes([number]) for number in numbers)


def pods(*numbers: int, ttl: float = 30.0, family: RecordType = "A") -> Server:
    """The records of these pods; of the other family NODATA, of another name NXDOMAIN."""

    def serve(question: Question) -> Reply:
        if question.name != NAME:
            return NXDOMAIN
        if question.type != family:
            return Reply("NOERROR", negative_ttl=30.0)
        return Reply("NOERROR", addresses=packed(*numbers, family=family), ttl=ttl)

    return serve


def always(reply: Reply) -> Server:
    return lambda question: reply


def knows(replies: dict[tuple[str, RecordType], Reply], otherwise: Reply | None = None) -> Server:
    """A DNS server that knows these names; another type of one of them is NODATA, another name NXDOMAIN."""
    names = {name for name, _ in replies}

    def serve(question: Question) -> Reply:
        found = replies.get((question.name, question.type))
        if found is None and question.name in names:
            found = Reply("NOERROR", negative_ttl=30.0)
        return found or otherwise or NXDOMAIN

    return serve


def srv(*ports: int, glue: bool = True, truncated: bool = False) -> Reply:
    """SRV of one pod for each port, with or without their addresses beside it."""
    services = [(port, f"pod-{number}.{NAME}") for number, port in enumerate(ports, 1)]
    beside = {name: sorted(packed(number)) for number, (_, name) in enumerate(services, 1)} if glue else {}
    return Reply("NOERROR", services=services, glue=beside, ttl=30.0, truncated=truncated, transport="tcp")


NXDOMAIN = Reply("NXDOMAIN", negative_ttl=30.0)
FAILURE = Reply("SERVFAIL")
NODATA = Reply("NOERROR", negative_ttl=30.0)
THREE = pods(1, 2, 3)
A_1_2 = Reply("NOERROR", addresses=packed(1, 2), ttl=30.0)
AAAA_1_2 = Reply("NOERROR", addresses=packed(1, 2, family="AAAA"), ttl=30.0)


# ---- one client in virtual time ----------------------------------------------------------------------------------


class Dice(random.Random):
    """Always the same throw, so that the ends of what jitter does can be shown."""

    def __init__(self, throw: float) -> None:
        super().__init__(0)
        self._throw = throw

    def random(self) -> float:
        return self._throw


@dataclass
class World:
    """An engine whose look-ups are answered by `server` in no time."""

    server: Server
    throw: float = 0.0
    target: str = "orders.shop:8080"
    options: Options = OPTIONS
    now: float = 0.0
    memory: Memory = field(default_factory=Memory)
    answers: list[Answer] = field(default_factory=list)
    asked_at: list[float] = field(default_factory=list)
    added: int = 0
    removed: int = 0

    def __post_init__(self) -> None:
        self.engine = Engine(Target.parse(self.target), self.options, Dice(self.throw), self.now)
        self.until(self.now)

    def until(self, end: float) -> None:
        """Let time pass; whatever the engine wants done is done."""
        while True:
            for effect in self.engine.take():
                match effect:
                    case Ask(id=ask):
                        self.asked_at.append(self.now)
                        answer, _ = look_up(self.server, self.target, self.memory, self.options, self.now)
                        self.answers.append(answer)
                        self.engine.answered(answer, self.now, ask)
                    case Probe(id=probe):
                        self.engine.probed(probe, False, self.now)
                    case Changed(change=change):
                        self.added += len(change.added)
                        self.removed += len(change.removed)
            if self.engine.outbox:
                continue
            if self.engine.wakeup_at > end:
                break
            self.now = self.engine.wakeup_at
            self.engine.wake(self.now)
        self.now = end

    def until_asked(self) -> None:
        """Until just after the next look-up."""
        asked = len(self.asked_at)
        while len(self.asked_at) == asked:
            self.until(self.engine.wakeup_at)

    def busy(self) -> list[Pick]:
        """One request in flight at each pod."""
        picks: list[Pick] = []
        while isinstance(pick := self.engine.pick(self.now, [pick.key for pick in picks]), Pick):
            picks.append(pick)
        return picks

    @property
    def view(self) -> Snapshot:
        return self.engine.snapshot(self.now)


def look_up(
    server: Server, target: str, memory: Memory, options: Options, now: float
) -> tuple[Answer, list[Sequence[Question]]]:
    """One look-up to its end: the answer, and the questions of each round."""
    lookup = Lookup(Target.parse(target), SEARCH, options, memory, now)
    rounds: list[Sequence[Question]] = []
    while lookup.answer is None:
        rounds.append(lookup.questions)
        lookup.told([server(question) for question in lookup.questions])
    return lookup.answer, rounds


# ---- with a set in hand ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """One reply to a client which knows three pods, each with a request in flight; `refusing` of them refuse dials."""

    says: str
    server: Server
    refusing: int = 0
    before: Server = THREE


SITUATIONS = (
    Situation("the same three addresses, TTL 30", pods(1, 2, 3)),
    Situation("the same three, TTL 5", pods(1, 2, 3, ttl=5), before=pods(1, 2, 3, ttl=5)),
    Situation("the same three, TTL 0", pods(1, 2, 3, ttl=0), before=pods(1, 2, 3, ttl=0)),
    Situation("the same three, TTL 3 where it was 5 (a cache)", pods(1, 2, 3, ttl=3), before=pods(1, 2, 3, ttl=5)),
    Situation("one address more", pods(1, 2, 3, 4)),
    Situation("one address less", pods(1, 2)),
    Situation("one address less, and that pod refuses", pods(1, 2), refusing=1),
    Situation("three other addresses", pods(4, 5, 6)),
    Situation("NXDOMAIN", always(NXDOMAIN)),
    Situation("NXDOMAIN, while one pod refuses", always(NXDOMAIN), refusing=1),
    Situation("NODATA for A and AAAA", always(NODATA)),
    Situation("NODATA for A, two records for AAAA", pods(7, 8, family="AAAA")),
    Situation("SERVFAIL from every server", always(FAILURE)),
    Situation("REFUSED from every server", always(Reply("REFUSED"))),
    Situation("no reply until `lookup_timeout`", always(Reply("timeout"))),
    Situation("a malformed reply", always(Reply("a malformed reply: it ends early"))),
    Situation("truncated even over TCP", always(Reply("NOERROR", packed(1, 2), ttl=30.0, truncated=True))),
)


def answers() -> str:
    """The table of `dns-answers`."""
    rows = []
    for situation in SITUATIONS:
        seen = [_observe(situation, throw) for throw in (0.0, 1.0 - 1e-9)]
        meaning, at_once, later, _ = seen[0]
        low, high = sorted(wait for *_, wait in seen)
        rows.append((situation.says, meaning, at_once, later, _span(low, high)))
    header = ("DNS says", "which means", "the set at once", "after `hold_nx` of the same", "asked again after")
    return table(header, rows)


def _observe(situation: Situation, throw: float) -> tuple[str, str, str, float]:
    world = World(situation.before, throw)
    picks = world.busy()
    for pick in sorted(picks, key=lambda pick: pick.key)[len(picks) - situation.refusing :]:
        world.engine.dialled(pick, How.REFUSED, world.now)
    world.added = world.removed = 0
    world.server = situation.server
    world.until_asked()
    view, meaning = world.view, _kind(world.answers[-1])
    at_once = _set(view)
    gone = world.removed - len(view.of(State.DRAINING))
    news = [f"{world.added} new"] * bool(world.added) + [f"{gone} gone at once"] * bool(gone)
    assert view.next_look_in is not None
    world.until(world.now + OPTIONS.hold_nx + 2 * OPTIONS.refresh_max)
    later = _set(world.view)
    return meaning, ", ".join([at_once, *news]), "stays so" if later == at_once else later, view.next_look_in


def _kind(answer: Answer) -> str:
    match answer.kind:
        case "records":
            return "**the set**"
        case "nobody":
            return f"**nobody**: {answer.why}"
        case "no_news":
            return f"**no news**: {answer.why}"


def _set(view: Snapshot) -> str:
    """`2 pods, 1 draining`"""
    count = len(view.endpoints)
    said = [f"{count} pods" if count else "empty"]
    if view.held_for is not None:
        said.append(f"held for {view.held_for:g} s")
    if draining := view.of(State.DRAINING):
        said.append(f"{len(draining)} draining")
    return ", ".join(said)


def _span(low: float, high: float) -> str:
    low_text, high_text = f"{low:.2f}".rstrip("0").rstrip("."), f"{high:.2f}".rstrip("0").rstrip(".")
    return f"{low_text} s" if low_text == high_text else f"{low_text}–{high_text} s"


# ---- from a written name to a set --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """A target that was never looked up before, and what DNS knows."""

    target: str
    known: str
    server: Server


NAMESPACE: tuple[str, RecordType] = ("shop.svc.cluster.local.", "A")
NAMES = (
    Name("orders:8080", "the Service has two ready pods", knows({(NAME, "A"): A_1_2})),
    Name("orders.shop:8080", "the same", knows({(NAME, "A"): A_1_2})),
    Name("orders.shop.svc.cluster.local.:8080", "the same", knows({(NAME, "A"): A_1_2})),
    Name("orders.shop:8080", "only IPv6 addresses", knows({(NAME, "AAAA"): AAAA_1_2})),
    Name("orders.shop:8080", "no ready pod: NXDOMAIN, but the namespace is there", knows({NAMESPACE: NODATA})),
    Name("orders.shop:8080", "the same, and a wildcard of `corp.example` answers to anything",
         knows({("orders.shop.corp.example.", "A"): A_1_2, NAMESPACE: NODATA})),
    Name("orders.shop:8080", "nothing of all this", always(NXDOMAIN)),
    Name("api.example.com:443", "a host outside the cluster", knows({("api.example.com.", "A"): A_1_2})),
    Name("orders.shop:8080", "nothing: SERVFAIL", always(FAILURE)),
)  # fmt: skip

PORTS = (
    Name("orders.shop:http", "SRV lists two pods, with their addresses",
         knows({(BY_PORT_NAME, "SRV"): srv(8080, 8080), (NAME, "A"): A_1_2})),
    Name("orders.shop:http", "the pods' ports differ", knows({(BY_PORT_NAME, "SRV"): srv(8080, 9090)})),
    Name("orders.shop:http", "SRV comes without the addresses",
         knows({(BY_PORT_NAME, "SRV"): srv(8080, 8080, glue=False), (BY_PORT_NAME, "A"): A_1_2})),
    Name("orders.shop:http", "too many pods: SRV is cut even over TCP, and those that fit have one port",
         knows({(BY_PORT_NAME, "SRV"): srv(8080, truncated=True), (BY_PORT_NAME, "A"): A_1_2})),
    Name("orders.shop:http", "the same, with several ports",
         knows({(BY_PORT_NAME, "SRV"): srv(8080, 9090, truncated=True)})),
    Name("orders.shop:htpp", "no port of that name", knows({NAMESPACE: NODATA})),
    Name("orders.shop", "one port: SRV on the bare name lists it", knows({(NAME, "SRV"): srv(8080, 8080)})),
    Name("orders.shop", "two ports", knows({(NAME, "SRV"): srv(8080, 9090)})),
)  # fmt: skip


def walk() -> str:
    """The two tables of `dns-walk`."""
    header = ("target, and what DNS knows", "asked, in this order", "which means")
    return f"{table(header, _walks(NAMES))}\n\n**Ports by SRV**\n\n{table(header, _walks(PORTS))}"


def _walks(names: Iterable[Name]) -> Iterator[tuple[str, ...]]:
    for name in names:
        answer, rounds = look_up(name.server, name.target, Memory(), OPTIONS, 0.0)
        asked = "<br>".join(f"{question.type} `{question.name}`" for questions in rounds for question in questions)
        yield f"`{name.target}`<br>{name.known}", asked, _outcome(answer)


def _outcome(answer: Answer) -> str:
    where = "not the cluster's" if answer.outside else "the cluster's"
    match answer.kind:
        case "records":
            ports = sorted({int.from_bytes(key[-2:], "big") for key in answer.keys})
            return f"{len(answer.keys)} pods, port {' and '.join(map(str, ports))}; the name is {where}"
        case "nobody":
            return f"nobody ({answer.why}); the name is {where}"
    return f"no news ({answer.why})"


# ---- when DNS is asked again -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outage:
    says: str
    server: Server
    waiting: bool = False
    before: Server = THREE


OUTAGES = (
    Outage("NXDOMAIN, negative TTL 30", always(NXDOMAIN)),
    Outage("the same, while callers wait for an endpoint", always(NXDOMAIN), waiting=True, before=always(NXDOMAIN)),
    Outage("SERVFAIL or silence; the TTL was 30", always(FAILURE)),
    Outage("the same; the TTL was 2", always(FAILURE), before=pods(1, 2, 3, ttl=2)),
    Outage("the same, while callers wait for an endpoint", always(FAILURE), waiting=True, before=always(FAILURE)),
)


def schedule() -> str:
    """The table of `dns-schedule`: seconds between look-ups, without their jitter."""
    rows = []
    for outage in OUTAGES:
        world = World(outage.before)
        world.engine.pick(0.0)  # somebody uses it all the time, so it never falls idle
        if outage.waiting:
            world.engine.queued(world.now)
        world.server = outage.server
        world.until_asked()
        first = len(world.asked_at) - 1
        world.until(world.now + 120.0)
        rows.append((outage.says, _gaps(world.asked_at[first:])))
    return table(("DNS says from now on", "asked again after"), rows)


def _gaps(asked_at: list[float]) -> str:
    gaps = [f"{after - before:.3g} s" for before, after in pairwise(asked_at)]
    runs = [(gap, len(list(run))) for gap, run in groupby(gaps)]
    said = [gap if count == 1 else f"{gap} × {count}" for gap, count in runs[:-1]]
    return ", ".join([*said, f"then every {runs[-1][0]}" if said else f"every {runs[-1][0]}"])


# ---- in sentences ------------------------------------------------------------------------------------------------


def explained() -> str:
    """`service.explain()` of three moments."""
    well = World(pods(1, 2, 3))
    well.until(3.1)

    refused = World(pods(1, 2, 3))
    picks = refused.busy()
    refused.engine.dialled(picks[0], How.REFUSED, 0.0)
    refused.until(0.2)

    held = World(pods(1, 2, 3))
    held.server = always(NXDOMAIN)
    held.until_asked()
    held.until(held.now + 2.5)

    never = World(always(Reply("timeout")))
    never.engine.queued(0.0)
    never.until(1.5)

    moments = (
        ("All is well", well),
        ("A pod refuses", refused),
        ("DNS lists nobody", held),
        ("DNS has never answered, and somebody waits", never),
    )
    return "\n\n".join(f"{title}:\n\n```text\n{explain(world.view)}\n```" for title, world in moments)
