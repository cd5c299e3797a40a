"""The conformance cases, replayed: a scripted server says byte by byte what the cluster's DNS said, over real sockets.

Two readings of ours beside the file's:

*Family "any"* is our option "auto": A and AAAA never mix in one set, since a dual-stack pod would count twice. Where a
case expects both families (cip-07), the set must be exactly the part of it that is of one family.

*A target with neither a port nor a port's name* (hdl-17, a Service without ports): a client cannot dial what has no
port, so SRV is asked first, and what it does not know ends in a plain "nobody", NODATA. The addresses without a port,
which the case expects, are what `headlessconn resolve` is for.
"""

import random
from ipaddress import ip_address
from itertools import accumulate
from struct import pack

import dns.name
import pytest

import headlessconn
import headlessconn._runtime.dns as dns_runtime
from headlessconn._runtime.wire import question_of
from headlessconn.core.endpoint import Answer, address_of, port_of
from headlessconn.core.names import Search
from tests.runtime.dns_cases import CASES, FAMILIES, LATER, STEPS, TRANSPORT, WIRE, Case, listed, name_of, target_of
from tests.runtime.scripted_dns import SOA, WEB, Asked, Datagrams, Scripted, look_up, reply, settings, source

NO_PORT = "hdl-17"
WALKS_ON = {
    "ext-05": "NODATA ends the walk of dnspython; glibc goes on, and so do we, within the zone: nothing is there, so "
    "that the answer is the same",
}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stalls for a second must not make a second try of one."""
    monkeypatch.setattr(dns_runtime, "TRY_TIMEOUT", 30.0)


def test_every_case_is_tried_here_or_in_virtual_time_or_waits_for_the_watch() -> None:
    groups = (WIRE, TRANSPORT, STEPS, LATER)
    assert len(CASES) == sum(map(len, groups)) == 69
    assert {case["id"] for group in groups for case in group} == {case["id"] for case in CASES}
    assert [case["id"] for case in LATER] == [f"esl-{number:02}" for number in range(1, 16, 2)]


# ---- cases with exact replies ------------------------------------------------------------------------------------


class Script:
    """The server of one case. Beside what the case scripts it knows which namespaces and Services there are, since we
    ask for those where a walk found nothing; every other question is an error of ours, noted and refused."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.unscripted: list[str] = []
        self.about_namespaces: list[Asked] = []
        self._wire = {(said["qname"], said["qtype"]): said for said in case["wire"]}
        if case["id"] == NO_PORT:  # measured: SRV of a Service without ports is NODATA
            self._wire[WEB, "SRV"] = self._wire[WEB, "A"] | {"answer": [], "authority": [SOA]}
        conf = case["resolv_conf"]
        search = Search.of(tuple(conf["search"]), conf["ndots"])
        self._asked_of_namespaces = search.namespace_names(case["query"]["name"])

    def __call__(self, asked: Asked) -> Datagrams:
        said = self._wire.get((asked.name, asked.type))
        if said is not None:
            return [
                reply(
                    asked.wire,
                    said["answer"],
                    said["authority"],
                    said["additional"],
                    rcode=said["rcode"],
                    authoritative=said["aa"],
                )
            ]
        if asked.name in self._asked_of_namespaces:
            self.about_namespaces.append(asked)
            return [reply(asked.wire, authority=[SOA], rcode="NOERROR" if self._exists(asked.name) else "NXDOMAIN")]
        if self.case["id"] in WALKS_ON and asked.name in self.case["candidate_names"]:
            return [reply(asked.wire, authority=[SOA], rcode="NXDOMAIN")]
        self.unscripted.append(asked.text)
        return [reply(asked.wire, rcode="REFUSED")]

    def _exists(self, name: str) -> bool:
        """A namespace, or a Service with a ready pod."""
        objects = self.case["objects"]
        *service, namespace = name.removesuffix(".svc.cluster.local.").split(".")
        if not service:
            return namespace in objects["namespaces"]
        slices = [one for one in objects["endpointslices"] if (one["svc"], one["ns"]) == (service[0], namespace)]
        return any(endpoint.get("ready") is not False for one in slices for endpoint in one["eps"])


def options_of(case: Case) -> dict[str, object]:
    conf = case["resolv_conf"]
    return {"search": tuple(conf["search"]), "ndots": conf["ndots"], "family": FAMILIES[case["query"]["family"]]}


@pytest.mark.parametrize("case", WIRE, ids=name_of)
async def test_a_scripted_cluster(case: Case) -> None:
    script = Script(case)
    async with Scripted(script) as server:
        looking = source(target_of(case), settings(server, **options_of(case)))
        answer = await looking.look_up()
        assert script.unscripted == []
        _is_expected(answer, case)
        asked = list(server.asked)
        _walked(asked, script)
        # The second look-up of what was found asks that name only, and of what was not found walks again.
        again = await looking.look_up()
        assert again == answer
        second = server.asked[len(asked) :]
        if answer.kind == "records":
            assert {one.name for one in second} == {asked[-1].name}
        else:
            assert [one.text for one in second] == [one.text for one in asked]


def _is_expected(answer: Answer, case: Case) -> None:
    expect = dict(case["expect"])
    if case["id"] == NO_PORT:
        assert listed(expect["endpoints"]) == {("10.244.1.51", None)}
        expect = {"outcome": "nodata", "endpoints": [], "negative_ttl": 5}
    found = {(address_of(key), port_of(key)) for key in answer.keys}
    wanted = listed(expect["endpoints"])
    versions = {ip_address(address).version for address, _ in wanted}
    if len(versions) == 2:
        assert FAMILIES[case["query"]["family"]] == "auto"
        wanted = {(address, port) for address, port in wanted if ip_address(address).version == 4}
    assert found == wanted
    match expect["outcome"]:
        case "ok":
            assert (answer.kind, answer.why, answer.ttl) == ("records", "NOERROR", expect["ttl"])
            for one in expect["endpoints"]:
                for key, facts in answer.about.items():
                    if address_of(key) == one["address"]:
                        assert facts.hostname == one["target"]
        case "nxdomain" | "nodata":
            assert (answer.kind, answer.why.lower()) == ("nobody", expect["outcome"])
            assert answer.ttl == expect["negative_ttl"]
        case "no_endpoints":
            assert (answer.kind, answer.why) == ("nobody", "NXDOMAIN")
        case other:
            pytest.fail(f"what is {other}?")


def _walked(asked: list[Asked], script: Script) -> None:
    """The questions were a part of the walk, in its order, and no more than the case allows."""
    case = script.case
    questions = [one for one in asked if one not in script.about_namespaces]
    names = list(dict.fromkeys(one.name for one in questions))
    if "candidate_names" in case:
        assert names == case["candidate_names"][: len(names)]
    assert len(questions) == len(set(questions)), "nothing is asked twice"
    assert {one.transport for one in asked} == {"udp"}
    if "queries_at_most" in case["expect"]:
        assert len(asked) <= case["expect"]["queries_at_most"]
    if "queries_exactly" in case["expect"]:
        assert len(asked) == case["expect"]["queries_exactly"]
    for forbidden in case["expect"].get("must_not", ()):
        assert forbidden == "connect to 203.0.113.99"
        assert not any(name.endswith(".corp.example.") for name in names), "not even asked for"


async def test_an_alias_is_followed_to_its_canonical_name() -> None:
    """ext-01 names the canonical name, which an `Answer` does not carry: what it has is that name's address."""
    case = next(case for case in WIRE if "canonical" in case["expect"])
    owner, address = case["wire"][0]["answer"][1].split()[::4]
    assert owner == case["expect"]["canonical"]
    async with Scripted(Script(case)) as server:
        answer = await look_up(target_of(case), server, **options_of(case))
        assert [address_of(key) for key in answer.keys] == [address]


async def test_a_pod_of_a_stateful_set_by_its_short_name_never_leads_out_of_the_cluster() -> None:
    """srch-05 again, for `db-1.db` (sts-03): the last label is a Service of the own namespace here, not a namespace."""
    case = next(case for case in WIRE if case["id"] == "sts-03")
    script = Script(case)
    options = options_of(case) | {"search": (*case["resolv_conf"]["search"], "corp.example")}
    async with Scripted(script) as server:
        answer = await look_up(target_of(case), server, **options)
        assert (answer.kind, answer.why, answer.outside) == ("nobody", "NXDOMAIN", False)
        about = {asked.name for asked in script.about_namespaces}
        assert about == {"db.svc.cluster.local.", "db.data.svc.cluster.local."}
        assert script.unscripted == []


async def test_scaled_to_zero_is_said_by_a_typed_error() -> None:
    """chg-03: what its steps mean to the set is in `test_cases_steps.py`."""
    async with (
        Scripted(lambda asked: [reply(asked.wire, authority=[SOA], rcode="NXDOMAIN")]) as server,
        headlessconn.Client(settings(server)) as client,
    ):
        service = client.service("web.shop:8080")
        with pytest.raises(headlessconn.NoEndpoints, match="NXDOMAIN"):
            async with service.pick(wait=0.1):
                pass


# ---- cases about size --------------------------------------------------------------------------------------------


class Sized:
    """A Service of so many pods, behind the limits that the case names: shuffled before it is cut, as CoreDNS does, and
    cut where the first record does not fit. Written by hand: four thousand records by dnspython take a second."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.replies: list[int] = []  # how many answer records each one had
        count = int(case["objects"]["endpointslices"][0]["generated"].split()[0])
        self.pods = [f"10.244.{20 + i // 250}.{1 + i % 250}" for i in range(count)]
        self._dice = random.Random(case["id"])

    def __call__(self, asked: Asked) -> Datagrams:
        limits = self.case["transport"]
        limit = limits.get("tcp_limit", 65535) if asked.transport == "tcp" else limits.get("udp_limit", 1232)
        opt = b"\0\0\x29\x04\xd0" + bytes(6) if limits.get("edns", True) else b""
        pods = [ip_address(pod) for pod in self._dice.sample(self.pods, len(self.pods))]
        glue: list[bytes] = []
        if asked.type == "SRV":
            targets = [dns.name.from_text(f"{str(pod).replace('.', '-')}.{WEB}").to_digestable() for pod in pods]
            answer = [_record(b"\xc0\x0c", 33, pack(">HHH", 0, 1, 8080) + target) for target in targets]
            glue = [_record(target, 1, pod.packed) for target, pod in zip(targets, pods, strict=True)]
        else:
            answer = [_record(b"\xc0\x0c", 1, pod.packed) for pod in pods]
        room = limit - 12 - len(question_of(asked.wire)) - len(opt)
        sizes = accumulate(map(len, (*answer, *glue)))
        fit = sum(1 for size in sizes if size <= room)
        flags = 0x8400 | (0x0200 if fit < len(answer) + len(glue) else 0)
        counts = (1, min(fit, len(answer)), 0, max(0, fit - len(answer)) + bool(opt))
        self.replies.append(counts[1])
        head = asked.wire[:2] + pack(">5H", flags, *counts) + question_of(asked.wire)
        return [head + b"".join((*answer, *glue)[:fit]) + opt]


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    return owner + pack(">HHIH", kind, 1, 5, len(data)) + data


@pytest.mark.parametrize("case", TRANSPORT, ids=name_of)
async def test_a_service_of_many_pods(case: Case) -> None:
    script = Sized(case)
    expect = case["expect"]
    async with Scripted(script) as server:
        answer = await look_up(target_of(case), server, **options_of(case))
        if expect["outcome"] == "partial_or_error":
            assert (answer.kind, answer.why) == ("no_news", "truncated over TCP")
            assert script.replies[-1] == 4092
            return
        assert (answer.kind, answer.ttl) == ("records", expect["ttl"])
        assert {address_of(key) for key in answer.keys} == set(script.pods)
        assert {port_of(key) for key in answer.keys} == {8080}
        assert len(answer.keys) == expect["endpoint_count"]
        transports = [asked.transport for asked in server.asked]
        assert transports == (["udp"] if expect.get("max_round_trips") == 1 else ["udp", "tcp"])
        if case["id"] in ("big-01", "big-05"):
            assert script.replies[0] == {"big-01": 29, "big-05": 7}[case["id"]], "as measured on CoreDNS"
