"""One look-up of a target, sans-IO: which questions to ask next, and what the replies mean.

The runtime asks what `questions` holds (all of them at once), tells the replies, and goes on until `answer` is set.
What must survive from one look-up to the next (the pinned name, the address family) is in `Memory`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, TypeAlias

from headlessconn.core.endpoint import Answer, Facts, Key
from headlessconn.core.names import Search
from headlessconn.core.target import Target
from headlessconn.options import Options

RecordType: TypeAlias = Literal["A", "AAAA", "SRV"]

# RFC 2308 allows hours; a client that believes it would miss its pods for as long. CoreDNS says 5 or 30.
NEGATIVE_MAX = 300.0
TTL_MAX = 86400.0  # a TTL of years (RFC 2181 allows 68) means "never" to no one here
SRV_TARGETS = 64  # questions at once for SRV targets that came without glue
SRV_TARGETS_MAX = 1024  # and in all: a look-up has three seconds
NAME_MAX = 254  # characters, the final dot among them: 255 bytes in a message
_SIZES = {"A": 4, "AAAA": 16}  # bytes of an address


@dataclass(frozen=True, slots=True)
class Question:
    name: str  # absolute, lower case
    type: RecordType


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said to one question, already checked against it.

    rcode      "NOERROR", "NXDOMAIN"; anything else ("SERVFAIL", "timeout", "malformed" …) is no news
    addresses  packed addresses of the question's name, CNAMEs followed
    services   (port, target) of SRV records
    glue       packed addresses from the additional section, by name
    ttl        seconds, the smallest over the records that were used, CNAMEs and glue included
    negative_ttl  min(SOA TTL, SOA minimum) by RFC 2308, when there was a SOA
    truncated  TC was set although it came over TCP: the rest cannot be had
    """

    rcode: str
    addresses: frozenset[bytes] = frozenset()
    services: Sequence[tuple[int, str]] = ()
    glue: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    ttl: float | None = None
    negative_ttl: float | None = None
    truncated: bool = False
    transport: str = "udp"

    @property
    def is_empty(self) -> bool:
        return not self.addresses and not self.services


@dataclass(slots=True)
class Memory:
    """What one target's look-ups know from before.

    pinned        the absolute name that once gave records inside the cluster's zone: the only one asked from then on.
                  Kubernetes says NXDOMAIN for "no ready pod", so a walk that began again would run on into the node's
                  own domain and its wildcards.
    family        the address family in use, "A" or "AAAA"
    empty_since   since when that family has been empty while the other had records
    answered      whether any server ever said something about the name
    """

    pinned: str | None = None
    family: RecordType | None = None
    empty_since: float = inf
    answered: bool = False


class Lookup:
    """A look-up under way."""

    def __init__(self, target: Target, search: Search, options: Options, memory: Memory, now: float) -> None:
        self.questions: tuple[Question, ...] = ()
        self.answer: Answer | None = None
        self._target = target
        self._search = search
        self._options = options
        self._memory = memory
        self._now = now
        self._prefix = f"_{target.port_name}._tcp." if target.port_name else ""
        self._by_srv = target.port is None
        candidates = (memory.pinned,) if memory.pinned else search.candidates(target.host, target.absolute)
        self._walked = tuple(candidates)
        self._candidates = [name for name in candidates if len(self._prefix + name) <= NAME_MAX]
        self._name = ""
        self._meant = candidates[0]  # the name to speak of when none gives records
        self._families: list[RecordType] = []
        self._nodata: tuple[str, Reply] | None = None  # a candidate in the zone that exists without records
        self._nxdomain: Reply | None = None
        self._namespace_asked = self._is_namespace_question = False
        self._ours = False  # the namespace exists, so nothing outside the zone is ever meant
        self._first_empty: Reply | None = None
        self._srv: Reply | None = None
        self._without_glue: list[str] = []  # targets that came without an address
        self._unasked: list[str] = []  # those of them still to be asked for in this family
        self._found: dict[str, frozenset[bytes]] = {}
        self._next_candidate()

    def told(self, replies: Sequence[Reply]) -> None:
        """The replies to `questions`, in their order."""
        for reply in replies:
            if reply.rcode not in ("NOERROR", "NXDOMAIN"):
                return self._no_news(reply.rcode)
        self._memory.answered = True
        if self._srv is not None:
            return self._srv_addresses(replies)
        if self._is_namespace_question:
            return self._namespace(replies)
        reply = replies[0]
        if self._by_srv:
            return self._services(reply)
        self._addresses(reply)

    # ---- the walk over candidates ------------------------------------------------------------------------------

    def _next_candidate(self) -> None:
        while self._candidates:
            self._name = name = self._candidates[0]
            if not self._search.is_inside(name) and self._must_ask_namespace():
                return self._ask_namespace()
            self._candidates.pop(0)
            if self._ours and not self._search.is_inside(name):
                continue  # an answer from outside the zone (a wildcard of the node's domain) is never used
            if self._by_srv:
                return self._ask(Question(self._prefix + name, "SRV"))
            self._families = self._family_order()
            return self._ask(Question(name, self._families.pop(0)))
        if self._must_ask_namespace():
            return self._ask_namespace()
        self._exhausted()

    def _must_ask_namespace(self) -> bool:
        """All candidates inside the zone were NXDOMAIN: is the name ours and empty, or somebody else's?"""
        if self._namespace_asked or self._memory.pinned or self._nodata or self._target.absolute:
            return False
        if not self._search.in_cluster or self._nxdomain is None:
            return False
        return bool(self._search.namespace_names(self._target.host))

    def _ask_namespace(self) -> None:
        self._namespace_asked = self._is_namespace_question = True
        self._ask(*(Question(name, "A") for name in self._search.namespace_names(self._target.host)))

    def _namespace(self, replies: Sequence[Reply]) -> None:
        self._is_namespace_question = False
        existing = [q.name for q, reply in zip(self.questions, replies, strict=True) if reply.rcode == "NOERROR"]
        if existing:
            self._ours = True
            inside = [name for name in self._walked if name.endswith(f".{existing[0]}")]
            self._meant = min(inside, key=len, default=self._meant)
        self._next_candidate()

    def _exhausted(self) -> None:
        if self._nodata is not None:
            name, reply = self._nodata
            self._nobody("NODATA", name, reply)
        elif self._nxdomain is not None:
            why = "NODATA" if self._nxdomain.rcode == "NOERROR" else "NXDOMAIN"  # the former from outside the zone
            self._nobody(why, self._meant, self._nxdomain)
        else:
            self._no_news("no name to ask")

    # ---- A and AAAA --------------------------------------------------------------------------------------------

    def _family_order(self) -> list[RecordType]:
        match self._options.family:
            case "4":
                return ["A"]
            case "6":
                return ["AAAA"]
        first: RecordType = self._memory.family or "A"
        return [first, "AAAA" if first == "A" else "A"]

    def _addresses(self, reply: Reply) -> None:
        question = self.questions[0]
        if reply.truncated:
            return self._no_news("truncated over TCP")
        memory = self._memory
        if reply.addresses:
            if not self._may_use(question.type):
                return self._nobody("NODATA", self._name, self._first_empty or reply)
            port = self._target.port or 0
            suffix = port.to_bytes(2, "big")
            return self._records(frozenset([address + suffix for address in reply.addresses]), reply)
        if self._families and (reply.rcode == "NOERROR" or memory.family is not None):
            # NODATA: the other family. After NXDOMAIN only when a family was in use: caches hold (name, type), so
            # that one may say NXDOMAIN for A and another still have AAAA.
            self._first_empty = reply
            return self._ask(Question(self._name, self._families.pop(0)))
        if memory.family is not None and question.type != memory.family:
            memory.empty_since = inf  # both are empty: this is no change of family
        self._empty(self._better_negative(reply))

    def _better_negative(self, reply: Reply) -> Reply:
        """Of the two families' empty replies the one that says the name exists."""
        first, self._first_empty = self._first_empty, None
        return first if first is not None and first.rcode == "NOERROR" else reply

    def _may_use(self, family: RecordType) -> bool:
        """Another family than the one in use only after that was empty for hold_nx while the other had records."""
        memory = self._memory
        if memory.family is not None and family != memory.family:
            memory.empty_since = min(memory.empty_since, self._now)
            if self._now - memory.empty_since < self._options.hold_nx:
                return False
        memory.family, memory.empty_since = family, inf
        return True

    # ---- SRV ---------------------------------------------------------------------------------------------------

    def _services(self, reply: Reply) -> None:
        if not reply.services:
            if reply.truncated:
                return self._no_news("truncated over TCP")
            self._memory.empty_since = inf  # both families are empty: this is no change of family
            return self._empty(reply)
        ports = {port for port, _ in reply.services}
        if not self._prefix and len(ports) > 1:
            listed = ", ".join(map(str, sorted(ports)))
            self._nodata = (self._name, reply)
            return self._nobody(f"several ports ({listed}): name one", self._name, reply)
        if reply.truncated and len(ports) > 1:
            return self._no_news("truncated over TCP, with several ports")
        usable = dict.fromkeys(target for port, target in reply.services if port and target != ".")
        if not usable:
            return self._empty(Reply("NOERROR", negative_ttl=reply.ttl))
        self._srv = reply
        self._families = self._family_order()
        # Glue of one family is enough: in a dual-stack Service each address has a target of its own.
        self._without_glue = [target for target in usable if target not in reply.glue]
        if reply.truncated:
            # SRV overflows 64 KiB from about 840 pods on. The addresses alone fit up to 4092 of them.
            return self._ask_by_port_name()
        if self._without_glue and len(ports) == 1 and self._prefix and self._search.is_inside(self._name):
            # One question instead of one a pod: A on `_http._tcp.<service>` answers those that have that port.
            return self._ask_by_port_name()
        if len(self._without_glue) > SRV_TARGETS_MAX:
            return self._no_news(f"SRV lists {len(self._without_glue)} pods without their addresses")
        self._by_target()

    def _ask_by_port_name(self) -> None:
        self._ask(Question(self._prefix + self._name, self._families.pop(0)))

    def _ask_targets(self, family: RecordType) -> None:
        some, self._unasked = self._unasked[:SRV_TARGETS], self._unasked[SRV_TARGETS:]
        self._ask(*(Question(target, family) for target in some))

    def _srv_addresses(self, replies: Sequence[Reply]) -> None:
        """The addresses that the SRV reply came without."""
        if any(reply.truncated for reply in replies):
            return self._no_news("truncated over TCP")
        if self.questions[0].name == self._prefix + self._name:
            return self._by_port_name(replies[0])
        for question, reply in zip(self.questions, replies, strict=True):
            self._found[question.name] = self._found.get(question.name, frozenset()) | reply.addresses
        self._learn_ttl(replies)
        if self._unasked:
            return self._ask_targets(self.questions[0].type)
        self._by_target()

    def _by_port_name(self, reply: Reply) -> None:
        family = self.questions[0].type
        if not reply.addresses:
            if self._families:
                return self._ask_by_port_name()
            return self._no_address()
        if not self._may_use(family):
            return self._nobody("NODATA", self._name, reply)
        self._learn_ttl((reply,))
        srv = self._srv
        assert srv is not None
        suffix = srv.services[0][0].to_bytes(2, "big")
        keys = frozenset([address + suffix for address in reply.addresses])
        self._records(keys, replace(srv, transport=reply.transport), self._named(srv, _SIZES[family]))

    def _by_target(self) -> None:
        """The addresses of all targets, of one family. Those that came without glue are asked for first: a set lacks
        nobody."""
        srv = self._srv
        assert srv is not None
        for family in self._family_order():
            if self._without_glue and family in self._families:
                self._families.remove(family)
                self._unasked = list(self._without_glue)
                return self._ask_targets(family)
            about = self._named(srv, _SIZES[family])
            if about:
                if not self._may_use(family):
                    return self._nobody("NODATA", self._name, Reply("NOERROR", negative_ttl=srv.ttl))
                return self._records(frozenset(about), srv, about)
        self._no_address()

    def _named(self, srv: Reply, size: int) -> dict[Key, Facts]:
        """The endpoints of which a target's name and an address are known, the addresses `size` bytes long."""
        about: dict[Key, Facts] = {}
        for port, target in srv.services:
            suffix = port.to_bytes(2, "big")
            facts = Facts(target)
            for address in (*srv.glue.get(target, ()), *self._found.get(target, ())):
                if port and len(address) == size:
                    about[address + suffix] = facts
        return about

    def _no_address(self) -> None:
        """SRV lists pods: they have addresses of the family that is not wanted, or have just gone."""
        srv, self._srv = self._srv, None
        assert srv is not None
        sizes = {len(address) for glue in srv.glue.values() for address in glue}
        if sizes and sizes.isdisjoint(_SIZES[family] for family in self._family_order()):
            return self._empty(Reply("NOERROR", negative_ttl=srv.ttl))
        self._no_news("SRV lists pods, and no address can be had for them")

    def _learn_ttl(self, replies: Sequence[Reply]) -> None:
        """The set is as old as the oldest reply that it is made of."""
        srv = self._srv
        assert srv is not None
        ttl = min((r.ttl for r in (srv, *replies) if r.ttl is not None), default=None)
        self._srv = replace(srv, ttl=ttl)

    # ---- ends --------------------------------------------------------------------------------------------------

    def _ask(self, *questions: Question) -> None:
        self.questions = questions

    def _empty(self, reply: Reply) -> None:
        """This candidate has no records."""
        if reply.rcode == "NXDOMAIN":
            self._nxdomain = self._nxdomain or reply
        elif self._search.is_inside(self._name):
            self._nodata = self._nodata or (self._name, reply)
        else:
            self._nxdomain = self._nxdomain or reply
        if self._nodata is not None and not self._memory.pinned:
            # The name exists in the zone: nothing outside of it is meant (ExternalName to nowhere, a portless Service).
            self._candidates = [name for name in self._candidates if self._search.is_inside(name)]
        self._next_candidate()

    def _records(self, keys: frozenset[Key], reply: Reply, about: Mapping[Key, Facts] | None = None) -> None:
        inside = self._search.is_inside(self._name)
        if inside and not self._target.absolute:
            self._memory.pinned = self._name
        ttl = 0.0 if reply.ttl is None else min(reply.ttl, TTL_MAX)
        name = self._prefix + self._name
        self._finish(
            Answer("dns", "records", keys, about or {}, ttl, "NOERROR", name, reply.transport, outside=not inside)
        )

    def _nobody(self, why: str, name: str, reply: Reply) -> None:
        ttl = None if reply.negative_ttl is None else min(reply.negative_ttl, NEGATIVE_MAX)
        known = self._ours or self._target.absolute or self._memory.pinned or self._nodata is not None
        outside = not (self._search.is_inside(name) and known)
        name = self._prefix + name
        self._finish(Answer("dns", "nobody", ttl=ttl, why=why, name=name, transport=reply.transport, outside=outside))

    def _no_news(self, why: str) -> None:
        self._finish(Answer("dns", "no_news", why=why, name=self._prefix + self._name))

    def _finish(self, answer: Answer) -> None:
        self.questions = ()
        self.answer = answer
